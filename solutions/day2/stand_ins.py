"""Stand-ins that Day 2's checks and demonstrations use in place of unfinished exercises.

They are built from PyTorch's own operators and exist only in the notebook. They support only the inputs that later
checks and demonstrations pass to them: float32 tensors on the CPU. They call each other by name, so once an exercise is
finished, the other stand-ins call the student's version. In the notebook, they can use only `torch`, `nn`, `F` and the
provided code.
"""

import torch
import torch.nn.functional as F
from torch import nn

from solutions.day2.decisions import CausalBlock
from solutions.day2.language_model import KeyValueCache
from solutions.day2.music import N_TOKENS
from solutions.day2.vision import BidirectionalBlock, SelfAttention


def counterexample():
    return 0, torch.zeros(1, 2), torch.zeros(3, 2), torch.ones(1, 3, dtype=torch.bool)


def repaired_weights(query, key, mask):
    return F.scaled_dot_product_attention(query, key, torch.eye(len(key)), mask)


class CausalSelfAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        theirs = nn.MultiheadAttention(d_model, n_heads)
        self.heads, self.drop = n_heads, nn.Dropout(dropout)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), theirs.out_proj

    def forward(self, x, cache=None):
        q, k, v = (
            torch.stack(part.chunk(self.heads, -1), 1)
            for part in self.qkv(x).split(x.shape[-1], -1)
        )
        k, v = (k, v) if cache is None else cache.append(k, v)
        old = k.shape[2] - x.shape[1]
        bias = torch.full((x.shape[1], k.shape[2]), -torch.inf).triu(old + 1)
        mixed = torch.softmax(
            torch.baddbmm(bias, q.flatten(0, 1).mul(q.shape[-1] ** -0.5), k.flatten(0, 1).mT), -1
        )
        mixed = torch.bmm(mixed, v.flatten(0, 1)).unflatten(0, (len(x), -1))
        return self.drop(self.out(torch.cat(mixed.unbind(1), -1)))


class GPTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        theirs = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout)
        self.norm1, self.norm2, self.drop = theirs.norm1, theirs.norm2, theirs.dropout1
        self.add_module("attention", CausalSelfAttention(d_model, n_heads, dropout))
        self.linear1, self.linear2 = theirs.linear1, theirs.linear2

    def forward(self, x, cache=None):
        y = torch.add(x, self.drop(self.attention(self.norm1(x), cache)))
        inner = F.gelu(self.linear1(self.norm2(y)), approximate="tanh")
        return torch.add(y, self.drop(self.linear2(inner)))


class GPT(nn.Module):
    def __init__(self, vocab_size, max_length, d_model, n_heads, n_layers, dropout=0.0):
        super().__init__()
        self.n_layers, self.max_length = n_layers, max_length
        self.add_module("token_embedding", nn.Embedding(vocab_size, d_model))
        self.add_module("position_embedding", nn.Embedding(max_length, d_model))
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList([GPTBlock(*sizes) for _ in range(n_layers)])
        self.norm, self.drop = nn.LayerNorm(d_model), nn.Dropout(dropout)

    def forward(self, tokens, caches=None):
        caches = caches or [None] * self.n_layers
        old = 0 if caches[0] is None else len(caches[0])
        places = self.position_embedding.weight.narrow(0, old, tokens.shape[1])
        x = self.drop(torch.add(self.token_embedding(tokens), places))
        for each, cache in zip(self.blocks, caches, strict=True):
            x = each(x, cache)
        return F.linear(self.norm(x), self.token_embedding.weight)


def next_token_loss(logits, tokens):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:])


def next_token_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    if temperature == 0:
        top_k, temperature = 1, 1.0
    kept = min(top_k or logits.shape[-1], logits.shape[-1])
    best = logits.topk(kept)
    p = torch.softmax(best.values.sub(best.values.amax(-1, True)).div(temperature), -1)
    if top_p is not None:
        p = p.where(p.cumsum(-1).sub(p).lt(top_p), 0)
    return torch.zeros(logits.shape).scatter(-1, best.indices, F.normalize(p, p=1, dim=-1))


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
    mode, written = model.training, prompt
    with torch.no_grad():
        caches = [KeyValueCache() for _ in model.eval().blocks]
        for _ in range(n_tokens):
            seen = model(written[:, len(caches[0]) :], caches) if use_cache else model(written)
            p = next_token_probabilities(seen.select(1, -1), temperature, top_k, top_p)
            written = torch.cat([written, torch.multinomial(p, 1, generator=generator)], 1)
    model.train(mode)
    return written


def transpose(tokens, semitones):
    shifted = tokens.add(semitones).clamp(2, N_TOKENS - 1)
    return shifted.where(tokens.gt(1), tokens)


def skew(x):
    n = x.shape[-1]
    back = torch.arange(n).sub(torch.arange(n)[:, None]).add(n - 1).clamp(0, n - 1)
    return x.gather(-1, back.expand(x.shape))


class RelativeSelfAttention(nn.Module):
    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        for name in ("query", "key", "value", "out"):
            self.add_module(name, nn.Linear(d_model, d_model))
        size = d_model // n_heads
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, size).div(size**0.5))

    def forward(self, x):
        h, n = self.relative.shape[0], x.shape[1]
        q, k, v = (
            torch.stack(part.chunk(h, -1), 1)
            for part in (self.query(x), self.key(x), self.value(x))
        )
        offsets = torch.einsum("bhnd,hmd->bhnm", q, self.relative[:, -n:])
        bias = skew(offsets).div(q.shape[-1] ** 0.5)
        bias = bias.add(torch.full((n, n), -torch.inf).triu(1))
        mixed = F.scaled_dot_product_attention(q, k, v, bias)
        return self.out(torch.cat(mixed.unbind(1), -1))


def patchify(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def unpatchify(patches, patch_size, height, width):
    return F.fold(patches.transpose(1, 2), (height, width), patch_size, stride=patch_size)


class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, channels, d_model):
        super().__init__()
        self.size, n = patch_size, (image_size // patch_size) ** 2
        self.add_module("projection", nn.Linear(channels * patch_size**2, d_model))
        self.register_parameter("class_token", nn.Parameter(torch.zeros(1, 1, d_model)))
        self.position = nn.Parameter(nn.init.normal_(torch.empty(1, n + 1, d_model), std=0.02))

    def forward(self, images):
        inner = self.projection(patchify(images, self.size))
        first = self.class_token.repeat(len(images), 1, 1)
        return torch.add(torch.hstack([first, inner]), self.position)


class ViT(nn.Module):
    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.add_module("embedding", PatchEmbedding(image_size, patch_size, channels, d_model))
        self.blocks = nn.Sequential(
            *[BidirectionalBlock(d_model, n_heads) for _ in range(n_layers)]
        )
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, n_classes)

    def forward(self, images):
        return self.head(self.norm(self.blocks(self.embedding(images)).select(1, 0)))


def attention_distance(weights, grid, patch_size):
    steps = torch.arange(grid * grid)
    places = torch.stack([steps // grid, steps % grid], 1).float()
    return torch.einsum("bhij,ij->h", weights, torch.cdist(places, places)).mul(
        patch_size / (len(weights) * grid * grid)
    )


def linear_cka(x, y):
    grams = [torch.cov(part.double(), correction=0) for part in (x.T, y.T)]
    both = torch.cov(torch.cat([x, y], 1).T.double(), correction=0)[: x.shape[1], x.shape[1] :]
    sizes = [torch.linalg.matrix_norm(torch.atleast_2d(gram)) for gram in grams]
    return both.square().sum().div(sizes[0] * sizes[1] + 1e-100).float()


def cosine_schedule(n_steps):
    share = torch.linspace(0, 1, n_steps + 1).double().add(0.008).div(1.008)
    f = share.mul(torch.pi / 2).cos().square()
    kept = torch.maximum(f[1:] / f[:-1], torch.tensor(1e-3))
    return torch.cat([torch.ones(1), kept.log().cumsum(0).exp().float()])


def add_noise(x0, t, noise, alpha_bar):
    share = alpha_bar.index_select(0, t).view(-1, *[1] * (x0.ndim - 1))
    return torch.addcmul(share.sqrt() * x0, torch.sqrt(1 - share), noise)


def timestep_embedding(t, d_model):
    speeds = torch.pow(1e4, torch.linspace(0, -1, d_model // 2 + 1).double()[:-1])
    turns = torch.outer(t.double(), speeds)
    return F.pad(torch.hstack([torch.cos(turns), torch.sin(turns)]).float(), (0, d_model % 2))


class DiTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.add_module("linear1", nn.Linear(d_model, d_ff))
        self.add_module("linear2", nn.Linear(d_ff, d_model))
        self.add_module("modulation", nn.Linear(d_model, 6 * d_model))
        for parameter in self.modulation.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x, condition):
        parts = self.modulation(F.silu(condition))[:, None].tensor_split(6, -1)
        for step, (shift, scale, gate) in enumerate((parts[:3], parts[3:])):
            y = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
            y = (
                self.linear2(F.gelu(self.linear1(y), approximate="tanh"))
                if step
                else self.attention(y)
            )
            x = torch.addcmul(x, gate, y)
        return x


def guided_noise(model, x, t, labels, scale, null_label):
    without, given = model(x, t, torch.full_like(labels, null_label)), model(x, t, labels)
    return torch.lerp(without, given, float(scale))


def ddim_step(x, predicted_noise, alpha_bar, alpha_bar_next):
    now, then = (
        torch.as_tensor(share).double().reshape(-1, *[1] * (x.ndim - 1))
        for share in (alpha_bar, alpha_bar_next)
    )
    clean = torch.addcmul(x.double(), torch.sqrt(1 - now), predicted_noise.double(), value=-1).div(
        now.sqrt()
    )
    return torch.addcmul(
        then.sqrt() * clean, torch.sqrt(1 - then), predicted_noise.double()
    ).float()


def rotary_embedding(x, positions, base=10000.0):
    speeds = torch.pow(base, torch.arange(0, x.shape[-1], 2).double().div(-x.shape[-1]))
    angles = torch.outer(positions.double(), speeds)
    turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def alibi_bias(n_heads, n):
    power = 1 << (n_heads.bit_length() - 1)
    rates = torch.logspace(-8 / power, -8, power, 2.0)
    between = torch.logspace(-4 / power, -8 + 4 / power, power, 2.0)
    rates = torch.cat([rates, between])[:n_heads]
    apart = torch.arange(n)[:, None].sub(torch.arange(n)).float()
    past = torch.einsum("h,nm->hnm", rates.neg(), apart)
    return past.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)


def sliding_window_mask(n, window):
    return torch.ones(n, n).tril().triu(1 - window).bool()


def linear_attention(query, key, value, causal=False):
    q, k = F.elu(query).add(1), F.elu(key).add(1)
    ones = torch.cat([value, torch.ones(*value.shape[:-1], 1)], -1)
    if causal:
        sums = torch.einsum("...md,...me->...mde", k, ones).cumsum(-3)
        read = torch.einsum("...nd,...nde->...ne", q, sums)
    else:
        read = torch.einsum("...nd,...md,...me->...ne", q, k, ones)
    return read[..., :-1] / read[..., -1:]


def grouped_query_attention(query, key, value, mask=None):
    k, v = (
        torch.stack([part] * (query.shape[1] // key.shape[1]), 2).flatten(1, 2)
        for part in (key, value)
    )
    if mask is None:
        return F.scaled_dot_product_attention(query, k, v)
    seen = mask.any(-1, keepdim=True)
    bias = torch.zeros(mask.shape).masked_fill(torch.logical_and(seen, mask.logical_not()), -1e30)
    return F.scaled_dot_product_attention(query, k, v, bias) * seen


class RecurrentAttention(nn.Module):
    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        for name in ("query", "key", "value", "out"):
            self.add_module(name, nn.Linear(d_model, d_model))
        size = d_model // n_heads
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, size).div(size**0.5))

    def forward(self, x, memory=None):
        h, n = self.relative.shape[0], x.shape[1]
        both = x if memory is None else torch.hstack([memory.data, x])
        q, k, v = (
            torch.stack(part.chunk(h, -1), 1)
            for part in (self.query(x), self.key(both), self.value(both))
        )
        steps = torch.arange(both.shape[1])
        back = steps[-n:, None].sub(steps)
        offsets = torch.einsum("bhnd,hmd->bhnm", q, self.relative.flip(1))
        bias = offsets.gather(-1, back.clamp(0).expand(len(x), h, -1, -1)).div(q.shape[-1] ** 0.5)
        bias = torch.where(back.lt(0), -torch.inf, bias)
        mixed = F.scaled_dot_product_attention(q, k, v, bias)
        return self.out(torch.cat(mixed.unbind(1), -1))


def knn_probabilities(probabilities, queries, keys, tokens, k, temperature=1.0, mix=0.25):
    near = torch.cdist(queries, keys).sort(-1)
    share = F.softmax(near.values[:, :k].square().div(-temperature), -1)
    found = torch.zeros_like(probabilities)
    for column, part in zip(near.indices.T, share.T, strict=False):
        found = found.scatter_add(1, tokens[column][:, None], part[:, None])
    return torch.lerp(probabilities, found, float(mix))


def performer_features(x, projection):
    inner = torch.div(x, x.shape[-1] ** 0.25)
    logits = F.linear(inner, projection).sub(
        torch.linalg.vector_norm(inner, dim=-1)[..., None] ** 2 / 2
    )
    return torch.exp(logits).div(projection.shape[0] ** 0.5)


def returns_to_go(rewards):
    return rewards.sum(-1, True).sub(rewards.cumsum(-1)).add(rewards)


def interleave(returns, states, actions):
    return torch.cat([returns, states, actions], -1).view(len(returns), -1, returns.shape[-1])


class DecisionTransformer(nn.Module):
    def __init__(self, n_states, n_actions, max_steps, d_model, n_heads, n_layers):
        super().__init__()
        self.add_module("return_embedding", nn.Linear(1, d_model))
        for name, rows in (("state", n_states), ("action", n_actions), ("step", max_steps)):
            self.add_module(f"{name}_embedding", nn.Embedding(rows, d_model))
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, n_actions)
        self.blocks = nn.Sequential(*[CausalBlock(d_model, n_heads) for _ in range(n_layers)])

    def forward(self, returns, states, actions):
        places = self.step_embedding.weight[: states.shape[1]]
        parts = (
            torch.add(part, places)
            for part in (
                self.return_embedding(returns[..., None]),
                self.state_embedding(states),
                self.action_embedding(actions),
            )
        )
        inner = self.blocks(self.norm(interleave(*parts)))
        return self.head(inner.unflatten(1, (-1, 3)).select(2, 1))
