# %% [markdown]
# # Day 1 in einsum
#
# Each exercise is self-contained: it may call helpers, but no other exercise.

# %%
import math
from typing import NamedTuple

import torch
from torch import einsum, nn

HALF = (torch.float16, torch.bfloat16)


class Attended(NamedTuple):
    output: torch.Tensor
    weights: torch.Tensor


# %% [markdown]
# ## Attention


# %%
def softmax(x, dim=-1):
    wide = x.float() if x.dtype in HALF else x
    return (wide - wide.logsumexp(dim, keepdim=True)).exp().to(x.dtype)


# %%
def attention_scores(query, key):
    # Divide both factors by d to the power of 1/4, so that neither becomes large.
    root = query.shape[-1] ** 0.25
    return einsum("...nd,...md->...nm", query / root, key / root)


# %%
def attention(query, key, value):
    weights = einsum("...nd,...md->...nm", query * query.shape[-1] ** -0.5, key).softmax(-1)
    return Attended(einsum("...nm,...mv->...nv", weights, value), weights)


# %% [markdown]
# ## Masking


# %%
def padding_mask(tokens, pad_id):
    return tokens.ne(pad_id).unsqueeze(1)


# %%
def causal_mask(n, device=None):
    position = torch.arange(n, device=device)
    return position[:, None] >= position


# %%
def decoder_mask(tokens, pad_id):
    position = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.ne(pad_id)[:, None, :] & position[:, None].ge(position)


# %%
def _bias(mask, like):
    """Return 0 where attention is allowed and -inf elsewhere. Fully masked rows are 0, to avoid NaN."""
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(~mask & mask.any(-1, keepdim=True), -math.inf)


def masked_attention(query, key, value, mask=None):
    scores = einsum("...nd,...md->...nm", query * query.shape[-1] ** -0.5, key)
    if mask is None:
        weights = scores.softmax(-1)
    else:
        anything = mask.any(-1, keepdim=True).to(scores.dtype)
        weights = (scores + _bias(mask, scores)).softmax(-1) * anything
    return Attended(output=einsum("...nm,...mv->...nv", weights, value), weights=weights)


# %% [markdown]
# ## Positional encoding


# %%
def sinusoidal_encoding(length, d_model):
    column = torch.arange(d_model)
    odd = column % 2
    rate = torch.pow(10000.0, -(column - odd).double() / d_model)
    angle = einsum("p,c->pc", torch.arange(length, dtype=torch.float64), rate)
    return torch.sin(angle + odd * (math.pi / 2)).float()  # cos a = sin(a + π/2)


# %%
def shift_matrix(offset, d_model):
    if d_model & 1:
        raise ValueError(f"d_model must be even to be made of pairs, not {d_model}")
    pairs = d_model // 2
    angle = offset * 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    keep, turn = torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    each = torch.eye(pairs, dtype=torch.float64)
    cosine = einsum("k,kl,ij->kilj", angle.cos(), each, keep.double())
    sine = einsum("k,kl,ij->kilj", angle.sin(), each, turn.double())
    return (cosine + sine).reshape(d_model, d_model).float()


# %%
class PositionalEncoding(nn.Module):
    """A positional encoding without a table: it computes the angles when they are needed."""

    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.d_model, self.max_length, self.rate = d_model, max_length, dropout

    def forward(self, x):
        n = x.shape[1]
        if n > self.max_length:
            raise ValueError(f"n = {n} is too long")
        column = torch.arange(self.d_model, device=x.device)
        period = 10000.0 ** ((column - column % 2).double() / self.d_model)
        angle = torch.arange(n, device=x.device).double()[:, None] / period
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos())
        return torch.dropout((x + table).to(x.dtype), self.rate, self.training)


# %% [markdown]
# ## Multi-head attention


# %%
def split_heads(x, n_heads):
    if x.shape[-1] % n_heads:
        raise ValueError(f"d = {x.shape[-1]} features cannot be shared out evenly")
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


# %%
def merge_heads(x):
    return torch.cat(x.unbind(1), dim=-1)


# %%
class Affine(nn.Module):
    def __init__(self, d_in, d_out, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / math.sqrt(d_in))
        self.register_parameter("bias", nn.Parameter(torch.zeros(d_out)) if bias else None)

    def forward(self, x):
        y = einsum("...i,oi->...o", x, self.weight)
        return y if self.bias is None else y + self.bias


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads = {n_heads} does not divide the features")
        self.n_heads = n_heads
        for name in ("query", "key", "value", "out"):
            self.add_module(name, Affine(d_model, d_model, bias))

    def project(self, layer, x):
        # The rows of the weight are grouped by head, so one contraction projects and splits.
        weight = layer.weight.unflatten(0, (self.n_heads, -1))
        heads = einsum("bnd,hed->bhne", x, weight)
        if layer.bias is None:
            return heads
        return heads + layer.bias.unflatten(0, (self.n_heads, 1, -1))

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            self.project(getattr(self, name), x)
            for name, x in (("query", query), ("key", key), ("value", value))
        )
        scores = einsum("bhne,bhme->bhnm", q / math.sqrt(q.shape[-1]), k)
        if mask is not None:
            scores = scores + _bias(mask, scores).unsqueeze(-3)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights * mask.any(-1, keepdim=True).unsqueeze(-3)
        mixed = einsum("bhnm,bhme->bnhe", weights, v)
        return Attended(self.out(mixed.flatten(2)), weights)


# %% [markdown]
# ## Layers


# %%
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.epsilon = eps

    def forward(self, x):
        wide = x.float() if x.dtype in HALF else x
        centred = wide - wide.mean(-1, keepdim=True)
        variance = einsum("...d,...d->...", centred, centred) / x.shape[-1]
        normed = centred / (variance + self.epsilon).sqrt().unsqueeze(-1)
        return normed.to(x.dtype) * self.weight + self.bias


# %%
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.linear1, self.linear2 = Affine(d_model, d_ff), Affine(d_ff, d_model)
        self.rate = dropout

    def forward(self, x):
        return self.linear2(torch.dropout(self.linear1(x).relu(), self.rate, self.training))


# %% [markdown]
# The layers consist of dictionaries of parameters, and functions that use them.


# %%
class Gain(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))


def attention_parts(d_model):
    names = ("query", "key", "value", "out")
    return nn.ModuleDict({name: Affine(d_model, d_model) for name in names})


def network_parts(d_model, d_ff):
    return nn.ModuleDict({"linear1": Affine(d_model, d_ff), "linear2": Affine(d_ff, d_model)})


def normed(x, gain):
    return torch.layer_norm(x, x.shape[-1:], gain.weight, gain.bias, 1e-5)


def attended(parts, n_heads, x, memory, mask):
    q, k, v = (
        part(source).unflatten(-1, (n_heads, -1)).movedim(2, 1)
        for part, source in (
            (parts["query"], x),
            (parts["key"], memory),
            (parts["value"], memory),
        )
    )
    scores = einsum("bhne,bhme->bhnm", q * q.shape[-1] ** -0.5, k)
    if mask is None:
        weights = scores.softmax(-1)
    else:
        anything = mask.any(-1, keepdim=True).unsqueeze(-3)
        weights = (scores + _bias(mask, scores).unsqueeze(-3)).softmax(-1) * anything
    return parts["out"](einsum("bhnm,bhme->bnhe", weights, v).flatten(2))


def network(parts, x, drop):
    return parts["linear2"](drop(parts["linear1"](x).clamp(min=0)))


# %%
class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.n_heads, self.rate = n_heads, dropout
        self.self_attention = attention_parts(d_model)
        self.feed_forward = network_parts(d_model, d_ff)
        self.norm1, self.norm2 = Gain(d_model), Gain(d_model)

    def drop(self, x):
        return torch.dropout(x, self.rate, self.training)

    def forward(self, x, mask=None):
        x = normed(
            x + self.drop(attended(self.self_attention, self.n_heads, x, x, mask)), self.norm1
        )
        return normed(x + self.drop(network(self.feed_forward, x, self.drop)), self.norm2)


# %%
class DecoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.n_heads, self.rate = n_heads, dropout
        self.self_attention = attention_parts(d_model)
        self.cross_attention = attention_parts(d_model)
        self.feed_forward = network_parts(d_model, d_ff)
        self.norm1, self.norm2, self.norm3 = (Gain(d_model) for _ in range(3))

    def drop(self, x):
        return torch.dropout(x, self.rate, self.training)

    def forward(self, x, memory, mask=None, memory_mask=None):
        seen = attended(self.self_attention, self.n_heads, x, x, mask)
        x = normed(x + self.drop(seen), self.norm1)
        seen = attended(self.cross_attention, self.n_heads, x, memory, memory_mask)
        x = normed(x + self.drop(seen), self.norm2)
        return normed(x + self.drop(network(self.feed_forward, x, self.drop)), self.norm3)


# %% [markdown]
# ## Transformer


# %%
class Lookup(nn.Module):
    def __init__(self, n_rows, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_rows, d_model) / math.sqrt(d_model))

    def forward(self, tokens):
        return self.weight[tokens]


class Positions(nn.Module):
    def __init__(self, d_model, max_length, rate):
        super().__init__()
        self.d_model, self.max_length, self.rate = d_model, max_length, rate

    def forward(self, x):
        if x.shape[1] > self.max_length:
            raise ValueError(f"max_length is {self.max_length}, the sequence has {x.shape[1]}")
        pair = torch.arange(self.d_model, device=x.device) // 2
        rate = torch.exp(pair.double() * (-2 * math.log(10000) / self.d_model))
        turn = torch.exp(1j * einsum("p,c->pc", torch.arange(x.shape[1]).to(rate), rate))
        table = torch.where(
            torch.arange(self.d_model, device=x.device) % 2 == 1, turn.real, turn.imag
        )
        return torch.dropout(x + table.to(x.dtype), self.rate, self.training)


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
        self.n_heads, self.rate, self.pad_id = n_heads, dropout, pad_id
        self.source_embedding = Lookup(source_vocab, d_model)
        self.target_embedding = Lookup(target_vocab, d_model)
        self.positional_encoding = Positions(d_model, max_length, dropout)

        def layer(attentions):
            parts = {name: attention_parts(d_model) for name in attentions}
            norms = {f"norm{i + 1}": Gain(d_model) for i in range(len(attentions) + 1)}
            return nn.ModuleDict(parts | norms | {"feed_forward": network_parts(d_model, d_ff)})

        self.encoder = nn.ModuleList(layer(["self_attention"]) for _ in range(n_layers))
        self.decoder = nn.ModuleList(
            layer(["self_attention", "cross_attention"]) for _ in range(n_layers)
        )
        self.output = Affine(d_model, target_vocab)

    def drop(self, x):
        return torch.dropout(x, self.rate, self.training)

    def embed(self, embedding, tokens):
        return self.positional_encoding(embedding(tokens) * embedding.weight.shape[1] ** 0.5)

    def encode(self, source):
        x = self.embed(self.source_embedding, source)
        real = source.ne(self.pad_id)[:, None, :]
        for layer in self.encoder:
            seen = attended(layer["self_attention"], self.n_heads, x, x, real)
            x = normed(x + self.drop(seen), layer["norm1"])
            x = normed(x + self.drop(network(layer["feed_forward"], x, self.drop)), layer["norm2"])
        return x

    def decode(self, target, memory, source):
        x = self.embed(self.target_embedding, target)
        position = torch.arange(target.shape[1], device=target.device)
        past = target.ne(self.pad_id)[:, None, :] & (position <= position[:, None])
        real = source.ne(self.pad_id)[:, None, :]
        for layer in self.decoder:
            seen = attended(layer["self_attention"], self.n_heads, x, x, past)
            x = normed(x + self.drop(seen), layer["norm1"])
            seen = attended(layer["cross_attention"], self.n_heads, x, memory, real)
            x = normed(x + self.drop(seen), layer["norm2"])
            x = normed(x + self.drop(network(layer["feed_forward"], x, self.drop)), layer["norm3"])
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %%
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    wide = logits.float() if logits.dtype in HALF else logits
    real = targets.ne(pad_id)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    onehot = (targets.unsqueeze(-1) == classes).to(wide.dtype)
    wanted = (1 - label_smoothing) * onehot + label_smoothing / logits.shape[-1]
    total = einsum("bnv,bnv,bn->", wanted, wide.log_softmax(-1), real.to(wide.dtype))
    return (-total / real.sum().clamp(min=1)).to(logits.dtype)


# %%
def greedy_decode(model, source, bos_id, eos_id, max_length):
    """Decode greedily, and stop decoding a sequence once it contains `eos_id`."""
    b = source.shape[0]
    tokens = source.new_full((b, max_length), model.pad_id)
    tokens[:, 0] = bos_id
    live = torch.arange(b, device=source.device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            memory = model.encode(source) if max_length > 1 else None
            for k in range(1, max_length):
                if live.numel() == 0:
                    return tokens[:, :k]
                logits = model.decode(tokens[live, :k], memory[live], source[live])
                chosen = logits[:, -1].argmax(-1).to(source.dtype)
                tokens[live, k] = chosen
                live = live[chosen != eos_id]
    finally:
        model.train(was_training)
    return tokens


# %%
def detects_broken_attention(attention):
    g = torch.Generator().manual_seed(5)
    q, k, v = (
        torch.randn(2, 4, 6, generator=g),
        torch.randn(2, 7, 6, generator=g),
        torch.randn(2, 7, 3, generator=g),
    )
    q.requires_grad_()
    mask = torch.rand(2, 4, 7, generator=g) > 0.4
    mask[1, 2] = False
    output, weights = attention(q, k, v, mask)
    scores = torch.einsum("bnd,bmd->bnm", q, k) / 6**0.5
    expected = torch.softmax(scores.masked_fill(~mask, -1e9), -1) * mask.any(-1, keepdim=True)
    close = torch.allclose(weights, expected, atol=1e-4) and torch.allclose(
        output, torch.einsum("bnm,bmv->bnv", expected, v), atol=1e-4
    )
    if not close or (weights[~mask] != 0).any():
        return torch.tensor(True)
    output.pow(2).sum().backward()
    return ~q.grad.isfinite().all()
