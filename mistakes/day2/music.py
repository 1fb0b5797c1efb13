# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% transpose: rests and holds move too
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Rests and holds are moved here as if they were pitches. Look at which tokens have a pitch."""
    moved = tokens + semitones
    if ((tokens >= 2) & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return moved


# %% transpose: holds move too
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Rests stay, but holds are moved here as if they were pitches. Look at what token 1 stands
    for."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(tokens > 0, moved, tokens)


# %% transpose: the lowest pitch stays
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """The lowest pitch, token 2, is not moved here. Look at where the pitches begin."""
    is_pitch = tokens > 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: moved the other way
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A positive number moves down here. Look at the sign of `semitones`."""
    is_pitch = tokens >= 2
    moved = tokens - semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: clamped to the range
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch that would leave the range is set to its end here, so that the interval is another
    one. Look at what the exercise asks for in this case."""
    is_pitch = tokens >= 2
    moved = (tokens + semitones).clamp(2, N_TOKENS - 1)
    return torch.where(is_pitch, moved, tokens)


# %% transpose: round the range
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch that leaves the range at one end comes in at the other here. Look at what the
    exercise asks for in this case."""
    is_pitch = tokens >= 2
    moved = (tokens - 2 + semitones) % (N_TOKENS - 2) + 2
    return torch.where(is_pitch, moved, tokens)


# %% transpose: an octave back into the range
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch that would leave the range is moved by octaves until it is inside here. Look at what
    the exercise asks for in this case."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    moved = moved + 12 * ((2 - moved).clamp(min=0) + 11).div(12, rounding_mode="floor")
    above = (moved - N_TOKENS + 1).clamp(min=0)
    moved = moved - 12 * (above + 11).div(12, rounding_mode="floor")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: no end checked
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Nothing is refused here: pitches leave the range at both ends. Look at what becomes of pitch
    3 moved down by two."""
    return torch.where(tokens >= 2, tokens + semitones, tokens)


# %% transpose: the lower end unchecked
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may fall below 2 here, and becomes a hold, a rest or no token at all. Look at both
    ends of the range."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & (moved >= N_TOKENS)).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: the lower end taken for 0
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may become a hold or a rest here; only negative numbers are refused. Look at which
    token is the lowest pitch."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 0) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: the upper end unchecked
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may rise above N_TOKENS − 1 here. Look at both ends of the range."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & (moved < 2)).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: the upper end off by one
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may become N_TOKENS here, one above the highest. Look at the comparison."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved > N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: the highest pitch refused
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may not arrive at N_TOKENS − 1 here, though that is the highest one. Look at the
    comparison."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS - 1))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: the lowest pitch refused
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch may not arrive at 2 here, though that is the lowest one. Look at the comparison."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved <= 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: rests and holds checked, too
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Rests and holds are asked here whether they would leave the range, though they do not move.
    Look at which tokens the check is about."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if ((moved < 2) | (moved >= N_TOKENS)).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: refused only where all leave
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A single pitch out of the range is let pass here where another one stays inside. Look at
    whether one is enough."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    outside = (moved < 2) | (moved >= N_TOKENS)
    if is_pitch.any() and outside[is_pitch].all():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: changes its argument
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """The result is right, but the caller's tokens are moved, too. Look for an operation that works
    in place."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    tokens[is_pitch] += semitones
    return tokens


# %% transpose: an error that names nothing
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch out of the range raises ValueError here, but its message does not say which argument
    is at odds. Look at what a caller needs to read."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError("out of range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: an error where nothing sounds
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Tokens without any pitch end with an error here, though nothing can leave the range. Look
    at what is asked of the pitches where there are none."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    pitches = moved[is_pitch]
    if pitches.min() < 2 or pitches.max() >= N_TOKENS:
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)


# %% transpose: a float result
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """The result is float32 here, but tokens are whole numbers. Look at the dtypes of all that
    you add or multiply."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return tokens + semitones * is_pitch.float()


# %% transpose: two axes alone
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """Tokens with two axes work here, and all others end with an error. Look for a way that
    needs no loop."""
    result = tokens.clone()
    for i in range(tokens.shape[0]):
        for j in range(tokens.shape[1]):
            if tokens[i, j] >= 2:
                result[i, j] += semitones
                if not 2 <= result[i, j] < N_TOKENS:
                    raise ValueError(f"semitones {semitones} moves a pitch out of the range")
    return result


# %% transpose: another error than ValueError
def transpose(tokens: Tensor, semitones: int) -> Tensor:
    """A pitch out of the range ends with an error here, but not with a ValueError. Look at the
    kind of error in the docstring."""
    is_pitch = tokens >= 2
    moved = tokens + semitones
    assert not (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any(), "tokens out of the range"
    return torch.where(is_pitch, moved, tokens)


# %% skew: one distance too short
# labml issues 185 and 218
def skew(x: Tensor) -> Tensor:
    """Every query gets the logit of the next shorter distance here, and nothing for distance 0.
    Look at the side on which the column is put."""
    n = x.shape[-1]
    return F.pad(x, (0, 1)).flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: the last row dropped
def skew(x: Tensor) -> Tensor:
    """Of the numbers read anew, the last row is dropped here instead of the first, so that query i
    gets what belongs to query i − 1. Look at where a0 should stand."""
    n = x.shape[-1]
    return F.pad(x, (1, 0)).flatten(-2)[..., :-n].unflatten(-1, (n, n))


# %% skew: read in rows of n + 1
def skew(x: Tensor) -> Tensor:
    """The column of zeros is added, but the rows keep their places here. Look at how many numbers
    make a row when you read them anew."""
    n = x.shape[-1]
    return F.pad(x, (1, 0))[..., :n]


# %% skew: not moved at all
def skew(x: Tensor) -> Tensor:
    """Each logit stays in the column of its distance here. Look at how far each row has to
    slide."""
    return x.clone()


# %% skew: slid to the right
def skew(x: Tensor) -> Tensor:
    """The rows slide in the wrong direction here. Look at the first row: where does its last entry
    go?"""
    n = x.shape[-1]
    rows = torch.arange(n, device=x.device).unsqueeze(1)
    columns = torch.arange(n, device=x.device)
    return x[..., rows, (columns - (n - 1 - rows)) % n]


# %% skew: slid by one too many
def skew(x: Tensor) -> Tensor:
    """Each row slides one column too far here: the diagonal holds distance 1. Look at n = 1, where
    nothing slides."""
    n = x.shape[-1]
    rows = torch.arange(n, device=x.device).unsqueeze(1)
    columns = torch.arange(n, device=x.device)
    return x[..., rows, (columns + n - 2 - rows) % n]


# %% skew: distances counted from the left
def skew(x: Tensor) -> Tensor:
    """Column 0 is taken for distance 0 here. Look at the order of the distances in a row of x."""
    n = x.shape[-1]
    return F.pad(x.flip(-1), (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: the last query's row for all
def skew(x: Tensor) -> Tensor:
    """Every query gets the logits of the last one here. Look at whose logits stand in row i."""
    n = x.shape[-1]
    rows = x[..., -1:, :].expand(x.shape)
    return F.pad(rows, (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: keys and queries exchanged
def skew(x: Tensor) -> Tensor:
    """The result is transposed here: up to the diagonal, row i holds logits of other queries. Look
    at which axis counts queries."""
    n = x.shape[-1]
    return F.pad(x, (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n)).mT


# %% skew: the queries padded
def skew(x: Tensor) -> Tensor:
    """The zeros are a row in front of the queries here, not a column in front of the distances.
    Look at which axis `F.pad` begins with."""
    n = x.shape[-1]
    return F.pad(x, (0, 0, 1, 0)).flatten(-2)[..., n - 1 : -1].unflatten(-1, (n, n))


# %% skew: leading axes mixed
def skew(x: Tensor) -> Tensor:
    """The matrices of a batch are read as one long row of numbers here, so that all but the first
    get numbers of another. Look at which axes take part in the reshape."""
    n = x.shape[-1]
    flat = F.pad(x, (1, 0)).flatten()
    return flat[n : n + x.numel()].reshape(x.shape)


# %% skew: −inf above the diagonal
def skew(x: Tensor) -> Tensor:
    """The future is covered with −inf here, where the exercise asks for something finite: the
    causal mask is not the business of skew. Look at the docstring."""
    n = x.shape[-1]
    skewed = F.pad(x, (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n))
    return skewed.masked_fill(torch.ones_like(skewed).triu(1).bool(), float("-inf"))


# %% skew: row by row
def skew(x: Tensor) -> Tensor:
    """The result is right, but each row is moved by a call of its own here. Look for a way in which
    the number of calls does not grow with n."""
    n = x.shape[-1]
    rows = [x[..., i, :].roll(i + 1 - n, dims=-1) for i in range(n)]
    return torch.stack(rows, dim=-2)


# %% skew: cut off from the gradients
def skew(x: Tensor) -> Tensor:
    """The numbers are right, but no gradient flows back to x here. Look at what takes a tensor out
    of the graph."""
    n = x.shape[-1]
    return F.pad(x.detach(), (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: in the dtype of the zeros
def skew(x: Tensor) -> Tensor:
    """Half precision comes back as float32 here. Look at the dtypes of the tensors that you make
    yourself, such as a column of zeros."""
    n = x.shape[-1]
    padded = torch.cat([torch.zeros(*x.shape[:-1], 1, device=x.device), x], dim=-1)
    return padded.flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: the unreachable distances cleared in place
def skew(x: Tensor) -> Tensor:
    """The result is right, but x holds zeros afterwards where distances reach before the beginning.
    Look for an operation that works in place."""
    n = x.shape[-1]
    x.detach().mul_(torch.ones_like(x).tril().flip(-1))
    return F.pad(x, (1, 0)).flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: four axes alone
def skew(x: Tensor) -> Tensor:
    """This is right for a batch with heads, and an error for any other number of leading axes. Look
    at what the star in the shape of x stands for."""
    b, h, n, _ = x.shape
    return F.pad(x, (1, 0)).reshape(b, h, n + 1, n)[:, :, 1:]


# %% skew: one matrix alone
def skew(x: Tensor) -> Tensor:
    """One matrix is skewed here, and a batch of them ends with an error. Look at which axes
    should take no part in the reshape."""
    n = x.shape[-1]
    return F.pad(x, (1, 0)).view(n + 1, n)[1:]


# %% skew: slid the more the later the query
def skew(x: Tensor) -> Tensor:
    """Row i slides by i here: the first row stays where it is, and the last one slides farthest.
    Look at which row has to slide how far."""
    n = x.shape[-1]
    rows = torch.arange(n, device=x.device).unsqueeze(1)
    columns = torch.arange(n, device=x.device)
    return x[..., rows, (columns + rows) % n]


# %% skew: always in float32
def skew(x: Tensor) -> Tensor:
    """The result is float32 here, whatever the dtype of x. Look at the dtype of what you write
    the numbers into."""
    n = x.shape[-1]
    padded = torch.zeros(*x.shape[:-1], n + 1, device=x.device)
    padded[..., 1:] = x
    return padded.flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% skew: entry by entry
def skew(x: Tensor) -> Tensor:
    """The result is right, but it is filled in by a loop here, entry by entry or row by row.
    Look for a way in which the number of calls does not grow with n."""
    n = x.shape[-1]
    result = torch.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            result[..., i, j] = x[..., i, n - 1 - (i - j)]
    return result


# %% skew: zeros that stay on the CPU
def skew(x: Tensor) -> Tensor:
    """On another device this ends with an error here. Look for a tensor that you make yourself,
    and that stays on the CPU."""
    n = x.shape[-1]
    padded = torch.cat([torch.zeros(*x.shape[:-1], 1, dtype=x.dtype), x], dim=-1)
    return padded.flatten(-2)[..., n:].unflatten(-1, (n, n))


# %% RelativeSelfAttention: the distances left out
class RelativeSelfAttention(nn.Module):
    """This is ordinary causal attention: `relative` changes nothing. Look at the second term of the
    scores."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        scores = q @ k.mT / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: not skewed
class RelativeSelfAttention(nn.Module):
    """The logits for the distances are added to the scores as they are, column by column, here.
    Look at what a column of Q Rᵀ stands for, and what a column of Q Kᵀ."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + q @ distances.mT) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: one distance too short
# labml issues 185 and 218
class RelativeSelfAttention(nn.Module):
    """Every key gets the vector of the next shorter distance here, and the own position none. Look
    at which row of `relative` is distance 0."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        logits = F.pad(q @ distances.mT, (0, 1)).flatten(-2)[..., n:].unflatten(-1, (n, n))
        scores = (q @ k.mT + logits) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: distance 0 in the first row
class RelativeSelfAttention(nn.Module):
    """The rows of `relative` are read in the other order here: the first one as distance 0. Look at
    what the last row stands for."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, :n].flip(1)
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the far distances of a long table
class RelativeSelfAttention(nn.Module):
    """A sequence shorter than `max_length` gets the first n rows of `relative` here, which belong
    to the far distances. Look at where distance 0 stands."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, :n]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the content alone scaled
class RelativeSelfAttention(nn.Module):
    """Only Q Kᵀ is divided by √d_head here. Look at what the fraction covers."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = q @ k.mT / d_head**0.5 + skew(q @ distances.mT)
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: not scaled
class RelativeSelfAttention(nn.Module):
    """The scores are not divided by √d_head here. Look at the formula."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = q @ k.mT + skew(q @ distances.mT)
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: scaled by the whole width
class RelativeSelfAttention(nn.Module):
    """The scores are divided by √d_model here. Look at how many features a head compares."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / x.shape[-1] ** 0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: scaled by the number of heads
class RelativeSelfAttention(nn.Module):
    """The scores are divided by the root of the number of heads here. Look at how many features a head
    compares."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / n_heads**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the distances of one head for all
class RelativeSelfAttention(nn.Module):
    """Every head uses the distances of head 0 here. Look at the first axis of `relative`."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:1, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: asked by the keys
class RelativeSelfAttention(nn.Module):
    """The vectors for the distances are multiplied with the keys here. Look at who asks how far
    back to look."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(k @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the future open
# magenta issue 1486
class RelativeSelfAttention(nn.Module):
    """No mask covers the future here; what skew leaves above the diagonal is taken for scores. Look
    at what a position may see."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        weights = scores.softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the future set to 0 before the softmax
class RelativeSelfAttention(nn.Module):
    """The scores of the future are set to 0 here, which the softmax makes a weight of. Look at the
    score that leads to the weight 0."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, 0.0).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: one step into the future
class RelativeSelfAttention(nn.Module):
    """A position sees the one after it here. Look at where the covered triangle begins."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(2)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the future covered after the softmax
class RelativeSelfAttention(nn.Module):
    """The weights of the future are set to 0 after the softmax here, so that the others do not sum
    to 1, and depend on the future. Look at the order of mask and softmax."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.softmax(dim=-1).masked_fill(future, 0.0)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: softmax over the queries
# labml issues 146 and 282
class RelativeSelfAttention(nn.Module):
    """The weights sum to 1 over the queries of a key here. Look at the axis of the softmax."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-2)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: heads cut without a transpose
# hyunwoongko issue 15, jsbaan PR 6
class RelativeSelfAttention(nn.Module):
    """A head holds some positions with all their features here. Look at the order in which the axes
    are split."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.reshape(len(x), n_heads, n, d_head) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).reshape(x.shape))


# %% RelativeSelfAttention: without `out`
class RelativeSelfAttention(nn.Module):
    """The heads' results are returned without the last layer here. Look at what `out` is for."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


# %% RelativeSelfAttention: far distances clipped
# Shaw et al. (2018) do so.
class RelativeSelfAttention(nn.Module):
    """A sequence longer than `max_length` is taken here, and all far distances share the first row.
    Look at what the docstring says of n above `max_length`."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        farthest = self.relative[:, :1].expand(-1, max(n - max_length, 0), -1)
        distances = torch.cat([farthest, self.relative[:, max(max_length - n, 0) :]], dim=1)
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the full length refused
class RelativeSelfAttention(nn.Module):
    """A sequence of exactly `max_length` positions is refused here. Look at the comparison."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n >= max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: an error that names nothing
class RelativeSelfAttention(nn.Module):
    """A sequence that is too long raises ValueError here, but its message does not say which
    argument is at odds. Look at what a caller needs to read."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError("too many positions")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: the distances out of the graph
class RelativeSelfAttention(nn.Module):
    """The output is right, but `relative` gets no gradient here and will not learn. Look at what
    takes a tensor out of the graph."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative.data[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: always in float32
class RelativeSelfAttention(nn.Module):
    """Inputs in half or double precision come back as float32 here. Look at the dtype of the
    result."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)).float()


# %% RelativeSelfAttention: another error than ValueError
class RelativeSelfAttention(nn.Module):
    """A sequence longer than `max_length` ends with an error here, but not with a ValueError.
    Look at the kind of error in the docstring."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: heads merged without a transpose
class RelativeSelfAttention(nn.Module):
    """The results of the heads are put together by a reshape alone here, which mixes positions.
    Look at which axes have to change places first."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).reshape(x.shape))


# %% RelativeSelfAttention: the features of a head far apart
class RelativeSelfAttention(nn.Module):
    """A head takes every n_heads-th feature here. Look at which features belong to head k."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (d_head, n_heads)).permute(0, 3, 1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).permute(0, 2, 3, 1).flatten(2))


# %% RelativeSelfAttention: the full length alone
class RelativeSelfAttention(nn.Module):
    """A sequence shorter than `max_length` ends with an error here. Look at how many rows of
    `relative` are used, and at the axis on which they are counted."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[-n:]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: `relative` no parameter
class RelativeSelfAttention(nn.Module):
    """There is no parameter `relative` here. Look at its name, and at what makes a parameter of
    a tensor."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = torch.randn(n_heads, max_length, d_model // n_heads)

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: a mask that stays on the CPU
class RelativeSelfAttention(nn.Module):
    """On another device the layer ends with an error here. Look for a tensor that you make
    yourself, and that stays on the CPU."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: a score too large for float16
class RelativeSelfAttention(nn.Module):
    """float16 alone ends with an error here. Look at the numbers that you write yourself, such
    as the score of what is hidden: the largest one of float16 is 65504."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, -1e9).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %% RelativeSelfAttention: a batch of one without its axis
class RelativeSelfAttention(nn.Module):
    """The output for a batch of one has lost its first axis. Look at what happens to axes of
    size 1."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_model // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)).squeeze(0)
