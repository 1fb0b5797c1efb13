# ruff: noqa: F811
# %% [markdown]
# # Day 2 in loops
#
# I use only what I already understand, and process one head, row or pair of columns at a time.
# No exercise calls another.

# %%
import math

import torch
from torch import nn

# %% [markdown]
# I write my own layers to see what they do.


# %%
class PlainLinear(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-bound, bound))

    def forward(self, x):
        return x @ self.weight.transpose(0, 1) + self.bias


class PlainNorm(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        wide = x.double()
        mean = wide.mean(dim=-1, keepdim=True)
        variance = ((wide - mean) ** 2).mean(dim=-1, keepdim=True)
        normed = (wide - mean) / torch.sqrt(variance + 1e-5)
        return normed.to(x.dtype) * self.weight + self.bias


class PlainEmbedding(nn.Module):
    def __init__(self, n_rows, d_model):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(n_rows, d_model))

    def forward(self, ids):
        rows = [self.weight[i] for i in ids.flatten()]
        return torch.stack(rows).reshape(*ids.shape, -1)


def plain_softmax(scores):
    largest = scores.max(dim=-1, keepdim=True).values.detach()
    powers = torch.exp(scores - largest)
    return powers / powers.sum(dim=-1, keepdim=True)


def plain_gelu(x):
    wide = x.double()
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return (0.5 * wide * (1 + torch.tanh(inner))).to(x.dtype)


def plain_dropout(x, p, training):
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    keep = (torch.rand(x.shape, device=x.device) >= p).to(x.dtype)
    return x * keep / (1 - p)


# %% [markdown]
# ## Language model


# %%
def heads_of(x, n_heads):
    """Split a (b, n, d) tensor into a list with one (b, n, d_head) tensor per head."""
    d_head = x.shape[-1] // n_heads
    return [x[:, :, k * d_head : (k + 1) * d_head] for k in range(n_heads)]


def attend_by_rows(query, key, value, p, training):
    """Attend one query at a time. The queries are the last n positions. The keys are sliced instead of masked."""
    n, m = query.shape[2], key.shape[2]
    rows = []
    for i in range(n):
        visible = m - n + i + 1
        scores = (key[:, :, :visible] * query[:, :, i : i + 1]).sum(-1) / math.sqrt(key.shape[-1])
        weights = plain_dropout(plain_softmax(scores), p, training)
        rows.append((weights.unsqueeze(-1) * value[:, :, :visible]).sum(-2))
    return torch.stack(rows, dim=2)


class PlainAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__()
        self.n_heads = n_heads
        self.p = dropout
        self.qkv = PlainLinear(d_model, 3 * d_model)
        self.out = PlainLinear(d_model, d_model)

    def forward(self, x, cache=None):
        d = x.shape[-1]
        everything = self.qkv(x)
        query = torch.stack(heads_of(everything[:, :, :d], self.n_heads), dim=1)
        key = torch.stack(heads_of(everything[:, :, d : 2 * d], self.n_heads), dim=1)
        value = torch.stack(heads_of(everything[:, :, 2 * d :], self.n_heads), dim=1)
        if cache is not None:
            key, value = cache.append(key, value)
        mixed = attend_by_rows(query, key, value, self.p, self.training)
        return self.out(torch.cat([mixed[:, k] for k in range(self.n_heads)], dim=-1))


# %%
class CausalSelfAttention(nn.Module):
    """Causal self-attention that processes one head at a time and uses an additive mask."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        if d_model % n_heads != 0:
            raise ValueError(
                "d_model is " + str(d_model) + ", not a multiple of n_heads = " + str(n_heads)
            )
        super().__init__()
        self.n_heads = n_heads
        self.d_head = d_model // n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.p = dropout

    def forward(self, x, cache=None):
        n, d = x.shape[1], x.shape[2]
        everything = self.qkv(x)
        queries = heads_of(everything[:, :, 0:d], self.n_heads)
        keys = torch.stack(heads_of(everything[:, :, d : 2 * d], self.n_heads), dim=1)
        values = torch.stack(heads_of(everything[:, :, 2 * d : 3 * d], self.n_heads), dim=1)
        if cache is not None:
            keys, values = cache.append(keys, values)
        m = keys.shape[2]

        bias = torch.zeros(n, m, dtype=x.dtype, device=x.device)
        for i in range(n):
            for j in range(m):
                if j > m - n + i:
                    bias[i, j] = float("-inf")

        outputs = []
        for k in range(self.n_heads):
            scores = (queries[k] / math.sqrt(self.d_head)) @ keys[:, k].transpose(1, 2)
            weights = plain_softmax(scores + bias)
            weights = plain_dropout(weights, self.p, self.training)
            outputs.append(weights @ values[:, k])
        return self.out(torch.cat(outputs, dim=2))


# %%
class GPTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.norm1 = PlainNorm(d_model)
        self.attention = PlainAttention(d_model, n_heads, dropout)
        self.norm2 = PlainNorm(d_model)
        self.linear1 = PlainLinear(d_model, d_ff)
        self.linear2 = PlainLinear(d_ff, d_model)
        self.p = dropout

    def forward(self, x, cache=None):
        step1 = self.attention(self.norm1(x), cache)
        x = x + plain_dropout(step1, self.p, self.training)
        step2 = self.linear2(plain_gelu(self.linear1(self.norm2(x))))
        x = x + plain_dropout(step2, self.p, self.training)
        return x


# %% [markdown]
# The model's blocks are bare modules that only contain the layers; `GPT` runs them.


# %%
class GPT(nn.Module):
    def __init__(self, vocab_size, max_length, d_model, n_heads, n_layers, dropout=0.0):
        super().__init__()
        self.max_length = max_length
        self.n_layers = n_layers
        self.dropout = dropout
        self.token_embedding = PlainEmbedding(vocab_size, d_model)
        self.position_embedding = PlainEmbedding(max_length, d_model)
        self.blocks = nn.ModuleList()
        for _ in range(n_layers):
            block = nn.Module()
            block.norm1 = PlainNorm(d_model)
            block.attention = PlainAttention(d_model, n_heads, dropout)
            block.norm2 = PlainNorm(d_model)
            block.linear1 = PlainLinear(d_model, 4 * d_model)
            block.linear2 = PlainLinear(4 * d_model, d_model)
            self.blocks.append(block)
        self.norm = PlainNorm(d_model)

    def forward(self, tokens, caches=None):
        n = tokens.shape[1]
        start = 0
        if caches is not None:
            start = len(caches[0])
        if start + n > self.max_length:
            raise ValueError(
                f"{start} positions and {n} tokens more do not fit: max_length is {self.max_length}"
            )
        columns = []
        for i in range(n):
            here = self.position_embedding.weight[start + i]
            columns.append(self.token_embedding(tokens[:, i]) + here)
        x = plain_dropout(torch.stack(columns, dim=1), self.dropout, self.training)
        for number, block in enumerate(self.blocks):
            cache = None
            if caches is not None:
                cache = caches[number]
            x = x + block.attention(block.norm1(x), cache)
            x = x + block.linear2(plain_gelu(block.linear1(block.norm2(x))))
        return self.norm(x) @ self.token_embedding.weight.transpose(0, 1)


# %%
def next_token_loss(logits, tokens):
    b, n, _ = logits.shape
    total = 0
    for row in range(b):
        for t in range(n - 1):
            here = logits[row, t].double()
            wanted = tokens[row, t + 1]
            largest = here.max().detach()
            log_of_sum = torch.log(torch.exp(here - largest).sum()) + largest
            total = total + (log_of_sum - here[wanted])
    return (total / (b * (n - 1))).to(logits.dtype)


# %%
def check_choice(temperature, top_k, top_p):
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, it is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more, it is {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, it is {top_p}")


def probabilities_of_row(logits, temperature, top_k, top_p):
    """Convert one row of logits (v) to probabilities (v), in float64."""
    logits = logits.double()
    v = logits.shape[0]
    if temperature == 0:
        best = 0
        for c in range(v):
            if logits[c] > logits[best]:
                best = c
        return torch.tensor([1.0 if c == best else 0.0 for c in range(v)], dtype=torch.float64).to(
            logits.device
        )
    logits = logits - logits.max().detach()
    logits = logits / temperature

    order = sorted(range(v), key=lambda c: -logits[c].item())
    if top_k is not None:
        order = order[:top_k]
    if top_p is not None and top_p < 1:
        left = plain_softmax(logits[order]).tolist()
        so_far = 0.0
        kept = []
        for c, p in zip(order, left, strict=True):
            kept.append(c)
            so_far += p
            if so_far >= top_p:
                break
        order = kept

    bias = torch.full_like(logits, float("-inf"))
    for c in order:
        bias[c] = 0.0
    return plain_softmax(logits + bias)


# %%
def next_token_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    check_choice(temperature, top_k, top_p)
    rows = logits.reshape(-1, logits.shape[-1])
    done = [probabilities_of_row(row, temperature, top_k, top_p) for row in rows]
    return torch.stack(done).reshape(logits.shape).to(logits.dtype)


# %%
@torch.no_grad()
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
    check_choice(temperature, top_k, top_p)
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError(f"prompt and n_tokens together are longer than {model.max_length}")
    was_training = model.training
    model.eval()
    try:
        caches = None
        if use_cache:
            caches = []
            for _ in range(model.n_layers):
                caches.append(KeyValueCache())
        result = prompt
        for step in range(n_tokens):
            if caches is None:
                logits = model(result)
            elif step == 0:
                logits = model(result, caches)
            else:
                logits = model(result[:, -1:], caches)
            rows = []
            for row in range(prompt.shape[0]):
                rows.append(probabilities_of_row(logits[row, -1], temperature, top_k, top_p))
            probabilities = torch.stack(rows).to(logits.dtype)
            drawn = torch.multinomial(probabilities, 1, generator=generator)
            result = torch.cat([result, drawn], dim=1)
        return result
    finally:
        if was_training:
            model.train()


# %% [markdown]
# ## Music
#
# At first, I forgot that rests and holds are not pitches.


# %%
def transpose(tokens, semitones):
    return tokens + semitones


# %%
def transpose(tokens, semitones):
    moved = []
    for token in tokens.flatten().tolist():
        if token in (0, 1):
            moved.append(token)
            continue
        pitch = token + semitones
        if pitch < 2 or pitch >= N_TOKENS:
            raise ValueError(f"semitones = {semitones} moves the pitch {token} out of the range")
        moved.append(pitch)
    return torch.tensor(moved, dtype=tokens.dtype, device=tokens.device).reshape(tokens.shape)


# %%
def skew(x):
    n = x.shape[-1]
    i = torch.arange(n, device=x.device).reshape(n, 1)
    j = torch.arange(n, device=x.device).reshape(1, n)
    column = n - 1 - (i - j)
    # Entries above the diagonal are meaningless, so any column will do.
    column = torch.clamp(column, max=n - 1)
    return torch.gather(x, -1, column.expand(x.shape))


# %%
class RelativeSelfAttention(nn.Module):
    """Relative attention that processes one query and one key at a time."""

    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        self.n_heads = n_heads
        self.max_length = max_length
        self.query = PlainLinear(d_model, d_model)
        self.key = PlainLinear(d_model, d_model)
        self.value = PlainLinear(d_model, d_model)
        self.out = PlainLinear(d_model, d_model)
        self.relative = nn.Parameter(0.1 * torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x):
        n = x.shape[1]
        if n > self.max_length:
            raise ValueError("x has " + str(n) + " positions, max_length is less")
        queries = heads_of(self.query(x), self.n_heads)
        keys = heads_of(self.key(x), self.n_heads)
        values = heads_of(self.value(x), self.n_heads)
        heads = []
        for q, k, v, relative in zip(queries, keys, values, self.relative, strict=True):
            rows = []
            for i in range(n):
                logits = []
                for j in range(i + 1):
                    distance = i - j
                    far = relative[self.max_length - 1 - distance]
                    logits.append((q[:, i] * (k[:, j] + far)).sum(-1) / math.sqrt(q.shape[-1]))
                weights = plain_softmax(torch.stack(logits, dim=-1))
                row = 0
                for j in range(i + 1):
                    row = row + weights[:, j : j + 1] * v[:, j]
                rows.append(row)
            heads.append(torch.stack(rows, dim=1))
        return self.out(torch.cat(heads, dim=-1))


# %% [markdown]
# ## Vision


# %%
def patches_in_order(images, p):
    """Return the patches row by row, as a list of (b, c, p, p) tensors."""
    patches = []
    for top in range(0, images.shape[2], p):
        for left in range(0, images.shape[3], p):
            patches.append(images[:, :, top : top + p, left : left + p])
    return patches


# %%
def patchify(images, patch_size):
    b, c, height, width = images.shape
    if height % patch_size != 0:
        raise ValueError(f"H = {height} is not a multiple of patch_size = {patch_size}")
    if width % patch_size != 0:
        raise ValueError(f"W = {width} is not a multiple of patch_size = {patch_size}")
    flat = []
    for patch in patches_in_order(images, patch_size):
        flat.append(patch.reshape(b, 1, c * patch_size * patch_size))
    return torch.cat(flat, dim=1)


# %%
def unpatchify(patches, patch_size, height, width):
    b, _, features = patches.shape
    c = features // (patch_size * patch_size)
    strips = []
    number = 0
    for _ in range(height // patch_size):
        strip = []
        for _ in range(width // patch_size):
            strip.append(patches[:, number].reshape(b, c, patch_size, patch_size))
            number += 1
        strips.append(torch.cat(strip, dim=3))
    return torch.cat(strips, dim=2)


# %%
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, channels, d_model):
        super().__init__()
        n_patches = (image_size // patch_size) * (image_size // patch_size)
        self.patch_size = patch_size
        self.projection = PlainLinear(channels * patch_size * patch_size, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(0.02 * torch.randn(1, n_patches + 1, d_model))

    def forward(self, images):
        words = []
        for image in images:
            sentence = [self.class_token[0, 0]]
            for patch in patches_in_order(image.unsqueeze(0), self.patch_size):
                sentence.append(self.projection(patch.flatten()))
            words.append(torch.stack(sentence) + self.position[0])
        return torch.stack(words)


# %%
class PatchesAndPositions(nn.Module):
    def __init__(self, image_size, patch_size, channels, d_model):
        super().__init__()
        side = image_size // patch_size
        self.patch_size = patch_size
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.randn(1, 1, d_model))
        self.position = nn.Parameter(torch.randn(1, 1 + side**2, d_model))


class ViT(nn.Module):
    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchesAndPositions(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList()
        for _ in range(n_layers):
            self.blocks.append(BidirectionalBlock(d_model, n_heads))
        self.norm = PlainNorm(d_model)
        self.head = PlainLinear(d_model, n_classes)

    def forward(self, images):
        first = self.embedding.class_token[:, 0] + self.embedding.position[:, 0]
        columns = [first.repeat(images.shape[0], 1)]
        patches = patches_in_order(images, self.embedding.patch_size)
        for number, patch in enumerate(patches, start=1):
            projected = self.embedding.projection(patch.flatten(start_dim=1))
            columns.append(projected + self.embedding.position[:, number])
        x = torch.stack(columns, dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0, :])


# %%
def attention_distance(weights, grid, patch_size):
    centres = []
    for row in range(grid):
        for column in range(grid):
            centres.append(((row + 0.5) * patch_size, (column + 0.5) * patch_size))
    distances = [[math.dist(one, other) for other in centres] for one in centres]
    table = torch.tensor(distances, dtype=torch.float64).to(weights.device)
    heads = []
    for head in range(weights.shape[1]):
        total = 0
        for sample in range(weights.shape[0]):
            for i in range(grid * grid):
                total = total + (weights[sample, head, i].double() * table[i]).sum()
        heads.append(total / (weights.shape[0] * grid * grid))
    return torch.stack(heads).to(weights.dtype)


# %%
def centred_columns(x):
    columns = []
    for c in range(x.shape[1]):
        column = x[:, c].double()
        # Subtract the first entry, so that a constant column becomes exactly 0.
        column = column - column[0]
        columns.append(column - column.mean())
    return columns


def squared_products(ones, others):
    total = 0
    for one in ones:
        for other in others:
            total = total + (one * other).sum() ** 2
    return total


def linear_cka(x, y):
    xs = centred_columns(x)
    ys = centred_columns(y)
    if all(bool((c == 0).all()) for c in xs) or all(bool((c == 0).all()) for c in ys):
        return (xs[0].sum() + ys[0].sum()).to(x.dtype) * 0
    below = torch.sqrt(squared_products(xs, xs)) * torch.sqrt(squared_products(ys, ys))
    return (squared_products(xs, ys) / below).to(x.dtype)


# %% [markdown]
# ## Diffusion


# %%
def cosine_schedule(n_steps):
    def f(t):
        return math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bar = [1.0]
    for t in range(1, n_steps + 1):
        beta = min(1 - f(t) / f(t - 1), 0.999)
        alpha_bar.append(alpha_bar[-1] * (1 - beta))
    return torch.tensor(alpha_bar, dtype=torch.float32)


# %%
def add_noise(x0, t, noise, alpha_bar):
    rows = []
    for row in range(x0.shape[0]):
        here = float(alpha_bar[t[row]])
        rows.append(math.sqrt(here) * x0[row] + math.sqrt(1 - here) * noise[row])
    return torch.stack(rows)


# %%
def timestep_embedding(t, d_model):
    t = t.double()
    half = d_model // 2
    columns = []
    for i in range(half):
        columns.append(torch.cos(t * 10000 ** (-i / half)))
    for i in range(half):
        columns.append(torch.sin(t * 10000 ** (-i / half)))
    if d_model % 2 == 1:
        columns.append(torch.zeros_like(t))
    return torch.stack(columns, dim=1).float()


# %%
class DiTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = PlainLinear(d_model, d_ff)
        self.linear2 = PlainLinear(d_ff, d_model)
        self.modulation = PlainLinear(d_model, 6 * d_model)
        with torch.no_grad():
            self.modulation.weight.zero_()
            self.modulation.bias.zero_()

    def normed(self, x):
        wide = x.double()
        wide = wide - wide.mean(-1, keepdim=True)
        return (wide / torch.sqrt((wide**2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def forward(self, x, condition):
        d = x.shape[-1]
        six = self.modulation(condition * torch.sigmoid(condition))
        parts = []
        for k in range(6):
            parts.append(six[:, k * d : (k + 1) * d].unsqueeze(1))
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.attention(self.normed(x) * (1 + scale1) + shift1)
        inner = self.linear1(self.normed(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(plain_gelu(inner))


# %%
def guided_noise(model, x, t, labels, scale, null_label):
    nothing = labels.clone()
    nothing[:] = null_label
    without = model(x, t, nothing)
    within = model(x, t, labels)
    return without + scale * (within - without)


# %%
def ddim_step(x, predicted_noise, alpha_bar, alpha_bar_next):
    def of_row(alpha, row):
        if isinstance(alpha, torch.Tensor):
            alpha = alpha.double()
            return alpha if alpha.dim() == 0 else alpha[row]
        return torch.tensor(alpha, dtype=torch.float64, device=x.device)

    rows = []
    for row in range(x.shape[0]):
        now, then = of_row(alpha_bar, row), of_row(alpha_bar_next, row)
        noise = predicted_noise[row].double()
        clean = (x[row].double() - torch.sqrt(1 - now) * noise) / torch.sqrt(now)
        rows.append(torch.sqrt(then) * clean + torch.sqrt(1 - then) * noise)
    return torch.stack(rows).to(x.dtype)


# %% [markdown]
# ## Family


# %%
def rotary_embedding(x, positions, base=10000.0):
    d = x.shape[-1]
    if d % 2 == 1:
        raise ValueError(f"x has d = {d} features, which do not make pairs")
    columns = []
    for i in range(d // 2):
        angle = positions.double() * base ** (-2 * i / d)
        a = x[..., 2 * i].double()
        b = x[..., 2 * i + 1].double()
        columns.append(a * torch.cos(angle) - b * torch.sin(angle))
        columns.append(a * torch.sin(angle) + b * torch.cos(angle))
    return torch.stack(columns, dim=-1).to(x.dtype)


# %%
def alibi_bias(n_heads, n):
    power = 1
    while 2 * power <= n_heads:
        power = 2 * power
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    k = 1
    while len(slopes) < n_heads:
        slopes.append(2 ** (-8 * k / (2 * power)))
        k += 2
    bias = torch.full((n_heads, n, n), float("-inf"), dtype=torch.float32)
    for head in range(n_heads):
        for i in range(n):
            for j in range(i + 1):
                bias[head, i, j] = -slopes[head] * (i - j)
    return bias


# %%
def sliding_window_mask(n, window):
    if window < 1:
        raise ValueError(f"window is {window}, but a position must at least see itself")
    rows = []
    for i in range(n):
        rows.append([j <= i and j > i - window for j in range(n)])
    return torch.tensor(rows, dtype=torch.bool)


# %%
def positive(x):
    """Compute elu(x) + 1. Small values stay accurate, and the unused branch cannot overflow."""
    return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0)))


def linear_attention(query, key, value, causal=False):
    dtype = query.dtype
    query, key, value = positive(query.double()), positive(key.double()), value.double()
    n, d = query.shape[-2:]
    if not causal:
        above = 0
        below = 0
        for c in range(d):
            q, k = query[..., c : c + 1], key[..., c : c + 1]
            above = above + q * (k * value).sum(-2, keepdim=True)
            below = below + q * k.sum(-2, keepdim=True)
        return (above / below).to(dtype)

    memory = 0
    total = 0
    rows = []
    for i in range(n):
        memory = memory + key[..., i, :].unsqueeze(-1) * value[..., i, :].unsqueeze(-2)
        total = total + key[..., i, :]
        q = query[..., i, :]
        above = (q.unsqueeze(-1) * memory).sum(-2)
        below = (q * total).sum(-1, keepdim=True)
        rows.append(above / below)
    return torch.stack(rows, dim=-2).to(dtype)


# %%
def grouped_query_attention(query, key, value, mask=None):
    b, h, n, d = query.shape
    g, m = key.shape[1], key.shape[2]
    if h % g != 0:
        raise ValueError(f"query has {h} heads, which is no multiple of the {g} heads of key")
    if mask is None:
        mask = torch.ones(n, m, dtype=torch.bool, device=query.device)
    mask = mask.expand(b, h, n, m)
    heads = []
    for k in range(h):
        shared = k // (h // g)
        scores = (query[:, k] / math.sqrt(d)) @ key[:, shared].transpose(1, 2)
        allowed = mask[:, k]
        anything = allowed.any(dim=-1, keepdim=True)
        # Leave fully masked rows unmasked here, and set their weights to 0 afterwards.
        bias = torch.zeros_like(scores).masked_fill(~allowed & anything, float("-inf"))
        weights = plain_softmax(scores + bias) * anything
        heads.append(weights @ value[:, shared])
    return torch.stack(heads, dim=1)


# %% [markdown]
# ## Memory


# %%
class RecurrentAttention(nn.Module):
    """Recurrent attention over the memory followed by x. It processes one query and one key at a time."""

    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        if d_model % n_heads != 0:
            raise ValueError("d_model is " + str(d_model) + ", and that makes no whole heads")
        self.n_heads = n_heads
        self.max_length = max_length
        self.query = PlainLinear(d_model, d_model)
        self.key = PlainLinear(d_model, d_model)
        self.value = PlainLinear(d_model, d_model)
        self.out = PlainLinear(d_model, d_model)
        self.relative = nn.Parameter(torch.zeros(n_heads, max_length, d_model // n_heads))

    def forward(self, x, memory=None):
        m = 0
        seen = x
        if memory is not None:
            m = memory.shape[1]
            seen = torch.cat([memory.detach(), x], dim=1)
        n = x.shape[1]
        if m + n > self.max_length:
            raise ValueError("memory and x are longer than max_length together")
        queries = heads_of(self.query(x), self.n_heads)
        keys = heads_of(self.key(seen), self.n_heads)
        values = heads_of(self.value(seen), self.n_heads)
        heads = []
        for q, k, v, relative in zip(queries, keys, values, self.relative, strict=True):
            rows = []
            for i in range(n):
                own = m + i
                logits = []
                for j in range(own + 1):
                    vector = relative[self.max_length - 1 - (own - j)]
                    logits.append((q[:, i] * (k[:, j] + vector)).sum(-1) / math.sqrt(q.shape[-1]))
                weights = plain_softmax(torch.stack(logits, dim=-1))
                row = 0
                for j in range(own + 1):
                    row = row + weights[:, j : j + 1] * v[:, j]
                rows.append(row)
            heads.append(torch.stack(rows, dim=1))
        return self.out(torch.cat(heads, dim=-1))


# %%
def knn_probabilities(probabilities, queries, keys, tokens, k, temperature=1.0, mix=0.25):
    if k < 1:
        raise ValueError("k must be 1 or more")
    if mix < 0 or mix > 1:
        raise ValueError("mix is a share")
    if temperature <= 0:
        raise ValueError("temperature must be above 0")
    result = []
    for row, query in zip(probabilities, queries, strict=True):
        squares = ((keys - query) ** 2).sum(dim=1)
        nearest = torch.argsort(squares)[:k]
        weights = plain_softmax(-squares[nearest] / temperature)
        found = torch.zeros_like(row)
        for weight, token in zip(weights, tokens[nearest], strict=True):
            found = found.index_add(0, token.reshape(1), weight.reshape(1))
        result.append(mix * found + (1 - mix) * row)
    return torch.stack(result)


# %%
def performer_features(x, projection):
    root = math.sqrt(x.shape[-1])
    columns = []
    for omega in projection:
        exponent = (x * omega).sum(-1) / math.sqrt(root) - (x * x).sum(-1) / (2 * root)
        columns.append(torch.exp(exponent) / math.sqrt(len(projection)))
    return torch.stack(columns, dim=-1)


# %% [markdown]
# ## Decisions


# %%
def returns_to_go(rewards):
    total = torch.zeros_like(rewards[..., 0])
    backwards = []
    for step in range(rewards.shape[-1] - 1, -1, -1):
        total = total + rewards[..., step]
        backwards.append(total)
    backwards.reverse()
    return torch.stack(backwards, dim=-1)


# %%
def interleave(returns, states, actions):
    tokens = []
    for step in range(returns.shape[1]):
        for part in (returns, states, actions):
            tokens.append(part[:, step : step + 1])
    return torch.cat(tokens, dim=1)


# %%
class DecisionTransformer(nn.Module):
    """A model that omits the last action, because no prediction depends on it."""

    def __init__(self, n_states, n_actions, max_steps, d_model, n_heads, n_layers):
        super().__init__()
        self.max_steps = max_steps
        self.return_embedding = PlainLinear(1, d_model)
        self.state_embedding = PlainEmbedding(n_states, d_model)
        self.action_embedding = PlainEmbedding(n_actions, d_model)
        self.step_embedding = PlainEmbedding(max_steps, d_model)
        self.norm = PlainNorm(d_model)
        self.blocks = nn.ModuleList()
        for _ in range(n_layers):
            self.blocks.append(CausalBlock(d_model, n_heads))
        self.head = PlainLinear(d_model, n_actions)

    def forward(self, returns, states, actions):
        t = states.shape[1]
        if t > self.max_steps:
            raise ValueError("max_steps is only " + str(self.max_steps))
        tokens = []
        for s in range(t):
            step = self.step_embedding.weight[s]
            tokens.append(self.return_embedding(returns[:, s : s + 1]) + step)
            tokens.append(self.state_embedding(states[:, s]) + step)
            if s < t - 1:
                tokens.append(self.action_embedding(actions[:, s]) + step)
        x = torch.stack([self.norm(token) for token in tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return torch.stack([self.head(x[:, 3 * s + 1]) for s in range(t)], dim=1)


# %%
def counterexample():
    mask = torch.zeros(1, 3, dtype=torch.bool)
    mask[0, 2] = True
    return 4, torch.zeros(1, 1), torch.zeros(3, 1), mask


# %%
def repaired_weights(query, key, mask):
    weights = torch.zeros(len(query), len(key))
    for i in range(len(query)):
        places = [j for j in range(len(key)) if mask[i, j]]
        scores = [float(query[i] @ key[j]) / math.sqrt(query.shape[1]) for j in places]
        powers = [math.exp(score - max(scores)) for score in scores]
        for j, power in zip(places, powers, strict=True):
            weights[i, j] = power / sum(powers)
    return weights
