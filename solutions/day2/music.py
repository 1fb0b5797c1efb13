# %% [markdown]
# # Music
#
# *Chapter 3 of 8*
#
# Below are four chorales. Bach wrote one; the models in this chapter wrote the others. First, run
# the cells down to the audio players and listen.
#
# In music, *distances* matter: dissonant notes often resolve one beat later. A model that adds a
# learned vector for each position, like GPT, has to learn "one beat ago" separately for every
# position. **Relative attention** depends on the distance between query and key, so it learns this
# once. [Shaw et al. (2018)](https://arxiv.org/abs/1803.02155) introduced it. The [Music
# Transformer](https://arxiv.org/abs/1809.04281) (Huang et al. 2018) reduced its memory use with a
# three-line trick, `skew`.

# %%
import copy
import io
import itertools
import random
import re
import string
import sys
import time
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from zipfile import ZipFile

import matplotlib.pyplot as plt
import music21
import numpy as np
import torch
import torch.nn.functional as F
from IPython import get_ipython
from IPython.display import Audio, display
from jaxtyping import Float, Int
from music21.common import getCorpusFilePath
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from solutions.opening import (
    demonstration,
    expecting,
    expecting_value_error,
    filled,
    fixed_numbers,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## Given: tokens and sound
#
# A chorale becomes one sequence, with one token for each voice at each time step (an eighth note):
#
# ![Three time steps of four voices. Step 0 has the tokens 36, 31, 28 and 24. At step 1, all voices
# hold, so the tokens are 1, 1, 1 and 1. At step 2, the soprano and tenor move to 38 and 29, the
# alto holds (1) and the bass rests (0).](figures/chorale-tokens.svg)

# %% tags=["support"]
REST, HOLD, FIRST_PITCH = 0, 1, 2
# The notes range from A1 to C6. In MIDI numbers, middle C is 60 and a semitone is 1.
LOWEST_NOTE, HIGHEST_NOTE = 33, 84
N_TOKENS = FIRST_PITCH + HIGHEST_NOTE - LOWEST_NOTE + 1
CHORALE_LENGTH = 256  # tokens: four voices in eight bars of eight eighth notes
VOICES = ("soprano", "alto", "tenor", "bass")
EIGHTH = 60 / 84 / 2  # seconds, at 84 quarter notes per minute


def chorale_notes(tokens: Int[Tensor, "n"]) -> list[list[tuple[int, int, int]]]:
    """Return the notes of each voice as (MIDI number, first time step, number of time steps)."""
    voices = [[] for _ in VOICES]
    for eighth, step in enumerate(tokens.reshape(-1, len(VOICES)).tolist()):
        for notes, token in zip(voices, step, strict=True):
            if token >= FIRST_PITCH:
                notes.append((token + LOWEST_NOTE - FIRST_PITCH, eighth, 1))
            elif token == HOLD and notes and sum(notes[-1][1:]) == eighth:
                # A hold continues a sounding note. After a rest, it has no effect.
                pitch, start, length = notes[-1]
                notes[-1] = (pitch, start, length + 1)
    return voices


def chorale_sound(tokens: Int[Tensor, "n"], rate: int = 8_000) -> np.ndarray:
    """Synthesise a chorale at `rate` samples per second, with up to four partials per note."""
    sound = np.zeros(round((len(tokens) / 4 + 2) * EIGHTH * rate))
    for pitch, start, length in itertools.chain(*chorale_notes(tokens)):
        seconds = np.arange(int(length * EIGHTH * rate)) / rate
        frequency = 440 * 2 ** ((pitch - 69) / 12)  # MIDI number 69 is A4
        partials = [k for k in (1, 2, 3, 4) if k * frequency < rate / 2]
        tone = sum(np.sin(2 * np.pi * k * frequency * seconds) / k**2 for k in partials)
        # Fade each note in and out; otherwise it would click.
        fade = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.03) * np.exp(-seconds)
        begin = round(start * EIGHTH * rate)
        sound[begin : begin + len(tone)] += tone * fade
    return sound / np.abs(sound).max()


def chorale_wav(tokens: Int[Tensor, "n"], rate: int = 8_000) -> bytes:
    """Return a chorale as a small WAV file with one channel and 8 bits per sample."""
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(1)
        audio.setframerate(rate)
        audio.writeframes((128 + 127 * chorale_sound(tokens, rate)).astype(np.uint8).tobytes())
    return file.getvalue()


def draw_chorale(axis: plt.Axes, tokens: Int[Tensor, "n"], title: str) -> None:
    """Draw a piano roll: one rectangle per note, in the colour of the note's voice."""
    for name, notes in zip(VOICES, chorale_notes(tokens), strict=True):
        pitches, starts, lengths = zip(*notes, strict=True) if notes else ((), (), ())
        # A gap separates repeated notes.
        widths = [length - 0.15 for length in lengths]
        axis.barh(pitches, widths, left=starts, height=0.9, align="center", label=name)
    for bar in range(0, len(tokens) // 4 + 1, 8):
        axis.axvline(bar, color="grey", linewidth=0.4)
    axis.set(title=title, xlabel="time (eighth notes)", ylabel="pitch (MIDI number)")


def perform(pieces: dict[str, Int[Tensor, "n"]]) -> None:
    """Draw pieces side by side. In a notebook, also show an audio player for each."""
    rows = -(-len(pieces) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(12, 3.2 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (title, tokens) in zip(axes.flat, pieces.items(), strict=False):
        draw_chorale(axis, tokens, title)
    voices = axes[0, 0].get_legend_handles_labels()
    figure.legend(*voices, loc="outside lower center", ncols=4)
    plt.show()
    if get_ipython() is not None:
        for title, tokens in pieces.items():
            print(title)
            display(Audio(chorale_wav(tokens)))


# %% [markdown]
# ### Listen first
#
# All pieces begin with the first chord of Bach's chorale BWV 10.7 (a catalogue number), which
# neither model was trained on. The *relative* model uses distances; the *absolute* model uses
# positions (seed 0). The last piece is twice as long as any training example.

# %% tags=["support"]
ALPHABET = string.digits + string.ascii_letters  # one character per token
PERFORMANCES = {
    "Bach": (
        "HAro111111111111Kytq111111111111Hyvr1111Hztq1111HAro1111HCqn1111"
        "IAro11111ytq1111H11r11111Aro1111FArk1111111h1111Fyqm111111111111"
        "Dyvf1111111111111111111111111111Hyrr111111111111K11j111111111111"
        "Fyqm1111Fytq1111Fwot1111AAtk1111DAvj1111111h1111Cz1j111111t11111"
    ),
    "relative": (
        "HAro1111Fyqm1111DvroH111FArl1111Hzqj1111JAsl1111FAxl111qIAto111m"
        "Hzqj11p1FAql111jEAol1111CtqmF111Dyvf1111Cyta1111Dyvj1A11Dyrj1111"
        "Axth1111Atte1111Atth1111y1111q11Asmr1111Ctm11111Dvoo1111Fwpm1111"
        "Fyqm1111Dyfc1xt1Cytm1111Fyqq11o1FAoo1111FCvm1A11DCtj1111FDvc1C11"
    ),
    "absolute": (
        "HAro1111FCyr1111DDArH11oFFwq1111AAoh11rrHyrr1111Fwok1w1qIFwt1111"
        "HBwp11p1FAtm1111DAto1111HDvrF1v1IAtp1111FAwk1y1rDytm1A11Dyrf1111"
        "IAwo1111Attp1111FDwk1C11D1111111AArr1111Fyrk1111Dwoh1ywtDBwk1111"
        "FAok1111Dyfk11t1DCAm1111Fytq1111FBwo1111FBvf1A11DCwo1111FDui111k"
    ),
    "relative, sixteen bars": (
        "HAro1111Fyqm1111DvroH111FArl1111Hzqj1111JAsl1111FAxl111qIAto111m"
        "Hzqj11p1FAql111jEAol1111CtqmF111Dyvf1111Cyta1111Dyvj1A11Dyrj1111"
        "Axth1111Atte1111Atth1111y1111q11Asmr1111Ctm11111Dvoo1111Fwpm1111"
        "Fyqm1111Dyfc1xt1Cytm1111Fyqq11o1FAoo1111FCvm1A11DCtj1111FDvc1C11"
        "Hyva1111Cvqn111111111111HCyj1111JAth1111KCtm1111KCqm1D11DDvo1111"
        "HDvm1111HDyf111jHFCh111jFAxk1111HAvg1111HAok11t1FAwh1111DAvf1111"
        "Hyrf1111FAwh1Cy1HDvj1111Iyrc1111Fyqm1111DAro1111Cytm1111Hyqj1111"
        "FAwh1111DBv11A11Cytm1111Dvmf1111Dwol1wq1Cxte11111yvf1111Dyvf1x11"
    ),
}


# %%
if __name__ == "__main__":
    performances = {
        title: torch.tensor([ALPHABET.index(character) for character in text])
        for title, text in PERFORMANCES.items()
    }
    perform(performances)

# %% [markdown]
# ## `transpose`
# ★☆☆☆☆ · 5 minutes
#
# A chorale sung a whole tone higher is still the same piece. During training, we transpose each
# piece by a few semitones, so the model has to learn intervals instead of pitches. Consecutive
# pitch tokens are one semitone apart. For a token t and s semitones:
#
# $$\mathrm{transpose}(t, s) = \begin{cases} t & t \in \{0, 1\} \quad\text{(rest, hold)} \\
# t + s & t \ge 2 \end{cases}$$
#
# **The trap.** A pitch that moves too far down would silently become a hold or a rest. For example,
# 3 − 2 is 1, a hold. Raise an error if a pitch leaves the range at either end.


# %%
def transpose(tokens: Int[Tensor, "*shape"], semitones: int) -> Int[Tensor, "*shape"]:
    """Move every pitch by `semitones`, and leave rests (0) and holds (1) unchanged.

    Pitches are the tokens from 2 (the lowest) to `N_TOKENS` − 1 (the highest).

    Args:
        tokens: rests, holds and pitches in any shape.
        semitones: the number of semitones to move up; a negative number moves down.

    Raises:
        ValueError: if a pitch would be below 2 or above `N_TOKENS` − 1. The message names the pitch
            or an argument.
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

    @visible_check
    def check_transpose():
        tokens = torch.tensor([[20, 1, 0], [1, 33, 25]])
        with expecting(
            "Moving [[20, 1, 0], [1, 33, 25]] up by 3 should work",
            "Only pitches have to stay in the range, not rests (0) and holds (1).",
        ):
            moved = transpose(tokens, 3)
        assert moved is not None, "transpose returns None. Does it end with `return`?"
        assert moved.shape == (2, 3), f"The shape should be (2, 3); yours is {tuple(moved.shape)}."
        assert moved.tolist() == [[23, 1, 0], [1, 36, 28]], (
            "Moved up by three semitones, [[20, 1, 0], [1, 33, 25]] should become [[23, 1, 0], "
            f"[1, 36, 28]]; yours is {moved.tolist()}. Only pitches move, not rests (0) and holds "
            "(1)."
        )
        assert moved.dtype == torch.int64, f"Tokens should be int64; yours are {moved.dtype}."
        assert tokens.tolist() == [[20, 1, 0], [1, 33, 25]], (
            "transpose changes its argument `tokens`. Create a new tensor instead."
        )
        with expecting(
            "Moving [[20, 1, 0], [1, 33, 25]] down by 7 should work",
            "Only pitches have to stay in the range, not rests (0) and holds (1).",
        ):
            down = transpose(tokens, -7).tolist()
        assert down == [[13, 1, 0], [1, 26, 18]], (
            f"Moved down by 7, the tokens should become [[13, 1, 0], [1, 26, 18]]; yours are {down}."
        )
        with expecting("Moving [0, 1, 1], which contains no pitch, up by 100 should work"):
            silence = transpose(torch.tensor([0, 1, 1]), 100).tolist()
        assert silence == [0, 1, 1], (
            f"[0, 1, 1] contains no pitch and should not change; yours becomes {silence}."
        )
        with expecting(f"Pitches should be able to move to 2 and {N_TOKENS - 1}"):
            low, high = transpose(torch.tensor([5]), -3), transpose(torch.tensor([N_TOKENS - 3]), 2)
        assert (low.item(), high.item()) == (2, N_TOKENS - 1), (
            f"Pitches can move to 2 and {N_TOKENS - 1}, the lowest and the highest; yours become "
            f"{low.item()} and {high.item()}."
        )
        lowest = transpose(torch.tensor([2]), 4).item()
        assert lowest == 6, f"Moved up by 4, the lowest pitch, 2, should become 6, not {lowest}."
        for pitches, semitones in (
            ([20, 4], -3),
            ([20, N_TOKENS - 2], 2),
            ([4], -3),
            ([20, 9], -9),
            ([20, 3], -9),
            ([20, N_TOKENS - 2], 9),
        ):
            with expecting_value_error(
                f"Moving the pitches {pitches} by {semitones}, out of the range 2 to {N_TOKENS - 1},",
                "semitones",
                "tokens",
            ):
                transpose(torch.tensor(pitches), semitones)
        print("transpose: all visible checks pass.")

    check_transpose()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Create a boolean mask that is True for pitches. Only these tokens move, and only these must stay
# in the range.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.where(condition, a, b)` takes each entry from a or b and modifies neither in place. Check
# only the moved *pitches* against the range.
# </details>

# %% [markdown]
# **What to notice.** Transposing changes neither the rhythm nor the intervals.

# %% [markdown]
# ## `skew`
# ★★★★☆ · 25 minutes
#
# Relative attention adds a logit to the score of query i for key j. This logit depends on the query
# and the distance i − j. Each distance has a learned vector, a row of the matrix R. A single matrix
# product computes all of these logits:
#
# $$\underbrace{x}_{n \times n} = \underbrace{Q}_{n \times d_\text{head}}\;
# \underbrace{R^\top}_{d_\text{head} \times n}
# \qquad\text{row } i \text{ contains the logits of query } i
# \text{ for the distances } n{-}1, \dots, 1, 0$$
#
# The columns of x correspond to distances, but attention needs a column for each key. So each row
# must shift left by a different number of columns:
#
# ![Left: x has one column for each distance 3, 2, 1, 0. Query a has only a0, in the last column;
# query d has d3, d2, d1, d0. Right: skew(x) has one column for each key, 0 to 3. Row a is a0 and
# three question marks, row b starts with b1, b0, and row d is d3, d2, d1, d0.](figures/skewing.svg)
#
# $$\mathrm{skew}(x)_{i,j} = x_{i,\; n - 1 - (i - j)} \quad\text{for } j \le i,
# \qquad \mathrm{skew}: *\text{batch} \times n \times n \;\to\; *\text{batch} \times n \times n$$
#
# Question marks are logits for future keys. The causal mask will hide them, so any finite values
# work.
#
# A loop over the rows is too slow. Indexing with a precomputed table works. The Music Transformer
# instead reads *the same memory in rows of a different length*. Work out how.
#
# **The traps.** If you are off by one, the result still looks like a staircase and the model still
# trains. Try n = 1 by hand. There can be any number of leading axes (batch, heads); keep them
# separate.


# %%
def skew(x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Move each logit from the column of its distance to the column of its key.

    Row i of `x` contains the logits of query i for the distances n − 1, …, 1, 0. Entry (i, j) of
    the result is x(i, n − 1 − (i − j)) for j ≤ i, and any finite number above the diagonal. Do not
    loop over positions: the number of torch calls must not grow with n. The result may be a view.

    Source: Huang et al. (2018), figure 1.
    """
    ### BEGIN SOLUTION
    n = x.shape[-1]
    padded = F.pad(x, (1, 0))  # *batch n n+1, a column of zeros in front
    # Read in memory order, n numbers per row, and drop the first row.
    return padded.flatten(-2)[..., n:].unflatten(-1, (n, n))
    ### END SOLUTION


# %%
if __name__ == "__main__":

    class CountOperations(TorchDispatchMode):
        """A dispatch mode that counts the operations that torch runs."""

        n = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.n += 1
            return function(*args, **(kwargs or {}))

    @visible_check
    def check_skew():
        x = torch.arange(16.0).reshape(4, 4)
        with expecting("skew should accept a tensor of shape (4, 4)"):
            result = skew(x)
        assert result is not None, "skew returns None. Does it end with `return`?"
        assert result.shape == (4, 4), (
            f"The shape should be (4, 4); yours is {tuple(result.shape)}."
        )
        expected = [[3], [6, 7], [9, 10, 11], [12, 13, 14, 15]]
        for i, row in enumerate(expected):
            found = result[i, : i + 1]
            assert found.tolist() == row, (
                f"For x =\n{x}\nrow {i} of skew(x) up to the diagonal should be {row}; yours is "
                f"{found}. The last column of x, distance 0, belongs on the diagonal."
            )
        assert result.isfinite().all(), (
            f"Entries above the diagonal should be finite; yours are\n{result}"
        )
        # The hundreds digit of each entry encodes its batch and head.
        many = x + 100 * torch.arange(6).reshape(2, 3, 1, 1)
        with expecting(
            "skew should accept a tensor of shape (2, 3, 4, 4)", "Count the axes from the end."
        ):
            result = skew(many)
        assert result.shape == (2, 3, 4, 4), (
            f"The shape should be (2, 3, 4, 4); yours is {tuple(result.shape)}. "
            "Keep the leading axes separate."
        )
        assert result[1, 2, 2, :3].tolist() == [509, 510, 511], (
            "Batch 1, head 2, query 2 should be [509, 510, 511] up to the diagonal; yours is "
            f"{result[1, 2, 2, :3]}. Do you keep the leading axes separate?"
        )
        with expecting("skew should accept a single position, [[5.0]]"):
            alone = skew(torch.tensor([[5.0]])).tolist()
        assert alone == [[5]], (
            f"A single position has only distance 0, so [[5.0]] should not change; yours is {alone}."
        )
        counts = []
        for n in (4, 32):
            with CountOperations() as operations:
                skew(torch.zeros(n, n))
            counts.append(operations.n)
        assert counts[0] >= counts[1], (
            "The number of torch operations should not grow with n; yours runs "
            f"{counts[0]} for n = 4 and {counts[1]} for n = 32. Do you loop over rows?"
        )
        print("skew: all visible checks pass.")

    check_skew()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down the entries of the left matrix in memory order, row by row. In the right matrix, b1 is
# directly below a0, so it comes four numbers later, and c2 comes four after that. How far apart are
# they in the left matrix? What could you insert to make these distances equal?
# </details>
#
# <details><summary>Hint 2</summary>
#
# ![A column of zeros is added in front of x. The same 20 numbers, read in rows of four, form five
# rows. The first row is dropped, and the others are the rows of
# skew(x).](figures/skewing-trick.svg)
#
# `F.pad(x, (1, 0))` adds a column of zeros on the left. Then reshape only the last two axes, with
# `reshape` or with `flatten` and `unflatten`.
# </details>

# %% [markdown]
# The naive approach looks up a vector for every pair of positions. The next cells record the
# largest tensor that each approach creates.


# %% tags=["support"]
class LargestAllocation(TorchDispatchMode):
    """A dispatch mode that records the size in bytes of the largest tensor that torch creates."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


# %%
def direct_logits(
    query: Float[Tensor, "n d"], relative: Float[Tensor, "n d"]
) -> Float[Tensor, "n n"]:
    """Return the relative logits of one head, looking up a vector for every pair of positions."""
    n = len(query)
    distance = (torch.arange(n).unsqueeze(1) - torch.arange(n)).clamp(min=0)
    vectors = relative[n - 1 - distance]  # n n d
    return (vectors @ query.unsqueeze(-1)).squeeze(-1)


def skewed_logits(
    query: Float[Tensor, "n d"], relative: Float[Tensor, "n d"]
) -> Float[Tensor, "n n"]:
    """Return the same logits as `direct_logits`, computed with `skew`.

    Entries above the diagonal are arbitrary.
    """
    return skew(query @ relative.mT)


# %%
if __name__ == "__main__":
    with demonstration():
        lengths = [64, 128, 256, 512, 1024]
        ways = {"a vector for each pair": direct_logits, "skew": skewed_logits}
        megabytes = {name: [] for name in ways}
        for n in lengths:
            query, relative = torch.randn(2, n, 64)
            for name, logits in ways.items():
                with LargestAllocation() as largest:
                    logits(query, relative)
                megabytes[name].append(largest.bytes / 1e6)
            direct, skewed = (logits(query, relative).tril() for logits in ways.values())
            assert torch.allclose(direct, skewed, atol=1e-3)
        figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
        for name, sizes in megabytes.items():
            record(f"largest tensor for 1,024 tokens (MB), {name}", sizes[-1])
            axis.loglog(lengths, sizes, "o-", label=name)
        axis.set(xlabel="tokens n", ylabel="largest tensor (MB)", title="one head, d_head = 64")
        axis.set_xticks(lengths, lengths)
        axis.minorticks_off()
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** For 1,024 tokens, the largest tensor takes 268 MB per head without the trick
# and 4.2 MB with it, a factor of d_head = 64.

# %% [markdown]
# ## `RelativeSelfAttention`
# ★★★★☆ · 30 minutes
#
# Use `skew` in causal self-attention. Each head has its own R, so R is `h × n × d_head`.
#
# $$\mathrm{softmax}\!\left(\frac{\overbrace{Q K^\top}^{\text{content}}
# + \overbrace{\mathrm{skew}(Q R^\top)}^{\text{distance}}}{\sqrt{d_\text{head}}}\right) V
# \qquad Q, K, V: b \times h \times n \times d_\text{head}
# \qquad \text{scores}: b \times h \times n \times n$$
#
# ![The parameter relative has a row for each distance, with the largest distance first. For n
# tokens, R is the last n rows, which belong to the distances n − 1 to
# 0.](figures/relative-table.svg)
#
# Work in three steps:
#
# 1. Write causal multi-head attention, without R.
# 2. Take the last n rows of `relative` as R and add skew(Q Rᵀ) to Q Kᵀ.
# 3. Divide the whole sum by √d_head, mask the future, and apply softmax.
#
# **The traps.** A short sequence uses only one end of `relative`; check which one. `skew` masks
# nothing: above the diagonal, it leaves zeros and the logits of other queries. Even a score of 0
# gives a positive weight; only −∞ gives a weight of 0.
#
# Not allowed: `MultiheadAttention` and `multi_head_attention_forward`.


# %%
class RelativeSelfAttention(nn.Module):
    """Causal multi-head self-attention with learned vectors for the distance from query to key.

    Attributes to define: `query`, `key`, `value` and `out`, each an `nn.Linear` from `d_model` to
    `d_model`; `relative`, an `nn.Parameter` of shape `n_heads max_length d_head` with a vector for
    each distance in each head. The last row belongs to distance 0, the row before it to distance 1,
    and so on. d_head is `d_model` / `n_heads`, an integer; head k has the features
    k·d_head … (k+1)·d_head − 1.

    Source: Huang et al. (2018), arXiv 1809.04281.
    """

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        ### BEGIN SOLUTION
        if d_model % n_heads:
            raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
        d_head = d_model // n_heads
        self.query, self.key, self.value, self.out = (nn.Linear(d_model, d_model) for _ in range(4))
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_head) * d_head**-0.5)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """Let each position attend to itself and to all positions before it.

        The weights are softmax((Q Kᵀ + skew(Q Rᵀ)) / √d_head), where R is the last n rows of
        `relative`.

        Raises:
            ValueError: if n is larger than `max_length`. The message names one of them.
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
        """Make all queries 1 and all keys 0, so that only distances matter. Set the bias of `out` to 1."""
        with torch.no_grad():
            for linear in (layer.query, layer.key, layer.value, layer.out):
                linear.weight.zero_()
                linear.bias.zero_()
            layer.query.bias.fill_(1)
            layer.value.weight.copy_(torch.eye(len(layer.value.weight)))
            layer.out.weight.copy_(torch.eye(len(layer.out.weight)))
            layer.out.bias.fill_(1)
            layer.relative.copy_(relative)
        return layer

    @visible_check
    def check_RelativeSelfAttention():
        layer = filled(RelativeSelfAttention(8, 2, max_length=6))
        parameters = dict(layer.named_parameters(remove_duplicate=False))
        shapes = {name: tuple(weight.shape) for name, weight in parameters.items()}
        wanted = {f"{name}.weight": (8, 8) for name in ("query", "key", "value", "out")}
        wanted |= {f"{name}.bias": (8,) for name in ("query", "key", "value", "out")}
        wanted["relative"] = (2, 6, 4)
        assert wanted.items() <= shapes.items(), (
            f"The parameters should include {wanted}; yours are {shapes}."
        )
        assert len({parameters[name] for name in wanted}) == len(wanted), (
            "`query`, `key`, `value` and `out` should be separate modules; yours share parameters."
        )
        x = fixed_numbers(2, 5, 8)
        with expecting(
            "An input of shape (2, 5, 8) should work with max_length 6",
            "R has n rows per head: take the last n rows of `relative`.",
        ):
            result = layer(x)
        assert result is not None, "forward returns None. Does it end with `return`?"
        assert result.shape == (2, 5, 8), (
            f"The shape should be (2, 5, 8); yours is {tuple(result.shape)}."
        )
        assert torch.allclose(layer.eval()(x), result, atol=1e-5, equal_nan=True), (
            "This layer has no dropout, so training and evaluation mode should give the same result; yours "
            "differ."
        )
        changed = x.clone()
        changed[:, 3:] = 0
        moved = (layer(changed) - result).abs().amax(dim=(0, 2))
        assert (moved[:3] < 1e-6).all(), (
            "Changing positions 3 and 4 should not affect the outputs at positions 0 to 2; yours "
            f"change by up to {moved[:3].max():.2g}."
        )

        # With weights of 4, 1, 2 for the distances 0, 1, 2, the values 7, 14, 21 become
        # 7, (4·14 + 1·7) / 5 and (4·21 + 1·14 + 2·7) / 7. `out` adds 1.
        logits = torch.tensor([2.0, 1, 4]).log().reshape(1, 3, 1)
        notes = torch.tensor([7.0, 14, 21]).reshape(1, 3, 1)
        expected = torch.tensor([8.0, 13.6, 17])
        result = count_distances_only(filled(RelativeSelfAttention(1, 1, 3)), logits)(notes)[
            0, :, 0
        ]
        assert torch.allclose(result, expected, atol=1e-3), (
            "With weights of 4, 1, 2 for the distances 0, 1, 2, the values 7, 14, 21 should "
            f"become 7, 12.6, 16. `out` adds 1, giving\n{expected}\nyours is\n{result.detach()}\n"
            "The last row of `relative` belongs to distance 0."
        )
        # Head 0 has the same weights as above. With 4 features, vectors filled with half the logit give
        # 4 · 1/2 / √4 = 1 times the logit. Head 1 ignores distance, so it returns the mean of the
        # values so far.
        unused = torch.full((1, 2, 1), 9.0)
        relative = torch.zeros(2, 5, 4)
        relative[:1] = torch.cat([unused, logits], dim=1) / 2
        layer = count_distances_only(filled(RelativeSelfAttention(8, 2, 5)), relative)
        first, second = layer(notes.expand(1, 3, 8))[0].split(4, dim=-1)
        assert torch.allclose(first, expected.unsqueeze(1).expand(3, 4), atol=1e-3), (
            "With 2 heads of 4 features and max_length 5, all features of head 0 should give\n"
            f"{expected}\nyours are the columns of\n{first.detach()}\nThe last 3 of the 5 rows count, and "
            "√d_head is 2."
        )
        mean = torch.tensor([8.0, 11.5, 15])
        assert torch.allclose(second, mean.unsqueeze(1).expand(3, 4), atol=1e-3), (
            "All features of head 1, whose vectors in `relative` are 0, should give the mean of the "
            f"values so far, plus 1:\n{mean}\nyours are the columns of\n{second.detach()}\nEach head "
            "has its own vectors."
        )
        # Now the keys equal x, and the distances do not matter. Position 1 has the scores 0 and
        # 4 · (ln 3 / 2) / √4 = ln 3, so its weights are 1/4 and 3/4.
        content = count_distances_only(RelativeSelfAttention(4, 1, 2), torch.zeros(1, 2, 4))
        with torch.no_grad():
            content.key.weight.copy_(torch.eye(4))
        values = torch.tensor([1.0, 3]).log().reshape(1, 2, 1).expand(1, 2, 4) / 2
        result = content(values)[0, 1]
        assert torch.allclose(result, 0.75 * values[0, 1] + 1, atol=1e-3), (
            "If `relative` is 0, the weights 1/4 and 3/4 for the values 0 and 0.549 should give 0.412. "
            f"`out` adds 1, giving 1.412; yours gives {result.detach()}. Do you divide both parts of "
            "the sum by √d_head?"
        )
        with expecting_value_error("6 positions with max_length 5", "max_length", "n"):
            layer(torch.zeros(1, 6, 8))
        print("RelativeSelfAttention: all visible checks pass.")

    check_RelativeSelfAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For the second term, multiply the queries `b h n d_head` by something that gives `b h n n` with a
# column for each distance. R is `h n d_head`, so transpose its last two axes. It needs no batch
# axis, because it broadcasts.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `self.relative[:, max_length - n :]` is R for every head. `.mT` swaps the last two axes. Add the
# skewed product to Q Kᵀ and divide the sum by √d_head. `torch.ones(n, n).triu(1)` marks the future;
# `masked_fill` puts −inf there.
# </details>

# %% [markdown]
# **What to notice.** Softmax turns the sum of the two logits into a product of weights. A head can
# therefore match content and distance together, for example a held note exactly one bar back.

# %% [markdown]
# ## Distances versus positions
#
# You train two small Transformers. The *relative* one learns R. The *absolute* one adds a learned
# position vector to each token, as GPT does, and its R is 0. Everything else is the same.
#
# A training example is eight bars from one of `music21`'s chorales, transposed by up to three
# semitones. Every eighth chorale is held out, and near-duplicates of held-out ones are excluded.
#
# Guessing uniformly among 54 tokens costs log 54 = 4.0 nats.

# %% tags=["support"]
CHORALES = Path(getCorpusFilePath()) / "bach"
SEMITONES_ABOVE_C = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def pitch_token(pitch: Element | None) -> int:
    """Return the token for a notated pitch, or the token for a rest if `pitch` is None."""
    if pitch is None:
        return REST
    octave, step = int(pitch.findtext("octave")), pitch.findtext("step")
    number = 12 * (octave + 1) + SEMITONES_ABOVE_C[step] + int(pitch.findtext("alter", "0"))
    return number - LOWEST_NOTE + FIRST_PITCH


def read_voice(part: Element) -> list[int]:
    """Return the tokens of one voice, one per time step."""
    tokens, sounding, eighths, ticks_a_quarter = [], REST, Fraction(0), 1
    for element in part.iter():
        if element.tag == "divisions":
            ticks_a_quarter = int(element.text)
        if element.tag == "note":
            token = pitch_token(element.find("pitch"))
            # A tied note continues the previous note.
            tied = any(tie.get("type") == "stop" for tie in element.iter("tie"))
            if tied and token == sounding:
                token = HOLD
            eighths += Fraction(2 * int(element.findtext("duration")), ticks_a_quarter)
            while len(tokens) < eighths:  # the time steps that begin within this note
                tokens.append(token)
                if token >= FIRST_PITCH:
                    sounding, token = token, HOLD
    return tokens


def read_chorale(file: Path) -> Int[Tensor, "n"] | None:
    """Return the tokens of a chorale, or None unless it is in 4/4 with four parts of one voice each."""
    with ZipFile(file) as archive:
        name = next(
            name for name in archive.namelist() if re.fullmatch(r"[^/]+\.(music)?xml", name)
        )
        score = ElementTree.fromstring(archive.read(name))
    parts = score.findall("part")
    metres = {
        metre.findtext("beats") + "/" + metre.findtext("beat-type") for metre in score.iter("time")
    }
    # A part with one of these elements is not a single voice.
    single = all(score.find(f".//{tag}") is None for tag in ("backup", "forward", "chord", "grace"))
    if len(parts) != 4 or metres != {"4/4"} or not single:
        return None
    return torch.tensor([read_voice(part) for part in parts]).T.flatten()  # time · 4


def read_chorales() -> dict[str, Int[Tensor, "n"]]:
    """Map the BWV number of each chorale of at least eight bars to its tokens."""
    # If a number has several versions, keep the first.
    files = {
        file.stem.split("-")[0]: file for file in sorted(CHORALES.glob("bwv*.mxl"), reverse=True)
    }
    chorales = {}
    for name, file in tqdm(sorted(files.items()), desc="reading chorales", file=sys.stdout):
        tokens = read_chorale(file)
        if tokens is not None and len(tokens) >= CHORALE_LENGTH:
            chorales[name] = tokens
    return chorales


# %%
CHORALE_STEPS = 400
CHORALE_BATCH = 8


class ChoraleBlock(nn.Module):
    """A pre-norm block: relative attention, then a feed-forward network."""

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        self.attend = nn.Sequential(
            nn.LayerNorm(d_model), RelativeSelfAttention(d_model, n_heads, max_length)
        )
        self.network = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Linear(4 * d_model, d_model),
        )

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        x = x + self.attend(x)
        return x + self.network(x)


class ChoraleModel(nn.Module):
    """A decoder-only model with relative or absolute positions."""

    def __init__(
        self,
        kind: str,
        d_model: int = 96,
        n_heads: int = 4,
        n_layers: int = 3,
        max_length: int = CHORALE_LENGTH,
    ):
        super().__init__()
        self.kind = kind
        self.embedding = nn.Embedding(N_TOKENS, d_model)
        self.positions = nn.Parameter(torch.zeros(max_length, d_model))
        self.blocks = nn.ModuleList(
            ChoraleBlock(d_model, n_heads, max_length) for _ in range(n_layers)
        )
        self.output = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, N_TOKENS))
        nn.init.normal_(self.embedding.weight, std=0.02)
        # Every model has both kinds of tables. Those that it does not use stay zero.
        tables = {
            "absolute": [self.positions],
            "relative": [block.attend[1].relative for block in self.blocks],
        }
        for owner, std in (("absolute", 0.1), ("relative", 1.0)):
            for table in tables[owner]:
                nn.init.normal_(table, std=std if owner == kind else 0.0)
                table.requires_grad_(owner == kind)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.output(x)


# %% tags=["support"]
def split_chorales(
    chorales: dict[str, Int[Tensor, "n"]], length: int = CHORALE_LENGTH
) -> tuple[list[Int[Tensor, "n"]], Int[Tensor, "windows length"]]:
    """Return the training chorales, and windows of `length` tokens from the held-out chorales."""
    # To find near-duplicates, compare the first eight bars, relative to the first note.
    begin = torch.stack([tokens[:CHORALE_LENGTH] for tokens in chorales.values()])
    begin = torch.where(begin >= FIRST_PITCH, begin - begin[:, :1] + 2 * N_TOKENS, begin)
    held_out = torch.arange(len(begin)) % 8 == 0
    agreement = torch.stack([(begin == row).float().mean(dim=1) for row in begin[held_out]])
    train = ~held_out & (agreement.amax(dim=0) < 0.8)
    pieces = list(chorales.values())
    windows = [
        window
        for piece, out in zip(pieces, held_out, strict=True)
        if out
        for window in piece.split(length)
        if len(window) == length
    ]
    return [piece for piece, own in zip(pieces, train, strict=True) if own], torch.stack(windows)


def chorale_batch(
    chorales: list[Int[Tensor, "n"]], rng: random.Random
) -> Int[Tensor, "b CHORALE_LENGTH"]:
    """Draw random windows from the chorales, each transposed by up to three semitones."""
    windows = []
    for chorale in rng.choices(chorales, k=CHORALE_BATCH):
        start = 4 * rng.randint(0, (len(chorale) - CHORALE_LENGTH) // 4)
        windows.append(transpose(chorale[start : start + CHORALE_LENGTH], rng.randint(-3, 3)))
    return torch.stack(windows)


def chorale_loss(
    model: nn.Module, windows: Int[Tensor, "b n"], reduction: str = "mean"
) -> Float[Tensor, "*tokens"]:
    """Return the mean loss of all tokens after the first, or their individual losses if `reduction` is "none"."""
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction=reduction)


def train_on_chorales(
    model: nn.Module, chorales: list[Int[Tensor, "n"]], rng: random.Random, name: str
) -> list[float]:
    """Train `model` for CHORALE_STEPS steps and return the loss at each step."""
    # OneCycleLR changes the first beta from 0.95 to 0.85 and back.
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.95, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=CHORALE_STEPS, pct_start=0.1
    )
    losses = []
    for _ in tqdm(range(CHORALE_STEPS), desc=name, mininterval=0.5, file=sys.stdout):
        loss = chorale_loss(model, chorale_batch(chorales, rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def loss_by_token(model: nn.Module, windows: Int[Tensor, "windows n"]) -> Float[Tensor, "n-1"]:
    """Return each token's mean loss over all windows in nats, starting with the second token."""
    losses = [chorale_loss(model, part, "none") for part in windows.split(8)]
    return torch.cat(losses).reshape(len(windows), -1).mean(dim=0)


class ChoraleRun(NamedTuple):
    """A trained model, its loss at each step, its held-out loss and the duration of the run in seconds."""

    model: nn.Module
    losses: list[float]
    held_out: float
    seconds: float


def run_chorales(
    kind: str,
    seed: int,
    training: list[Int[Tensor, "n"]],
    windows: Int[Tensor, "windows CHORALE_LENGTH"],
) -> ChoraleRun:
    """Train a model of the given kind and measure its loss on the held-out windows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # makes results independent of the number of cores
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = ChoraleModel(kind)
    losses = train_on_chorales(model, training, random.Random(seed), f"{kind}, seed {seed}")
    held_out = loss_by_token(model, windows).mean().item()
    seconds = time.perf_counter() - start
    torch.set_num_threads(threads)
    return ChoraleRun(model, losses, held_out, seconds)


def compare_positions(seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return the held-out loss of each kind of model for each seed."""
    training, windows = split_chorales(read_chorales())
    return {
        kind: [run_chorales(kind, seed, training, windows).held_out for seed in seeds]
        for kind in ("relative", "absolute")
    }


# %%
if __name__ == "__main__":
    predict(
        "Which model will predict held-out chorales better?", ..., one_of=["relative", "absolute"]
    )

# %%
if __name__ == "__main__":
    with demonstration():
        chorales = read_chorales()
        training_chorales, held_out_windows = split_chorales(chorales)
        print(f"{len(chorales)} chorales, {len(training_chorales)} of them for training")
        chorale_runs = {
            kind: run_chorales(kind, 0, training_chorales, held_out_windows)
            for kind in ("relative", "absolute")
        }

# %%
if __name__ == "__main__":
    with demonstration():
        better = min(chorale_runs, key=lambda kind: chorale_runs[kind].held_out)
        predict.reveal("Which model will predict held-out chorales better?", better)
        figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
        for kind, run in chorale_runs.items():
            record(f"nats per token on held-out chorales, {kind}", run.held_out)
            record(f"seconds of training and testing on one core, {kind}", run.seconds)
            width = min(10, len(run.losses))
            smooth = np.convolve(run.losses, np.ones(width) / width, mode="valid")
            steps = range(width - 1, len(run.losses))
            (line,) = axis.plot(steps, smooth, label=f"{kind}: training (mean of {width} steps)")
            axis.axhline(
                run.held_out,
                color=line.get_color(),
                linestyle="--",
                label=f"{kind}: held out, at the end",
            )
        axis.set(title="relative versus absolute positions", xlabel="step", ylabel="nats per token")
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** On 51 windows from the 37 held-out chorales, the relative model needs 1.13–1.14
# nats per token, and the absolute model 1.47–1.49 (seeds 0 to 2).

# %% [markdown]
# ### Longer than in training
# *Further · 5 minutes*
#
# Both models read sixteen bars. The vectors for distances and positions from 256 on are 0.


# %% tags=["support"]
@torch.no_grad()
def lengthened(model: nn.Module, length: int) -> nn.Module:
    """Return a copy of `model` that accepts `length` tokens.

    The vectors for new distances or positions are zero.
    """
    longer = ChoraleModel(model.kind, max_length=length)
    copies = dict(longer.named_parameters())
    for name, table in model.named_parameters():
        # `relative` begins with the largest distance; `positions` ends with the last position.
        if name == "positions":
            table = F.pad(table, (0, 0, 0, length - len(table)))
        elif table.shape != copies[name].shape:
            table = F.pad(table, (0, 0, length - table.shape[1], 0))
        copies[name].copy_(table)
    return longer


def loss_by_bar(losses: Float[Tensor, "n-1"]) -> list[float]:
    """Return the mean loss of each bar of 32 tokens. The first token has no loss."""
    return [bar.mean().item() for bar in (losses[:31], *losses[31:].split(32))]


# %%
if __name__ == "__main__":
    predict("How many nats per token will the absolute model need in bars 9 to 16?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        _, long_windows = split_chorales(chorales, 2 * CHORALE_LENGTH)
        sixteen_bars = {
            kind: loss_by_token(lengthened(run.model, 2 * CHORALE_LENGTH), long_windows)
            for kind, run in chorale_runs.items()
        }
        late = {kind: losses[CHORALE_LENGTH - 1 :].mean() for kind, losses in sixteen_bars.items()}
        predict.reveal(
            "How many nats per token will the absolute model need in bars 9 to 16?",
            late["absolute"].item(),
        )
        figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
        for kind, run in chorale_runs.items():
            alone = loss_by_token(run.model, long_windows[:, CHORALE_LENGTH:])
            record(f"nats per token in bars 9 to 16, {kind}", late[kind].item())
            record(f"nats per token in bars 9 to 16 read alone, {kind}", alone.mean().item())
            (line,) = axis.plot(
                range(1, 17), loss_by_bar(sixteen_bars[kind]), "o-", label=f"{kind}: sixteen bars"
            )
            axis.plot(
                range(9, 17),
                loss_by_bar(alone),
                "x:",
                color=line.get_color(),
                label=f"{kind}: bars 9 to 16 alone",
            )
        axis.axvline(8.5, color="grey", linewidth=0.8)
        axis.set(
            xlabel="bar",
            ylabel="nats per token",
            title="right of the line: longer than in training",
        )
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** Mean loss over bars 9 to 16 (11 windows; few held-out chorales are this long):
#
# |model (seeds 0 to 2)|after bars 1 to 8|these bars alone|
# |---|---|---|
# |relative|1.21–1.23|1.22–1.24|
# |absolute|2.25–2.29|1.54–1.58|
#
# The relative model gets no worse. It has learned to attend to nearby tokens, so a longer context
# hardly helps it. The absolute model fails at positions that it has never seen.

# %% [markdown]
# ### What a head learned about distances
# *Further · 10 minutes*
#
# How far back does a head look, regardless of content? The mean of $QR^\top / \sqrt{d_\text{head}}$
# over all queries gives a curve for each head. At position i, the model predicts token i + 1. If
# this is a soprano token, the previous soprano token is at position i − 3.


# %% tags=["support"]
@torch.no_grad()
def logits_by_distance(
    model: nn.Module, windows: Int[Tensor, "b n"]
) -> Float[Tensor, "layers h max_length"]:
    """Return the mean relative logit of each head for the distances 0, 1, 2, …."""
    x = model.embedding(windows) + model.positions[: windows.shape[1]]
    layers = []
    for block in model.blocks:
        norm, attention = block.attend
        n_heads, _, d_head = attention.relative.shape
        queries = attention.query(norm(x)).unflatten(-1, (n_heads, d_head))  # b n h d_head
        # The mean of the products equals the product with the mean query.
        mean_query = queries.mean(dim=(0, 1)).unsqueeze(-1)  # h d_head 1
        logits = attention.relative @ mean_query / d_head**0.5  # h max_length 1
        layers.append(logits.squeeze(-1).flip(1))  # distance 0 first
        x = block(x)
    return torch.stack(layers)


# %%
if __name__ == "__main__":
    with demonstration():
        by_distance = logits_by_distance(chorale_runs["relative"].model, held_out_windows)
        figure, axes = plt.subplots(
            len(by_distance), 1, figsize=(10, 6), sharex=True, layout="constrained"
        )
        for layer, (axis, heads) in enumerate(zip(axes, by_distance, strict=True)):
            for head, logits in enumerate(heads):
                axis.plot(logits[:65], marker=".", markersize=4, label=f"head {head}")
            for distance in range(3, 65, 4):
                axis.axvline(distance, color="grey", linewidth=0.4, zorder=0)
            axis.set(title=f"layer {layer}", ylabel="mean relative logit")
        axes[0].legend(loc="upper right", ncols=4)
        axes[-1].set(
            xlabel="distance (tokens); grey lines: earlier tokens of the next voice",
            xticks=(0, 3, 7, 15, 31, 47, 63),
        )
        plt.show()

# %% [markdown]
# **What to notice.** With seed 0, the tallest peaks are at 3, 7 and 15. The model is about to predict
# a voice's next note: these heads attend to the same voice one, two and four eighth notes earlier.

# %% [markdown]
# ## Compose
# *Further · 10 minutes*
#
# Each model gets a chord from a held-out chorale and samples eight bars at temperature 0.8. The
# figure shows the first of eight pieces, not the best. You can open the relative model's piece,
# `chorale.mid`, in any MIDI player.


# %% tags=["support"]
@torch.no_grad()
def compose(
    model: nn.Module,
    beginning: Int[Tensor, "b n"],
    temperature: float,
    seed: int,
    length: int = CHORALE_LENGTH,
) -> Int[Tensor, "b length"]:
    """Continue `beginning` until it has `length` tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = beginning
    while tokens.shape[1] < length:
        probabilities = (model(tokens)[:, -1] / temperature).softmax(dim=-1)
        following = torch.multinomial(probabilities, 1, generator=generator)
        tokens = torch.cat([tokens, following], dim=1)
    return tokens


def write_midi(tokens: Int[Tensor, "n"], file: Path) -> None:
    """Write a MIDI file with one track per voice."""
    score = music21.stream.Score()
    for notes in chorale_notes(tokens):
        part = music21.stream.Part()
        part.insert(0, music21.tempo.MetronomeMark(number=84))
        for pitch, start, length in notes:
            part.insert(start / 2, music21.note.Note(pitch, quarterLength=length / 2))
        score.insert(0, part)
    score.write("midi", fp=file)


# %%
if __name__ == "__main__":
    with demonstration():
        composed = {
            kind: compose(run.model, held_out_windows[:8, :4], temperature=0.8, seed=0)
            for kind, run in chorale_runs.items()
        }
        perform({kind: pieces[0] for kind, pieces in composed.items()})
        midi_file = Path("chorale.mid")
        write_midi(composed["relative"][0], midi_file)
        read_back = music21.converter.parse(midi_file).parts
        print(f"{midi_file}: {[len(part.flatten().notes) for part in read_back]} notes per voice")

# %% [markdown]
# A *leap* is a melodic interval larger than a fifth. A *clash* is a time step (an eighth note) at
# which two voices are a semitone apart, ignoring octaves. A *crossing* is a time step at which a
# lower voice sings above a higher one.


# %% tags=["support"]
def sounding_pitches(tokens: Int[Tensor, "n"]) -> Int[Tensor, "time 4"]:
    """Return the MIDI number that each voice sings at each time step, or 0 for a rest."""
    pitches = torch.zeros(len(tokens) // 4, 4, dtype=torch.int64)
    for voice, notes in enumerate(chorale_notes(tokens)):
        for pitch, start, length in notes:
            pitches[start : start + length, voice] = pitch
    return pitches


def describe_chorales(pieces: Int[Tensor, "b n"]) -> dict[str, float | str]:
    """Return statistics of chorales, such as the fractions of leaps and clashes."""
    pitches = torch.stack([sounding_pitches(piece) for piece in pieces])  # b time 4
    voices = [[notes[v] for notes in map(chorale_notes, pieces)] for v in range(4)]
    steps = [
        abs(after[0] - before[0])
        for notes in itertools.chain(*voices)
        for before, after in itertools.pairwise(notes)
    ]
    _, starts, lengths = zip(*itertools.chain(*itertools.chain(*voices)), strict=True)
    distances = (pitches.unsqueeze(-1) - pitches.unsqueeze(-2)) % 12
    both = (pitches.unsqueeze(-1) > 0) & (pitches.unsqueeze(-2) > 0)
    clash = (both & (distances == 1)).any(dim=(-2, -1)).float().mean().item()
    crossing = ((pitches[..., 1:] > pitches[..., :-1]) & (pitches[..., :-1] > 0)).any(dim=-1)
    sung = [pitches[..., v][pitches[..., v] > 0] for v in range(4)]
    return {
        "ranges": ", ".join(f"{v.min()}–{v.max()}" for v in sung),
        "notes per bar in each voice": len(lengths) / (len(pieces) * 8 * 4),
        "longest note (eighth notes)": max(lengths),
        "on a beat (fraction)": sum(start % 2 == 0 for start in starts) / len(starts),
        "repeated note (fraction)": sum(step == 0 for step in steps) / len(steps),
        "leaps (fraction)": sum(step > 7 for step in steps) / len(steps),
        "clashes (fraction)": clash,
        "crossings (fraction)": crossing.float().mean().item(),
    }


# %%
if __name__ == "__main__":
    with demonstration():
        described = {"Bach": describe_chorales(held_out_windows[:8])}
        described |= {kind: describe_chorales(pieces) for kind, pieces in composed.items()}
        print(f"{'':<28} {'  '.join(f'{who:<27}' for who in described)}")
        for what in described["Bach"]:
            row = [described[who][what] for who in described]
            words = [value if isinstance(value, str) else f"{value:.3g}" for value in row]
            print(f"{what:<28} {'  '.join(f'{word:<27}' for word in words)}")

# %% [markdown]
# **What to notice.** Bach and both models (seed 0) write about 4 notes per bar and voice. The
# harmony differs: 7% (Bach), 11% (relative) and 24% (absolute) of the time steps contain clashes.
# The melodies also differ: 2%, 4% and 7% of the intervals are leaps.
#
# In one of the relative model's pieces, the soprano sings the bass line. This model can infer which
# voice is next only from earlier tokens. The absolute model cannot mix up the voices, because each
# position vector belongs to one voice.

# %% [markdown]
# ### Your experiment: does the soprano still sing the bass?
# *Further · 10 minutes*
#
# Give the voices an unusual first chord, such as the lowest note to the soprano. The relative model
# continues it for four bars, eight times. Voices are mixed up if, in the second half, a voice is on
# average above a higher one. The next cell then trains one vector per voice in 30 steps (about 15 s),
# adds it to each token, and composes again.


# %% tags=["support"]
VOICE_STEPS = 30


class VoiceVectors(nn.Module):
    """Repeat the first four rows of a table, so that each voice has one vector at all time steps."""

    def forward(self, table: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return table[: len(VOICES)].repeat(len(table) // len(VOICES), 1)


def with_voices(model: nn.Module, chorales: list[Int[Tensor, "n"]]) -> nn.Module:
    """Return a copy of `model` that adds a trained vector for the voice to each token. Train only these vectors."""
    voiced = copy.deepcopy(model).requires_grad_(False)
    parametrize.register_parametrization(voiced, "positions", VoiceVectors())
    vectors = voiced.parametrizations.positions.original.requires_grad_()
    optimizer, rng = torch.optim.AdamW([vectors], lr=0.03), random.Random(0)
    for _ in tqdm(range(VOICE_STEPS), "voice vectors", mininterval=0.5, file=sys.stdout):
        loss = chorale_loss(voiced, chorale_batch(chorales, rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return voiced


def n_mixed_up(pieces: Int[Tensor, "b n"]) -> int:
    """Return in how many pieces a voice is on average above a higher one in the second half."""
    pitches = torch.stack([sounding_pitches(piece) for piece in pieces]).float()
    means = pitches[:, pitches.shape[1] // 2 :].mean(dim=1)  # b 4
    return (means.diff(dim=1) >= 0).any(dim=1).sum().item()


# %%
if __name__ == "__main__":
    predict("Without voice vectors, in how many of your 8 pieces will voices be mixed up?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        my_chord = ("C3", "E4", "G4", "C5")  # soprano, alto, tenor, bass; from A1 to C6

        numbers = [music21.pitch.Pitch(name).midi for name in my_chord]
        chord = (torch.tensor(numbers) - LOWEST_NOTE + FIRST_PITCH).repeat(8, 1)
        relative = chorale_runs["relative"].model
        without = compose(relative, chord, temperature=0.8, seed=0, length=128)
        predict.reveal(
            "Without voice vectors, in how many of your 8 pieces will voices be mixed up?",
            n_mixed_up(without),
        )
        voiced = with_voices(relative, training_chorales)
        voices = compose(voiced, chord, temperature=0.8, seed=0, length=128)
        print(f"with voice vectors: {n_mixed_up(voices)} of 8")
        perform({"without voice vectors": without[0], "with voice vectors": voices[0]})

# %% [markdown]
# **Read.** [Huang et al. 2018](https://arxiv.org/abs/1809.04281), figure 1 and table 1: the trick
# and its memory use. [Shaw et al. 2018](https://arxiv.org/abs/1803.02155), section 3.2: vectors for
# distances. [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Relative Position
# Encoding".
#
# **Discuss.**
#
# 1. A relative model knows distances but not where the piece began. How could it work out which
#    voice is next, and how could you give it this information?
# 2. Music sounds the same in every key, and `transpose` teaches this by example. What change to the
#    input would build this into the model?
#
# <details><summary>Answers</summary>
#
# 1. It can count back: the voice whose last token is three positions back sings next. If the model
#    loses count, nothing corrects it. You could add a vector for the voice (position modulo 4) to
#    each token.
# 2. Describe each note by its interval to the previous note, or to the first, instead of by its
#    pitch. Then a transposed chorale gives the same tokens. With intervals to the previous note,
#    one wrong interval shifts everything that follows.
# </details>
