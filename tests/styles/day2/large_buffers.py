"""Solutions for day 2 by an author with the habits of nanoGPT: config objects, large masks as buffers, second names for parts.

Classes inherit from other exercises' classes, helpers serve several exercises, and some dependencies are copied inline.
"""

# %%
import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F


# %%
@dataclass
class GPTConfig:
    block_size: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0


def check_heads(d_model, n_heads):
    if d_model % n_heads != 0:
        raise ValueError("d_model must be divisible by n_heads: %d %% %d != 0" % (d_model, n_heads))  # noqa: UP031


def float_like(x):
    """At least float32, for sums and exponentials."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# %%
class CausalSelfAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        check_heads(d_model, n_heads)
        # key, query, value projections for all heads, but in a batch
        self.qkv = nn.Linear(d_model, 3 * d_model)
        # output projection
        self.out = nn.Linear(d_model, d_model)
        self.c_attn, self.c_proj = self.qkv, self.out
        self.attn_dropout = nn.Dropout(dropout)
        self.resid_dropout = nn.Dropout(dropout)
        self.n_head = n_heads
        self.n_embd = d_model
        # causal mask to ensure that attention is only applied to the left in the input sequence
        bias = torch.tril(torch.ones(1024, 1024, dtype=torch.bool)).view(1, 1, 1024, 1024)
        self.register_buffer("bias", bias)

    def forward(self, x, cache=None):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))
        if cache is not None:
            k, v = cache.append(k, v)
        S = k.size(2)
        if self.bias.size(-1) < S:  # the context is longer than the buffer
            self.bias = torch.ones(1, 1, 2 * S, 2 * S, dtype=torch.bool, device=x.device).tril()
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, S - T : S, :S] == 0, float("-inf"))
        att = F.softmax(att, dim=-1)
        att = self.attn_dropout(att)
        y = att @ v
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))


# %%
class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + 0.044715 * torch.pow(x, 3.0))))


class GPTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(d_model, d_ff),
                "c_proj": nn.Linear(d_ff, d_model),
                "act": NewGELU(),
                "dropout": nn.Dropout(dropout),
            }
        )
        self.linear1, self.linear2 = self.mlp.c_fc, self.mlp.c_proj
        self.drop = nn.Dropout(dropout)

    def forward(self, x, cache=None):
        x = x + self.drop(self.attention(self.norm1(x), cache=cache))
        m = self.mlp
        x = x + m.dropout(m.c_proj(m.act(m.c_fc(self.norm2(x)))))
        return x


# %%
class GPT(nn.Module):
    def __init__(self, vocab_size, max_length, d_model, n_heads, n_layers, dropout=0.0):
        super().__init__()
        self.config = GPTConfig(max_length, vocab_size, n_layers, n_heads, d_model, dropout)
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.blocks = nn.ModuleList(
            [GPTBlock(d_model, n_heads, 4 * d_model, dropout) for _ in range(n_layers)]
        )
        self.norm = nn.LayerNorm(d_model)
        self.transformer = nn.ModuleDict(
            {
                "wte": self.token_embedding,
                "wpe": self.position_embedding,
                "drop": nn.Dropout(dropout),
                "h": self.blocks,
                "ln_f": self.norm,
            }
        )
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight  # weight tying
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if getattr(module, "bias", None) is not None:
                torch.nn.init.zeros_(module.bias)

    def get_num_params(self):
        return sum(p.numel() for p in self.parameters())

    def forward(self, tokens, caches=None):
        _, t = tokens.size()
        past = 0 if caches is None or len(caches) == 0 else len(caches[0])
        if past + t > self.config.block_size:
            raise ValueError(
                f"Cannot forward sequence of length {past + t}, max_length is only {self.max_length}"
            )
        pos = torch.arange(past, past + t, dtype=torch.long, device=tokens.device)
        x = self.transformer.drop(self.transformer.wte(tokens) + self.transformer.wpe(pos))
        for i, block in enumerate(self.transformer.h):
            x = block(x, cache=caches[i] if caches is not None else None)
        return self.lm_head(self.transformer.ln_f(x))


# %%
def next_token_loss(logits, tokens):
    shifted, targets = float_like(logits[:, :-1]), tokens[:, 1:]
    loss = F.cross_entropy(shifted.reshape(-1, shifted.size(-1)), targets.reshape(-1))
    return loss.to(logits.dtype)


# %%
def next_token_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    if temperature < 0:
        raise ValueError(f"temperature is negative: {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but at least one token has to stay")
    if top_p is not None and (top_p <= 0 or top_p > 1):
        raise ValueError(f"top_p = {top_p} is not in (0, 1]")
    dtype, logits = logits.dtype, float_like(logits)
    if temperature == 0:
        idx = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, idx, 1.0).to(dtype)
    logits = (logits - logits.max(dim=-1, keepdim=True)[0]) / max(temperature, 1e-30)
    # optionally crop the logits to only the top k options
    if top_k is not None:
        v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
        logits = logits.masked_fill(logits < v[..., [-1]], -float("Inf"))
    if top_p is not None:
        sorted_probs, order = F.softmax(logits, dim=-1).sort(dim=-1, descending=True)
        remove = sorted_probs.cumsum(-1) >= top_p
        remove = F.pad(remove[..., :-1], (1, 0), value=False)  # keep the token that crosses
        logits = logits.masked_fill(remove.gather(-1, order.argsort(-1)), -float("Inf"))
    return F.softmax(logits, dim=-1).to(dtype)


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
    if prompt.size(1) + n_tokens > model.max_length:
        raise ValueError(
            f"{prompt.size(1)} + n_tokens ({n_tokens}) is more than max_length ({model.max_length})"
        )
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    was_training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    idx = prompt
    try:
        for step in range(n_tokens):
            idx_cond = idx[:, -1:] if use_cache and step else idx
            logits = model(idx_cond, caches=caches) if use_cache else model(idx_cond)
            probs = next_token_probabilities(logits=logits[:, -1, :], **sampling)
            idx_next = torch.multinomial(probs, 1, generator=generator)
            idx = torch.cat((idx, idx_next), dim=1)
    finally:
        model.train(was_training)
    return idx


# %%
def transpose(tokens, semitones):
    pitches = tokens > 1
    moved = tokens + semitones * pitches.to(tokens.dtype)
    if (pitches & ((moved < 2) | (moved > N_TOKENS - 1))).any():
        raise ValueError(f"a pitch leaves the range when it moves by semitones={semitones}")
    return moved


# %%
def skew(x):
    *lead, n, _ = x.shape
    x = torch.cat([x.new_zeros(*lead, n, 1), x], dim=-1)
    return x.reshape(*lead, n + 1, n).narrow(-2, 1, n)


# %%
class RelativeAttention(nn.Module):
    """What RelativeSelfAttention and RecurrentAttention share."""

    def __init__(self, d_model, n_heads, max_length):
        super().__init__()
        check_heads(d_model, n_heads)
        self.n_heads, self.d_head, self.max_length = n_heads, d_model // n_heads, max_length
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(0.02 * torch.randn(n_heads, max_length, self.d_head))
        mask = torch.full((max_length, max_length), float("-inf")).triu(1)
        self.register_buffer("mask", mask)

    def heads(self, x):
        B, T, _ = x.shape
        return x.reshape(B, T, self.n_heads, self.d_head).transpose(1, 2)


class RelativeSelfAttention(RelativeAttention):
    def forward(self, x):
        B, T, C = x.shape
        if self.max_length < T:
            raise ValueError(f"sequence of {T} positions, but max_length={self.max_length}")
        q, k, v = (self.heads(f(x)) for f in (self.query, self.key, self.value))
        rel = self.relative[:, self.max_length - T :]
        att = q @ k.mT + skew(x=q @ rel.mT)
        att = att / math.sqrt(self.d_head) + self.mask[:T, :T]
        y = (att.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C)
        return self.out(y)


# %%
def patchify(images, patch_size):
    H, W = images.shape[-2:]
    for name, size in (("height", H), ("width", W)):
        if size % patch_size != 0:
            raise ValueError(f"the {name} ({size}) must be a multiple of patch_size ({patch_size})")
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


# %%
def unpatchify(patches, patch_size, height, width):
    return F.fold(patches.transpose(1, 2), (height, width), patch_size, stride=patch_size)


# %%
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, channels, d_model):
        super().__init__()
        self.patch_size = patch_size
        num_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size * patch_size, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.randn(1, num_patches + 1, d_model) * 0.02)

    def forward(self, images):
        x = self.projection(patchify(images=images, patch_size=self.patch_size))
        x = torch.cat((self.class_token.expand(x.size(0), -1, -1), x), dim=1)
        return x + self.position


# %%
class ViT(nn.Module):
    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)
        # The whole network under second names.
        self.stages = nn.Sequential(
            OrderedDict(embed=self.embedding, encoder=nn.Sequential(*self.blocks), ln=self.norm)
        )

    def forward(self, images):
        return self.head(self.stages(images)[:, 0])


# %%
def attention_distance(weights, grid, patch_size):
    rows, cols = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    centres = torch.stack((rows, cols), dim=-1).reshape(-1, 2).double() * patch_size
    distance = (centres[:, None] - centres[None]).norm(dim=-1).to(weights.device)
    per_query = (float_like(weights) * distance.to(float_like(weights).dtype)).sum(-1)
    return per_query.mean(dim=(0, 2)).to(weights.dtype)


# %%
def linear_cka(x, y):
    def centre(z):
        # Subtracting a row first makes constant columns exactly zero.
        z = (z - z[:1]).double()
        return z - z.mean(0, keepdim=True)

    a, b = centre(x), centre(y)
    cross = torch.linalg.matrix_norm(a.T @ b) ** 2
    own = torch.linalg.matrix_norm(a.T @ a) * torch.linalg.matrix_norm(b.T @ b)
    return (cross / own.clamp(min=1e-300)).to(x.dtype)


# %%
def cosine_schedule(n_steps):
    f = [math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(n_steps + 1)]
    alphas_cumprod = [1.0]
    for t in range(1, n_steps + 1):
        beta = min(1 - f[t] / f[t - 1], 0.999)
        alphas_cumprod.append(alphas_cumprod[-1] * (1 - beta))
    return torch.tensor(alphas_cumprod, dtype=torch.float32)


# %%
def extract_into(values, like):
    """Give one value per row as many axes as `like`, as in OpenAI's diffusion code."""
    while values.dim() < like.dim():
        values = values.unsqueeze(-1)
    return values


def add_noise(x0, t, noise, alpha_bar):
    a = extract_into(float_like(alpha_bar)[t], x0).to(float_like(x0).dtype)
    return (a.sqrt() * x0 + (1 - a).sqrt() * noise).to(x0.dtype)


# %%
def timestep_embedding(t, d_model):
    half = d_model // 2
    freqs = torch.exp(
        -math.log(10000) * torch.arange(half, dtype=torch.float64, device=t.device) / max(half, 1)
    )
    args = t[:, None].double() * freqs[None]
    embedding = torch.cat([torch.cos(args), torch.sin(args)], dim=-1)
    if d_model % 2:
        embedding = torch.cat([embedding, torch.zeros_like(t[:, None]).double()], dim=-1)
    return embedding.float()


# %%
def modulate(x, shift, scale):
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class DiTBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(d_model, n_heads)
        self.norm2 = nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.mlp = nn.Sequential(self.linear1, nn.GELU(approximate="tanh"), self.linear2)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), self.modulation)
        nn.init.constant_(self.adaLN_modulation[-1].weight, 0)
        nn.init.constant_(self.adaLN_modulation[-1].bias, 0)

    def forward(self, x, condition):
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(
            condition
        ).chunk(6, dim=1)
        x = x + gate_msa.unsqueeze(1) * self.attention(
            modulate(self.norm1(x), shift_msa, scale_msa)
        )
        return x + gate_mlp.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


# %%
def guided_noise(model, x, t, labels, scale, null_label):
    both = torch.cat([labels, torch.full_like(labels, null_label)])
    out = model(torch.cat([x, x]), torch.cat([t, t]), both)
    cond_eps, uncond_eps = torch.split(out, len(out) // 2, dim=0)
    return uncond_eps + scale * (cond_eps - uncond_eps)


# %%
def ddim_step(x, predicted_noise, alpha_bar, alpha_bar_next):
    def prepare(a):
        a = torch.as_tensor(a, dtype=torch.float64, device=x.device)
        return extract_into(a, x) if a.dim() else a

    a, a_next = prepare(alpha_bar), prepare(alpha_bar_next)
    eps = predicted_noise.double()
    pred_xstart = (x.double() - (1 - a).sqrt() * eps) / a.sqrt()
    return (a_next.sqrt() * pred_xstart + (1 - a_next).sqrt() * eps).to(x.dtype)


# %%
def precompute_freqs(dim, positions, base):
    freqs = base ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
    return positions.double()[:, None] * freqs


def rotary_embedding(x, positions, base=10000.0):
    d = x.size(-1)
    if d % 2 == 1:
        raise ValueError(f"d must be even, not {d}")
    angles = precompute_freqs(d, positions, base).repeat_interleave(2, dim=-1)
    x_ = float_like(x)
    rotated = torch.stack((-x_[..., 1::2], x_[..., ::2]), dim=-1).flatten(-2)
    return (x_ * angles.cos().to(x_.dtype) + rotated * angles.sin().to(x_.dtype)).to(x.dtype)


# %%
def alibi_bias(n_heads, n):
    def get_slopes_power_of_2(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def get_slopes(n):
        if math.log2(n).is_integer():
            return get_slopes_power_of_2(n)
        closest = 2 ** math.floor(math.log2(n))
        return get_slopes_power_of_2(closest) + get_slopes(2 * closest)[0::2][: n - closest]

    slopes = torch.tensor(get_slopes(n_heads), dtype=torch.float64)
    distance = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    bias = slopes[:, None, None] * distance
    return bias.masked_fill(distance > 0, -torch.inf).float()


# %%
def sliding_window_mask(n, window):
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    return torch.ones(n, n, dtype=torch.bool).tril().triu(1 - min(window, n))


# %%
def feature_map(x):
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def linear_attention(query, key, value, causal=False):
    q, k, v = (float_like(t) for t in (query, key, value))
    q, k = feature_map(q), feature_map(k)
    if not causal:
        out = q @ (k.mT @ v) / (q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True)
        return out.to(query.dtype)
    # 64 positions at a time: what comes before is a state, as in an RNN.
    state, total, outputs = 0, 0, []
    for qc, kc, vc in zip(q.split(64, -2), k.split(64, -2), v.split(64, -2), strict=True):
        inside = (qc @ kc.mT).tril()
        carried = kc.mT @ vc
        num = inside @ vc + (qc @ state if outputs else 0)
        den = inside.sum(-1, keepdim=True) + ((qc * total).sum(-1, keepdim=True))
        state, total = state + carried, total + kc.sum(-2, keepdim=True)
        outputs.append(num / den)
    return torch.cat(outputs, dim=-2).to(query.dtype)


# %%
def repeat_kv(x, n_rep):
    b, g, m, d = x.shape
    return x[:, :, None].expand(b, g, n_rep, m, d).reshape(b, g * n_rep, m, d)


def grouped_query_attention(query, key, value, mask=None):
    if query.size(1) % key.size(1) != 0:
        raise ValueError(f"{query.size(1)} query heads cannot share {key.size(1)} key heads")
    n_rep = query.size(1) // key.size(1)
    key, value = repeat_kv(key, n_rep), repeat_kv(value, n_rep)
    att = query / math.sqrt(query.size(-1)) @ key.mT
    if mask is not None:
        att = att.masked_fill(~mask, torch.finfo(att.dtype).min)
    att = F.softmax(att, dim=-1)
    if mask is not None:
        att = att * mask
    return att @ value


# %%
class RecurrentAttention(RelativeAttention):
    def forward(self, x, memory=None):
        B, T, C = x.shape
        M = 0 if memory is None else memory.size(1)
        if self.max_length < M + T:
            raise ValueError(f"memory ({M}) and x ({T}) exceed max_length ({self.max_length})")
        both = x if memory is None else torch.cat((memory.detach(), x), dim=1)
        q, k, v = (
            self.heads(self.query(x)),
            self.heads(self.key(both)),
            self.heads(self.value(both)),
        )
        rel = self.relative[:, self.max_length - M - T :]
        # Empty queries in front make the logits square.
        logits = F.pad(q @ rel.mT, (0, 0, M, 0))
        att = (q @ k.mT + skew(logits)[..., M:, :]) / math.sqrt(self.d_head)
        att = att + self.mask[M : M + T, : M + T]
        return self.out((att.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


# %%
def knn_probabilities(probabilities, queries, keys, tokens, k, temperature=1.0, mix=0.25):
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must be in [0, 1], got {mix}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    q, s = float_like(queries), float_like(keys)
    distance = (q[:, None] - s[None]).pow(2).sum(-1)
    near, index = distance.topk(min(k, len(keys)), dim=-1, largest=False)
    w = F.softmax(-near / temperature, dim=-1)
    p = torch.zeros(probabilities.shape, dtype=w.dtype, device=w.device)
    p = p.scatter_add(1, tokens[index], w)
    return (mix * p + (1 - mix) * probabilities).to(probabilities.dtype)


# %%
def performer_features(x, projection):
    x_, w = float_like(x), float_like(projection)
    d, r = x_.size(-1), w.size(0)
    exponent = x_ @ w.T / d**0.25 - x_.square().sum(-1, keepdim=True) / (2 * math.sqrt(d))
    return (exponent.exp() / math.sqrt(r)).to(x.dtype)


# %%
def returns_to_go(rewards):
    steps = rewards.size(-1)
    result = []
    running = torch.zeros_like(float_like(rewards)[..., 0])
    for t in reversed(range(steps)):
        running = running + rewards[..., t]
        result.insert(0, running)
    return torch.stack(result, dim=-1).to(rewards.dtype)


# %%
def interleave(returns, states, actions):
    b, t, d = returns.shape
    return torch.stack((returns, states, actions), dim=1).permute(0, 2, 1, 3).reshape(b, 3 * t, d)


# %%
class DecisionTransformer(nn.Module):
    def __init__(self, n_states, n_actions, max_steps, d_model, n_heads, n_layers):
        super().__init__()
        self.max_length = max_steps
        self.return_embedding = nn.Linear(1, d_model)
        self.state_embedding = nn.Embedding(n_states, d_model)
        self.action_embedding = nn.Embedding(n_actions, d_model)
        self.step_embedding = nn.Embedding(max_steps, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.blocks = nn.ModuleList([CausalBlock(d_model, n_heads) for _ in range(n_layers)])
        self.head = nn.Linear(d_model, n_actions)
        self.register_buffer("timesteps", torch.arange(max_steps), persistent=False)

    def forward(self, returns, states, actions):
        T = states.size(1)
        if self.max_length < T:
            raise ValueError(f"{T} steps, but max_steps is {self.max_length}")
        time = self.step_embedding(self.timesteps[:T])
        tokens = {
            "returns": self.return_embedding(returns.unsqueeze(-1)) + time,
            "states": self.state_embedding(states) + time,
            "actions": self.action_embedding(actions) + time,
        }
        hidden = self.norm(interleave(**tokens))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.reshape(len(states), T, 3, -1)[:, :, 1])


# %%
def counterexample():
    query = key = torch.zeros(2, 1)
    return 5, query, key, torch.ones(2, 2, dtype=torch.bool).tril().flip(0)


# %%
def repaired_weights(query, key, mask):
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(query.dtype).min)
    return F.softmax(query @ key.transpose(0, 1) / math.sqrt(query.size(-1)) + bias, dim=-1)
