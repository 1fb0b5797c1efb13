# %% [markdown]
# # Music
#
# A piece of music is a sequence, too, and what makes it music is mostly *distance*: a theme comes
# back eight bars later, a cadence lasts two beats, a voice answers the voice above it. Where in the
# piece this happens matters little. A model that adds a position to every token has to
# learn "four beats ago" anew for every place; attention that is told the **distance** between
# query and key learns it once.
#
# The idea is from Shaw et al., *Self-Attention with Relative Position Representations* (2018). It
# needed too much memory for music, which is long, until Huang et al., *Music Transformer* (2018),
# found a way to compute the same numbers with a trick of four lines. This chapter builds that trick,
# puts it into attention, and lets it write chorales in the manner of Bach.
#
# The music comes with the package `music21`: chorales for soprano, alto, tenor and bass. Like the
# authors, we write them as one sequence, a token for each voice in turn, in steps of time.
#
# ```text
#   time (eighths)    0       1       2       3
#                  S A T B S A T B S A T B S A T B  …
#   token            pitch, hold (the note goes on), or rest
# ```

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from solutions.opening import demonstration

# %% [markdown]
# ## Tokens
#
# Token 0 is a rest, 1 is a hold: the note before goes on. From 2 on, every token is a pitch, one for
# each key of the piano from the lowest note to the highest. The corpus needs those from C2 to A5; we
# keep three semitones more on either side, so that every piece can be moved up and down.

# %%
REST, HOLD, FIRST_PITCH = 0, 1, 2
# Notes by their numbers in MIDI, where 60 is the middle C and 1 a semitone: A1 … C6.
LOWEST_NOTE, HIGHEST_NOTE = 33, 84
N_TOKENS = FIRST_PITCH + HIGHEST_NOTE - LOWEST_NOTE + 1

# %% [markdown]
# ## `transpose`
# ★☆☆☆☆ · 5 minutes · 2 points
#
# Sung a tone higher, a chorale is the same chorale. So every piece of the training data stands for
# several: before each training step it is moved up or down by a few semitones, at random. The model
# then cannot learn a piece by its absolute pitches; it has to learn intervals. (Music Transformer
# does so, too.)
#
# Pitches are consecutive numbers, a semitone apart:
#
# $$\mathrm{transpose}(t, s) = \begin{cases} t & t \in \{0, 1\} \quad\text{(rest, hold)} \\
# t + s & t \ge 2 \end{cases}$$
#
# **The traps.** A rest moved up by a tone is no rest any more, and a pitch moved down too far would
# *become* one: token 3 moved by −2 is 1, a hold, and nothing looks wrong. So what
# leaves the range, at either end, is an error. But where nothing sounds nothing can leave.


# %%
def transpose(tokens: Int[Tensor, "*shape"], semitones: int) -> Int[Tensor, "*shape"]:
    """Move every pitch by `semitones`, and leave rests (0) and holds (1) as they are.

    Pitches are the tokens from 2 (the lowest) to `N_TOKENS` − 1 (the highest).

    Args:
        tokens: rests, holds and pitches in any shape.
        semitones: how far to move up; a negative number moves down.

    Raises:
        ValueError: where a pitch would be below 2 or above `N_TOKENS` − 1.
    """
    ### BEGIN SOLUTION
    is_pitch = tokens >= 2
    moved = tokens + semitones
    if (is_pitch & ((moved < 2) | (moved >= N_TOKENS))).any():
        raise ValueError(f"semitones is {semitones}, which moves a pitch out of the range")
    return torch.where(is_pitch, moved, tokens)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_transpose():
        tokens = torch.tensor([[20, 1, 0], [1, 33, 25]])
        moved = transpose(tokens, 3)
        assert moved is not None, "transpose returns nothing; did you forget `return`?"
        assert moved.shape == (2, 3), f"the shape should stay (2, 3), yours is {tuple(moved.shape)}"
        assert moved.tolist() == [[23, 1, 0], [1, 36, 28]], (
            "three semitones up, [[20, 1, 0], [1, 33, 25]] is [[23, 1, 0], [1, 36, 28]], "
            f"yours is {moved.tolist()}"
        )
        assert moved.dtype == torch.int64, f"tokens are int64, yours are {moved.dtype}"
        down = transpose(tokens, -7).tolist()
        assert down == [[13, 1, 0], [1, 26, 18]], (
            f"seven semitones down it is [[13, 1, 0], [1, 26, 18]], yours is {down}"
        )
        assert tokens.tolist() == [[20, 1, 0], [1, 33, 25]], (
            "transpose changes its argument: `tokens` is no longer what it was"
        )
        silence = transpose(torch.tensor([0, 1, 1]), 100).tolist()
        assert silence == [0, 1, 1], f"silence stays [0, 1, 1] however far, yours is {silence}"
        for pitch, semitones in ((4, -3), (N_TOKENS - 2, 2)):
            try:
                transpose(torch.tensor([20, pitch]), semitones)
            except ValueError as error:
                message = str(error)
                assert "semitones" in message or "tokens" in message, (
                    f"the message should name semitones or tokens, yours is '{message}'"
                )
            else:
                raise AssertionError(
                    f"pitch {pitch} moved by {semitones} leaves 2 … {N_TOKENS - 1}: a ValueError"
                )
        print("transpose: the visible checks hold.")

    check_transpose()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A boolean tensor that says which tokens are pitches answers all three questions: what moves, what
# stays, and what may not leave the range.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.where(condition, a, b)` takes from a or from b, entry by entry, and changes neither. Look at
# the moved *pitches* alone to find out whether one is too low or too high.
# </details>

# %% [markdown]
# ## `skew`
# ★★★★☆ · 25 minutes · 4 points
#
# Attention compares query i with key j. Relative attention adds to that score a number that depends on query
# i and on the distance i − j. There is one learned vector for each distance, the rows of a
# matrix R, so that all these numbers come from one product:
#
# $$\underbrace{x}_{n \times n} = \underbrace{Q}_{n \times d_\text{head}}\;
# \underbrace{R^\top}_{d_\text{head} \times n}
# \qquad\text{row } i \text{ holds the logits of query } i
# \text{ for the distances } n{-}1, \dots, 1, 0 \text{ back}$$
#
# But its columns are distances, and the columns of attention are keys. Every row has to slide to its
# place, each by another number of steps. Here a, b, c, d are the queries 0 … 3 and the number is
# the distance; a dot is a distance that would reach before the beginning of the piece.
#
# ```text
#    x: a column for each distance          skew(x): a column for each key
#
#          3   2   1   0                          0   1   2   3
#        ┌────────────────┐                     ┌────────────────┐
#    a   │ ·   ·   ·   a0 │                 a   │ a0  ?   ?   ?  │
#    b   │ ·   ·   b1  b0 │      ───→       b   │ b1  b0  ?   ?  │
#    c   │ ·   c2  c1  c0 │                 c   │ c2  c1  c0  ?  │
#    d   │ d3  d2  d1  d0 │                 d   │ d3  d2  d1  d0 │
#        └────────────────┘                     └────────────────┘
# ```
#
# $$\mathrm{skew}(x)_{i,j} = x_{i,\; n - 1 - (i - j)} \quad\text{for } j \le i,
# \qquad \mathrm{skew}: *\text{batch} \times n \times n \;\to\; *\text{batch} \times n \times n$$
#
# What stands in place of the question marks does not matter, as long as it is finite: those keys are in the future,
# and the causal mask will cover them.
#
# A loop over rows does it, and is slow: n small copies where one would do. Gathering with a
# table of indices does it, and needs the table. Music Transformer does it by *reading the same
# memory with another row length*. Find out how. One column more is all you need.
#
# **The traps.** Off by one: the result then still has a staircase, and the model still trains; it just reads
# every distance one too short. Try n = 1 by hand. And leave the leading axes (batch, heads) alone.
# There may be any number of them.


# %%
def skew(x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Move the logits of each query from the column of their distance to the column of their key.

    Row i of `x` holds the logits of query i for the distances n − 1, …, 1, 0 back. The result is
    x(i, n − 1 − (i − j)) at (i, j) for j ≤ i, and anything finite above the diagonal. There is no
    loop over positions: the number of torch calls does not grow with n. The result may be a view.

    Source: Huang et al. (2018), section 3.4.1 and figure 1.
    """
    ### BEGIN SOLUTION
    n = x.shape[-1]
    padded = F.pad(x, (1, 0))  # *batch n n+1, a column of zeros in front
    # Read in memory order, n numbers to a row, and without the first row.
    return padded.flatten(-2)[..., n:].unflatten(-1, (n, n))
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_skew():
        x = torch.arange(16.0).reshape(4, 4)
        seen = skew(x)
        assert seen is not None, "skew returns nothing; did you forget `return`?"
        assert seen.shape == (4, 4), f"the shape should stay (4, 4), yours is {tuple(seen.shape)}"
        expected = [[3], [6, 7], [9, 10, 11], [12, 13, 14, 15]]
        for i, row in enumerate(expected):
            found = seen[i, : i + 1].tolist()
            assert found == row, (
                f"up to the diagonal, row {i} of skew of\n{x}\nshould be {row}, yours is {found}"
            )
        assert seen.isfinite().all(), (
            f"entries above the diagonal should be finite, yours are\n{seen}"
        )
        # Leading axes, with the batch and the head to be read off from each entry.
        many = x + 100 * torch.arange(6).reshape(2, 3, 1, 1)
        seen = skew(many)
        assert seen.shape == (2, 3, 4, 4), (
            f"the shape should stay (2, 3, 4, 4), yours is {tuple(seen.shape)}"
        )
        assert seen[1, 2, 2, :3].tolist() == [509, 510, 511], (
            "batch 1, head 2, query 2 should be [509, 510, 511] up to the diagonal, "
            f"yours is {seen[1, 2, 2, :3].tolist()}"
        )
        alone = skew(torch.tensor([[5.0]])).tolist()
        assert alone == [[5]], f"one position has distance 0 only: [[5.0]] stays, yours is {alone}"
        print("skew: the visible checks hold.")

    check_skew()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down the numbers of the picture's left side as they lie in memory, row after row. On the right
# side a row of four begins with b1, and the row before it with a0. Now count: how many numbers lie between
# a0 and b1 on the left, how many should there be, and what could you put in to make up for it?
# </details>
#
# <details><summary>Hint 2</summary>
#
# ```text
#    a column of zeros in front        the same numbers, four to a row
#
#      0   ·   ·   ·   a0                 0   ·   ·   ·    ← this row goes
#      0   ·   ·   b1  b0                 a0  0   ·   ·
#      0   ·   c2  c1  c0                 b1  b0  0   ·
#      0   d3  d2  d1  d0                 c2  c1  c0  0
#                                         d3  d2  d1  d0
# ```
#
# `F.pad(x, (1, 0))` puts the column in front of the last axis; then `reshape`, or `flatten` and
# `unflatten`, of the last two axes only.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Each entry is its own distance, so the colour is how far back.
        by_distance = torch.arange(11, -1, -1).float().expand(12, 12)
        reachable = torch.ones(12, 12).tril()
        before = by_distance.masked_fill(reachable.flip(-1) == 0, float("nan"))
        after = skew(by_distance).masked_fill(reachable == 0, float("nan"))
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        image = axes[0].imshow(before, cmap="viridis")
        axes[0].set(
            title="x", ylabel="query", xlabel="distance", xticks=(0, 11), xticklabels=(11, 0)
        )
        axes[1].imshow(after, cmap="viridis")
        axes[1].set(title="skew(x)", ylabel="query", xlabel="key", xticks=(0, 11))
        figure.colorbar(image, ax=axes, label="distance (positions back)")
        plt.show()

# %% [markdown]
# **What to notice.** Columns become diagonals: along each diagonal of the right picture the distance
# is the same, and the main diagonal is distance 0. The blank triangle on the left is computed and
# thrown away: distances that reach before the beginning.
#
# What the trick saves is memory. Written out, relative attention looks up a vector for every pair of
# positions, a tensor of n × n × d_head numbers a head. Here the largest tensors are n × n, as in any attention.
# For n = 256 and d_head = 24 that is 6 MB a head against 256 kB; for a piano piece of 2,048 tokens with
# d_head = 64, 1 GB against 16 MB.

# %% [markdown]
# ## `RelativeSelfAttention`
# ★★★★☆ · 30 minutes · 6 points
#
# Now the attention itself. It is the causal self-attention with several heads that you know, with
# one more term in the scores. Each head has its own vectors for the distances: R is
# `h × n × d_head`.
#
# $$\mathrm{softmax}\!\left(\frac{\overbrace{Q K^\top}^{\text{what}}
# + \overbrace{\mathrm{skew}(Q R^\top)}^{\text{how far back}}}{\sqrt{d_\text{head}}}\right) V
# \qquad Q, K, V: b \times h \times n \times d_\text{head}
# \qquad \text{scores}: b \times h \times n \times n$$
#
# ```text
#    relative:   h × max_length × d_head
#
#       row   0              max_length−n          max_length−2   max_length−1
#           ┌──────┬───────┬──────────────┬──────┬──────────────┬──────────────┐
#           │  …   │   …   │ distance n−1 │  …   │  distance 1  │  distance 0  │
#           └──────┴───────┴──────────────┴──────┴──────────────┴──────────────┘
#                            └────────────── R: the last n rows ──────────────┘
# ```
#
# A query asks two questions at once: *which keys look right?* and *how far back do I want to look?*
# The second answer depends on the query, too: after a long note the model may want
# the previous bar, after a short one the previous beat.
#
# **The traps.** A piece shorter than `max_length` has no use for the far distances: which end of R
# has to go? The root divides the sum, not the first term alone. And the future has to be covered *after* the
# two terms are added: what `skew` leaves above the diagonal is no small number, it comes from another query.
#
# `MultiheadAttention` and `multi_head_attention_forward` are not allowed.


# %%
class RelativeSelfAttention(nn.Module):
    """Causal self-attention with several heads that also knows how far back each key is.

    Attributes to define: `query`, `key`, `value` and `out`, each an `nn.Linear` from `d_model` to
    `d_model`; `relative`, an `nn.Parameter` of shape `n_heads max_length d_head` with a vector for
    each distance in each head: the last row belongs to distance 0, the one before it to distance 1,
    and so on. d_head is `d_model` / `n_heads`; head k has the features k·d_head … (k+1)·d_head − 1.

    Source: Huang et al. (2018), section 3.4, equation 3.
    """

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        ### BEGIN SOLUTION
        d_head = d_model // n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_head) * d_head**-0.5)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """Let every position attend to itself and to the positions before it.

        The weights are softmax((Q Kᵀ + skew(Q Rᵀ)) / √d_head), with the last n rows of `relative`
        as R.

        Raises:
            ValueError: where n is larger than `max_length`.
        """
        ### BEGIN SOLUTION
        n_heads, max_length, d_head = self.relative.shape
        n = x.shape[1]
        if n > max_length:
            raise ValueError(f"n is {n}, but max_length is {max_length}")
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        distances = self.relative[:, max_length - n :]  # h n d_head
        scores = (q @ k.mT + skew(q @ distances.mT)) / d_head**0.5  # b h n n
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def count_distances_only(layer, relative):
        """Queries of 1, keys of 0, values and output as they come: only distances count."""
        with torch.no_grad():
            for linear in (layer.query, layer.key, layer.value, layer.out):
                linear.weight.zero_()
                linear.bias.zero_()
            layer.query.bias.fill_(1)
            layer.value.weight.copy_(torch.eye(len(layer.value.weight)))
            layer.out.weight.copy_(torch.eye(len(layer.out.weight)))
            layer.relative.copy_(relative)
        return layer

    def check_RelativeSelfAttention():
        torch.manual_seed(0)
        layer = RelativeSelfAttention(8, 2, max_length=6)
        shapes = {name: tuple(weight.shape) for name, weight in layer.named_parameters()}
        wanted = {f"{name}.weight": (8, 8) for name in ("query", "key", "value", "out")}
        wanted |= {f"{name}.bias": (8,) for name in ("query", "key", "value", "out")}
        wanted["relative"] = (2, 6, 4)
        assert shapes == wanted, f"the parameters should be {wanted}, yours are {shapes}"
        x = torch.randn(2, 5, 8)
        seen = layer(x)
        assert seen is not None, "forward returns nothing; did you forget `return`?"
        assert seen.shape == (2, 5, 8), f"the shape should stay (2, 5, 8), yours is {seen.shape}"
        changed = x.clone()
        changed[:, 3:] = 0
        moved = (layer(changed) - seen).abs().amax(dim=(0, 2))
        assert (moved[:3] < 1e-6).all(), (
            f"positions 3 and 4 were changed, and positions before them moved by {moved[:3]}"
        )

        # With weights of 4, 2, 1 for the distances 0, 1, 2, three notes 7, 14, 21 become
        # 7, (4·14 + 2·7) / 6 and (4·21 + 2·14 + 7) / 7.
        logits = torch.tensor([1.0, 2, 4]).log().reshape(1, 3, 1)
        notes = torch.tensor([7.0, 14, 21]).reshape(1, 3, 1)
        expected = torch.tensor([7.0, 70 / 6, 17])
        seen = count_distances_only(RelativeSelfAttention(1, 1, 3), logits)(notes)[0, :, 0]
        assert torch.allclose(seen, expected, atol=1e-3), (
            f"with weights of 4, 2, 1 for the distances 0, 1, 2, the notes 7, 14, 21 should become "
            f"{expected.tolist()}, yours {seen.tolist()}"
        )
        # In four features half of it gives 4 · 1/2 / √4 = 1 times the logit, in a longer table too.
        unused = torch.full((1, 2, 1), 9.0)
        longer = torch.cat([unused, logits], dim=1).expand(1, 5, 4) / 2
        layer = count_distances_only(RelativeSelfAttention(4, 1, 5), longer)
        seen = layer(notes.expand(1, 3, 4))[0, :, 2]
        assert torch.allclose(seen, expected, atol=1e-3), (
            "the same in four features, scaled by √d_head, and with room for 5 positions should "
            f"give {expected.tolist()}, yours gives {seen.tolist()}"
        )
        try:
            layer(torch.zeros(1, 6, 4))
        except ValueError as error:
            message = str(error)
            assert "max_length" in message or "n" in message.split(), (
                f"the message should name n or max_length, yours is '{message}'"
            )
        else:
            raise AssertionError("6 positions with max_length 5 should raise a ValueError")
        print("RelativeSelfAttention: the visible checks hold.")

    check_RelativeSelfAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First write the causal attention without R. Then find the second term: the queries `b h n d_head`
# times what, of which shape, gives `b h n n`, with a column for each distance? R has no axis for
# the batch, and needs none.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `self.relative[:, max_length - n :]` are the last n rows for every head. Multiply the queries by its
# transpose (`.mT` exchanges the last two axes), skew, add to Q Kᵀ, and divide the sum by √d_head. A mask
# `torch.ones(n, n).triu(1)` marks the future; put −inf there before the softmax.
# </details>
