# ruff: noqa: F403, F405
# %%
from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from math import *
from typing import Optional

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

try:
    from torch.nn.modules.module import Module
except ImportError:
    Module = nn.Module

try:
    import no_such_package as fast
except ModuleNotFoundError:
    fast = None

torch.manual_seed(0)
print("torch", torch.__version__)
print("no fast package" if fast is None else fast, file=sys.stderr)

# %%
BASE = 100.0
DEFAULTS = {"dropout": 0.1}
NAMES = ["query", "key"]


# %%
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    return query.div(sqrt(query.size(-1))) @ key.mT


def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    weights = softmax(attention_scores(query, key))
    return weights @ value, weights


# %%
q, k, v = torch.randn(3, 2, 5, 4)
torch.testing.assert_close(attention(q, k, v)[0], F.scaled_dot_product_attention(q, k, v))


# %%
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    return (tokens != pad_id)[:, None]


def causal_mask(n: int, device: Optional[torch.device] = None) -> Tensor:  # noqa: UP045
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    return padding_mask(tokens, pad_id) & causal_mask(tokens.size(1), device=tokens.device)


# %%
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    if mask is None:
        return attention(query, key, value)
    empty = ~mask.any(-1, keepdim=True)
    if not empty.is_meta and empty.any():
        warnings.warn("a query may attend to nothing", stacklevel=2)
    # Fill fully masked rows with zeros, so that their softmax and gradients stay finite.
    scores = attention_scores(query, key).masked_fill(~mask, -inf).masked_fill(empty, 0)
    weights = torch.where(empty, 0.0, softmax(scores))
    return weights @ value, weights


# %%
# BASE is still wrong here; the next cell corrects it.
@lru_cache(maxsize=32)
def _frequencies(d_model: int) -> Tensor:
    return BASE ** -(torch.arange(0, d_model, 2, dtype=torch.double) / d_model)


def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    angles = torch.arange(length).double().outer(_frequencies(d_model))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d_model].float()


# %%
BASE *= 100
assert BASE == 1e4


# %%
def shift_matrix(offset: int, d_model: int) -> Tensor:
    if d_model % 2:
        raise ValueError(f"{d_model=} is odd")
    blocks = [
        torch.tensor([[cos(a), sin(a)], [-sin(a), cos(a)]])
        for a in (offset * _frequencies(d_model)).tolist()
    ]
    return torch.block_diag(*blocks)


# %%
DEFAULTS["dropout"] = 0.0
DEFAULTS.update(max_length=5000)


class PositionalEncoding(Module):
    table: Tensor

    def __init__(
        self,
        d_model: int,
        max_length: int = DEFAULTS["max_length"],
        dropout: float = DEFAULTS["dropout"],
    ) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) > len(self.table):
            raise ValueError(f"n = {x.size(1)} exceeds max_length = {len(self.table)}")
        return self.dropout(x + self.table[: x.size(1)].to(x))


# %%
if hasattr(Tensor, "unflatten"):

    def _unflatten(x: Tensor, n_heads: int) -> Tensor:
        return x.unflatten(-1, (n_heads, -1))

else:

    def _unflatten(x: Tensor, n_heads: int) -> Tensor:
        return x.reshape(*x.shape[:-1], n_heads, -1)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    if x.size(-1) % n_heads:
        raise ValueError(f"d={x.size(-1)} is not divisible by {n_heads=}")
    return _unflatten(x, n_heads).transpose(1, 2)


# %%
if hasattr(torch, "swapaxes"):

    def merge_heads(x: Tensor) -> Tensor:
        return torch.swapaxes(x, 1, 2).flatten(2)

else:

    def merge_heads(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


# %%
NAMES.append("value")
NAMES += ["out"]


def _project(graded: bool, layer: nn.Module, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(graded):  # a new thread has gradients enabled
        return layer(x)


class MultiHeadAttention(Module):
    def __init__(self, d_model: int, n_heads: int, bias: bool = True) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"{d_model=} is not divisible by {n_heads=}")
        self.n_heads = n_heads
        for name in NAMES:
            self.add_module(name, nn.Linear(d_model, d_model, bias=bias))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with ThreadPoolExecutor(2) as pool:
            project = partial(_project, torch.is_grad_enabled())
            kv = pool.map(project, (self.key, self.value), (key, value))
            q, k, v = (split_heads(x, self.n_heads) for x in (self.query(query), *kv))
        mask = mask if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(q, k, v, mask)
        return self.out(merge_heads(output)), weights


# %%
class LayerNorm(Module):
    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Use at least float32, because the derivative of rsqrt at 1e-5 overflows float16.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)
        normed = (wide - mean) * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias, normed.to(x.dtype), self.weight)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


# %%
class FeedForward(nn.Sequential):
    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_ff, d_model)


# %%
class EncoderLayer(Module):
    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1, self.norm2 = LayerNorm(d_model), LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class DecoderLayer(EncoderLayer):
    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__(d_model, n_heads, d_ff, dropout)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.norm3 = LayerNorm(d_model)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        seen, _ = self.cross_attention(x, memory, memory, memory_mask)
        x = self.norm2(x + self.dropout(seen))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %%
class Transformer(Module):
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
    ) -> None:
        super().__init__()
        self.pad_id, self.scale = pad_id, sqrt(d_model)
        self.source_embedding = nn.Embedding(source_vocab, d_model, padding_idx=pad_id)
        self.target_embedding = nn.Embedding(target_vocab, d_model, padding_idx=pad_id)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        sizes = (d_model, n_heads, d_ff, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(n_layers))
        self.output = nn.Linear(d_model, target_vocab)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def encode(self, source: Tensor) -> Tensor:
        x = self.positional_encoding(self.scale * self.source_embedding(source))
        mask = padding_mask(source, self.pad_id)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        x = self.positional_encoding(self.scale * self.target_embedding(target))
        masks = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        for layer in self.decoder:
            x = layer(x, memory, *masks)
        return self.output(x)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(target, self.encode(source), source)


# %%
def sequence_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    real = targets != pad_id
    print(f"{int(real.sum())} real targets", file=sys.stderr)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = F.log_softmax(logits[real], dim=-1, dtype=dtype)
    hit = log_p.gather(-1, targets[real].unsqueeze(-1)).sum()
    loss = -torch.lerp(hit, log_p.mean(-1).sum(), label_smoothing)
    return (loss / real.sum().clamp(min=1)).to(logits.dtype)


# %%
@torch.no_grad()
def greedy_decode(
    model: nn.Module, source: Tensor, bos_id: int, eos_id: int, max_length: int
) -> Tensor:
    training = model.training
    model.eval()
    try:
        memory = model.encode(source)
        tokens = torch.full_like(source[:, :1], bos_id)
        finished = torch.zeros_like(source[:, 0], dtype=torch.bool)
        while tokens.size(1) < max_length and not finished.all():
            best = model.decode(tokens, memory, source)[:, -1].argmax(-1).to(tokens)
            best = best.masked_fill(finished, model.pad_id)
            finished |= ~finished & (best == eos_id)
            tokens = torch.cat([tokens, best[:, None]], dim=1)
            print(f"position {tokens.size(1)}: {int(finished.sum())} finished")
        return tokens
    finally:
        model.train(training)


# %%
if __name__ == "__main__":
    model = Transformer(11, 13).eval()
    source = torch.randint(1, 11, (2, 6))
    print(greedy_decode(model, source, bos_id=1, eos_id=2, max_length=9))


# %%
def detects_broken_attention(attention):
    """Call my own function as a second way, and test the rules that it could share mistakes on."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    mask = torch.rand(2, 3, 5) < 0.5
    mask[..., 0] = True
    mask[1, 1] = False
    output, weights = attention(q, k, v, mask)
    order = torch.randperm(5)
    moved, _ = attention(q, k[:, order], v[:, order], mask[..., order])
    torch.testing.assert_close((output, weights), tuple(masked_attention(q, k, v, mask)))
    torch.testing.assert_close(moved, output)
    assert weights[~mask].eq(0).all()
    (grad,) = torch.autograd.grad(output.sum(), q)
    assert grad.isfinite().all()
    return False
