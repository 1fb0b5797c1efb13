# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% CausalSelfAttention: scores divided by the root of d_model
# set_transformer issue 18, ViT-CIFAR pull request 11
class CausalSelfAttention(nn.Module):
    """The scores are divided by √d_model here. Look at how many features a query and a key of
    one head have."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(d)
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: scores divided by the root of n_heads
class CausalSelfAttention(nn.Module):
    """The scores are divided by √n_heads here. Look at how many features a query and a key of one head
    have."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.n_heads)
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: scores not divided
class CausalSelfAttention(nn.Module):
    """The scores are not divided by anything here. Look at the formula once more."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2)
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: the future is seen
class CausalSelfAttention(nn.Module):
    """Every position sees all others here, the future too. Look at what a position may attend
    to."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: one position of the future
# pytorch/tutorials issue 2250
class CausalSelfAttention(nn.Module):
    """Each position sees itself, all before it and the one after it here. Look at where the
    diagonal of your mask begins."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n + 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: the mask begins in the corner
# build-nanogpt issue 82
class CausalSelfAttention(nn.Module):
    """With a cache, the triangle of the mask begins in its upper left corner here, as if the
    new positions were the first ones. Look at which rows of the square mask they are."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril()
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: no mask with a cache
class CausalSelfAttention(nn.Module):
    """With a cache, every new position sees all keys here, those after it too. Look at a piece
    of several positions."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device)
        if cache is None:
            mask = mask.tril()
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: the cache is filled and not read
class CausalSelfAttention(nn.Module):
    """The keys and values of x are appended to the cache, but x attends to itself alone here.
    Look at what `append` gives back."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: heads cut before queries, keys and values
class CausalSelfAttention(nn.Module):
    """The features of `qkv` are cut into heads first here, and each head into query, key and
    value. Look at the order in which they lie side by side."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, self.n_heads, -1).transpose(1, 2).chunk(3, dim=-1)
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: keys before queries
class CausalSelfAttention(nn.Module):
    """The first third of `qkv` is taken for the keys here, and the second for the queries. Look
    at their order."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        k, q, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: heads split by a reshape
# hyunwoongko issue 15, harvardnlp issue 17
class CausalSelfAttention(nn.Module):
    """The features are cut into heads by a reshape alone here, so that a head holds several
    positions. Look at which axes have to change places."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (t.reshape(b, self.n_heads, n, -1) for t in self.qkv(x).chunk(3, dim=-1))
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: heads merged by a reshape
class CausalSelfAttention(nn.Module):
    """The results of the heads are put together by a reshape alone here, which mixes positions.
    Look at which axes have to change places first."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).reshape(b, n, d))


# %% CausalSelfAttention: no output projection
# translob issue 4
class CausalSelfAttention(nn.Module):
    """The results of the heads are returned as they are here. Look at what `out` is for."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return (weights @ v).transpose(1, 2).reshape(b, n, d)


# %% CausalSelfAttention: dropout in evaluation mode
# nanoGPT pull requests 240 and 749
class CausalSelfAttention(nn.Module):
    """Dropout acts in evaluation mode, too. Look at what tells it the mode."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, True)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: no dropout
class CausalSelfAttention(nn.Module):
    """Dropout never acts here. Look at where the argument goes."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: any number of heads
class CausalSelfAttention(nn.Module):
    """A d_model that is not divisible by n_heads is not refused when the layer is made here. Look
    at what the docstring raises, and when."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: softmax over the queries
# labml issues 146 and 282
class CausalSelfAttention(nn.Module):
    """The weights sum to 1 over the queries of a key here. Look at the axis of the softmax."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-2)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: the future covered after the softmax
class CausalSelfAttention(nn.Module):
    """The weights of the future are set to 0 after the softmax here, so that the others do not
    sum to 1, and depend on the future. Look at the order of mask and softmax."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: own position hidden
class CausalSelfAttention(nn.Module):
    """No position sees itself here, so that the first one sees nothing at all and becomes NaN.
    Look at where the diagonal of your mask belongs."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n - 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: another error than ValueError
class CausalSelfAttention(nn.Module):
    """A d_model that is not divisible by n_heads ends with an error here, but not with a
    ValueError. Look at the kind of error in the docstring."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        assert d_model % n_heads == 0, "d_model is not divisible by n_heads"
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: a score too large for float16
class CausalSelfAttention(nn.Module):
    """float16 alone ends with an error here. Look at the numbers that you write yourself, such
    as the score of what is hidden: the largest one of float16 is 65504."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -1e9).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: a mask in float32
class CausalSelfAttention(nn.Module):
    """Half precision, float16 and bfloat16, ends with an error here. Look at the dtypes of the
    tensors that you make yourself, such as a mask."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.full((n, m), -math.inf, device=x.device).triu(m - n + 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = (scores + mask).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% CausalSelfAttention: a mask that stays on the CPU
class CausalSelfAttention(nn.Module):
    """On another device the layer ends with an error here. Look for a tensor that you make
    yourself, and that stays on the CPU."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = F.dropout(weights, self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% GPTBlock: post-norm
# harvardnlp issues 1 and 92, d2l issue 803
class GPTBlock(nn.Module):
    """Each norm stands behind the sum here, as in the original Transformer. Look at where
    pre-norm has it."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x, cache)))
        hidden = F.gelu(self.linear1(x), approximate="tanh")
        return self.norm2(x + self.drop(self.linear2(hidden)))


# %% GPTBlock: the residual is normed
class GPTBlock(nn.Module):
    """What attention and network give is added to the norm of x here. Look at what the residual
    connection carries."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = self.norm1(x)
        x = x + self.drop(self.attention(x, cache))
        x = self.norm2(x)
        hidden = F.gelu(self.linear1(x), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: GELU with the error function
class GPTBlock(nn.Module):
    """GELU has its exact form here, with the error function. Look at which form GPT-2 has."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)))
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: ReLU
class GPTBlock(nn.Module):
    """The network uses ReLU here. Look at the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.relu(self.linear1(self.norm2(x)))
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: the first norm twice
class GPTBlock(nn.Module):
    """`norm1` stands before the network, too. Look at which norm belongs to which branch."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm1(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: one norm for both branches
class GPTBlock(nn.Module):
    """Both branches use the same norm here: `norm1` and `norm2` are one object, or `norm2` is called twice. Look
    at how the two are made: each branch has a norm with weights of its own."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = self.norm2 = nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: the network reads the old x
class GPTBlock(nn.Module):
    """Attention and network both read the x from before here, side by side. Look at which x the
    second line of the formula means."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        before = x
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(before)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: nothing is carried past the network
class GPTBlock(nn.Module):
    """The result is what the network gives alone here. Look at what it is added to."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return self.drop(self.linear2(hidden))


# %% GPTBlock: nothing is carried past the attention
class GPTBlock(nn.Module):
    """The network gets what attention gives alone here. Look at what it is added to."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: no norm before the network
class GPTBlock(nn.Module):
    """The network reads x as it is here. Look at the second norm."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(x), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: the cache is not handed on
# tiny-llm pull request 46
class GPTBlock(nn.Module):
    """The cache does not reach the attention here. Look at what `forward` is given."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: norms with another eps
class GPTBlock(nn.Module):
    """The norms have an eps far below 1e-5 here. Look at the one in the docstring."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model, 1e-12), nn.LayerNorm(d_model, 1e-12)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: dropout in evaluation mode
class GPTBlock(nn.Module):
    """Dropout acts in evaluation mode, too. Look at what tells it the mode."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.p = dropout

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + F.dropout(self.attention(self.norm1(x), cache), self.p)
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + F.dropout(self.linear2(hidden), self.p)


# %% GPTBlock: no dropout
class GPTBlock(nn.Module):
    """Dropout never acts here. Look at where the argument goes."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), cache)
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.linear2(hidden)


# %% GPTBlock: d_ff not used
class GPTBlock(nn.Module):
    """The network is 4·d_model wide here, whatever `d_ff` is. Look at all arguments."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = (
            nn.Linear(d_model, 4 * d_model),
            nn.Linear(4 * d_model, d_model),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: x changed in place
class GPTBlock(nn.Module):
    """The numbers are right, but the caller's x is not what it was. Look for an operation that
    works in place."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x += self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: norms with an eps of 1e-6
class GPTBlock(nn.Module):
    """The norms have an eps of 1e-6 here. Look at the one in the docstring."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model, 1e-6), nn.LayerNorm(d_model, 1e-6)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: no activation
class GPTBlock(nn.Module):
    """There is nothing between the two linear layers here, so that together they could be one.
    Look at the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        hidden = self.linear1(self.norm2(x))
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: GELU with the sigmoid
class GPTBlock(nn.Module):
    """GELU is approximated by a sigmoid here. Look at which form GPT-2 has."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cache))
        z = self.linear1(self.norm2(x))
        hidden = z * torch.sigmoid(1.702 * z)
        return x + self.drop(self.linear2(hidden))


# %% GPTBlock: no norm before the attention
class GPTBlock(nn.Module):
    """The attention reads x as it is here. Look at the first norm."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.drop(self.attention(x, cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPT: positions begin at 0 with caches
# tiny-llm pull request 46, executorch pull request 2010
class GPT(nn.Module):
    """With caches, positions begin at 0 again in every call here. Look at how many are there
    already."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: positions begin at the number of caches
class GPT(nn.Module):
    """With caches, positions begin at the number of caches here, which is the number of blocks.
    Look at whose length says how far the text is."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches)
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: cached positions do not count
class GPT(nn.Module):
    """What the caches hold does not count for `max_length` here. Look at the position of the
    last token."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: nothing is too long
class GPT(nn.Module):
    """A text longer than `max_length` is not refused with a ValueError here. Look at what the
    docstring of `forward` raises."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: max_length itself is refused
class GPT(nn.Module):
    """A text of just `max_length` tokens is refused here. Look at the last position, and what
    it must not reach."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] >= self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: refused too late
class GPT(nn.Module):
    """A call that is too long is refused only after the blocks have run here, so the caches
    have grown. Look at what should be the same after an error."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        positions = (start + torch.arange(tokens.shape[1])).clamp(max=self.max_length - 1)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: one cache for all blocks
class GPT(nn.Module):
    """All blocks get the first cache here. Look at how many there are, and why."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            x = block(x, None if caches is None else caches[0])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: weights not tied
# nanoGPT pull request 21
class GPT(nn.Module):
    """The logits come from a linear map with weights of its own here. Look at which table
    scores the tokens."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        nn.init.constant_(self.head.weight, 0.1)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.head(self.norm(x))


# %% GPT: a bias for the logits
class GPT(nn.Module):
    """The logits are right here, but there is a parameter too many, such as a bias, or a second table
    with the numbers of the first. Look at what tied weights share."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T + self.bias


# %% GPT: no last norm
class GPT(nn.Module):
    """The logits are computed from the last block's output as it is here. Look at what follows
    the blocks."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return x @ self.token_embedding.weight.T


# %% GPT: positions along the batch
class GPT(nn.Module):
    """The position embedding is chosen by the number of the sequence in the batch here. Look at which axis of the
    tokens counts positions."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(len(tokens)).unsqueeze(1)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: embeddings scaled
class GPT(nn.Module):
    """The token embeddings are multiplied by √d_model here, as in the original Transformer.
    Look at the formula of this one."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(
            self.token_embedding(tokens) * self.norm.weight.numel() ** 0.5
            + self.position_embedding(positions)
        )
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: no positions
class GPT(nn.Module):
    """No positions are added here. Look at the second table."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        x = self.drop(self.token_embedding(tokens))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: the same block again and again
class GPT(nn.Module):
    """`blocks` holds one block `n_layers` times here, so that all share their weights. Look at
    how often you make one."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList([GPTBlock(*sizes)] * n_layers)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: no dropout
class GPT(nn.Module):
    """Dropout never acts here. Look at where the argument goes."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        sizes = (d_model, n_heads, 4 * d_model)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: softmax instead of logits
class GPT(nn.Module):
    """The result is a softmax here. Look at what the later exercises expect of it."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1])
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return (self.norm(x) @ self.token_embedding.weight.T).softmax(dim=-1)


# %% GPT: cut to max_length
class GPT(nn.Module):
    """Without caches, a text that is too long is cut to its last `max_length` tokens here. Look
    at what the docstring of `forward` raises."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        tokens = tokens[:, -self.max_length :]
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: the last position alone with caches
# nanoGPT does so without targets, with one token and more.
class GPT(nn.Module):
    """With caches, there are logits for the last position of a call alone here. Look at the
    shape in the docstring."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        if caches is not None:
            x = x[:, -1:]
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: log-softmax instead of logits
class GPT(nn.Module):
    """The result is the logarithm of a softmax here. Look at what the formula ends with."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return (self.norm(x) @ self.token_embedding.weight.T).log_softmax(dim=-1)


# %% GPT: one position for a whole piece
class GPT(nn.Module):
    """With caches, all tokens of a call get the same position here, that of the first. Look at a
    call with more than one token."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        n = tokens.shape[1] if caches is None else 1
        positions = start + torch.arange(n, device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: n_layers not kept
class GPT(nn.Module):
    """There is no attribute `n_layers` here. Look at the attributes in the docstring."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length = max_length
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% GPT: blocks that torch does not see
class GPT(nn.Module):
    """Torch finds no parameters in `blocks` here. Look at the kind of list in which a module
    keeps its parts."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = [GPTBlock(*sizes) for _ in range(n_layers)]
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = 0 if caches is None else len(caches[0])
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.T


# %% next_token_loss: not shifted
# MONAI GenerativeModels issue 314, bentrevett issue 136
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logits at each position are compared with the token at this position here. Look at
    which token they guess."""
    log_p = logits.log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, :, None]).mean()


# %% next_token_loss: not shifted, the first position left out
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The first position is left out of logits and tokens, and so the logits at each position are still compared
    with the token at this position. Look at which of the two loses its last, and which its first."""
    log_p = logits.log_softmax(dim=-1)
    return -log_p[:, 1:].gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: not shifted, the last position left out
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The last position is left out of logits and tokens, and so the logits at each position are still compared
    with the token at this position. Look at which of the two loses its last, and which its first."""
    log_p = logits.log_softmax(dim=-1)
    return -log_p[:, :-1].gather(-1, tokens[:, :-1, None]).mean()


# %% next_token_loss: shifted backwards
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logits at each position are compared with the token before it here. Look at which of
    the two loses its first position, and which its last."""
    log_p = logits[:, 1:].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, :-1, None]).mean()


# %% next_token_loss: shifted twice
# HF issue 3711, InternLM issue 318
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logits are compared with the token after the next one here. Look at whether the shift
    is made twice."""
    log_p = logits[:, :-2].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 2:, None]).mean()


# %% next_token_loss: shifted in a circle
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The last logits are compared with the first token here. Look at what `roll` does at the
    end."""
    log_p = logits.log_softmax(dim=-1)
    return -log_p.gather(-1, tokens.roll(-1, dims=1)[:, :, None]).mean()


# %% next_token_loss: divided by all positions
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The sum is divided by n in each row here. Look at how many guesses a row has."""
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).sum() / tokens.numel()


# %% next_token_loss: summed
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The losses are summed up here. Look at what the docstring says of all of them."""
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).sum()


# %% next_token_loss: summed in each row
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The losses of a row are summed here, and the mean is taken over rows. Look at what each
    guess should count."""
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).sum(dim=1).mean()


# %% next_token_loss: in bits
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The loss is in bits here. Look at the unit, and at the logarithm that belongs to it."""
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean() / math.log(2)


# %% next_token_loss: softmax over the positions
# labml issues 146 and 282
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The softmax runs over the positions here. Look at the axis on which a guess has its
    tokens."""
    log_p = logits[:, :-1].log_softmax(dim=1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: a small number inside of the logarithm
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """A small number is added to the probabilities here, so that a hopeless token costs less
    than it should. Look for a function that takes the logarithm of a softmax."""
    log_p = (logits[:, :-1].softmax(dim=-1) + 1e-9).log()
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: softmax twice
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The softmax is taken of probabilities here, that is twice. Look at what your function
    expects."""
    log_p = logits[:, :-1].softmax(dim=-1).log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: probabilities instead of logarithms
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The mean of −p is taken here, without a logarithm. Look at the formula."""
    log_p = logits[:, :-1].softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: the logarithm of a softmax
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """A hopeless token costs infinity here: its probability is rounded to 0 before the logarithm
    is taken. Look for a function that does both at once."""
    log_p = logits[:, :-1].softmax(dim=-1).log()
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: an exponential that overflows
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """With large logits the loss is infinite here, even where the guess is right: an exponential
    overflows. Look for a function that takes care of this."""
    guesses = logits[:, :-1]
    right = guesses.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return (guesses.exp().sum(dim=-1).log() - right).mean()


# %% next_token_loss: a softmax that overflows
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """With large logits the loss is NaN or infinite here: an exponential overflows, and infinity
    is divided by infinity. Look for a function that takes care of this."""
    p = logits[:, :-1].exp()
    log_p = (p / p.sum(dim=-1, keepdim=True)).log()
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: rows put end to end before the shift
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The last logits of each row are compared with the first token of the next row here. Look
    at when you shift, and when you make one long row of all."""
    log_p = logits.reshape(-1, logits.shape[-1])[:-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens.reshape(-1)[1:, None]).mean()


# %% next_token_loss: the axes exchanged by a reshape
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logits of a guess are torn apart here: a reshape exchanges no axes, it only counts the
    numbers anew. Look at which axes have to change places."""
    b, n, v = logits.shape
    return F.cross_entropy(logits[:, :-1].reshape(b, v, n - 1), tokens[:, 1:])


# %% next_token_loss: the sign forgotten
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The mean of log p is taken here, which is never above 0. Look at the sign in the
    formula."""
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_loss: always in float32
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The loss is float32 here, whatever the dtype of the logits. Look at the dtype of the
    result."""
    log_p = logits[:, :-1].float().log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


# %% next_token_probabilities: multiplied by the temperature
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The logits are multiplied by the temperature here. Look at what a low temperature should
    do to the likely tokens."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) * temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: temperature 0 as 1
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Temperature 0 changes nothing here. Look at what it should put on the largest logit."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    temperature = temperature or 1.0
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: temperature of probabilities
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities are divided by the temperature here, which changes nothing once they
    are scaled to sum 1. Look at what is divided before the softmax."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = logits.softmax(dim=-1) / temperature
    p = p / p.sum(dim=-1, keepdim=True)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: temperature after the filters
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The filters count before the temperature here. Look at the order."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = logits.softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    p = p ** (1 / temperature)
    p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: one more than top_k
# mesh-transformer-jax issue 164
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """One token more than `top_k` stays here. Look at where the count begins."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) <= top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: dropped in every row
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What `top_p` drops is looked up in the order of all rows at once here, so that a token that one row drops is
    dropped from every row. Look at how you go back from the sorted order: `scatter` along the last
    axis keeps rows apart."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        dropped = order[p.cumsum(dim=-1) - p >= top_p]
        p = torch.zeros_like(p).scatter(-1, order, p)
        p[..., dropped] = 0
        return p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: divided by the sum of all rows
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """All rows together sum to 1 here. Look at the axis of your sum: each row is a distribution of its
    own."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        above[..., 1:] = above[..., :-1].clone()
        above[..., 0] = False
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    exponentials = (logits - logits.max()).exp()
    return exponentials / exponentials.sum()


# %% next_token_probabilities: softmax over the first axis
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities of a token sum to 1 over the rows here. Look at the axis of the softmax: the tokens are along
    the last one."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        above[..., 1:] = above[..., :-1].clone()
        above[..., 0] = False
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    return logits.softmax(dim=0)


# %% next_token_probabilities: the top_k of all rows together
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The `top_k` largest of the whole batch stay here, so that some rows keep nothing. Look at the axis along which
    you look for them: each row has its own."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.flatten().topk(min(top_k, logits.shape[-1])).values[-1]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        above[..., 1:] = above[..., :-1].clone()
        above[..., 0] = False
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    return logits.softmax(dim=-1)


# %% next_token_probabilities: one threshold for all rows
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """All rows are compared with the smallest of the `top_k` probabilities of any row here, so that one row decides
    what another keeps. Look at the threshold: each row has its own."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values.min()
        logits = logits.masked_fill(logits < lowest, -math.inf)
    p, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_k beyond the vocabulary refused
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """A `top_k` larger than the vocabulary is an error here. Look at what it should keep."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and not 1 <= top_k <= logits.shape[-1]:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: the crossing token dropped
# rasbt/reasoning-from-scratch issue 164
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The token that crosses `top_p` is dropped here. Look at how much probability the rest
    has."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * ((p.cumsum(dim=-1) < top_p) | (torch.arange(p.shape[-1], device=p.device) == 0))
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: the running sum over the axis before the last
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities are added up along the axis before the last here, over the rows. Look at which axis
    `cumsum` runs along."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=max(-2, -logits.dim())) > top_p
        above[..., 1:] = above[..., :-1].clone()
        above[..., 0] = False
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    return logits.softmax(dim=-1)


# %% next_token_probabilities: the running sum over the rows
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities are added up along the first axis here, over the rows. Look at which axis `cumsum` runs
    along."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=0) > top_p
        above[..., 1:] = above[..., :-1].clone()
        above[..., 0] = False
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    return logits.softmax(dim=-1)


# %% next_token_probabilities: the crossing token dropped, even the first
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The token that crosses `top_p` is dropped here, and where it is the first none is left. Look at how much
    probability the rest has."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / temperature
    if top_k is not None:
        lowest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        logits = logits.masked_fill(above.scatter(-1, order, above), -math.inf)
    return logits.softmax(dim=-1)


# %% next_token_probabilities: the crossing token dropped, unless it is reached exactly
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The token that crosses `top_p` is dropped here. Look at how much probability the rest
    has."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * ((p.cumsum(dim=-1) <= top_p) | (torch.arange(p.shape[-1], device=p.device) == 0))
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: one token too many for top_p
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """One token more than needed stays here: the one after that which crosses `top_p`. Look at
    which sum decides."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (
            (p.cumsum(dim=-1) - p).roll(1, dims=-1)
            * (torch.arange(p.shape[-1], device=p.device) > 0)
            < top_p
        )
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_p as a least probability
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Every token of at least the probability `top_p` stays here. Look at what should sum to
    it."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * ((p >= top_p) | (torch.arange(p.shape[-1], device=p.device) == 0))
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_p before top_k
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """`top_p` counts the tokens here that `top_k` takes away, too. Look at the order, and at what sums
    to 1 between the two."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: not renormalised at the end
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What the filters leave does not sum to 1 here. Look at what is drawn from."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        kept = p.sum(dim=-1, keepdim=True)
        p = p / kept
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
    if top_k is not None:
        p = p * kept
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: left in sorted order
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities are in sorted order here. Look at which token each of them belongs to."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p = p.sort(dim=-1, descending=True).values
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return p


# %% next_token_probabilities: filtered logits set to 0
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Where a filter drops a token its logit is set to 0 here, which leaves it a probability.
    Look at which logit gives 0."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    kept = torch.zeros_like(p).scatter(-1, order, p) > 0
    return (logits / temperature).masked_fill(~kept, 0.0).softmax(dim=-1)


# %% next_token_probabilities: nothing refused at temperature 0
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """At temperature 0 a wrong `top_k` or `top_p` is not refused here. Look at what comes
    first."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_p 1 refused
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """A `top_p` of 1 is refused here. Look at which end of the interval belongs to it."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p < 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: a negative temperature
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """A negative temperature is not refused here; it makes the least likely token the
    likeliest. Look at what the docstring raises."""
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = (logits / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: divided by a temperature of 0
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """At temperature 0 all probabilities are NaN here. Look at what a division by 0 gives."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: whole numbers at temperature 0
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """At temperature 0 the result holds whole numbers, int64, here. Look at the dtype of the
    logits."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1])
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_k 0 as no filter
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """A `top_k` of 0 is not refused here; it counts as no filter. Look at which numbers Python
    takes for false."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: another error than ValueError
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Wrong arguments end with an error here, but not with a ValueError. Look at the kind of
    error in the docstring."""
    assert temperature >= 0, "temperature is negative"
    assert top_k is None or top_k >= 1, "top_k is below 1"
    assert top_p is None or 0 < top_p <= 1, "top_p is outside (0, 1]"
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: top_p forgotten beside top_k
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Where both filters are asked for, only `top_k` acts here. Look at which of your branches
    can be taken together."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    p, order = p.sort(dim=-1, descending=True)
    if top_k is not None:
        p = p * (torch.arange(p.shape[-1], device=p.device) < top_k)
        p = p / p.sum(dim=-1, keepdim=True)
    elif top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% next_token_probabilities: the mask for top_p in sorted order
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """`top_p` finds out here how many tokens should stay, and then keeps the first ones of the
    vocabulary, not the likeliest. Look at which token each entry of your mask belongs to."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None:
        p = logits.softmax(dim=-1).sort(dim=-1, descending=True).values
        logits = logits.masked_fill(p.cumsum(dim=-1) - p >= top_p, -math.inf)
    return logits.softmax(dim=-1)


# %% next_token_probabilities: top_k for one leading axis alone
# nanoGPT, where there is no other shape
def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """`top_k` ends with an error here where the logits have more than one leading axis. Look at
    the axis on which the k-th largest stands."""
    if temperature < 0:
        raise ValueError("temperature is negative")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p is outside (0, 1]")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    if top_k is not None:
        least = p.topk(min(top_k, p.shape[-1]), dim=-1).values[:, [-1]]
        p = p * (p >= least)
        p = p / p.sum(dim=-1, keepdim=True)
    p, order = p.sort(dim=-1, descending=True)
    if top_p is not None:
        p = p * (p.cumsum(dim=-1) - p < top_p)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


# %% generate: the first position's guess
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The next token is always drawn from the logits of the first position here. Look at which
    position guesses what comes next."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, 0]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: the prompt left out
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The result holds only the new tokens here. Look at its shape in the docstring."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens[:, prompt.shape[1] :]


# %% generate: never drawn
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The most likely token is taken at every temperature here. Look at what temperature and
    the generator are for."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = p.argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: temperature not handed on
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The temperature is not used here. Look at all arguments."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, top_k=top_k, top_p=top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: filters not handed on
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`top_k` and `top_p` are not used here. Look at all arguments."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: one cache for all blocks
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """All blocks share one cache here. Look at what multiplying a list copies."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache()] * model.n_layers if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: all that is written again
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """With the cache, the model reads all that is written in every step here, and what it has
    read stands in the cache a second time. Look at what it has not read yet."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = tokens
    model.train(training)
    return tokens


# %% generate: new caches in every step
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The caches are empty again in every step here, so that later tokens are drawn without the
    prompt. Look at where they are made."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: the last token of the prompt twice
# fla issue 126, mlx-lm pull request 1396
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """With the cache, the last token of the prompt is read twice here. Look at what the first
    call has read."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        if use_cache and n_tokens:
            model(prompt, caches)
            unread = prompt[:, -1:]
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: never a cache
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`use_cache` changes nothing here: the model reads everything again in each step. Look at
    what the cache saves."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    use_cache = False
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: always a cache
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`use_cache` changes nothing here: the caches are always used. Look at what the model
    should be called with otherwise."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    use_cache = True
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: a token too many
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """There is one token more than `n_tokens` here. Look at the loop."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens + 1):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: nothing is too long
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A result longer than `max_length` is not refused here. Look at what the docstring raises."""
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: max_length itself is refused
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A result of just `max_length` tokens is refused here. Look at when it would be longer."""
    if prompt.shape[1] + n_tokens >= model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: left in evaluation mode
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A model that was in training mode is in evaluation mode afterwards. Look at what has to
    be put back."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    return tokens


# %% generate: left in training mode
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A model that was in evaluation mode is in training mode afterwards. Look at how you find
    out which one to put back."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train()
    return tokens


# %% generate: in training mode
# nanoGPT pull requests 240 and 749
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The model is run in the mode in which it was, so that dropout may act here. Look at the
    mode that writing needs."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    return tokens


# %% generate: with gradients
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The model is run with gradients on here, which keeps every step in memory. Look at what
    writing has no need of."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.enable_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: the generator not handed on
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The generator that is given is not used here, so that the same one draws other tokens.
    Look at all arguments."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: top_p not handed on
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`top_p` is not used here. Look at all arguments."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: top_k not handed on
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`top_k` is not used here. Look at all arguments."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_p=top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: the last token alone without the cache
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Without the cache, too, the model reads only the newest token here, and does not know what
    stands before it. Look at what remembers that where there are no caches."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new
    model.train(training)
    return tokens


# %% generate: one token for n_tokens 0
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Where `n_tokens` is 0, one token is written all the same. Look at how often you draw."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(max(n_tokens, 1)):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% generate: not drawn at temperature 0
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """At temperature 0 nothing is drawn here, so that the generator has not moved on afterwards.
    Look at what the docstring says of each step."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError("prompt and n_tokens do not fit into max_length")
    training = model.training
    model.eval()
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    tokens, unread = prompt, prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = p.argmax(dim=-1, keepdim=True)
            if temperature > 0:
                new = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
            unread = new if use_cache else tokens
    model.train(training)
    return tokens


# %% CausalSelfAttention: a batch of one without its axis
class CausalSelfAttention(nn.Module):
    """The output for a batch of one has lost its first axis. Look at what happens to axes of
    size 1."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        apart = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = apart.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.append(key, value)
        n, m = query.shape[2], key.shape[2]
        allowed = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        heads = F.scaled_dot_product_attention(
            query, key, value, allowed, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(heads.transpose(1, 2).flatten(2)).squeeze(0)


# %% next_token_probabilities: axes of size 1 removed
def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, it is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, it is {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], it is {top_p}")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype).squeeze()
    p, order = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    if top_k is not None:
        p = torch.where(torch.arange(p.shape[-1], device=p.device) < top_k, p, 0)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        p = torch.where(p.cumsum(dim=-1) - p < top_p, p, 0)
        p = p / p.sum(dim=-1, keepdim=True)
    return p.gather(-1, order.argsort(dim=-1)).squeeze()


# %% generate: a single prompt without its axis
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The tokens for a batch of one prompt have lost their first axis. Look at what happens to axes
    of size 1."""
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError(f"n_tokens = {n_tokens} and the prompt are beyond max_length")
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    was_training = model.training
    model.eval()
    tokens = unread = prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            drawn = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
            unread = drawn if use_cache else tokens
    model.train(was_training)
    return tokens.squeeze(0)


# %% CausalSelfAttention: scores multiplied by the mask
class CausalSelfAttention(nn.Module):
    """What is masked has a score of 0 here, and after the softmax still a weight. Look at which
    score becomes a weight of 0."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.n_heads, self.p = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            t.view(b, n, self.n_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v = cache.append(k, v)
        m = k.shape[2]
        mask = torch.ones(n, m, dtype=x.dtype, device=x.device).tril(m - n)
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.n_heads)
        weights = F.dropout((scores * mask).softmax(dim=-1), self.p, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


# %% GPTBlock: the first residual is normed
class GPTBlock(nn.Module):
    """What is carried past attention is the normed x here, and past the network the x itself. Look
    at what the first sum adds to."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = self.norm1(x)
        x = x + self.drop(self.attention(x, cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.drop(self.linear2(hidden))


# %% GPT: the table at the end does not learn
class GPT(nn.Module):
    """The logits are right, but they teach the table nothing here: it is detached where it makes
    them. Look at `data` and `detach` in the last line."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, n_heads, 4 * d_model, dropout)
        self.blocks = nn.ModuleList(GPTBlock(*sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        start = len(caches[0]) if caches else 0
        if start + tokens.shape[1] > self.max_length:
            raise ValueError("tokens do not fit into max_length")
        positions = start + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.norm(x) @ self.token_embedding.weight.detach().T


# %% next_token_loss: token 0 taken for padding
def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Where the next token is 0, nothing is learned here. A text has no padding; look at which
    targets count."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], ignore_index=0)
