# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
from torch import Tensor


# %% padding_mask: True at padding
# Asked in every course: rasbt issue 1061, cs249r PR 1785; PyTorch itself uses both meanings.
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask is True where it should be False and the other way round. Look at what True means
    in this course."""
    return (tokens == pad_id).unsqueeze(1)


# %% padding_mask: the query axis missing
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The values are right but the shape is `b m`: against scores of `b n m` the batch would be
    taken for queries. Look at which axis is missing, and where."""
    return tokens != pad_id


# %% padding_mask: a column instead of a row
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The new axis stands at the end here, so that the mask blanks queries instead of keys. Look at
    which axis of the scores the keys are."""
    return (tokens != pad_id).unsqueeze(2)


# %% padding_mask: an axis for the heads too
# uvadlc issue 67, cs231n issue 279
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask has four axes, one more than asked for. Look at the shape `b 1 m`; what the heads
    need is added by whoever splits into heads."""
    return (tokens != pad_id)[:, None, None, :]


# %% padding_mask: padding is always 0
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """These are the right answers for `pad_id` 0 only. Look at where your code uses `pad_id`."""
    return (tokens != 0).unsqueeze(1)


# %% padding_mask: larger than the padding id
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Real tokens with an id below `pad_id` count as padding here. Look at the comparison."""
    return (tokens > pad_id).unsqueeze(1)


# %% padding_mask: assumes padding at the end
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask counts the real tokens of a row and takes as many positions from the front. Look at
    rows with padding in front or in the middle."""
    lengths = (tokens != pad_id).sum(1, keepdim=True)
    return (torch.arange(tokens.shape[1], device=tokens.device) < lengths).unsqueeze(1)


# %% padding_mask: everything from the first padding on
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Everything behind the first padding counts as padding here. Look at a row where real tokens
    follow."""
    return (tokens != pad_id).cumprod(1).bool().unsqueeze(1)


# %% padding_mask: a square mask
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask also blanks the rows of padded queries and has the shape `b m m`. Look at what the
    exercise asks for: only keys are hidden."""
    real = tokens != pad_id
    return real.unsqueeze(1) & real.unsqueeze(2)


# %% padding_mask: numbers instead of booleans
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The mask is right as a table of 0 and 1, but it is no boolean tensor. Look at its dtype:
    `~mask` means something else for integers."""
    return (tokens != pad_id).long().unsqueeze(1)


# %% padding_mask: repeated over the queries
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The values are right, but they are repeated for every query: the shape is `b m m`. Look at the
    size that the second axis should have; broadcasting does the rest."""
    return (tokens != pad_id).unsqueeze(1).expand(-1, tokens.shape[1], -1)


# %% padding_mask: values to be added to scores
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This is the mask as a term to add, with 0 and −inf. Look at what kind of mask this course
    uses."""
    values = torch.zeros(tokens.shape, device=tokens.device)
    return values.masked_fill(tokens == pad_id, -math.inf).unsqueeze(1)


# %% padding_mask: nothing real in a row without padding
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Everything from the first padding on is hidden here, and in a row without padding everything
    is. Look at what your search for the first padding gives where there is none, and at rows where
    real tokens follow."""
    first = (tokens == pad_id).int().argmax(1, keepdim=True)
    return (torch.arange(tokens.shape[1], device=tokens.device) < first).unsqueeze(1)


# %% padding_mask: only padding at the end
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Padding that a real token follows is not hidden here, only what stands at the end of a row is.
    Look at rows with padding in front or in the middle."""
    real = tokens != pad_id
    return (real.flip(1).cumsum(1).flip(1) > 0).unsqueeze(1)


# %% padding_mask: on the CPU
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The mask is right but always lies on the CPU, wherever the tokens are. Look for a tensor that
    is made without saying where."""
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    mask[tokens == pad_id] = False
    return mask.unsqueeze(1)


# %% causal_mask: the past hidden
# pytorch/tutorials issue 2250
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """Here each position sees itself and what comes after it. Look at which of the two axes is the
    query."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu()


# %% causal_mask: True at the future
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This mask is True exactly where attention is forbidden. Look at what True means in this
    course."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


# %% causal_mask: own position hidden
# jadore issue 19: 98 % accuracy with a wrong diagonal.
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """Here a position does not see itself, and the first one sees nothing at all. Look at the
    diagonal."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril(-1)


# %% causal_mask: one position ahead
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """Here each position sees the next one, which is what it has to predict. Look at
    the diagonal."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril(1)


# %% causal_mask: numbers instead of booleans
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """The table is right, but it holds 1.0 and 0.0 and is no boolean tensor. Look at its dtype."""
    return torch.ones(n, n, device=device).tril()


# %% causal_mask: values to be added to scores
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is the mask as a term to add, with 0 and −inf. Look at what kind of mask this course
    uses."""
    return torch.full((n, n), -math.inf, device=device).triu(1)


# %% causal_mask: an axis for the batch
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This mask has three axes. Look at the shape `n n`; a batch is reached by broadcasting."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril().unsqueeze(0)


# %% causal_mask: the device ignored
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """The mask is right but always lies on the CPU. Look at where your code uses `device`."""
    return torch.ones(n, n, dtype=torch.bool).tril()


# %% causal_mask: no empty mask
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is right from n = 1 on, but n = 0 fails. Look for a step that needs at least one row."""
    columns = torch.arange(n, device=device)
    return torch.stack([columns <= i for i in range(n)])


# %% causal_mask: axes of size 1 removed
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is right except for n = 1, where the mask has lost its axes. Look for a step that
    removes axes of size 1."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril().squeeze()


# %% causal_mask: no device accepted
def causal_mask(n: int) -> Tensor:
    """This is right as long as `n` is given alone; a call that says `device` fails. Look at the
    parameters in the stub."""
    return torch.ones(n, n, dtype=torch.bool).tril()


# %% causal_mask: an empty mask of one axis
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is right from n = 1 on, but for n = 0 the mask has a single axis. Look at the shape of
    what you make when there is no row."""
    rows = [[j <= i for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=torch.bool, device=device)


# %% causal_mask: an empty mask of numbers
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is right from n = 1 on, but for n = 0 the mask has a single axis and is no boolean
    tensor. Look at the shape and the dtype of what you make when there is no row."""
    return torch.tensor([[j <= i for j in range(n)] for i in range(n)], device=device)


# %% decoder_mask: padding forgotten
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This is the causal mask alone, repeated over the batch. Look at the keys that are padding."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal.expand(len(tokens), -1, -1)


# %% decoder_mask: the future forgotten
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This is the padding mask alone, repeated over the queries. Look at the keys that come after
    the query."""
    return padding_mask(tokens, pad_id).expand(-1, tokens.shape[1], -1)


# %% decoder_mask: either instead of both
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """A key is allowed here if it is real or not in the future. Look at how the two conditions are
    joined."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal | padding_mask(tokens, pad_id)


# %% decoder_mask: rows of padding emptied
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here a query that is padding sees nothing. Look at which positions the condition on padding
    is about: queries or keys?"""
    causal = causal_mask(tokens.shape[1], tokens.device)
    real = padding_mask(tokens, pad_id)
    return causal & real & real.transpose(1, 2)


# %% decoder_mask: queries hidden instead of keys
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here the rows of padded queries are empty while padded keys are visible. Look at which axis
    of the mask the keys are."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal & padding_mask(tokens, pad_id).transpose(1, 2)


# %% decoder_mask: own position always visible
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here a position sees itself even if it is padding. Look at the diagonal: the condition on
    padding holds there too."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    own = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    return causal & padding_mask(tokens, pad_id) | own


# %% decoder_mask: own position hidden
# pytorch/tutorials issue 2250, jadore issue 19
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here a position sees only what comes before it. Look at the diagonal."""
    causal = causal_mask(tokens.shape[1], tokens.device).tril(-1)
    return causal & padding_mask(tokens, pad_id)


# %% decoder_mask: the past hidden
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here a position sees itself and what comes after it. Look at which axis of the causal mask is
    the query."""
    causal = causal_mask(tokens.shape[1], tokens.device).T
    return causal & padding_mask(tokens, pad_id)


# %% decoder_mask: padding is always 0
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """These are the right answers for `pad_id` 0 only. Look at where your code uses `pad_id`."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal & padding_mask(tokens, 0)


# %% decoder_mask: assumes padding at the end
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask hides as many keys at the end as there is padding in the row. Look at rows with
    padding in front or in the middle."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    lengths = (tokens != pad_id).sum(1)
    keys = torch.arange(tokens.shape[1], device=tokens.device)
    return causal & (keys < lengths[:, None, None])


# %% decoder_mask: an axis for the heads too
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask has four axes, one more than asked for. Look at the shape `b n n`."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return (causal & padding_mask(tokens, pad_id)).unsqueeze(1)


# %% decoder_mask: inverted
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This mask is True exactly where attention is forbidden. Look at what True means in this
    course."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return ~(causal & padding_mask(tokens, pad_id))


# %% decoder_mask: values to be added to scores
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This is the mask as a term to add, with 0 and −inf. Look at what kind of mask this course uses."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    allowed = causal & padding_mask(tokens, pad_id)
    return torch.zeros(allowed.shape, device=tokens.device).masked_fill(~allowed, -math.inf)


# %% decoder_mask: one position ahead
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Here each position sees the next one, which is what it has to predict. Look at the
    diagonal."""
    n = tokens.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=tokens.device).tril(1)
    return causal & padding_mask(tokens, pad_id)


# %% decoder_mask: numbers instead of booleans
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The table is right, but it holds 1.0 and 0.0 and is no boolean tensor. Look at its dtype, and
    at how booleans can be joined."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal.float() * padding_mask(tokens, pad_id).float()


# %% decoder_mask: everything from the first padding on
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """All keys behind the first padding are hidden here, real ones too. Look at rows with padding in
    front or in the middle."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    return causal & (tokens != pad_id).cumprod(1).bool().unsqueeze(1)


# %% decoder_mask: only padding at the end
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """Padding that a real token follows is not hidden here, only what stands at the end of a row is.
    Look at rows with padding in front or in the middle."""
    causal = causal_mask(tokens.shape[1], tokens.device)
    real = tokens != pad_id
    return causal & (real.flip(1).cumsum(1).flip(1) > 0).unsqueeze(1)


# %% decoder_mask: a tensor made on the CPU
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """This is right on the CPU and fails where the tokens lie on another device. Look for a tensor
    that is made without saying where."""
    return causal_mask(tokens.shape[1]) & padding_mask(tokens, pad_id)


# %% masked_attention: the mask inverted
# rasbt issue 1061, tensorflow/text PR 894, pytorch PR 170415
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention goes exactly to the keys that are not allowed here. Look at what True means in this
    course."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(mask, 0.0)
    return weights @ value, weights


# %% masked_attention: the mask inverted, with a low number
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of allowed keys are set to a low number here, so that attention goes to the others. Look at what
    True means in this course."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(mask, torch.finfo(scores.dtype).min))
    return weights @ value, weights


# %% masked_attention: the mask inverted, with −inf
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of allowed keys are set to −inf here, and where all are allowed the result is NaN. Look at what
    True means in this course."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = torch.softmax(scores.masked_fill(mask, -math.inf), dim=-1)
    return weights @ value, weights


# %% masked_attention: the mask transposed
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rows and columns of the mask are exchanged here, which fits only where there are as many
    queries as keys. Look at which axis of the mask stands for the queries."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    mask = mask.transpose(-2, -1)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: the mask ignored
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """These are the answers without any mask. Look at whether what you mask is what goes into the
    softmax."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    scores.masked_fill(~mask, -math.inf)
    weights = softmax(scores)
    return weights @ value, weights


# %% masked_attention: scores multiplied by the mask
# tensorflow issue 43941; a model trained to no visible loss with it, and saw the future.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keys that are not allowed get the score 0 here, and exp(0) is 1. Look at which score makes a
    weight vanish in the softmax."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores * mask)
    return weights @ value, weights


# %% masked_attention: weights masked after the softmax
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weights that are left do not sum to 1 here: keys that are not allowed have already taken
    their share. Look at the order of mask and softmax."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: weights masked and divided again
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where a key that is not allowed has by far the largest score, the allowed ones are rounded to
    0 before they are divided again. Look at the order of mask and softmax."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    return weights @ value, weights


# %% masked_attention: filled with −1e9
# pytorch issues 24816, 26098 and 103749 discuss such rows.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A query that may attend to nothing attends to everything equally here: if all scores are
    lowered alike, the softmax does not notice. Look at rows without an allowed key."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, -1e9))
    return weights @ value, weights


# %% masked_attention: filled with −1e9 in half precision too
# apex issues 93 and 1105, fairseq issue 3575
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """This is right in float32, but the score that hides a key is no number of float16. Look for one
    that depends on the dtype."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    scores = scores.masked_fill(~mask, -1e9)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: filled with −inf
# pytorch issues 24816 and 26098
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A query that may attend to nothing gets NaN here: the softmax of a row of −inf is 0/0. Look
    at rows without an allowed key."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, -math.inf))
    return weights @ value, weights


# %% masked_attention: NaN replaced afterwards
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs and weights are right here, but the gradients are NaN where a query may attend to
    nothing: replacing a NaN does not mend the step that made it. Look for a way in which none
    arises."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    scores = scores + torch.zeros_like(scores).masked_fill(~mask, -math.inf)
    weights = softmax(scores).nan_to_num(0.0)
    return weights @ value, weights


# %% masked_attention: filled with −20
# minGPT issue 75 and HF issue 17121 (−1e4); Coursera's test lets −20 pass, CS336's −30.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keys that are not allowed get a small weight here instead of none, and a large one where the
    allowed scores are low. Look at how low a score must be to count for nothing."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, -20.0))
    weights = weights * mask.any(-1, keepdim=True)
    return weights @ value, weights


# %% masked_attention: no attention without a mask
# CS336's tests let this pass: they always give a mask.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """This is right as long as there is a mask and fails for `mask=None`. Look at what None should
    allow."""
    scores = attention_scores(query, key)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: one row of the mask for all queries
# Coursera's test lets a mask read from one row pass.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All queries are masked like the last one here. Look at a mask whose rows differ."""
    if mask is None:
        return attention(query, key, value)
    mask = mask[..., -1:, :]
    scores = attention_scores(query, key)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: scaled by the size of the values
# CS336's tests let this pass: q, k and v have one size there.
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """These scores are divided by √d_v, which is right only where values are as long as keys. Look
    at which vectors the dot product runs over."""
    scores = (query / math.sqrt(value.shape[-1])) @ key.transpose(-2, -1)
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: filled with the lowest number
# HF PR 17306, reformer-pytorch PR 26
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A query that may attend to nothing attends to everything equally here: if all scores are
    lowered alike, the softmax does not notice. Look at rows without an allowed key."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
    return weights @ value, weights


# %% masked_attention: filled with −10,000
# HF issue 14859, TransformerLens PR 319 (−1e5)
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A key that is not allowed has a score of −10,000 here. It gets weight where the allowed scores
    are as low, and where no key is allowed. Look at how low a score must be to count for nothing,
    and at rows without an allowed key."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, -1e4))
    return weights @ value, weights


# %% masked_attention: empty rows cleaned in the weights only
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weights are right, but the output of a query that may attend to nothing is the mean of all
    values. Look at which weights the output is made with."""
    if mask is None:
        return attention(query, key, value)
    scores = attention_scores(query, key)
    weights = softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
    return weights @ value, weights.masked_fill(~mask, 0.0)


# %% masked_attention: the mask added as 0 and 1
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All that the mask does here is to lift the scores of allowed keys by 1 above the others. Look
    at which values a mask needs if it is to be added."""
    if mask is None:
        return attention(query, key, value)
    weights = softmax(attention_scores(query, key) + mask)
    return weights @ value, weights


# %% masked_attention: half precision fails under a mask
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Under a mask this works in float32 and float64 and fails in half precision. Look at the dtype
    of everything that meets the scores, and at what float16 and float32 make together."""
    if mask is None:
        return attention(query, key, value)
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e30)
    weights = softmax(attention_scores(query, key) + bias).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% masked_attention: without a mask on the CPU only
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Without a mask this is right on the CPU and fails on another device. Look for a tensor that is
    made without saying where."""
    if mask is None:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool)
    scores = attention_scores(query, key)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores).masked_fill(~mask, 0.0)
    return weights @ value, weights


# %% causal_mask: a table of a fixed size
def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """This is cut from a table of a fixed size, and is too small where `n` is larger. Look at what the
    size of your table depends on."""
    return torch.ones(128, 128, dtype=torch.bool, device=device).tril()[:n, :n]


# %% decoder_mask: a table of a fixed size
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """The part that hides the future is cut from a table of a fixed size here, and longer sentences
    fail. Look at what the size of your table depends on."""
    n = tokens.shape[1]
    past = torch.ones(128, 128, dtype=torch.bool, device=tokens.device).tril()[:n, :n]
    return past & padding_mask(tokens, pad_id)


# %% masked_attention: axes of size 1 removed
def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    scores = attention_scores(query, key)
    if mask is None:
        weights = softmax(scores, dim=-1)
    else:
        fill = ~mask & mask.any(dim=-1, keepdim=True)
        weights = softmax(scores.masked_fill(fill, -math.inf), dim=-1).masked_fill(~mask, 0.0)
    return (weights @ value).squeeze(), weights.squeeze()


# %% padding_mask: pad_id 0 taken for none
def padding_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """With `pad_id` 0 nothing is padding here, with any other it is right. Look at how your code
    asks whether there is such an id: 0 counts as false."""
    if pad_id:
        return (tokens != pad_id).unsqueeze(1)
    return torch.ones_like(tokens, dtype=torch.bool).unsqueeze(1)


# %% decoder_mask: the first key opened in empty rows
def decoder_mask(tokens: Tensor, pad_id: int) -> Tensor:
    """A row with nothing to see may look at the first token here, though that is padding. Leave
    such rows empty: what they mean is for attention to say."""
    mask = padding_mask(tokens, pad_id) & causal_mask(tokens.shape[1], tokens.device)
    mask[:, :, 0] |= ~mask.any(-1)
    return mask
