# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
from torch import Tensor, nn


# %% split_heads: reshaped without a transpose
# hyunwoongko issue 15, harvardnlp issue 17, jsbaan PR 6
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The shape is right, but a head here holds some positions with all their features instead of
    all positions with some. Look at the order in which reshape reads the numbers."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n_heads, n, d // n_heads)


# %% split_heads: every h-th feature
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Head k here holds the features k, k + h, k + 2h, …. Look at which features stand side by side
    in one head."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, d // n_heads, n_heads).permute(0, 3, 1, 2)


# %% split_heads: heads behind the positions
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The features are split, but the heads stand behind the positions here. Look at which two axes
    should be last, so that attention runs over positions."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, n_heads, d // n_heads)


# %% split_heads: features before the positions
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The last two axes stand in the other order here. Look at the shape `b h n d_head`."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, n_heads, d // n_heads).permute(0, 2, 3, 1)


# %% split_heads: heads joined with the batch
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Batch and heads are one axis here. Look at the shape `b h n d_head`."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, n_heads, d // n_heads).transpose(1, 2).flatten(0, 1)


# %% split_heads: n_heads taken for the size of a head
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """There are d / n_heads heads of size n_heads here. Look at which of the two
    numbers is given."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, d // n_heads, n_heads).transpose(1, 2)


# %% split_heads: surplus features dropped
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Where d is not divisible by n_heads, the features that are left over vanish here without a
    word. Look at what the exercise asks for in this case."""
    b, n, d = x.shape
    d_head = d // n_heads
    return x[..., : n_heads * d_head].reshape(b, n, n_heads, d_head).transpose(1, 2)


# %% split_heads: an assertion instead of a ValueError
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Where d is not divisible by n_heads, something other than a ValueError is raised here. Look
    at which error is asked for; assertions are gone under `python -O`."""
    b, n, d = x.shape
    assert d % n_heads == 0, "d is not divisible by n_heads"
    return x.reshape(b, n, n_heads, d // n_heads).transpose(1, 2)


# %% split_heads: an error that names nothing
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """A wrong number of heads raises ValueError here, but its message does not say which argument
    is wrong. Look at what a caller needs to read."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError("these numbers do not divide")
    return x.reshape(b, n, n_heads, d // n_heads).transpose(1, 2)


# %% split_heads: the heads first
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The axis of the heads stands before that of the batch here. Look at the shape
    `b h n d_head`."""
    d = x.shape[-1]
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return torch.stack(x.chunk(n_heads, dim=-1))


# %% split_heads: one feature missing in each head
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The last feature of each head is missing here. Count the features of a head, and look at
    where the next one begins."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    return x.reshape(b, n, n_heads, d // n_heads).transpose(1, 2)[..., :-1]


# %% split_heads: always float32
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The numbers are right but the result is float32 whatever the dtype of `x`. Look at the dtype
    of what the heads are collected in."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d ({d}) is not divisible by n_heads ({n_heads})")
    heads = torch.zeros(b, n_heads, n, d // n_heads)
    for k, head in enumerate(x.chunk(n_heads, dim=-1)):
        heads[:, k] = head
    return heads


# %% merge_heads: reshaped without a transpose
# harvardnlp issue 17; in a trained copy task the loss does not show it.
def merge_heads(x: Tensor) -> Tensor:
    """The shape is right, but a position here holds numbers of several positions of one head. Look
    at the order in which reshape reads the numbers."""
    b, h, n, d_head = x.shape
    return x.reshape(b, n, h * d_head)


# %% merge_heads: heads interleaved
def merge_heads(x: Tensor) -> Tensor:
    """The first features of all heads come first here, then the second ones. Look at which features
    of a position stand side by side."""
    b, h, n, d_head = x.shape
    return x.permute(0, 2, 3, 1).reshape(b, n, h * d_head)


# %% merge_heads: axes exchanged twice too many
def merge_heads(x: Tensor) -> Tensor:
    """The numbers of different positions are mixed here: features and heads have changed places.
    Look at which two axes have to be exchanged."""
    b, h, n, d_head = x.shape
    return x.transpose(1, 3).reshape(b, n, h * d_head)


# %% merge_heads: heads averaged
def merge_heads(x: Tensor) -> Tensor:
    """The heads are averaged here instead of laid side by side. Look at how many features a
    position should have."""
    return x.mean(1)


# %% merge_heads: heads one after the other
def merge_heads(x: Tensor) -> Tensor:
    """The heads are laid behind one another along the positions here. Look at the axis along which
    they should be joined."""
    b, h, n, d_head = x.shape
    return x.reshape(b, h * n, d_head)


# %% merge_heads: positions joined with the batch
def merge_heads(x: Tensor) -> Tensor:
    """Batch and positions are one axis here. Look at the shape `b n h*d_head`."""
    b, h, n, d_head = x.shape
    return x.transpose(1, 2).reshape(b * n, h * d_head)


# %% merge_heads: the number of positions taken for the size of a head
def merge_heads(x: Tensor) -> Tensor:
    """This is right only where there are as many positions as features in a head. Look at what the
    last axis is made of."""
    b, h, n, _ = x.shape
    return x.transpose(1, 2).reshape(b, -1, h * n)


# %% merge_heads: a view of a transposed tensor
def merge_heads(x: Tensor) -> Tensor:
    """This fails because the numbers of a transposed tensor do not lie in memory in order. Look at
    what `view` needs, and what does without."""
    b, h, n, d_head = x.shape
    return x.transpose(1, 2).view(b, n, h * d_head)


# %% merge_heads: axes of size 1 removed
def merge_heads(x: Tensor) -> Tensor:
    """This is right except where the batch or the sequence has size 1: that axis is missing then.
    Look for a step that removes axes of size 1."""
    return torch.cat(x.split(1, dim=1), dim=-1).squeeze()


# %% merge_heads: the heads still apart
def merge_heads(x: Tensor) -> Tensor:
    """The axes have changed places, but there are still four of them here. Look at the shape
    `b n h*d_head`."""
    return x.transpose(1, 2)


# %% merge_heads: positions and features exchanged
def merge_heads(x: Tensor) -> Tensor:
    """The numbers of different positions are mixed here: positions and features have changed places.
    Look at which two axes have to be exchanged."""
    b, h, n, d_head = x.shape
    return x.transpose(2, 3).reshape(b, n, h * d_head)


# %% merge_heads: heads added up
def merge_heads(x: Tensor) -> Tensor:
    """The heads are added up here instead of laid side by side. Look at how many features a position
    should have."""
    return x.sum(1)


# %% merge_heads: always float32
def merge_heads(x: Tensor) -> Tensor:
    """The numbers are right but the result is float32 whatever the dtype of `x`. Look at the dtype
    of what the heads are collected in."""
    b, h, n, d_head = x.shape
    merged = torch.zeros(b, n, h * d_head)
    for k in range(h):
        merged[:, :, k * d_head : (k + 1) * d_head] = x[:, k]
    return merged


# %% MultiHeadAttention: heads split without a transpose
# hyunwoongko issue 15, jsbaan PR 6: the test that trained a model passed.
class MultiHeadAttention(nn.Module):
    """A head here attends over pieces of positions: its numbers come from some positions with all
    their features. Look at the order in which reshape reads the numbers when the heads are
    split."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        b, h, d_head = len(query), self.n_heads, query.shape[-1] // self.n_heads
        queries = self.query(query).reshape(b, h, -1, d_head)
        keys = self.key(key).reshape(b, h, -1, d_head)
        values = self.value(value).reshape(b, h, -1, d_head)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: heads merged without a transpose
# harvardnlp issue 17
class MultiHeadAttention(nn.Module):
    """The weights are right, but a position of the output holds numbers of several positions of one
    head. Look at the axes before the heads are laid side by side."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(output.reshape(query.shape)), weights


# %% MultiHeadAttention: every h-th feature in a head
class MultiHeadAttention(nn.Module):
    """Head k here holds the features k, k + h, k + 2h, …, so that copied weights give other
    answers. Look at which features stand side by side in one head."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        heads = (query.shape[-1] // self.n_heads, self.n_heads)
        queries = self.query(query).unflatten(-1, heads).permute(0, 3, 1, 2)
        keys = self.key(key).unflatten(-1, heads).permute(0, 3, 1, 2)
        values = self.value(value).unflatten(-1, heads).permute(0, 3, 1, 2)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(output.permute(0, 2, 3, 1).flatten(2)), weights


# %% MultiHeadAttention: scaled by √d_model
# set_transformer issue 18, ViT-CIFAR PR 11, aladdinpersson PR 159
class MultiHeadAttention(nn.Module):
    """These weights are flatter than they should be: the scores are divided by √d_model. Look at
    the length of the vectors that one head multiplies."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries / math.sqrt(self.n_heads), keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: scaled by the number of keys
class MultiHeadAttention(nn.Module):
    """The scores are divided by the root of the number of keys here. Look at the length of the vectors that one
    head multiplies."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(
            queries * math.sqrt(queries.shape[-1] / keys.shape[-2]), keys, values, mask
        )
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: divided by d_head
class MultiHeadAttention(nn.Module):
    """The scores are divided by d_head here, so that the weights are flatter than they should be. Look at whether
    there is a root."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(
            queries / math.sqrt(queries.shape[-1]), keys, values, mask
        )
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: not scaled
class MultiHeadAttention(nn.Module):
    """The scores are not divided by anything here, so that the weights are sharper than they should be. Look at
    the length of the vectors that one head multiplies."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(
            queries * math.sqrt(queries.shape[-1]), keys, values, mask
        )
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: scaled by √n_heads
class MultiHeadAttention(nn.Module):
    """The scores are divided by the root of the number of heads here. Look at the length of the vectors that one
    head multiplies."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(
            queries * math.sqrt(queries.shape[-1] / self.n_heads), keys, values, mask
        )
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: values projected like keys
# yflyzhang issue 1, aladdinpersson issue 3
class MultiHeadAttention(nn.Module):
    """The weights are right, but the values went through the layer that belongs to the keys. Look
    at which of the four layers each input takes."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.key(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: values taken from the keys' input
class MultiHeadAttention(nn.Module):
    """This is right as long as `key` and `value` are one tensor, and wrong where they are not. Look
    at what goes into the layer of the values."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(key), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: no output projection
# translob issue 4
class MultiHeadAttention(nn.Module):
    """The heads are returned side by side here as they are. Look at what follows after they are
    joined."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return merge_heads(output), weights


# %% MultiHeadAttention: as many keys as queries
class MultiHeadAttention(nn.Module):
    """This is right for self-attention and fails where there are more or fewer keys than queries.
    Look at the lengths with which keys and values are split."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        b, n, d_model = query.shape
        heads = (b, n, self.n_heads, d_model // self.n_heads)
        queries = self.query(query).reshape(heads).transpose(1, 2)
        keys = self.key(key).reshape(heads).transpose(1, 2)
        values = self.value(value).reshape(heads).transpose(1, 2)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: the mask without an axis for the heads
class MultiHeadAttention(nn.Module):
    """The mask of a sequence lands on a head here, or does not fit at all: its batch axis meets the
    axis of the heads. Look at the shapes of scores and mask, from the right."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: a mask of two axes misplaced
class MultiHeadAttention(nn.Module):
    """Masks of three axes are right here, but one of `n m` is not: its rows meet the heads instead
    of the queries. Look at where the axis for the heads is put when there is no batch."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(1)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: masks repeated in the wrong order
# lsdefine issue 36, lighthouse PR 77
class MultiHeadAttention(nn.Module):
    """A head here gets the mask of another sequence: batch and heads are one axis, and the masks
    follow one another in another order than the heads. Look at the difference between `repeat`
    and `repeat_interleave`."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        if mask is not None:
            mask = mask.expand(len(query), query.shape[1], key.shape[1])
            mask = mask.repeat(self.n_heads, 1, 1).unflatten(0, (len(query), self.n_heads))
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: weights averaged over the heads
# nn.MultiheadAttention does so unless it is told otherwise.
class MultiHeadAttention(nn.Module):
    """The output is right, but the weights are the mean over all heads. Look at the shape of the
    weights that is asked for."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights.mean(1)


# %% MultiHeadAttention: biases always
class MultiHeadAttention(nn.Module):
    """There are biases here even where `bias=False` was asked for. Look at which of the four layers
    get the argument."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: no output for a query that sees nothing
class MultiHeadAttention(nn.Module):
    """A query that may attend to nothing gets 0 here even after the output projection. Look at what
    the projection makes of a vector of zeros."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        output = self.out(merge_heads(output))
        return output * weights.sum((1, 3)).gt(0).unsqueeze(-1), weights


# %% MultiHeadAttention: heads that do not divide accepted
class MultiHeadAttention(nn.Module):
    """A `d_model` that is not divisible by `n_heads` raises nothing when the module is made. Look
    at what the exercise asks for in this case, and when."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: a query that sees nothing gets NaN
class MultiHeadAttention(nn.Module):
    """A query that may attend to nothing gets NaN here. Look at its row of scores, and at what the
    softmax makes of it."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        scores = attention_scores(queries, keys)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-3), -math.inf)
        weights = softmax(scores)
        return self.out(merge_heads(weights @ values)), weights


# %% MultiHeadAttention: a query that sees nothing sees everything
class MultiHeadAttention(nn.Module):
    """A query that may attend to nothing attends to everything equally here: if all scores are
    lowered alike, the softmax does not notice. Look at rows without an allowed key."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        scores = attention_scores(queries, keys)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-3), -1e9)
        weights = softmax(scores)
        return self.out(merge_heads(weights @ values)), weights


# %% MultiHeadAttention: the mask inverted
class MultiHeadAttention(nn.Module):
    """Attention goes exactly to the keys that are not allowed here. Look at what True means in this
    course."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else ~mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: a mask of two axes taken for padding
class MultiHeadAttention(nn.Module):
    """Masks of three axes are right here, but one of `n m` is taken for `b m`: its rows meet the
    sequences of the batch instead of the queries. Look at what the two axes of such a mask are."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        if mask is not None:
            mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: an assertion instead of a ValueError
class MultiHeadAttention(nn.Module):
    """Where d_model is not divisible by n_heads, something other than a ValueError is raised here.
    Look at which error is asked for; assertions are gone under `python -O`."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        assert d_model % n_heads == 0, "d_model is not divisible by n_heads"
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% MultiHeadAttention: a tensor left on the CPU
# bentrevett issue 180
class MultiHeadAttention(nn.Module):
    """This is right on the CPU and fails after a move to another device. Look for a tensor that does
    not move with the module and is not made where the inputs are."""

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.out = nn.Linear(d_model, d_model, bias)

    def forward(self, query, key, value, mask=None):
        queries = split_heads(self.query(query), self.n_heads)
        keys = split_heads(self.key(key), self.n_heads)
        values = split_heads(self.value(value), self.n_heads)
        everything = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool)
        mask = everything if mask is None else everything & mask.unsqueeze(-3)
        output, weights = masked_attention(queries, keys, values, mask)
        return self.out(merge_heads(output)), weights


# %% split_heads: axes of size 1 removed
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError(f"d = {d} is not divisible by n_heads = {n_heads}")
    return x.reshape(b, n, n_heads, d // n_heads).transpose(1, 2).squeeze()
