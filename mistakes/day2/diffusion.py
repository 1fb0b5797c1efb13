# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% cosine_schedule: f in the place of the product
def cosine_schedule(n_steps: int) -> Tensor:
    """This is f itself. It begins a little below 1 and ends at 0, and no β was cut off. Look at how
    ᾱ is made from the β, and at what ᾱ(0) should be."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return f.float()


# %% cosine_schedule: β not cut off
def cosine_schedule(n_steps: int) -> Tensor:
    """The end of ᾱ is not what a last β of 0.999 leaves. Without the minimum β would be 1 there and
    ᾱ 0, and what is divided by its root later explodes: look at the minimum in the formula of β,
    and at its number."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = 1 - f[1:] / f[:-1]
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: cut off at 0.99
def cosine_schedule(n_steps: int) -> Tensor:
    """β is cut off at another number than 0.999 here: a hundredth is left at the last step. Look at
    the formula of β."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.99)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: ᾱ(0) left out
def cosine_schedule(n_steps: int) -> Tensor:
    """There are n_steps values here, which begin with ᾱ(1). Look at the length that is asked for,
    and at which value stands before the first step."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - beta, dim=0).float()


# %% cosine_schedule: β in the place of ᾱ
def cosine_schedule(n_steps: int) -> Tensor:
    """These are the β with a number in front, not what is left of the picture after all steps up to
    t. Look at the product."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(beta, (1, 0), value=1.0).float()


# %% cosine_schedule: α without the product
def cosine_schedule(n_steps: int) -> Tensor:
    """Each value says what its own step keeps, 1 − β, and not what all steps up to it keep
    together. Look at the product in the definition of ᾱ."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(1 - beta, (1, 0), value=1.0).float()


# %% cosine_schedule: without the offset
def cosine_schedule(n_steps: int) -> Tensor:
    """The schedule has no 0.008 here. Look at the angle in the formula: it does not begin at 0."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos(t / n_steps * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: the offset divided alone
def cosine_schedule(n_steps: int) -> Tensor:
    """Only the 0.008 is divided by 1.008 here. Look at what stands under the fraction's bar with
    it, and where Python's precedence needs a bracket."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008 / 1.008) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: the cosine not squared
def cosine_schedule(n_steps: int) -> Tensor:
    """f is the cosine here, not its square. Look at the exponent."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2)
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: n_steps + 1 in the fraction
def cosine_schedule(n_steps: int) -> Tensor:
    """t is divided by the number of values here, not by the number of steps. Look at what t/n_steps
    is at the last step."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / (n_steps + 1) + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: π for π/2
def cosine_schedule(n_steps: int) -> Tensor:
    """The angle runs to π here. Look at the factor behind it, and at what the cosine should be at
    the end."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(min=0.0, max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: the linear schedule
def cosine_schedule(n_steps: int) -> Tensor:
    """β grows evenly from 0.0001 to 0.02 here. That is the schedule of the first diffusion models
    (Ho et al. 2020); look at the one that is asked for."""
    beta = torch.linspace(1e-4, 0.02, n_steps, dtype=torch.float64)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: computed in float32
def cosine_schedule(n_steps: int) -> Tensor:
    """With many steps the last values are off by more than a thousandth of themselves: in float32
    the cosine near π/2 has few digits left. Look at the type of t."""
    t = torch.arange(n_steps + 1)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: float64
def cosine_schedule(n_steps: int) -> Tensor:
    """The values are right, but the result is float64. Look at the type that is asked for."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0)


# %% cosine_schedule: β not below 0.0001
def cosine_schedule(n_steps: int) -> Tensor:
    """With very many steps ᾱ falls too fast here: β is kept from being smaller than 0.0001. Look at
    which ends the formula of β has."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(min=0.0001, max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: the two ends of a tutorial
# "The Annotated Diffusion Model", a tutorial of Hugging Face
def cosine_schedule(n_steps: int) -> Tensor:
    """β is at least 0.0001 here, and may come closer to 1 than 0.999; a much copied tutorial keeps
    it between 0.0001 and 0.9999. Look at the formula of β: has it a lower end, and where is the
    upper one?"""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(min=0.0001, max=0.9999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: not divided by 1.008
def cosine_schedule(n_steps: int) -> Tensor:
    """The angle goes past π/2 here, by the 0.008 that was added to t/n_steps. Look at what this sum
    is divided by."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return F.pad(torch.cumprod(1 - beta, dim=0), (1, 0), value=1.0).float()


# %% cosine_schedule: ᾱ kept above 0.001
def cosine_schedule(n_steps: int) -> Tensor:
    """ᾱ itself is kept from falling below 0.001 here. Look at which number the minimum in the
    formula belongs to, and at what is left after a last step of 0.999."""
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return (f / f[0]).clamp(min=0.001).float()


# %% add_noise: without the roots
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Picture and noise are weighed by ᾱ and 1 − ᾱ here. Look at the roots: ᾱ is a share of the
    variance, not of the values."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept * x0 + (1 - kept) * noise).to(x0.dtype)


# %% add_noise: the noise without its root
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture is weighed by a root and the noise is not. Look at the second factor: the squares
    of the two should add up to 1."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept) * noise).to(x0.dtype)


# %% add_noise: 1 − √ᾱ
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise is weighed by 1 − √ᾱ here, so that the two factors, not their squares, add up to 1.
    Look at what stands under the second root."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept.sqrt()) * noise).to(x0.dtype)


# %% add_noise: picture and noise the wrong way round
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture fades in here as t grows, and the noise fades out. Look at which of the two has
    √ᾱ."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return ((1 - kept).sqrt() * x0 + kept.sqrt() * noise).to(x0.dtype)


# %% add_noise: the picture not shrunk
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noise is added to the whole picture here, whose size then grows with t. Look at the factor of
    x0."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: one step for all rows
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """All rows get the noise of the first row's step here. Look at how many numbers t holds."""
    kept = alpha_bar[t[0]]
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: the largest step for all rows
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Every row gets the noise of the largest t of the batch here. Look at how ᾱ is taken out for each
    row."""
    kept = alpha_bar[t.max()]
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: one step too early
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Row by row this is the noise of step t − 1. Look at where ᾱ(0) stands in `alpha_bar`."""
    kept = alpha_bar[t - 1].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: noise of its own
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """New noise is drawn here, and the argument `noise` is not used. Look at what the function is given."""
    noise = torch.randn_like(x0)
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: √(1 − ᾱ²)
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The two factors are ᾱ and √(1 − ᾱ²) here. Look at where the roots stand in the formula: the squares of
    the two factors are ᾱ and 1 − ᾱ."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept * x0 + (1 - kept.square()).sqrt() * noise).to(x0.dtype)


# %% add_noise: the root of ᾱ over both
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Picture and noise are both multiplied by √ᾱ here. Look at which of the two terms this factor
    belongs to."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * (x0 + (1 - kept).sqrt() * noise)).to(x0.dtype)


# %% add_noise: the noise not shrunk
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """All of the noise is added here, at every step. Look at the factor of the noise: it belongs to ᾱ, as
    that of the picture does."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + noise).to(x0.dtype)


# %% add_noise: the noise subtracted
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise is subtracted here. Look at the sign of the second term."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 - (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: α in the place of ᾱ
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """These are the factors of a single step: ᾱ was divided by the one before it. Look at what `alpha_bar`
    holds: the product over all steps up to t."""
    alpha = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
    kept = alpha[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: the picture without its root
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture is multiplied by ᾱ here, and not by its root. Look at both factors of the formula."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: one step too early, but at 0
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Row by row this is the noise of step t − 1, and at step 0 that of step 0. Look at where ᾱ(0) stands in
    `alpha_bar`."""
    kept = alpha_bar[(t - 1).clamp(min=0)].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: one step too late, but at the end
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Row by row this is the noise of step t + 1, and at the last step that of the last one. Look at where
    ᾱ(0) stands in `alpha_bar`."""
    kept = alpha_bar[(t + 1).clamp(max=len(alpha_bar) - 1)].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: one step too late
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Row by row this is the noise of step t + 1, and there is none after the last one. Look at where ᾱ(0)
    stands in `alpha_bar`."""
    kept = alpha_bar[t + 1].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: ᾱ along the last axis
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Each column has its own ᾱ here, not each row; where the sizes differ this does not even run.
    Look at which axes broadcasting puts together."""
    kept = alpha_bar[t]
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: for pictures only
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """ᾱ gets three further axes here whatever x0 has, which is right for b × c × H × W alone. Look
    at how the number of axes of x0 can be asked."""
    kept = alpha_bar[t].reshape(-1, 1, 1, 1)
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: the dtype of ᾱ
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Half-precision pictures come back as float32 here, because ᾱ is float32. Look at the dtype of
    the sum."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


# %% add_noise: changes x0
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The result is right, but the caller's pictures are noisy afterwards. Look for an operation
    that works in place."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    factor = kept.sqrt().to(x0.dtype)
    with torch.no_grad():
        x0 *= factor
    return (x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: no gradients
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The values are right, but no gradient flows back to the pictures. Look for what switches
    gradients off."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    with torch.no_grad():
        return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: the product taken once more
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The entries of `alpha_bar` are multiplied up to t here, though each of them is such a product
    already. Look at what the bar stands for."""
    kept = alpha_bar.cumprod(dim=0)[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: √(1 − √ᾱ)
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise is weighed by √(1 − √ᾱ) here, as if the first root were the new ᾱ. Look at what
    stands under the second root."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1)).sqrt()
    return (kept * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


# %% add_noise: divided by √ᾱ
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The right result is divided by √ᾱ here, so that the picture keeps its size and the noise
    grows beyond it. Look at the factor of x0."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (x0 + ((1 - kept) / kept).sqrt() * noise).to(x0.dtype)


# %% timestep_embedding: sines first
# DiT issue 78, diffusers issue 3981
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The sines stand in the first half here and the cosines in the second. Look at the order in
    the formula."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: sines first, an odd width cut short
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The sines come first here, and for an odd d_model a column is missing. Look at which half holds the
    cosines, and at what an odd width ends with."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


# %% timestep_embedding: interleaved
# hojonathanho/diffusion issue 15, the HF blog issue 2183
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """Cosines and sines alternate here, as in a positional encoding. Look at where the halves
    begin."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: half − 1 below the line
# hojonathanho/diffusion issue 15: the form of tensor2tensor
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The slowest frequency is exactly 1/10000 here, because the exponent was divided by half − 1.
    Look at the denominator of the exponent."""
    half = d_model // 2
    frequencies = 10000 ** (
        -torch.arange(half, dtype=torch.float64, device=t.device) / max(half - 1, 1)
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: sines first, and half − 1 below the line
# hojonathanho/diffusion, nn.py
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The sines come first here, and the exponent is divided by half − 1, which is 0 for a d_model of 2 or 3.
    This is the form of another paper's code. Look at the order of the halves and at the
    denominator."""
    half = d_model // 2
    frequencies = 10000 ** (
        -torch.arange(half, dtype=torch.float64, device=t.device) * (1 / (half - 1))
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: half − 1 below the line, and no width of 2 or 3
# The form of tensor2tensor and DDPM.
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The exponent is divided by half − 1 here: the slowest frequency is exactly 1/10000, and for a d_model of
    2 or 3 the divisor is 0. Look at the denominator of the exponent."""
    half = d_model // 2
    frequencies = 10000 ** (
        -torch.arange(half, dtype=torch.float64, device=t.device) * (1 / (half - 1))
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: d_model below the line
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The frequencies fall half as fast here as they should, down to 1/100. Look at whether d_model
    or its half stands in the exponent."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / d_model)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: d_model/2 for an odd width
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """For an odd d_model the frequencies are slightly off: they were made with d_model/2, and not
    with its whole part. Look at how half is defined."""
    half = d_model // 2
    frequencies = 10000 ** (
        -torch.arange(half, dtype=torch.float64, device=t.device) / (d_model / 2)
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: base 1000
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The frequencies fall towards 1/1000 here. Look at the base of the power."""
    half = d_model // 2
    frequencies = 1000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: the exponent doubled
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The frequencies fall twice as fast here as they should: 2i stands in the exponent where i was
    asked for. Look at what half already contains."""
    half = d_model // 2
    frequencies = 10000 ** (-2 * torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: multiplied instead of divided
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The frequencies grow from column to column here. Look at the sign in the exponent."""
    half = d_model // 2
    frequencies = 10000 ** (torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: an odd width cut short
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """An odd d_model gives one column too few here. Look at what should stand in the last one."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return table


# %% timestep_embedding: a cosine more for an odd width
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """An odd d_model gets one more cosine here instead of a zero. Look at what the last column
    should hold."""
    half = (d_model + 1) // 2
    frequencies = 10000 ** (
        -torch.arange(half, dtype=torch.float64, device=t.device) / max(d_model // 2, 1)
    )
    angles = t.double().unsqueeze(1) * frequencies
    waves = [angles.cos(), angles.sin()[:, : d_model // 2]]
    return torch.cat(waves, dim=1).float()


# %% timestep_embedding: the zero in front
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """For an odd d_model the column of zeros stands before the others here. Look at which end it
    belongs to."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (d_model % 2, 0))


# %% timestep_embedding: whole steps only
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """A step between two whole ones is cut down to the one below here. Look at the types that t may
    have."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.long().double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: in the dtype of t
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The result has the dtype of a floating t here. Look at the type that is asked for, whatever t
    is."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    table = F.pad(table, (0, d_model % 2))
    return table.to(t.dtype) if t.is_floating_point() else table


# %% timestep_embedding: one column not thought of
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """With d_model 1 this fails: there is no frequency then, and nothing can be divided by their
    number. Look at the smallest width that is allowed."""
    half = d_model // 2
    frequencies = torch.exp(
        -torch.arange(half, dtype=torch.float64, device=t.device) * (math.log(10000) / half)
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: frequencies in half precision
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The frequencies were rounded to half precision here, which shows in the angles of large
    steps. Look at the types on the way."""
    half = d_model // 2
    frequencies = (
        (10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half))
        .half()
        .double()
    )
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: frequencies on the CPU
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The numbers are right, but tensors of two devices meet here where t is not on the CPU. Look
    at where your own tensors are made."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: i from 1
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """Each frequency here is the one that belongs to the next column: the last is 1/10000, and none
    is 1. Look at where i begins."""
    half = d_model // 2
    i = torch.arange(1, half + 1, dtype=torch.float64, device=t.device)
    angles = t.double().unsqueeze(1) * 10000 ** (-i / half)
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: always float64
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The values are right, but the result is float64. Look at the type that is asked for, whatever
    was used on the way."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(table, (0, d_model % 2))


# %% timestep_embedding: no column for d_model 1
# The code of DiT
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """With d_model 1 the result has no column at all here. Look at what your column of zeros is
    made from when there is no frequency."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return torch.cat([table, torch.zeros_like(table[:, :1])], dim=1) if d_model % 2 else table


# %% timestep_embedding: angles in half precision
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The result is float32 and right for most t, but for a t in half precision the angles are
    rounded to half precision, too. Look at the type of t before the product."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    if t.is_floating_point():
        frequencies = frequencies.to(t.dtype)
    angles = t.unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))


# %% DiTBlock: not zero at the start
# F5-TTS issue 793, DDT issue 14
class DiTBlock(nn.Module):
    """The block changes its input before it has learned anything here, because `modulation` starts
    with random numbers. Look at what Zero in adaLN-Zero stands for."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: only the gates zero at the start
# DiT issue 82
class DiTBlock(nn.Module):
    """The block is the identity at the start here, but shift and scale are random then. Look at
    which rows of `modulation` start at zero: all of them."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        for part in (2, 5):
            rows = slice(part * d_model, (part + 1) * d_model)
            nn.init.zeros_(self.modulation.weight[rows])
            nn.init.zeros_(self.modulation.bias[rows])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: scale before shift
class DiTBlock(nn.Module):
    """The first of the six is taken for the scale here and the second for the shift. Look at the
    order in the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        scale1, shift1, gate1, scale2, shift2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: gate first
class DiTBlock(nn.Module):
    """The first of the six is taken for the gate here, then come shift and scale. Look at the order
    in the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        gate1, shift1, scale1, gate2, shift2, scale2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: in pairs
class DiTBlock(nn.Module):
    """The six are read here as both shifts, both scales, both gates. Look at the order: first all
    three for the attention."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, shift2, scale1, scale2, gate1, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: interleaved
class DiTBlock(nn.Module):
    """The six numbers of each feature lie side by side here. Look at how the output of `modulation`
    is cut: into six blocks of d_model."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.unflatten(-1, (-1, 6)).unbind(-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: scale without the 1
class DiTBlock(nn.Module):
    """The normalised values are multiplied by the scale alone here, so that a scale of 0 wipes them
    out. Look at what stands in the bracket beside it."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * scale1 + shift1)
        hidden = self.linear1(self.norm(x) * scale2 + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: 1 + gate
class DiTBlock(nn.Module):
    """The gates are 1 + gate here, so that the block is not closed at the start. Look at which of
    the six has a 1 beside it."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + (1 + gate1) * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + (1 + gate2) * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: shifted before scaled
class DiTBlock(nn.Module):
    """The shift is added before the scale multiplies here, and is scaled with the rest. Look at the
    brackets in the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention((self.norm(x) + shift1) * (1 + scale1))
        hidden = self.linear1((self.norm(x) + shift2) * (1 + scale2))
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: no silu
class DiTBlock(nn.Module):
    """The condition goes to `modulation` as it is here. Look at what it passes before."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(condition).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: silu after the modulation
class DiTBlock(nn.Module):
    """silu acts on what `modulation` returns here. Look at what it should act on."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = F.silu(self.modulation(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: the condition of the first row
class DiTBlock(nn.Module):
    """All rows are set by the condition of the first one here. Look at which axis of the condition
    counts rows."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition[:1])).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: norms that learn
class DiTBlock(nn.Module):
    """The norms have parameters of their own here. Look at who provides scale and shift in this
    block."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: eps 1e-5
class DiTBlock(nn.Module):
    """The norms have torch's own eps of 1e-5 here. Look at the eps that is asked for; small numbers
    show it."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: the exact GELU
class DiTBlock(nn.Module):
    """The network uses torch's default GELU here. Look at the form that is asked for; the two
    differ in the fourth digit."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden))


# %% DiTBlock: relu
class DiTBlock(nn.Module):
    """The network uses relu here. Look at what stands between the linear maps."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(hidden.relu())


# %% DiTBlock: both steps from x
class DiTBlock(nn.Module):
    """The network reads what came into the block here, not what left the attention. Look at the
    second formula: x has changed by then."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        attended = gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + attended + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: the first gate twice
class DiTBlock(nn.Module):
    """The gate of the attention is used for the network as well here. Look at the sixth of the
    six."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, _ = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate1 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: the network not normalised
class DiTBlock(nn.Module):
    """The network reads x without a norm here. Look at what stands inside of both steps."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(x * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: no residual in the second step
class DiTBlock(nn.Module):
    """The result of the network replaces x here instead of being added to it. Look at the second
    formula, and at what is left when the gate is closed."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: modulation under another name
class DiTBlock(nn.Module):
    """There is no parameter `modulation.weight` here, so that weights can not be copied in. Look at
    the names in `named_parameters()`: `modulation` should be the linear map itself, and what else
    is put into it changes its names."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(d_model, 6 * d_model))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(condition).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: changes x
class DiTBlock(nn.Module):
    """The values are right, but the caller's x is another one afterwards, and there are no
    gradients. Look for an operation that works in place."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x += gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        x += gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))
        return x


# %% DiTBlock: no second gate
class DiTBlock(nn.Module):
    """What the network gives is added without a gate here. Look at the sixth of the six."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, _ = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: no axis for the patches
class DiTBlock(nn.Module):
    """This is right for a single picture and for no larger batch: shift, scale and gate have no axis
    for the patches, so that pictures are taken for patches. Look at the shapes of x and condition."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition))
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% DiTBlock: unbiased variance
class DiTBlock(nn.Module):
    """The norm divides by the unbiased standard deviation here, as `std` and `var` give it unless
    they are told otherwise. Look at whether the squares are divided by d or by d − 1."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def norm(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        six = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))


# %% guided_noise: scale counted from 0
# classifier_free_ddim issue 1, DiT issue 107
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """This begins from the prediction with labels, so that a scale of 0 is the conditional one and
    1 already goes beyond it: the w of Ho and Salimans. Look at where the formula begins."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return conditional + scale * (conditional - unconditional)


# %% guided_noise: away from the label
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The difference is taken the wrong way round here, and guidance leads away from the label.
    Look at what is subtracted from what."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (unconditional - conditional)


# %% guided_noise: the two mixed up
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Scale 1 gives the prediction without labels here, and 0 the one with them. Look at which of
    the two stands alone."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return conditional + scale * (unconditional - conditional)


# %% guided_noise: without the null label
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """This is the prediction with labels, times the scale. Look at what the prediction without
    labels is for."""
    conditional = model(x, t, labels)
    return scale * conditional


# %% guided_noise: only the difference
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The prediction without labels is missing in the sum here; only the scaled difference is left.
    Look at the first term."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return scale * (conditional - unconditional)


# %% guided_noise: null label 0
# DALLE2-pytorch issue 47, diffusers issue 13616
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The label 0 stands for no label here, whatever `null_label` says. Look at the last
    argument."""
    null = torch.zeros_like(labels)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: null label −1
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The label −1 stands for no label here, whatever `null_label` says. Look at the last
    argument."""
    null = torch.full_like(labels, -1)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: one more than the largest label
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The label after the largest one of the batch stands for no label here. Look at the last
    argument: the batch need not hold all labels."""
    null = torch.full_like(labels, int(labels.max()) + 1)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: guided from scale 1 on
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """A scale below 1 gives the plain conditional prediction here. Look at the formula: it holds
    for every scale, also below 0."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    if scale < 1:
        return conditional
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: scale 0 taken for none
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """A scale of 0 gives the prediction with labels here, as if no guidance were asked for. Look at
    what 0 gives in the formula."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    if not scale:
        return conditional
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: three channels only
# DiT issue 41 and PR 12, Open-Sora issue 188
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Only the first three channels are guided here, the others keep the prediction with labels.
    Look at which part of the prediction is noise: all of it."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    guided = unconditional + scale * (conditional - unconditional)
    if x.dim() < 3:
        return guided
    return torch.cat([guided[:, :3], conditional[:, 3:]], dim=1)


# %% guided_noise: unguided channels without labels
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Only the first three channels are guided here, the others keep the prediction without labels. Look at
    which part of the prediction is noise: all of it."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    guided = unconditional + scale * (conditional - unconditional)
    if x.dim() < 2:
        return guided
    return torch.cat([guided[:, :3], unconditional[:, 3:]], dim=1)


# %% guided_noise: the first three of any axis only
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Only the first three entries of the second axis are guided here, the others keep the prediction with
    labels. Look at which part of the prediction is noise: all of it."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    guided = unconditional + scale * (conditional - unconditional)
    if x.dim() < 2:
        return guided
    return torch.cat([guided[:, :3], conditional[:, 3:]], dim=1)


# %% guided_noise: half of the channels only
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Only the first half of the channels is guided here, the others keep the prediction with labels. Look at
    which part of the prediction is noise: all of it."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    guided = unconditional + scale * (conditional - unconditional)
    if x.dim() < 2:
        return guided
    half = x.shape[1] // 2
    return torch.cat([guided[:, :half], conditional[:, half:]], dim=1)


# %% guided_noise: the first channel only
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """Only the first channel is guided here, the others keep the prediction with labels. Look at which part
    of the prediction is noise: all of it."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    guided = unconditional + scale * (conditional - unconditional)
    if x.dim() < 2:
        return guided
    return torch.cat([guided[:, :1], conditional[:, 1:]], dim=1)


# %% guided_noise: rows doubled in another order
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """x and t were doubled row by row here, but the labels as a whole, so that rows meet the labels
    of others. Look at the order in which each of the three is joined."""
    null = torch.full_like(labels, null_label)
    both = torch.cat([labels, null])
    predicted = model(x.repeat_interleave(2, dim=0), t.repeat_interleave(2), both)
    conditional, unconditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: the step of the first row
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """All rows are taken to be at the step of the first one here. Look at how many numbers t
    holds."""
    null = torch.full_like(labels, null_label)
    t = t[:1].expand_as(t).contiguous()
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: no gradient without labels
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The prediction without labels is cut off from the gradients here. Look for what switches them
    off."""
    null = torch.full_like(labels, null_label)
    conditional = model(x, t, labels)
    with torch.no_grad():
        unconditional = model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: run three times
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The model is run more often here than two predictions need, such as once for every ε in the
    formula. Look at which result can be kept."""
    null = torch.full_like(labels, null_label)
    difference = model(x, t, labels) - model(x, t, null)
    return model(x, t, null) + scale * difference


# %% guided_noise: changes the labels
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The result is right, but the caller's labels are all null labels afterwards. Look for an
    operation that works in place."""
    conditional = model(x, t, labels)
    unconditional = model(x, t, labels.fill_(null_label))
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: no gradients
@torch.no_grad()
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The values are right, but no gradient flows through the predictions. A sampler needs none,
    the exercise does: look for what switches them off."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% guided_noise: the difference left out
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The scaled prediction with labels is added to the one without here, so that a scale of 1
    gives the sum of both. Look at what the scale multiplies."""
    null = torch.full_like(labels, null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * conditional


# %% guided_noise: the doubled batch taken apart in turns
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The predictions with and without labels come one after the other here, but are taken apart as
    if they took turns, so that rows get those of others. Look at where each row of the doubled
    batch stands."""
    null = torch.full_like(labels, null_label)
    predicted = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null]))
    conditional, unconditional = predicted[0::2], predicted[1::2]
    return unconditional + scale * (conditional - unconditional)


# %% ddim_step: x̂₀ always
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """This is the guessed picture, whatever ᾱ′ is. Look at the second formula: how much noise
    should be there after the step?"""
    here = torch.as_tensor(alpha_bar, device=x.device).double().reshape(-1, *[1] * (x.dim() - 1))
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return picture.to(x.dtype)


# %% ddim_step: no noise put back
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The picture is shrunk for the next step here, but no noise is put on it. Look at the second
    term of the second formula."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture).to(x.dtype)


# %% ddim_step: as much noise as before
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The noise of the old step is put back here: √(1 − ᾱ) where √(1 − ᾱ′) was asked for. Look at
    which of the two belongs to the new place."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - here).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: the wrong way
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """ᾱ and ᾱ′ have changed places here. Look at which of them says where x is now."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar_next, alpha_bar)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: without the roots
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """ᾱ and 1 − ᾱ stand where their roots should. Look at both formulas."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here) * predicted_noise) / here
    return (there * picture + (1 - there) * predicted_noise).to(x.dtype)


# %% ddim_step: the noise added
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The noise is added to x here instead of taken away. Look at the sign in the first formula."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x + (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: not divided by √ᾱ
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The noise was taken away, but the picture was not brought back to its size. Look at the
    denominator of the first formula."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = x - (1 - here).sqrt() * predicted_noise
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: the picture cut off at ±1
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The guessed picture was cut off at −1 and 1 here. Samplers often do so; look at whether the
    formula does."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = ((x - (1 - here).sqrt() * predicted_noise) / here.sqrt()).clamp(-1, 1)
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: the mean of a DDPM step
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """This is the mean of the random step of Ho et al. (2020), which expects new noise to be added.
    Look at the deterministic one, in which the predicted noise is put back."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    alpha = here / there
    mean = (x - (1 - alpha) / (1 - here).sqrt() * predicted_noise) / alpha.sqrt()
    return mean.to(x.dtype)


# %% ddim_step: straight to the picture at the end only
# ai-engineering PR 43
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """A step to ᾱ′ = 1 leaves the noise of a small ᾱ behind here: ᾱ′ was kept below 0.999. Look at
    what the last step should give."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    there = there.clamp(max=0.999)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: ᾱ along the last axis
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """One ᾱ a row is laid along the columns here. Look at which axes broadcasting puts together."""
    here, there = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: numbers only
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """A tensor with one ᾱ a row is an error here. Look at the three kinds that ᾱ may be."""
    noise_now, noise_next = math.sqrt(1 - alpha_bar), math.sqrt(1 - alpha_bar_next)
    picture = (x - noise_now * predicted_noise) / math.sqrt(alpha_bar)
    return math.sqrt(alpha_bar_next) * picture + noise_next * predicted_noise


# %% ddim_step: tensors only
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """A plain number is an error here. Look at the three kinds that ᾱ may be."""
    ones = [1] * (x.dim() - 1)
    here, there = (alpha.reshape(-1, *ones) for alpha in (alpha_bar, alpha_bar_next))
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: for pictures only
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """ᾱ gets three further axes here whatever x has, which is right for b × c × H × W alone. Look
    at how the number of axes of x can be asked."""
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, 1, 1, 1) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: the dtype of ᾱ
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The result has the dtype of ᾱ here where that is the wider one. Look at the dtype of the
    result."""
    ones = [1] * (x.dim() - 1)
    alphas = (torch.as_tensor(alpha, device=x.device) for alpha in (alpha_bar, alpha_bar_next))
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return there.sqrt() * picture + (1 - there).sqrt() * predicted_noise


# %% ddim_step: changes x
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The result is right, but the caller's x was changed on the way. Look for an operation that
    works in place."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    with torch.no_grad():
        x -= ((1 - here).sqrt() * predicted_noise).to(x.dtype)
    picture = x / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: divided by ᾱ
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The guessed picture is divided by ᾱ here, which makes it too large. Look at the denominator
    of the first formula."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: tensors without axes left out
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """Numbers and one ᾱ a row work, but a tensor without axes is an error here. Look at the three
    kinds that ᾱ may be."""
    here, there = (_for_rows(alpha, x) for alpha in (alpha_bar, alpha_bar_next))
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


def _for_rows(alpha: float | Tensor, x: Tensor) -> Tensor:
    if not isinstance(alpha, Tensor):
        alpha = torch.full((len(x),), float(alpha), dtype=torch.float64, device=x.device)
    return alpha.double()[(slice(None), *[None] * (x.dim() - 1))]


# %% ddim_step: a number beside one ᾱ a row
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """One ᾱ a row beside a number for the other one is an error here. Look at ᾱ and ᾱ′ each by
    itself: they need not be of one kind."""
    alphas = (alpha_bar, alpha_bar_next)
    if isinstance(alpha_bar, Tensor):
        here, there = (alpha.double().reshape(-1, *[1] * (x.dim() - 1)) for alpha in alphas)
    else:
        here, there = (torch.tensor(float(alpha), dtype=torch.float64) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: ᾱ on the CPU
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The numbers are right, but tensors of two devices meet here where x is not on the CPU and ᾱ
    is a number. Look at where your own tensors are made."""
    ones = [1] * (x.dim() - 1)
    alphas = (torch.as_tensor(alpha).double() for alpha in (alpha_bar, alpha_bar_next))
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% ddim_step: no gradients
@torch.no_grad()
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The values are right, but no gradient flows back to x and the noise. A sampler needs none,
    the exercise does: look for what switches them off."""
    ones = [1] * (x.dim() - 1)
    alphas = (
        torch.as_tensor(alpha, device=x.device).double() for alpha in (alpha_bar, alpha_bar_next)
    )
    here, there = (alpha.reshape(-1, *ones) for alpha in alphas)
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)


# %% add_noise: axes of size 1 removed
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1))
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype).squeeze()


# %% timestep_embedding: the row of a single t without its axis
def timestep_embedding(t: Tensor, d_model: int) -> Tensor:
    """The table for a single t has lost its first axis. Look at what happens to axes of size 1."""
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2)).squeeze(0)


# %% guided_noise: null labels on the CPU
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """The values are right, but the null labels lie on the CPU, wherever the others are. Look for a
    tensor that is made without saying where."""
    null = torch.full((len(x),), null_label)
    conditional, unconditional = model(x, t, labels), model(x, t, null)
    return unconditional + scale * (conditional - unconditional)


# %% ddim_step: axes of size 1 removed
def ddim_step(
    x: Tensor,
    predicted_noise: Tensor,
    alpha_bar: float | Tensor,
    alpha_bar_next: float | Tensor,
) -> Tensor:
    """Axes of size 1 disappear here, so that a batch of one comes back with another shape than a
    batch of two. Look for a `squeeze` that is given no axis."""
    here, there = (
        torch.as_tensor(alpha, dtype=torch.float64, device=x.device).reshape(
            -1, *[1] * (x.dim() - 1)
        )
        for alpha in (alpha_bar, alpha_bar_next)
    )
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    after = there.sqrt() * picture + (1 - there).sqrt() * predicted_noise
    return after.to(x.dtype).squeeze()


# %% ddim_step: the noise without its roots
def ddim_step(
    x: Tensor, predicted_noise: Tensor, alpha_bar: float | Tensor, alpha_bar_next: float | Tensor
) -> Tensor:
    """The noise is weighed by 1 − ᾱ and 1 − ᾱ′ here, the picture by roots. Look at the noise's
    weights in both formulas."""
    shape = (-1, *[1] * (x.dim() - 1))
    here, there = (
        torch.as_tensor(kept, device=x.device).double().reshape(shape)
        for kept in (alpha_bar, alpha_bar_next)
    )
    picture = (x - (1 - here) * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there) * predicted_noise).to(x.dtype)


# %% guided_noise: only the steps doubled in turns
def guided_noise(
    model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int
) -> Tensor:
    """In the doubled batch each step stands twice in a row here, the pictures one batch after the
    other. Look at whether row i of all three belongs together."""
    null = torch.full_like(labels, null_label)
    both = model(torch.cat([x, x]), t.repeat_interleave(2), torch.cat([labels, null]))
    conditional, unconditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


# %% add_noise: changes the noise
def add_noise(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """`noise` is changed here, and it is what the network has to guess. Look at what works in
    place."""
    kept = alpha_bar[t].reshape(-1, *[1] * (x0.dim() - 1)).to(x0.dtype)
    noise *= (1 - kept).sqrt()
    return kept.sqrt() * x0 + noise
