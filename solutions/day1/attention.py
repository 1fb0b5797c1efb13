# %% [markdown]
# # Attention
#
# *Chapter 1 of 7*
#
# To write the month of a date, your model has to find the month in the source. Attention performs
# this search. Each position has a **query**, which describes what it is looking for. Each position
# also has a **key**, which is compared with the queries, and a **value**, which is the information
# that it passes on. The result for a query is the mean of all values, weighted by how well the
# query matches each key.
#
# ![The left side shows a dictionary lookup: the query red matches one key, and the result is its
# value, (1, 0). The right side shows attention: the query red assigns the weights 0.40, 0.20 and
# 0.40 to the keys red, blue and purple. The result is the weighted mean of their values, (0.80,
# 0.60).](figures/lookup.svg)
#
# A dictionary lookup returns one value or fails. Attention compares the query with all keys and
# returns a mixture of values, so it is differentiable.
#
# **Today's example.** Three tokens have d = 2 features each: *red* = (1, 0), *blue* = (0, 1) and
# *purple* = (1, 1). These vectors serve as queries, keys and values. Work through the query *red*
# on paper:
#
# 1. The dot products with the three keys are 1, 0 and 1.
# 2. Dividing them by √2 gives the scores 0.71, 0 and 0.71.
# 3. The exponentials of the scores are 2.03, 1 and 2.03. Dividing them by their sum, 5.06, gives
#    the weights 0.40, 0.20 and 0.40.
# 4. The output is 0.40·(1, 0) + 0.20·(0, 1) + 0.40·(1, 1) = (0.80, 0.60).
#
# You will implement steps 1 and 2 as `attention_scores`, step 3 as `softmax`, and all four as
# `attention`. In code, queries are the rows of one matrix:
#
# ![The n × d queries times the transposed keys, divided by the square root of d, give n × m scores.
# Softmax along each row turns them into weights that sum to 1 per row. The weights times the m ×
# d_v values give the n × d_v output.](figures/shapes.svg)

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from solutions.opening import demonstration, expecting, look, predict, record, visible_check

# %% [markdown]
# ## `softmax`
# ★★☆☆☆ · 10 minutes
#
# A score can be any number, but a weighted mean needs non-negative weights that sum to 1. Softmax
# turns scores into such weights:
#
# $$\mathrm{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# The sum runs over one axis, `dim`. If `x` has shape `(2, 3)`, each row sums to 1 with `dim=1`, and
# each column with `dim=0`.
#
# **The trap.** $e^{89}$ overflows in float32, and $e^{12}$ overflows in float16. Softmax is then
# ∞/∞ = NaN. If all entries are very negative, every exponential underflows to 0, and 0/0 is NaN as
# well. The function has to work for entries of ±10⁴. An entry of −∞ has to get a weight of exactly
# 0; the next chapter uses this to hide keys.
#
# Not allowed: torch's `softmax`, `log_softmax` and `softmin`, and `torch.distributions`.


# %%
def softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Return the exponentials of `x`, normalised to sum to 1 along `dim`.

    Args:
        x: scores in half, single or double precision. An entry of −inf gets a weight of exactly 0
            if its slice has at least one finite entry.
        dim: the axis along which to normalise. It may be negative.

    Returns:
        weights with the shape and dtype of `x`. In slices of at most 65,504 entries, there is no
        overflow for entries of ±10⁴ in float32, or for any finite entries in half precision.

    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 4.1.
    """
    ### BEGIN SOLUTION
    # In exact arithmetic, the shift does not change the result. It makes the largest exponential 1.
    shifted = x - x.amax(dim=dim, keepdim=True)
    exponentials = torch.exp(shifted)
    return exponentials / exponentials.sum(dim=dim, keepdim=True)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_softmax():
        x = torch.tensor([[0.0, math.log(2.0), 0.0], [-2.0, -2.0, -2.0]])
        expected = torch.tensor([[1 / 4, 1 / 2, 1 / 4], [1 / 3, 1 / 3, 1 / 3]])
        with expecting(
            "softmax of a tensor of shape (2, 3) should work",
            "If shapes do not match, keep each axis that you reduce as an axis of size 1.",
        ):
            weights = softmax(x)
        assert weights is not None, "softmax returns None. Does it end with `return`?"
        assert weights.shape == x.shape, (
            "The result should have the same shape as x, (2, 3); yours has shape "
            f"{tuple(weights.shape)}. Keep the axis that you sum over as an axis of size 1."
        )
        assert torch.allclose(weights, expected, atol=1e-5), (
            f"softmax of\n{x}\nalong the last axis should be\n{expected}\nyours is\n{weights}"
        )
        with expecting("softmax(x, dim=0) should work for a transposed (non-contiguous) x"):
            columns = softmax(x.T, dim=0)
        assert torch.allclose(columns, expected.T, atol=1e-5), (
            f"With dim=0, softmax of\n{x.T}\nshould be\n{expected.T}\nyours is\n{columns}\n"
            "Check where you use `dim`."
        )
        for large in (1000.0, -1000.0):
            weights = softmax(torch.tensor([large, large]))
            assert torch.allclose(weights, torch.tensor([0.5, 0.5]), atol=1e-3), (
                f"softmax of [{large}, {large}] should be [0.5, 0.5]; yours is {weights.tolist()}. "
                "What does exp return for numbers of this size?"
            )
        distant = softmax(torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]]))
        assert torch.allclose(distant, torch.full((2, 2), 0.5), atol=1e-3), (
            "If x has a row of 1000s and a row of −1000s, all weights should be 0.5; yours are\n"
            f"{distant}\nDo you subtract the same constant from every row?"
        )
        forbidden = softmax(torch.tensor([-math.inf, 7.0]))
        assert forbidden[0] == 0, (
            f"An entry of −∞ should get a weight of exactly 0; yours gets {forbidden[0]}."
        )
        assert abs(forbidden[1] - 1) < 1e-5, (
            f"softmax of [−∞, 7] should be [0, 1]; yours is {forbidden.tolist()}."
        )
        with expecting("softmax should accept float16"):
            half = softmax(torch.tensor([15.0, 15.0], dtype=torch.float16))
        assert half.dtype == torch.float16, (
            f"For a float16 input, the result should be float16; yours is {half.dtype}."
        )
        assert abs(half[0] - 0.5) < 0.02, (
            f"softmax of [15, 15] in float16 should be [0.5, 0.5]; yours is {half.tolist()}. "
            "exp(12) already overflows in float16."
        )
        x = torch.tensor([0.0, math.log(2.0), 0.0], requires_grad=True)
        with expecting(
            "softmax should be differentiable",
            "In-place operations such as `/=` can overwrite values that the gradient needs.",
        ):
            softmax(x)[1].backward()
        # With weights (1/4, 1/2, 1/4), the derivatives of the second weight are −1/8, 1/4 and −1/8.
        assert torch.allclose(x.grad, torch.tensor([-0.125, 0.25, -0.125]), atol=1e-5), (
            "The gradient of the second weight with respect to x should be [-0.125, 0.25, -0.125]; yours "
            f"is {x.grad.tolist()}."
        )
        print("softmax: all visible checks pass.")

    check_softmax()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# On paper, add the same constant to every entry of a slice and simplify the fraction. Which
# constant prevents overflow and makes the sum at least 1?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each slice needs its own constant, because different slices can have very different values.
# Reductions such as `amax` take `dim` and `keepdim`. With `keepdim=True`, the reduced axis is kept
# with size 1, so the result broadcasts against `x` for every `dim`. (`x.max(dim)` returns a pair of
# values and indices; use its `.values`, or `amax`.)
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Divide the same four scores by different temperatures before softmax.
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
# **What to notice.** Softmax depends only on the differences between scores: (0, 1) and (1000,
# 1001) give the same weights. Small differences give nearly equal weights. With large differences,
# the result approaches a one-hot vector.

# %% [markdown]
# ## `attention_scores`
# ★★☆☆☆ · 10 minutes
#
# The dot product measures how well a query matches a key. It is large if the two vectors point in
# similar directions, and negative if they point in opposite directions. One matrix product computes
# all dot products:
#
# $$S = \frac{Q\,K^\top}{\sqrt d} \qquad Q: n \times d, \quad K: m \times d, \quad S: n \times m$$
#
# Row i of $S$ corresponds to query i, and column j to key j.
#
# **Why √d?** Suppose all entries of a query and a key are independent, with mean 0 and variance 1.
# Then their dot product, a sum of d terms, has variance d. Dividing by √d keeps the variance at 1,
# so softmax is about equally sharp for every d.
#
# **The traps.** Only one of n, m and d belongs under the square root. Leading axes broadcast:
# queries `(4, 1, n, d)` and keys `(2, m, d)` give scores `(4, 2, n, m)`. In float16 (maximum
# 65,504), the dot product can overflow even if the score does not.


# %%
def attention_scores(
    query: Float[Tensor, "*#batch n d"], key: Float[Tensor, "*#batch m d"]
) -> Float[Tensor, "*batch n m"]:
    """Return the dot product of each query with each key, divided by √d.

    Leading axes broadcast. In half precision, nothing overflows unless the scores themselves do.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    ### BEGIN SOLUTION
    # Scale before multiplying: in float16, the unscaled sum can overflow even if the score does not.
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
            "2 queries and 3 keys with 4 features each should give scores of shape (2, 3)",
            "Any number of leading axes, or none, should work. Which two axes of which matrix do you "
            "have to swap?",
        ):
            result = attention_scores(query, key)
        assert result is not None, "attention_scores returns None. Does it end with `return`?"
        assert result.shape == (2, 3), (
            f"2 queries and 3 keys should give scores of shape (2, 3); yours have shape "
            f"{tuple(result.shape)}. Rows correspond to queries, and columns to keys."
        )
        assert torch.allclose(result, expected), (
            f"The scores should be\n{expected}\nyours are\n{result}\nd is 4 here, so √d is 2."
        )
        with expecting(
            "Queries of shape (5, 1, 2, 4) and keys of shape (3, 3, 4) should give scores of shape (5, 3, 2, 3)",
            "Swap only the last two axes. `.T` and `transpose(0, 1)` move other axes.",
        ):
            batch = attention_scores(query.expand(5, 1, 2, 4), key.expand(3, 3, 4))
        assert batch.shape == (5, 3, 2, 3), (
            "Queries of shape (5, 1, 2, 4) and keys of shape (3, 3, 4) should give scores of shape "
            f"(5, 3, 2, 3); yours have shape {tuple(batch.shape)}. The product uses the last two axes; "
            "the others broadcast."
        )
        assert torch.allclose(batch, expected.expand(5, 3, 2, 3)), (
            "Leading axes should not change the scores; with your function, they do. "
            "Which axes do you multiply, and which size do you use as d?"
        )
        with expecting("attention_scores should accept float16"):
            wide = torch.full((1, 256), 32.0, dtype=torch.float16)
            score = attention_scores(wide, wide)
        assert score.dtype == torch.float16, f"The scores should be float16, not {score.dtype}."
        assert abs(score.item() - 16384) < 200, (
            f"In float16, this score should be 16384; yours is {score.item()}. Before scaling, the sum "
            "is 262,144, which exceeds the float16 maximum of 65,504."
        )
        print("attention_scores: all visible checks pass.")

    check_attention_scores()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `@` multiplies matrices along the last two axes and broadcasts the others. The keys have shape
# `(m, d)`, but you need `(d, m)`. Swap two axes, using negative indices. `.T` is only for tensors
# with two axes.
# </details>
#
# <details><summary>Hint 2</summary>
#
# You can divide the product by √d, or divide one factor before you multiply. On paper, both give
# the same result, but only one keeps every intermediate result small.
# </details>

# %%
if __name__ == "__main__":
    predict("Without scaling, how large is the largest of 64 weights if d = 64?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        # Use 256 queries and 64 keys. All entries are independent and standard normal.
        sizes = [2**power for power in range(11)]
        largest = {"scaled by 1/√d": [], "unscaled": []}
        typical = {"scaled by 1/√d": [], "unscaled": []}
        torch.manual_seed(0)
        for d in sizes:
            scaled = attention_scores(torch.randn(256, d), torch.randn(64, d)).double()
            for name, scores in zip(largest, (scaled, scaled * math.sqrt(d)), strict=True):
                weights = softmax(scores)
                largest[name].append(weights.amax(dim=-1).mean().item())
                # The derivative of a weight with respect to its own score is w (1 - w).
                typical[name].append((weights * (1 - weights)).median().item())
        predict.reveal(
            "Without scaling, how large is the largest of 64 weights if d = 64?",
            largest["unscaled"][6],
        )
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
# **What to notice.** With scaling (blue), the weights hardly depend on d. Without it (orange,
# dashed), the largest weight grows: at d = 64, one key gets 80% of the weight on average. The right
# plot shows the derivative of a typical key's weight with respect to its score. The gradient that
# reaches the key is proportional to this derivative. At d = 64, the derivative is 9·10⁻³ with
# scaling and 5·10⁻⁹ without. This is the paper's reason for dividing by √d.

# %% [markdown]
# ## `attention`
# ★★☆☆☆ · 5 minutes
#
# The output for query i is the mean of all values, weighted by row i of the attention weights $A$:
#
# $$A = \mathrm{softmax}(S) \qquad O = A\,V \qquad
# V: m \times d_v, \quad A: n \times m, \quad O: n \times d_v$$
#
# **The trap.** Softmax along either axis of $S$ gives the right shape, and neither choice raises an
# error. Each *query* distributes a total weight of 1 over the keys. Along which axis must the
# weights sum to 1?
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention` and `flex_attention`.


# %%
def attention(
    query: Float[Tensor, "*#batch n d"],
    key: Float[Tensor, "*#batch m d"],
    value: Float[Tensor, "*#batch m d_v"],
) -> tuple[Float[Tensor, "*batch n d_v"], Float[Tensor, "*batch n m"]]:
    """Return the mean of the values for each query, weighted by how well the query matches each key.

    `d_v` may differ from `d`, and `m` may differ from `n`. The leading axes of all three arguments
    broadcast.

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
        with expecting("Queries, keys and values of shapes (2, 2), (3, 2) and (3, 4) should work"):
            result = attention(query, key, value)
        assert isinstance(result, tuple | list), (
            f"attention should return the pair (output, weights); yours returns a "
            f"{type(result).__name__}."
        )
        output, weights = result
        assert weights.shape == (2, 3), (
            f"2 queries and 3 keys should give weights of shape (2, 3); yours have shape "
            f"{tuple(weights.shape)}. Do you return the pair in the order (output, weights)?"
        )
        assert output.shape == (2, 4), (
            f"2 queries and values of shape (3, 4) should give an output of shape (2, 4); yours has "
            f"shape {tuple(output.shape)}."
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(2)), (
            f"The weights of each query should sum to 1; your rows sum to {totals.tolist()}."
        )
        assert torch.allclose(output[0], value[1], atol=1e-4), (
            "The first query matches only the second key, so its output should be that key's value, "
            f"{value[1].tolist()}; yours is {output[0].tolist()}."
        )
        assert torch.allclose(output[1], torch.tensor([5.0, 9.0, 11.0, 2.0]), atol=1e-4), (
            "A query of zeros matches all keys equally well, so its output should be the mean of the "
            f"values, [5, 9, 11, 2]; yours is {output[1].tolist()}."
        )
        with expecting(
            "Queries, keys and values of shapes (7, 2, 2), (3, 2) and (3, 4) should give an output of shape (7, 2, 4)",
            "Leading axes broadcast. Count axes from the end.",
        ):
            output, weights = attention(query.expand(7, 2, 2), key, value)
        assert output.shape == (7, 2, 4), (
            "Queries of shape (7, 2, 2) should give an output of shape (7, 2, 4); yours has shape "
            f"{tuple(output.shape)}."
        )
        totals = weights.sum(dim=-1)
        assert torch.allclose(totals, torch.ones(7, 2)), (
            "With a leading axis, the weights of each query should still sum to 1; yours sum to\n"
            f"{totals}\nCount the axis of the softmax from the end."
        )
        # With d = 4, the first score is 2·log 3 / √4 = log 3, so its weight is three times the other.
        first, second = torch.zeros(2, 4), torch.zeros(2, 4)
        first[0, 0], second[0, 0] = 2.0, math.log(3.0)
        _, weights = attention(first, second, value[:2, :3])
        assert torch.allclose(weights, torch.tensor([[0.75, 0.25], [0.5, 0.5]])), (
            "Scores of log 3 and 0 should give weights of 3/4 and 1/4, and two equal scores give 1/2 and 1/2; "
            f"yours are {weights.tolist()}."
        )
        print("attention: all visible checks pass.")

    check_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You have already written both functions that you need for A. In the score matrix, rows correspond
# to queries and columns to keys. Along which axis, counting from the end, does each query
# distribute its weight?
# </details>
#
# <details><summary>Hint 2</summary>
#
# The output for query i is Σⱼ Aᵢⱼ Vⱼ, a sum over the keys. A matrix product sums over the last axis
# of its left factor and the second-to-last axis of its right factor. You do not need a transpose.
# </details>

# %% [markdown]
# The next cells show attention at work without training. Each word is represented by how often the
# letters a to z occur in it. Point at a weight to read it.


# %%
def letter_features(words: list[str]) -> Float[Tensor, "n 26"]:
    """Return the letter counts (a–z) of each word, scaled to unit length."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    counts = torch.tensor([[float(word.lower().count(c)) for c in letters] for word in words])
    return counts / counts.norm(dim=-1, keepdim=True)


# %%
if __name__ == "__main__":
    with demonstration():
        sharpness = 100  # try 10 and 1000

        days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        misspelt = ["Fryday", "Tusday", "Satterday", "Wensday"]
        numbers = torch.arange(1.0, 8.0).reshape(7, 1)  # the values: Monday is 1
        found, day_weights = attention(
            sharpness * letter_features(misspelt), letter_features(days), numbers
        )

        words = ["she", "sells", "sea", "shells", "by", "the", "sea", "shore"]
        features = letter_features(words)
        _, word_weights = attention(sharpness * features, features, features)

        look({"misspelt days look up days": day_weights}, misspelt, days)
        look({"a sentence attends to itself": word_weights}, words)
        for word, number in zip(misspelt, found[:, 0].tolist(), strict=True):
            print(f"{word:<10} day {number:.2f} of the week")

# %% [markdown]
# **What to notice.**
#
# * Above, misspelt queries look up correctly spelt keys. The values are day numbers (Monday
#   is 1). This is **cross-attention**. `Fryday` finds day 5. `Tusday` and `Satterday` match both
#   Tuesday (2) and Saturday (6), so they get numbers in between.
# * Below, queries, keys and values come from the same words. This is **self-attention**.
#   Both occurrences of `sea` get the same row, because attention ignores order. Chapter 3 changes
#   that.
# * Each row sums to 1, but columns need not: no query attends to Monday.

# %% [markdown]
# ## One layer learns to look up
#
# Now attention learns. The keys are six pairs such as `c7`, in any order, and each query is a
# letter. The layer should answer with the digit beside this letter. Its vectors, and the three
# linear maps that turn them into queries, keys and values, start out random. Your `attention` does
# the rest. Training takes about 2 seconds.


# %% tags=["support"]
LAYER_STEPS = 300


class OneLayer(nn.Module):
    """A layer around the student's `attention`. It reads symbols (0–9, a–z) and answers each query with a digit."""

    def __init__(self, n_features):
        super().__init__()
        self.symbols = nn.Embedding(36, n_features)
        self.query, self.key, self.value = (nn.Linear(n_features, n_features) for _ in range(3))
        self.out = nn.Linear(n_features, 10)

    def embed(self, texts):
        """Return the vector of each text, such as "c7": the sum of its symbols' vectors."""
        ids = [torch.tensor([int(symbol, 36) for symbol in text]) for text in texts]
        return torch.stack([self.symbols(row).sum(dim=0) for row in ids])

    def forward(self, queries, keys):
        """Return the logits of the ten digits for each query, and the attention weights."""
        output, weights = attention(self.query(queries), self.key(keys), self.value(keys))
        return self.out(output), weights


def look_ups(layer, n):
    """Return the queries and keys of n random look-up tasks, and the correct digits."""
    letters = layer.symbols(10 + torch.rand(n, 26).argsort(dim=-1)[:, :6])
    digits = torch.randint(10, (n, 6))
    return letters, letters + layer.symbols(digits), digits


def train_layer(layer, tasks):
    """Train a OneLayer for LAYER_STEPS steps on random tasks. Return the percentage of correct answers to 1,000 new tasks."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(LAYER_STEPS):
        queries, keys, digits = tasks(layer, 64)
        loss = F.cross_entropy(layer(queries, keys)[0].transpose(1, 2), digits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    queries, keys, digits = tasks(layer, 1000)
    answers = layer(queries, keys)[0].argmax(dim=-1)
    return 100 * (answers == digits).float().mean().item()


# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        layer = OneLayer(n_features=32)
        pairs, letters = ["c7", "a2", "f9", "b0", "e4", "d1"], "abcdef"
        _, untrained = layer(layer.embed(letters), layer.embed(pairs))
        n_right = train_layer(layer, look_ups)
        _, trained = layer(layer.embed(letters), layer.embed(pairs))
        look({"before training": untrained, "after training": trained}, letters, pairs)
        print(f"{n_right:.1f}% of the answers to new look-ups are right")

# %% [markdown]
# **What to notice.** From examples alone, the layer learned that equal letters belong together. Each
# letter finds its pair, and more than 99.9% of the answers are right (seeds 0 to 2).
#
# **Your experiment.** How many features does this task need? Choose a number, predict the result,
# and try it. Guessing gives 10%.

# %%
if __name__ == "__main__":
    predict("With your number of features, what percentage of answers is right?", ...)

# %%
if __name__ == "__main__":
    n_features = 4  # choose a number from 2 to 10
    with demonstration():
        n_right = train_layer(OneLayer(n_features), look_ups)
        predict.reveal(
            "With your number of features, what percentage of answers is right?", n_right
        )
        record(f"% of look-ups right with {n_features} features", n_right)

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.1. [Weng, The
# Transformer Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/),
# "Attention and Self-Attention". [Bahdanau et al. 2015](https://arxiv.org/abs/1409.0473), section
# 3.1: attention as part of a recurrent network.
#
# **Discuss.**
#
# 1. How much more time and memory does attention need if source and target both become ten times
#    longer?
# 2. In the example, *red* gives *purple* as much weight as itself. Why? What could a model learn
#    that would change this?
#
# <details><summary>Answers</summary>
#
# 1. The two matrix products take n·m·d and n·m·d_v multiplications, and there are n·m weights. Time
#    and memory therefore grow a hundredfold (those of linear layers, only tenfold). This motivates
#    the efficient variants on Day 2.
# 2. The dot product grows with the length of the key, and *purple* is longer (√2 instead of 1). So
#    *red* has the same dot product, 1, with both keys. A model does not use the token vectors
#    directly. It learns three linear maps that turn them into queries, keys and values (chapter 4),
#    so it can learn to make *red* prefer any token.
# </details>
