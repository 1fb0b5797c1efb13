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
    """This works for exactly three axes and for no other number. Look at how the two axes that you
    exchange are counted."""
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
