# %% [markdown]
# # Positional encoding
#
# *Chapter 3 of 7*
#
# Attention ignores order: it compares each query with each key, wherever they are. A Transformer
# therefore adds a second vector, which depends only on the position, to each token vector.
#
# The layer from chapter 1 now gets a task that needs order. It reads eight digits and should write
# them in reverse. All its queries are equal, because nothing tells it which output is which.

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from solutions.day1.attention import OneLayer, train_layer
from solutions.opening import (
    demonstration,
    expecting,
    expecting_value_error,
    look,
    predict,
    record,
    visible_check,
)


# %% tags=["support"]
class Reversals:
    """Random tasks for a OneLayer: read eight digits, and write them in reverse order."""

    def __init__(self, positions=0.0):
        self.positions = positions  # added to each vector

    def __call__(self, layer, n):
        digits = torch.randint(10, (n, 8))
        keys = layer.symbols(digits)
        return torch.zeros_like(keys) + self.positions, keys + self.positions, digits.flip(-1)

    def weights(self, layer, digits):
        keys = layer.embed(digits)
        return layer(torch.zeros_like(keys) + self.positions, keys + self.positions)[1]


# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        tasks = Reversals()
        layer = OneLayer(n_features=32)
        n_right = train_layer(layer, tasks)
        look({"no positions": tasks.weights(layer, "31415926")}, range(8), "31415926")
        print(f"without positions: {n_right:.1f}% of the digits are right")

# %% [markdown]
# **What to notice.** All rows are equal, so the layer writes the same digit eight times: at best, the
# most frequent one. Only about 30% of the digits are right.

# %% [markdown]
# ## `sinusoidal_encoding`
# ★★★☆☆ · 15 minutes
#
# Why not append the position p as a number? It has no upper limit. At position 500, a model trained
# on positions up to 50 would see a number ten times larger than any in training. The sinusoidal
# encoding represents p the way a clock represents time. Several hands turn at constant speeds, each
# more slowly than the previous one.
#
# ![The clock hands of pairs 0, 1 and 2 at positions 0, 1, 2, 3, 4, 10, 20 and 30. Pair 0 turns by
# one radian per position, pair 1 by a tenth of that and pair 2 by a hundredth.](figures/clocks.svg)
#
# Together, the hands identify the position, and all numbers stay between −1 and 1. For position $p$
# and pair $i = 0, 1, 2, \dots$:
#
# $$\mathrm{PE}(p, 2i) = \sin\!\left(\frac{p}{10000^{2i/d}}\right) \qquad
# \mathrm{PE}(p, 2i+1) = \cos\!\left(\frac{p}{10000^{2i/d}}\right)
# \qquad \mathrm{PE}: \text{length} \times d$$
#
# **Today's example.** With d = 2, there is one pair: PE(0) = (0, 1), PE(1) = (0.84, 0.54) and PE(2)
# = (0.91, −0.42). If you add these to *red*, *blue* and *purple*, the output for *purple* is (1.50,
# 0.87). If you swap *red* and *blue*, it becomes (1.75, 0.66). Without positional encoding, it was
# (0.75, 0.75) in both cases.
#
# **The traps.** The index i counts pairs, not columns. If d is odd, the last column is an unpaired
# sine.


# %%
def sinusoidal_encoding(length: int, d_model: int) -> Float[Tensor, "length d_model"]:
    """Return the sinusoidal encodings of positions 0, 1, …, `length` − 1, one per row.

    Column 2i is sin(p / 10000^(2i/d_model)), and column 2i+1 is the cosine of the same angle.

    Args:
        length: the number of positions. 0 gives an empty table.
        d_model: the number of columns, at least 1. If it is odd, the last column is a sine.

    Returns:
        a float32 table within 2·10⁻³ of the exact values for positions up to 10,000.

    Source: Vaswani et al. (2017), section 3.5.
    """
    ### BEGIN SOLUTION
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    even_columns = torch.arange(0, d_model, 2, dtype=torch.float64)
    angles = positions / 10000 ** (even_columns / d_model)  # length × pairs
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1)  # length × pairs × 2
    # If d_model is odd, drop the cosine of the last pair.
    return pairs.flatten(1)[:, :d_model].float()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_sinusoidal_encoding():
        with expecting(
            "3 positions and d_model 4 should work",
            "Do the shapes of positions and pairs, such as (3, 1) and (2,), broadcast to (3, 2)?",
        ):
            table = sinusoidal_encoding(3, 4)
        assert table is not None, "sinusoidal_encoding returns None. Does it end with `return`?"
        assert isinstance(table, torch.Tensor), (
            f"The table should be a tensor; yours is of type {type(table).__name__}."
        )
        assert table.shape == (3, 4), (
            "3 positions and d_model 4 should give a table of shape (3, 4); yours has shape "
            f"{tuple(table.shape)}."
        )
        assert table.dtype == torch.float32, f"The table should be float32; yours is {table.dtype}."
        # With d_model 4, the angle of the first pair is p, and that of the second is p/100.
        expected = torch.tensor(
            [
                [0.0, 1.0, 0.0, 1.0],
                [0.841471, 0.540302, 0.0099998, 0.99995],
                [0.909297, -0.416147, 0.0199987, 0.9998],
            ]
        )
        assert torch.allclose(table, expected, atol=1e-5), (
            f"For 3 positions and d_model 4, the table should be\n{expected}\nyours is\n{table}\n"
            "Columns 0 and 2 are sines, and columns 1 and 3 are cosines, of the angles p and p/100."
        )
        # With d_model 8, each pair turns ten times more slowly than the previous one.
        wide = sinusoidal_encoding(1001, 8)
        for pair in range(1, 4):
            seen = wide[10**pair, 2 * pair : 2 * pair + 2]
            assert torch.allclose(seen, expected[1, :2], atol=2e-3), (
                f"With d_model 8, pair {pair} turns by 1 radian in {10**pair} positions. At position "
                f"{10**pair}, columns {2 * pair} and {2 * pair + 1} should be sin 1 and cos 1; "
                f"yours are {seen.tolist()}. Check the exponent."
            )
        with expecting(
            "An odd d_model of 5 should give a table with 5 columns",
            "There is one extra sine column.",
        ):
            odd = sinusoidal_encoding(4, 5)
        assert odd.shape == (4, 5), (
            f"With d_model 5, the table should have 5 columns; yours has {odd.shape[1]}."
        )
        assert abs(odd[0, 4]) < 1e-6, (
            "With d_model 5, column 4 is a sine, so it should be 0 at position 0; "
            f"yours is {odd[0, 4]:.3f}."
        )
        with expecting("A length of 0 should give an empty table"):
            empty = sinusoidal_encoding(0, 6).shape
        assert empty == (0, 6), (
            f"A length of 0 should give a table of shape (0, 6); yours has shape {tuple(empty)}."
        )
        print("sinusoidal_encoding: all visible checks pass.")

    check_sinusoidal_encoding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The table of angles has two axes: positions and pairs. Create a vector for each axis, and give one
# of the vectors a second axis of size 1. Broadcasting then produces the table. Compute both the
# sines and the cosines from it.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The numbers 2i are `0, 2, 4, …`, a range with a step. To interleave the columns of two tables,
# assign to every second column, or stack the tables along a new last axis and flatten. If d is odd,
# there is one extra sine column. A Python loop over the pairs is also fine.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        table = sinusoidal_encoding(100, 64)
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
        image = left.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
        left.set(title="the table, transposed", xlabel="position", ylabel="column")
        figure.colorbar(image, ax=left, label="value")
        for column, line in zip((0, 8, 16, 32), ("-", "--", "-.", ":"), strict=True):
            right.plot(table[:, column], line, label=f"column {column}")
        right.set(title="some columns", xlabel="position", ylabel="value")
        right.legend(loc="upper left", bbox_to_anchor=(1, 1))
        plt.show()

# %%
if __name__ == "__main__":
    predict("For d = 64, PE(20) · PE(50) is 17.07. What is PE(50) · PE(80)?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        table = sinusoidal_encoding(100, 64)
        similarity = table @ table.T
        predict.reveal(
            "For d = 64, PE(20) · PE(50) is 17.07. What is PE(50) · PE(80)?",
            similarity[50, 80].item(),
        )
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
        image = left.imshow(similarity)
        left.set(title="PE(p) · PE(p′)", xlabel="p′", ylabel="p")
        figure.colorbar(image, ax=left, label="dot product")
        for position, width in ((20, 6), (50, 3.5), (80, 1.2)):
            distance = torch.arange(100) - position
            right.plot(distance, similarity[position], label=f"p = {position}", linewidth=width)
        right.set(title="three of its rows, by distance", xlabel="p′ − p", ylabel="dot product")
        right.legend()
        plt.show()

# %% [markdown]
# **What to notice.** In the first figure, fast columns (top) distinguish neighbouring positions,
# and the slowest (bottom) hardly change over 100 positions. In the second, the three curves coincide
# wherever their ranges overlap: the similarity depends only on the distance. A (sine, cosine) pair
# with angle a at one position and b at the other contributes $\cos(a - b)$ to the dot product.
#
# Now add this table to the vectors of the layer that failed to reverse digits.

# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        tasks = Reversals(sinusoidal_encoding(8, 32))
        layer = OneLayer(n_features=32)
        n_right = train_layer(layer, tasks)
        look({"with positions": tasks.weights(layer, "31415926")}, range(8), "31415926")
        print(f"with positions: {n_right:.1f}% of the digits are right")

# %% [markdown]
# **What to notice.** Output 0 attends to position 7, output 1 to position 6, and so on: the layer now
# reverses all digits.
#
# **Your experiment.** Positions and digits share the same 32 features. How strong must the positions
# be? Multiply the table by a factor.

# %%
if __name__ == "__main__":
    predict("With your factor, what percentage of digits is right?", ...)

# %%
if __name__ == "__main__":
    factor = 0.1  # choose a number from 0.02 to 20
    with demonstration():
        n_right = train_layer(OneLayer(32), Reversals(factor * sinusoidal_encoding(8, 32)))
        predict.reveal("With your factor, what percentage of digits is right?", n_right)
        record(f"% of digits right with positions times {factor}", n_right)

# %% [markdown]
# ## `shift_matrix`
# ★★★☆☆ · 20 minutes
#
# The paper (section 3.5) suggests that sines and cosines let a model learn to attend by relative
# position. The reason is that moving by k positions multiplies PE(p) by the same matrix for every
# p. A linear layer can learn such a matrix, so attention can learn to look two tokens back.
#
# $$\underbrace{M_k}_{d \times d}\;\underbrace{\mathrm{PE}(p)}_{d}
# = \underbrace{\mathrm{PE}(p + k)}_{d}
# \qquad \text{for every position } p$$
#
# Hand i turns by the angle $k\,\omega_i$, where $\omega_i = 10000^{-2i/d}$. So $M_k$ has 2×2
# rotations on its diagonal and zeros elsewhere:
#
# ![The matrix M has six rows and columns. Three 2×2 blocks on its diagonal rotate pairs 0, 1 and 2;
# all other entries are zero. M maps PE(p) to PE(p + k).](figures/shift.svg)
#
# **The trap.** The textbook rotation matrix acts on vectors (x, y) = (cosine, sine). Here the sine
# comes first.


# %%
def shift_matrix(offset: int, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """Return the matrix M such that M · PE(p) = PE(p + offset) for every position p.

    Args:
        offset: how many positions to move forward; a negative offset moves backward.
        d_model: the width of the sinusoidal encoding PE.

    Returns:
        a float32 matrix. The equation holds to within 2·10⁻³ for positions up to 10,000.

    Raises:
        ValueError: if `d_model` is odd, because a sine cannot be shifted without its cosine. The
            message names `d_model`.

    Source: Vaswani et al. (2017), section 3.5.
    """
    ### BEGIN SOLUTION
    if d_model % 2:
        raise ValueError(f"d_model is {d_model}, but a shift needs pairs: an even d_model")
    sines = torch.arange(0, d_model, 2)
    cosines = sines + 1
    turn = offset / 10000 ** (sines.double() / d_model)  # the angle of each pair
    # sin(a + t) = cos t sin a + sin t cos a,  cos(a + t) = -sin t sin a + cos t cos a
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    matrix[sines, sines] = turn.cos()
    matrix[sines, cosines] = turn.sin()
    matrix[cosines, sines] = -turn.sin()
    matrix[cosines, cosines] = turn.cos()
    return matrix.float()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_shift_matrix():
        matrix = shift_matrix(1, 2)
        assert matrix is not None, "shift_matrix returns None. Does it end with `return`?"
        assert isinstance(matrix, torch.Tensor), (
            f"The matrix should be a tensor; yours is of type {type(matrix).__name__}."
        )
        assert matrix.shape == (2, 2), (
            f"d_model 2 should give a 2×2 matrix; yours has shape {tuple(matrix.shape)}."
        )
        assert matrix.dtype == torch.float32, (
            f"The matrix should be float32; yours is {matrix.dtype}."
        )
        # With d_model 2, PE(p) is (sin p, cos p).
        at_zero, at_one = torch.tensor([0.0, 1.0]), torch.tensor([0.841471, 0.540302])
        assert torch.allclose(matrix @ at_zero, at_one, atol=1e-5), (
            f"An offset of 1 should map PE(0) = {at_zero.tolist()} to PE(1) = {at_one.tolist()}; "
            f"yours maps it to {(matrix @ at_zero).tolist()}. PE(p) is (sin p, cos p)."
        )
        back = shift_matrix(-1, 2)
        assert torch.allclose(back @ at_one, at_zero, atol=1e-5), (
            f"An offset of −1 should map PE(1) back to PE(0) = {at_zero.tolist()}; yours maps it to "
            f"{(back @ at_one).tolist()}."
        )
        still = shift_matrix(0, 8)
        assert torch.allclose(still, torch.eye(8)), (
            f"An offset of 0 should give the identity matrix; yours is\n{still}"
        )
        # With d_model 4, pair 1 turns by 1/100 radian per position, so by 1 radian in 100 positions.
        corner = shift_matrix(100, 4)[2:, 2:]
        assert torch.allclose(corner, matrix, atol=1e-5), (
            "With d_model 4, an offset of 100 turns pair 1 by the same angle as an offset of 1 turns "
            f"pair 0. Its block should be\n{matrix}\nyours is\n{corner}"
        )
        with expecting_value_error("An odd d_model", "d_model"):
            shift_matrix(1, 5)
        print("shift_matrix: all visible checks pass.")

    check_shift_matrix()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down the angle-addition formulas for sin(a + t) and cos(a + t), where a is the angle for the
# position and t the angle for the offset. The coefficients of sin a and cos a are the four entries
# of a block.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The first row of a block computes the new *sine*. Its first entry is the coefficient of sin a in
# the formula for sin(a + t); its second entry is the coefficient of cos a. The second row computes
# the new cosine. To place the blocks, start with a matrix of zeros and loop over the pairs, or use
# `torch.block_diag`.
# </details>
#
# <details><summary>Help! My matrix shifts in the wrong direction</summary>
#
# If an offset of 1 maps PE(1) to PE(0), the sign of the angle is wrong. Check one case by hand.
# With d = 2, M₁ has to map PE(0) = (0, 1) to PE(1) = (sin 1, cos 1). A matrix times (0, 1) is its
# second column, so the second column of M₁ is (sin 1, cos 1). The sine *above* the diagonal is
# therefore positive, and the sine below it is negative. In the textbook matrix, it is the other way
# round.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        offset, start = 5, 2
        shift = shift_matrix(offset, 16)
        table = sinusoidal_encoding(60, 16)
        figure, axes = plt.subplots(1, 5, figsize=(12, 2.9), layout="constrained")
        axes[0].imshow(shift, cmap="RdBu", vmin=-1, vmax=1)
        axes[0].set(title=f"M for offset {offset}", xticks=range(0, 16, 4), yticks=range(0, 16, 4))
        for pair, axis in enumerate(axes[1:]):
            # Each pair is a clock hand. The cosine is its width, and the sine is its height.
            height, width = table[start, 2 * pair : 2 * pair + 2].tolist()
            moved = (shift @ table[start])[2 * pair : 2 * pair + 2].tolist()
            axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="lightgrey"))
            axis.plot([0, width], [0, height], "o-", label=f"PE({start})")
            axis.plot([0, moved[1]], [0, moved[0]], "o-", label=f"M · PE({start})")
            axis.plot(table[start + offset, 2 * pair + 1], table[start + offset, 2 * pair], "kx")
            axis.set(title=f"pair {pair}", aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
            axis.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axes[1].set(xlabel="cosine", ylabel="sine")
        axes[-1].legend(loc="lower left", fontsize=8)
        plt.show()
        error = (table[:-offset] @ shift.T - table[offset:]).abs().max()
        print(f"black cross: PE({start + offset}). Largest error over all positions: {error:.0e}")

# %% [markdown]
# **What to notice.** One matrix shifts every position: each hand lands on its target, the black
# cross. M is orthogonal: its transpose shifts back. In chapter 4, learned matrices $W_q$ and $W_k$
# compute queries and keys, so encodings interact through
# $\mathrm{PE}(p)^\top W_q^\top W_k\, \mathrm{PE}(p')$. If $W_q^\top W_k$ contains such a
# rotation, the score is largest at a fixed distance.

# %% [markdown]
# ## `PositionalEncoding`
# ★★☆☆☆ · 10 minutes
#
# This module adds a positional encoding to every vector:
#
# $$y = \mathrm{dropout}\big(\underbrace{x}_{b \times n \times d}
# + \underbrace{\mathrm{PE}_{0 \dots n-1}}_{n \times d}\big)$$
#
# The module has no trainable parameters. The table must not be a parameter, and checkpoints should
# not contain it. But it has to move with the module to another device or dtype.
#
# **The traps.** The second axis of `x` is the position axis; some older code puts it first. A
# float32 table plus a float16 input gives float32. If a sequence is longer than the table, raise a
# clear error.


# %%
class PositionalEncoding(nn.Module):
    """A module that adds a sinusoidal positional encoding to each vector, then applies dropout.

    It has no parameters and an empty `state_dict()`. After `.to()` with a device or a dtype, it
    accepts inputs on that device or of that dtype.

    Args:
        d_model: the number of features.
        max_length: the length of the longest sequence that can be encoded.
        dropout: the probability of setting a number to 0 in training mode.

    Source: Vaswani et al. (2017), sections 3.5 and 5.4.
    """

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.dropout = nn.Dropout(dropout)
        table = sinusoidal_encoding(max_length, d_model)
        # A buffer moves with the module; persistent=False keeps it out of the state_dict.
        self.register_buffer("table", table, persistent=False)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """Return dropout(x + PE[:n]) in the dtype of `x`.

        Raises:
            ValueError: if n is larger than `max_length`. The message names one of them.
        """
        ### BEGIN SOLUTION
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_PositionalEncoding():
        module = PositionalEncoding(4, max_length=6).eval()
        with expecting(
            "Vectors of shape (2, 3, 4) should work with max_length 6",
            "Compare the shapes of x and of what you add. Which axis of x is the position axis?",
        ):
            encoded = module(torch.zeros(2, 3, 4))
        assert encoded is not None, "forward returns None. Does it end with `return`?"
        assert encoded.shape == (2, 3, 4), (
            f"The shape should still be (2, 3, 4); yours is {tuple(encoded.shape)}."
        )
        # Position 1 with d_model 4: sin 1, cos 1, sin 1/100, cos 1/100.
        expected = torch.tensor([0.841471, 0.540302, 0.0099998, 0.99995])
        for sequence in range(2):
            seen = encoded[sequence, 1]
            assert torch.allclose(seen, expected, atol=1e-4), (
                f"Zeros at position 1 should become {expected.tolist()}; in sequence {sequence} "
                f"yours become {seen.tolist()}. Positions count from 0 along the second axis of x."
            )
        shifted = module(torch.full((2, 3, 4), 7.0))
        assert torch.allclose(shifted, encoded + 7, atol=1e-4), (
            "The encoding should be added to x, so adding 7 to x should add 7 to the result; yours "
            f"adds {(shifted - encoded)[0, 0].tolist()}."
        )
        x = torch.zeros(1, 3, 4)
        module(x)
        assert not x.any(), f"forward should not modify its argument; yours changes it to\n{x}"
        with expecting("A sequence of max_length = 6 positions should work"):
            module(torch.zeros(1, 6, 4))
        half = module(torch.zeros(1, 3, 4, dtype=torch.float16))
        assert half.dtype == torch.float16, (
            f"The result should have the same dtype as x, float16; yours is {half.dtype}."
        )
        assert not list(module.parameters()), (
            "The encoding is not trained, so the module should have no parameters; yours "
            f"has {[name for name, _ in module.named_parameters()]}."
        )
        assert not module.state_dict(), (
            f"The state_dict should be empty; yours contains {list(module.state_dict())}. "
            "To keep a buffer out of it, look at the arguments of `register_buffer`."
        )
        x = torch.ones(5, 6, 4)
        assert torch.allclose(module.train()(x), module.eval()(x), atol=1e-4), (
            "If `dropout` is not given, training mode should not change the result; in your module, it does. "
            "Which probability do you use?"
        )
        noisy = PositionalEncoding(4, dropout=0.5)
        assert not torch.equal(noisy.train()(x), noisy(x)), (
            "In training mode, dropout should make two results differ; yours are equal."
        )
        assert torch.equal(noisy.eval()(x), noisy(x)), (
            "In evaluation mode, two results should be equal; yours differ. "
            "Does dropout depend on the mode?"
        )
        silent = PositionalEncoding(4, dropout=0.9999999).train()(torch.ones(5, 6, 4))
        assert not silent.any(), (
            "Apply dropout to the sum of x and the encoding. With a probability near 1, all 120 numbers "
            f"should be 0; in your result, {silent.count_nonzero()} are not."
        )
        with expecting_value_error(
            "A sequence of 7 positions with max_length 6", "max_length", "n", "x"
        ):
            module(torch.zeros(1, 7, 4))
        # Tensors on the device `meta` have no values. They show which tensors move with the module.
        problem = ""
        try:
            module.to("meta")(torch.zeros(1, 3, 4, device="meta"))
        except RuntimeError as error:
            problem = str(error)
        assert "device" not in problem, (
            f"After .to(device), inputs on that device should work; yours raises: {problem}\n"
            "Does your table move with the module? A plain attribute stays where it was."
        )
        print("PositionalEncoding: all visible checks pass.")

    check_PositionalEncoding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Build the table once, in `__init__`, and register it as a *buffer*: look up the arguments of
# `register_buffer`. In `forward`, take the first n rows of the table, where n is the number of
# positions in x.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Adding a tensor of shape `n × d` to one of shape `b × n × d` broadcasts without an extra axis. One
# argument of `register_buffer` keeps the buffer out of the `state_dict`. Before you slice the
# table, compare n with its length. Convert the rows to the dtype of x before you add them. If
# you store an `nn.Dropout` in an attribute, the module's `train()` and `eval()` also switch it.
# </details>

# %% [markdown]
# **What to notice.** The encoding is *added* to the vectors, so tokens and positions share the same d
# features.

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.5. [Weng, The
# Transformer Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/),
# "Positional Encoding", with learned, relative and rotary encodings. [Shaw et al.
# 2018](https://arxiv.org/abs/1803.02155), section 3: relative positions inside attention.
#
# **Discuss.**
#
# 1. In the paper, a learned table with one vector per position works about as well (table 3, row
#    E). What can the sinusoidal table do that a learned one cannot?
# 2. Even without positional encoding, a decoder is not blind to order. Why not?
#
# <details><summary>Answers</summary>
#
# 1. It has a vector for every position, even beyond the longest training sequence. This guarantees
#    nothing: the model was never trained on these vectors and often performs worse at such
#    positions.
# 2. The causal mask breaks the symmetry. The first position attends to one token, the second to
#    two, and so on, so what a position receives depends on where it is. [Kazemnejad et al.
#    2023](https://arxiv.org/abs/2305.19466) study decoders without positional encoding.
# </details>
