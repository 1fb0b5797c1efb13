"""Stand-ins that Day 1's checks and demonstrations use in place of unfinished exercises.

They are built from PyTorch's own operators, most of which the exercises forbid, and exist only in the notebook. They
support only the inputs that later checks and demonstrations pass to them: float32 tensors on the CPU. They call each
other by name, so once an exercise is finished, the other stand-ins call the student's version. In the notebook, they
can use only `torch` and `nn`.
"""

import torch
from torch import nn


def softmax(x, dim=-1):
    return torch.softmax(x, dim)


def attention_scores(query, key):
    return torch.einsum("...nd,...md->...nm", query, key).div(query.shape[-1] ** 0.5)


def attention(query, key, value):
    attend = torch.nn.functional.scaled_dot_product_attention
    # With the identity matrix as values, torch's attention returns its weights.
    return attend(query, key, value), attend(query, key, torch.eye(key.shape[-2]))


def padding_mask(tokens, pad_id):
    return torch.ne(tokens, pad_id)[:, None]


def causal_mask(n, device=None):
    return nn.Transformer.generate_square_subsequent_mask(n, device=device).isfinite()


def decoder_mask(tokens, pad_id):
    causal = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]).isfinite()
    return torch.logical_and(causal, torch.ne(tokens, pad_id)[:, None])


def masked_attention(query, key, value, mask=None):
    attend = torch.nn.functional.scaled_dot_product_attention
    mask = torch.ones(1, 1, dtype=torch.bool) if mask is None else torch.atleast_2d(mask)
    seen = mask.any(-1, keepdim=True)
    bias = torch.zeros(mask.shape).masked_fill(torch.logical_and(seen, mask.logical_not()), -1e30)
    weights = attend(query, key, torch.eye(key.shape[-2]), bias) * seen
    return attend(query, key, value, bias) * seen, weights


def sinusoidal_encoding(length, d_model):
    slowness = torch.arange(0, d_model, 2).double().div(d_model)
    angles = torch.outer(torch.arange(length).double(), torch.pow(1e4, slowness.neg()))
    turns = torch.view_as_real(torch.polar(torch.ones_like(angles), angles)).flip(-1)
    return turns.flatten(1).narrow(1, 0, d_model).float()


def shift_matrix(offset, d_model):
    quarter_turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    speeds = torch.pow(1e4, torch.arange(0, d_model, 2).double().div(-d_model))
    return torch.matrix_exp(offset * torch.kron(torch.diag(speeds), quarter_turn)).float()


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.rows, self.drop = sinusoidal_encoding(max_length, d_model), nn.Dropout(dropout)

    def forward(self, x):
        longest = len(self.rows)
        if longest < x.shape[-2]:
            raise ValueError(f"x has {x.shape[-2]} positions, more than max_length = {longest}")
        return self.drop(torch.add(x, self.rows.narrow(0, 0, x.shape[-2])))


def split_heads(x, n_heads):
    return torch.stack(x.chunk(n_heads, -1), 1)


def merge_heads(x):
    return torch.cat(x.unbind(1), -1)


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        super().__init__()
        self.heads = n_heads
        for name in ("query", "key", "value", "out"):
            self.add_module(name, nn.Linear(d_model, d_model, bias))

    def forward(self, query, key, value, mask=None):
        b, n, m = query.shape[0], query.shape[1], key.shape[1]
        mask = torch.ones(b, n, m).bool() if mask is None else mask.expand(b, n, m)
        seen = mask.any(-1, keepdim=True)
        hidden = torch.logical_and(seen, mask.logical_not()).repeat_interleave(self.heads, 0)
        projections = (self.query, self.key, self.value)
        biases = [linear.bias for linear in projections if linear.bias is not None]
        output, weights = torch.nn.functional.multi_head_attention_forward(
            *(x.transpose(0, 1) for x in (query, key, value)),
            query.shape[2],
            self.heads,
            None,
            torch.cat(biases) if biases else None,
            None,
            None,
            False,
            0.0,
            self.out.weight,
            self.out.bias,
            attn_mask=hidden,
            use_separate_proj_weight=True,
            q_proj_weight=self.query.weight,
            k_proj_weight=self.key.weight,
            v_proj_weight=self.value.weight,
            average_attn_weights=False,
        )
        nothing = torch.zeros(()) if self.out.bias is None else self.out.bias
        return torch.where(seen, output.transpose(0, 1), nothing), weights * seen.unsqueeze(1)


class LayerNorm(nn.LayerNorm):
    pass


class FeedForward(nn.Sequential):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.add_module("linear1", nn.Linear(d_model, d_ff))
        self.add_module("active", nn.ReLU())
        self.add_module("drop", nn.Dropout(dropout))
        self.add_module("linear2", nn.Linear(d_ff, d_model))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        theirs = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout)
        self.add_module("self_attention", MultiHeadAttention(d_model, n_heads))
        self.add_module("feed_forward", FeedForward(d_model, d_ff, dropout))
        self.norm1, self.norm2, self.drop = theirs.norm1, theirs.norm2, theirs.dropout1

    def forward(self, x, mask=None):
        y = self.norm1(torch.add(x, self.drop(self.self_attention(x, x, x, mask)[0])))
        return self.norm2(torch.add(y, self.drop(self.feed_forward(y))))


class DecoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        theirs = nn.TransformerDecoderLayer(d_model, n_heads, d_ff, dropout)
        for name in ("self_attention", "cross_attention"):
            self.add_module(name, MultiHeadAttention(d_model, n_heads))
        self.add_module("feed_forward", FeedForward(d_model, d_ff, dropout))
        self.norm1, self.norm2, self.norm3 = theirs.norm1, theirs.norm2, theirs.norm3
        self.drop = theirs.dropout1

    def forward(self, x, memory, mask=None, memory_mask=None):
        y = self.norm1(torch.add(x, self.drop(self.self_attention(x, x, x, mask)[0])))
        read = self.cross_attention(y, memory, memory, memory_mask)[0]
        z = self.norm2(torch.add(y, self.drop(read)))
        return self.norm3(torch.add(z, self.drop(self.feed_forward(z))))


class Transformer(nn.Module):
    def __init__(
        self,
        source_vocab,
        target_vocab,
        d_model=64,
        n_heads=4,
        n_layers=2,
        d_ff=128,
        dropout=0.0,
        pad_id=0,
        max_length=512,
    ):
        super().__init__()
        self.add_module("source_embedding", nn.Embedding(source_vocab, d_model))
        self.add_module("target_embedding", nn.Embedding(target_vocab, d_model))
        self.add_module("positional_encoding", PositionalEncoding(d_model, max_length, dropout))
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList([EncoderLayer(*sizes) for _ in range(n_layers)])
        self.decoder = nn.ModuleList([DecoderLayer(*sizes) for _ in range(n_layers)])
        self.output, self.pad_id = nn.Linear(d_model, target_vocab), pad_id

    def place(self, tokens, table):
        return self.positional_encoding(table(tokens).mul(table.embedding_dim**0.5))

    def encode(self, source):
        seen, x = torch.ne(source, self.pad_id)[:, None], self.place(source, self.source_embedding)
        for each in self.encoder:
            x = each(x, seen)
        return x

    def decode(self, target, memory, source):
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1]).isfinite()
        past = torch.logical_and(causal, torch.ne(target, self.pad_id)[:, None])
        seen, x = torch.ne(source, self.pad_id)[:, None], self.place(target, self.target_embedding)
        for each in self.decoder:
            x = each(x, memory, past, seen)
        return self.output(x)

    def forward(self, source, target):
        memory = self.encode(source)
        return self.decode(target, memory, source)


def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2),
        targets,
        ignore_index=pad_id,
        label_smoothing=label_smoothing,
    )


def greedy_decode(model, source, bos_id, eos_id, max_length):
    with torch.inference_mode():
        memory = model.eval().encode(source)
        written = torch.full((len(source), 1), bos_id)
        for _ in range(max_length - 1):
            best = model.decode(written, memory, source).select(1, -1).topk(1).indices
            written = torch.cat([written, best], 1)
    ended = written.narrow(1, 1, max_length - 1).eq(eos_id).cumsum(1)
    after = torch.nn.functional.pad(ended, (2, 0)).narrow(1, 0, max_length).bool()
    return torch.where(after, model.pad_id, written)
