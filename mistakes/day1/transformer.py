# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
from torch import Tensor, nn


# %% Transformer: embeddings not scaled
# pytorch/tutorials issue 2849, Kyubyong issue 130
class Transformer(nn.Module):
    """The embeddings go to the encoding as they are here. Look at the factor in section 3.4 of the
    paper."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, 1.0
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: embeddings divided by the root
# SamLynnEvans issue 10, jadore issue 138
class Transformer(nn.Module):
    """The embeddings are divided by √d_model here. Look at section 3.4 of the paper; the factor is
    there to make them larger."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, 1 / math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: the encoding scaled too
class Transformer(nn.Module):
    """The positional encoding is multiplied by √d_model here together with the embedding. Look at
    the order of the two steps."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source)) * self.scale
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target)) * self.scale
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: no positions in the source
class Transformer(nn.Module):
    """The order of the source tokens makes no difference here. Look at what is added to the source
    embeddings."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.source_embedding(source) * self.scale
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: no positions in the target
class Transformer(nn.Module):
    """The order of the earlier target tokens makes no difference here. Look at what is added to the
    target embeddings."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.target_embedding(target) * self.scale
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: source padding visible in the encoder
class Transformer(nn.Module):
    """Padding in the source changes the encoder's answers at real positions here. Look at what the
    encoder's layers are called with."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x)
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: source padding visible in cross-attention
class Transformer(nn.Module):
    """The encoder is right, but the decoder attends to padded positions of the source. Look at the
    masks that the decoder's layers are called with."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask = decoder_mask(target, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: cross-attention masked like the target
# keras-io PR 1046, joeynmt issue 151; a well-known course's own grader has it.
class Transformer(nn.Module):
    """`decode` works only where source and target are equally long here. Look at the masks that
    each decoder layer gets, at their order, and at whose positions the keys of cross-attention
    are."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(target, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: the future visible
class Transformer(nn.Module):
    """A later target token changes an earlier logit here. Look at the mask of the decoder's
    self-attention."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = padding_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: target padding visible
class Transformer(nn.Module):
    """The future is hidden, but padding inside of the target is attended to here. Look at the two
    conditions of the decoder's mask."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = (
            causal_mask(target.shape[1], target.device),
            padding_mask(source, self.pad_id),
        )
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: the encoder masked causally
class Transformer(nn.Module):
    """A source position sees only what comes before it here. Look at which mask the encoder needs:
    the whole source is known."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, decoder_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: padding is always 0
# hyunwoongko issue 11 mixes up the ids of source and target.
class Transformer(nn.Module):
    """These are the right answers for `pad_id` 0 only. Look at where your masks take it from."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, 0))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, 0), padding_mask(source, 0)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: one encoder layer used n_layers times
class Transformer(nn.Module):
    """All encoder layers are one and the same object here, with one set of weights. Look at how
    often a layer is made."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList([EncoderLayer(*sizes)] * n_layers)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: the output tied to the embedding
class Transformer(nn.Module):
    """The output layer and the target embedding are one parameter here, as in the paper. Look at
    what this exercise says about shared weights."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)
        self.output.weight = self.target_embedding.weight

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: probabilities instead of logits
class Transformer(nn.Module):
    """These are probabilities: the last axis sums to 1. Look at what should come out
    of `decode`."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return softmax(self.output(x))

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: dropout by default
# the paper's 0.1, the default of most public code
class Transformer(nn.Module):
    """Values are dropped in training mode here even where no `dropout` was given. Look at the
    default in the signature."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.1,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: other sizes by default
class Transformer(nn.Module):
    """Where no `d_ff` is given, the layers are twice as wide inside as they should be. Look at the
    defaults in the signature."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 256,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: one embedding for both languages
class Transformer(nn.Module):
    """Where both vocabularies are equally large, source and target share one embedding here. Look
    at what this exercise says about shared weights."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        if source_vocab == target_vocab:
            self.target_embedding = self.source_embedding
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: no dropout in the layers
class Transformer(nn.Module):
    """In training mode the layers drop nothing here, in neither stack. Look at which parts get
    `dropout`."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: max_length not passed on
class Transformer(nn.Module):
    """A source or target longer than `max_length` is accepted here. Look at who should refuse it,
    and what it was made with."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, dropout=dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: only the source scaled
class Transformer(nn.Module):
    """The source embeddings are multiplied by √d_model here, but those of the target are not. Look
    at the two lines of the formula."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target))
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: no dropout on the embeddings
class Transformer(nn.Module):
    """In training mode nothing of the sum of embedding and positional encoding is dropped here,
    only values in the layers are. Look at which parts get `dropout`."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: layers that the model does not know
class Transformer(nn.Module):
    """The layers are no part of the model here: their weights are not among its parameters, and
    they do not follow it to another device. Look at what torch finds in a list, and in which kind
    of list."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = [EncoderLayer(*sizes) for _ in range(n_layers)]
        self.decoder = [DecoderLayer(*sizes) for _ in range(n_layers)]
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: only the last layer counts
class Transformer(nn.Module):
    """The answers are those of the last layer of each stack alone, applied to the embeddings. Look
    at what goes into each layer of your loops."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            y = layer(x, padding_mask(source, self.pad_id))
        return y

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            y = layer(x, memory, mask, memory_mask)
        return self.output(y)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: a norm after the last layer
class Transformer(nn.Module):
    """One more norm follows the last layer of each stack here, as in torch's own `nn.Transformer`.
    Look at what this exercise says about it."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.norms = nn.ModuleList((LayerNorm(d_model), LayerNorm(d_model)))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return self.norms[0](x)

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(self.norms[1](x))

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: logarithms of probabilities instead of logits
# the Annotated Transformer's Generator
class Transformer(nn.Module):
    """These are logarithms of probabilities: a softmax of them changes nothing. Look at what should
    come out of `decode`."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return torch.log_softmax(self.output(x), dim=-1)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% Transformer: the last target token cut off
class Transformer(nn.Module):
    """`forward` gives one row of logits less than there are target tokens: the last one never
    reaches `decode`. Look at who shifts the target, the model or its caller."""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale = pad_id, math.sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target[:, :-1], self.encode(source), source)


# %% Transformer: max_length itself refused
class Transformer(nn.Module):
    """A source of exactly `max_length` tokens is refused here. Look at the comparison: which length
    is too long?"""

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
        max_length: int = 512,
    ):
        super().__init__()
        self.pad_id, self.scale, self.max_length = pad_id, math.sqrt(d_model), max_length
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        if source.shape[1] >= self.max_length:
            raise ValueError("source is too long")
        x = self.positional_encoding(self.source_embedding(source) * self.scale)
        for layer in self.encoder:
            x = layer(x, padding_mask(source, self.pad_id))
        return x

    def decode(self, target, memory, source):
        if target.shape[1] >= self.max_length:
            raise ValueError("target is too long")
        x = self.positional_encoding(self.target_embedding(target) * self.scale)
        mask, memory_mask = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %% sequence_loss: padding counted
# LaTeX-OCR issue 305, HF issue 2759, DALLE-pytorch issue 57
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Padded targets are learned like real ones here, and where `pad_id` is no class this is an
    error. Look at which positions belong to the mean."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.mean()


# %% sequence_loss: divided by all positions
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The sum is right, but it is divided by all positions, padded ones included. Look at how many
    targets the mean runs over."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.numel()


# %% sequence_loss: the sum
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """This is the sum over the real targets. Look at the word mean in the formula."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum()


# %% sequence_loss: the mean of the sequences' means
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Each sequence counts the same here, however many real targets it has. Look at what the mean
    runs over."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return (losses.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)).mean()


# %% sequence_loss: NaN if everything is padding
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """If every target is padding, this is 0/0. Look at what should come out then."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum()


# %% sequence_loss: a constant if everything is padding
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """If every target is padding, 0 comes out as asked for, but `backward` fails: that 0 has
    nothing to do with the logits. Look for a 0 that depends on them."""
    if (targets == pad_id).all():
        return torch.tensor(0.0)
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: padding is always 0
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """These are the right answers for `pad_id` 0 only. Look at where your code uses `pad_id`."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != 0
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: a padding id that is no class fails
# nanoGPT issue 323 misreads ignore_index.
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """This is right as long as `pad_id` is one of the classes; with −100 it fails. Look at which
    index is used to pick at padded positions."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: label smoothing ignored
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """These are the answers for `label_smoothing` 0. Look at where your code uses it."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -picked
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: smoothing over the other classes only
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The share ε goes to the other v − 1 classes alone here. Look at how y is made: every class
    gets a part, the right one too."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing / max(logits.shape[-1] - 1, 1) * (
        log_p.sum(-1) - picked
    )
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: ε/(v − 1) for every class
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The right class gets ε/(v − 1) too here, so that y sums to more than 1. Look at how y is made: ε is shared
    out over all v classes."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    others = max(logits.shape[-1] - 1, 1)
    losses = -(1 - label_smoothing) * picked - label_smoothing / others * log_p.sum(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: smoothing leaves out two classes
# harvardnlp's LabelSmoothing; issues 18 and 38
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The share ε is divided by v − 2 here and neither padding nor the right class gets a part, as
    in the Annotated Transformer. Look at how y is made in this exercise."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing / max(logits.shape[-1] - 2, 1) * (
        log_p.sum(-1) - picked - log_p[..., pad_id]
    )
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: the logarithm of a softmax
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Large logits give infinity or NaN here: a probability was rounded to 0 before its logarithm
    was taken. Look for the logarithm of a softmax in one step."""
    log_p = softmax(logits).log()
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: the logarithm kept from 0
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Large losses are cut off near 20 here: a small number was added to the probability. Look for
    the logarithm of a softmax in one step."""
    log_p = (softmax(logits) + 1e-9).log()
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: targets shifted once more
# HF issue 3711, InternLM issue 318
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The logits at a position are compared with the next target here. Look at whether the targets
    that you are given are already shifted."""
    logits, targets = logits[:, :-1], targets[:, 1:]
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: class 0 learned at padding
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Padded positions belong to the mean here, with class 0 as if it were their target. Look at
    which positions belong to the sum, and how many there are."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.mean()


# %% sequence_loss: divided by the number of sentences
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The sum over the real targets is right, but it is divided by the number of sentences. Look at
    what the mean runs over."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / len(targets)


# %% sequence_loss: the right class without its share of ε
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The right class gets 1 − ε alone here, while each of the others gets ε/v. Look at how y is
    made: what is added to the right class, too?"""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    share = label_smoothing / logits.shape[-1]
    losses = -(1 - label_smoothing) * picked - share * (log_p.sum(-1) - picked)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: the factor 1 − ε missing
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The smoothing is added to the whole loss of the right class here, so that y sums to 1 + ε.
    Look at the factor in front of the one-hot vector."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: ε not divided by v
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Every class gets ε itself here instead of ε/v, so that y does not sum to 1. Look at the last
    term of y."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.sum(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: exponentials that overflow
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Large logits give infinity or NaN here: their exponentials are larger than any float. Look
    for the logarithm of a softmax in one step."""
    log_p = logits - logits.exp().sum(-1, keepdim=True).log()
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: softmax over the positions
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The probabilities sum to 1 over the positions of a sentence here instead of over the classes.
    Look at the axis of your softmax."""
    log_p = logits - logits.logsumexp(1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: only for inputs in order in memory
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The values are right, but logits or targets that lie in memory in another order, such as
    `tokens[:, 1:]`, are an error here. Look at which operation needs its input in one piece."""
    logits, targets = logits.view(-1, logits.shape[-1]), targets.view(-1)
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: targets changed in place
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The loss is right, but the caller's `targets` hold other ids afterwards. Look at which of
    your operations write into `targets`."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    real = targets != pad_id
    targets[~real] = 0
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


# %% greedy_decode: the first position's prediction
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The next token is always read from the logits of the first position here. Look at which
    position predicts what comes next."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, 0].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: finished rows go on
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """A row that has produced `eos_id` goes on writing here. Look at what stands behind the end."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: filled up with the end
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Finished rows are filled up with `eos_id` here. Look at what they should be filled with."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, eos_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: filled up with 0
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Finished rows are filled up with 0 here. Look at which id the model has for padding."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, 0)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: stops at the first finished row
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Decoding stops here as soon as one row is finished. Look at the condition of the loop when
    some rows are not."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.any():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: never stops early
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The result goes on to `max_length` although all rows are finished, with padding. Look at how
    long it should be, and at the condition of the loop."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length:
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: one token too many
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The result has one token more than `max_length` here. Look at whether the first
    token counts."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] <= max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: the beginning ends it
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Where `bos_id` equals `eos_id`, nothing is produced here: the first token was taken for the
    end. Look at which tokens can finish a row."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = tokens[:, 0] == eos_id
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: padding ends it
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """A row that produces `pad_id` counts as finished here. Look at which token ends a row."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id) | (token == model.pad_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: padding stripped from the end
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Columns of padding at the end are cut off here. That is wrong where a row that is not
    finished has produced `pad_id` itself. Look for a way to stop in time instead of cutting
    afterwards."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    while tokens.shape[1] > 1 and (tokens[:, -1] == model.pad_id).all():
        tokens = tokens[:, :-1]
    return tokens


# %% greedy_decode: the end overwritten
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The `eos_id` that ends a row is itself replaced by padding here. Look at the order: write the
    token, then mark the row."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            finished = finished | (token == eos_id)
            token = token.masked_fill(finished, model.pad_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: left in evaluation mode
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """A model that was in training mode is in evaluation mode afterwards. Look at what has to be
    put back."""
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    return tokens


# %% greedy_decode: left in training mode
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """A model that was in evaluation mode is in training mode afterwards. Look at how you find out
    which one to put back."""
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train()
    return tokens


# %% greedy_decode: in training mode
# nanoGPT PR 240 and 749
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The model is run in the mode in which it was, so that dropout may act here. Look at the mode
    that decoding needs."""
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    return tokens


# %% greedy_decode: with gradients
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The model is run with gradients on here, which keeps every step in memory. Look at what
    decoding has no need of."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    memory = model.encode(source)
    while tokens.shape[1] < max_length and not finished.all():
        token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
        token = token.masked_fill(finished, model.pad_id)
        finished = finished | (token == eos_id)
        tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: encodes at every step
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The source is encoded again for every token here. Look at what does not change from step to
    step."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        while tokens.shape[1] < max_length and not finished.all():
            memory = model.encode(source)
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: one token too few
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Where the model does not end earlier, the result has one token less than `max_length`. Look
    at the condition of the loop for a small `max_length`."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length - 1 and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: at least one token written
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """For `max_length` 1 two tokens come out here: one is always written. Look at when the
    condition of the loop is asked for the first time."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while True:
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
            if finished.all() or tokens.shape[1] >= max_length:
                break
    model.train(training)
    return tokens


# %% greedy_decode: one step too late
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """When all rows are finished, one more column of padding is written here. Look at the order: is
    it known in time that a row has just ended?"""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length:
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            done = bool(finished.all())
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
            if done:
                break
    model.train(training)
    return tokens


# %% greedy_decode: ends only when all rows end at once
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Decoding stops early here only where all rows produce `eos_id` in the same step; rows that
    end apart go on to `max_length`, with padding. Look at what has to be remembered of earlier
    steps."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length:
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
            if (token == eos_id).all():
                break
    model.train(training)
    return tokens


# %% greedy_decode: the beginning counted as an end
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Where `bos_id` equals `eos_id`, every row counts as finished after one token here: the
    beginning was taken for the end. Look at which tokens can finish a row."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
            finished = (tokens == eos_id).any(1)
    model.train(training)
    return tokens


# %% greedy_decode: only the newest token decoded
# how a recurrent network decodes
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Each next token depends on the one before it alone here. Look at how much of what is written
    `decode` has to get."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens[:, -1:], memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% greedy_decode: the beginning cut off
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The result does not start with `bos_id` here. Look at what the first column should be; it
    counts towards `max_length`."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens[:, 1:]


# %% greedy_decode: the mode not put back when all rows end
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """Where all rows are finished before `max_length`, the model stays in evaluation mode;
    otherwise its mode is put back. Look at every way out of your function."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length:
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
            if finished.all():
                return tokens
    model.train(training)
    return tokens


# %% greedy_decode: tokens on the CPU
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """The tokens are on the CPU here, wherever the source is. Look at how your first column is
    made."""
    training = model.training
    model.eval()
    tokens = torch.full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = finished | (token == eos_id)
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens


# %% sequence_loss: only ids above pad_id taken for real
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Targets below `pad_id` are left out here like padding, which nobody notices where it is 0 or
    −100. Look at how you tell real targets from padding."""
    real = targets > pad_id
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    return losses.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


# %% sequence_loss: smoothing at padding too
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """The part of the loss that is smoothed is a mean over all positions here, padding included.
    Look at which positions each of the two sums runs over."""
    real = targets != pad_id
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    picked = log_p.gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    right = -picked.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)
    even = -log_p.mean(-1).mean() * real.any()
    return (1 - label_smoothing) * right + label_smoothing * even


# %% greedy_decode: finished rows wake up again
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    """A finished row is filled up once and then goes on writing here. Look at whether what was
    finished before this step is still finished after it."""
    training = model.training
    model.eval()
    tokens = source.new_full((len(source), 1), bos_id)
    finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    with torch.no_grad():
        memory = model.encode(source)
        while tokens.shape[1] < max_length and not finished.all():
            token = model.decode(tokens, memory, source)[:, -1].argmax(-1)
            token = token.masked_fill(finished, model.pad_id)
            finished = token == eos_id
            tokens = torch.cat((tokens, token.unsqueeze(1)), dim=1)
    model.train(training)
    return tokens
