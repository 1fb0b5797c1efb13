"""Solutions for day 1 by an author who comes from JAX: pure functions over dictionaries of weights, einsum, closures and `vmap`.

Dependencies are bound with `partial`, kept in tables or called inside other functions, and modules only hold the weights.
"""

# %%
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import nn

einsum = torch.einsum


def weights_of(module: nn.Module, *names: str) -> dict[str, Any]:
    """Return the parts of a module as a dictionary, which the pure functions take as their first argument."""
    return {name: getattr(module, name) for name in names}


def compose(*functions):
    return lambda x: reduce(lambda y, function: function(y), functions, x)


# %%
def softmax(x, dim=-1):
    def one(row):  # over the last axis, in at least single precision
        unnormalized = torch.exp(row - row.max(dim=-1, keepdim=True).values)
        return unnormalized / einsum("...i->...", unnormalized)[..., None]

    promoted = x.type(torch.promote_types(x.dtype, torch.float32))
    return torch.moveaxis(one(torch.moveaxis(promoted, dim, -1)), -1, dim).type_as(x)


# %%
def attention_scores(query, key):
    # Half of the scale goes to each factor.
    scale = query.shape[-1] ** -0.25
    return einsum("...nd,...md->...nm", query * scale, key * scale)


# %%
def attention(query, key, value):
    w = compose(partial(attention_scores, query), softmax)(key)
    return einsum("...nm,...md->...nd", w, value), w


# %%
def padding_mask(tokens, pad_id):
    return torch.vmap(lambda row: (row != pad_id)[None])(tokens)


# %%
def causal_mask(n, device=None):
    index = torch.arange(n, device=device)
    return index[:, None] >= index[None, :]


# %%
def decoder_mask(tokens, pad_id):
    (_, n), device = tokens.shape, tokens.device
    return torch.einsum(
        "bqm,nm->bnm", padding_mask(tokens, pad_id).int(), causal_mask(n, device).int()
    ).bool()


# %%
def masked_attention(query, key, value, mask=None):
    scores = attention_scores(query, key)
    if mask is None:
        w = softmax(scores)
    else:
        # Rows without any key are filled with zeros before and after the softmax, which keeps gradients finite.
        empty = ~mask.any(-1, keepdim=True)
        scores = torch.where(mask, scores, torch.where(empty, 0.0, -torch.inf).to(scores.dtype))
        w = torch.where(mask, softmax(scores), torch.zeros_like(scores))
    return einsum("...nm,...md->...nd", w, value), w


# %%
def sinusoidal_encoding(length, d_model):
    p, c = np.ogrid[:length, :d_model]
    angle = p / np.power(10_000.0, 2 * (c // 2) / d_model)
    return torch.from_numpy(np.where(c % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32))


# %%
def shift_matrix(offset, d_model):
    if d_model % 2:
        raise ValueError(f"expected an even d_model, not {d_model}")
    turn = offset * np.power(10_000.0, -np.arange(0, d_model, 2) / d_model)
    matrix = np.diag(np.repeat(np.cos(turn), 2))
    rows = np.arange(0, d_model, 2)
    matrix[rows, rows + 1] = np.sin(turn)
    matrix[rows + 1, rows] = -np.sin(turn)
    return torch.tensor(matrix, dtype=torch.float32)


# %%
class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        table = sinusoidal_encoding(max_length, d_model)

        def rows(n, like):
            if n > max_length:
                raise ValueError(f"n = {n} exceeds max_length = {max_length}")
            return table[:n].to(device=like.device, dtype=like.dtype)

        self._rows = rows  # the table lives in the closure and is moved when it is used
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x):
        return self.drop(x + self._rows(x.shape[-2], x))


# %%
def split_heads(x, n_heads):
    d = x.shape[-1]
    if d % n_heads != 0:
        raise ValueError(f"cannot split d={d} into {n_heads} heads")
    heads = x.unflatten(-1, (n_heads, d // n_heads))
    return einsum("bnhk->bhnk", heads)


# %%
def merge_heads(x):
    return torch.vmap(partial(torch.flatten, start_dim=-2))(einsum("bhnk->bnhk", x))


# %%
def apply_attention(params, attend, n_heads, query, key, value, mask):
    q, k, v = (
        split_heads(params[name](x), n_heads)
        for name, x in zip(("query", "key", "value"), (query, key, value), strict=True)
    )
    mixed, w = attend(q, k, v, mask if mask is None else mask[..., None, :, :])
    return params["out"](merge_heads(mixed)), w


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        super().__init__()
        if d_model // n_heads * n_heads != d_model:
            raise ValueError(f"d_model {d_model} is not divisible by n_heads {n_heads}")
        dense = partial(nn.Linear, d_model, d_model, bias)
        self.query, self.key, self.value, self.out = (dense() for _ in range(4))
        self.n_heads = n_heads

    def forward(self, query, key, value, mask=None):
        params = weights_of(self, "query", "key", "value", "out")
        return apply_attention(params, masked_attention, self.n_heads, query, key, value, mask)


# %%
def normalize(x, eps):
    promoted = x.type(torch.promote_types(x.dtype, torch.float32))
    centred = promoted - promoted.mean(-1, keepdim=True)
    power = einsum("...i,...i->...", centred, centred)[..., None] / x.shape[-1]
    return (centred / (power + eps).sqrt()).type_as(x)


class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.bias = map(nn.Parameter, (torch.ones(d_model), torch.zeros(d_model)))
        self.normalize = partial(normalize, eps=eps)

    def forward(self, x):
        return torch.addcmul(self.bias, self.weight, self.normalize(x))


# %%
def dropout(module, rate, x):
    """Apply inverted dropout to x if the module is being trained."""
    if not module.training or rate == 0:
        return x
    keep = torch.rand(x.shape, device=x.device) >= rate
    return torch.where(keep, x / (1 - rate), torch.zeros_like(x)) if rate < 1 else x * 0


class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.linear1, self.linear2, self.rate = (
            nn.Linear(d_model, d_ff),
            nn.Linear(d_ff, d_model),
            dropout,
        )

    def forward(self, x):
        drop = partial(dropout, self, self.rate)
        return compose(self.linear1, lambda h: h.clamp(min=0), drop, self.linear2)(x)


# %%
def sublayer(module, norm, f):
    """Return the function that adds f with dropout to its argument and normalises the sum."""
    return lambda x: norm(x + dropout(module, module.rate, f(x)))


def layer_parts(attentions, norms, d_model, n_heads, d_ff, rate):
    """Yield the names and modules of a layer."""
    yield from ((name, MultiHeadAttention(d_model, n_heads)) for name in attentions)
    yield "feed_forward", FeedForward(d_model, d_ff, rate)
    yield from ((f"norm{i + 1}", LayerNorm(d_model)) for i in range(norms))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.rate = dropout
        for name, part in layer_parts(["self_attention"], 2, d_model, n_heads, d_ff, dropout):
            self.add_module(name, part)

    def forward(self, x, mask=None):
        return compose(
            sublayer(self, self.norm1, lambda y: self.self_attention(y, y, y, mask)[0]),
            sublayer(self, self.norm2, self.feed_forward),
        )(x)


# %%
class DecoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.rate = dropout
        names = ["self_attention", "cross_attention"]
        for name, part in layer_parts(names, 3, d_model, n_heads, d_ff, dropout):
            self.add_module(name, part)

    def forward(self, x, memory, mask=None, memory_mask=None):
        def attend(attention, keys, mask):
            return lambda y: attention(y, *(y if keys is None else keys,) * 2, mask)[0]

        stages = [
            attend(self.self_attention, None, mask),
            attend(self.cross_attention, memory, memory_mask),
            self.feed_forward,
        ]
        norms = [self.norm1, self.norm2, self.norm3]
        return compose(*map(partial(sublayer, self), norms, stages))(x)


# %%
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
        layer = d_model, n_heads, d_ff, dropout
        self.pad_id, self.n_layers = pad_id, n_layers
        self.source_embedding, self.target_embedding = (
            nn.Embedding(vocab, d_model) for vocab in (source_vocab, target_vocab)
        )
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        self.encoder, self.decoder = (
            nn.ModuleList(kind(*layer) for _ in range(n_layers))
            for kind in (EncoderLayer, DecoderLayer)
        )
        self.output = nn.Linear(d_model, target_vocab)
        self.scale = d_model**0.5

    def embed(self, embedding):
        return compose(embedding, lambda x: x * self.scale, self.positional_encoding)

    def encode(self, source):
        mask = padding_mask(source, self.pad_id)
        layers = [partial(layer, mask=mask) for layer in self.encoder]
        return compose(self.embed(self.source_embedding), *layers)(source)

    def decode(self, target, memory, source):
        masks = decoder_mask(target, self.pad_id), padding_mask(source, self.pad_id)
        layers = [lambda x, layer=layer: layer(x, memory, *masks) for layer in self.decoder]
        return compose(self.embed(self.target_embedding), *layers, self.output)(target)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


# %%
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    promoted = logits.type(torch.promote_types(logits.dtype, torch.float32))
    log_p = promoted - promoted.logsumexp(-1, keepdim=True)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    one_hot = (targets[..., None] == classes).type_as(log_p)
    y = (1 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    real = (targets != pad_id).type_as(log_p)
    total = -einsum("bn,bnv,bnv->", real, y, log_p)
    return (total / real.sum().clamp(min=1)).type_as(logits)


# %%
def greedy_decode(model, source, bos_id, eos_id, max_length):
    def step(carry):
        tokens, done, memory = carry
        likely = model.decode(tokens, memory, source)[:, -1].max(-1).indices.type_as(source)
        likely = torch.where(done, model.pad_id, likely).type_as(source)
        return torch.hstack([tokens, likely[:, None]]), done | (likely == eos_id), memory

    def proceed(carry):
        return carry[0].shape[1] < max_length and not carry[1].all()

    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            start = torch.full_like(source[:, :1], bos_id)
            carry = start, torch.zeros_like(source[:, 0], dtype=torch.bool), model.encode(source)
            while proceed(carry):
                carry = step(carry)
    finally:
        for module, training in modes.items():
            module.training = training
    return carry[0]


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
