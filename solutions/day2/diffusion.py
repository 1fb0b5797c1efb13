# %% [markdown]
# # Diffusion
#
# *Chapter 5 of 8*
#
# A GPT generates one token at a time; a diffusion model generates all pixels of an image at once.
# During training, a network learns to predict the noise added to an image. Sampling starts
# from pure noise and removes the predicted noise step by step.
#
# ![A digit at steps 0, 250, 500, 750 and 1000, from a clear image to pure noise. add_noise goes
# from left to right and has no learned parameters. ddim_step goes from right to left and removes
# the noise that the network predicts.](figures/chain.svg)
#
# [Ho et al. (2020)](https://arxiv.org/abs/2006.11239) predicted the noise with a convolutional
# network, after [Sohl-Dickstein et al. (2015)](https://arxiv.org/abs/1503.03585). [Peebles and Xie
# (2022)](https://arxiv.org/abs/2212.09748) use a Transformer, the *diffusion transformer* (DiT). You
# will train one that draws any digit.
#
# Step t ranges from 0 (the image) to $n_\text{steps}$ (pure noise). $\bar\alpha_t$, the fraction of
# the image's variance that is left, falls from 1 to almost 0.
#
# First, run four cells in Vision: the imports, `patchify`, `unpatchify` and `SelfAttention`.

# %%
import functools
import itertools
import math
import re
import sys
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython import get_ipython
from IPython.display import HTML, display
from jaxtyping import Float, Int
from matplotlib.animation import FuncAnimation
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from solutions.day2.vision import SelfAttention, patchify, unpatchify
from solutions.opening import (
    demonstration,
    expecting,
    fixed_numbers,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## `cosine_schedule`
# ★★☆☆☆ · 15 minutes
#
# How fast should $\bar\alpha_t$ fall? Step t multiplies it by $1 - \beta_t$:
#
# $$\bar\alpha_t = \prod_{k=1}^{t} (1 - \beta_k), \qquad \bar\alpha_0 = 1
# \qquad \bar\alpha: n_\text{steps} + 1$$
#
# Ho et al. increase β linearly. [Nichol and Dhariwal (2021)](https://arxiv.org/abs/2102.09672)
# choose $\bar\alpha$ first and derive β from it:
#
# $$f(t) = \cos^2\!\left(\frac{t/n_\text{steps} + 0.008}{1.008} \cdot \frac{\pi}{2}\right), \qquad
# \beta_t = \min\!\left(1 - \frac{f(t)}{f(t-1)},\ 0.999\right)$$
#
# The offset 0.008 keeps the first β from being too small.
#
# **The traps.** The result has one more entry than there are steps, because it includes
# $\bar\alpha_0$. Near the end, f is almost 0 and inaccurate in float32.


# %%
def cosine_schedule(n_steps: int) -> Float[Tensor, "n_steps+1"]:
    """Return ᾱ(0), …, ᾱ(n_steps), the fraction of the image's variance that remains after each step.

    ᾱ(0) = 1, and ᾱ(t) is the product of 1 − β_k for k = 1, …, t. Here β_t = min(1 − f(t)/f(t−1), 0.999)
    and f(t) = cos²((t/n_steps + 0.008)/1.008 · π/2).

    Args:
        n_steps: the number of steps, at least 1.

    Returns:
        a float32 vector. The relative error of every entry, including the tiny last ones, must be below
        10⁻³, even for 100,000 steps.

    Source: Nichol and Dhariwal (2021), section 3.2.
    """
    ### BEGIN SOLUTION
    t = torch.arange(n_steps + 1, dtype=torch.float64)
    f = torch.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    alpha_bar = torch.cumprod(1 - beta, dim=0)
    return F.pad(alpha_bar, (1, 0), value=1.0).float()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_cosine_schedule():
        with expecting("cosine_schedule(4) should work"):
            result = cosine_schedule(4)
        assert result is not None, "cosine_schedule returns None. Does it end with `return`?"
        assert isinstance(result, torch.Tensor), (
            f"The result should be a tensor; yours is of type {type(result).__name__}."
        )
        assert result.shape == (5,), (
            f"4 steps should give 5 values, ᾱ(0) to ᾱ(4); your result has shape {tuple(result.shape)}."
        )
        assert result.dtype == torch.float32, (
            f"The result should be float32; yours is {result.dtype}."
        )
        # f(0) … f(3) are 0.999845, 0.846881, 0.493767, 0.144250, and β at the end is 0.999.
        expected = torch.tensor([1.0, 0.847012, 0.493844, 0.144272, 0.000144272])
        assert torch.allclose(result, expected, rtol=1e-3, atol=0), (
            f"For 4 steps, ᾱ should be\n{expected}\nyours is\n{result}\n"
            "Remember that ᾱ(0) is 1 and β is at most 0.999."
        )
        one = cosine_schedule(1)
        assert torch.allclose(one, torch.tensor([1.0, 0.001]), rtol=1e-3, atol=0), (
            f"For a single step, ᾱ should be [1, 0.001], because β is at most 0.999; yours is {one}."
        )
        many = cosine_schedule(1000)
        assert (many[1:] < many[:-1]).all(), (
            "With 1,000 steps, ᾱ should decrease at every step; yours does not."
        )
        assert (many > 0).all(), "Every ᾱ should be positive. Do you cap β at 0.999?"
        # f(99,999) is sin²(x) for x = π/2 · 1/100,000/1.008, which is about x².
        last = cosine_schedule(100_000)[-2].item()
        expected = (math.pi / 2 / 100_000 / 1.008) ** 2 / math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
        assert abs(last / expected - 1) < 1e-3, (
            f"For 100,000 steps, the second to last ᾱ should be {expected:.5g}; yours is {last:.5g}. "
            "float32 is too inexact for the cosine."
        )
        print("cosine_schedule: all visible checks pass.")

    check_cosine_schedule()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compute f for t = 0, …, n_steps as one float64 vector. Then f(t)/f(t−1) is f without its first
# entry, divided by f without its last entry.
# </details>
#
# <details><summary>Hint 2</summary>
#
# β has n_steps entries. `clamp` caps them, and `torch.cumprod` computes the cumulative product of 1
# − β. Then prepend ᾱ(0) = 1 and convert the result to float32.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        cosine = cosine_schedule(1000)
        # The schedule of Ho et al. (2020): β grows linearly from 0.0001 to 0.02.
        linear = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(dim=0)
        figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
        axis.plot(cosine, label="cosine")
        axis.plot(range(1, 1001), linear, label="linear β")
        axis.set(
            title="how much of the image is left",
            xlabel="step t",
            ylabel="ᾱ (fraction of its variance)",
        )
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** With linear β, ᾱ is only 0.08 halfway through.

# %% [markdown]
# ## `add_noise`
# ★☆☆☆☆ · 10 minutes
#
# Each step shrinks the image and adds noise:
#
# $$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon_t, \qquad
# \varepsilon_t \sim \mathcal N(0, 1)$$
#
# A sum of independent normal variables is normal, so you can take t steps at once:
#
# $$\underbrace{x_t}_{b \times \cdots} = \sqrt{\bar\alpha_t}\; \underbrace{x_0}_{b \times \cdots}
# + \sqrt{1 - \bar\alpha_t}\; \underbrace{\varepsilon}_{b \times \cdots},
# \qquad \varepsilon \sim \mathcal N(0, 1)$$
#
# During training, each image gets a random t.
#
# **The traps.** $\bar\alpha_t$ has shape `(b,)`, but images have shape `(b, c, H, W)`. Multiplying
# them directly broadcasts $\bar\alpha_t$ along W. This raises an error, or is silently wrong if W
# equals b. $\bar\alpha$ is float32, but images may have a different dtype.


# %%
def add_noise(
    x0: Float[Tensor, "b ..."],
    t: Int[Tensor, "b"],
    noise: Float[Tensor, "b ..."],
    alpha_bar: Float[Tensor, "n_steps+1"],
) -> Float[Tensor, "b ..."]:
    """Return √ᾱ(t) · x0 + √(1 − ᾱ(t)) · noise, with a separate t for each image.

    Args:
        x0: images or other data, with any number of axes after the first, including none.
        t: the step of each image, as an index into `alpha_bar`.
        noise: standard normal noise of the same shape as `x0`.
        alpha_bar: a noise schedule, such as the result of `cosine_schedule`.

    Returns:
        the noisy images, with the dtype of `x0` regardless of the dtype of `alpha_bar`. Gradients of
        `alpha_bar` are not needed.

    Source: Ho et al. (2020), equation 4.
    """
    ### BEGIN SOLUTION
    ones = [1] * (x0.dim() - 1)
    kept = alpha_bar[t].reshape(-1, *ones)  # b 1 1 …
    return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_add_noise():
        # The image is multiplied by 1, 0.8, 0.6, 0 and the noise by 0, 0.6, 0.8, 1.
        alpha_bar = torch.tensor([1.0, 0.64, 0.36, 0.0])
        x0 = torch.tensor([[10.0, 20.0], [10.0, 20.0]])
        noise = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
        with expecting("add_noise should accept x0 and noise of shape (2, 2)"):
            result = add_noise(x0, torch.tensor([1, 2]), noise, alpha_bar)
        assert result is not None, "add_noise returns None. Does it end with `return`?"
        expected = torch.tensor([[8.6, 15.4], [6.8, 11.2]])
        assert result.shape == (2, 2), (
            f"The shape should be (2, 2); yours is {tuple(result.shape)}."
        )
        assert torch.allclose(result, expected), (
            f"Row 0 at t = 1 (ᾱ = 0.64) and row 1 at t = 2 (ᾱ = 0.36) should be\n{expected}\n"
            f"yours are\n{result}\nThe factors of the image are 0.8 and 0.6, and those of the noise 0.6 and 0.8."
        )
        ends = add_noise(x0, torch.tensor([0, 3]), noise, alpha_bar)
        assert torch.allclose(ends, torch.stack([x0[0], noise[1]])), (
            f"ᾱ = 1 should give the image and ᾱ = 0 the noise; your result is\n{ends}"
        )
        pictures = torch.ones(3, 1, 4, 3)
        with expecting(
            "Images of shape (3, 1, 4, 3) should work with t of shape (3,)",
            "Append one axis of size 1 to ᾱ(t) for every axis of x0 after the first.",
        ):
            result = add_noise(
                pictures, torch.tensor([0, 1, 2]), torch.zeros(3, 1, 4, 3), alpha_bar
            )
        for row, factor in enumerate((1.0, 0.8, 0.6)):
            assert torch.allclose(result[row], torch.full((1, 4, 3), factor)), (
                f"Image {row} is all ones and its noise is 0, so the result should be {factor} everywhere; "
                f"yours is\n{result[row]}\nWhich axis of x0 does ᾱ(t) belong to?"
            )
        half = add_noise(x0.half(), torch.tensor([1, 2]), noise.half(), alpha_bar)
        assert half.dtype == torch.float16, (
            f"float16 images should give a float16 result; yours is {half.dtype}."
        )
        print("add_noise: all visible checks pass.")

    check_add_noise()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `alpha_bar[t]` selects one number per image. Append an axis of size 1 for every axis of x0 after
# the first. The result broadcasts over each image.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x0.dim()` is the number of axes. If `ones` is a list of n ones, `reshape(-1, *ones)` appends n
# axes of size 1. The product of a float16 and a float32 tensor is float32, so convert the result at
# the end.
# </details>

# %% [markdown]
# ### Given: the digits
#
# scikit-learn includes 1,797 handwritten digits of 8 × 8 pixels; a quarter are held out. Pixel
# values range from −1 to 1. `diffusion_digits()` loads them.


# %% tags=["support"]
def diffusion_digits() -> tuple[
    Float[Tensor, "b 1 8 8"], Int[Tensor, "b"], Float[Tensor, "k 1 8 8"], Int[Tensor, "k"]
]:
    """Return training images and labels, followed by held-out images and labels."""
    digits = load_digits()
    parts = train_test_split(
        digits.images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    pictures, held_out = (torch.tensor(part).float().unsqueeze(1) / 8 - 1 for part in parts[:2])
    labels, held_out_labels = (torch.tensor(part) for part in parts[2:])
    return pictures, labels, held_out, held_out_labels


def digit_sheet(rows: list[Float[Tensor, "n 1 8 8"]]) -> Float[Tensor, "height width"]:
    """Tile rows of digits into one image, with a little space between the digits."""
    padded = [F.pad(row, (1, 1, 1, 1), value=-1.0).squeeze(1) for row in rows]
    return torch.cat([torch.cat(list(row), dim=1) for row in padded])


def show_digits(axis: plt.Axes, rows: list[Float[Tensor, "n 1 8 8"]], title: str) -> None:
    """Draw rows of digits without axis ticks."""
    axis.imshow(digit_sheet(rows), cmap="gray", vmin=-1, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])


# %%
if __name__ == "__main__":
    with demonstration():
        one_digit = diffusion_digits()[0][:1].expand(11, 1, 8, 8)
        times = torch.linspace(0, 1000, 11).long()
        same_noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        linear = F.pad((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(dim=0), (1, 0), value=1.0)
        noisy = [
            add_noise(one_digit, times, same_noise.expand(11, 1, 8, 8), alpha_bar)
            for alpha_bar in (cosine_schedule(1000), linear)
        ]
        figure, axis = plt.subplots(figsize=(10, 2.8), layout="constrained")
        show_digits(axis, noisy, "the same digit and noise: cosine schedule above, linear β below")
        axis.set_xticks([10 * i + 4.5 for i in range(11)], times.tolist())
        axis.set_xlabel("step t")
        plt.show()

# %% [markdown]
# **What to notice.** With the cosine schedule (top row), you can still recognise the digit at step
# 500. With linear β, it has almost disappeared by step 400.

# %% [markdown]
# ## `timestep_embedding`
# ★★☆☆☆ · 15 minutes
#
# The network needs to know t. Like positions on Day 1, t is encoded by sines and cosines of
# different frequencies, but here all cosines come first:
#
# $$\mathrm{TE}(t) = \bigl(\cos t\omega_0, \dots, \cos t\omega_{\text{half}-1},\ \sin t\omega_0, \dots,
# \sin t\omega_{\text{half}-1}\bigr) \qquad \text{half} = \lfloor d/2 \rfloor, \quad \omega_i = 10000^{-i/\text{half}}$$
#
# **The traps.** The denominator in the exponent is `half`, not `half − 1` or `d`. If d is odd, the
# last column is 0. Steps need not be integers, because some samplers use fractional steps.


# %%
def timestep_embedding(
    t: Int[Tensor, "b"] | Float[Tensor, "b"], d_model: int
) -> Float[Tensor, "b d_model"]:
    """Embed each t as the cosines, followed by the sines, of t·ω_i with ω_i = 10000^(−i/half).

    Here half = ⌊d_model/2⌋ and i = 0, …, half − 1. If `d_model` is odd, the last column is 0. With
    `d_model` = 1, this is the only column.

    Args:
        t: integer or fractional steps.
        d_model: the number of columns, at least 1.

    Returns:
        a float32 tensor with one row per t. For t up to 10,000, its error must be below 2·10⁻³.

    Source: Peebles and Xie (2022), appendix A; the column order follows their code.
    """
    ### BEGIN SOLUTION
    half = d_model // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double().unsqueeze(1) * frequencies  # b half
    table = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return F.pad(table, (0, d_model % 2))
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_timestep_embedding():
        with expecting("timestep_embedding should accept 3 integer steps and d_model 4"):
            result = timestep_embedding(torch.tensor([0, 1, 100]), 4)
        assert result is not None, "timestep_embedding returns None. Does it end with `return`?"
        assert result.shape == (3, 4), (
            f"3 steps and d_model 4 should give shape (3, 4); yours is {tuple(result.shape)}."
        )
        assert result.dtype == torch.float32, (
            f"The result should be float32; yours is {result.dtype}."
        )
        # With d_model 4, half is 2, so the angles are t and t/100.
        expected = torch.tensor(
            [
                [1.0, 1.0, 0.0, 0.0],
                [0.540302, 0.99995, 0.841471, 0.0099998],
                [0.862319, 0.540302, -0.506366, 0.841471],
            ]
        )
        assert torch.allclose(result, expected, atol=2e-3), (
            f"For t = 0, 1, 100 and d_model 4, the table should be\n{expected}\nyours is\n{result}\n"
            "All cosines come before all sines; the angles are t and t/100."
        )
        between = timestep_embedding(torch.tensor([0.5]), 2)
        assert torch.allclose(between, torch.tensor([[0.877583, 0.479426]]), atol=2e-3), (
            f"t = 0.5 and d_model 2 should give cos 0.5 and sin 0.5; your result is {between}."
        )
        with expecting("timestep_embedding should accept an odd d_model"):
            odd = timestep_embedding(torch.tensor([1, 100]), 5)
        assert odd.shape == (2, 5), f"d_model 5 should give 5 columns, not {odd.shape[1]}."
        assert torch.allclose(odd[:, :4], expected[1:], atol=2e-3), (
            f"With d_model 5, the first 4 columns should be the same as with d_model 4; yours are\n{odd[:, :4]}"
        )
        assert (odd[:, 4] == 0).all(), (
            f"With d_model 5, the last column should be 0; yours is {odd[:, 4]}."
        )
        slow = timestep_embedding(torch.tensor([1000]), 8)[0, [3, 7]]
        assert torch.allclose(slow, torch.tensor([0.5403, 0.8415]), atol=2e-3), (
            "With d_model 8 and t = 1000, the lowest frequency gives an angle of 1, so columns 3 and 7 "
            f"should be cos 1 and sin 1; yours are {slow.tolist()}. The exponent should be −i/half."
        )
        print("timestep_embedding: all visible checks pass.")

    check_timestep_embedding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The angles are an outer product, with one row per step and one column per frequency. The first
# half of the result contains the cosines of the angles, and the second half the sines.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `unsqueeze` adds a second axis to t, and `torch.cat` concatenates the two halves along the last
# axis. If d is odd, append a column of zeros with `torch.nn.functional.pad`.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        table = timestep_embedding(torch.arange(1001), 64)
        figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
        image = axis.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
        axis.set(title="the embedding of each step", xlabel="step t", ylabel="column")
        axis.set_yticks([0, 16, 32, 48, 63])
        figure.colorbar(image, ax=axis)
        plt.show()

# %% [markdown]
# **What to notice.** Low-frequency columns encode the rough value of t; high-frequency columns
# distinguish neighbouring steps.

# %% [markdown]
# ## `DiTBlock`
# ★★★★☆ · 35 minutes
#
# A DiT block has a second input, the **condition**: one vector per image that encodes the step and
# the class to draw. In the best of four ways that Peebles and Xie compared, it controls the
# *norms*. LayerNorm usually learns a scale and a shift; here, the condition determines both, plus a
# gate for each residual branch.
#
# ![The residual stream x feeds two branches. In each branch, the output of LayerNorm is multiplied
# by 1 + scale and shifted. Then come attention or the feed-forward network, a gate, and the
# residual sum. The condition passes through silu and modulation. The result is split into a shift,
# a scale and a gate for each branch.](figures/dit-block.svg)
#
# $$(\text{shift}_1, \text{scale}_1, \text{gate}_1, \text{shift}_2, \text{scale}_2, \text{gate}_2)
# = \underbrace{\operatorname{modulation}}_{d \,\to\, 6d}
# \bigl(\operatorname{silu}(\underbrace{\text{condition}}_{b \times d})\bigr)
# \qquad \text{each } b \times d, \qquad \operatorname{silu}(z) = \frac{z}{1 + e^{-z}}$$
#
# $$x \leftarrow \underbrace{x}_{b \times n \times d} + \text{gate}_1 \odot
# \operatorname{attention}\bigl(\operatorname{LN}(x) \odot (1 + \text{scale}_1) + \text{shift}_1\bigr)$$
#
# $$x \leftarrow x + \text{gate}_2 \odot
# \operatorname{network}\bigl(\operatorname{LN}(x) \odot (1 + \text{scale}_2) + \text{shift}_2\bigr)$$
#
# (The paper writes β, γ and α for shift, scale and gate.) `attention` is the `SelfAttention`
# provided in the vision chapter. LN has no parameters and uses eps = 1e-6. The network applies
# linear1, GELU (tanh approximation) and linear2. `modulation` is initialised to zero, hence the
# name *adaLN-Zero*. All gates start at 0, so the block initially returns x.
#
# Work in three steps:
#
# 1. Compute `modulation(silu(condition))`, of shape `(b, 6d)`. Insert an axis for the patches to
#    get `(b, 1, 6d)`, and split the last axis into six parts.
# 2. Write the attention branch and its residual sum.
# 3. Write the network branch in the same way. Its input is the *updated* x.
#
# **The traps.** The factor is 1 + scale, so a scale of 0 changes nothing. Without the axis for the
# patches, b is broadcast against n. This raises an error, or is silently wrong if b equals n. By
# default, torch's LayerNorm has parameters and its GELU is exact.


# %%
class DiTBlock(nn.Module):
    """A Transformer block whose norms and gates are controlled by a condition.

    Attributes to define: `attention` (a `SelfAttention(d_model, n_heads)`), `linear1` (d_model to
    d_ff), `linear2` (d_ff to d_model), `modulation` (an `nn.Linear` from d_model to 6·d_model, with
    weight and bias initialised to zero). There are no other parameters. At initialisation, the block is
    the identity.

    Source: Peebles and Xie (2022), section 3.2 and figure 3 (adaLN-Zero).
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.attention = SelfAttention(d_model, n_heads)  # every patch sees all others
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        ### END SOLUTION

    def forward(
        self, x: Float[Tensor, "b n d_model"], condition: Float[Tensor, "b d_model"]
    ) -> Float[Tensor, "b n d_model"]:
        """Return the updated patches.

        modulation(silu(condition)) contains shift, scale and gate for attention, followed by shift,
        scale and gate for the network. LN has no parameters and uses eps = 1e-6. The attention branch
        computes x ← x + gate · attention(LN(x) · (1 + scale) + shift). The network branch does the same
        with linear2(gelu(linear1(·))), where gelu is the tanh approximation.
        """
        ### BEGIN SOLUTION
        modulation = self.modulation(F.silu(condition)).unsqueeze(1)  # b 1 6d
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = self.linear1(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.linear2(F.gelu(hidden, approximate="tanh"))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def with_identities(block, modulation):
        """Make attention and both linear layers the identity, and set the bias of `modulation`."""
        with torch.no_grad():
            for linear in (block.attention.qkv, block.attention.out, block.linear1, block.linear2):
                linear.weight.zero_()
                linear.bias.zero_()
                linear.weight[-2:] = torch.eye(2)
            block.modulation.bias.copy_(torch.tensor(modulation).repeat_interleave(2))
        return block

    @visible_check
    def check_DiTBlock():
        torch.manual_seed(0)
        block = DiTBlock(4, 2, 8)
        with torch.no_grad():  # fill all parameters except those of `modulation`
            for parameter in {*block.parameters()} - {*block.modulation.parameters()}:
                parameter.copy_(fixed_numbers(*parameter.shape))
        x, condition = torch.randn(2, 3, 4), torch.randn(2, 4)
        with expecting(
            "x of shape (2, 3, 4) and a condition of shape (2, 4) should work",
            "Each of the six parts needs an axis of size 1 for the patches: (2, 1, 4).",
        ):
            result = block(x, condition)
        assert result is not None, "forward returns None. Does it end with `return`?"
        assert result.shape == (2, 3, 4), (
            f"The shape should be (2, 3, 4); yours is {tuple(result.shape)}."
        )
        assert torch.allclose(result, x), (
            "A new block should return x unchanged: the weight and the bias of `modulation` are 0, so both "
            "gates are 0, and x + 0 · (…) is x. Yours changes x."
        )
        assert not block.modulation.weight.any(), (
            "All weights of `modulation` should start at zero."
        )
        named = {"attention", "linear1", "linear2", "modulation"}
        names = {}  # by parameter, because it may have several names
        for name, parameter in block.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, set()).add(name.split(".")[0])
        parts = {min(each & named or each) for each in names.values()}
        assert parts == named, (
            "Only attention, linear1, linear2 and modulation should have parameters; your block has "
            f"parameters in {sorted(parts)}. Pass `elementwise_affine=False` to LayerNorm."
        )
        with torch.no_grad():
            block.modulation.bias.fill_(1.0)
        x, condition = fixed_numbers(20, 3, 4), fixed_numbers(20, 4)
        result = block(x, condition)
        assert torch.allclose(block.eval()(x, condition), result, atol=1e-4, equal_nan=True), (
            "This block has no dropout, so training and evaluation mode should give the same result; yours "
            "differ."
        )

        # One patch of two features: LN maps (3, 1) to (1, −1), and attention returns its input.
        x = torch.tensor([[[3.0, 1.0]]])
        #                                    shift₁ scale₁ gate₁ shift₂ scale₂ gate₂
        block = with_identities(DiTBlock(2, 1, 2), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        result = block(x, torch.zeros(1, 2))
        assert torch.allclose(result, torch.tensor([[[4.0, 0.0]]]), atol=1e-3), (
            "With gate₁ = 1 and the other five parts 0, the result should be x + LN(x) = "
            f"(3, 1) + (1, −1) = [4, 0]; yours is {result[0, 0].tolist()}. "
            "`modulation` gives shift, scale and gate, in this order, and 1 + scale is 1."
        )
        tiny = block(torch.tensor([[[1e-3, -1e-3]]]), torch.zeros(1, 2))[0, 0, 0].item()
        assert abs(tiny - 0.7081) < 1e-2, (
            "LN should divide by √(variance + 10⁻⁶), so it maps (0.001, −0.001) to (0.7071, −0.7071). "
            f"The result should start with 0.7081; yours starts with {tiny:.4f}. Which `eps` do you use?"
        )
        # The tanh approximation of GELU maps (1, −1) to (0.84119, −0.15881).
        block = with_identities(DiTBlock(2, 1, 2), [0.0, 0.0, 0.0, 0.0, 0.0, 1000.0])
        result = block(x, torch.zeros(1, 2))
        assert torch.allclose(result, torch.tensor([[[844.19, -157.81]]]), atol=0.1), (
            "With gate₂ = 1000 and the other five parts 0, the result should be (3, 1) + 1000 · GELU(1, −1) "
            f"= [844.19, −157.81]; yours is {result[0, 0].tolist()}. Here, 1 + scale is 1, and the "
            "tanh approximation of GELU maps (1, −1) to (0.84119, −0.15881)."
        )
        # (1, −1)·2 + 3 = (5, 1), and (3, 1) − 2·(5, 1) = (−7, −1), whose LN is (−1, 1);
        # (−1, 1)·5 + 10 = (5, 15), and (−7, −1) − (5, 15) = (−12, −16).
        block = with_identities(DiTBlock(2, 1, 2), [3.0, 1.0, -2.0, 10.0, 4.0, -1.0])
        expected = torch.tensor([[[-12.0, -16.0]]])
        result = block(x, torch.zeros(1, 2))
        assert torch.allclose(result, expected, atol=1e-3), (
            f"{x.tolist()} should become {expected.tolist()}; yours becomes {result.tolist()}. A comment "
            "in this check shows the computation."
        )

        # silu(−1) is −0.26894. With weights of 1, `modulation` adds it twice to each part.
        parts = [part - 2 * 0.26894 for part in (3.0, 1.0, -2.0, 10.0, 4.0, -1.0)]
        expected = with_identities(DiTBlock(2, 1, 2), parts)(x, torch.zeros(1, 2))
        with torch.no_grad():
            block.modulation.weight.fill_(1.0)
        low = block(x, torch.full((1, 2), -1.0))
        assert torch.allclose(low, expected, atol=1e-3), (
            "silu should map a condition of −1 to −0.269 before `modulation`, so the result should be "
            f"{expected.tolist()}; yours is {low.tolist()}."
        )

        # Even with as many images as patches, each image must use its own condition.
        x, condition = torch.randn(2, 2, 2), torch.randn(2, 2)
        both = block(x, condition)
        alone = torch.cat([block(x[i : i + 1], condition[i : i + 1]) for i in (0, 1)])
        assert torch.allclose(both, alone, atol=1e-4), (
            "In a batch of 2 images with 2 patches each, every image should give the same result as it "
            "does alone; yours does not. Insert an axis for the patches: (b, 1, d)."
        )
        print("DiTBlock: all visible checks pass.")

    check_DiTBlock()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For LN, use `F.layer_norm`, or `nn.LayerNorm` with `elementwise_affine=False`. It has no
# parameters, so both branches can share it. `unsqueeze(1)` turns `(b, 6d)` into `(b, 1, 6d)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `chunk(6, dim=-1)` splits the result of `modulation` into the six parts, in the right order. Then
# write one line per formula; the second uses the updated x from the first. Use `nn.init.zeros_` on
# the weight and the bias of `modulation`, and pass `approximate="tanh"` to `F.gelu`.
# </details>

# %% [markdown]
# **What to notice.** All patches of an image share the same modulation. If d_ff = 4d, `modulation`
# contains 6d² of the block's 18d² weights.

# %% [markdown]
# ## `guided_noise`
# ★★☆☆☆ · 15 minutes
#
# The network may follow the label only weakly. The difference between its predictions with and
# without the label shows how the label changes the image. **Guidance** exaggerates this change:
#
# $$\tilde\varepsilon = \varepsilon(x, t, \varnothing)
# + s \cdot \bigl(\varepsilon(x, t, \text{label}) - \varepsilon(x, t, \varnothing)\bigr)$$
#
# ![The predictions lie on a line. The prediction without a label is at s = 0, and the prediction
# for label 7 is at s = 1. The extrapolated predictions for s = 2 and s = 3 lie beyond s =
# 1.](figures/guidance.svg)
#
# One network makes both predictions, because training replaces some labels with an extra *null
# label* ∅. This is *classifier-free* guidance ([Ho and Salimans
# 2022](https://arxiv.org/abs/2207.12598)).
#
# **The traps.** Ho and Salimans write
# $(1 + w)\,\varepsilon(\text{label}) - w\,\varepsilon(\varnothing)$, so s = 1 + w. The null label
# can be any integer.


# %%
def guided_noise(
    model: nn.Module,
    x: Float[Tensor, "b ..."],
    t: Int[Tensor, "b"],
    labels: Int[Tensor, "b"],
    scale: float,
    null_label: int,
) -> Float[Tensor, "b ..."]:
    """Return ε(null) + scale · (ε(labels) − ε(null)), where ε is the prediction of `model`.

    `model(x, t, labels)` predicts the noise in `x` (`b ...`) for the steps `t` (`b`) and the labels
    (`b`). Rows are independent, so you can call `model` once on 2b rows or twice on b rows. Gradients
    flow through both predictions.

    Args:
        scale: 0 gives the prediction without labels and 1 the prediction with labels; larger values
            extrapolate.
        null_label: the label that means "no label"; it can be any int.

    Source: Ho and Salimans (2022), equation 6, with scale = 1 + w; Peebles and Xie (2022), section 3.1.
    """
    ### BEGIN SOLUTION
    both = torch.cat([labels, torch.full_like(labels, null_label)])
    predicted = model(torch.cat([x, x]), torch.cat([t, t]), both)
    conditional, unconditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    class LabelPlusSteps(nn.Module):
        """A model whose prediction is x + label + 10 · step."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))  # `next(model.parameters()).device` works

        def forward(self, x, t, labels):
            assert len(x) == len(t) == len(labels), (
                f"x, t and labels should have the same length; your lengths are {len(x)}, {len(t)} and "
                f"{len(labels)}."
            )
            return x + (labels + 10 * t).to(x.dtype).reshape(-1, 1, 1)

    @visible_check
    def check_guided_noise():
        model, t, labels = LabelPlusSteps(), torch.tensor([5, 7]), torch.tensor([3, 5])
        x = torch.tensor([0.0, 100.0]).reshape(2, 1, 1).expand(2, 5, 4)
        # The model predicts 3 + 50 and 100 + 5 + 70 with labels. Without labels, it predicts 10 + 50 and
        # 100 + 10 + 70, or, with null label 20, 20 + 50 and 100 + 20 + 70.
        for scale, null, rows in (
            (0.0, 10, (60, 180)),
            (1.0, 10, (53, 175)),
            (2.0, 10, (46, 170)),
            (-1.0, 20, (87, 205)),
        ):
            with expecting(
                "x of shape (2, 5, 4) with 2 steps and 2 labels should work",
                "`model` expects x, t and labels in this order, with a label for each row.",
            ):
                result = guided_noise(model, x, t, labels, scale, null_label=null)
            assert labels.tolist() == [3, 5], (
                f"Do not change the argument `labels`; it is now {labels}."
            )
            assert result is not None, "guided_noise returns None. Does it end with `return`?"
            assert result.shape == (2, 5, 4), (
                f"The shape should be that of x, (2, 5, 4); yours is {tuple(result.shape)}."
            )
            expected = torch.tensor(rows).float().reshape(2, 1, 1).expand(2, 5, 4)
            assert torch.allclose(result, expected), (
                "This model predicts x + label + 10 · step. For x = 0 and 100, labels 3 and 5, steps 5 and 7, "
                f"null label {null} and scale {scale:g}, the two rows should be {rows}; your rows start "
                f"with {result[:, 0, 0].tolist()}. Scale 0 should ignore the label, and scale 1 should "
                "give the prediction with the label."
            )
        x = x.clone().requires_grad_()
        with expecting("Gradients should flow through both predictions"):
            guided_noise(model, x, t, labels, 3.0, null_label=10).sum().backward()
        assert torch.allclose(x.grad, torch.ones_like(x)), (
            "Gradients should flow through both predictions. Here, each gradient is 1 − 3 + 3 = 1; yours "
            f"is {x.grad.flatten()[0].item():g}."
        )
        print("guided_noise: all visible checks pass.")

    check_guided_noise()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.full_like` creates a tensor of null labels. You can call the model twice, or once on a
# batch that contains each row twice, as the DiT authors do.
# </details>
#
# <details><summary>Hint 2</summary>
#
# To call the model only once, concatenate x with x, t with t, and the labels with the null labels.
# `chunk(2)` splits the prediction in two. Then apply the formula, starting from the unconditional
# ε.
# </details>

# %% [markdown]
# ## `ddim_step`
# ★★★☆☆ · 20 minutes
#
# Take one denoising step, following [Song et al. (2021)](https://arxiv.org/abs/2010.02502). Given
# the predicted noise, solve the `add_noise` formula for the image. Early in sampling, this estimate
# is close to the mean of many possible images, so it is blurry. Add the predicted noise back, at
# the level of the next step:
#
# $$\hat x_0 = \frac{x - \sqrt{1 - \bar\alpha}\;\varepsilon}{\sqrt{\bar\alpha}}
# \qquad\qquad
# x' = \sqrt{\bar\alpha'}\;\hat x_0 + \sqrt{1 - \bar\alpha'}\;\varepsilon$$
#
# ![Removing all predicted noise from the very noisy x gives an estimate of the image. Adding part
# of the noise back gives x′, which is less noisy than x.](figures/ddim.svg)
#
# The step is deterministic (η = 0 in the paper) and can be large: training uses 1,000 steps,
# sampling only 30.
#
# **The traps.** The last step goes to $\bar\alpha' = 1$ and returns the estimated image.
# $\bar\alpha$ may be a single number or, as in `add_noise`, one number per row.


# %%
def ddim_step(
    x: Float[Tensor, "b ..."],
    predicted_noise: Float[Tensor, "b ..."],
    alpha_bar: float | Float[Tensor, ""] | Float[Tensor, "b"],
    alpha_bar_next: float | Float[Tensor, ""] | Float[Tensor, "b"],
) -> Float[Tensor, "b ..."]:
    """Take the deterministic step from ᾱ to ᾱ′: estimate the image, then add back less noise.

    With x̂₀ = (x − √(1 − ᾱ) · ε) / √ᾱ, return √ᾱ′ · x̂₀ + √(1 − ᾱ′) · ε.

    Args:
        x: noisy images or other data, with any number of axes after the first.
        predicted_noise: ε, of the same shape as `x`.
        alpha_bar: the ᾱ of `x`, in (0, 1], as a number, a scalar tensor, or one value per row.
        alpha_bar_next: ᾱ′ in (0, 1], in any of these forms; 1 gives x̂₀.

    Returns:
        the data after the step, with the dtype of `x`. Gradients of ᾱ and ᾱ′ are not needed.

    Source: Song et al. (2021), equation 12 with σ = 0. Their α is our ᾱ.
    """
    ### BEGIN SOLUTION
    ones = [1] * (x.dim() - 1)
    here, there = (
        torch.as_tensor(alpha, dtype=torch.float64, device=x.device).reshape(-1, *ones)
        for alpha in (alpha_bar, alpha_bar_next)
    )
    picture = (x - (1 - here).sqrt() * predicted_noise) / here.sqrt()
    return (there.sqrt() * picture + (1 - there).sqrt() * predicted_noise).to(x.dtype)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_ddim_step():
        # Multiply the image (4, −2) by 0.8 and the noise (1, 2) by 0.6: 3.2 + 0.6 and −1.6 + 1.2.
        x, noise = torch.tensor([[3.8, -0.4]]), torch.tensor([[1.0, 2.0]])
        with expecting("ddim_step should accept numbers for ᾱ and ᾱ′"):
            result = ddim_step(x, noise, 0.64, 0.36)
        assert result is not None, "ddim_step returns None. Does it end with `return`?"
        assert torch.equal(x, torch.tensor([[3.8, -0.4]])), (
            "Your function changes `x` in place. Return a new tensor instead."
        )
        assert result.dtype == torch.float32, (
            f"A float32 x should give a float32 result; yours is {result.dtype}."
        )
        # Now multiply the image by 0.6 and the noise by 0.8: 2.4 + 0.8 and −1.2 + 1.6.
        assert torch.allclose(result, torch.tensor([[3.2, 0.4]]), atol=1e-5), (
            f"A step from ᾱ = 0.64 to ᾱ′ = 0.36 with the noise {noise} should change {x} to "
            f"[[3.2, 0.4]]; yours gives {result}. The estimate of the image should be [[4, −2]]."
        )
        last = ddim_step(x, noise, 0.64, 1.0)
        assert torch.allclose(last, torch.tensor([[4.0, -2.0]]), atol=1e-5), (
            f"ᾱ′ = 1 should give the image [[4, −2]]; yours gives {last}."
        )
        with expecting("ddim_step should accept scalar tensors for ᾱ and ᾱ′"):
            stay = ddim_step(x, noise, torch.tensor(0.64), torch.tensor(0.64))
        assert torch.allclose(stay, x, atol=1e-5), (
            f"If ᾱ′ equals ᾱ, x should not change; yours becomes {stay}."
        )
        # Row 0 takes the same step as above, and row 1 goes from ᾱ = 0.36 to the image.
        rows = torch.tensor([[3.8, -0.4], [3.2, 0.4]])
        alphas, nexts = torch.tensor([0.64, 0.36]), torch.tensor([0.36, 1.0])
        with expecting("ddim_step should accept one ᾱ and one ᾱ′ per row"):
            result = ddim_step(rows, noise.expand(2, 2), alphas, nexts)
        expected = torch.tensor([[3.2, 0.4], [4.0, -2.0]])
        assert torch.allclose(result, expected, atol=1e-5), (
            f"With one ᾱ per row, the result should be\n{expected}\nyours is\n{result}\n"
            "Align ᾱ with the first axis of x."
        )
        half = ddim_step(rows.half(), noise.expand(2, 2).half(), alphas, 1.0)
        assert half.dtype == torch.float16, (
            f"A float16 x should give a float16 result; yours is {half.dtype}."
        )
        rows, noise = fixed_numbers(2, 3, 2), fixed_numbers(2, 3, 2).cos()
        with expecting("x of shape (2, 3, 2) with one ᾱ per row should work"):
            both = ddim_step(rows, noise, torch.tensor([0.5, 0.8]), torch.tensor([0.7, 0.9]))
        assert both.shape == (2, 3, 2), (
            f"The shape should be (2, 3, 2); yours is {tuple(both.shape)}."
        )
        second = ddim_step(rows[1:], noise[1:], 0.8, 0.9)
        assert torch.allclose(both[1:], second, atol=1e-5), (
            f"Row 1 with its own ᾱ and ᾱ′ should be\n{second}\nyours is\n{both[1:]}"
        )
        print("ddim_step: all visible checks pass.")

    check_ddim_step()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# ᾱ and ᾱ′ can each be a Python number, a scalar tensor or one value per row. Reshape them so that
# they broadcast over rows, then write one line per formula.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.as_tensor` accepts numbers and tensors. Reshape its result to `(-1, 1, …, 1)`, with as many
# axes as x. A single number then gets shape `(1, 1, …, 1)`, and one number per row gets shape
# `(b, 1, …, 1)`. Finally, convert the result to the dtype of x.
# </details>

# %% [markdown]
# ### Paths without a network
# *Further · 5 minutes*
#
# Suppose each data point is −1 or 1 with equal probability. Then the means of $x_0$ and ε given $x$
# have closed forms:
#
# $$\mathbb{E}[x_0 \mid x] = \tanh\!\left(\frac{\sqrt{\bar\alpha}\, x}{1 - \bar\alpha}\right) \qquad
# x = \sqrt{\bar\alpha}\; \mathbb{E}[x_0 \mid x] + \sqrt{1 - \bar\alpha}\; \mathbb{E}[\varepsilon \mid x]$$
#
# Your `ddim_step` moves 40 random numbers, first in 40 steps and then in 4.


# %% tags=["support"]
def path_of_numbers(n_steps):
    """Return the steps t, and the paths of 40 numbers from noise to data, of shape `n_steps+1 40`."""
    alpha_bar = cosine_schedule(1000)
    times = torch.linspace(980, 0, n_steps + 1).long()
    path = [torch.randn(40, generator=torch.Generator().manual_seed(0))]
    for here, there in itertools.pairwise(alpha_bar[times]):
        x = path[-1]
        mean = torch.tanh(here.sqrt() * x / (1 - here))
        epsilon = (x - here.sqrt() * mean) / (1 - here).sqrt()
        path.append(ddim_step(x, epsilon, here, there))
    return times, torch.stack(path)


# %%
if __name__ == "__main__":
    with demonstration():
        paths = [path_of_numbers(n_steps) for n_steps in (40, 4)]
        figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True, layout="constrained")
        for axis, (times, path) in zip(axes, paths, strict=True):
            axis.plot(times, path, color="tab:blue", alpha=0.5, linewidth=1)
            axis.set(title=f"{len(times) - 1} steps", xlabel="step t (noise left, data right)")
            axis.invert_xaxis()
        axes[0].set_ylabel("x")
        plt.show()

# %% [markdown]
# **What to notice.** With 40 steps, paths never cross, and numbers near 0 are the last to move
# towards −1 or 1. With 4 steps, these numbers do not reach −1 or 1.

# %% [markdown]
# ## Your diffusion transformer draws digits
#
# `DigitDiT` cuts a noisy image into patches with `patchify` from the vision chapter, applies three
# blocks, and predicts the noise in each patch. The condition is the sum of a step embedding and a
# digit embedding. Label 10 means "any digit".


# %%
NO_DIGIT = 10


class DigitDiT(nn.Module):
    """A network that predicts the noise in 8 × 8 images, given the step and the digit."""

    def __init__(self, d_model: int = 64, n_heads: int = 4, n_layers: int = 3):
        super().__init__()
        self.d_model = d_model
        self.patches = nn.Linear(4, d_model)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, d_model))
        self.step = nn.Sequential(
            nn.Linear(d_model, d_model), nn.SiLU(), nn.Linear(d_model, d_model)
        )
        self.digit = nn.Embedding(NO_DIGIT + 1, d_model)
        nn.init.normal_(self.digit.weight, std=0.02)
        self.stack = nn.ModuleList(DiTBlock(d_model, n_heads, 4 * d_model) for _ in range(n_layers))
        self.last_norm = nn.LayerNorm(d_model)
        self.out = nn.Linear(d_model, 4)

    def forward(
        self, x: Float[Tensor, "b 1 8 8"], t: Int[Tensor, "b"], labels: Int[Tensor, "b"]
    ) -> Float[Tensor, "b 1 8 8"]:
        condition = self.step(timestep_embedding(t, self.d_model)) + self.digit(labels)
        tokens = self.patches(patchify(x, 2)) + self.position  # b 16 d
        for block in self.stack:
            tokens = block(tokens, condition)
        return unpatchify(self.out(self.last_norm(tokens)), 2, 8, 8)


# %% [markdown]
# **Training** minimises the squared error of the predicted noise ([Ho et al.
# 2020](https://arxiv.org/abs/2006.11239), equation 14) for random digits, steps and noise:
#
# $$\text{loss} = \operatorname{mean}\Bigl[\bigl(\varepsilon
# - \varepsilon_\theta(\underbrace{x_t}_{b \times c \times H \times W},\ \underbrace{t}_{b},\
# \underbrace{\text{label}}_{b})\bigr)^2\Bigr]
# \qquad x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\,\varepsilon$$
#
# Here ε_θ is `DigitDiT`, and `add_noise` computes x_t. Each label is replaced by `NO_DIGIT` with
# probability 0.1.
#
# **Sampling** uses a moving average of the weights, which is less noisy than the final weights.
# Each step predicts the noise with and without the label (`guided_noise`) and removes part of it
# (`ddim_step`). A *guidance scale* above 1 amplifies the effect of the label.

# %% tags=["support"]
DENOISER_STEPS = 3000
DRAWING_STEPS = 30
DENOISER_BATCH, NOISE_LEVELS = 64, 1000


def train_denoiser(
    model: nn.Module, pictures: Float[Tensor, "k 1 8 8"], labels: Int[Tensor, "k"]
) -> tuple[nn.Module, list[float]]:
    """Train `model` for DENOISER_STEPS steps. Return a copy with averaged weights, and the loss at each step."""
    alpha_bar = cosine_schedule(NOISE_LEVELS)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    optimizer = torch.optim.AdamW(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=DENOISER_STEPS, pct_start=0.1
    )
    losses = []
    for _ in tqdm(
        range(DENOISER_STEPS), desc="learning to denoise", mininterval=0.5, file=sys.stdout
    ):
        drawn = torch.randint(len(pictures), (DENOISER_BATCH,))
        without = torch.rand(DENOISER_BATCH) < 0.1
        asked = labels[drawn].masked_fill(without, NO_DIGIT)
        t = torch.randint(1, NOISE_LEVELS + 1, (DENOISER_BATCH,))
        noise = torch.randn(DENOISER_BATCH, 1, 8, 8)
        loss = F.mse_loss(model(add_noise(pictures[drawn], t, noise, alpha_bar), t, asked), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        averaged.update_parameters(model)
        losses.append(loss.item())
    return averaged.module, losses


def draw_digits(
    model: nn.Module, labels: Int[Tensor, "b"], scale: float, seed: int = 1
) -> list[Float[Tensor, "b 1 8 8"]]:
    """Draw digits in DRAWING_STEPS deterministic steps. Return the images at each step, from noise to digits."""
    alpha_bar = cosine_schedule(NOISE_LEVELS)
    # Start just before the end of the schedule, because ddim_step divides by √ᾱ, which is almost 0 there.
    times = torch.linspace(0.98 * NOISE_LEVELS, 0, DRAWING_STEPS + 1).round().long()
    generator = torch.Generator().manual_seed(seed)
    path = [torch.randn(len(labels), 1, 8, 8, generator=generator)]
    with torch.no_grad():
        for now, following in itertools.pairwise(times):
            x, t = path[-1], now.expand(len(labels))
            noise = guided_noise(model, x, t, labels, scale, NO_DIGIT)
            path.append(ddim_step(x, noise, alpha_bar[now], alpha_bar[following]))
    # Clip pixel values to the range from black to white.
    return [*path[:-1], path[-1].clamp(-1, 1)]


@functools.cache
def trained_digit_dit(seed: int = 0) -> tuple[nn.Module, list[float]]:
    """Train a model, or return the model from an earlier call with the same seed."""
    torch.manual_seed(seed)
    pictures, labels, _, _ = diffusion_digits()
    return train_denoiser(DigitDiT(), pictures, labels)


# %% [markdown]
# The *judge*, a classifier trained only on real digits, decides whether a drawing shows the
# requested digit. *Diversity* is the mean distance between two drawings of the same digit.


# %% tags=["support"]
@functools.cache
def digit_judge() -> SVC:
    """Return a classifier trained on real digits."""
    pictures, labels, _, _ = diffusion_digits()
    return SVC(C=10, gamma=0.064).fit(pictures.flatten(1).numpy(), labels.numpy())


def fraction_recognised(pictures: Float[Tensor, "b 1 8 8"], labels: Int[Tensor, "b"]) -> float:
    """Return the fraction of images that the judge classifies as the given label."""
    return digit_judge().score(pictures.flatten(1).numpy(), labels.numpy())


def diversity(pictures: Float[Tensor, "b 1 8 8"], labels: Int[Tensor, "b"]) -> float:
    """Return the mean distance between two images of the same digit, averaged over the digits."""
    distances = [torch.pdist(pictures[labels == digit].flatten(1)).mean() for digit in range(10)]
    return torch.stack(distances).mean().item()


# %%
if __name__ == "__main__":
    predict("What percentage of the drawings at scale 1 will the judge recognise?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        trained_digit_dit.cache_clear()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more threads do not help with matrices this small
        start = time.perf_counter()
        digit_dit, _ = trained_digit_dit()
        requested = torch.arange(10).repeat(50)
        drawings = {scale: draw_digits(digit_dit, requested, scale)[-1] for scale in (1.0, 2.0)}
        record("seconds to train and draw 1,000 digits, on one core", time.perf_counter() - start)
        torch.set_num_threads(threads)

# %%
if __name__ == "__main__":
    with demonstration():
        predict.reveal(
            "What percentage of the drawings at scale 1 will the judge recognise?",
            100 * fraction_recognised(drawings[1.0], requested),
        )
        _, _, held_out, held_out_labels = diffusion_digits()
        record("real held-out digits recognised", fraction_recognised(held_out, held_out_labels))
        for scale, sheet in drawings.items():
            record(
                f"requested digits recognised, guidance scale {scale:g}",
                fraction_recognised(sheet, requested),
            )

        _, losses = trained_digit_dit()
        width = min(50, len(losses))
        smooth = F.avg_pool1d(torch.tensor([losses]), width, 1)[0]
        figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
        axis.semilogy(losses, color="tab:blue", alpha=0.25, linewidth=0.5, label="each step")
        axis.semilogy(range(width - 1, len(losses)), smooth, label=f"mean of {width}")
        axis.set(title="training", xlabel="step", ylabel="squared error of the noise")
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** The judge recognises 89–91% of 500 drawings at scale 1 (seeds 0 to 2), over 99%
# at scale 2, and 99% of held-out digits.

# %% [markdown]
# ### Watch the model draw
#
# Move the slider. The upper row shows x, and the lower row the estimated final image.


# %% tags=["support"]
# Use text for the buttons, because matplotlib would load its icons from the web.
BUTTONS = {
    "minus": "−",
    "fast-backward": "≪",
    "step-backward": "‹",
    "play fa-flip-horizontal": "◁",
    "pause": "‖",
    "play": "▷",
    "step-forward": "›",
    "fast-forward": "≫",
    "plus": "+",
}


def show_animation(sheets: list[Float[Tensor, "height width"]], titles: list[str]) -> None:
    """Show images as an animation with a slider. Outside a notebook, show only the last image."""
    figure, axis = plt.subplots(figsize=(8, 2.2), dpi=80, layout="constrained")
    image = axis.imshow(sheets[0], cmap="gray", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[4.5, 14.5], yticklabels=["x", "estimate"])

    def show(frame: int) -> None:
        image.set_data(sheets[frame])
        axis.set_title(titles[frame])

    if get_ipython() is None:
        show(-1)
        plt.show()
        return
    page = FuncAnimation(figure, show, len(sheets), interval=200).to_jshtml(default_mode="once")
    page = re.sub(r"<link[^>]*>", "", page)
    page = re.sub(r'<i class="fa fa-([^"]+)"></i>', lambda icon: BUTTONS[icon[1]], page)
    page = page.replace('<input id="_anim_slider', '<input aria-label="frame" id="_anim_slider')
    page = page.replace(
        '<img id="_anim_img', '<img alt="the frame that the slider shows" id="_anim_img'
    )
    plt.close(figure)
    display(HTML(page))


# %%
if __name__ == "__main__":
    with demonstration():
        digit_dit, _ = trained_digit_dit()
        asked = torch.arange(10)
        path = draw_digits(digit_dit, asked, scale=2.0, seed=3)
        alpha_bar = cosine_schedule(NOISE_LEVELS)
        times = torch.linspace(0.98 * NOISE_LEVELS, 0, len(path)).round().long()
        sheets = []
        with torch.no_grad():
            for x, t in zip(path[:-1], times, strict=False):
                noise = guided_noise(digit_dit, x, t.expand(10), asked, 2.0, NO_DIGIT)
                sheets.append(digit_sheet([x, ddim_step(x, noise, alpha_bar[t], 1.0)]))
        sheets.append(digit_sheet([path[-1], path[-1]]))
        show_animation(sheets, [f"step t = {t}" for t in times.tolist()])

# %% [markdown]
# **What to notice.** In the lower row, you can recognise most digits within the first three steps,
# while x still looks like noise. The remaining steps only refine the strokes.

# %% [markdown]
# ### What guidance costs
# *Further · 10 minutes*
#
# The model draws 200 digits at each of eight guidance scales, from 0 to 16.

# %%
if __name__ == "__main__":
    predict("What percentage will the judge recognise at guidance scale 0?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        digit_dit, _ = trained_digit_dit()
        pictures, labels, _, _ = diffusion_digits()
        asked = torch.arange(10).repeat(20)
        scales = [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 16.0]
        drawn = [draw_digits(digit_dit, asked, scale)[-1] for scale in scales]
        by_scale = {
            "correct (%)": [100 * fraction_recognised(sheet, asked) for sheet in drawn],
            "diversity (real digits: 100)": [
                100 * diversity(sheet, asked) / diversity(pictures, labels) for sheet in drawn
            ],
            "white pixels (%)": [100 * (sheet == 1).float().mean().item() for sheet in drawn],
        }
        predict.reveal(
            "What percentage will the judge recognise at guidance scale 0?",
            by_scale["correct (%)"][0],
        )
        figure, (grid, right) = plt.subplots(
            1, 2, figsize=(11, 3.8), width_ratios=(10, 9), layout="constrained"
        )
        show_digits(grid, [sheet[:10] for sheet in drawn], "each column starts with the same noise")
        grid.set_xticks([10 * i + 4.5 for i in range(10)], range(10))
        grid.set_yticks([10 * i + 4.5 for i in range(len(scales))], [f"{s:g}" for s in scales])
        grid.set(xlabel="requested digit", ylabel="guidance scale")
        for what, values in by_scale.items():
            right.plot([f"{s:g}" for s in scales], values, "o-", label=what)
        right.axhline(100 * (pictures == 1).float().mean(), color="C2", ls=":", label="real digits")
        right.set(xlabel="guidance scale", ylim=(0, 135))
        right.legend()
        plt.show()
        print("scale", *by_scale, sep="   ")
        for scale, *values in zip(scales, *by_scale.values(), strict=True):
            print(
                f"{scale:5g}",
                *(f"{v:{len(w)}.1f}" for w, v in zip(by_scale, values, strict=True)),
                sep="   ",
            )

# %% [markdown]
# **What to notice.** At scale 0, a tenth of the digits are correct, no more than by guessing. From
# scale 2 on, nearly all are. Up to scale 5, guidance trades diversity for fidelity to the label (seeds
# 0 to 2):
#
# |scale|1|2|5|16|
# |---|---|---|---|---|
# |diversity|97–100|80–81|65–69|81–99|
# |white pixels (%)|3|4|7–8|16–20|
#
# Then diversity rises again: the amplified noise pushes more and more pixels beyond white, where they
# are clipped. In real digits, 9% of the pixels are white.

# %% [markdown]
# ### Your experiment: complete half a digit
# *Further · 10 minutes*
#
# Keep the upper half of a held-out digit, and let the model draw the rest: after each step, the kept
# pixels are replaced by the original with noise. Choose a digit (0 to 449), the label to draw, and the
# pixels to keep.

# %%
if __name__ == "__main__":
    predict("How many of 20 completed digits will the judge read as your label?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        my_digit, my_label = 7, 8
        kept = torch.zeros(8, 8, dtype=torch.bool)
        kept[:4] = True  # the upper half

        digit_dit, _ = trained_digit_dit()
        alpha_bar = cosine_schedule(NOISE_LEVELS)
        original = diffusion_digits()[2][my_digit].expand(20, 1, 8, 8)
        asked = torch.full((20,), my_label)
        x = noise = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        times = torch.linspace(0.98 * NOISE_LEVELS, 0, DRAWING_STEPS + 1).round().long()
        for now, following in itertools.pairwise(times):
            with torch.no_grad():
                predicted = guided_noise(digit_dit, x, now.expand(20), asked, 2.0, NO_DIGIT)
            x = ddim_step(x, predicted, alpha_bar[now], alpha_bar[following])
            noisy_original = add_noise(original, following.expand(20), noise, alpha_bar)
            x = torch.where(kept, noisy_original, x)
        predict.reveal(
            "How many of 20 completed digits will the judge read as your label?",
            round(20 * fraction_recognised(x, asked)),
        )
        figure, axis = plt.subplots(figsize=(10, 1.6), layout="constrained")
        show_digits(axis, [torch.cat([original[:1], x[:9]])], "the original, then nine completions")
        plt.show()

# %% [markdown]
# **Read.** [Peebles and Xie 2022](https://arxiv.org/abs/2212.09748), section 3.2 and figure 3. [Ho
# et al. 2020](https://arxiv.org/abs/2006.11239), sections 2 and 3. [Weng, What are Diffusion
# Models?](https://lilianweng.github.io/posts/2021-07-11-diffusion-models/), for the derivations.
#
# **Discuss.**
#
# 1. The loss falls quickly at first, then slowly, and cannot reach 0. Why not?
# 2. A chorale model samples one token at a time; this model generates all pixels in 30 steps. What
#    would you have to change to generate music with diffusion, or digits token by token?
#
# <details><summary>Answers</summary>
#
# 1. The best possible prediction is the mean of the noise given x. Most of the remaining loss comes
#    from small t, where the network cannot distinguish the noise in a pixel from the handwriting.
#    At large t, x is almost pure noise, so its noise is easy to predict.
# 2. Gaussian noise can only be added to continuous values. You would have to represent the music as
#    vectors, such as a piano roll or embeddings. To generate digits token by token, choose a pixel
#    order, use the pixel intensities as tokens, and train a GPT. Sampling then takes one forward
#    pass per pixel.
# </details>
