# %% [markdown]
# # Attention
#
# *Chapter 1 of 6*
#
# When your model writes the month of a date, it has to find the month in the source. Attention
# performs this search. Each position sends out a **query**, which describes what it looks for. Each
# position also offers a **key**, which queries are compared with, and a **value**, which it passes
# on. A query receives the mean of all values, weighted by how well it matches each key.
#
# ![The left side shows a dictionary: the query red matches one key and returns its value (1, 0).
# The right side shows attention: the query red gives the keys red, blue and purple the weights
# 0.40, 0.20 and 0.40. It returns the weighted mean of their values, (0.80,
# 0.60).](figures/lookup.svg)
#
# A dictionary returns one value or fails. Attention compares the query with every key and returns a
# mixture, so it is differentiable and can be learned.
#
# **Today's example.** Three tokens have d = 2 features: *red* = (1, 0), *blue* = (0, 1) and
# *purple* = (1, 1). These vectors are the queries, the keys and the values. Follow the query *red*
# with pencil and paper:
#
# 1. The dot products with the three keys are 1, 0 and 1.
# 2. Divided by √2, they become the scores 0.71, 0 and 0.71.
# 3. The exponentials are 2.03, 1 and 2.03. Divided by their sum, 5.06, they become the weights
#    0.40, 0.20 and 0.40.
# 4. The output is 0.40·(1, 0) + 0.20·(0, 1) + 0.40·(1, 1) = (0.80, 0.60).
#
# Steps 1 and 2 are `attention_scores`, step 3 is `softmax`, and `attention` adds step 4. In code,
# the queries are the rows of one matrix:
#
# ![The n × d queries times the transposed keys, divided by the square root of d, give n × m scores.
# Softmax per row turns them into weights whose rows sum to 1. The weights times the m × d_v values
# give the n × d_v output.](figures/shapes.svg)

# %%
import math

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from torch import Tensor

from solutions.opening import demonstration, expecting, visible_check

# %% [markdown]
# ## `softmax`
# ★★☆☆☆ · 10 minutes
#
# A score can be any number. A weighted mean needs non-negative weights that sum to 1. Softmax turns
# scores into such weights:
#
# $$\mathrm{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# The sum runs along one axis, `dim`. With `x` of shape `(2, 3)`, `dim=1` makes each row sum to 1
# and `dim=0` each column.
#
# **The trap.** $e^{89}$ overflows in float32, and $e^{12}$ in float16. The result is ∞/∞ = NaN. If
# all entries are very negative, every exponential underflows to 0, and 0/0 is NaN as well. The
# function has to work for entries of ±10⁴. An entry of −∞ gets a weight of exactly 0, which the
# next chapter uses to hide keys.
#
# Not allowed: torch's `softmax`, `log_softmax` and `softmin`, and `torch.distributions`.


# %%
def softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Normalise the exponentials of `x` so that they sum to 1 along `dim`.

    Args:
        x: scores, float16 to float64. An entry of −inf gets a weight of exactly 0, if at least one
            entry of its slice is finite.
        dim: the axis along which to normalise; it may be negative.

    Returns:
        weights with the shape and dtype of `x`. Entries of ±10⁴ in float32, and any finite entries
        in half precision, do not overflow.

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

    @visible_check
    def check_softmax():
        x = torch.tensor([[0.0, math.log(3.0)], [-2.0, -2.0]])
        expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
        weights = softmax(x)
        assert weights is not None, "softmax returns None. Does it end with `return`?"
        assert weights.shape == x.shape, (
            f"The result should have the shape of x, (2, 2); yours has {tuple(weights.shape)}. "
            "Keep the axis that you sum over, with size 1."
        )
        assert torch.allclose(weights, expected, atol=1e-5), (
            f"softmax of\n{x}\nalong the last axis should be\n{expected}\nyours is\n{weights}\n"
            "Check which axis the sum runs along."
        )
        with expecting("softmax(x, dim=0) of a transposed (non-contiguous) x should work"):
            columns = softmax(x.T, dim=0)
        assert torch.allclose(columns, expected.T, atol=1e-5), (
            f"With dim=0, each column should sum to 1; yours sum to {columns.sum(dim=0).tolist()}. "
            "Check where you use `dim`."
        )
        for large in (1000.0, -1000.0):
            weights = softmax(torch.tensor([large, large]))
            assert torch.allclose(weights, torch.tensor([0.5, 0.5]), atol=1e-3), (
                f"softmax of [{large}, {large}] should be [0.5, 0.5]; yours is {weights.tolist()}. "
                "What does exp return for numbers of this size?"
            )
        apart = softmax(torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]]))
        assert torch.allclose(apart, torch.full((2, 2), 0.5), atol=1e-3), (
            "A row of 1000 and a row of −1000 in one tensor should both become 0.5; yours are\n"
            f"{apart}\nDo the rows share a constant?"
        )
        forbidden = softmax(torch.tensor([-math.inf, 7.0]))
        assert forbidden[0] == 0, (
            f"An entry of −∞ should become exactly 0; yours is {forbidden[0]}."
        )
        assert abs(forbidden[1] - 1) < 1e-5, (
            f"softmax of [−∞, 7] should be [0, 1]; yours is {forbidden.tolist()}."
        )
        with expecting("softmax should accept float16"):
            half = softmax(torch.tensor([15.0, 15.0], dtype=torch.float16))
        assert half.dtype == torch.float16, f"float16 should stay float16; yours is {half.dtype}."
        assert abs(half[0] - 0.5) < 0.02, (
            f"softmax of [15, 15] in float16 should be [0.5, 0.5]; yours is {half.tolist()}. "
            "exp(12) is already too large for float16."
        )
        print("softmax: all visible checks pass.")

    check_softmax()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Add the same constant to every entry of a slice and simplify the fraction on paper. Which constant
# rules out overflow and keeps the sum at least 1?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each slice needs its own constant, because different slices can have very different values.
# Reductions such as `amax` take `dim` and `keepdim`. With `keepdim=True` the reduced axis stays
# with size 1, so the result broadcasts against `x` for every `dim`.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # The same four scores, divided by a temperature before softmax.
        four_scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
        warm = {temperature: softmax(four_scores / temperature) for temperature in (0.2, 1.0, 5.0)}
        figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True, layout="constrained")
        for axis, (temperature, weights) in zip(axes, warm.items(), strict=True):
            axis.bar([f"{score:g}" for score in four_scores], weights)
            axis.set_title(f"softmax(x / {temperature:g})")
            axis.set_xlabel("x")
        axes[0].set_ylabel("weight")
        plt.show()

# %% [markdown]
# **What to notice.** Softmax depends only on differences: (0, 1) and (1000, 1001) get the same
# weights. The size of the differences decides how sharp it is. Small ones give nearly equal
# weights; with large ones, softmax approaches the argmax, hence its name.

# %% [markdown]
# ## `attention_scores`
# ★★☆☆☆ · 10 minutes
#
# The dot product measures how well a query matches a key. It is large if the two point the same way
# and negative if they point away from each other. One matrix product computes all of them:
#
# $$S = \frac{Q\,K^\top}{\sqrt d} \qquad Q: n \times d, \quad K: m \times d, \quad S: n \times m$$
#
# Row i of $S$ belongs to query i, column j to key j.
#
# **Why √d?** Suppose all entries of a query and a key are independent with mean 0 and variance 1.
# Then their dot product, a sum of d terms, has variance d. Dividing by √d keeps the variance at 1,
# so softmax is equally sharp for every d.
#
# **The traps.** Several sizes are in scope here, and only one of them belongs under the square
# root. Leading axes broadcast: queries `(4, 1, n, d)` and keys `(2, m, d)` give scores
# `(4, 2, n, m)`. In float16, the sum q·k can overflow (the maximum is 65,504) even though the score
# itself fits.


# %%
def attention_scores(
    query: Float[Tensor, "*batch n d"], key: Float[Tensor, "*batch m d"]
) -> Float[Tensor, "*batch n m"]:
    """Return the dot product of every query with every key, divided by √d.

    Leading axes broadcast. In half precision the result is correct whenever the scores fit.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    ### BEGIN SOLUTION
    # Scaled before the product: in float16 the unscaled sum can overflow where the score fits.
    scaled = query / math.sqrt(query.shape[-1])
    return scaled @ key.transpose(-2, -1)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_attention_scores():
        query = torch.tensor([[2.0, 0.0, 0.0, 4.0], [0.0, -6.0, 0.0, 0.0]])
        key = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, -1.0], [5.0, 0.0, 9.0, 0.0]])
        expected = torch.tensor([[3.0, -2.0, 5.0], [-3.0, -9.0, 0.0]])
        with expecting(
            "2 queries and 3 keys of 4 features should give scores of shape (2, 3)",
            "Which matrix has to be transposed?",
        ):
            result = attention_scores(query, key)
        assert result is not None, "attention_scores returns None. Does it end with `return`?"
        assert result.shape == (2, 3), (
            f"2 queries and 3 keys should give scores of shape (2, 3); yours is "
            f"{tuple(result.shape)}. Rows belong to queries, columns to keys."
        )
        assert torch.allclose(result, expected), (
            f"The scores should be\n{expected}\nyours are\n{result}\n"
            "d is 4 here, so √d is 2. Check what you divide by."
        )
        with expecting(
            "Queries (5, 1, 2, 4) and keys (3, 3, 4) should give scores (5, 3, 2, 3)",
            "Swap only the last two axes: `.T` and `transpose(0, 1)` move others.",
        ):
            batch = attention_scores(query.expand(5, 1, 2, 4), key.expand(3, 3, 4))
        assert batch.shape == (5, 3, 2, 3), (
            "Queries (5, 1, 2, 4) and keys (3, 3, 4) should give scores (5, 3, 2, 3); yours are "
            f"{tuple(batch.shape)}. Leading axes broadcast, the last two multiply."
        )
        assert torch.allclose(batch, expected.expand(5, 3, 2, 3)), (
            "With leading axes, the scores should be the same as without; yours differ. "
            "Which axes do you multiply, and which size do you take as d?"
        )
        with expecting("attention_scores should accept float16"):
            wide = torch.full((1, 256), 32.0, dtype=torch.float16)
            score = attention_scores(wide, wide).item()
        assert abs(score - 16384) < 200, (
            f"In float16, this score should be 16384; yours is {score}. The sum before the "
            "division is 262,144, but the float16 maximum is 65,504."
        )
        print("attention_scores: all visible checks pass.")

    check_attention_scores()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `@` multiplies the last two axes and broadcasts the others. The keys have shape `(m, d)` and you
# need `(d, m)`. Swap two axes, counted from the end: `.T` is for two axes only.
# </details>
#
# <details><summary>Hint 2</summary>
#
# You can divide the product by √d, or divide one factor before you multiply. Both are the same on
# paper, but only one keeps every intermediate result small.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # 256 queries and 64 keys, all entries independent and standard normal.
        sizes = [2**power for power in range(11)]
        largest = {"divided by √d": [], "not divided": []}
        typical = {"divided by √d": [], "not divided": []}
        torch.manual_seed(0)
        for d in sizes:
            scaled = attention_scores(torch.randn(256, d), torch.randn(64, d)).double()
            for name, scores in zip(largest, (scaled, scaled * math.sqrt(d)), strict=True):
                weights = softmax(scores)
                largest[name].append(weights.amax(dim=-1).mean().item())
                # The derivative of a weight with respect to its own score is w (1 - w).
                typical[name].append((weights * (1 - weights)).median().item())
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        for name, line in zip(largest, ("o-", "s--"), strict=True):
            left.plot(sizes, largest[name], line, label=name)
            right.loglog(sizes, typical[name], line, label=name)
        left.set(ylim=(0, 1), ylabel="largest weight, mean over queries")
        right.set(ylabel="∂weight/∂score, median")
        for axis in (left, right):
            axis.set_xscale("log", base=2)
            axis.set_xlabel("d")
        left.legend()
        plt.show()

# %% [markdown]
# **What to notice.** With the division (blue), the weights hardly depend on d. Without it (orange,
# dashed), the largest weight grows: at d = 64 one key gets 80 % on average. The right plot shows
# how much the weight of a typical key responds to its score, which is the gradient that this key
# receives. At d = 64 it is 9·10⁻³ with the division and 5·10⁻⁹ without it. An untrained query would
# then be stuck with whichever key it happens to prefer. This is the paper's reason for dividing by
# √d.

# %% [markdown]
# ## `attention`
# ★★☆☆☆ · 10 minutes
#
# Now add the values. The output for query i is the mean of all values, weighted by row i of the
# weights:
#
# $$A = \mathrm{softmax}(S) \qquad O = A\,V \qquad
# V: m \times d_v, \quad A: n \times m, \quad O: n \times d_v$$
#
# **The trap.** Softmax can run along either axis of $S$, and both give weights of the right shape
# without an error. Each *query* distributes a total weight of 1 over the keys. Which axis has to
# sum to 1?
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention` and `flex_attention`.


# %%
def attention(
    query: Float[Tensor, "*batch n d"],
    key: Float[Tensor, "*batch m d"],
    value: Float[Tensor, "*batch m d_v"],
) -> tuple[Float[Tensor, "*batch n d_v"], Float[Tensor, "*batch n m"]]:
    """Return the mean of the values for each query, weighted by how well it matches the keys.

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

    @visible_check
    def check_attention():
        key = torch.tensor([[50.0, 0.0], [0.0, 50.0], [-50.0, -50.0]])
        value = torch.tensor([[1.0, 2.0, 3.0, 0.0], [10.0, 20.0, 30.0, 0.0], [4.0, 5.0, 0.0, 6.0]])
        query = torch.tensor([[0.0, 50.0], [0.0, 0.0]])
        with expecting("Queries (2, 2), keys (3, 2) and values (3, 4) should work"):
            result = attention(query, key, value)
        assert isinstance(result, tuple | list), (
            f"attention should return the pair (output, weights); yours returns a "
            f"{type(result).__name__}."
        )
        output, weights = result
        assert weights.shape == (2, 3), (
            f"2 queries and 3 keys should give weights of shape (2, 3); yours is "
            f"{tuple(weights.shape)}. Is the order (output, weights)?"
        )
        assert output.shape == (2, 4), (
            f"2 queries and values (3, 4) should give an output of shape (2, 4); yours is "
            f"{tuple(output.shape)}."
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(2)), (
            f"The weights of each query should sum to 1; yours sum to {totals.tolist()}. "
            "Which axis of the weights belongs to the keys?"
        )
        assert torch.allclose(output[0], value[1], atol=1e-4), (
            "The first query fits only the second key and should receive its value, "
            f"{value[1].tolist()}; yours receives {output[0].tolist()}."
        )
        assert torch.allclose(output[1], torch.tensor([5.0, 9.0, 11.0, 2.0]), atol=1e-4), (
            "A query of zeros fits all keys equally well and should receive the mean of the values, "
            f"[5, 9, 11, 2]; yours receives {output[1].tolist()}."
        )
        with expecting(
            "Queries (7, 2, 2), keys (3, 2) and values (3, 4) should give an output (7, 2, 4)",
            "Leading axes broadcast. Count axes from the end.",
        ):
            output, weights = attention(query.expand(7, 2, 2), key, value)
        assert output.shape == (7, 2, 4), (
            f"Queries (7, 2, 2) should give an output (7, 2, 4); yours is {tuple(output.shape)}."
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(7, 2)), (
            "With a leading axis, the weights of each query should still sum to 1; yours sum to\n"
            f"{totals}\nCount the axis for softmax from the end."
        )
        # d is 4, the score 2·log 3 / √4 = log 3, so the first key weighs three times the second.
        first, second = torch.zeros(1, 4), torch.zeros(2, 4)
        first[0, 0], second[0, 0] = 2.0, math.log(3.0)
        _, weights = attention(first, second, value[:2, :3])
        assert torch.allclose(weights, torch.tensor([[0.75, 0.25]])), (
            f"Scores log 3 and 0 should give weights 3/4 and 1/4; yours are {weights.tolist()}. "
            "How are the scores scaled?"
        )
        print("attention: all visible checks pass.")

    check_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You have already written both parts of A. Rows of the scores belong to queries, columns to keys.
# Along which axis, counted from the end, does one query distribute its weight?
# </details>
#
# <details><summary>Hint 2</summary>
#
# For one query, the output is Σⱼ Aᵢⱼ Vⱼ, a sum over the keys. A matrix product sums over the last
# axis of its left factor and the last but one of its right factor. No transpose is needed.
# </details>

# %% [markdown]
# The next cell shows attention at work without training. It describes each word by how often the
# letters a to z occur in it.


# %%
def letter_features(words: list[str]) -> Float[Tensor, "n 26"]:
    """Return how often each letter a–z occurs in each word, scaled to length 1."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    counts = torch.tensor([[float(word.lower().count(c)) for c in letters] for word in words])
    return counts / counts.norm(dim=-1, keepdim=True)


# %%
if __name__ == "__main__":

    def draw_weights(axis, weights, queries, keys, title):
        """Draw weights (n, m) as a heat map: a row per query, a column per key."""
        image = axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(keys)), keys, rotation=60, ha="right")
        axis.set_yticks(range(len(queries)), queries)
        axis.set(title=title, xlabel="key", ylabel="query")
        return image

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
        image = draw_weights(right, word_weights, words, words, "a sentence attends to itself")
        figure.colorbar(image, ax=right, label="weight")
        plt.show()
        for word, number in zip(misspelt, found[:, 0].tolist(), strict=True):
            print(f"{word:<10} day {number:.2f} of the week")

# %% [markdown]
# **What to notice.**
#
# * On the left, queries, keys and values differ: misspelt words look up days, and each value is the
#   number of a day. This is **cross-attention**. `Fryday` finds day 5. `Tusday` is torn between
#   Tuesday (2) and Saturday (6) and gets a number between the two.
# * On the right, queries, keys and values come from the same words. This is **self-attention**.
#   Both occurrences of `sea` get the same row: attention knows nothing about order. Chapter 3
#   changes that.
# * Each row sums to 1. Columns need not: no query looks at Monday.

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.1. [Weng, The
# Transformer Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/),
# "Attention and Self-Attention". [Bahdanau et al. 2015](https://arxiv.org/abs/1409.0473), section
# 3.1: attention when it was still part of a recurrent network.
#
# **Discuss.**
#
# 1. Source and target both become ten times longer. What happens to the time and the memory that
#    attention needs?
# 2. In the example, *red* gives *purple* as much weight as itself. Why? What could a model learn
#    that changes this?
#
# <details><summary>Answers</summary>
#
# 1. Both matrix products take n·m·d multiplications, and the weights are n·m numbers. Time and
#    memory grow a hundredfold. This motivates the efficient variants on Day 2.
# 2. The dot product grows with the length of the key, and *purple* is longer (√2 instead of 1).
#    So *red* has the same dot product, 1, with both keys. A model does not use the token vectors
#    directly. It learns three linear maps that make queries, keys and values from them (chapter 4),
#    so it can make *red* prefer any token.
# </details>
