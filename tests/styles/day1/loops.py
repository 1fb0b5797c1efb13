# ruff: noqa: F811
# %% [markdown]
# # Day 1 in loops
#
# I process one query, head or batch row at a time, in float64.

# %%
import math
from dataclasses import dataclass
from functools import lru_cache, wraps

import torch
from torch import nn


# %%
def _is_real(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def in_double(function):
    """Make a function compute in float64, and convert its results to the dtype of the first tensor argument."""

    @wraps(function)
    def wrapper(*args, **kwargs):
        dtype = next(x.dtype for x in (*args, *kwargs.values()) if _is_real(x))
        result = function(
            *(x.double() if _is_real(x) else x for x in args),
            **{name: x.double() if _is_real(x) else x for name, x in kwargs.items()},
        )
        if isinstance(result, tuple):
            return tuple(x.to(dtype) for x in result)
        return result.to(dtype)

    return wrapper


# %% [markdown]
# My first try, which overflows for large numbers and drops an axis of the sum.


# %%
def softmax(x, dim=-1):
    return x.exp() / x.exp().sum(dim)


# %%
# My second try shifts x and keeps the axis of the sum.
@in_double
def softmax(x, dim=-1):
    shifted = x - x.amax(dim, keepdim=True).detach()
    powers = torch.where(shifted.isinf(), 0.0, shifted).exp() * ~shifted.isinf()
    return powers / powers.sum(dim, keepdim=True)


# %%
@in_double
def attention_scores(query, key):
    d = query.shape[-1]
    rows = []
    for i in range(query.shape[-2]):
        one = query[..., i, :].unsqueeze(-1)
        rows.append((key @ one).squeeze(-1) / math.sqrt(d))
    return torch.stack(rows, dim=-2)


# %%
@in_double
def attention(query, key, value):
    weights = softmax(attention_scores(query, key))
    outputs = [weights[..., i : i + 1, :] @ value for i in range(weights.shape[-2])]
    return torch.cat(outputs, dim=-2), weights


# %%
def padding_mask(tokens, pad_id):
    rows = []
    for sequence in tokens:
        rows.append(torch.where(sequence == pad_id, False, True))
    return torch.stack(rows)[:, None, :]


# %%
def causal_mask(n, device=None):
    mask = torch.ones(n, n, dtype=torch.bool, device=device)
    for i in range(n):
        mask[i, i + 1 :] = False
    return mask


# %%
def decoder_mask(tokens, pad_id):
    n = tokens.shape[1]
    past = causal_mask(n, tokens.device)
    return torch.stack([past & (row != pad_id) for row in tokens])


# %%
def _weights_where(mask, scores):
    """Return the attention weights. The mask may hide all keys of a query."""
    scores = torch.where(mask, scores, -math.inf)
    top = scores.amax(-1, keepdim=True).detach()
    powers = torch.exp(scores - torch.where(top.isinf(), 0.0, top))
    total = powers.sum(-1, keepdim=True)
    return powers / torch.where(total == 0, 1.0, total)


@in_double
def masked_attention(query, key, value, mask=None):
    scores = attention_scores(query, key)
    if mask is None:
        mask = torch.ones((), dtype=torch.bool, device=scores.device)
    shape = torch.broadcast_shapes(mask.shape, scores.shape)
    mask, scores = mask.expand(shape), scores.expand(shape)
    weights, outputs = [], []
    for i in range(shape[-2]):
        row = _weights_where(mask[..., i, :], scores[..., i, :])
        weights.append(row)
        outputs.append((row.unsqueeze(-2) @ value).squeeze(-2))
    return torch.stack(outputs, -2), torch.stack(weights, -2)


# %% [markdown]
# ## Positions


# %%
@dataclass(frozen=True)
class Settings:
    base: float = 10000.0
    eps: float = 1e-5

    def frequency(self, pair, d_model):
        return self.base ** (-2 * pair / d_model)


SETTINGS = Settings()


# %%
@lru_cache(maxsize=64)
def _table(length, d_model):
    columns = []
    positions = torch.arange(length, dtype=torch.float64)
    for column in range(d_model):
        wave = torch.cos if column % 2 else torch.sin
        columns.append(wave(positions * SETTINGS.frequency(column // 2, d_model)))
    return torch.stack(columns, dim=1)


def sinusoidal_encoding(length, d_model):
    return _table(length, d_model).to(torch.float32, copy=True)


# %%
def shift_matrix(offset, d_model):
    if d_model % 2 != 0:
        raise ValueError("d_model has to be even")
    matrix = torch.zeros(d_model, d_model)
    for i in range(0, d_model, 2):
        angle = offset * SETTINGS.frequency(i // 2, d_model)
        matrix[i, i] = matrix[i + 1, i + 1] = math.cos(angle)
        matrix[i, i + 1] = math.sin(angle)
        matrix[i + 1, i] = -math.sin(angle)
    return matrix


# %%
class PositionalEncoding(nn.Module):
    table = None

    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.d_model = d_model
        self.max_length = max_length
        self.dropout = nn.Dropout(dropout)

    def rows(self, n):
        """Return the first n rows of the table, replacing the table if it is too short."""
        if self.table is None or len(self.table) < n:
            self.table = _table(n, self.d_model)
        return self.table[:n]


def _add_positions(self, x):
    n = x.size(1)
    if n > self.max_length:
        raise ValueError(f"n ({n}) is larger than max_length ({self.max_length})")
    return self.dropout((x + self.rows(n).to(x.device)).to(x.dtype))


PositionalEncoding.forward = _add_positions

# %% [markdown]
# ## Heads


# %%
def split_heads(x, n_heads):
    d_head, rest = divmod(x.shape[-1], n_heads)
    if rest:
        raise ValueError(f"n_heads={n_heads} leaves a rest of {rest} features")
    return torch.stack([x[:, :, k * d_head : (k + 1) * d_head] for k in range(n_heads)], dim=1)


def merge_heads(x):
    return torch.cat([x[:, k] for k in range(x.shape[1])], dim=2)


# %%
class Divisible:
    """A mixin that computes the head size."""

    @staticmethod
    def head_size(d_model, n_heads):
        if d_model % n_heads != 0:
            raise ValueError(f"d_model={d_model} is not divisible by n_heads={n_heads}")
        return d_model // n_heads


class HeadLoop:
    """A mixin that computes attention one head at a time. The class must define `d_head`."""

    def head(self, k, query, key, value, mask):
        part = slice(k * self.d_head, (k + 1) * self.d_head)
        return masked_attention(query[:, :, part], key[:, :, part], value[:, :, part], mask)


class MultiHeadAttention(HeadLoop, Divisible, nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        nn.Module.__init__(self)
        self.d_head = self.head_size(d_model, n_heads)
        self.n_heads = n_heads
        for name in ["query", "key", "value", "out"]:
            setattr(self, name, nn.Linear(d_model, d_model, bias=bias))

    def forward(self, query, key, value, mask=None):
        q, k, v = self.query(query), self.key(key), self.value(value)
        outputs, weights = [], []
        for i in range(self.n_heads):
            output, weight = self.head(i, q, k, v, mask)
            outputs.append(output)
            weights.append(weight)
        return self.out(torch.cat(outputs, dim=-1)), torch.stack(weights, dim=1)


# %% [markdown]
# ## Layers


# %%
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=SETTINGS.eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))


@in_double
def _normalise(self, x):
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    spread = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / torch.sqrt(spread + self.eps) * self.weight + self.bias


LayerNorm.forward = _normalise


# %%
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        rows = [torch.where(hidden > 0, hidden, 0.0) for hidden in self.linear1(x).unbind(0)]
        return self.linear2(self.dropout(torch.stack(rows)))


# %%
class Residual:
    """A mixin that adds the output of a branch to x, and then applies the norm with the given number."""

    def residual(self, number, x, branch):
        return getattr(self, f"norm{number}")(x + self.dropout(branch))


class EncoderLayer(Residual, nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        for number in (1, 2):
            setattr(self, f"norm{number}", LayerNorm(d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        x = self.residual(1, x, self.self_attention(x, x, x, mask)[0])
        return self.residual(2, x, self.feed_forward(x))


# %%
class DecoderLayer(Residual, nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        for number in (1, 2, 3):
            setattr(self, f"norm{number}", LayerNorm(d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        branches = (
            lambda x: self.self_attention(x, x, x, mask)[0],
            lambda x: self.cross_attention(x, memory, memory, memory_mask)[0],
            self.feed_forward,
        )
        for number, branch in enumerate(branches, start=1):
            x = self.residual(number, x, branch(x))
        return x


# %%
@dataclass
class Sizes:
    d_model: int
    n_heads: int
    d_ff: int
    dropout: float

    def layers(self, kind, n_layers):
        return nn.ModuleList(
            [kind(self.d_model, self.n_heads, self.d_ff, self.dropout) for _ in range(n_layers)]
        )


class Transformer(nn.Module):
    def __init__(self, source_vocab, target_vocab, d_model=64, n_heads=4, n_layers=2, d_ff=128,
                 dropout=0.0, pad_id=0, max_length=512):  # fmt: skip
        super().__init__()
        sizes = Sizes(d_model, n_heads, d_ff, dropout)
        self.pad_id = pad_id
        self.d_model = d_model
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        self.encoder = sizes.layers(EncoderLayer, n_layers)
        self.decoder = sizes.layers(DecoderLayer, n_layers)
        self.output = nn.Linear(d_model, target_vocab)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


def encode(self, source):
    x = self.positional_encoding(self.source_embedding(source) * self.d_model**0.5)
    for layer in self.encoder:
        x = layer(x, padding_mask(source, self.pad_id))
    return x


def decode(self, target, memory, source):
    x = self.positional_encoding(self.target_embedding(target) * self.d_model**0.5)
    for layer in self.decoder:
        x = layer(x, memory, decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id))
    return self.output(x)


Transformer.encode = encode
setattr(Transformer, "decode", decode)  # noqa: B010


# %%
@in_double
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    v = logits.shape[-1]
    total, count = (logits * 0).sum(), 0
    for row, wanted in zip(logits, targets, strict=True):
        real = wanted != pad_id
        row, wanted = row[real], wanted[real]
        top = row.amax(-1, keepdim=True)
        log_p = row - top - (row - top).exp().sum(-1, keepdim=True).log()
        at_target = log_p[torch.arange(len(wanted)), wanted].sum()
        total = total - (1 - label_smoothing) * at_target - label_smoothing / v * log_p.sum()
        count += len(wanted)
    return total / max(count, 1)


# %%
@torch.no_grad()
def greedy_decode(model, source, bos_id, eos_id, max_length):
    mode = model.training
    model.eval()
    memory = model.encode(source)
    rows = []
    for r in range(len(source)):
        tokens = [bos_id]
        while len(tokens) < max_length:
            target = torch.tensor([tokens], dtype=source.dtype, device=source.device)
            logits = model.decode(target, memory[r : r + 1], source[r : r + 1])
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] == eos_id:
                break
        rows.append(tokens)
    model.train(mode)
    longest = max(len(tokens) for tokens in rows)
    filled = [tokens + [model.pad_id] * (longest - len(tokens)) for tokens in rows]
    return torch.tensor(filled, dtype=source.dtype, device=source.device)


# %%
def detects_broken_attention(attention):
    torch.manual_seed(2)
    query, key, value = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 2)
    query.requires_grad_()
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[0, 0, 1:3] = False
    mask[0, 1] = False
    mask[1, 2, 4] = False
    mask[1, 0, 0] = False
    output, weights = attention(query, key, value, mask)
    for row in range(2):
        for position in range(3):
            allowed = [j for j in range(5) if mask[row, position, j]]
            expected = torch.zeros(5)
            if allowed:
                scores = torch.stack([query[row, position] @ key[row, j] / 2 for j in allowed])
                expected[allowed] = torch.softmax(scores, 0).detach()
            seen = weights[row, position].detach()
            if (
                not torch.allclose(seen, expected, atol=1e-4)
                or (seen[~mask[row, position]] != 0).any()
            ):
                return True
            mean = expected @ value[row]
            if not torch.allclose(output[row, position].detach(), mean, atol=1e-4):
                return True
    output.sum().backward()
    return bool(query.grad.isnan().any())
