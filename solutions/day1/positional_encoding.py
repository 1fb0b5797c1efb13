# %% [markdown]
# # Positional encoding
#
# *Chapter 3 of 6*
#
# Attention ignores order. It compares each query with each key, wherever they are, so it sees a
# sentence as a bag of words. The next cell demonstrates this. A Transformer therefore adds to each
# token vector a second vector that depends only on the position.

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from solutions.day1.attention import attention
from solutions.opening import demonstration, expecting, expecting_value_error, visible_check

# %%
if __name__ == "__main__":
    with demonstration():
        # One random vector per word and no positions: what does "bites" receive in each sentence?
        torch.manual_seed(0)
        word_vectors = {word: torch.randn(8) for word in ("dog", "bites", "man")}
        received = []
        for sentence in ("dog bites man", "man bites dog"):
            embedded = torch.stack([word_vectors[word] for word in sentence.split()])
            received.append(attention(embedded, embedded, embedded)[0][1])
            print(f"{sentence}: 'bites' receives {[round(v, 3) for v in received[-1].tolist()]}")
        print(f"largest difference: {(received[0] - received[1]).abs().max():.0e}")

# %% [markdown]
# ## `sinusoidal_encoding`
# ★★★☆☆ · 20 minutes
#
# Why not append the position p as a number? It has no upper limit, and a model trained on positions
# up to 50 would meet a number ten times larger at position 500. The sinusoidal encoding represents
# p the way a clock represents time. It has several hands that turn at constant speeds, each more
# slowly than the one before.
#
# ![Clock hands of pairs 0, 1 and 2 at positions 0, 1, 2, 3, 4, 10, 20 and 30. Pair 0 turns by one
# radian per position, pair 1 by a tenth of that and pair 2 by a hundredth.](figures/clocks.svg)
#
# Together, the hands identify the position, and all numbers stay between −1 and 1. For position $p$
# and pair $i = 0, 1, 2, \dots$
#
# $$\mathrm{PE}(p, 2i) = \sin\!\left(\frac{p}{10000^{2i/d}}\right) \qquad
# \mathrm{PE}(p, 2i+1) = \cos\!\left(\frac{p}{10000^{2i/d}}\right)
# \qquad \mathrm{PE}: \text{length} \times d$$
#
# **Today's example.** With d = 2 there is one pair: PE(0) = (0, 1), PE(1) = (0.84, 0.54) and PE(2)
# = (0.91, −0.42). Add them to *red*, *blue*, *purple*, and *purple* receives (1.50, 0.87). Swap
# *red* and *blue*, and it receives (1.75, 0.66). Without positions it received (0.75, 0.75) in both
# cases.
#
# **The traps.** The letter i counts pairs, not columns. If d is odd, the last column has no
# partner, and the formula makes it a sine.


# %%
def sinusoidal_encoding(length: int, d_model: int) -> Float[Tensor, "length d_model"]:
    """Return the sinusoidal encodings of the positions 0, 1, …, `length` − 1, one per row.

    Column 2i is sin(p / 10000^(2i/d_model)), column 2i+1 the cosine of the same angle.

    Args:
        length: the number of positions; 0 gives an empty table.
        d_model: the number of columns, at least 1. If it is odd, the last column is a sine.

    Returns:
        a float32 table within 2·10⁻³ of the exact values up to position 10,000.

    Source: Vaswani et al. (2017), section 3.5.
    """
    ### BEGIN SOLUTION
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    even_columns = torch.arange(0, d_model, 2, dtype=torch.float64)
    angles = positions / 10000 ** (even_columns / d_model)  # length × pairs
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1)  # length × pairs × 2
    # An odd d_model has half a pair too many: the last cosine goes.
    return pairs.flatten(1)[:, :d_model].float()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_sinusoidal_encoding():
        table = sinusoidal_encoding(3, 4)
        assert table is not None, "sinusoidal_encoding returns None. Does it end with `return`?"
        assert table.shape == (3, 4), (
            f"3 positions and d_model 4 should give shape (3, 4); yours is {tuple(table.shape)}."
        )
        assert table.dtype == torch.float32, f"The table should be float32; yours is {table.dtype}."
        # With d_model 4, the angle of the first pair is p, and of the second p/100.
        expected = torch.tensor(
            [
                [0.0, 1.0, 0.0, 1.0],
                [0.841471, 0.540302, 0.0099998, 0.99995],
                [0.909297, -0.416147, 0.0199987, 0.9998],
            ]
        )
        assert torch.allclose(table, expected, atol=1e-5), (
            f"For 3 positions and d_model 4, the table should be\n{expected}\nyours is\n{table}\n"
            "Columns alternate sine and cosine; the angles are p and p/100."
        )
        # With d_model 8, each pair is ten times slower than the one before.
        wide = sinusoidal_encoding(1001, 8)
        for pair in range(1, 4):
            seen = wide[10**pair, 2 * pair : 2 * pair + 2]
            assert torch.allclose(seen, expected[1, :2], atol=2e-3), (
                f"With d_model 8, pair {pair} turns by an angle of 1 in {10**pair} positions: "
                f"columns {2 * pair} and {2 * pair + 1} should be sin 1 and cos 1 there; "
                f"yours are {seen.tolist()}. Check the exponent."
            )
        with expecting(
            "An odd d_model of 5 should give a table with 5 columns",
            "There is one more sine than there are cosines.",
        ):
            odd = sinusoidal_encoding(4, 5)
        assert odd.shape == (4, 5), f"d_model 5 should give 5 columns; yours has {odd.shape[1]}."
        assert abs(odd[0, 4]) < 1e-6, (
            "With d_model 5, column 4 is a sine, so it should be 0 at position 0; "
            f"yours is {odd[0, 4]:.3f}."
        )
        with expecting("length 0 should give an empty table"):
            empty = sinusoidal_encoding(0, 6).shape
        assert empty == (0, 6), f"length 0 should give shape (0, 6); yours is {tuple(empty)}."
        print("sinusoidal_encoding: all visible checks pass.")

    check_sinusoidal_encoding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There are two axes, positions and pairs. Create a vector for each, and give one of them a second
# axis of size 1. Broadcasting then fills the table of angles. Sine and cosine both come from this
# table.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The numbers 2i are `0, 2, 4, …`, a range with a step. To alternate two tables as columns, assign
# to every second column, or stack them along a new last axis and flatten it. If d is odd, there is
# one more sine than there are cosines. A Python loop over pairs is fine.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        table = sinusoidal_encoding(100, 64)
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
        image = left.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
        left.set(title="the table, on its side", xlabel="position", ylabel="column")
        figure.colorbar(image, ax=left, label="value")
        for column, line in zip((0, 8, 16, 32), ("-", "--", "-.", ":"), strict=True):
            right.plot(table[:, column], line, label=f"column {column}")
        right.set(title="some columns", xlabel="position", ylabel="value")
        right.legend(loc="upper left", bbox_to_anchor=(1, 1))
        plt.show()

# %%
if __name__ == "__main__":
    with demonstration():
        table = sinusoidal_encoding(100, 64)
        similarity = table @ table.T
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
        image = left.imshow(similarity)
        left.set(title="PE(p) · PE(q)", xlabel="q", ylabel="p")
        figure.colorbar(image, ax=left, label="dot product")
        for position, width in ((20, 6), (50, 3.5), (80, 1.2)):
            distance = torch.arange(100) - position
            right.plot(distance, similarity[position], label=f"p = {position}", linewidth=width)
        right.set(title="three rows of it, by distance", xlabel="q − p", ylabel="dot product")
        right.legend()
        plt.show()

# %% [markdown]
# **What to notice.** In the first figure, fast columns (at the top) tell neighbours apart, and slow
# ones (at the bottom) tell near from far. In the second figure the three curves coincide where they
# overlap: the similarity of two positions depends only on their distance. Each pair contributes
# sine times sine plus cosine times cosine, which is the cosine of the *difference* of two angles.

# %% [markdown]
# ## `shift_matrix`
# ★★★☆☆ · 20 minutes
#
# The authors expected that sines and cosines would let a model learn to attend by relative position
# (section 3.5). The reason is that moving k positions multiplies PE(p) by the same matrix for every
# p. A linear layer can learn such a matrix, so a head can learn to look "two tokens back".
#
# $$\underbrace{M_k}_{d \times d}\;\underbrace{\mathrm{PE}(p)}_{d}
# = \underbrace{\mathrm{PE}(p + k)}_{d}
# \qquad \text{for every position } p$$
#
# Each hand turns by its own angle $k\,\omega_i$ with $\omega_i = 10000^{-2i/d}$. So $M_k$ has 2×2
# rotations on its diagonal and zeros elsewhere:
#
# ![The matrix M of six rows: three 2×2 blocks on the diagonal that turn pairs 0, 1 and 2, and zeros
# elsewhere. It maps PE(p) to PE(p + k).](figures/shift.svg)
#
# **The trap.** The textbook rotation matrix acts on vectors (x, y) = (cosine, sine). Here the sine
# comes first.


# %%
def shift_matrix(offset: int, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """Return the matrix M with M · PE(p) = PE(p + offset) for every position p.

    Args:
        offset: how many positions to move forward; a negative offset moves back.
        d_model: the width of the sinusoidal encoding PE.

    Returns:
        a float32 matrix. The equation holds within 2·10⁻³ for positions up to 10,000.

    Raises:
        ValueError: `d_model` is odd: a sine without its cosine cannot be shifted.

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
        assert matrix.shape == (2, 2), (
            f"d_model 2 should give a 2×2 matrix; yours has shape {tuple(matrix.shape)}."
        )
        assert matrix.dtype == torch.float32, (
            f"The matrix should be float32; yours is {matrix.dtype}."
        )
        # With d_model 2, PE(p) is (sin p, cos p).
        at_zero, at_one = torch.tensor([0.0, 1.0]), torch.tensor([0.841471, 0.540302])
        assert torch.allclose(matrix @ at_zero, at_one, atol=1e-5), (
            f"Offset 1 should take PE(0) = {at_zero.tolist()} to PE(1) = {at_one.tolist()}; "
            f"yours takes it to {(matrix @ at_zero).tolist()}. The sine comes first, so look at "
            "sin(a + t) for the first row, and at its signs."
        )
        back = shift_matrix(-1, 2)
        assert torch.allclose(back @ at_one, at_zero, atol=1e-5), (
            f"Offset −1 should take PE(1) back to PE(0) = {at_zero.tolist()}; yours takes it to "
            f"{(back @ at_one).tolist()}."
        )
        still = shift_matrix(0, 8)
        assert torch.allclose(still, torch.eye(8)), (
            f"Offset 0 should give the identity matrix; yours is\n{still}"
        )
        # With d_model 4, the second pair turns by 1/100 per position: 100 positions are an angle of 1.
        corner = shift_matrix(100, 4)[2:, 2:]
        assert torch.allclose(corner, matrix, atol=1e-5), (
            "With d_model 4 and offset 100, pair 1 turns by the same angle as pair 0 with offset 1: "
            f"its block should be\n{matrix}\nyours is\n{corner}\nCheck the angle of each pair."
        )
        with expecting_value_error("An odd d_model", "d_model"):
            shift_matrix(1, 5)
        print("shift_matrix: all visible checks pass.")

    check_shift_matrix()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down the angle-addition formulas for sin(a + b) and cos(a + b), where a belongs to the
# position and b to the offset. The coefficients of sin a and cos a are the four entries of a block.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The first row of a block computes the new *sine*. Its first entry is the coefficient of sin a in
# the formula for sin(a + b); its second entry is the coefficient of cos a. The second row computes
# the new cosine. To place the blocks, start from zeros and loop over the pairs, or use
# `torch.block_diag`.
# </details>
#
# <details><summary>Help, my matrix shifts in the wrong direction</summary>
#
# If offset 1 takes PE(1) to PE(0), the sign of the angle is wrong. Check one case by hand. With d =
# 2, M₁ has to take PE(0) = (0, 1) to PE(1) = (sin 1, cos 1). A matrix times (0, 1) is its second
# column, so the second column of M₁ is (sin 1, cos 1). The sine *above* the diagonal is positive,
# and the one below it negative. In the textbook matrix it is the other way round.
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
            # A pair is a hand of the clock: the cosine is its width, the sine its height.
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
# **What to notice.** One matrix moves every position, and each hand arrives at the cross. M is
# orthogonal: its transpose is the matrix for −k. In attention, positions p and q interact through
# $x_p^\top W_q^\top W_k\, x_q$. If this product of weights contains such a rotation, the score is
# largest at a fixed distance. Rotary embeddings (Day 2) rotate queries and keys directly.

# %% [markdown]
# ## `PositionalEncoding`
# ★★☆☆☆ · 15 minutes
#
# This module adds the encoding of its position to every vector:
#
# $$y = \mathrm{dropout}\big(\underbrace{x}_{b \times n \times d}
# + \underbrace{\mathrm{PE}_{0 \dots n-1}}_{n \times d}\big)$$
#
# Nothing is learned here. The table must not be a parameter, and a checkpoint need not contain it.
# But it has to follow the module to another device or dtype.
#
# **The traps.** Position is the second axis of `x`; some older code puts it first. A float32 table
# plus a float16 input is float32. A sequence longer than the table needs a clear error.


# %%
class PositionalEncoding(nn.Module):
    """Add the sinusoidal encoding of its position to every vector, then apply dropout.

    The module has no parameters and an empty `state_dict()`. After `.to(device or dtype)` it works
    on inputs with that device or dtype.

    Args:
        d_model: the number of features.
        max_length: the longest sequence that can be encoded.
        dropout: the probability with which a number is set to 0 in training mode.

    Source: Vaswani et al. (2017), sections 3.5 and 5.4.
    """

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.dropout = nn.Dropout(dropout)
        table = sinusoidal_encoding(max_length, d_model)
        # A buffer moves with the module; not persistent, it stays out of the state_dict.
        self.register_buffer("table", table, persistent=False)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """Return dropout(x + PE[:n]) in the dtype of `x`.

        Raises:
            ValueError: n is larger than `max_length`.
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
        module = PositionalEncoding(4, max_length=6)
        with expecting("Vectors of shape (2, 3, 4) should work with max_length 6"):
            encoded = module(torch.zeros(2, 3, 4))
        assert encoded is not None, "forward returns None. Does it end with `return`?"
        assert encoded.shape == (2, 3, 4), (
            f"The shape should stay (2, 3, 4); yours is {tuple(encoded.shape)}."
        )
        # Position 1 with d_model 4: sin 1, cos 1, sin 1/100, cos 1/100.
        expected = torch.tensor([0.841471, 0.540302, 0.0099998, 0.99995])
        for sentence in range(2):
            seen = encoded[sentence, 1]
            assert torch.allclose(seen, expected, atol=1e-4), (
                f"Zeros at position 1 should become {expected.tolist()}; in sentence {sentence} "
                f"yours become {seen.tolist()}. Which axis of x holds the positions?"
            )
        shifted = module(torch.full((2, 3, 4), 7.0))
        assert torch.allclose(shifted, encoded + 7, atol=1e-4), (
            "The encoding should be added to x: an x of 7 should give 7 more than an x of 0; yours "
            f"gives {(shifted - encoded)[0, 0].tolist()} more."
        )
        x = torch.zeros(1, 3, 4)
        module(x)
        assert not x.any(), f"forward should leave its argument unchanged; yours makes it\n{x}"
        with expecting("max_length positions should work: 6 of 6"):
            module(torch.zeros(1, 6, 4))
        half = module(torch.zeros(1, 3, 4, dtype=torch.float16))
        assert half.dtype == torch.float16, (
            f"The result should have the dtype of x, float16; yours is {half.dtype}."
        )
        assert not list(module.parameters()), (
            "A positional encoding has nothing to learn, so there should be no parameter; yours "
            f"has {[name for name, _ in module.named_parameters()]}."
        )
        assert not module.state_dict(), (
            f"The state_dict should be empty; yours holds {list(module.state_dict())}. "
            "A buffer can be left out of it: look at the arguments of `register_buffer`."
        )
        noisy = PositionalEncoding(4, dropout=0.5)
        x = torch.ones(5, 6, 4)
        assert not torch.equal(noisy.train()(x), noisy(x)), (
            "In training mode, dropout should make two results differ; yours are equal."
        )
        assert torch.equal(noisy.eval()(x), noisy(x)), (
            "In evaluation mode, two results should be equal; yours differ. "
            "Does dropout depend on the mode?"
        )
        silent = PositionalEncoding(4, dropout=0.9999999).train()(torch.ones(5, 6, 4))
        assert not silent.any(), (
            "Dropout acts on the sum of x and the encoding: with a probability near 1, nothing "
            f"should be left; in yours, {silent.count_nonzero()} of 120 numbers are."
        )
        with expecting_value_error("7 positions with max_length 6", "max_length", "n", "x"):
            module(torch.zeros(1, 7, 4))
        # The device `meta` holds shapes without values. It shows which tensors move with the module.
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
# Build the table once, in `__init__`, and keep it as a *buffer*: read the arguments of
# `register_buffer`. In `forward` take as many rows of it as x has positions.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `n × d` added to `b × n × d` broadcasts without another axis. One argument of `register_buffer`
# keeps the buffer out of the `state_dict`. Compare n with the length of the table first, and
# convert the rows to the dtype of x before you add them. `nn.Dropout` follows the mode of the
# module.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # The two sentences from above, now with positions.
        place = PositionalEncoding(8).eval()
        received = []
        for sentence in ("dog bites man", "man bites dog"):
            embedded = torch.stack([word_vectors[word] for word in sentence.split()]).unsqueeze(0)
            placed = place(embedded)
            received.append(attention(placed, placed, placed)[0][0, 1])
            print(f"{sentence}: 'bites' receives {[round(v, 3) for v in received[-1].tolist()]}")
        print(f"largest difference: {(received[0] - received[1]).abs().max():.2f}")

# %% [markdown]
# **What to notice.** Now it matters who bites whom. The encoding is *added* to the words, so both
# share the same d numbers. The linear maps of the next chapter can learn to read either.

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.5. [Weng, The
# Transformer Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/),
# "Positional Encoding", with learned, relative and rotary encodings. [Shaw et al.
# 2018](https://arxiv.org/abs/1803.02155), section 3: relative positions inside attention.
#
# **Discuss.**
#
# 1. A learned table, one vector per position, works about as well in the paper (table 3, row E).
#    What can the sinusoidal table do that a learned one cannot?
# 2. A decoder without any positional encoding is not blind to order. Why not?
#
# <details><summary>Answers</summary>
#
# 1. It has a vector for every position, even beyond the longest training sequence. That is not a
#    guarantee: the model has never been trained on these vectors, and quality often drops there.
# 2. The causal mask breaks the symmetry. The first position attends to one token, the second to two
#    and so on, so what a position receives depends on where it is. [Kazemnejad et al.
#    2023](https://arxiv.org/abs/2305.19466) study decoders without any encoding.
# </details>
