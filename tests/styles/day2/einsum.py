# %% [markdown]
# # Day 2 in einsum
#
# Each exercise is self-contained: it may call helpers, but no other exercise.

# %%
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache as remembered
from functools import partial, reduce, singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, einsum, nn

# %%
gelu = partial(F.gelu, approximate="tanh")


def wide(x):
    """Convert half-precision tensors to float32. Return other tensors unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# %% [markdown]
# ## Language model


# %%
class FusedAttention(nn.Module):
    """Causal attention in which the queries are the last n of m positions."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        self.n_heads, self.rate = n_heads, dropout
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x, cache=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.append(k, v)
        n, m = q.shape[-2], k.shape[-2]
        past = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=past, dropout_p=rate)
        return self.out(mixed.transpose(1, 2).flatten(2))


# %%
class CausalSelfAttention(nn.Module):
    """Causal self-attention whose weights have a head axis, so activations are never split into heads or merged."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads = {n_heads} does not divide the features")
        self.n_heads = n_heads
        self.add_module("qkv", nn.Linear(d_model, 3 * d_model))
        self.add_module("out", nn.Linear(d_model, d_model))
        self.resid_drop = nn.Dropout(dropout)

    def forward(self, x, cache=None):
        weight = self.qkv.weight.unflatten(0, (3, self.n_heads, -1))
        bias = self.qkv.bias.unflatten(0, (3, 1, self.n_heads, 1, -1))
        queries, *both = einsum("bnd,shed->sbhne", x, weight) + bias
        keys, values = both if cache is None else cache.append(*both)
        n, m = queries.shape[2], keys.shape[2]
        scores = einsum("bhne,bhme->bhnm", queries * queries.shape[-1] ** -0.5, keys)
        query_at = torch.arange(m - n, m, device=x.device)
        future = torch.arange(m, device=x.device) > query_at[:, None]
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        out = self.out.weight.unflatten(1, (self.n_heads, -1))
        return self.resid_drop(einsum("bhnm,bhme,dhe->bnd", weights, values, out) + self.out.bias)


# %%
class GPTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        parts = {
            "linear2": nn.Linear(d_ff, d_model),
            "linear1": nn.Linear(d_model, d_ff),
            "norm2": nn.LayerNorm(d_model),
            "attention": FusedAttention(d_model, n_heads, dropout),
            "norm1": nn.LayerNorm(d_model),
        }
        for name, part in parts.items():
            setattr(self, name, part)
        self.drop = nn.Dropout(dropout)

    def network(self, x):
        return self.linear2(self.drop(gelu(self.linear1(x))))

    def forward(self, x, cache=None):
        x = x + self.attention(self.norm1(x), cache)
        return x + self.network(self.norm2(x))


# %% [markdown]
# This model registers its tied matrix under two names and stores the positions in a buffer.


# %%
class Residual(nn.Sequential):
    """A pre-norm block: attention and a feed-forward network, each with a residual connection."""

    def __init__(self, d_model, n_heads, dropout):
        layers = [
            ("norm1", nn.LayerNorm(d_model)),
            ("attention", FusedAttention(d_model, n_heads, dropout)),
            ("norm2", nn.LayerNorm(d_model)),
            ("linear1", nn.Linear(d_model, 4 * d_model)),
            ("gelu", nn.GELU("tanh")),
            ("linear2", nn.Linear(4 * d_model, d_model)),
            ("drop", nn.Dropout(dropout)),
        ]
        super().__init__(OrderedDict(layers))

    def forward(self, x, cache):
        norm1, attention, *network = self
        x = x + attention(norm1(x), cache)
        return x + reduce(lambda y, layer: layer(y), network, x)


@dataclass(eq=False, repr=False)
class GPT(nn.Module):
    vocab_size: int
    max_length: int
    d_model: int
    n_heads: int
    n_layers: int
    dropout: float = 0.0

    def __post_init__(self):
        super().__init__()
        self.unembedding = nn.Linear(self.d_model, self.vocab_size, bias=False)
        self.token_embedding = nn.Embedding(self.vocab_size, self.d_model)
        self.position_embedding = nn.Embedding(self.max_length, self.d_model)
        self.token_embedding.weight = self.unembedding.weight
        self.blocks = nn.ModuleList(
            Residual(self.d_model, self.n_heads, self.dropout) for _ in range(self.n_layers)
        )
        self.norm = nn.LayerNorm(self.d_model)
        self.register_buffer("positions", torch.arange(self.max_length))

    def forward(self, tokens, caches=None):
        caches = caches or [None] * self.n_layers
        start = len(caches[0]) if caches[0] is not None else 0
        here = self.positions[start : start + tokens.shape[1]]
        if len(here) < tokens.shape[1]:
            raise ValueError(f"tokens go beyond the {self.max_length} positions there are")
        x = self.token_embedding(tokens) + self.position_embedding(here)
        x = torch.dropout(x, self.dropout, self.training)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, cache)
        return self.unembedding(self.norm(x))


# %%
def next_token_loss(logits, tokens):
    surprise = partial(F.cross_entropy, wide(logits)[:, :-1].mT)
    return surprise(tokens[:, 1:]).to(logits.dtype)


# %%
def _nucleus(ranked, top_p):
    """Return True for tokens in the nucleus. `ranked` ("... v") is sorted, with −inf for excluded tokens."""
    probability = ranked.softmax(-1)
    before = probability.cumsum(-1) - probability
    stays = before < top_p
    stays[..., 0] = True
    return stays


def _distribution(logits, temperature, top_k, top_p):
    for name, wrong in (
        ("temperature", temperature < 0),
        ("top_k", top_k is not None and top_k < 1),
        ("top_p", top_p is not None and (top_p <= 0 or top_p > 1)),
    ):
        if wrong:
            raise ValueError(f"{name} is out of its range")
    if not temperature:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, best, 1.0)
    ranked, order = wide(logits).sort(-1, descending=True)
    ranked = (ranked - ranked[..., :1]) / temperature
    v = logits.shape[-1]
    if top_k is not None:
        rank = torch.arange(v, device=logits.device)
        ranked = ranked.masked_fill(rank >= top_k, -torch.inf)
    if top_p is not None and top_p < 1:
        ranked = ranked.masked_fill(~_nucleus(ranked.detach(), top_p), -torch.inf)
    back = order.argsort(-1)
    return ranked.softmax(-1).gather(-1, back).to(logits.dtype)


def next_token_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    return _distribution(logits, temperature, top_k, top_p)


# %%
class evaluation:
    """A context manager that puts a model in evaluation mode."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.was_training = self.model.training
        self.model.train(False)

    def __exit__(self, *_):
        self.model.train(self.was_training)


def generate(
    model,
    prompt,
    n_tokens,
    temperature=1.0,
    top_k=None,
    top_p=None,
    use_cache=True,
    generator=None,
):
    b, n = prompt.shape
    if n + n_tokens > model.max_length:
        raise ValueError(f"n_tokens = {n_tokens} more than fit")
    tokens = torch.cat((prompt, prompt.new_zeros(b, n_tokens)), 1)
    with evaluation(model), torch.inference_mode():
        caches = [KeyValueCache() for _ in model.blocks] if use_cache else None
        done = 0
        for k in range(n, n + n_tokens):
            logits = model(tokens[:, done:k], caches=caches)[:, -1]
            probabilities = _distribution(logits, temperature, top_k, top_p)
            drawn = torch.multinomial(probabilities, 1, generator=generator)
            tokens[:, k] = drawn.squeeze(1)
            done = k if use_cache else 0
    return tokens


# %% [markdown]
# ## Music


# %%
def transpose(tokens, semitones):
    """Look up each token's new value in a table, which contains -1 for invalid results."""
    token = torch.arange(N_TOKENS, device=tokens.device)
    moved = token + semitones
    lost = (moved < 2) | (moved >= N_TOKENS)
    table = torch.where(token < 2, token, moved.masked_fill(lost, -1))
    result = table[tokens]
    if (result < 0).any():
        raise ValueError(f"tokens have a pitch that {semitones:+d} takes out of the range")
    return result


# %%
def skew(x):
    """Skew by taking windows of the flattened logits. Each row starts n - 1 entries after the previous one."""
    n = x.shape[-1]
    return x.flatten(-2)[..., n - 1 :].unfold(-1, n, max(n - 1, 1))


# %%
class RelativeSelfAttention(nn.Module):
    """Relative attention that looks up a vector for each pair of positions instead of skewing."""

    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        self.n_heads = n_heads
        self.out = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.query = nn.Linear(d_model, d_model)
        self.register_parameter(
            "relative", nn.Parameter(torch.zeros(n_heads, max_length, d_model // n_heads))
        )
        position = torch.arange(max_length)
        row = max_length - 1 - (position[:, None] - position)
        self.register_buffer("row", row.clamp(max=max_length - 1), persistent=False)

    def forward(self, x):
        n, limit = x.shape[1], self.relative.shape[1]
        if n > limit:
            raise ValueError(f"n = {n} positions are too many")
        q, k, v = (
            layer(x).unflatten(-1, (self.n_heads, -1))
            for layer in (self.query, self.key, self.value)
        )
        q = q / math.sqrt(q.shape[-1])
        by_content = einsum("bnhe,bmhe->bhnm", q, k)
        by_distance = einsum("bnhe,hnme->bhnm", q, self.relative[:, self.row[:n, :n]])
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = (by_content + by_distance).masked_fill(future, -torch.inf).softmax(-1)
        return self.out(einsum("bhnm,bmhe->bnhe", weights, v).flatten(2))


# %% [markdown]
# ## Vision


# %%
def patchify(images, patch_size):
    for axis, size in zip("HW", images.shape[-2:], strict=True):
        if size % patch_size:
            raise ValueError(f"{axis} = {size} is no multiple of the patches' {patch_size}")
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


# %%
def unpatchify(patches, patch_size, height, width):
    rows = height // patch_size
    columns = width // patch_size
    split = patches.unflatten(2, (-1, patch_size, patch_size)).unflatten(1, (rows, columns))
    return einsum("brscij->bcrisj", split).reshape(len(patches), -1, height, width)


# %%
class Patched(nn.Module):
    """A patch embedding whose projection is a convolution with stride equal to the kernel size."""

    def __init__(self, image_size, patch_size, channels, d_model):
        super().__init__()
        n_patches = (image_size // patch_size) ** 2
        self.kernel = (channels, patch_size, patch_size)
        self.position = nn.Parameter(torch.randn(1, n_patches + 1, d_model) / d_model)
        self.class_token = nn.Parameter(torch.randn(1, 1, d_model) / d_model)
        self.projection = nn.Linear(math.prod(self.kernel), d_model)

    def forward(self, images):
        kernel = self.projection.weight.unflatten(1, self.kernel)
        maps = F.conv2d(images, kernel, self.projection.bias, stride=self.kernel[-1])
        words = maps.flatten(2).mT
        return torch.cat((self.class_token.expand(len(images), -1, -1), words), 1) + self.position


class PatchEmbedding(Patched):
    pass


# %%
class Blocks(nn.ModuleList):
    def forward(self, x):
        return reduce(lambda y, block: block(y), self, x)


class ViT(nn.Module):
    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = Patched(image_size, patch_size, channels, d_model)
        self.blocks = Blocks(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def features(self, images):
        # The head reads only the class token, so only this token is normalised.
        return self.norm(self.blocks(self.embedding(images)).select(1, 0))

    def forward(self, images):
        return self.head(self.features(images))


# %%
def attention_distance(weights, grid, patch_size):
    place = torch.arange(grid * grid, device=weights.device)
    centre = torch.complex((place // grid).double(), (place % grid).double()) * patch_size
    distance = (centre[:, None] - centre).abs()
    mean = einsum("bhnm,nm->h", weights.double(), distance) / (len(weights) * grid**2)
    return mean.to(weights.dtype)


# %%
def _gram(x):
    """Return the inner products of the centred examples, in float64."""
    x = x.double() - x[:1].double()
    x = x - x.mean(0)
    return einsum("id,jd->ij", x, x)


def linear_cka(x, y):
    k, l = _gram(x), _gram(y)  # noqa: E741
    alike, own_x, own_y = (einsum("ij,ij->", *pair) for pair in ((k, l), (k, k), (l, l)))
    below = own_x * own_y
    constant = below == 0
    return (alike / below.masked_fill(constant, 1.0).sqrt()).masked_fill(constant, 0.0).to(x.dtype)


# %% [markdown]
# ## Diffusion


# %%
def cosine_schedule(n_steps):
    t = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    f = torch.cos((t + 0.008) / 1.008 * (math.pi / 2)).square()
    kept = (f[1:] / f[:-1]).clamp(min=1 - 0.999)
    return F.pad(kept.cumprod(0), (1, 0), value=1.0).float()


# %%
def add_noise(x0, t, noise, alpha_bar):
    signal = wide(alpha_bar)[t]
    weigh = partial(einsum, "b,b...->b...")
    clean = weigh(signal.sqrt().to(x0.dtype), x0)
    return clean + weigh((1 - signal).sqrt().to(x0.dtype), noise)


# %%
def timestep_embedding(t, d_model):
    half = d_model // 2
    frequency = 10000.0 ** -(torch.arange(half, device=t.device).double() / max(half, 1))
    turn = torch.exp(1j * einsum("b,i->bi", t.double(), frequency))
    both = torch.view_as_real(turn).mT.flatten(1)
    return F.pad(both, (0, d_model % 2)).float()


# %%
class Mixer(SelfAttention):
    """The provided attention, applied to a modulated input."""

    def forward(self, x, shift, scale):
        return super().forward(torch.addcmul(x, x, scale) + shift)


class DiTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.attention = Mixer(d_model, n_heads)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        for parameter in self.modulation.parameters():
            nn.init.zeros_(parameter)
        self.plain_norm = partial(F.layer_norm, normalized_shape=(d_model,), eps=1e-6)

    def forward(self, x, condition):
        six = self.modulation(F.silu(condition)).unflatten(1, (2, 3, 1, -1))
        (shift, scale, gate), network = (half.unbind(1) for half in six.unbind(1))
        x = x + gate * self.attention(self.plain_norm(x), shift, scale)
        shift, scale, gate = network
        inner = torch.addcmul(self.plain_norm(x) + shift, self.plain_norm(x), scale)
        return torch.addcmul(x, gate, self.linear2(gelu(self.linear1(inner))))


# %%
def guided_noise(model, x, t, labels, scale, null_label):
    doubled = [torch.cat((one, one)) for one in (x, t)]
    both = model(*doubled, torch.cat((torch.full_like(labels, null_label), labels)))
    free, bound = both.tensor_split(2)
    return einsum("s...,s->...", torch.stack((free, bound)), both.new_tensor([1 - scale, scale]))


# %%
@singledispatch
def _levels(alpha_bar, x):
    """Return the coefficients of the signal and of the noise."""
    return _levels(torch.tensor(float(alpha_bar), dtype=torch.float64, device=x.device), x)


@_levels.register
def _(alpha_bar: Tensor, x):
    level = alpha_bar.double()
    level = level.reshape(level.shape + (1,) * (x.dim() - 1)) if level.dim() else level
    return level.sqrt(), (1 - level).sqrt()


def ddim_step(x, predicted_noise, alpha_bar, alpha_bar_next):
    (signal, noise), (next_signal, next_noise) = _levels(alpha_bar, x), _levels(alpha_bar_next, x)
    stretch = next_signal / signal
    step = next_noise - stretch * noise
    return (stretch * x.double() + step * predicted_noise.double()).to(x.dtype)


# %% [markdown]
# ## Family


# %%
def rotary_embedding(x, positions, base=10000.0):
    d = x.shape[-1]
    if d & 1:
        raise ValueError(f"d must be even, {d} is not")
    rate = torch.pow(float(base), -torch.arange(0, d, 2, device=x.device, dtype=torch.float64) / d)
    angle = einsum("n,i->ni", positions.double(), rate)
    pairs = torch.complex(x[..., 0::2].double(), x[..., 1::2].double())
    turned = einsum("...ni,ni->...ni", pairs, torch.polar(torch.ones_like(angle), angle))
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


# %%
@remembered
def slopes(n_heads):
    if n_heads & (n_heads - 1) == 0:
        return tuple(2.0 ** (-8 * k / n_heads) for k in range(1, n_heads + 1))
    below = 1 << (n_heads.bit_length() - 1)
    return slopes(below) + slopes(2 * below)[::2][: n_heads - below]


def alibi_bias(n_heads, n):
    position = torch.arange(n)
    back = (position[:, None] - position).float()
    bias = einsum("h,ij->hij", -torch.tensor(slopes(n_heads)), back)
    return bias.masked_fill(back < 0, -torch.inf)


# %%
def sliding_window_mask(n, window):
    if window < 1:
        raise ValueError("window must be at least 1")
    return torch.ones(n, n).tril().triu(1 - window).bool()


# %%
def _feature(x):
    """Compute elu(x) + 1 as relu(x) + exp(min(x, 0)), which keeps small values accurate."""
    return F.relu(x) + x.clamp(max=0).exp()


def _prefix_sums(q, k, v, size=32):
    """Compute causal sums in chunks: masked products within a chunk, and a running state across chunks."""
    n = q.shape[-2]
    pad = -n % size
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(-2, (-1, size)) for x in (q, k, v))
    states = einsum("...sd,...sv->...dv", k, v)
    earlier = states.cumsum(-3) - states
    inside = einsum("...sd,...td->...st", q, k).tril()
    sums = einsum("...sd,...dv->...sv", q, earlier) + einsum("...st,...tv->...sv", inside, v)
    return sums.flatten(-3, -2)[..., :n, :]


def _all_sums(q, k, v):
    return einsum("...nd,...dv->...nv", q, einsum("...md,...mv->...dv", k, v))


def linear_attention(query, key, value, causal=False):
    # The denominator is what the numerator would be if all values were 1.
    ones = F.pad(value.double(), (0, 1), value=1.0)
    over = _prefix_sums if causal else _all_sums
    sums = over(_feature(query.double()), _feature(key.double()), ones)
    return (sums[..., :-1] / sums[..., -1:]).to(value.dtype)


# %%
def grouped_query_attention(query, key, value, mask=None):
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"h = {h} query heads do not share {g} key heads evenly")
    q = query.unflatten(1, (g, h // g))
    scores = einsum("bgrnd,bgmd->bgrnm", q / math.sqrt(q.shape[-1]), key)
    if mask is None:
        return einsum("bgrnm,bgmv->bgrnv", scores.softmax(-1), value).flatten(1, 2)
    allowed = mask.expand(len(query), h, *scores.shape[-2:]).unflatten(1, (g, h // g))
    some = allowed.any(-1, keepdim=True)
    weights = scores.masked_fill(some & ~allowed, -torch.inf).softmax(-1)
    mixed = einsum("bgrnm,bgmv->bgrnv", weights, value)
    return torch.where(some, mixed, 0.0).flatten(1, 2)


# %% [markdown]
# ## Memory


# %%
class RecurrentAttention(nn.Module):
    """Recurrent attention that detaches the memory before projecting it."""

    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        d_head, rest = divmod(d_model, n_heads)
        if rest:
            raise ValueError(f"n_heads = {n_heads} does not divide the features")
        self.heads = n_heads
        layers = {name: nn.Linear(d_model, d_model) for name in ("out", "value", "key", "query")}
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_head) / max_length)

    def forward(self, x, memory=None):
        before = x.new_empty(len(x), 0, x.shape[-1]) if memory is None else memory.data
        m, n, limit = before.shape[1], x.shape[1], self.relative.shape[1]
        if m + n > limit:
            raise ValueError(f"{m} + {n} positions, but max_length = {limit}")
        both = torch.hstack([before, x])
        k, v = (layer(both).unflatten(-1, (self.heads, -1)) for layer in (self.key, self.value))
        q = self.query(x).unflatten(-1, (self.heads, -1)) * k.shape[-1] ** -0.5
        back = torch.arange(m, m + n, device=x.device)[:, None] - torch.arange(
            m + n, device=x.device
        )
        vectors = self.relative.flip(1)[:, back.clamp(min=0)]
        scores = einsum("bnhe,bmhe->bhnm", q, k) + einsum("bnhe,hnme->bhnm", q, vectors)
        weights = scores.masked_fill(back < 0, -torch.inf).softmax(-1)
        return self.out(einsum("bhnm,bmhe->bnhe", weights, v).flatten(2))


# %%
def knn_probabilities(probabilities, queries, keys, tokens, k, temperature=1.0, mix=0.25):
    for name, fine in (("k", k >= 1), ("mix", 0 <= mix <= 1), ("temperature", temperature > 0)):
        if not fine:
            raise ValueError(f"{name} is out of range")
    dtype, v = probabilities.dtype, probabilities.shape[-1]
    q, x = queries.double(), keys.double()
    squares = einsum("nd,nd->n", q, q)[:, None] + einsum("md,md->m", x, x)
    squares = squares - 2 * einsum("nd,md->nm", q, x)
    # Keep all neighbours that are tied with the k-th.
    worst = squares.detach().kthvalue(min(k, len(x)), dim=-1, keepdim=True).values
    weights = (-squares / temperature).masked_fill(squares > worst, -torch.inf).softmax(-1)
    member = (tokens[:, None] == torch.arange(v, device=tokens.device)).double()
    return torch.lerp(probabilities.double(), weights @ member, float(mix)).to(dtype)


# %%
def performer_features(x, projection):
    r, d = projection.shape
    exact = wide(x) * d**-0.25
    logits = einsum("...nd,rd->...nr", exact, wide(projection))
    half_norm = einsum("...nd,...nd->...n", exact, exact) / 2
    return (logits - half_norm.unsqueeze(-1) - math.log(r) / 2).exp().to(x.dtype)


# %% [markdown]
# ## Decisions


# %%
def returns_to_go(rewards):
    later = torch.ones(2 * rewards.shape[-1:], device=rewards.device, dtype=rewards.dtype).tril()
    return einsum("...s,st->...t", rewards, later)


# %%
def interleave(returns, states, actions):
    both = torch.cat([returns, states, actions], dim=-1)
    return both.unflatten(-1, (3, -1)).flatten(1, 2)


# %%
class DecisionTransformer(nn.Module):
    """A model that adds the embeddings of each kind of token to every third row of a tensor."""

    def __init__(self, n_states, n_actions, max_steps, d_model, n_heads, n_layers):
        super().__init__()
        self.max_steps = max_steps
        self.head, self.norm = nn.Linear(d_model, n_actions), nn.LayerNorm(d_model)
        self.blocks = nn.Sequential(*(CausalBlock(d_model, n_heads) for _ in range(n_layers)))
        sizes = {"state": n_states, "action": n_actions, "step": max_steps}
        for name, size in sizes.items():
            self.add_module(f"{name}_embedding", nn.Embedding(size, d_model))
        self.return_embedding = nn.Linear(1, d_model)

    def forward(self, returns, states, actions):
        b, t = states.shape
        if t > self.max_steps:
            raise ValueError(f"t = {t} steps are more than max_steps = {self.max_steps}")
        x = self.step_embedding.weight[:t].repeat_interleave(3, 0).repeat(b, 1, 1)
        x[:, 0::3] += self.return_embedding(returns.unsqueeze(-1))
        x[:, 1::3] += self.state_embedding(states)
        x[:, 2::3] += self.action_embedding(actions)
        return self.head(self.blocks(self.norm(x)).unflatten(1, (t, 3))[:, :, 1])


# %%
def counterexample():
    return 3, *torch.tensor([[[1.0]], [[-2.0]]]).expand(2, 2, 1), torch.eye(2).bool()


# %%
def repaired_weights(query, key, mask):
    scores = einsum("nd,md->nm", query, key) * query.shape[-1] ** -0.5
    return scores.masked_fill(mask.logical_not(), -torch.inf).softmax(-1)
