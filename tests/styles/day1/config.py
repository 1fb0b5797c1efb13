"""Solutions for day 1 by an author who builds modules from config objects, mixins and buffers, as in Hugging Face's library.

Classes inherit from other exercises' classes, parts have second names, and functions are called with keywords.
"""

# %%
import copy
import functools
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import nn


# %%
@dataclass
class TransformerConfig:
    d_model: int = 64
    n_heads: int = 4
    d_ff: int = 128
    dropout: float = 0.0
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.d_model % self.n_heads != 0:
            raise ValueError(
                f"The hidden size (d_model={self.d_model}) is not a multiple of the number of attention "
                f"heads (n_heads={self.n_heads})"
            )

    @property
    def head_dim(self):
        return self.d_model // self.n_heads


class AttentionOutput(NamedTuple):
    output: torch.Tensor
    weights: torch.Tensor


def upcast(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def expand_mask(mask, dtype):
    """Turn a boolean mask into an additive one."""
    inverted = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return inverted.masked_fill(mask.logical_not(), torch.finfo(dtype).min)


# %%
def softmax(x, dim=-1):
    upcasted = upcast(x)
    shifted = upcasted - upcasted.amax(dim, keepdim=True).detach()
    return shifted.sub(shifted.logsumexp(dim, keepdim=True)).exp().to(x.dtype)


# %%
def attention_scores(query, key):
    scaling = query.size(-1) ** -0.5
    return torch.matmul(query * scaling, key.transpose(-1, -2))


# %%
def attention(query, key, value):
    weights = softmax(attention_scores(query=query, key=key), dim=-1)
    return AttentionOutput(output=torch.matmul(weights, value), weights=weights)


# %%
def padding_mask(tokens, pad_id):
    return torch.ne(tokens, pad_id)[:, None, :]


# %%
def causal_mask(n, device=None):
    return torch.full((n, n), True, device=device).tril(diagonal=0)


# %%
def decoder_mask(tokens, pad_id):
    visible = padding_mask(tokens=tokens, pad_id=pad_id)
    return visible.logical_and(causal_mask(n=tokens.shape[-1], device=tokens.device))


# %%
def masked_attention(query, key, value, mask=None):
    scores = attention_scores(query=query, key=key)
    if mask is None:
        weights = softmax(scores, dim=-1)
    else:
        # The smallest number is added in float32, so that the sum does not overflow.
        scores = upcast(scores) + expand_mask(mask, torch.float32) / 2
        weights = softmax(scores, dim=-1).to(query.dtype)
        weights = weights.masked_fill(mask.logical_not(), 0.0)
    return AttentionOutput(output=torch.matmul(weights, value), weights=weights)


# %%
def sinusoidal_encoding(length, d_model):
    inv_freq = torch.pow(10000.0, -torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    freqs = torch.outer(torch.arange(length, dtype=torch.float64), inv_freq)
    emb = torch.zeros(length, d_model, dtype=torch.float64)
    emb[:, 0::2] = freqs.sin()
    emb[:, 1::2] = freqs.cos()[:, : d_model // 2]
    return emb.to(dtype=torch.float32)


# %%
def shift_matrix(offset, d_model):
    if d_model % 2 == 1:
        raise ValueError(f"`d_model` must be even, got {d_model}")
    inv_freq = torch.pow(10000.0, -torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = inv_freq * offset
    blocks = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=-1)
    return torch.block_diag(*blocks.view(-1, 2, 2).unbind()).float()


# %%
class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.max_length = max_length
        self.dropout = nn.Dropout(p=dropout)
        table = sinusoidal_encoding(length=max_length, d_model=d_model)
        self.register_buffer("pe", table[None], persistent=False)
        self.register_buffer("position_ids", torch.arange(max_length)[None], persistent=False)

    def forward(self, x):
        seq_length = x.size(1)
        if seq_length > self.max_length:
            raise ValueError(
                f"Sequence length must be at most max_length (got {seq_length} and {self.max_length})"
            )
        return self.dropout(x + self.pe[:, :seq_length].to(dtype=x.dtype))


# %%
def split_heads(x, n_heads):
    if x.size(-1) % n_heads:
        raise ValueError(f"n_heads={n_heads} does not divide the features (d={x.size(-1)})")
    new_shape = (*x.size()[:-1], n_heads, x.size(-1) // n_heads)
    return x.reshape(new_shape).permute(0, 2, 1, 3)


# %%
def merge_heads(x):
    x = x.permute(0, 2, 1, 3).contiguous()
    return x.view(*x.size()[:-2], x.size(-2) * x.size(-1))


# %%
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        super().__init__()
        self.config = TransformerConfig(d_model=d_model, n_heads=n_heads)
        for name in ("query", "key", "value", "out"):
            setattr(self, name, nn.Linear(d_model, d_model, bias=bias))

    def shape(self, projection, states):
        return split_heads(x=projection(states), n_heads=self.config.n_heads)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Optional[torch.Tensor] = None,  # noqa: UP045
    ):
        if mask is not None:
            mask = mask.unsqueeze(-3)
        context, weights = masked_attention(
            query=self.shape(self.query, query),
            key=self.shape(self.key, key),
            value=self.shape(self.value, value),
            mask=mask,
        )
        return AttentionOutput(self.out(merge_heads(x=context)), weights)


# %%
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        states = upcast(hidden_states)
        variance, mean = torch.var_mean(states, dim=-1, correction=0, keepdim=True)
        states = (states - mean) * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * states.to(hidden_states.dtype) + self.bias

    def extra_repr(self):
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


# %%
class FeedForward(nn.Sequential):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(
            OrderedDict(
                linear1=nn.Linear(d_model, d_ff),
                activation=nn.ReLU(),
                dropout=nn.Dropout(dropout),
                linear2=nn.Linear(d_ff, d_model),
            )
        )


# %%
class SublayerMixin:
    """A residual connection around each sublayer, with the norm after it."""

    def residual(self, norm, x, sublayer_output):
        return norm(x + F.dropout(sublayer_output, self.config.dropout, training=self.training))


class EncoderLayer(SublayerMixin, nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.config = TransformerConfig(d_model, n_heads, d_ff, dropout)
        self.self_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout)
        self.norm1 = LayerNorm(d_model=d_model)
        self.norm2 = LayerNorm(d_model=d_model)

    def forward(self, x, mask=None):
        attended, _ = self.self_attention(query=x, key=x, value=x, mask=mask)
        x = self.residual(self.norm1, x, attended)
        return self.residual(self.norm2, x, self.feed_forward(x))


# %%
class DecoderLayer(EncoderLayer):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__(d_model=d_model, n_heads=n_heads, d_ff=d_ff, dropout=dropout)
        self.drop = nn.Dropout(dropout)
        self.cross_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.norm3 = LayerNorm(d_model=d_model)

    def forward(self, x, memory, mask=None, memory_mask=None):
        attended, _ = self.self_attention(query=x, key=x, value=x, mask=mask)
        x = self.norm1(x + self.drop(attended))
        attended, _ = self.cross_attention(query=x, key=memory, value=memory, mask=memory_mask)
        x = self.norm2(x + self.drop(attended))
        return self.norm3(x + self.drop(self.feed_forward(x)))


# %%
def get_clones(module, n):
    return nn.ModuleList([copy.deepcopy(module) for _ in range(n)])


class Transformer(nn.Module):
    base_model_prefix = "model"

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
        self.config = TransformerConfig(d_model, n_heads, d_ff, dropout, {"max_length": max_length})
        self.pad_id = pad_id
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(
            d_model=d_model, max_length=max_length, dropout=dropout
        )
        layer = functools.partial(EncoderLayer, d_model, n_heads, d_ff, dropout=dropout)
        self.encoder = get_clones(layer(), n_layers)
        self.decoder = get_clones(DecoderLayer(d_model, n_heads, d_ff, dropout), n_layers)
        self.output = nn.Linear(d_model, target_vocab)
        # Second names, as in the other models of the library.
        self.model = nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})
        self.lm_head = self.output

    def embed(self, embedding, input_ids):
        max_length = self.config.extra["max_length"]
        if input_ids.size(1) > max_length:
            raise ValueError(f"{input_ids.size(1)} tokens, but max_length is {max_length}")
        hidden_states = embedding(input_ids) * math.sqrt(self.config.d_model)
        return self.positional_encoding(hidden_states)

    def encode(self, source):
        attention_mask = padding_mask(tokens=source, pad_id=self.pad_id)
        hidden_states = self.embed(self.source_embedding, source)
        for layer in self.model["encoder"]:
            hidden_states = layer(hidden_states, mask=attention_mask)
        return hidden_states

    def decode(self, target, memory, source):
        hidden_states = self.embed(self.target_embedding, target)
        masks = {
            "mask": decoder_mask(tokens=target, pad_id=self.pad_id),
            "memory_mask": padding_mask(tokens=source, pad_id=self.pad_id),
        }
        for layer in self.model["decoder"]:
            hidden_states = layer(hidden_states, memory=memory, **masks)
        return self.lm_head(hidden_states)

    def forward(self, source, target):
        return self.decode(target=target, memory=self.encode(source), source=source)


# %%
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    log_probs = upcast(logits).flatten(0, -2).log_softmax(dim=-1)
    labels = targets.flatten()
    active = labels.ne(pad_id)
    log_probs, labels = log_probs[active], labels[active]
    nll_loss = -log_probs.gather(dim=-1, index=labels[:, None]).sum()
    smoothed_loss = -log_probs.mean(dim=-1).sum()
    loss = (1.0 - label_smoothing) * nll_loss + label_smoothing * smoothed_loss
    return (loss / active.sum().clamp(min=1)).to(logits.dtype)


# %%
class StoppingCriteria:
    """Keep track of the rows that have produced the end of sequence."""

    def __init__(self, batch_size, device, eos_id, pad_id):
        self.unfinished = torch.ones(batch_size, dtype=torch.bool, device=device)
        self.eos_id, self.pad_id = eos_id, pad_id

    def __call__(self, next_tokens):
        next_tokens = torch.where(self.unfinished, next_tokens, self.pad_id)
        self.unfinished = self.unfinished & (next_tokens != self.eos_id)
        return next_tokens


@torch.no_grad()
def greedy_decode(model, source, bos_id, eos_id, max_length):
    was_training = model.training
    model.eval()
    try:
        criteria = StoppingCriteria(source.size(0), source.device, eos_id, model.pad_id)
        input_ids = source.new_full((source.size(0), 1), bos_id)
        encoder_outputs = model.encode(source)
        while input_ids.size(1) < max_length and criteria.unfinished.any():
            logits = model.decode(target=input_ids, memory=encoder_outputs, source=source)
            next_tokens = criteria(logits[:, -1, :].argmax(dim=-1))
            input_ids = torch.cat([input_ids, next_tokens[:, None].to(source.dtype)], dim=-1)
    finally:
        model.train(mode=was_training)
    return input_ids


# %%
def detects_broken_attention(attention):
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn(2, n, d, generator=generator).requires_grad_()
        for n, d in ((3, 8), (4, 8), (4, 5))
    )
    mask = torch.tensor([[True, True, False, True], [False] * 4, [False, False, True, True]])
    mask = torch.stack([mask, mask.roll(1, -1)])
    output, weights = attention(query, key, value, mask)
    powers = (query @ key.mT / 8**0.5).exp() * mask
    expected = powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)
    pairs = (
        (weights, expected),
        (output, expected @ value),
        (weights * ~mask, torch.zeros(2, 3, 4)),
    )
    if not all(a.shape == b.shape and a.allclose(b, atol=1e-5) for a, b in pairs):
        return True
    if weights[~mask].count_nonzero():
        return True
    found = torch.autograd.grad(output.sum(), (query, key, value))
    return any(not gradient.isfinite().all() for gradient in found)
