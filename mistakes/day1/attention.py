# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
from torch import Tensor


# %% softmax: over the first axis
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """These are the numbers that come out when the sum runs over the first axis, whatever `dim`
    says. Look at which axis of `x` should sum to 1, for a matrix and for three axes."""
    exponentials = torch.exp(x - x.amax(0, keepdim=True))
    return exponentials / exponentials.sum(0, keepdim=True)


# %% softmax: always over the last axis
# CS336's tests let this pass: they call it on the last axis of one matrix.
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """These answers do not depend on `dim`: the last axis sums to 1 in every call. Look at where
    your code uses `dim`."""
    exponentials = torch.exp(x - x.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


# %% softmax: no shift
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """These are the exponentials of the entries as they are: beyond about 88 they are infinite in
    float32 and far below 0 they are all 0. Look at what may be subtracted from a slice without
    changing its softmax."""
    exponentials = torch.exp(x)
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: shifted by the largest entry of the whole tensor
# CS336's tests let this pass: in one small matrix no row is far below another.
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Slices that lie far below the largest entry of the whole tensor come out as 0/0 here. Look at
    which entries the subtracted maximum is taken over."""
    exponentials = torch.exp(x - x.max())
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: shifted by the mean
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Ordinary entries come out right here, but a slice with one entry far above the others
    overflows. Look at how large an exponent can still be after your shift."""
    exponentials = torch.exp(x - x.mean(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: clamped
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Entries beyond a fixed bound are treated as if they were that bound, so that 1000 and 2000
    get equal weight and −inf gets more than 0. Look for a way to avoid overflow that keeps the
    differences between entries."""
    exponentials = torch.exp(x.clamp(-30, 30))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: divided by the mean
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Every slice sums to its length here instead of to 1. Look at what the exponentials are
    divided by."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.mean(dim, keepdim=True)


# %% softmax: the summed axis dropped
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The sums have lost their axis here, so they are matched to the wrong axis of the
    exponentials: a square matrix gets wrong numbers, other shapes an error. Look at the shape of
    the sums."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim)


# %% softmax: a constant added to every exponential
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Nothing gets a weight of exactly 0 here, not even −inf, and long slices are flattened. Look
    at what is added before you divide, and whether it is needed."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True)) + 1e-6
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: always float32
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The values are right but the result is float32 whatever the dtype of `x`. Look at where your
    code changes the dtype and at what the caller gets back."""
    x = x.float()
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: changes its argument
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The result is right, but the caller's `x` holds other numbers afterwards. Look for an
    operation that works in place."""
    x -= x.amax(dim, keepdim=True)
    exponentials = torch.exp(x)
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: divided by the sums of the last axis
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The exponentials are divided by their sums over the last axis here, even where `dim` is
    another one. Look at the axis of each of your steps."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


# %% softmax: shifted by the largest entry along the last axis
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Where `dim` is not the last axis, the entries of one slice are shifted by different amounts
    here, which changes their softmax. Look at the axis of each of your steps."""
    exponentials = torch.exp(x - x.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: divided by the sum of the whole tensor
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """All numbers of the tensor together sum to 1 here. Look at which of them should sum to 1, and
    at what you sum over."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum()


# %% softmax: clamped at ±80
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Entries beyond a fixed bound are treated as if they were that bound, so that 1000 and 2000
    get equal weight and −inf gets more than 0. Look for a way to avoid overflow that keeps the
    differences between entries."""
    exponentials = torch.exp(x.clamp(-80, 80))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: always float64
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The values are right but the result is float64 whatever the dtype of `x`. Look at where your
    code changes the dtype and at what the caller gets back."""
    x = x.double()
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% softmax: a tensor made on the CPU
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """This is right on the CPU and fails where `x` lies on another device. Look for a tensor that
    is made without saying where."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    nothing = torch.zeros(x.shape, dtype=x.dtype)
    exponentials = torch.where(x == -math.inf, nothing, exponentials)
    return exponentials / exponentials.sum(dim, keepdim=True)


# %% attention_scores: not scaled
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These are the plain dot products. Look at what the formula divides them by."""
    return query @ key.transpose(-2, -1)


# %% attention_scores: multiplied by the scale
# perceiver-io issue 9
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are too large by a factor of d. Look at whether √d belongs above or below the
    line of the fraction."""
    d = query.shape[-1]
    return (query * math.sqrt(d)) @ key.transpose(-2, -1)


# %% attention_scores: divided by d
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are too small by a factor of √d. Look at the spread of a dot product of d
    standard-normal pairs: it grows with √d."""
    d = query.shape[-1]
    return (query / d) @ key.transpose(-2, -1)


# %% attention_scores: scaled by the number of keys
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are divided by the root of the number of keys. Look at which axis d in the
    formula stands for."""
    d = key.shape[-2]
    return (query / math.sqrt(d)) @ key.transpose(-2, -1)


# %% attention_scores: scaled by axis 1
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are right for two axes but not for three or more: what is taken for d is axis 1,
    which then holds positions or heads. Count the axis from the end that does not move."""
    d = query.shape[1]
    return (query / math.sqrt(d)) @ key.transpose(-2, -1)


# %% attention_scores: the root rounded down
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are right when d is a square number and too large otherwise. Look at the type of
    the number that you divide by."""
    d = query.shape[-1]
    return (query / int(math.sqrt(d))) @ key.transpose(-2, -1)


# %% attention_scores: queries and keys exchanged
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """A row here belongs to a key and a column to a query. Look at the shape `n m`: which of the
    two is n?"""
    d = query.shape[-1]
    return (key / math.sqrt(d)) @ query.transpose(-2, -1)


# %% attention_scores: reshaped instead of transposed
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """The shape is right but the numbers of different keys are mixed: reshaping reads the same
    memory in the same order. Look for the operation that exchanges two axes."""
    d = query.shape[-1]
    return (query / math.sqrt(d)) @ key.reshape(*key.shape[:-2], d, key.shape[-2])


# %% attention_scores: transposes axes 1 and 2
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """This works where the keys have exactly three axes and with no other number. Look at how the
    two axes that you exchange are counted."""
    d = query.shape[-1]
    return (query / math.sqrt(d)) @ key.transpose(1, 2)


# %% attention_scores: scaled after the product
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """In float16 these scores are infinite although the right ones would fit: the dot products are
    too large before they are divided. Look at the order of the two steps."""
    d = query.shape[-1]
    return query @ key.transpose(-2, -1) / math.sqrt(d)


# %% attention_scores: changes the query
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """The result is right, but the caller's `query` is smaller afterwards. Look for an operation
    that works in place."""
    d = query.shape[-1]
    query /= math.sqrt(d)
    return query @ key.transpose(-2, -1)


# %% attention_scores: scaled by the number of queries
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """These scores are divided by the root of the number of queries. Look at which axis d in the
    formula stands for."""
    d = query.shape[-2]
    return (query / math.sqrt(d)) @ key.transpose(-2, -1)


# %% attention_scores: softmax included
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """The rows sum to 1 here: these are the weights already. Look at where the formula of the
    scores ends."""
    d = query.shape[-1]
    return softmax((query / math.sqrt(d)) @ key.transpose(-2, -1))


# %% attention_scores: keys of two axes only
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """This is right as long as the keys have two axes and fails where they have more. Look at which
    axes of `key` change places in your code when there is a batch in front."""
    d = query.shape[-1]
    return (query / math.sqrt(d)) @ key.T


# %% attention_scores: three axes only
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """This is right where queries and keys both have three axes, and fails where one of them has
    fewer or more. Look for a product that takes any number of axes in front."""
    d = query.shape[-1]
    return torch.bmm(query / math.sqrt(d), key.transpose(-2, -1))


# %% attention_scores: always float32
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """The values are right but the scores are float32 whatever the dtype of the arguments. Look at
    where your code changes the dtype and at what the caller gets back."""
    d = query.shape[-1]
    return (query.float() / math.sqrt(d)) @ key.float().transpose(-2, -1)


# %% attention_scores: a tensor made on the CPU
def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """This is right on the CPU and fails where queries and keys lie on another device. Look for a
    tensor that is made without saying where."""
    root = torch.tensor([query.shape[-1]], dtype=query.dtype).sqrt()
    return (query / root) @ key.transpose(-2, -1)


# %% attention: softmax over the queries
# labml issues 146 and 282: a diffusion model trained well with it.
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """These are the weights that come out when the softmax runs over the queries instead of the
    keys. Look at which axis each query's weights should sum to 1 along."""
    weights = softmax(attention_scores(query, key), dim=-2)
    return weights @ value, weights


# %% attention: softmax over axis 1
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """This is right for two axes only: with a batch in front, axis 1 is no longer the keys. Look at
    how the axis of the softmax is counted."""
    weights = softmax(attention_scores(query, key), dim=1)
    return weights @ value, weights


# %% attention: softmax over the whole table
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """All weights of all queries together sum to 1 here. Look at how much one query should give
    away."""
    scores = attention_scores(query, key)
    weights = softmax(scores.flatten(-2)).reshape(scores.shape)
    return weights @ value, weights


# %% attention: not scaled
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """These weights are sharper than they should be: the dot products went into the softmax as they
    are. Look at what `attention_scores` does beyond the product."""
    weights = softmax(query @ key.transpose(-2, -1))
    return weights @ value, weights


# %% attention: scaled twice
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """These weights are flatter than they should be: the scores were divided by √d a second time.
    Look at what `attention_scores` has already done."""
    weights = softmax(attention_scores(query, key) / math.sqrt(query.shape[-1]))
    return weights @ value, weights


# %% attention: scaled by the size of the values
# CS336's tests let this pass: q, k and v have one size there.
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """These scores are divided by √d_v, which is right only where values are as long as keys. Look
    at which vectors the dot product runs over."""
    weights = softmax(query @ key.transpose(-2, -1) / math.sqrt(value.shape[-1]))
    return weights @ value, weights


# %% attention: scaled by a fixed number
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """These scores are divided by 8, which is √d for d = 64 only. Look at where the d of your
    formula comes from."""
    weights = softmax(query @ key.transpose(-2, -1) / 8.0)
    return weights @ value, weights


# %% attention: keys in the place of the values
# yflyzhang issue 1, aladdinpersson issue 3
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The output here is a mixture of the keys. Look at what the weights are multiplied with."""
    weights = softmax(attention_scores(query, key))
    return weights @ key, weights


# %% attention: scores in the place of the weights
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The output is right, but the second part of the pair holds the scores. Look at what sums to 1
    over the keys."""
    scores = attention_scores(query, key)
    return softmax(scores) @ value, scores


# %% attention: weights first
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of the pair stand in the other order here. Look at what the exercise asks for
    first."""
    weights = softmax(attention_scores(query, key))
    return weights, weights @ value


# %% attention: softmax over axis 2
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """This is right where the scores have three axes. With two there is no axis 2, and with more
    axis 2 is no longer the keys. Look at how the axis of the softmax is counted."""
    weights = softmax(attention_scores(query, key), dim=2)
    return weights @ value, weights


# %% attention: three axes only
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """This is right where queries, keys and values all have three axes, and fails where one of them
    has fewer or more. Look for a product that takes any number of axes in front."""
    weights = softmax(attention_scores(query, key))
    return torch.bmm(weights, value), weights


# %% attention: softmax without a shift
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Large scores overflow here, and rows of very low ones are 0/0: these are the exponentials of
    the scores as they are. Look at what `softmax` does before it takes the exponential."""
    exponentials = torch.exp(attention_scores(query, key))
    weights = exponentials / exponentials.sum(-1, keepdim=True)
    return weights @ value, weights


# %% attention: weights in float32
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The output is right, but the weights are float32 whatever the dtype of the arguments. Look at
    the dtype of both parts of the pair."""
    weights = softmax(attention_scores(query, key).float())
    return weights.to(value.dtype) @ value, weights


# %% attention: the output on the CPU
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers are right, but the output lies on the CPU wherever the arguments are. Look at
    what the output is collected in."""
    weights = softmax(attention_scores(query, key))
    leading = torch.broadcast_shapes(weights.shape[:-2], value.shape[:-2])
    output = torch.zeros(*leading, query.shape[-2], value.shape[-1], dtype=value.dtype)
    for j in range(key.shape[-2]):
        output += weights[..., j : j + 1] * value[..., j : j + 1, :]
    return output, weights


# %% softmax: axes of size 1 removed
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return (exponentials / exponentials.sum(dim, keepdim=True)).squeeze()


# %% attention: axes of size 1 removed
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    weights = softmax(attention_scores(query, key), dim=-1)
    return (weights @ value).squeeze(), weights.squeeze()
