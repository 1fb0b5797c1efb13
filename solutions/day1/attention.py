# %% [markdown]
# # Attention
#
# A network that reads a sentence has to move information between its words: `it` means little
# until something fetches what `it` stands for. Attention is how a Transformer does that. Every
# position asks a question, its **query**; every position offers a description of itself, its
# **key**, and something to take away, its **value**. What a query receives is a mean of all
# values, weighted by how well its question fits each key. Nothing else in a Transformer moves
# information from one position to another.
#
# ```
#  query n × d  ──┐
#                 ├── scores n × m ── softmax ── weights n × m ──┐
#  key   m × d  ──┘                                              ├── output n × d_v
#  value m × d_v ────────────────────────────────────────────────┘
# ```
#
# There are `n` queries and `m` keys, and a value for every key. The three exercises of this
# chapter are the three steps from left to right. Source: Vaswani et al., *Attention Is All You
# Need* (2017), section 3.2.1.

# %%
import math

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from torch import Tensor

from solutions.opening import demonstration

# %% [markdown]
# ## `softmax`
# ★★☆☆☆ · 10 minutes · 4 points
#
# How well a query fits a key is a number of any size and sign. To take a mean we need weights:
# none negative, together 1. Softmax makes weights of numbers, gives the larger number the larger
# weight, and has a gradient everywhere.
#
# $$\mathrm{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# The sum runs along one axis, `dim`; every other index is left alone. For `x` of shape `(2, 3)`:
#
# ```
#   dim=1 (each row sums to 1)         dim=0 (each column sums to 1)
#   [ a  b  c ]  ->  sum of a, b, c    [ a  b  c ]
#   [ d  e  f ]  ->  sum of d, e, f    [ d  e  f ]
#                                        |  |  └── sum of c, f
#                                        |  └───── sum of b, e
#                                        └──────── sum of a, d
# ```
#
# **The trap.** The formula is exact on paper. In a computer $e^{89}$ no longer fits into float32
# and $e^{12}$ not into float16: they become ∞, and ∞/∞ is NaN. Far below zero every exponential
# becomes 0, and 0/0 is NaN as well. Scores of that size do occur, so your function has to be
# right for entries of ±10⁴. An entry of −∞ is how we shall later forbid a key; it gets a weight
# of exactly 0.
#
# Please write it yourself: torch's own `softmax`, `log_softmax`, `softmin` and
# `torch.distributions` are not allowed here.


# %%
def softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Normalise the exponentials of `x` so that they sum to 1 along `dim`.

    Args:
        x: numbers of any size, float16 to float64. An entry of −inf gets exactly 0 (as long as
            one entry of its slice is finite).
        dim: the axis along which to normalise; it may be negative.

    Returns:
        weights of the shape and dtype of `x`, without overflow for entries of ±10⁴ in float32
        and in half precision.

    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 4.1.
    """
    ### BEGIN SOLUTION
    # The shift changes nothing in exact arithmetic, and makes the largest exponential 1.
    shifted = x - x.amax(dim=dim, keepdim=True)
    exponentials = torch.exp(shifted)
    return exponentials / exponentials.sum(dim=dim, keepdim=True)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_softmax():
        x = torch.tensor([[0.0, math.log(3.0)], [-2.0, -2.0]])
        expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
        weights = softmax(x)
        assert weights is not None, "softmax returns nothing; did you forget `return`?"
        assert weights.shape == x.shape, (
            f"the shape should stay (2, 2), yours is {tuple(weights.shape)}"
        )
        assert torch.allclose(weights, expected, atol=1e-5), (
            f"softmax of\n{x}\nalong the last axis should be\n{expected}\nyours is\n{weights}"
        )
        columns = softmax(x.T, dim=0)
        assert torch.allclose(columns, expected.T, atol=1e-5), (
            f"with dim=0 each column should sum to 1; yours sum to {columns.sum(dim=0)}"
        )
        for large in (1000.0, -1000.0):
            weights = softmax(torch.tensor([large, large]))
            assert torch.allclose(weights, torch.tensor([0.5, 0.5]), atol=1e-3), (
                f"softmax of [{large}, {large}] should be [0.5, 0.5], yours is {weights.tolist()}"
            )
        apart = softmax(torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]]))
        assert torch.allclose(apart, torch.full((2, 2), 0.5), atol=1e-3), (
            f"a row of 1000 and a row of -1000 in one tensor should give 0.5, yours gives\n{apart}"
        )
        forbidden = softmax(torch.tensor([-math.inf, 7.0]))
        assert forbidden[0] == 0, f"-inf should get exactly 0, yours gets {forbidden[0]}"
        assert abs(forbidden[1] - 1) < 1e-5, (
            f"softmax of [-inf, 7] should be [0, 1], yours is {forbidden.tolist()}"
        )
        half = softmax(torch.tensor([15.0, 15.0], dtype=torch.float16))
        assert half.dtype == torch.float16, f"float16 should stay float16, yours is {half.dtype}"
        assert abs(half[0] - 0.5) < 0.02, f"[15, 15] in float16 gives {half.tolist()}"
        print("softmax: the visible checks hold.")

    check_softmax()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Work out on paper what happens to the fraction if you add the same constant to every entry of a
# slice. You are free to choose that constant: which one makes overflow impossible, and the sum at
# least 1?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Choose a constant for each slice, not one for the whole tensor: slices can lie far apart.
# Tensors have reductions that take `dim` and `keepdim`; with `keepdim=True` the reduced axis
# stays with size 1, so that the result broadcasts against `x` whatever `dim` is.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # The same four scores, divided by a temperature before softmax.
        four_scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
        warm = {temperature: softmax(four_scores / temperature) for temperature in (0.2, 1.0, 5.0)}
        figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True)
        for axis, (temperature, weights) in zip(axes, warm.items(), strict=True):
            axis.bar([f"{score:g}" for score in four_scores], weights)
            axis.set_title(f"softmax(x / {temperature:g})")
            axis.set_xlabel("x")
        axes[0].set_ylabel("weight")
        plt.show()

# %% [markdown]
# **What to notice.** The same four numbers gave three different sets of weights. Softmax sees
# differences only: it cannot tell (0, 1) from (1000, 1001). The
# *size* of the differences decides how sharp it is. Large ones make it an almost hard choice of
# the maximum, hence its name; small ones make it a plain mean. Keep this in mind for the next
# exercise, where something pushes all scores apart.

# %% [markdown]
# ## `attention_scores`
# ★★☆☆☆ · 10 minutes · 4 points
#
# How well a query fits a key is measured by their dot product: large where the two point the same
# way, negative where they point away from each other. All n·m dot products are one matrix
# product.
#
# $$S = \frac{Q\,K^\top}{\sqrt d} \qquad Q: n \times d, \quad K: m \times d, \quad S: n \times m$$
#
# Row i of S belongs to query i, column j to key j.
#
# Why the root? If the entries of q and k are independent with mean 0 and variance 1, then q·k, a
# sum of d such products, has variance d. Its typical size grows like √d, and softmax would get
# sharper and sharper as d grows. Dividing by √d keeps the variance at 1 for every d.
#
# **The traps.** Several sizes stand around here (n, m, d, later the number of heads), and only
# one of them belongs under the root. Leading axes may be there or not, and they broadcast:
# queries `(4, 1, n, d)` and keys `(2, m, d)` give scores `(4, 2, n, m)`. And in float16 the sum
# q·k may leave the range (65,504) although the score itself would fit.


# %%
def attention_scores(
    query: Float[Tensor, "*batch n d"], key: Float[Tensor, "*batch m d"]
) -> Float[Tensor, "*batch n m"]:
    """Return the dot product of every query with every key, divided by √d.

    Leading axes broadcast. In half precision the result is right wherever the scores fit.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    ### BEGIN SOLUTION
    # Scaled before the product: in float16 the unscaled sum can overflow where the score fits.
    scaled = query / math.sqrt(query.shape[-1])
    return scaled @ key.transpose(-2, -1)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_attention_scores():
        query = torch.tensor([[2.0, 0.0, 0.0, 4.0], [0.0, -6.0, 0.0, 0.0]])
        key = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, -1.0], [5.0, 0.0, 9.0, 0.0]])
        expected = torch.tensor([[3.0, -2.0, 5.0], [-3.0, -9.0, 0.0]])
        result = attention_scores(query, key)
        assert result is not None, "attention_scores returns nothing; did you forget `return`?"
        assert result.shape == (2, 3), (
            f"2 queries and 3 keys give scores of shape (2, 3), yours is {tuple(result.shape)}"
        )
        assert torch.allclose(result, expected), (
            f"d is 4 here, so its root is 2; the scores should be\n{expected}\nyours are\n{result}"
        )
        batch = attention_scores(query.expand(5, 1, 2, 4), key.expand(3, 3, 4))
        assert batch.shape == (5, 3, 2, 3), (
            "queries (5, 1, 2, 4) and keys (3, 3, 4) give scores (5, 3, 2, 3), "
            f"yours is {tuple(batch.shape)}"
        )
        assert torch.allclose(batch, expected.expand(5, 3, 2, 3)), (
            "with leading axes the scores differ from those without; which axes do you multiply?"
        )
        wide = torch.full((1, 256), 32.0, dtype=torch.float16)
        score = attention_scores(wide, wide).item()
        assert abs(score - 16384) < 200, f"in float16 this score should be 16384, yours is {score}"
        print("attention_scores: the visible checks hold.")

    check_attention_scores()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Matrix multiplication in torch (`@`) works on the last two axes and broadcasts the others. The
# keys lie as `(m, d)` and have to come as `(d, m)`: which two axes have to change places, counted
# from the end? (`.T` is for two axes only.)
# </details>
#
# <details><summary>Hint 2</summary>
#
# Dividing the product by √d and multiplying two tensors of which one has already been divided is
# the same on paper. Only one of them stays small all the way.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Random queries and keys with independent standard-normal entries, 64 keys a query.
        sizes = [2**power for power in range(11)]
        curves = {"q·k / √d": [], "q·k": []}
        slopes = {"q·k / √d": [], "q·k": []}
        torch.manual_seed(0)
        for d in sizes:
            q, k = torch.randn(256, d), torch.randn(64, d)
            scaled = attention_scores(q, k)
            for name, scores in (("q·k / √d", scaled), ("q·k", scaled * math.sqrt(d))):
                scores = scores.detach().requires_grad_()
                weights = softmax(scores)
                entropy = -(weights * torch.log(weights + 1e-30)).sum(dim=-1).mean()
                # How much the largest weight answers to a change of its score: w (1 - w).
                largest = weights.amax(dim=-1)
                (slope,) = torch.autograd.grad(largest.sum(), scores)
                curves[name].append(entropy.item())
                slopes[name].append(slope.abs().amax(dim=-1).mean().item())
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
        for name in curves:
            left.plot(sizes, curves[name], "o-", label=name)
            right.plot(sizes, slopes[name], "o-", label=name)
        left.axhline(math.log(64), color="grey", linestyle=":")
        left.text(2**10, math.log(64) + 0.1, "log 64: all weights equal", ha="right", color="grey")
        left.set_title("entropy of the weights (nats)")
        right.set_title("gradient of the largest weight")
        for axis in (left, right):
            axis.set_xscale("log", base=2)
            axis.set_xlabel("d")
            axis.set_ylim(bottom=0)
        left.set_ylim(top=5)
        right.legend(loc="lower left")
        plt.show()

# %% [markdown]
# **What to notice.** Entropy says over how many keys the weights are spread: log 64 if over all
# alike, 0 if one key gets everything. Divided by √d the scores give nearly the same spread for
# every d, and the same gradient. Undivided, a query of a wide model looks at a single key before
# it has learned anything, and once it does, the gradient by which it could learn to look
# elsewhere falls towards zero (on the right, beyond d ≈ 10). That is the reason which the paper
# gives for the root.

# %% [markdown]
# ## `attention`
# ★★☆☆☆ · 10 minutes · 5 points
#
# Now the two pieces and the values. Query i receives the mean of all values, weighted by row i of
# the weights.
#
# $$
# W = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d}\right), \qquad O = W\,V
# \qquad W: n \times m, \quad V: m \times d_v, \quad O: n \times d_v
# $$
#
# You can read it as a dictionary that is asked softly. `table[query]` compares the query with all
# keys and returns the one value whose key is equal. Attention compares, too, but returns some of
# every value, the more the better its key fits. So it has a gradient, and can be learned.
#
# **The trap.** The weights are a matrix, and softmax would run along either axis. Each *query*
# has one unit of attention to give away; which axis has to sum to 1? With n = m the wrong one
# raises no error, and a model trained with it can still learn something.
#
# `scaled_dot_product_attention`, `MultiheadAttention` and `flex_attention` are not allowed.


# %%
def attention(
    query: Float[Tensor, "*batch n d"],
    key: Float[Tensor, "*batch m d"],
    value: Float[Tensor, "*batch m d_v"],
) -> tuple[Float[Tensor, "*batch n d_v"], Float[Tensor, "*batch n m"]]:
    """Return for each query the mean of the values, weighted by how well it fits the keys.

    `d_v` may differ from `d` and `m` from `n`; leading axes of all three broadcast.

    Returns:
        the pair (output, weights).

    Source: Vaswani et al. (2017), equation 1.
    """
    ### BEGIN SOLUTION
    weights = softmax(attention_scores(query, key), dim=-1)
    return weights @ value, weights
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_attention():
        key = torch.tensor([[50.0, 0.0], [0.0, 50.0], [-50.0, -50.0]])
        value = torch.tensor([[1.0, 2.0, 3.0, 0.0], [10.0, 20.0, 30.0, 0.0], [4.0, 5.0, 0.0, 6.0]])
        query = torch.tensor([[0.0, 50.0], [0.0, 0.0]])
        result = attention(query, key, value)
        assert isinstance(result, tuple | list), (
            f"attention should return (output, weights), yours is a {type(result).__name__}"
        )
        output, weights = result
        assert weights.shape == (2, 3), (
            f"2 queries and 3 keys give weights of shape (2, 3), yours is {tuple(weights.shape)}"
        )
        assert output.shape == (2, 4), (
            f"2 queries and values (3, 4) give an output (2, 4), yours is {tuple(output.shape)}"
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(2)), (
            f"the weights of each query should sum to 1, yours sum to {totals}"
        )
        assert torch.allclose(output[0], value[1], atol=1e-4), (
            "the first query fits the second key only and should receive its value "
            f"{value[1]}, yours receives {output[0]}"
        )
        assert torch.allclose(output[1], torch.tensor([5.0, 9.0, 11.0, 2.0]), atol=1e-4), (
            "a query of zeros fits all keys alike and should receive the mean of the values, "
            f"yours receives {output[1]}"
        )
        output, weights = attention(query.expand(7, 2, 2), key, value)
        assert output.shape == (7, 2, 4), (
            f"queries (7, 2, 2) give an output (7, 2, 4), yours is {tuple(output.shape)}"
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(7, 2)), (
            f"with a leading axis the weights of each query still sum to 1, yours to\n{totals}"
        )
        # d is 4, the score 2·log 3 / √4 = log 3, so the first key weighs three times the second.
        first, second = torch.zeros(1, 4), torch.zeros(2, 4)
        first[0, 0], second[0, 0] = 2.0, math.log(3.0)
        _, weights = attention(first, second, value[:2, :3])
        assert torch.allclose(weights, torch.tensor([[0.75, 0.25]])), (
            f"for scores log 3 and 0 the weights are 3/4 and 1/4, yours are {weights}"
        )
        print("attention: the visible checks hold.")

    check_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You have written both halves of W. Rows of the scores belong to queries, columns to keys: name
# the axis along which a query shares out its attention, counted from the end.
# </details>
#
# <details><summary>Hint 2</summary>
#
# For one query, the output is Σⱼ Wᵢⱼ Vⱼ: a sum over the keys. A matrix product sums over the last
# axis of its left factor and the last but one of its right factor; look which of W and V has the
# keys where. No transpose is needed.
# </details>

# %% [markdown]
# To see attention at work before any model is trained, we need features that mean something. The
# next cell gives each word its letters: how often a, b, …, z occur in it.


# %%
def letter_features(words: list[str]) -> Float[Tensor, "n 26"]:
    """Return how often each letter a–z occurs in each word, scaled to length 1."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    counts = torch.tensor([[float(word.lower().count(c)) for c in letters] for word in words])
    return counts / counts.norm(dim=-1, keepdim=True)


# %%
if __name__ == "__main__":

    def draw_weights(axis, weights, queries, keys, title):
        """Draw weights (n, m) as a heat map: queries downwards, keys to the right."""
        axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(keys)), keys, rotation=60, ha="right")
        axis.set_yticks(range(len(queries)), queries)
        axis.set_title(title)

    with demonstration():
        sharpness = 100  # try 10 and 1000

        days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        misspelt = ["Fryday", "Tusday", "Satterday", "Wensday"]
        numbers = torch.arange(1.0, 8.0).reshape(7, 1)  # the value of a day is its number
        found, day_weights = attention(
            sharpness * letter_features(misspelt), letter_features(days), numbers
        )

        words = ["she", "sells", "sea", "shells", "by", "the", "sea", "shore"]
        features = letter_features(words)
        _, word_weights = attention(sharpness * features, features, features)

        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        draw_weights(left, day_weights, misspelt, days, "misspelt days look up days")
        draw_weights(right, word_weights, words, words, "a sentence attends to itself")
        plt.show()
        for word, number in zip(misspelt, found[:, 0].tolist(), strict=True):
            print(f"{word:<10} day {number:.2f} of the week")

# %% [markdown]
# **What to notice.**
#
# * On the left, queries and keys come from different places, and the values are something else
#   again (the number of the day). This is *cross-attention*. The number that comes out is a mean:
#   `Fryday` finds day 5, while `Tusday` hesitates between Tuesday (2) and Saturday (6) and gets a
#   number between them, a day that it never looked at much.
# * Each row sums to 1. Columns need not: nobody looks at Monday, and two words look at Saturday.
# * On the right queries, keys and values all come from the same words: *self-attention*.
# * Both `sea` get the same row, and each looks at the other as much as at itself. Attention by
#   itself knows nothing of order: shuffle the words, and the same outputs come out, shuffled. The
#   chapter on positional encoding mends that.
# * Here the features were made by hand. In a Transformer, queries, keys and values are three
#   learned linear maps of the same vectors; the chapter on multi-head attention adds them.
