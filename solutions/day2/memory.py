# %% [markdown]
# # Memory
#
# *Chapter 7 of 8*
#
# A Transformer sees only its context window. A longer window is still finite, and its cost grows as
# n². You will implement three ways to reach further back:
#
# * `RecurrentAttention` (Transformer-XL, [Dai et al. 2019](https://arxiv.org/abs/1901.02860)) keeps
#   each layer's inputs from the previous segment.
# * `knn_probabilities` (kNN-LM, [Khandelwal et al. 2020](https://arxiv.org/abs/1911.00172)) looks
#   up similar contexts in the training text.
# * `performer_features` (Performer, [Choromanski et al. 2021](https://arxiv.org/abs/2009.14794))
#   lets linear attention, with its fixed-size state, approximate softmax attention by replacing the
#   feature map elu + 1.
#
# First, run `skew` in Music.

# %%
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from solutions.day2.language_model import (
    TOPIC_HELD_OUT,
    TOPIC_SYMBOLS,
    TOPIC_TRAINING,
    topic_text,
    topic_tokens,
)
from solutions.day2.music import skew
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
# ## `RecurrentAttention`
# ★★★★☆ · 35 minutes
#
# Transformer-XL reads a long text in segments. Each layer stores its inputs, and the next segment
# attends to them. Each layer therefore reaches one segment further back than the layer below.
#
# ![Three segments and two layers. The last position of layer 2 in segment 3 attends to outputs of
# layer 1 in segment 2. Those depend on the inputs of segment 1. No gradient crosses a segment
# boundary.](figures/segments.svg)
#
# Queries are computed from the segment x. Keys and values are computed from the concatenation of
# the memory and x:
#
# $$\underbrace{Q}_{n \times d_\text{head}} = x\,W_q \qquad
# \underbrace{K, V}_{(m+n) \times d_\text{head}} = [\mathrm{sg}(\text{memory});\, x]\,W_{k},\,
# [\mathrm{sg}(\text{memory});\, x]\,W_{v} \qquad
# \mathrm{softmax}\!\left(\frac{Q K^\top + S}{\sqrt{d_\text{head}}}\right) V$$
#
# In this chapter, m counts memory positions, so there are m + n keys. The *stop-gradient* operator
# sg blocks gradients to the memory. Gradients still reach $W_k$ and $W_v$ through the projected
# memory.
#
# Position numbers restart in each segment, so only relative positions make sense. As in the music
# chapter, each head has one learned vector per distance. The last row of `relative` is for distance
# 0.
#
# $$S_{i,j} = Q_i \cdot R_{n - 1 - i + j} \quad (j \le m + i) \qquad
# \underbrace{S}_{n \times (m+n)} \qquad
# \underbrace{R}_{(m+n) \times d_\text{head}} = \text{the last } m + n \text{ rows of } \texttt{relative}$$
#
# ![Distances from three queries to a memory of two positions and a segment of three. Row 0 is 2, 1,
# 0 and two future positions. Row 1 is 3, 2, 1, 0 and one future position. Row 2 is 4, 3, 2, 1,
# 0.](figures/memory-mask.svg)
#
# **The traps.** The mask and the table of distances are not square. If `memory` is None or empty,
# the layer must match `RelativeSelfAttention`. Projecting under `torch.no_grad()` would also block
# the gradients of $W_k$ and $W_v$.
#
# Not allowed: `MultiheadAttention` and `multi_head_attention_forward`.


# %%
class RecurrentAttention(nn.Module):
    """Causal relative attention over a segment and a memory of earlier positions.

    Attributes to define: `query`, `key`, `value` and `out`, each an `nn.Linear` from `d_model` to
    `d_model`; `relative`, an `nn.Parameter` of shape `n_heads max_length d_head` with a vector for
    each distance in each head. Its last row is for distance 0, and the row before that for distance 1.
    d_head is `d_model` / `n_heads`; head k uses the features k·d_head, …, (k+1)·d_head − 1.

    Raises:
        ValueError: if `d_model` is not divisible by `n_heads`. The message names one of them.

    Source: Dai et al. (2019), section 3.2, with the relative embeddings of Huang et al. (2018).
    """

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        ### BEGIN SOLUTION
        if d_model % n_heads:
            raise ValueError(f"d_model is {d_model}, not divisible by n_heads = {n_heads}")
        d_head = d_model // n_heads
        self.query, self.key, self.value, self.out = (nn.Linear(d_model, d_model) for _ in range(4))
        self.relative = nn.Parameter(torch.randn(n_heads, max_length, d_head) * d_head**-0.5)
        ### END SOLUTION

    def forward(
        self, x: Float[Tensor, "b n d_model"], memory: Float[Tensor, "b m d_model"] | None = None
    ) -> Float[Tensor, "b n d_model"]:
        """Let position i of x attend to the whole memory and to positions 0 to i of x.

        No gradient flows into `memory`, but the memory contributes to the gradients of `key` and `value`.

        Args:
            x: the current segment.
            memory: the positions directly before `x`; None is equivalent to an empty memory.

        Raises:
            ValueError: if m + n is larger than `max_length`. The message names one of them.
        """
        ### BEGIN SOLUTION
        n_heads, max_length, d_head = self.relative.shape
        seen = x if memory is None else torch.cat([memory.detach(), x], dim=1)  # b m+n d_model
        n, total = x.shape[1], seen.shape[1]
        if total > max_length:
            raise ValueError(f"memory and x have {total} positions, but max_length is {max_length}")
        projected = (self.query(x), self.key(seen), self.value(seen))
        q, k, v = (p.unflatten(-1, (n_heads, d_head)).transpose(1, 2) for p in projected)
        logits = q @ self.relative[:, max_length - total :].mT  # b h n m+n, one column per distance
        # Pad at the top to make the matrix square, as if the memory also had queries.
        logits = skew(F.pad(logits, (0, 0, total - n, 0)))[..., total - n :, :]
        scores = (q @ k.mT + logits) / d_head**0.5  # b h n m+n
        future = torch.ones(n, total, dtype=torch.bool, device=x.device).triu(total - n + 1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_RecurrentAttention():
        layer = filled(RecurrentAttention(8, 2, max_length=9)).eval()
        parameters = dict(layer.named_parameters(remove_duplicate=False))
        shapes = {name: tuple(weight.shape) for name, weight in parameters.items()}
        wanted = {f"{name}.weight": (8, 8) for name in ("query", "key", "value", "out")}
        wanted |= {f"{name}.bias": (8,) for name in ("query", "key", "value", "out")}
        wanted["relative"] = (2, 9, 4)
        assert wanted.items() <= shapes.items(), (
            f"The parameters should include\n{wanted}\nyours are\n{shapes}"
        )
        assert len({parameters[name] for name in wanted}) == len(wanted), (
            "`query`, `key`, `value` and `out` should be separate modules; yours share parameters."
        )

        # Queries are 1 and keys are 0, so the weights depend only on `relative`. For the distances 0, 1, 2,
        # they are 4, 2, 1 in head 0 and 1, 1, 1 in head 1.
        simple = RecurrentAttention(8, 2, max_length=5).eval()
        with torch.no_grad():
            for linear in (simple.query, simple.key, simple.value, simple.out):
                linear.weight.zero_()
                linear.bias.zero_()
            simple.query.bias.fill_(1)
            simple.value.weight.copy_(torch.eye(8) / 2)
            simple.out.weight.copy_(torch.eye(8) * 2)
            # A head has four features and √d_head is 2, so each feature is half the logarithm.
            simple.relative.fill_(9)
            simple.relative[0, 2:] = torch.tensor([[1.0], [2.0], [4.0]]).log() / 2
            simple.relative[1, 2:] = 0
        notes = torch.tensor([7.0, 14, 21]).reshape(1, 3, 1).expand(1, 3, 8)
        with expecting("A segment of shape (1, 3, 8) without a memory should work"):
            alone = simple(notes)
        assert alone is not None, "forward returns None. Does it end with `return`?"
        assert alone.shape == (1, 3, 8), (
            f"The output should have shape (1, 3, 8); yours has {tuple(alone.shape)}."
        )
        expected = torch.tensor([[7.0, 7.0], [70 / 6, 10.5], [17.0, 14.0]]).repeat_interleave(4, 1)
        assert torch.allclose(alone[0], expected, atol=1e-3), (
            "This segment has no memory and the values 7, 14, 21. The weights for the distances 0, 1, 2 are "
            "4, 2, 1 in head 0 (features 0 to 3) and 1, 1, 1 in head 1 (features 4 to 7), so the output should be\n"
            f"{expected}\nyours is\n{alone[0].detach()}\nThe last row of `relative` is for distance 0."
        )
        for m in (1, 2):
            with expecting(f"A segment of length {3 - m} with a memory of length {m} should work"):
                seen = simple(notes[:, m:], notes[:, :m])
            assert seen.shape == (1, 3 - m, 8), (
                f"With a memory, a segment of length {3 - m} should still have an output of length {3 - m}; "
                f"yours has shape {tuple(seen.shape)}. Do you compute queries only from x?"
            )
            assert torch.allclose(seen[0], expected[m:], atol=1e-3), (
                f"With the first {m} of these values as the memory, the output should be\n{expected[m:]}\n"
                f"yours is\n{seen[0].detach()}\nWhich distances do you use for the memory? Does each "
                "position see the whole memory, but no later position?"
            )

        x = fixed_numbers(2, 7, 8)
        whole = layer(x)
        changed = x.clone()
        changed[:, 5:] = 0
        moved = (layer(changed[:, 3:], x[:, :3]) - layer(x[:, 3:], x[:, :3])).abs().amax((0, 2))
        assert (moved[:2] < 1e-6).all(), (
            "Changing positions 2 and 3 of the segment should not change earlier outputs; yours "
            f"change by {moved[:2]}."
        )
        parts = torch.cat([layer(x[:, :3]), layer(x[:, 3:], x[:, :3])], dim=1)
        error = (parts - whole).abs().amax(dim=(0, 2))
        assert (error < 1e-5).all(), (
            "If the first of two segments is the memory of the second, the outputs should be the same as "
            f"for the whole sequence. At each position, yours differ by\n{error.detach()}"
        )
        with expecting("An empty memory should work"):
            assert torch.allclose(layer(x, x[:, :0]), whole, atol=1e-6), (
                "An empty memory should give the same output as None."
            )

        memory = x[:, :3].clone().requires_grad_()
        layer(torch.zeros(2, 4, 8), memory).sum().backward()
        assert memory.grad is None or not memory.grad.any(), (
            "No gradient should flow into the memory, but its gradient is not 0. Detach the memory."
        )
        reached = layer.value.weight.grad
        assert False if reached is None else reached.any(), (
            "Even if x is 0, the memory should give `value.weight` a gradient; yours is 0. "
            "Detach the memory itself, not its projections."
        )
        segment = torch.zeros(2, 4, 8, requires_grad=True)
        layer(segment, x[:, :3])[:, -1].sum().backward()
        assert segment.grad[:, 0].any(), (
            "The last output should give position 0 of x a gradient; yours is 0. Detach only the memory."
        )
        with expecting_value_error(
            "6 positions and a memory of 4 with max_length 9", "max_length", "memory", "x", "m", "n"
        ):
            layer(torch.zeros(1, 6, 8), torch.zeros(1, 4, 8))
        with expecting("5 positions and a memory of 4 should fit within max_length 9"):
            layer(torch.zeros(1, 5, 8), torch.zeros(1, 4, 8))
        with expecting_value_error("d_model 8 and n_heads 3", "d_model", "n_heads"):
            RecurrentAttention(8, 3, 4)
        print("RecurrentAttention: all visible checks pass.")

    check_RecurrentAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start from your `RelativeSelfAttention`. Concatenate the detached memory and x once, along the
# position axis. Compute keys and values from the result, but queries only from x. Which rows of
# `relative` belong to the distances 0, …, m + n − 1?
# </details>
#
# <details><summary>Hint 2</summary>
#
# `skew` needs a square matrix. Pad the logits (`b h n m+n`) with m rows at the top:
# `F.pad(logits, (0, 0, m, 0))`. Then apply `skew` and keep the last n rows. The mask consists of
# the last n rows of a square causal mask: `torch.ones(n, m + n).triu(m + 1)` is 1 at future
# positions.
# </details>

# %% [markdown]
# ### A language model that remembers
#
# Two small models read the Python manual from the first chapter in segments of 32 characters. One
# has a memory of 32 positions; the other has none.

# %% tags=["support"]
MEMORY_STEPS = 600
SEGMENT = 32
STREAMS = 32


# %%
class MemoryBlock(nn.Module):
    """A pre-norm block that also returns the input of its attention as memory for the next segment."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = RecurrentAttention(d_model, n_heads, 2 * SEGMENT)
        nn.init.normal_(self.attention.relative)  # smaller values train more slowly
        self.network = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Linear(4 * d_model, d_model),
        )

    def forward(
        self, x: Float[Tensor, "b n d"], memory: Float[Tensor, "b m d"] | None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        normed = self.norm(x)
        x = x + self.attention(normed, memory)
        return x + self.network(x), normed.detach()


# %% tags=["support"]
class SegmentModel(nn.Module):
    """A character-level language model that reads one segment at a time."""

    def __init__(self, d_model: int = 96, n_heads: int = 4, n_layers: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(len(TOPIC_SYMBOLS), d_model)
        self.blocks = nn.ModuleList(MemoryBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, len(TOPIC_SYMBOLS))
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(
        self, tokens: Int[Tensor, "b n"], memories: Sequence[Tensor | None]
    ) -> tuple[Float[Tensor, "b n d"], list[Tensor]]:
        """Return the normalised hidden states, and each block's memory for the next segment."""
        x, kept = self.embedding(tokens), []
        for block, memory in zip(self.blocks, memories, strict=True):
            x, inputs = block(x, memory)
            kept.append(inputs)
        return self.norm(x), kept


def segments(text: Int[Tensor, "n"]) -> list[Int[Tensor, "streams SEGMENT+1"]]:
    """Split a text into parallel streams, and return batches with one segment from each stream.

    Each segment ends with one extra character, the target for the last input.
    """
    length = (len(text) - 1) // STREAMS // SEGMENT * SEGMENT
    streams = text[: STREAMS * length + 1].unfold(0, length + 1, length)
    return list(streams.unfold(1, SEGMENT + 1, SEGMENT).unbind(1))


def train_segments(with_memory: bool, seed: int) -> SegmentModel:
    """Train a model on the manual for MEMORY_STEPS steps, with one segment per stream at each step."""
    torch.manual_seed(seed)
    model = SegmentModel()
    # OneCycleLR changes the first beta from 0.95 to 0.85 and back.
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.95, 0.99), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=MEMORY_STEPS, pct_start=0.1
    )
    none = [None] * len(model.blocks)
    memories, pieces = none, segments(TOPIC_TRAINING)
    name = "with memory" if with_memory else "without memory"
    for step in tqdm(range(MEMORY_STEPS), name, mininterval=0.5, file=sys.stdout):
        piece = pieces[step % len(pieces)]
        hidden, kept = model(piece[:, :-1], memories)
        memories = kept if with_memory else none
        loss = F.cross_entropy(model.output(hidden).flatten(0, 1), piece[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def read_text(
    model: SegmentModel, text: Int[Tensor, "n"], with_memory: bool
) -> tuple[Float[Tensor, "streams n d"], Int[Tensor, "streams n"]]:
    """Return the hidden state at each character and the character that follows it."""
    memories: Sequence[Tensor | None] = [None] * len(model.blocks)
    states, following = [], []
    for piece in segments(text):
        hidden, kept = model(piece[:, :-1], memories)
        memories = kept if with_memory else memories
        states.append(hidden)
        following.append(piece[:, 1:])
    return torch.cat(states, dim=1), torch.cat(following, dim=1)


@torch.no_grad()
def bits_by_position(model: SegmentModel, with_memory: bool) -> Float[Tensor, " SEGMENT"]:
    """Return the bits per held-out character at each position of a segment."""
    hidden, following = read_text(model, TOPIC_HELD_OUT, with_memory)
    log_p = model.output(hidden).log_softmax(dim=-1).gather(-1, following.unsqueeze(-1))
    return -log_p.reshape(STREAMS, -1, SEGMENT).mean(dim=(0, 1)) / math.log(2)


def compare_memory(seed: int) -> dict[str, float]:
    """Return the bits per held-out character with and without memory."""
    return {
        name: bits_by_position(train_segments(with_memory, seed), with_memory).mean().item()
        for name, with_memory in (("with memory", True), ("without memory", False))
    }


# %%
if __name__ == "__main__":
    predict("At which position of a segment (0 to 31) will the memory help most?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        segment_models = {
            "with memory": train_segments(True, seed=0),
            "without memory": train_segments(False, seed=0),
        }

# %%
if __name__ == "__main__":
    with demonstration():
        by_position = {
            name: bits_by_position(model, name == "with memory")
            for name, model in segment_models.items()
        }
        gain = by_position["without memory"] - by_position["with memory"]
        predict.reveal(
            "At which position of a segment (0 to 31) will the memory help most?",
            gain.argmax().item(),
        )
        for name, bits in by_position.items():
            record(f"bits per held-out character, {name}", bits.mean().item())
        figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
        for name, bits in by_position.items():
            axis.plot(bits, label=name)
        axis.set(xlabel="position in the segment", ylabel="bits per character")
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** With memory, the model needs 2.18–2.21 bits per character; without, 2.32–2.33
# (seeds 0–2). The first prediction of a segment gains most: it costs 2.29–2.35 bits with memory and
# 3.96–3.99 without. The last eight cost 2.16–2.18 and 2.19–2.21: most of the useful context is
# nearby.

# %% [markdown]
# ## `knn_probabilities`
# ★★★☆☆ · 25 minutes
#
# kNN-LM adds a *datastore* of N examples to a trained language model. Run the model over some text
# once. For each position, store the hidden state (the *key* κ) and the token that follows. To
# predict a token, look up the k keys nearest to the current hidden state q:
#
# $$p_\text{kNN}(y) \propto \sum_{(\kappa_i, y_i)\, \in\, k\text{ nearest}} \mathbb{1}[y_i = y]\;
# e^{-\lVert q - \kappa_i \rVert^2 / T}
# \qquad p = \lambda\, p_\text{kNN} + (1 - \lambda)\, p_\text{model}$$
#
# T and λ are the arguments `temperature` and `mix`.
#
# ![The three keys nearest to a query have the tokens s, s and t. Their weights add up to 0.7 for s
# and 0.3 for t. The model predicts 0.2, 0.3 and 0.5 for s, t and e. Mixing the two predictions
# with λ = 0.25 gives 0.325, 0.3 and 0.375.](figures/knn-store.svg)
#
# **The traps.** If several neighbours have the same token, add their weights. The exponent contains
# the *squared* distance. Apply softmax to the k neighbours, not to all keys.


# %%
def knn_probabilities(
    probabilities: Float[Tensor, "n v"],
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "N d"],
    tokens: Int[Tensor, " N"],
    k: int,
    temperature: float = 1.0,
    mix: float = 0.25,
) -> Float[Tensor, "n v"]:
    """Return mix · p_kNN + (1 − mix) · probabilities.

    p_kNN is the softmax of −‖query − key‖² / temperature over the k keys nearest to the query,
    summed per token. Gradients flow to probabilities, queries and keys.

    Args:
        probabilities: the predictions of the model.
        queries: one vector to look up per prediction.
        keys: the stored vectors. The result is finite for queries and keys with norms up to 1,000.
        tokens: the token that follows each key.
        k: the number of keys to use; if it is larger than N, all keys are used. If keys tie for the
            last place, you may use any or all of them.
        temperature: a number above 0.
        mix: the weight of p_kNN, between 0 and 1.

    Raises:
        ValueError: if k < 1, mix is outside [0, 1], or temperature ≤ 0. The message names the
            invalid argument.

    Source: Khandelwal et al. (2020), section 2; arXiv 2010.00710 for the temperature.
    """
    ### BEGIN SOLUTION
    if k < 1:
        raise ValueError(f"k is {k}, but it should be at least 1")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix is {mix}, but it should be between 0 and 1")
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}, but it should be above 0")
    # `cdist` does not support half precision.
    exact = torch.promote_types(keys.dtype, torch.float32)
    distances = torch.cdist(queries.to(exact), keys.to(exact))  # n N
    nearest = distances.topk(min(k, len(keys)), largest=False)
    weights = (-nearest.values.square() / temperature).softmax(dim=-1)  # n k
    by_token = torch.zeros(probabilities.shape, dtype=exact, device=keys.device)
    by_token = by_token.scatter_add(1, tokens[nearest.indices], weights)
    return (mix * by_token + (1 - mix) * probabilities).to(probabilities.dtype)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_knn_probabilities():
        # With T = 1 / ln 2, the unnormalised weight of a neighbour at distance r is 2^(−r²).
        keys = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 0.0], [2.0, 0.0]])
        tokens = torch.tensor([0, 2, 2, 1])
        p = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
        queries = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
        half = 1 / torch.tensor(2.0).log().item()
        with expecting("Two queries, four keys and k = 2 should work"):
            seen = knn_probabilities(p, queries, keys, tokens, 2, half, mix=1.0)
        assert seen is not None, "knn_probabilities returns None. Does it end with `return`?"
        assert seen.shape == (2, 3), f"The shape should be (2, 3); yours is {tuple(seen.shape)}."
        # Query 0: keys 1 and 2, both with token 2. Query 1: r² = 2 (token 0) and 4 (token 2).
        expected = torch.tensor([[0.0, 0.0, 1.0], [0.8, 0.0, 0.2]])
        assert torch.allclose(seen, expected, atol=1e-4), (
            f"With k = 2 and mix 1, the result should be\n{expected}\nyours is\n{seen}\n"
            "The distances of query 0 are √2, 0, 1, 2, and its two nearest keys both have token 2. "
            "The distances of query 1 are √2, 2, √5, √8."
        )
        seen = knn_probabilities(p, queries, keys, tokens, 2, half)
        expected = torch.tensor([[0.375, 0.1875, 0.4375], [0.2, 0.75, 0.05]])
        assert torch.allclose(seen, expected, atol=1e-4), (
            f"With the default mix of 0.25, the result should be\n{expected}\nyours is\n{seen}"
        )
        seen = knn_probabilities(p, queries, keys, tokens, 2, 2 * half, mix=1.0)
        assert torch.allclose(seen[1], torch.tensor([2 / 3, 0, 1 / 3]), atol=1e-4), (
            "At twice the temperature, query 1 should give 2/3, 0, 1/3; "
            f"yours gives {seen[1].tolist()}. Where do you divide by the temperature?"
        )
        with expecting("k = 9 should use all 4 keys"):
            seen = knn_probabilities(p, queries, keys, tokens, 9, half, mix=1.0)
        # Query 0: 1/4 (token 0), 1 + 1/2 (token 2), 1/16 (token 1).
        assert torch.allclose(seen[0], torch.tensor([4, 1, 24]) / 29, atol=1e-4), (
            f"With k = 9, all 4 keys count, so query 0 should give 4/29, 1/29, 24/29; yours gives {seen[0]}."
        )
        far = knn_probabilities(p, queries * 400, keys * 400, tokens, 4, 0.1, mix=1.0)
        assert torch.allclose(far, torch.tensor([[0.0, 0, 1], [1, 0, 0]]), atol=1e-4), (
            f"If keys are far apart, the nearest one should get all the weight; your result is\n{far}"
        )
        asked = queries.clone().requires_grad_()
        knn_probabilities(p, asked, keys, tokens, 3)[:, 0].sum().backward()
        assert asked.grad is not None, "No gradient reaches the queries."
        assert asked.grad.isfinite().all(), (
            f"The gradient of the queries should be finite; yours is\n{asked.grad}\n"
            "Query 0 equals key 1, so their distance is 0, where a square root has no finite derivative."
        )
        halves = (part.half() for part in (p, queries, keys))
        with expecting("float16 should work", "`cdist` supports only float32 and float64."):
            seen = knn_probabilities(*halves, tokens, 9, half)
        assert seen.dtype == torch.float16, (
            f"float16 inputs should give a float16 result; yours is {seen.dtype}."
        )
        for name, arguments in (
            ("k", (0, 1.0, 0.5)),
            ("mix", (1, 1.0, 1.5)),
            ("mix", (1, 1.0, -0.1)),
            ("temperature", (1, 0.0, 0.5)),
        ):
            with expecting_value_error(f"k, temperature, mix = {arguments}", name):
                knn_probabilities(p, queries, keys, tokens, *arguments)
        print("knn_probabilities: all visible checks pass.")

    check_knn_probabilities()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.cdist` returns all distances (`n N`), and `topk(…, largest=False)` returns the smallest
# ones and their indices. `tokens[indices]` then gives the tokens of the neighbours (`n k`).
# </details>
#
# <details><summary>Hint 2</summary>
#
# Normalise the k weights with softmax. `torch.zeros(n, v).scatter_add(1, tokens_of_neighbours,
# weights)` adds each weight to the column of its token. `topk` fails if k is larger than N, and
# `cdist` does not support half precision.
# </details>

# %% [markdown]
# ### A language model with a datastore
#
# The next cell runs the model with memory over its training text. It stores the hidden state and
# next character at 40,000 positions, then predicts 512 held-out characters with and without the
# datastore.

# %% tags=["support"]
STORE = 40_000
NEIGHBOURS = 16
LOOKUPS = 512


class Datastore(NamedTuple):
    """Hidden states, the tokens that follow them, and the positions of these tokens in the training text."""

    keys: Float[Tensor, "N d"]
    tokens: Int[Tensor, "N"]
    places: Int[Tensor, "N"]


def build_store(model: SegmentModel) -> Datastore:
    """Read the training text, and store STORE random positions."""
    keys, tokens = read_text(model, TOPIC_TRAINING, True)
    streams, length = tokens.shape
    places = torch.arange(streams * length) + 1  # the streams are consecutive parts of the text
    rows = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:STORE]
    return Datastore(keys.flatten(0, 1)[rows], tokens.flatten()[rows], places[rows])


@torch.no_grad()
def bits_with_store(
    model: SegmentModel, store: Datastore, mixes: Sequence[float], temperature: float = 3.0
) -> list[float]:
    """Return the bits per held-out character for each weight λ of the datastore."""
    queries, following = (part.flatten(0, 1) for part in read_text(model, TOPIC_HELD_OUT, True))
    rows = torch.linspace(0, len(queries) - 1, LOOKUPS).long()
    queries, following = queries[rows], following[rows]
    probabilities = model.output(queries).softmax(dim=-1)
    batches = list(zip(probabilities.split(8), queries.split(8), strict=True))
    found = torch.cat(
        [
            knn_probabilities(p, q, store.keys, store.tokens, NEIGHBOURS, temperature, mix=1.0)
            for p, q in tqdm(batches, "looking up", mininterval=0.5, file=sys.stdout)
        ]
    )
    bits = []
    for mix in mixes:
        p = (mix * found + (1 - mix) * probabilities).gather(1, following.unsqueeze(1))
        bits.append(-p.log2().mean().item())
    return bits


# %%
if __name__ == "__main__":
    with demonstration():
        mixes = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
        store = build_store(segment_models["with memory"])
        with_store = bits_with_store(segment_models["with memory"], store, mixes)
        record("bits per held-out character, without a datastore", with_store[0])
        record("bits per held-out character, with a datastore, λ = 0.2", with_store[2])
        figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
        axis.plot(mixes, with_store, "o-")
        axis.set(xlabel="λ, the weight of the datastore", ylabel="bits per character")
        plt.show()

# %% [markdown]
# **What to notice.** On these characters, the model alone needs 2.03–2.11 bits per character (seeds
# 0–2). Without further training, the datastore saves 0.07–0.11 bits with λ = 0.2 and 0.08–0.12 with
# λ = 0.3.

# %% [markdown]
# ### Your experiment: what the datastore finds
#
# Begin a sentence about Python, in `my_text`, and put the character that should come next into
# `my_next`. The cell prints the 16 nearest contexts and the character that follows each.

# %%
if __name__ == "__main__":
    predict("How many of the 16 nearest contexts will be followed by your next character?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        my_text, my_next = "A list is a mutable ", "s"
        with torch.no_grad():
            hidden, _ = segment_models["with memory"](
                topic_tokens(my_text[-SEGMENT:]).unsqueeze(0), [None, None]
            )
        nearest = (store.keys - hidden[0, -1]).norm(dim=1).topk(NEIGHBOURS, largest=False).indices
        predict.reveal(
            "How many of the 16 nearest contexts will be followed by your next character?",
            (store.tokens[nearest] == topic_tokens(my_next)).sum().item(),
        )
        for place in store.places[nearest].tolist():
            context = topic_text(TOPIC_TRAINING[max(0, place - SEGMENT) : place + 1])
            print(f"{context[:-1]!r} → {context[-1]!r}")

# %% [markdown]
# ## `performer_features`
# ★★★☆☆ · 20 minutes
#
# The Performer is linear attention with a random φ: φ(q) · φ(k) *estimates* the exponential in
# softmax attention. For q and k with d features and a standard normal vector ω,
#
# $$e^{q \cdot k / \sqrt d} = \mathbb{E}_\omega\bigl[f_\omega(q)\, f_\omega(k)\bigr] \qquad
# f_\omega(x) = \exp\!\left(\frac{\omega \cdot x}{d^{1/4}} - \frac{\lVert x \rVert^2}{2 \sqrt d}\right)$$
#
# The estimate is the mean over r rows ω₁, …, ω_r (`projection`, `r d`):
#
# $$\varphi(x) = \tfrac{1}{\sqrt r}\bigl(f_{\omega_1}(x), \dots, f_{\omega_r}(x)\bigr)
# \qquad x: *\text{batch} \times n \times d, \quad \varphi(x): *\text{batch} \times n \times r$$
#
# **The traps.** φ is applied to both query and key, so divide x by d^¼, not by √d, and the result by
# √r, not by r. Use the norm of x, not of ω. Many implementations subtract the largest exponent for
# stability, but yours should not.


# %%
def performer_features(
    x: Float[Tensor, "*batch n d"], projection: Float[Tensor, "r d"]
) -> Float[Tensor, "*batch n r"]:
    """Return the positive random features exp(ω · x / d^¼ − ‖x‖² / (2√d)) / √r of the Performer.

    For standard normal rows ω, features(q) · features(k) is an unbiased estimate of exp(q · k / √d).
    Many implementations subtract a constant from the exponents for stability; this function does not.

    Args:
        x: queries or keys.
        projection: the rows ω, one per feature.

    Source: Choromanski et al. (2021), section 2.3.
    """
    ### BEGIN SOLUTION
    scaled = x * x.shape[-1] ** -0.25
    half_norm = scaled.square().sum(dim=-1, keepdim=True) / 2
    return (scaled @ projection.mT - half_norm).exp() * len(projection) ** -0.5
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_performer_features():
        # d = 16, so d^¼ = 2 and √d = 4. Row 0: ω · x / 2 = 1, ‖x‖² / 8 = 0.5.
        x = torch.zeros(1, 16)
        x[0, :4] = 1.0
        projection = torch.zeros(4, 16)
        projection[0, 0] = 2.0
        projection[1, 1] = -2.0
        projection[2, 2] = projection[2, 3] = 2.0
        with expecting("x of shape (1, 16) and a projection of shape (4, 16) should work"):
            seen = performer_features(x, projection)
        assert seen is not None, "performer_features returns None. Does it end with `return`?"
        assert seen.shape == (1, 4), f"The shape should be (1, 4); yours is {tuple(seen.shape)}."
        expected = torch.tensor([[0.5, -1.5, 1.5, -0.5]]).exp() / 2
        assert torch.allclose(seen, expected, atol=1e-4), (
            f"With d = 16 and r = 4, the features should be\n{expected}\nyours are\n{seen}\n"
            "The exponents are 1 − 0.5, −1 − 0.5, 2 − 0.5 and 0 − 0.5."
        )
        with expecting("Leading axes (2, 3) should work"):
            many = performer_features(fixed_numbers(2, 3, 5, 6), fixed_numbers(7, 6))
        assert many.shape == (2, 3, 5, 7), (
            f"The shape should be (2, 3, 5, 7), not {tuple(many.shape)}."
        )
        one = performer_features(fixed_numbers(2, 3, 5, 6)[1, 2], fixed_numbers(7, 6))
        assert torch.allclose(many[1, 2], one, atol=1e-5), (
            "Each row should have the same features in a batch as on its own; yours differ."
        )
        torch.manual_seed(0)
        query, key, rows = torch.randn(3, 4) / 2, torch.randn(5, 4) / 2, torch.randn(50_000, 4)
        estimate = performer_features(query, rows) @ performer_features(key, rows).T
        exact = (query @ key.T / 2).exp()
        assert torch.allclose(estimate, exact, rtol=0.05), (
            f"With 50,000 features, the estimate of exp(q · k / √d) should be within 5% of\n{exact}\n"
            f"yours is\n{estimate}"
        )
        print("performer_features: all visible checks pass.")

    check_performer_features()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First divide x by d^¼. For the scaled x, the exponent is ω · x − ‖x‖² / 2.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x @ projection.mT` computes all ω · x at once (`*batch n r`). For the squared norm, sum the
# squares over the last axis with `keepdim=True`. The number of features r is `len(projection)`.
# </details>

# %% tags=["support"]
FEATURES = (8, 32, 128, 512, 2048)


def performer_errors(r: int, scale: float, repetitions: int = 20) -> Float[Tensor, " repetitions"]:
    """Return the relative errors of attention with r features, for several draws of ω.

    `scale` is the standard deviation of queries and keys.
    """
    generator = torch.Generator().manual_seed(r)
    query, key, value = torch.randn(3, 64, 16, generator=generator)
    query, key = scale * query, scale * key
    exact = (query @ key.T / 4).softmax(dim=-1) @ value
    errors = []
    for _ in range(repetitions):
        rows = torch.randn(r, 16, generator=generator)
        weights = performer_features(query, rows) @ performer_features(key, rows).T
        estimate = weights / weights.sum(dim=-1, keepdim=True) @ value
        errors.append((estimate - exact).norm() / exact.norm())
    return torch.stack(errors)


# %%
if __name__ == "__main__":
    with demonstration():
        errors = {
            scale: torch.stack([performer_errors(r, scale) for r in FEATURES])
            for scale in (0.5, 1.0)
        }
        figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
        for scale, error in errors.items():
            for r in (32, 2048):
                name = f"relative error, {r} features, queries and keys with standard deviation {scale:g}"
                record(name, error[FEATURES.index(r)].mean().item())
            axis.errorbar(
                FEATURES,
                error.mean(dim=1),
                error.std(dim=1),
                fmt="o-",
                capsize=3,
                label=f"standard deviation {scale:g}",
            )
        axis.set(xscale="log", yscale="log", xlabel="features r", ylabel="relative error")
        axis.legend(title="queries and keys")
        plt.show()

# %% [markdown]
# **What to notice.** If queries and keys have standard deviation ½, the relative error of attention
# falls roughly as 1/√r. It is 0.44 with 32 features and 0.06 with 2,048 (mean over 20 draws of ω).
# With standard deviation 1, it is still 0.76 with 2,048 features: the variance grows exponentially
# with the squared norms.

# %% [markdown]
# **Read.** [Dai et al. 2019](https://arxiv.org/abs/1901.02860), section 3. [Khandelwal et al.
# 2020](https://arxiv.org/abs/1911.00172), section 2. [Choromanski et al.
# 2021](https://arxiv.org/abs/2009.14794), section 2. [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Longer Context".
#
# **Discuss.**
#
# 1. A model with L layers reads segments of n positions, with a memory of one segment per layer.
#    From how far back can information reach the last position of a segment?
# 2. Why does kNN-LM not help with a sentence unlike anything in its datastore?
#
# <details><summary>Answers</summary>
#
# 1. Information can come from about L · n positions before the segment, because each layer reaches
#    one segment further back than the layer below. No gradient flows along this path, so the model
#    is not trained to store information for later segments.
# 2. Even the nearest neighbours of such a sentence are far away, so their tokens are not
#    informative. A constant `mix` still gives p_kNN its usual weight. Later methods make `mix`
#    depend on the distances.
# </details>
