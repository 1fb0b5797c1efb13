# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
import torch.nn.functional as F
from torch import Tensor


# %% rotary_embedding: the half-split form
# gpt-neox issue 834, labml issue 215
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Column i turns together with column i + d/2 here, as in GPT-NeoX and Llama. Look at which
    columns are a pair in the paper."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# %% rotary_embedding: the halves side by side
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The pairs are turned as they should, but all first members come first and all second ones
    after them. Look at where in the result the members of a pair stand."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# %% rotary_embedding: turned the other way
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Each pair turns clockwise here. Products of queries and keys do not show it, but the formula
    has the minus in the other row."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos + b * sin, b * cos - a * sin], dim=-1).flatten(-2)


# %% rotary_embedding: no minus sign
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """This is no rotation: it changes the length of a pair. Look at the signs in the two rows of
    the formula."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos + b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the new first member used for the second
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The second member of a pair is computed from the first one after it has been turned. Look at
    the order of your two assignments."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    a = a * cos - b * sin
    return torch.stack([a, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: half the exponent
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """From the second pair on the speeds are too high: they fall down to base^(−1/2) only. Look at
    the exponent, and at what i counts."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    pairs = torch.arange(d // 2, device=x.device).double()
    angles = positions.unsqueeze(1) * base ** (-pairs / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the exponent doubled
# SamLynnEvans issues 7 and 25 have it in the sinusoidal encoding.
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """From the second pair on the speeds are too low: they fall twice as fast as they should. Look
    at whether your index is i or already 2i."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = 2 * torch.arange(0, d, 2, device=x.device).double()
    angles = positions.unsqueeze(1) * base ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: pairs counted from −1
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The exponents are −2(i − 1)/d here while i begins at 0, so that the first speed is above 1. Look at
    where i begins: the paper counts from 1."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = 2 * (torch.arange(d // 2, device=x.device).double() - 1)
    angles = positions.unsqueeze(1) * base ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the exponent one too large
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The exponents are −(2i + 1)/d here: 2i + 1 is the second column of a pair. Look at which index both
    columns of a pair share."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = torch.arange(1, d, 2, device=x.device).double()
    angles = positions.unsqueeze(1) * base ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: pairs counted from 1
# The paper counts i from 1, and writes i − 1.
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The first pair is turned by base^(−2/d) for each position here, and not by 1. Look at where i begins in
    the exponent."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = torch.arange(2, d + 2, 2, device=x.device).double()
    angles = positions.unsqueeze(1) * base ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the base fixed
# CS336's tests know one base only, so it passes there.
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """This is right for base 10000 and gives the same for any other base. Look at what you do with
    that argument."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = torch.arange(0, d, 2, device=x.device).double()
    angles = positions.unsqueeze(1) * 10000.0 ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the positions ignored
# CS336's tests pass 0, 1, 2, … only; rotary-embedding-torch issue 11 has it with a cache.
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Row r is turned as if it stood at position r, whatever `positions` says. Look at which
    position a row has when one row at a time arrives."""
    n, d = x.shape[-2:]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    places = torch.arange(n, device=x.device)
    angles = places.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: positions counted from 1
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Every row is turned one step too far: position 0 should change nothing. Products of queries
    and keys do not show it; look at the first row."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    doubled = torch.arange(0, d, 2, device=x.device).double()
    angles = (positions + 1).unsqueeze(1) * base ** (-doubled / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: angles in the dtype of x
# vllm PR 1004
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """This is right in float32; in half precision, far positions have lost the digits of their
    angles. Look at the dtype in which positions and speeds are multiplied."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    speeds = (base ** (-torch.arange(0, d, 2, device=x.device).double() / d)).to(x.dtype)
    angles = positions.unsqueeze(1).to(x.dtype) * speeds
    a, b = x[..., 0::2], x[..., 1::2]
    turned = [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()]
    return torch.stack(turned, dim=-1).flatten(-2)


# %% rotary_embedding: always float32
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The numbers are right, but the result is float32 for every x. Look at the dtype that is asked
    for."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()]
    return torch.stack(turned, dim=-1).flatten(-2).float()


# %% rotary_embedding: turned in place
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """The numbers are right, but they are written into x itself, which its owner may still need.
    Look at where you assign to."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2].clone(), x[..., 1::2].clone()
    x[..., 0::2] = a * cos - b * sin
    x[..., 1::2] = a * sin + b * cos
    return x


# %% rotary_embedding: an odd d let through
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """This is right for an even d; for an odd one it leaves the last column as it is, where an
    error should be raised. Look at what the docstring says about it."""
    d = x.shape[-1] // 2 * 2
    doubled = torch.arange(0, d, 2, device=x.device).double()
    angles = positions.unsqueeze(1) * base ** (-doubled / x.shape[-1])
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0:d:2], x[..., 1:d:2]
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    return torch.cat([turned, x[..., d:]], dim=-1)


# %% rotary_embedding: float32 for half precision
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Half precision comes back as float32 here, which float32 and float64 do not show. Look at the
    dtype of a product of two dtypes."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: the angles of the half-split form
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Neighbouring columns meet as a pair here, but columns i and i + d/2 have one angle: two forms
    are mixed. Look at which columns of your sine and cosine belong together."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    angles = torch.cat([angles, angles], dim=-1)
    crossed = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * angles.cos().to(x.dtype) + crossed * angles.sin().to(x.dtype)


# %% rotary_embedding: speeds that grow
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Each pair turns faster here than the one before, not slower. Look at the sign of the
    exponent."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    angles = positions.unsqueeze(1) * base ** (torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: counted on from the first position
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Only the first row's position is used here, and the others are counted on from it. Look at
    positions that do not follow each other."""
    n, d = x.shape[-2:]
    if d % 2:
        raise ValueError(f"d is {d}, it must be even")
    places = positions[0] + torch.arange(n, device=x.device)
    angles = places.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: another error than a ValueError
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Where d is odd something other than a ValueError is raised here, by torch or by yourself.
    Look at what the docstring asks for."""
    d = x.shape[-1]
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.unflatten(-1, (d // 2, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% rotary_embedding: an odd d not thought of
def rotary_embedding(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """This is right for an even d. An odd one is not refused: 7 columns end in some other error,
    and of a single one nothing is left. Look at what the docstring says about it."""
    d = x.shape[-1]
    angles = positions.unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=x.device).double() / d)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


# %% alibi_bias: the formula for a power of two, always
# mlx issue 343, Baichuan2 issue 225, TensorRT-LLM PR 1611
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The slopes are 2^(−8k/h) for every number of heads here. Look at what holds where h is not a
    power of two."""
    slopes = torch.tensor([2 ** (-8 * k / n_heads) for k in range(1, n_heads + 1)])
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -slopes.view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: 8 heads assumed
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The slopes are 1/2, 1/4, 1/8, … for every number of heads, which is right for 8. Look at the
    h in the exponent."""
    slopes = torch.tensor([2.0**-k for k in range(1, n_heads + 1)])
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -slopes.view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: k from 0
# aprender PR 2143
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The first slope is 1 here, and all are one step too large. Look at where k begins."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(power)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(0, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: k from 0, the formula for a power of two always
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The first slope is 1 here, because k begins at 0, and the formula for a power of two is used for every
    number of heads. Look at where k begins, and then at the other numbers."""
    slopes = [2 ** (-8 * k / n_heads) for k in range(n_heads)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: k from 0, but not for the missing slopes
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The first slope is 1 here, because k begins at 0 for the power of two; the slopes that are missing are
    right. Look at where k begins."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(power)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: sorted
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The slopes are the right ones, but sorted by size. Look at the order in which the two lists
    are put together."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    slopes = sorted(slopes[:n_heads], reverse=True)
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: the next power of two, cut off
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Where h is no power of two, these are the first h slopes of the next larger one. Look at
    where the first of the slopes come from."""
    power = 2 ** math.ceil(math.log2(n_heads))
    slopes = torch.tensor([2 ** (-8 * k / power) for k in range(1, power + 1)])[:n_heads]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -slopes.view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: the missing slopes in a row
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The slopes that are missing are taken one after the other here, so some occur twice. Look at
    which ones of the next power of two are taken."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power + 1)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: the missing slopes from the 2nd on
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The slopes that are missing are the 2nd, 4th, … of the next power of two here, which are
    those that are there already. Look at where the slice begins."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(2, 2 * power + 1, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: distance rewarded
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Here a word gains by standing far away. Look at the sign of the bias."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: the future by its distance
# The form for encoders, which the authors describe in the issues of their code.
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Later keys are only penalised by their distance here, not forbidden. Look at what stands
    above the diagonal."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance.abs()


# %% alibi_bias: zeros above the diagonal
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Above the diagonal stands 0 here, the best that a key can have. Look at what has to be added
    to a score that must not count."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (-torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance).tril()


# %% alibi_bias: infinity times a mask
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """There is NaN at and below the diagonal: 0 times infinity is no number. Look at how −inf gets
    to its places."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias + (distance < 0) * -math.inf


# %% alibi_bias: distances from 1
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The own position is one step away here. Softmax does not show it, for it adds the same to
    every key; look at the diagonal all the same."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(1, n + 1).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 1, -math.inf)


# %% alibi_bias: float64
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The numbers are right, but the bias is float64. Look at the dtype that is asked for."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads], dtype=torch.float64).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: −10⁹ above the diagonal
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Above the diagonal stands −10⁹ here. Softmax hardly tells it from −∞, but it is another
    number; look at what is asked for."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -1e9)


# %% alibi_bias: the smallest number above the diagonal
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """Above the diagonal stands the most negative number of float32 here. Softmax hardly tells it
    from −∞, but it is finite; look at what is asked for."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, torch.finfo(bias.dtype).min)


# %% alibi_bias: counted from the first key
# The code of the paper
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """The bias is slope · j here, the same in every row. Softmax does not show it, for in each row
    it differs from the right one by the same for all keys; look at what stands on the diagonal."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    position = torch.arange(n)
    bias = (torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * position).repeat(1, n, 1)
    return bias.masked_fill(position.unsqueeze(1) < position, -math.inf)


# %% alibi_bias: an axis for the batch
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """There is an axis of size 1 in front of the heads here. Look at the shape that is asked
    for."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(1, -1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)


# %% alibi_bias: the own position forbidden
def alibi_bias(n_heads: int, n: int) -> Tensor:
    """−∞ stands on the diagonal, too, so that the first query may attend to nothing. Look at what
    holds for j = i."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = -torch.tensor(slopes[:n_heads]).view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 1, -math.inf)


# %% sliding_window_mask: one position too many
# Hugging Face issue 39408, vllm issue 3385
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A position sees window + 1 positions here: the window should count the position itself as one.
    Look at the first of the two inequalities in i − window < j ≤ i."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance <= window)


# %% sliding_window_mask: one position too few
# onnxruntime PR 25927
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A position sees window − 1 positions here, and none with window 1. Look at the first of the
    two inequalities in i − window < j ≤ i."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window - 1)


# %% sliding_window_mask: not itself
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The window lies wholly before the position, which does not see itself. Look at the second of
    the two inequalities in i − window < j ≤ i."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance > 0) & (distance <= window)


# %% sliding_window_mask: both sides
# The window of Longformer's encoder
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The window reaches to both sides here, so that a position sees later ones. Look at the
    second of the two inequalities in i − window < j ≤ i."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return distance.abs() < window


# %% sliding_window_mask: half the window on each side
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The window has the position in its middle here. Look at where it ends."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return distance.abs() <= window // 2


# %% sliding_window_mask: looking ahead
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The window begins at the position and reaches forward. Look at which axis counts queries and
    which one keys."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n) - torch.arange(n).unsqueeze(1)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: True means forbidden
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The mask is True where attention is forbidden. Look at what True means in this course."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance < 0) | (distance >= window)


# %% sliding_window_mask: large negative values to be added to scores
def sliding_window_mask(n: int, window: int) -> Tensor:
    """This is the mask as a term to add, with 0 and a large negative number. Look at what kind of mask this
    course uses."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    forbidden = (distance < 0) | (distance >= window)
    return torch.zeros(n, n).masked_fill(forbidden, -1e9)


# %% sliding_window_mask: values to be added to scores
def sliding_window_mask(n: int, window: int) -> Tensor:
    """This is the mask as a term to add, with 0 and −inf. Look at what kind of mask this course uses."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    forbidden = (distance < 0) | (distance >= window)
    return torch.zeros(n, n).masked_fill(forbidden, -math.inf)


# %% sliding_window_mask: blocks
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The positions are cut into blocks here, and each sees its own block up to itself. Look at
    what the first position of a block may see: a window slides."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    position = torch.arange(n)
    same_block = position.unsqueeze(1) // window == position // window
    return same_block & (position.unsqueeze(1) >= position)


# %% sliding_window_mask: only the past cut off
def sliding_window_mask(n: int, window: int) -> Tensor:
    """What lies too far back is forbidden, but nothing of what comes later. The formula has two
    inequalities; look at both."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return distance < window


# %% sliding_window_mask: every window accepted
def sliding_window_mask(n: int, window: int) -> Tensor:
    """With a window of 0 or less this gives a mask that allows nothing. Look at what the docstring
    asks for."""
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: negative windows accepted
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A window of 0 raises an error, a negative one does not. Look at which windows make sense."""
    if window == 0:
        raise ValueError("window is 0, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: zeros and ones
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The entries are right, but they are numbers, not booleans. Look at the dtype that is asked
    for: numbers would be added to the scores."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return ((distance >= 0) & (distance < window)).float()


# %% sliding_window_mask: an error that names nothing
def sliding_window_mask(n: int, window: int) -> Tensor:
    """The right error is raised, but its message does not name `window`. Look at what would help
    someone who reads it."""
    if window < 1:
        raise ValueError
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: an assertion instead of a ValueError
def sliding_window_mask(n: int, window: int) -> Tensor:
    """With a window of less than 1 something other than a ValueError is raised here. Look at which
    error is asked for; assertions are gone under `python -O`."""
    assert window >= 1, "window must be at least 1"
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: wide windows refused
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A window of more than n is an error here. Look at which windows should be refused; a wide one
    just cuts nothing off."""
    if window < 1 or window > n:
        raise ValueError(f"window is {window}, it must be between 1 and n = {n}")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: a window of 1 refused
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A window of 1 is an error here. Look at where the windows begin that make no sense, and at
    what a position sees with a window of 1."""
    if window <= 1:
        raise ValueError(f"window is {window}, it must be more than 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return (distance >= 0) & (distance < window)


# %% sliding_window_mask: the whole past
def sliding_window_mask(n: int, window: int) -> Tensor:
    """A position sees everything before it here, however far back: the window cuts nothing off.
    Look at the first of the two inequalities in i − window < j ≤ i."""
    if window < 1:
        raise ValueError(f"window is {window}, it must be at least 1")
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    return distance >= 0


# %% linear_attention: no denominator
# performer-pytorch issue 21
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The sums are not divided by anything here, so that outputs grow with the number of keys. Look
    at the denominator of the formula."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        return (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    return phi_query @ (phi_key.mT @ value)


# %% linear_attention: divided by the number of keys
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The sums are divided by the number of keys here, so that weights do not sum to 1. Look at the
    denominator of the formula."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        counts = torch.arange(1, key.shape[-2] + 1, device=key.device, dtype=key.dtype)
        return (phi_query.unsqueeze(-2) @ state).squeeze(-2) / counts.unsqueeze(-1)
    return phi_query @ (phi_key.mT @ value) / key.shape[-2]


# %% linear_attention: the n × m matrix
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The numbers are right, but this makes the n × m matrix of weights, so time and memory grow
    with n². Look at which two factors are multiplied first."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    weights = phi_query @ phi_key.mT
    if causal:
        weights = weights.tril()
    return (weights @ value) / weights.sum(dim=-1, keepdim=True)


# %% linear_attention: the n × n matrix where causal
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """This is right without `causal`; with it, the n × n matrix is made to mask it. Look at how sums
    up to the own position can be had without a mask."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        weights = (phi_query @ phi_key.mT).tril()
        return (weights @ value) / weights.sum(dim=-1, keepdim=True)
    total = phi_key.sum(dim=-2, keepdim=True)
    return phi_query @ (phi_key.mT @ value) / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: causal ignored
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` every position still sees all keys, those after it too. Look at how far the
    sums go."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    total = phi_key.sum(dim=-2, keepdim=True)
    return phi_query @ (phi_key.mT @ value) / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the whole denominator where causal
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the numerator is right, but the denominator counts all keys. Look at how far
    each of the two sums goes."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    total = phi_key.sum(dim=-2, keepdim=True)
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the running sum along the features
# flash-linear-attention PR 594, issue 850
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the sums run along the features and not along the positions. Look at which axis
    counts positions after the products have been made."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-2)
        total = phi_key.cumsum(dim=-1)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the running sum along the values
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the sums run along the last axis here, the features of the values. Look at which axis
    counts positions after the products have been made."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-1)
        total = phi_key.cumsum(dim=-1)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the denominator's running sum along d
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the sums of the denominator run along the features, though those of the products are right.
    Look at which axis of the keys counts positions."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-1)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the running sum along d for the products alone
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the products of keys and values are summed along the features, though the denominator is
    right. Look at which axis counts positions after the products have been made."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-2)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the running sum along the first axis
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the sums run along the first axis here, which counts positions only where there is no batch.
    Look at which axis counts positions, seen from the end."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=0)
        total = phi_key.cumsum(dim=0)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: not its own key
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` a position sees the keys before it, but not its own; the first one sees none.
    Look at whether a position adds to the sums before or after it reads from them."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        products = phi_key.unsqueeze(-1) * value.unsqueeze(-2)
        state = products.cumsum(dim=-3) - products
        total = phi_key.cumsum(dim=-2) - phi_key
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / ((phi_query * total).sum(dim=-1, keepdim=True) + 1e-6)


# %% linear_attention: elu without the 1
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The features may be negative here, so weights may be negative too, and the denominator near
    0. Look at φ."""
    phi_query, phi_key = F.elu(query), F.elu(key)
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: relu in place of elu
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """All negative entries count alike here, as with relu(x) + 1. Look at φ below 0."""
    phi_query, phi_key = query.relu() + 1, key.relu() + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: the exponential as φ
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """φ is the exponential everywhere here. Look at φ above 0."""
    phi_query, phi_key = query.exp(), key.exp()
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: φ of the values, too
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """φ is applied to the values, too, so no output is ever negative. Look at what φ is for."""
    phi_query, phi_key, value = F.elu(query) + 1, F.elu(key) + 1, F.elu(value) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: queries scaled
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Queries are divided by √d before φ, as if there were a softmax to protect. Look at the
    formula."""
    phi_query, phi_key = F.elu(query / math.sqrt(query.shape[-1])) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: a large ε
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """This is right where the denominator is large; where φ is small, what you add to it pulls the
    outputs towards 0. Look at how large an ε is allowed."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / ((phi_query * total).sum(dim=-1, keepdim=True) + 1e-2)


# %% linear_attention: NaN in the gradient of large entries
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The outputs are right, but the gradient of large entries is NaN: the branch that is not taken
    overflows, and its gradient is multiplied by 0. Look at what you exponentiate."""
    phi_query = torch.where(query > 0, query + 1, query.exp())
    phi_key = torch.where(key > 0, key + 1, key.exp())
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: always float32
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The numbers are right, but the result is float32 for every input. Look at the dtype of what
    you return."""
    phi_query, phi_key, value = F.elu(query.float()) + 1, F.elu(key.float()) + 1, value.float()
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: no gradient where causal
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The outputs are right, but with `causal` there are no gradients: what the backward pass needs
    was overwritten, or cut off from it. Look for operations that work in place, such as `+=`."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if not causal:
        total = phi_key.sum(dim=-2, keepdim=True)
        return phi_query @ (phi_key.mT @ value) / (phi_query * total).sum(dim=-1, keepdim=True)
    with_ones = F.pad(value, (0, 1), value=1.0)  # the last column of the state is the denominator
    state = torch.zeros_like(phi_key[..., :1, :].mT @ with_ones[..., :1, :])
    reads = []
    for q, k, v in zip(*(x.split(1, dim=-2) for x in (phi_query, phi_key, with_ones)), strict=True):
        state += k.mT @ v
        reads.append(q @ state)
    read = torch.cat(reads, dim=-2)
    return read[..., :-1] / read[..., -1:]


# %% linear_attention: the n × m matrix without causal
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """This is right with `causal`; without it, the n × m matrix of weights is made. Look at which
    two factors are multiplied first."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if not causal:
        weights = phi_query @ phi_key.mT
        return (weights @ value) / weights.sum(dim=-1, keepdim=True)
    state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
    read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    return read / (phi_query * phi_key.cumsum(dim=-2)).sum(dim=-1, keepdim=True)


# %% linear_attention: one leading axis assumed
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """With `causal` the sums run along the second axis here. It counts positions where there is
    exactly one leading axis, and something else with none or two. Look at which end you count axes
    from."""
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=1)
        total = phi_key.cumsum(dim=1)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: φ of the keys only
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """φ is applied to the keys but not to the queries here, so that weights may be negative. Look
    at both factors of a weight."""
    phi_query, phi_key = query, F.elu(key) + 1
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% linear_attention: elu of x + 1
def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """The 1 is added before elu here, and not to its result. Look at φ, and at its bracket."""
    phi_query, phi_key = F.elu(query + 1), F.elu(key + 1)
    if causal:
        state = (phi_key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        total = phi_key.sum(dim=-2, keepdim=True)
        read = phi_query @ (phi_key.mT @ value)
    return read / (phi_query * total).sum(dim=-1, keepdim=True)


# %% grouped_query_attention: groups in turns
# candle-vllm PR 52, VeOmni PR 162
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The key heads are dealt out in turns here, 0 1 0 1 …. Look at which query heads share a key
    head, and at how your way of repeating orders its copies."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = key.repeat(1, h // g, 1, 1), value.repeat(1, h // g, 1, 1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: values in turns
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Each query head compares with the right key head and then reads the values of another. Look
    at whether keys and values are repeated in the same order."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = key.repeat_interleave(h // g, dim=1), value.repeat(1, h // g, 1, 1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: the first key head for all
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """All query heads read key head 0 here, as if g were 1. Look at what happens to the other key
    heads."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = key[:, :1].expand(-1, h, -1, -1), value[:, :1].expand(-1, h, -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: the mean of the key heads
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """All query heads share the mean of the key heads here. That is how a trained model is turned
    into one with fewer key heads; look at what each query head reads in this one."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.mean(dim=1, keepdim=True).expand(-1, h, -1, -1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: scaled by the width of the values
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Scores are divided by √d_v here, which shows where d_v is not d. Look at the width that
    belongs to the product of query and key."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scale = 1 / math.sqrt(value.shape[-1])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


# %% grouped_query_attention: not scaled
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Scores are the bare products here. Look at what they are divided by."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)


# %% grouped_query_attention: scaled by the number of heads
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are divided by the root of the number of heads here. Look at how many features a query and a
    key have."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=h**-0.5)


# %% grouped_query_attention: the mask ignored
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Every query sees every key, whatever the mask says. Look at where your mask goes."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value)


# %% grouped_query_attention: the mask upside down
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Queries see what the mask forbids, and nothing else. Look at what True means."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    mask = None if mask is None else ~mask
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: the mask upside down, with −inf
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Queries see what the mask forbids, and where it forbids nothing the result is NaN: the scores of the
    allowed keys were set to −inf. Look at what True means."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    return scores.softmax(dim=-1) @ value


# %% grouped_query_attention: the mask after the softmax
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Weights are put to 0 after the softmax here, so that those of a query no longer sum to 1.
    Look at where the mask has to act."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value


# %% grouped_query_attention: a group has the mask of its first head
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """All query heads of a group get the mask of the first of them. Look at a mask that differs
    from query head to query head."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    if mask is not None and mask.dim() == 4 and mask.shape[1] == h:
        mask = mask[:, :: h // g].repeat_interleave(h // g, dim=1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: NaN where nothing is allowed
# pytorch issues 24816 and 103749
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """A query that may attend to nothing gets NaN here: its softmax divides 0 by 0. Look at such a
    row of scores before the softmax."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1) @ value


# %% grouped_query_attention: NaN in the gradient where nothing is allowed
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The output is right, but where a query may attend to nothing the gradient is NaN: what was
    replaced afterwards comes back in the backward pass. Look at the softmax of such a row."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    return (scores.softmax(dim=-1) @ value).nan_to_num(0.0)


# %% grouped_query_attention: a mean where nothing is allowed
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """A query that may attend to nothing gets the mean of all values here: where all scores are
    equally bad, softmax shares out evenly. Look at what such a query should get."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ value


# %% grouped_query_attention: groups of unequal size
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """This is right where h is a multiple of g; elsewhere it makes groups of unequal size without a
    word. Look at what the docstring asks for."""
    h, g = query.shape[1], key.shape[1]
    reads = torch.arange(h, device=query.device) * g // h
    key, value = key[:, reads], value[:, reads]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: another error than a ValueError
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Where h is not a multiple of g something other than a ValueError is raised here, by torch or
    by yourself. Look at what the docstring asks for; it can be checked at the start."""
    h, g = query.shape[1], key.shape[1]
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# %% grouped_query_attention: no mask by query head
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """A mask that differs from query head to query head does not fit here, and fails. Look at its
    axis of h heads, and at what became of that axis in the scores."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    query = query.unflatten(1, (g, h // g))
    scores = query @ key.unsqueeze(2).mT / math.sqrt(query.shape[-1])
    if mask is None:
        return (scores.softmax(dim=-1) @ value.unsqueeze(2)).flatten(1, 2)
    mask = mask.unsqueeze(2) if mask.dim() == 4 else mask
    allowed = mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask & allowed, -math.inf)
    weights = scores.softmax(dim=-1).masked_fill(~allowed, 0.0)
    return (weights @ value.unsqueeze(2)).flatten(1, 2)


# %% grouped_query_attention: forbidden scores of 0
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores of forbidden keys are 0 before the softmax here, an ordinary score that still gets
    a weight. Look at what softmax makes of 0."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, 0.0)
    return scores.softmax(dim=-1) @ value


# %% grouped_query_attention: the mask added to the scores
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores of allowed keys are larger by 1 here, and nothing is forbidden: True was added as
    the number 1. Look at what a boolean mask should do to a score."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1) @ value


# %% grouped_query_attention: heads put back in another order
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The outputs are right, but the heads stand in another order: first the first head of every
    group, then the second ones. Look at the order of the two axes when they become one again."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of g = {g}")
    key, value = (x.repeat_interleave(h // g, dim=1) for x in (key, value))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.unflatten(1, (g, h // g)).transpose(1, 2).flatten(1, 2)


# %% grouped_query_attention: axes of size 1 removed
def grouped_query_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, no multiple of the g = {g} heads of key")
    key, value = (heads.repeat_interleave(h // g, dim=1) for heads in (key, value))
    empty = torch.zeros(1, 1, dtype=torch.bool, device=query.device)
    if mask is not None:
        empty = ~mask.any(dim=-1, keepdim=True)
        mask = mask | empty
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.masked_fill(empty, 0.0).squeeze()


# %% sliding_window_mask: a table of a fixed size
def sliding_window_mask(n: int, window: int) -> Tensor:
    """This is cut from a table of a fixed size, and is too small where n is larger. Look at what the
    size of your table depends on."""
    if window < 1:
        raise ValueError(f"window must be at least 1, it is {window}")
    i, j = torch.arange(128).unsqueeze(1), torch.arange(128)
    return ((i - window < j) & (j <= i))[:n, :n]
