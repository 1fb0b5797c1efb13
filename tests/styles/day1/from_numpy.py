"""Solutions for day 1 by an author who comes from NumPy and C++: explicit loops, tables from NumPy, modules as dictionaries.

Exercises use each other in unusual directions: `attention` is masked attention without a mask, the causal mask is the
decoder mask of a sentence without padding, and a decoder layer contains an encoder layer whose parts it shares.
"""

# %%
import math

import numpy as np
import torch
import torch.nn as nn


# %%
def at_least_float32(t):
    return t.to(torch.float32) if t.dtype in (torch.float16, torch.bfloat16) else t


# %%
def softmax(x, dim=-1):
    y = at_least_float32(x)
    largest = torch.max(y, dim, keepdim=True)[0]
    e = (y - largest).exp()
    total = e.sum(dim=dim, keepdim=True)
    return torch.div(e, total).to(x.dtype)


# %%
def attention_scores(query, key):
    root = math.sqrt(query.shape[-1])
    return (query / root) @ torch.swapaxes(key, -1, -2)


# %%
def attention(query, key, value):
    return masked_attention(query, key, value)


# %%
def padding_mask(tokens, pad_id):
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[tokens == pad_id] = False
    return mask.unsqueeze(dim=1)


# %%
def causal_mask(n, device=None):
    sentence = torch.ones((1, n), dtype=torch.int64, device=device)
    return decoder_mask(sentence, 0)[0]


# %%
def decoder_mask(tokens, pad_id):
    b, n = tokens.shape
    mask = torch.zeros(b, n, n, dtype=torch.bool, device=tokens.device)
    for i in range(n):
        mask[:, i, : i + 1] = tokens[:, : i + 1] != pad_id
    return mask


# %%
def masked_attention(query, key, value, mask=None):
    s = attention_scores(query, key)
    if mask is None:
        p = softmax(s, dim=s.ndim - 1)
    else:
        full = torch.broadcast_shapes(s.shape, mask.shape)
        allowed = mask.expand(full)
        hidden = torch.zeros(full, dtype=s.dtype, device=s.device)
        hidden[~allowed] = -math.inf
        hidden[~allowed.any(dim=-1)] = 0.0  # softmax of a row of -inf would be NaN
        p = softmax(s + hidden, dim=-1) * allowed
    return p @ value, p


# %%
def sinusoidal_encoding(length, d_model):
    table = np.zeros((length, d_model), dtype=np.float32)
    position = np.arange(length, dtype=np.float64)
    for column in range(d_model):
        frequency = 1.0 / 10000.0 ** ((column - column % 2) / d_model)
        wave = np.cos if column % 2 else np.sin
        table[:, column] = wave(position * frequency)
    return torch.from_numpy(table)


# %%
def shift_matrix(offset, d_model):
    if not d_model % 2 == 0:
        raise ValueError("d_model has to be even, but is " + str(d_model))
    row = sinusoidal_encoding(abs(offset) + 1, d_model)[-1]
    matrix = torch.zeros(d_model, d_model)
    for i in range(0, d_model, 2):
        sine, cosine = row[i], row[i + 1]
        matrix[i, i], matrix[i, i + 1] = cosine, sine
        matrix[i + 1, i], matrix[i + 1, i + 1] = -sine, cosine
    return matrix if offset >= 0 else matrix.T


# %%
class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.d_model = d_model
        self.max_length = max_length
        self.p = dropout
        self.tables = {}  # one table per device and dtype, made when it is needed

    def forward(self, x):
        n = x.shape[1]
        if self.max_length < n:
            raise ValueError("n is %d, but max_length is %d" % (n, self.max_length))  # noqa: UP031
        place = x.device, x.dtype
        if place not in self.tables:
            self.tables[place] = sinusoidal_encoding(self.max_length, self.d_model).to(*place)
        return nn.functional.dropout(x + self.tables[place][:n], self.p, self.training)


# %%
def split_heads(x, n_heads):
    d = x.shape[2]
    size, rest = divmod(d, n_heads)
    if rest != 0:
        raise ValueError("d = " + str(d) + " is not divisible by n_heads = " + str(n_heads))
    return torch.stack([x[:, :, k * size : (k + 1) * size] for k in range(n_heads)], dim=1)


# %%
def merge_heads(x):
    return torch.cat([x[:, k] for k in range(x.shape[1])], dim=2)


# %%
class MultiHeadAttention(nn.ModuleDict):
    def __init__(self, d_model, n_heads, bias=True):
        if d_model % n_heads > 0:
            raise ValueError(f"{d_model=} is not divisible by {n_heads=}")
        names = ["query", "key", "value", "out"]
        super().__init__({name: nn.Linear(d_model, d_model, bias=bias) for name in names})
        self.heads = n_heads

    def forward(self, query, key, value, mask=None):
        q = split_heads(self["query"](query), self.heads)
        k = split_heads(self["key"](key), self.heads)
        v = split_heads(self["value"](value), self.heads)
        outputs, weights = [], []
        for head in range(self.heads):
            output, weight = masked_attention(q[:, head], k[:, head], v[:, head], mask)
            outputs.append(output)
            weights.append(weight)
        return self["out"](merge_heads(torch.stack(outputs, 1))), torch.stack(weights, 1)


# %%
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(d_model)))
        self.register_parameter("bias", nn.Parameter(torch.zeros(d_model)))
        self.eps = eps

    def forward(self, x):
        y = at_least_float32(x)
        mean = y.sum(dim=-1, keepdim=True) / y.shape[-1]
        variance = ((y - mean) ** 2).sum(dim=-1, keepdim=True) / y.shape[-1]
        y = (y - mean) / torch.sqrt(variance + self.eps)
        return (y * self.weight + self.bias).to(x.dtype)


# %%
class FeedForward(nn.ModuleDict):
    def __init__(self, d_model, d_ff, dropout=0.0):
        layers = {"linear1": nn.Linear(d_model, d_ff), "linear2": nn.Linear(d_ff, d_model)}
        super().__init__({**layers, "dropout": nn.Dropout(dropout)})

    def forward(self, x):
        hidden = self["linear1"](x)
        hidden = torch.maximum(hidden, torch.zeros_like(hidden))
        return self["linear2"](self["dropout"](hidden))


# %%
class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.parts = nn.ModuleList(
            [
                MultiHeadAttention(d_model, n_heads),
                LayerNorm(d_model),
                FeedForward(d_model, d_ff, dropout),
                LayerNorm(d_model),
            ]
        )
        self.self_attention, self.norm1, self.feed_forward, self.norm2 = self.parts
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        residual = x
        x = self.self_attention(x, x, x, mask)[0]
        x = self.norm1(residual + self.dropout(x))
        residual = x
        x = self.feed_forward(x)
        return self.norm2(residual + self.dropout(x))


# %%
class DecoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        layer = EncoderLayer(d_model, n_heads, d_ff, dropout)
        self.self_attention = layer.self_attention
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = layer.feed_forward
        self.norm1, self.norm2, self.norm3 = layer.norm1, LayerNorm(d_model), layer.norm2
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        a, _ = self.self_attention(x, x, x, mask=mask)
        x = self.norm1(x + self.dropout(a))
        a, _ = self.cross_attention(x, memory, memory, mask=memory_mask)
        x = self.norm2(x + self.dropout(a))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


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
        self.d_model = d_model
        self.pad_id = pad_id
        self.source_embedding = nn.Embedding(source_vocab, d_model, padding_idx=None)
        self.target_embedding = nn.Embedding(target_vocab, d_model, padding_idx=None)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for _ in range(n_layers):
            self.encoder.append(EncoderLayer(d_model, n_heads, d_ff, dropout))
            self.decoder.append(DecoderLayer(d_model, n_heads, d_ff, dropout))
        self.output = nn.Linear(d_model, target_vocab)

    def encode(self, source):
        x = self.positional_encoding(self.source_embedding(source) * math.sqrt(self.d_model))
        for layer in self.encoder:
            x = layer(x, (source != self.pad_id)[:, None, :])
        return x

    def decode(self, target, memory, source):
        x = self.positional_encoding(self.target_embedding(target) * math.sqrt(self.d_model))
        n = target.shape[1]
        mask = padding_mask(target, self.pad_id) & causal_mask(n, target.device)
        for layer in self.decoder:
            x = layer(x, memory, mask, padding_mask(source, self.pad_id))
        return self.output(x)

    def forward(self, source, target):
        memory = self.encode(source)
        return self.decode(target, memory, source)


# %%
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    b, n, v = logits.shape
    y = at_least_float32(logits)
    total = (y * 0).sum()
    count = 0
    for row in range(b):
        for t in range(n):
            c = int(targets[row, t])
            if c == pad_id:
                continue
            log_p = y[row, t] - torch.logsumexp(y[row, t], dim=0)
            total = total - (1 - label_smoothing) * log_p[c] - label_smoothing * log_p.sum() / v
            count += 1
    return (total / max(count, 1)).to(logits.dtype)


# %%
def greedy_decode(model, source, bos_id, eos_id, max_length):
    training = model.training
    model.eval()
    with torch.no_grad():
        memory = model.encode(source)
        rows = [[bos_id] for _ in range(len(source))]
        running = list(range(len(rows)))
        for _ in range(max_length - 1):
            if not running:
                break
            target = torch.tensor([rows[r] for r in running], device=source.device)
            logits = model.decode(target.to(source.dtype), memory[running], source[running])
            for r, token in zip(list(running), logits[:, -1].argmax(-1).tolist(), strict=True):
                rows[r].append(token)
                if token == eos_id:
                    running.remove(r)
    model.train(training)
    longest = max(map(len, rows))
    padded = [row + [model.pad_id] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=source.dtype, device=source.device)


# %%
def detects_broken_attention(attention):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype("float32") for s in ((2, 3, 4), (2, 6, 4), (2, 6, 5)))
    mask = rng.random((2, 3, 6)) < 0.5
    mask[:, :, 0] = True
    mask[0, 2] = False
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    output, weights = attention(*tensors, torch.from_numpy(mask))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(4)
    expected = np.exp(scores - scores.max(-1, keepdims=True)) * mask
    expected = expected / np.maximum(expected.sum(-1, keepdims=True), 1e-30)
    seen = weights.detach().numpy()
    if seen.shape != expected.shape or np.any(seen[~mask] != 0):
        return True
    if not np.allclose(seen, expected, atol=1e-4):
        return True
    if not np.allclose(output.detach().numpy(), expected @ v, atol=1e-4):
        return True
    (output.sum() + weights.pow(2).sum()).backward()
    return not all(np.isfinite(t.grad.numpy()).all() for t in tensors)
