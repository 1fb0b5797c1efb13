# %% [markdown]
# # The family
#
# *Chapter 6 of 8*
#
# Most descendants of the Transformer change one part of it. You will implement five of these
# changes. With `rotary_embedding` and `alibi_bias`, scores depend on the **distance** between query
# and key. `sliding_window_mask`, `linear_attention` and `grouped_query_attention` reduce **cost**.
# Full attention compares n² pairs of positions, and generation caches all keys and values. [Mistral
# 7B](https://arxiv.org/abs/2310.06825) combines a sliding window, grouped-query attention and (in
# its [code](https://github.com/mistralai/mistral-inference)) rotary embeddings;
# [BLOOM](https://arxiv.org/abs/2211.05100) uses ALiBi.
#
# In this chapter, $d$ is the dimension of a query or key in one head, and $d_v$ that of a value.

# %%
import copy
import functools
import math
import sys
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from solutions.day2.language_model import TOPIC_HELD_OUT, TOPIC_SYMBOLS, TOPIC_TRAINING
from solutions.opening import (
    demonstration,
    expecting,
    expecting_value_error,
    fixed_numbers,
    predict,
    record,
    visible_check,
)


class LargestTensor(TorchDispatchMode):
    """A context manager that records the size in bytes of the largest tensor that PyTorch creates."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


# %% [markdown]
# ## `rotary_embedding`
# ★★★☆☆ · 20 minutes
#
# In text, the distance between two tokens usually matters more than their positions. The rotary
# embedding (RoPE, [Su et al. 2021](https://arxiv.org/abs/2104.09864), section 3.2) rotates each
# query and key in every layer by an angle proportional to its position. Rotating both by the same
# angle does not change their dot product. Only the difference between the angles matters, and it
# depends only on the distance.
#
# ![The left side shows two ways to pair six columns. This exercise, the paper and Meta's Llama pair
# columns 0 and 1, 2 and 3, 4 and 5. GPT-NeoX and Hugging Face's Llama pair columns 0 and 3, 1 and
# 4, 2 and 5. On the right, a query at position 1 and a key at position 3 form the same angle as at
# positions 4 and 6.](figures/rope.svg)
#
# A rotation acts on a plane, so the d columns form d/2 pairs. At position $p$, pair
# $i = 0, 1, \dots$ becomes
#
# $$\begin{pmatrix} y_{2i} \\ y_{2i+1} \end{pmatrix} =
# \begin{pmatrix} \cos p\,\omega_i & -\sin p\,\omega_i \\
# \sin p\,\omega_i & \phantom{-}\cos p\,\omega_i \end{pmatrix}
# \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix}
# \qquad \omega_i = \mathrm{base}^{-2i/d} \qquad x, y: n \times d$$
#
# **A small example.** If d = 2, then ω₀ = 1. The vector (1, 0) becomes (0.54, 0.84) at position 1
# and (−0.42, 0.91) at position 2. Their dot product is 0.54 = cos 1, the same as for positions 0
# and 1.
#
# **The traps.**
#
# * *Adjacent* columns form a pair, as in the paper and in Meta's Llama code. GPT-NeoX and Hugging
#   Face's Llama pair column i with i + d/2, and permute the weights.
# * Row r need not be at position r. With a cache, a model rotates one row at a time.
# * Float16 rounds 9,999 to 10,000, so compute the angles in float32 or float64.


# %%
def rotary_embedding(
    x: Float[Tensor, "*batch n d"], positions: Int[Tensor, " n"], base: float = 10000.0
) -> Float[Tensor, "*batch n d"]:
    """Rotate columns (2i, 2i+1) of each row by the angle position · base^(−2i/d).

    A pair (a, b) becomes (a·cos − b·sin, a·sin + b·cos).

    Args:
        x: queries or keys.
        positions: the position of each row, from 0 to 10,000, in any order.
        base: the base of the frequencies; a larger base makes later pairs rotate more slowly.

    Returns:
        the rotated rows, with the dtype of `x`. Angles must be computed in float32 or float64, even
        if `x` has half precision.

    Raises:
        ValueError: if d is odd. The message names d.

    Source: Su et al. (2021), section 3.2.
    """
    ### BEGIN SOLUTION
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"d is {d}, but x must have an even number of columns")
    doubled = torch.arange(0, d, 2, dtype=torch.float64, device=x.device)  # 2i
    angles = positions.unsqueeze(1) * base ** (-doubled / d)  # n × d/2
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]  # *batch × n × d/2
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_rotary_embedding():
        x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        with expecting("3 rows of 2 columns and 3 positions should work"):
            turned = rotary_embedding(x, torch.tensor([0, 1, 1]))
        assert turned is not None, "rotary_embedding returns None. Does it end with `return`?"
        assert turned.shape == (3, 2), (
            f"The shape should still be (3, 2); yours is {tuple(turned.shape)}."
        )
        assert turned.dtype == torch.float32, (
            f"The result should have the dtype of x, float32; yours is {turned.dtype}."
        )
        assert x.tolist() == [[1, 0], [1, 0], [0, 2]], (
            "Your function changes `x` in place. Return a new tensor instead."
        )
        # With d = 2, there is one pair, and its angle is the position.
        expected = torch.tensor([[1.0, 0.0], [0.540302, 0.841471], [-1.682942, 1.080605]])
        assert torch.allclose(turned, expected, atol=1e-5), (
            f"At positions 0, 1, 1, the rows\n{x}\nshould become\n{expected}\nYours become\n{turned}\n"
            "With d = 2, the angle is the position. Compare both features with the formula."
        )
        # With d = 4 and base 100, the second pair rotates ten times more slowly than the first.
        x = torch.tensor([[[0.0, 0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]])
        with expecting("x of shape (2, 1, 4) and 1 position should work"):
            seen = rotary_embedding(x, torch.tensor([10]), base=100.0)
        expected = torch.tensor([[[0.0, 0.0, 0.540302, 0.841471]], [[-0.839072, -0.544021, 0, 0]]])
        assert torch.allclose(seen, expected, atol=1e-5), (
            "At position 10 with base 100, columns 0 and 1 should rotate by 10, and columns 2 and 3 by 1. "
            f"The input\n{x}\nshould become\n{expected}\nYours becomes\n{seen}\n"
            "Columns 2i and 2i + 1 form a pair, and its frequency is base^(−2i/d)."
        )
        # With base 10,000 and d = 4, the second pair rotates a hundred times more slowly.
        seen = rotary_embedding(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([100]))
        assert torch.allclose(seen, expected[0], atol=1e-4), (
            "With d = 4 and the default base, position 100 should rotate columns 2 and 3 by 1 to "
            f"(0.540, 0.841); yours become {seen[0, 2:].tolist()}. Check how you use `base`."
        )
        far = torch.tensor([[1.0, 0.0]], dtype=torch.float16)
        with expecting("rotary_embedding should accept float16"):
            seen = rotary_embedding(far, torch.tensor([9999]))
        assert seen.dtype == torch.float16, (
            f"The result should have the dtype of x, float16; yours is {seen.dtype}."
        )
        # 9999 radians are 1591 full turns plus an angle of 2.4522, with cosine −0.7716 and sine 0.6361.
        assert torch.allclose(seen.float(), torch.tensor([[-0.7716, 0.6361]]), atol=1e-2), (
            "In float16, position 9999 should rotate (1, 0) to (−0.772, 0.636); yours gives "
            f"{seen[0].tolist()}. In which dtype do you compute the angle?"
        )
        wide = rotary_embedding(far.double(), torch.tensor([1])).dtype
        assert wide == torch.float64, (
            f"The result should have the dtype of x, float64; yours is {wide}."
        )
        with expecting_value_error("d = 3", "d", "x"):
            rotary_embedding(torch.zeros(2, 3), torch.tensor([0, 1]))
        print("rotary_embedding: all visible checks pass.")

    check_rotary_embedding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First compute the angles as an outer product, with one row per position and one column per *pair*.
# The slices `x[..., 0::2]` and `x[..., 1::2]` contain the first and the second element of every
# pair.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compute the rotated first and second elements as two tensors with d/2 columns each. To interleave
# them, stack them along a new last axis and flatten the last two axes. `torch.arange(0, d, 2)`
# contains the values 2i. Compute the angles in float64, and convert only the sine and cosine to the
# dtype of `x`.
# </details>

# %% [markdown]
# The demonstration places the same query and key at each of 40 positions and plots all 40 × 40
# scores, with one row per query.

# %%
if __name__ == "__main__":
    predict("Along which lines are all scores equal?", ..., one_of=["rows", "columns", "diagonals"])

# %%
if __name__ == "__main__":
    with demonstration():
        # Rotate the vector (1, 0, 1, 0, …) for positions 0 to 20, and plot each pair as a point.
        places = torch.arange(21)
        hands = rotary_embedding(torch.tensor([1.0, 0.0] * 4).expand(21, 8), places)
        # Use the same query and the same key at every position.
        torch.manual_seed(3)
        rotated = [
            rotary_embedding(vector.expand(40, 32), torch.arange(40))
            for vector in torch.randn(2, 1, 32)
        ]
        scores = rotated[0] @ rotated[1].T
        spread = {
            "rows": scores.std(dim=1).max(),
            "columns": scores.std(dim=0).max(),
            "diagonals": scores.diagonal().std(),
        }
        predict.reveal("Along which lines are all scores equal?", min(spread, key=spread.get))
        figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
        for pair, axis in enumerate(axes[:3]):
            width, height = hands[:, 2 * pair], hands[:, 2 * pair + 1]
            axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="grey"))
            points = axis.scatter(width, height, c=places, cmap="viridis", zorder=2)
            axis.set(title=f"pair {pair}", aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
            axis.set(xlabel=f"column {2 * pair}", ylabel=f"column {2 * pair + 1}")
        figure.colorbar(points, ax=axes[2], label="position")
        image = axes[3].imshow(scores, cmap="viridis")
        axes[3].set(title="one query · one key", xlabel="position of the key")
        axes[3].set_ylabel("position of the query")
        figure.colorbar(image, ax=axes[3], label="score")
        plt.show()

# %% [markdown]
# **What to notice.** Over 20 positions, pair 0 makes three full turns, while pair 2 hardly moves.
# Fast pairs distinguish neighbours; slow pairs distinguish near from far. On the right, each
# diagonal is a single colour, because the score depends only on the difference between positions.

# %% [markdown]
# ## `alibi_bias`
# ★★☆☆☆ · 15 minutes
#
# ALiBi ([Press et al. 2022](https://arxiv.org/abs/2108.12409), section 3) subtracts the distance
# times a slope from each score. Each head has its own slope:
#
# ![The bias that ALiBi adds to the scores of two heads, for four positions. The head with slope 1/4
# subtracts 1/4 per position, and the head with slope 1/64 subtracts 1/64 per position. Entries
# above the diagonal are minus infinity.](figures/alibi.svg)
#
# $$\mathrm{softmax}\big(Q_k K_k^\top / \sqrt{d} + B_k\big) V_k \qquad
# B_{k,i,j} = \begin{cases} -\,s_k\,(i - j) & j \le i \\ -\infty & j > i \end{cases}
# \qquad B: h \times n \times n$$
#
# The slopes are fixed. If the number of heads h is a power of two, they are
#
# $$s_k = 2^{-8k/h} \qquad k = 1, 2, \dots, h$$
#
# The paper uses this formula for every h. The authors' code, which we follow, uses it only for
# powers of two. For other h, start with the slopes for the largest power of two below h. Append the
# 1st, 3rd, 5th, … slopes for the *next* power of two until you have h slopes.
#
# **The traps.** For other h, the formula gives plausible slopes, but not those of the authors'
# code. The slopes are not sorted. 0 · ∞ is NaN, so do not multiply a mask by −∞.


# %%
def alibi_bias(n_heads: int, n: int) -> Float[Tensor, "h n n"]:
    """Return ALiBi's bias: −slope · (i − j) for j ≤ i, and −inf above the diagonal.

    Args:
        n_heads: the number of heads h. If h is a power of two, the slopes are 2^(−8k/h) for
            k = 1, …, h. Otherwise, they are the slopes for the largest power of two below h, followed
            by the 1st, 3rd, 5th, … slopes for the next power of two.
        n: the number of positions.

    Returns:
        a float32 tensor with one n × n matrix per head.

    Source: Press et al. (2022), section 3; if h is not a power of two, the authors' code.
    """
    ### BEGIN SOLUTION
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    position = torch.arange(n)
    distance = position.unsqueeze(1) - position  # i − j
    bias = -torch.tensor(slopes[:n_heads]).view(n_heads, 1, 1) * distance
    return bias.masked_fill(distance < 0, -math.inf)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_alibi_bias():
        with expecting("2 heads and 3 positions should work"):
            bias = alibi_bias(2, 3)
        assert bias is not None, "alibi_bias returns None. Does it end with `return`?"
        assert isinstance(bias, torch.Tensor), (
            f"The bias should be a tensor; yours is of type {type(bias).__name__}."
        )
        assert bias.shape == (2, 3, 3), (
            f"2 heads and 3 positions should give the shape (2, 3, 3); yours is {tuple(bias.shape)}."
        )
        assert bias.dtype == torch.float32, f"The bias should be float32; yours is {bias.dtype}."
        assert not bias.isnan().any(), (
            f"Your bias contains NaN:\n{bias}\nDo you multiply 0 by infinity?"
        )
        future = torch.ones(3, 3, dtype=torch.bool).triu(1)
        assert bias[:, future].isneginf().all(), (
            f"Entries above the diagonal (later keys) should be −inf; your bias is\n{bias}"
        )
        # The slopes of 2 heads are 2^−4 and 2^−8.
        seen = bias[:, [0, 1, 2, 2], [0, 0, 0, 1]]
        expected = torch.tensor(
            [[0.0, -1 / 16, -1 / 8, -1 / 16], [0, -1 / 256, -1 / 128, -1 / 256]]
        )
        assert torch.allclose(seen, expected, atol=1e-6), (
            f"At (i, j) = (0, 0), (1, 0), (2, 0), (2, 1), the biases of the two heads should be\n{expected}\n"
            f"yours are\n{seen}\nThe slopes are 1/16 and 1/256."
        )
        # The slopes for 5 heads are the four slopes for 4 heads and the first slope for 8 heads.
        for wanted in ([2.0**-k for k in range(1, 9)], [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2]):
            h = len(wanted)
            slopes = -alibi_bias(h, 2)[:, 1, 0]  # at distance 1, the bias is minus the slope
            assert len(slopes) == h, f"{h} heads should have {h} slopes; yours have {len(slopes)}."
            assert torch.allclose(slopes, torch.tensor(wanted)), (
                f"The slopes for {h} heads should be {wanted}, in this order; yours are "
                f"{slopes.tolist()}." + " 5 is not a power of two." * (h == 5)
            )
        slopes = -alibi_bias(13, 2)[:, 1, 0]
        assert len(slopes.unique()) == 13, (
            f"The slopes for 13 heads should all differ; yours are {slopes.tolist()}. After the 8 "
            "slopes for 8 heads, take every other slope for 16 heads."
        )
        print("alibi_bias: all visible checks pass.")

    check_alibi_bias()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compute two independent parts: a list of h slopes, and an n × n table of distances. If their
# shapes are `(h, 1, 1)` and `(n, n)`, their product broadcasts to `(h, n, n)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Write an expression that lists the slopes for a power of two. Let `power` be the largest power of
# two that is at most h. Evaluate the expression for `power` and for `2 * power`, and take every
# other entry of the second list. Concatenate the lists and keep the first h entries. Use
# `masked_fill` to set the bias to −inf where the distance is negative.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        bias = alibi_bias(8, 32)
        slopes = {heads: -alibi_bias(heads, 2)[:, 1, 0] for heads in (8, 12)}
        figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
        for head, axis in zip((0, 2, 4), axes[:3], strict=True):
            # Plot the attention weights that result if all keys match equally well.
            image = axis.imshow(bias[head].softmax(dim=-1), cmap="viridis", vmin=0, vmax=0.5)
            axis.set(title=f"slope 1/{2 ** (head + 1)}", xlabel="key", ylabel="query")
        figure.colorbar(image, ax=axes[2], label="weight")
        for heads, marker in ((12, "s"), (8, "o")):
            axes[3].plot(range(1, heads + 1), slopes[heads], marker, label=f"{heads} heads")
        axes[3].set_yscale("log", base=2)
        axes[3].set(title="slopes", xlabel="head", ylabel="slope", xticks=range(1, 13))
        axes[3].legend(loc="lower left")
        plt.show()

# %% [markdown]
# **What to notice.** If all keys match equally well, a head with slope s attends mostly to the last
# 1/s positions, here 2, 8 and 32. With 12 heads, the last four slopes interleave with the
# four largest of the first eight.

# %% [markdown]
# ## `sliding_window_mask`
# ★☆☆☆☆ · 5 minutes
#
# Most of the relevant context is often nearby. With a window of size w ([Beltagy et al.
# 2020](https://arxiv.org/abs/2004.05150), section 3.1), each position sees itself and the w − 1
# positions before it. This reduces n² pairs to at most n·w. Information from further back arrives
# through several layers.
#
# ![Masks for six positions, with windows of 1, 3 and at least 6. The last panel shows that two
# layers with a window of 3 reach up to four positions back.](figures/window.svg)
#
# $$\mathrm{mask}_{i,j} = (i - w < j \le i) \qquad \mathrm{mask}: n \times n$$
#
# **The trap.** Does a window of w include the position itself? Here it does, so a window of 1 gives
# the diagonal.


# %%
def sliding_window_mask(n: int, window: int) -> Bool[Tensor, "n n"]:
    """Return a mask that is True where i − window < j ≤ i.

    Args:
        n: the number of positions.
        window: the number of positions that each position sees, including itself.

    Raises:
        ValueError: if `window` is less than 1. The message names it.

    Source: Beltagy et al. (2020), section 3.1, after Child et al. (2019), section 4.
    """
    ### BEGIN SOLUTION
    if window < 1:
        raise ValueError(f"window is {window}, but it must be at least 1")
    position = torch.arange(n)
    distance = position.unsqueeze(1) - position  # i − j
    return (distance >= 0) & (distance < window)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_sliding_window_mask():
        with expecting("4 positions and a window of 2 should work"):
            mask = sliding_window_mask(4, 2)
        assert mask is not None, "sliding_window_mask returns None. Does it end with `return`?"
        assert isinstance(mask, torch.Tensor), (
            f"The mask should be a tensor; yours is of type {type(mask).__name__}."
        )
        assert mask.shape == (4, 4), f"The shape should be (4, 4); yours is {tuple(mask.shape)}."
        assert mask.dtype == torch.bool, f"The mask should be boolean; yours is {mask.dtype}."
        expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
        assert mask.int().tolist() == expected, (
            f"4 positions with a window of 2 should give\n{expected}\nyours give\n{mask.int().tolist()}\n"
            "Rows are queries (i) and columns are keys (j). The window includes the position itself."
        )
        assert sliding_window_mask(4, 9).sum() == 10, (
            "With 4 positions and a window of 9, the mask should allow all 10 pairs with j ≤ i; yours "
            f"allows {sliding_window_mask(4, 9).sum()}."
        )
        with expecting("A window of 1 should work"):
            assert sliding_window_mask(3, 1).int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]], (
                "With a window of 1, each position should see only itself; your mask is\n"
                f"{sliding_window_mask(3, 1).int().tolist()}"
            )
        for window in (0, -3):
            with expecting_value_error(f"A window of {window}", "window"):
                sliding_window_mask(4, window)
        seen = sliding_window_mask(7, 4).sum(dim=-1).tolist()
        assert seen == [1, 2, 3, 4, 4, 4, 4], (
            f"With a window of 4, the rows should allow 1, 2, 3, 4, 4, 4, 4 positions; yours allow {seen}."
        )
        print("sliding_window_mask: all visible checks pass.")

    check_sliding_window_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compare the positions as a column (i) with the positions as a row (j). Broadcasting gives the
# matrix.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Combine two comparisons with `&`. Python's chained comparison `a < b <= c` does not work on
# tensors.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        mask = sliding_window_mask(24, 4)
        reach = [mask]
        for _ in range(3):
            # One more layer gives position i everything that the positions in its window have received.
            reach.append((reach[-1].float() @ mask.float()) > 0)
        figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
        for layers, (seen, axis) in enumerate(zip(reach, axes, strict=True), start=1):
            axis.imshow(seen, cmap="Blues", vmin=0, vmax=1.5)
            count = int(seen[-1].sum())
            axis.set(title=f"{layers} layer{'s' * (layers > 1)}: {count} positions")
            axis.set(xlabel="source of information", ylabel="position")
        plt.show()

# %% [markdown]
# **What to notice.** With a window of 4, one layer reaches 4 positions, and each additional layer
# adds 3. The mask alone saves nothing: the n × n scores are still computed.

# %% [markdown]
# ## `linear_attention`
# ★★★★☆ · 25 minutes
#
# Softmax needs $\exp(q \cdot k)$ for each pair, so the n × m scores must be computed first. If we
# replace the exponential with a product $\varphi(q) \cdot \varphi(k)$, associativity lets us
# multiply in a different order ([Katharopoulos et al. 2020](https://arxiv.org/abs/2006.16236),
# sections 3.2 and 3.3):
#
# ![The product of φ(Q), φ(K) transposed and V, computed in two orders. Multiplying queries by keys
# first gives an n × m matrix. Multiplying keys by values first gives a d × d_v matrix, which does
# not grow with n.](figures/brackets.svg)
#
# $$O_i = \frac{\sum_j \big(\varphi(q_i) \cdot \varphi(k_j)\big)\, v_j}
# {\sum_j \varphi(q_i) \cdot \varphi(k_j)}
# = \frac{\varphi(q_i)^\top \overbrace{\sum_j \varphi(k_j)\, v_j^\top}^{S:\ d \times d_v}}
# {\varphi(q_i) \cdot \underbrace{\sum_j \varphi(k_j)}_{z:\ d}}
# \qquad \varphi(x) = \mathrm{elu}(x) + 1$$
#
# (elu(x) is x for x > 0 and $e^x - 1$ otherwise.) S and z do not depend on i, so compute them once
# for all queries. With `causal=True`, they become running sums. Each position updates this
# **state**, then reads it:
#
# ![Each of four positions adds φ(k) vᵀ to the state S and φ(k) to the state z, and passes both on
# to the next position. The output at a position is computed from S, z and
# φ(q).](figures/running-state.svg)
#
# At generation time, the layer is a recurrent network with a fixed-size state.
#
# **The traps.** Without the denominator, outputs grow with m. A mask would require the n × m
# matrix, and an `einsum` with three operands may create it internally. Apply φ to queries *and*
# keys, never to values.


# %%
def linear_attention(
    query: Float[Tensor, "*batch n d"],
    key: Float[Tensor, "*batch m d"],
    value: Float[Tensor, "*batch m d_v"],
    causal: bool = False,
) -> Float[Tensor, "*batch n d_v"]:
    """Compute attention with weights φ(q)·φ(k), normalised to sum to 1 over keys. φ(x) is elu(x) + 1.

    Do not create an n × m tensor: memory must grow linearly with n. With `causal`, tensors with
    n·d·d_v entries are allowed. The result only has to be correct for entries above −10, because
    elu(−20) + 1 is exactly 0 in float32. For the same reason, you may add an ε below 10⁻⁴ to the
    denominator.

    Args:
        query, key, value: tensors with the same leading axes.
        causal: whether position i sees only the keys j ≤ i. In this case, n = m.

    Source: Katharopoulos et al. (2020), sections 3.2 and 3.3.
    """
    ### BEGIN SOLUTION
    phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
    if causal:
        products = phi_key.unsqueeze(-1) * value.unsqueeze(-2)  # *batch × n × d × d_v
        state = products.cumsum(dim=-3)
        total = phi_key.cumsum(dim=-2)  # *batch × n × d
        read = (phi_query.unsqueeze(-2) @ state).squeeze(-2)
    else:
        state = phi_key.mT @ value  # *batch × d × d_v
        total = phi_key.sum(dim=-2, keepdim=True)  # *batch × 1 × d
        read = phi_query @ state
    return read / (phi_query * total).sum(dim=-1, keepdim=True)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_linear_attention():
        half = -math.log(2)  # φ(half) = 1/2, φ(0) = 1, φ(1) = 2, φ(2) = 3
        query = torch.tensor([[0.0, half], [2.0, 0.0]])
        key = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        value = torch.tensor([[9.0, 1.0, 0.0], [18.0, 1.0, 0.0]])
        with expecting("2 queries and 2 keys of width 2, with values of width 3, should work"):
            output = linear_attention(query, key, value)
        assert output is not None, "linear_attention returns None. Does it end with `return`?"
        assert output.shape == (2, 3), (
            f"2 queries and values of width 3 should give shape (2, 3); yours is {tuple(output.shape)}."
        )
        assert torch.allclose(output[:, 1], torch.ones(2), atol=1e-3), (
            "The weights of a query should sum to 1. Column 1 of the values is all ones, so column 1 of "
            f"the output should also be all ones; yours is {output[:, 1].tolist()}. Check the denominator, "
            "and which of the three inputs φ is applied to."
        )
        # The weights are in the ratio 2 : 2.5 for query 0 and 5 : 7 for query 1.
        assert torch.allclose(output[:, 0], torch.tensor([14.0, 14.25]), atol=1e-2), (
            "The weights should be in the ratio 2 : 2.5 for query 0 and 5 : 7 for query 1, so the first "
            f"column should be 14 and 14.25; yours is {output[:, 0].tolist()}. φ(x) is elu(x) + 1."
        )
        with expecting("causal=True should work for 2 queries and 2 keys"):
            causal = linear_attention(query, key, value, causal=True)
        assert causal.shape == (2, 3), (
            f"With causal=True, the shape should also be (2, 3); yours is {tuple(causal.shape)}."
        )
        assert torch.allclose(causal[:, 0], torch.tensor([9.0, 14.25]), atol=1e-2), (
            "With causal=True, query 0 sees only key 0, so the first column should be 9 and 14.25; "
            f"yours is {causal[:, 0].tolist()}. Do both sums run along the positions, up to and "
            "including the current one?"
        )
        with expecting("Leading axes (4, 2) should work"):
            batch = linear_attention(
                query.expand(4, 2, 2, 2), key.expand(4, 2, 2, 2), value.expand(4, 2, 2, 3)
            )
        assert batch.shape == (4, 2, 2, 3), (
            f"Leading axes (4, 2) should be kept; your result has shape {tuple(batch.shape)}."
        )
        assert torch.allclose(batch[3, 1], output, atol=1e-3), (
            "Each entry of a batch should give the same result as it does without leading axes; yours "
            "does not. Count axes from the end."
        )
        x = fixed_numbers(1, 2, 3, 2).double().requires_grad_()
        with expecting("float64, leading axes (1, 2) and causal=True should work"):
            wide = linear_attention(x, x, x, causal=True)
        assert wide.dtype == torch.float64, (
            f"The result should have the dtype of the inputs, float64; yours is {wide.dtype}."
        )
        assert torch.allclose(wide[:, :, -1], linear_attention(x, x, x)[:, :, -1], atol=1e-3), (
            "The last position sees every key, so causal=True should not change its output; yours "
            "changes. Along which axis do your sums run if there are leading axes?"
        )
        with expecting(
            "The backward pass should work with causal=True",
            "Avoid in-place operations such as `+=`.",
        ):
            wide.sum().backward()
        large = torch.full((1, 1), 100.0).requires_grad_()
        linear_attention(large, large, large).sum().backward()
        assert large.grad.isfinite().all(), (
            f"The gradient for entries of 100 should be finite; yours is {large.grad.item()}. "
            "`torch.where` evaluates both branches, and an infinity in either can make the gradient NaN."
        )
        x = fixed_numbers(1024, 2)
        for causal in (False, True):
            with LargestTensor() as largest:
                linear_attention(x, x, x, causal=causal)
            assert largest.bytes < 4 * 1024 * 1024, (
                f"With n = m = 1024, d = d_v = 2 and causal={causal}, your largest tensor has "
                f"{largest.bytes:,} bytes, at least as many as an n × m matrix. Multiply keys by values before you "
                "multiply by queries."
            )
        print("linear_attention: all visible checks pass.")

    check_linear_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Without `causal`, write down the shapes of the three factors. Choose the order of multiplication
# so that no intermediate result has both n and m. `.mT` swaps the last two axes. The denominator is
# one number per query.
# </details>
#
# <details><summary>Hint 2</summary>
#
# With `causal`, each sum over keys becomes a `cumsum` over positions. The products φ(k)vᵀ then need
# a position axis: multiply tensors of shapes (…, n, d, 1) and (…, n, 1, d_v). Take the cumulative
# sum along the position axis, which is −3. For φ(k) alone, it is −2. A loop over positions that
# updates S and z also works.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(1)
        query, key = torch.randn(2, 12, 16)
        # With unit vectors as values, the outputs are the weights.
        shown = {
            "softmax attention": (query @ key.T / 4).softmax(dim=-1),
            "linear attention": linear_attention(query, key, torch.eye(12)),
            "linear attention, causal": linear_attention(query, key, torch.eye(12), causal=True),
        }
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        for axis, (title, weights) in zip(axes, shown.items(), strict=True):
            image = axis.imshow(weights, cmap="viridis", vmin=0, vmax=0.4)
            axis.set(title=title, xlabel="key", ylabel="query")
        figure.colorbar(image, ax=axes, label="weight")
        plt.show()

# %% [markdown]
# **What to notice.** Linear attention is less sharp than softmax attention: without the
# exponential, no key stands out.

# %% [markdown]
# ## `grouped_query_attention`
# ★★☆☆☆ · 30 minutes
#
# With 80 layers, 64 heads per layer and 128 features per head, cached keys and values take 2.6 MB
# per token in half precision. Generating a token requires reading the whole cache. If h query heads
# share g key heads and g value heads, the cache is h/g times smaller ([Ainslie et al.
# 2023](https://arxiv.org/abs/2305.13245), section 2.2):
#
# ![Six query heads and their key heads. With g = 6, each query head has its own key head. With g =
# 2, query heads 0, 1 and 2 share key head 0, and query heads 3, 4 and 5 share key head 1. With g =
# 1, all query heads share one key head.](figures/shared-heads.svg)
#
# $$O_{a} = \mathrm{softmax}\!\left(\frac{Q_a K_k^\top}{\sqrt{d}}\right) V_k
# \qquad k = \left\lfloor \frac{a \cdot g}{h} \right\rfloor
# \qquad Q: h \times n \times d, \quad K: g \times m \times d, \quad V: g \times m \times d_v$$
#
# With g = 1, this is [multi-query attention](https://arxiv.org/abs/1911.02150). [Llama 2
# 70B](https://arxiv.org/abs/2307.09288) uses h = 64 and g = 8.
#
# **The traps.** *Adjacent* query heads form a group; repeating key heads as 0 1 0 1 silently gives
# wrong results. The mask applies to the h query heads. A fully masked query must have output 0 and
# finite gradients.
#
# Not allowed: `MultiheadAttention`, `multi_head_attention_forward` and the `enable_gqa` option.


# %%
def grouped_query_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b g m d"],
    value: Float[Tensor, "b g m d_v"],
    mask: Bool[Tensor, "*#batch #n #m"] | None = None,
) -> Float[Tensor, "b h n d_v"]:
    """Compute attention in which query heads k·h/g, …, (k+1)·h/g − 1 share key head k and value head k.

    Scores are divided by √d.

    Args:
        mask: True where attention is allowed, broadcastable to "b h n m", such as "n m",
            "b 1 1 m", "b 1 n m" or "b h n m" itself. None allows everything. A fully
            masked query must have output 0 and finite gradients.

    Raises:
        ValueError: if h is not a multiple of g. The message names one of them.

    Source: Ainslie et al. (2023), section 2.2; for g = 1, Shazeer (2019).
    """
    ### BEGIN SOLUTION
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError(f"query has h = {h} heads, but h must be a multiple of g = {g}")
    key, value = (heads.repeat_interleave(h // g, dim=1) for heads in (key, value))
    # Let fully masked rows attend to everything, and set their output to 0 below.
    empty = torch.zeros(1, 1, dtype=torch.bool, device=query.device)
    if mask is not None:
        empty = ~mask.any(dim=-1, keepdim=True)
        mask = mask | empty
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.masked_fill(empty, 0.0)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    class WithoutGroups(TorchFunctionMode):
        """A context manager that forbids PyTorch's grouped-query attention."""

        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert not (kwargs or {}).get("enable_gqa"), (
                "Your code uses `enable_gqa`, which is not allowed here. Assign the heads yourself."
            )
            return function(*args, **(kwargs or {}))

    @visible_check
    def check_grouped_query_attention():
        # All keys are equal, so a head returns the mean of its values: 1 for key head 0, 5 for key head 1.
        query, key = torch.ones(1, 4, 3, 2), torch.ones(1, 2, 2, 2)
        value = torch.tensor([1.0, 5.0]).view(1, 2, 1, 1).expand(1, 2, 2, 1)
        with expecting("4 query heads and 2 key heads should work"), WithoutGroups():
            output = grouped_query_attention(query, key, value)
        assert output is not None, (
            "grouped_query_attention returns None. Does it end with `return`?"
        )
        assert output.shape == (1, 4, 3, 1), (
            f"4 query heads, 3 queries and values of width 1 should give shape (1, 4, 3, 1); yours is "
            f"{tuple(output.shape)}."
        )
        seen = output[0, :, 0, 0].tolist()
        assert torch.allclose(output[0, :, 0, 0], torch.tensor([1.0, 1.0, 5.0, 5.0])), (
            "Query heads 0 and 1 share key head 0 (value 1), and 2 and 3 share key head 1 (value 5). The "
            f"outputs should be 1, 1, 5, 5; yours are {seen}. Which key head does each query head use? Do "
            "the weights of a query sum to 1?"
        )
        # d is 4, so the scores are log 3 and 0, and the weights are 3/4 and 1/4.
        query, key = torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 2, 4)
        query[..., 0], key[0, 0, 0, 0] = 2.0, math.log(3.0)
        value = torch.tensor([8.0, 0.0]).view(1, 1, 2, 1)
        output = grouped_query_attention(query, key, value)
        assert torch.allclose(output, torch.full((1, 2, 1, 1), 6.0), atol=1e-4), (
            "With scores log 3 and 0 for the values 8 and 0, the output should be 6; yours is "
            f"{output.flatten().tolist()}. How do you scale the scores?"
        )
        first_only = torch.tensor([[True, False]])
        with expecting("A mask of shape (n, m) should work"):
            output = grouped_query_attention(query, key, value, first_only)
        assert torch.allclose(output, torch.full((1, 2, 1, 1), 8.0)), (
            "If only the first key is allowed, the output should be its value, 8; yours is "
            f"{output.flatten().tolist()}. True allows attention. Apply the mask before softmax."
        )
        # Head 0 is fully masked, and head 1 is not masked.
        query.requires_grad_()
        by_head = torch.tensor([False, True]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        with expecting(
            "A mask of shape (b, h, n, m) should work", "Its head axis has size h, not g."
        ):
            output = grouped_query_attention(query, key, value, by_head)
        assert torch.allclose(output.flatten(), torch.tensor([0.0, 6.0]), atol=1e-4), (
            "If head 0 is fully masked and head 1 is not masked, the outputs should be 0 and 6; yours "
            f"are {output.flatten().tolist()}."
        )
        output.sum().backward()
        assert query.grad.isfinite().all(), (
            f"The gradient of the query should be finite; yours is {query.grad.flatten().tolist()}. "
            "The gradient of softmax is NaN for a row of −inf. Let a fully masked query attend to every "
            "key, and set its output to 0 afterwards."
        )
        query, key, value = (
            fixed_numbers(2, 6, 3, 5),
            fixed_numbers(2, 2, 6, 5),
            fixed_numbers(2, 2, 6, 7),
        )
        mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1]]).bool()
        with expecting(
            "A batch of 2, 6 query heads, 2 key heads and a mask of shape (n, m) should work"
        ):
            together = grouped_query_attention(query, key, value, mask)[:, 3:]
        alone = grouped_query_attention(query[:, 3:], key[:, 1:], value[:, 1:], mask)
        assert torch.allclose(together, alone, atol=1e-5), (
            "Query heads 3, 4 and 5 use only key head 1, so they should give the same result without the "
            f"other heads; your results differ by {(together - alone).abs().max():.2g}."
        )
        with expecting_value_error("3 query heads and 2 key heads", "h", "g", "query", "key"):
            grouped_query_attention(
                torch.ones(1, 3, 1, 2), torch.ones(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
            )
        print("grouped_query_attention: all visible checks pass.")

    check_grouped_query_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You can repeat every key head and value head h/g times. Alternatively, split the head axis of the
# queries into (g, h/g). Insert a matching axis of size 1 into keys and values, and let them
# broadcast. The head axis of the mask must then be split in the same way.
# </details>
#
# <details><summary>Hint 2</summary>
#
# PyTorch has two methods that repeat entries: one gives 0 1 0 1, and the other gives 0 0 1 1. Try
# both on a small tensor. Let fully masked queries attend to everything first, and set their output
# to 0 afterwards. `mask.any(dim=-1, keepdim=True)` is False for these queries, whatever the shape
# of the mask.
# </details>

# %% [markdown]
# **What to notice.** Only the cache and the projections of keys and values shrink; there are still
# h heads of n × m scores. To convert a trained model, Ainslie et al. average the key and value
# heads of each group and train for 5% of the original steps.

# %% [markdown]
# ## Cost and quality of the variants
# *Further · 15 minutes*
#
# The demonstration measures wall-clock time on one thread and the size of the largest tensor
# created. On a log-log plot, a cost that grows as $n^a$ is a straight line of slope a.


# %%
def full_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Compute softmax attention with the full n × m matrix of scores."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if causal:
        future = torch.ones(scores.shape, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(dim=-1) @ value


def window_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Compute causal sliding-window attention with only n · 2 · window scores. n must be divisible by `window`."""
    n, d = query.shape
    blocks = n // window

    def with_block_before(x: Tensor) -> Tensor:
        x = x.view(blocks, window, -1)
        return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:-1], x], dim=1)  # blocks × 2w × …

    scores = query.view(blocks, window, d) @ with_block_before(key).mT / math.sqrt(d)
    # Every pair of blocks has the same mask. The queries are in the second block.
    allowed = sliding_window_mask(2 * window, window)[window:].repeat(blocks, 1, 1)
    allowed[0, :, :window] = False  # there is nothing before the first block
    weights = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)  # blocks × w × 2w
    return (weights @ with_block_before(value)).view(n, -1)


# %% tags=["support"]
def attention_cost(attend: Callable[..., Tensor], n: int) -> tuple[float, int]:
    """Return how many seconds `attend` takes (best of five) and the size in bytes of the largest tensor it creates."""
    inputs = torch.randn(3, n, 32, generator=torch.Generator().manual_seed(n))
    with LargestTensor() as largest:
        attend(*inputs)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        attend(*inputs)
        seconds.append(time.perf_counter() - start)
    return min(seconds), largest.bytes


# %%
if __name__ == "__main__":
    predict(
        "Order causal attention by memory for n = 8,192. Which needs the most?",
        ...,
        order=["full", "window of 128", "linear"],
    )

# %%
if __name__ == "__main__":
    with demonstration():
        sample = torch.randn(3, 512, 32, generator=torch.Generator().manual_seed(0))
        scores = (sample[0] @ sample[1].T / math.sqrt(32)).masked_fill(
            ~sliding_window_mask(512, 128), -math.inf
        )
        difference = window_attention(*sample, 128) - scores.softmax(dim=-1) @ sample[2]
        print(
            f"Block-wise and masked n × n attention differ by at most {difference.abs().max():.0e}."
        )

        ways = {
            "causal": {
                "full": lambda q, k, v: full_attention(q, k, v, causal=True),
                "window of 128": lambda q, k, v: window_attention(q, k, v, 128),
                "linear": lambda q, k, v: linear_attention(q, k, v, causal=True),
            },
            "bidirectional": {"full": full_attention, "linear": linear_attention},
        }
        sizes = [2**power for power in range(8, 14)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        costs = {
            (kind, name): tuple(zip(*(attention_cost(attend, n) for n in sizes), strict=True))
            for kind, group in ways.items()
            for name, attend in group.items()
        }
        torch.set_num_threads(threads)

        predict.reveal(
            "Order causal attention by memory for n = 8,192. Which needs the most?",
            sorted(ways["causal"], key=lambda name: -costs["causal", name][1][-1]),
        )
        figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharex=True)
        for (kind, name), (seconds, largest) in costs.items():
            row = axes[list(ways).index(kind)]
            record(f"seconds for n = {sizes[-1]}, {kind}, {name}", seconds[-1])
            record(
                f"MB of the largest tensor for n = {sizes[-1]}, {kind}, {name}", largest[-1] / 1e6
            )
            for axis, what, seen in zip(row, ("time", "memory"), (seconds, largest), strict=True):
                slope = np.polyfit(np.log(sizes[-4:]), np.log(seen[-4:]), 1)[0]
                colour = f"C{list(ways['causal']).index(name)}"
                axis.plot(sizes, seen, "o-", color=colour, label=f"{name}: slope {slope:.2f}")
                axis.set(title=f"{what}, {kind}", xlabel="n", yscale="log")
                axis.set_xscale("log", base=2)
                axis.legend()
        for row in axes:
            row[0].set_ylabel("wall-clock seconds")
            row[1].set_ylabel("bytes of the largest tensor")
        plt.show()

# %% [markdown]
# **What to notice.** Memory and time for n = 8,192 and 32 features:
#
# |attention|causal|bidirectional|
# |---|---|---|
# |full|268 MB, 1.2 s|268 MB, 0.84 s|
# |window of 128|8.4 MB, 0.03 s||
# |linear|33.6 MB, 0.2 s|1.0 MB, 0.002 s|
#
# With `cumsum`, *causal* linear attention stores one d × d_v state per position. It needs 32 times
# as much memory as the bidirectional form.
#
# The time of full attention has a slope above 2, because large matrices do not fit into the inner
# caches. For 64 queries at a time, its slope is 2.0.

# %% [markdown]
# The next cells train small causal models on 64-character pieces of the Python manual and test them on
# 256-character pieces. Three models differ only in positional encoding: sinusoidal, ALiBi or RoPE.
# Three others combine RoPE with a window of 16, one key head for four query heads, or linear attention.


# %% tags=["support"]
VARIANT_STEPS = 800
TRAINED_LENGTH, LONGEST, GROUP = 64, 256, 16


def sinusoidal_table(n: int, d: int) -> Tensor:
    """Return the positional encodings of Vaswani et al. (2017), with shape (n, d)."""
    angles = torch.arange(n).unsqueeze(1) * 10000.0 ** (-torch.arange(0, d, 2) / d)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


# %%
class VariantBlock(nn.Module):
    """A causal pre-norm block. `variant` names its positional encoding and its type of attention."""

    def __init__(self, d_model: int, n_heads: int, variant: str):
        super().__init__()
        self.n_heads, self.variant = n_heads, variant
        self.key_heads = 1 if "one key head" in variant else n_heads
        window = 16 if "window" in variant else LONGEST
        self.mask = functools.partial(sliding_window_mask, window=window)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * self.key_heads * d_model // n_heads)
        self.out = nn.Linear(d_model, d_model)
        self.network = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model)
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        n = query.shape[-2]
        if "RoPE" in self.variant:
            places = torch.arange(n)
            query, key = rotary_embedding(query, places), rotary_embedding(key, places)
        if "linear" in self.variant:
            return linear_attention(query, key, value, causal=True)
        if "ALiBi" in self.variant:
            return F.scaled_dot_product_attention(query, key, value, alibi_bias(self.n_heads, n))
        return grouped_query_attention(query, key, value, self.mask(n))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        inner = self.norm1(x)
        query = self.query(inner).view(b, n, self.n_heads, -1).transpose(1, 2)
        key, value = self.key_value(inner).view(b, n, 2, self.key_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = self.attend(query, key, value).transpose(1, 2).reshape(b, n, -1)
        x = x + self.out(mixed)
        return x + self.network(self.norm2(x))


# %% tags=["support"]
class VariantModel(nn.Module):
    """A causal character-level language model with two blocks."""

    def __init__(self, variant: str, d_model: int = 64, n_heads: int = 4):
        super().__init__()
        self.variant = variant
        self.embedding = nn.Embedding(len(TOPIC_SYMBOLS), d_model)
        self.blocks = nn.Sequential(*(VariantBlock(d_model, n_heads, variant) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, len(TOPIC_SYMBOLS))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.variant == "sinusoidal":
            x = x + sinusoidal_table(*x.shape[1:])
        return self.head(self.norm(self.blocks(x)))


@functools.cache
def train_variant(variant: str, seed: int = 0) -> VariantModel:
    """Return a model trained on pieces of `TRAINED_LENGTH` characters. Later calls reuse the result.

    The seed determines the initial weights and the batches.
    """
    torch.manual_seed(seed)
    model = VariantModel(variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, VARIANT_STEPS + 1)
    chooser = torch.Generator().manual_seed(seed + 1)
    for _ in tqdm(range(VARIANT_STEPS), desc=variant, mininterval=0.5, file=sys.stdout):
        starts = torch.randint(len(TOPIC_TRAINING) - TRAINED_LENGTH, (32, 1), generator=chooser)
        piece = TOPIC_TRAINING[starts + torch.arange(TRAINED_LENGTH + 1)]
        loss = F.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def loss_by_position(model: nn.Module) -> Tensor:
    """Return the loss in bits at positions 0–15, 16–31, …, averaged over the same held-out characters."""
    pieces = TOPIC_HELD_OUT.unfold(0, LONGEST + 1, GROUP)[:512]
    loss = [
        F.cross_entropy(model(some[:, :-1]).mT, some[:, 1:], reduction="none")
        for some in pieces.split(64)
    ]
    by_group = torch.cat(loss).unflatten(1, (-1, GROUP)).mean(dim=-1)
    n_pieces, n_groups = by_group.shape
    # The pieces start `GROUP` characters apart, so group g of piece i contains the same characters as
    # group 0 of piece i + g. For each group, select the pieces in which it contains these characters.
    same = [by_group[n_groups - 1 - g : n_pieces - g, g].mean() for g in range(n_groups)]
    return torch.stack(same) / math.log(2)


# %% tags=["support"]
def train_and_plot(variants: tuple[str, ...], title: str) -> None:
    """Train the variants that are not yet trained, and plot the losses of all variants."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second thread does not help with models of this size
    start = time.perf_counter()
    losses = {variant: loss_by_position(train_variant(variant)) for variant in variants}
    torch.set_num_threads(threads)
    record(f"wall-clock seconds to train, {title}", time.perf_counter() - start)
    _, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for variant, loss in losses.items():
        record(f"bits per character at positions 32–63, {variant}", loss[2:4].mean().item())
        record(f"bits per character at positions 192–255, {variant}", loss[12:].mean().item())
        axis.plot(range(GROUP // 2, LONGEST, GROUP), loss, "o-", label=variant)
    axis.axvline(TRAINED_LENGTH, linestyle="--", color="grey", label="training length")
    axis.set(title=f"loss on held-out text: {title}")
    axis.set(xlabel="position", ylabel="bits per character")
    axis.legend()
    plt.show()


# %%
if __name__ == "__main__":
    with demonstration():
        train_variant.cache_clear()  # rerunning this cell trains again
        train_and_plot(("sinusoidal", "ALiBi", "RoPE"), "positions")

# %%
if __name__ == "__main__":
    with demonstration():
        train_and_plot(
            ("RoPE", "RoPE, window of 16", "RoPE, one key head", "RoPE, linear"), "attention"
        )

# %% [markdown]
# **What to notice.** The table shows bits per held-out character: means and ranges over three
# seeds. Models saw positions 32–63 in training, but not 192–255. The last column counts the cached
# numbers per layer at position 256.
#
# |variant|32–63|192–255|cache|
# |---|---|---|---|
# |sinusoidal|2.31 (2.29–2.33)|5.32 (5.24–5.37)|32,768|
# |ALiBi|2.31 (2.28–2.34)|2.34 (2.31–2.38)|32,768|
# |RoPE|2.11 (2.08–2.14)|5.33 (5.05–5.63)|32,768|
# |RoPE, window of 16|2.08 (2.07–2.10)|2.08 (2.07–2.10)|2,048|
# |RoPE, one key head|2.14 (2.12–2.16)|5.31 (4.86–5.82)|8,192|
# |RoPE, linear|2.70 (2.67–2.73)|4.31 (4.27–4.38)|1,088|
#
# * Beyond the training length, sinusoidal encodings fail immediately. RoPE fails 30 to 50 positions
#   later, at distances not seen in training. ALiBi's loss rises by only 0.03 bits.
# * A window of 16 fixes RoPE, because training covers every distance up to 15.
# * Sharing one key head saves three quarters of the cache and some parameters. It costs 0.02 to 0.04
#   bits.
# * The linear variant has a fixed-size state and costs about 0.6 bits.

# %% [markdown]
# ### Your experiment: a mask of your own
#
# How few pairs of positions does the trained RoPE model need? Design a causal mask in `my_mask`, and
# predict the loss. The model was not trained with this mask.

# %%
if __name__ == "__main__":
    predict("How many bits per character will the model need with your mask?", ...)

# %%
if __name__ == "__main__":
    with demonstration():

        def my_mask(n: int) -> Bool[Tensor, "n n"]:
            """Return which keys (columns) each query (row) may attend to."""
            i, j = torch.arange(n).unsqueeze(1), torch.arange(n)
            return (j <= i) & ((i - j < 4) | (j % 8 == 0))

        masked = copy.deepcopy(train_variant("RoPE"))
        before = loss_by_position(masked)[2:4].mean().item()
        for block in masked.blocks:
            block.mask = my_mask
        predict.reveal(
            "How many bits per character will the model need with your mask?",
            loss_by_position(masked)[2:4].mean().item(),
        )
        pairs = my_mask(TRAINED_LENGTH).sum() / (TRAINED_LENGTH * (TRAINED_LENGTH + 1) / 2)
        print(f"{before:.2f} bits with all pairs; your mask keeps {100 * pairs:.0f}% of them.")

# %% [markdown]
# ## The whole family
#
# This map follows [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/):
#
# ![The Transformer family, in five groups. Positions: sinusoidal_encoding, skew, rotary_embedding.
# Longer context: RecurrentAttention, Compressive Transformer, knn_probabilities, Memorizing
# Transformer, alibi_bias, Universal Transformer. Adaptive models: Adaptive Attention Span,
# Depth-Adaptive Transformer, CALM. Efficient attention: sliding_window_mask, Sparse Transformer,
# Longformer, Big Bird, ETC, Reformer, Routing Transformer, Linformer, linear_attention,
# performer_features, grouped_query_attention. Decisions: DecisionTransformer, GTrXL. Not in Weng's
# post: skew, linear_attention, grouped_query_attention.](figures/family-map.svg)
#
# <details><summary>Links to all papers on the map (†: not in Weng's post)</summary>
#
# * **Absolute positions:** `sinusoidal_encoding`; [Transformer](https://arxiv.org/abs/1706.03762)
# * **Relative positions:** `skew`, `rotary_embedding`; [Shaw](https://arxiv.org/abs/1803.02155),
#   [Music Transformer](https://arxiv.org/abs/1809.04281)†,
#   [RoFormer](https://arxiv.org/abs/2104.09864)
# * **Context memory:** `RecurrentAttention`; [Transformer-XL](https://arxiv.org/abs/1901.02860),
#   [Compressive Transformer](https://arxiv.org/abs/1911.05507)
# * **External memory:** `knn_probabilities`; [kNN-LM](https://arxiv.org/abs/1911.00172),
#   [Memorizing Transformer](https://arxiv.org/abs/2203.08913)
# * **Distance in the scores:** `alibi_bias`; [ALiBi](https://arxiv.org/abs/2108.12409)
# * **Recurrence in depth:** [Universal Transformer](https://arxiv.org/abs/1807.03819)
# * **Adaptive span, depth:** [Adaptive Attention Span](https://arxiv.org/abs/1905.07799),
#   [Depth-Adaptive Transformer](https://arxiv.org/abs/1910.10073),
#   [CALM](https://arxiv.org/abs/2207.07061)
# * **Fixed patterns:** `sliding_window_mask`; [Sparse
#   Transformer](https://arxiv.org/abs/1904.10509)
# * **Local and global:** [Longformer](https://arxiv.org/abs/2004.05150), [Big
#   Bird](https://arxiv.org/abs/2007.14062), [ETC](https://arxiv.org/abs/2004.08483)
# * **Learned patterns:** [Reformer](https://arxiv.org/abs/2001.04451), [Routing
#   Transformer](https://arxiv.org/abs/2003.05997)
# * **Low rank, kernels:** `linear_attention`, `performer_features`;
#   [Linformer](https://arxiv.org/abs/2006.04768), [Linear
#   Transformer](https://arxiv.org/abs/2006.16236)†, [Performer](https://arxiv.org/abs/2009.14794)
# * **Shared keys:** `grouped_query_attention`; [multi-query](https://arxiv.org/abs/1911.02150)†,
#   [grouped-query](https://arxiv.org/abs/2305.13245)†
# * **Reinforcement learning:** `DecisionTransformer`; [Decision
#   Transformer](https://arxiv.org/abs/2106.01345), [GTrXL](https://arxiv.org/abs/1910.06764)
# </details>

# %% [markdown]
# **Read.** [Su et al. 2021](https://arxiv.org/abs/2104.09864), section 3. [Weng, The Transformer
# Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Longer
# Context" and "Efficient Attention". [Press et al. 2022](https://arxiv.org/abs/2108.12409), section
# 2.
#
# **Discuss.**
#
# 1. What would change if RoPE also rotated the values?
# 2. You want a model that reads whole books. Which methods on the map would you combine, and what
#    are their drawbacks?
#
# <details><summary>Answers</summary>
#
# 1. The output would be a weighted sum of rotated values, so it would depend on absolute positions.
#    The same text at a different position would give a different output. In the scores, only the
#    difference between two rotations remains. In the output, no second rotation cancels the first.
# 2. There is no single answer. A window and a fixed-size state (linear attention) are cheap.
#    However, the window loses everything beyond its reach, and the state mixes together everything
#    it has read. A memory of older segments or an external memory can retrieve exact passages, but
#    has to be searched. Full attention loses nothing.
#    [FlashAttention](https://arxiv.org/abs/2205.14135) computes it without storing the n × n
#    scores, but still takes quadratic time.
# </details>
