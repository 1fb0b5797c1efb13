# %% [markdown]
# # Masking
#
# Attention as you have it looks at everything. Two kinds of keys must not be seen:
#
# * **padding**: sentences of different length are filled up to one length to fit into a tensor,
#   and what they are filled with means nothing;
# * **the future**: a model that writes a text from left to right is trained on whole texts at
#   once. Position i must predict what comes next from what came before. If it could look ahead it
#   would copy the answer, train to a loss near 0, and be unable to write.
#
# Both are said with a **mask**: a boolean tensor of the shape of the scores, or one that
# broadcasts to it. In this course, as in `F.scaled_dot_product_attention`, **True means that
# attention is allowed.**
#
# ```
#   padding_mask        causal_mask         decoder_mask      queries downwards,
#   a b c PAD           a b c d             a b c PAD         keys to the right;
#   # # # .             # . . .             # . . .           # is allowed,
#                       # # . .             # # . .           . is not
#   (one row for        # # # .             # # # .
#    all queries)       # # # #             # # # .
# ```
#
# Source: Vaswani et al., *Attention Is All You Need* (2017), section 3.2.3.

# %%
import math

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solutions.day1.attention import attention_scores, letter_features, softmax
from solutions.opening import demonstration

# %% [markdown]
# ## `padding_mask`
# ★☆☆☆☆ · 5 minutes · 3 points
#
# A batch of sentences is one integer tensor `(b, m)`; the places beyond the end of a sentence
# hold the number `pad_id`. The mask has to be False there.
#
# $$
# \mathrm{mask}_{b,1,j} = \bigl(\mathrm{tokens}_{b,j} \ne \mathrm{pad}\bigr)
# \qquad \mathrm{tokens}: b \times m, \quad \mathrm{mask}: b \times 1 \times m
# $$
#
# The axis of size 1 stands where the scores `(b, n, m)` have their queries: the same keys are
# padding for every query.
#
# **The trap.** That axis has a place. Without it, `(b, m)` would broadcast against `(b, n, m)` as
# if its *first* axis were the queries; where b happens to equal n this raises no error, and masks
# one sentence with the padding of another. And nothing says that padding is 0, or stands at the
# end.


# %%
def padding_mask(tokens: Int[Tensor, "b m"], pad_id: int) -> Bool[Tensor, "b 1 m"]:
    """Return a mask that is True at real tokens and False at padding, wherever it stands.

    Args:
        tokens: token ids.
        pad_id: the id of padding, any integer; it need not occur.
    """
    ### BEGIN SOLUTION
    return (tokens != pad_id).unsqueeze(1)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_padding_mask():
        tokens = torch.tensor([[8, 3, 8, 9], [9, 9, 0, 5]])
        mask = padding_mask(tokens, 9)
        assert mask is not None, "padding_mask returns nothing; did you forget `return`?"
        assert mask.shape == (2, 1, 4), (
            f"tokens (2, 4) give a mask of shape (2, 1, 4), yours is {tuple(mask.shape)}"
        )
        assert mask.dtype == torch.bool, f"the mask should be boolean, yours is {mask.dtype}"
        expected = [[[True, True, True, False]], [[False, False, True, True]]]
        assert mask.tolist() == expected, (
            f"pad_id 9 in\n{tokens.tolist()}\nshould give\n{expected}\nyours is\n{mask.tolist()}"
        )
        assert padding_mask(tokens, -1).all(), "no token is -1, so with pad_id -1 all are real"
        print("padding_mask: the visible checks hold.")

    check_padding_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Comparing a tensor with a number compares every entry and gives a boolean tensor of the same
# shape. No loop is needed.
# </details>
#
# <details><summary>Hint 2</summary>
#
# What is left is to put an axis of size 1 between the two others: look at `unsqueeze`, or at
# indexing with `None`.
# </details>

# %% [markdown]
# **What to notice.** The mask says which *keys* may be seen. Nothing is said about padded
# queries: their outputs are computed and mean nothing, and the loss will leave them out. Polarity
# is no law of nature: `key_padding_mask` of `nn.MultiheadAttention` is True where attention is
# *forbidden*. Whenever you meet a mask, ask first what True means.

# %% [markdown]
# ## `causal_mask`
# ★☆☆☆☆ · 5 minutes · 3 points
#
# While a model learns, the whole text lies before it; this mask hides from every position what it
# is to predict. When it writes, later positions do not exist yet, so that it sees the same.
#
# $$\mathrm{mask}_{i,j} = (j \le i) \qquad \mathrm{mask}: n \times n$$
#
# Row i says what position i may see: itself and everything before.
#
# **The trap.** Rows or columns, < or ≤: each of the four combinations is a triangle, and one is
# right. A position must see itself: the first one has nothing else to look at. That gives nothing
# away, for what a position has to predict is not its own token but the next one: the training
# loop shifts the targets by one.
#
# `nn.Transformer.generate_square_subsequent_mask` is not allowed.


# %%
def causal_mask(n: int, device: torch.device | str | None = None) -> Bool[Tensor, "n n"]:
    """Return a mask that is True at (i, j) where j ≤ i.

    Args:
        n: how many positions; 0 and 1 are allowed.
        device: where the mask is made; None is torch's default.
    """
    ### BEGIN SOLUTION
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_causal_mask():
        mask = causal_mask(3)
        assert mask is not None, "causal_mask returns nothing; did you forget `return`?"
        assert mask.shape == (3, 3), f"the shape should be (3, 3), yours is {tuple(mask.shape)}"
        assert mask.dtype == torch.bool, f"the mask should be boolean, yours is {mask.dtype}"
        assert mask[2, 0], "position 2 should see position 0, which is its past (row 2, column 0)"
        assert not mask[0, 2], "position 0 should not see position 2, which is its future"
        assert mask.diagonal().all(), "every position should see itself"
        assert mask.sum() == 6, f"6 pairs of 3 positions are allowed, yours allows {mask.sum()}"
        assert causal_mask(0).shape == (0, 0), "n = 0 should give an empty mask of shape (0, 0)"
        there = causal_mask(2, device="meta").device.type
        assert there == "meta", f"device='meta' should put the mask there, yours is on {there}"
        print("causal_mask: the visible checks hold.")

    check_causal_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The allowed pairs are the diagonal and all below it. torch can make a matrix of ones, and can
# cut a triangle out of a matrix; its functions that make tensors take `dtype` and `device`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Another way is to write the formula down: positions as a column (i) compared with positions as a
# row (j); broadcasting makes the matrix. That is worth knowing for masks that are no triangles.
# </details>

# %% [markdown]
# **What to notice.** With this mask one pass over a text of n tokens gives n predictions, each
# from a past of another length. That is why Transformers train so much faster than they write:
# writing is one position after the other. The device `meta` holds shapes without values; it is a
# cheap way to see that code puts its tensors where it was told to.

# %% [markdown]
# ## `decoder_mask`
# ★★☆☆☆ · 5 minutes · 3 points
#
# A decoder reads a padded batch of texts from left to right, so both rules hold at once.
#
# $$
# \mathrm{mask}_{b,i,j} = (j \le i) \wedge \bigl(\mathrm{tokens}_{b,j} \ne \mathrm{pad}\bigr)
# \qquad \mathrm{mask}: b \times n \times n
# $$
#
# **The trap.** Only *keys* are masked: a row is not emptied because its query is padding. (A row
# may be empty all the same: which one? The last exercise of this chapter must survive it.) And on
# a GPU a mask that was made on the CPU cannot be combined with one that lives with the tokens.
#
# `nn.Transformer.generate_square_subsequent_mask` is not allowed.


# %%
def decoder_mask(tokens: Int[Tensor, "b n"], pad_id: int) -> Bool[Tensor, "b n n"]:
    """Return a mask that is True at (i, j) where j ≤ i and token j is not padding.

    The mask is on the device of `tokens`.
    """
    ### BEGIN SOLUTION
    return padding_mask(tokens, pad_id) & causal_mask(tokens.shape[1], tokens.device)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_decoder_mask():
        tokens = torch.tensor([[6, 2, 1], [1, 7, 7]])
        mask = decoder_mask(tokens, 1)
        assert mask is not None, "decoder_mask returns nothing; did you forget `return`?"
        assert mask.shape == (2, 3, 3), (
            f"tokens (2, 3) give a mask of shape (2, 3, 3), yours is {tuple(mask.shape)}"
        )
        assert mask.dtype == torch.bool, f"the mask should be boolean, yours is {mask.dtype}"
        padded_behind = [[True, False, False], [True, True, False], [True, True, False]]
        assert mask[0].tolist() == padded_behind, (
            f"tokens [6, 2, 1] with pad_id 1 should give\n{padded_behind}\n"
            f"yours is\n{mask[0].tolist()}"
        )
        padded_in_front = [[False, False, False], [False, True, False], [False, True, True]]
        assert mask[1].tolist() == padded_in_front, (
            f"tokens [1, 7, 7] with pad_id 1 should give\n{padded_in_front}\n"
            f"yours is\n{mask[1].tolist()}"
        )
        print("decoder_mask: the visible checks hold.")

    check_decoder_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You have both halves. Write their shapes below each other, aligned at the right: what does
# broadcasting make of them?
# </details>
#
# <details><summary>Hint 2</summary>
#
# "And" of boolean tensors is `&`. The tokens know their length and their `device`.
# </details>

# %% [markdown]
# **What to notice.** Broadcasting did the work: `(b, 1, n)` and `(n, n)` make `(b, n, n)`. If
# padding stands in front, the first rows allow nothing at all.

# %% [markdown]
# ## `masked_attention`
# ★★★☆☆ · 25 minutes · 8 points
#
# This is the attention that every layer of the Transformer will call. For each query let $A_i$ be
# the set of keys that the mask allows.
#
# $$
# W_{ij} = \begin{cases}
# \dfrac{\exp S_{ij}}{\sum_{k \in A_i} \exp S_{ik}} & j \in A_i \\ 0 & \text{otherwise}
# \end{cases}
# \qquad O = W\,V \qquad S, W: n \times m, \quad O: n \times d_v
# $$
#
# A key that is not allowed gets a weight of exactly 0, however well it fits, and does not count
# in the sum. A query that may attend to nothing has nothing to take a mean of: its weights are 0
# and its output is 0.
#
# **The traps.**
#
# * The mask has to act before the sum is taken: weights put to 0 *afterwards* no longer sum to 1.
# * A score of 0 is an ordinary score, even a good one. It is not "nothing".
# * A "large negative number" has to be large compared with every score that occurs, and float16
#   ends at −65,504.
# * For a row without any allowed key the formula is 0/0. NaN spreads: from one weight to the
#   output, through the backward pass to every parameter. And a NaN that is replaced in the result
#   only may come back in the gradient.
#
# `scaled_dot_product_attention`, `MultiheadAttention` and `flex_attention` are not allowed.


# %%
def masked_attention(
    query: Float[Tensor, "*batch n d"],
    key: Float[Tensor, "*batch m d"],
    value: Float[Tensor, "*batch m d_v"],
    mask: Bool[Tensor, "*#batch #n #m"] | None = None,
) -> tuple[Float[Tensor, "*batch n d_v"], Float[Tensor, "*batch n m"]]:
    """Return attention in which each query sees only the keys that the mask allows.

    Leading axes of query, key and value broadcast, as in `attention`. Right in half precision, too.

    Args:
        mask: True where attention is allowed, broadcastable to the weights; None allows
            everything.

    Returns:
        the pair (output, weights). Keys that are not allowed have weights of exactly 0; a query
        that may attend to nothing has weights 0 and output 0. There is no NaN, in the gradients
        of query, key and value either.

    Source: Vaswani et al. (2017), sections 3.2.1 and 3.2.3.
    """
    ### BEGIN SOLUTION
    scores = attention_scores(query, key)
    if mask is None:
        weights = softmax(scores, dim=-1)
    else:
        # A row of nothing but −inf would be NaN, forwards and backwards. Such rows keep their
        # scores, and lose all their weights below.
        fill = ~mask & mask.any(dim=-1, keepdim=True)
        weights = softmax(scores.masked_fill(fill, -math.inf), dim=-1).masked_fill(~mask, 0.0)
    return weights @ value, weights
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_masked_attention():
        query = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], requires_grad=True)
        key = torch.tensor([[900.0, 900.0], [3.0, 3.0], [3.0, 3.0], [-5.0, -5.0]])
        value = torch.tensor([[100.0], [4.0], [6.0], [-7.0]])
        mask = torch.tensor([[False, True, True, False], [False, False, False, True], [False] * 4])
        result = masked_attention(query, key, value, mask)
        assert isinstance(result, tuple | list), (
            f"masked_attention should return (output, weights), yours is a {type(result).__name__}"
        )
        output, weights = result
        assert output.shape == (3, 1), (
            f"the output should be (3, 1), yours is {tuple(output.shape)}"
        )
        assert weights.shape == (3, 4), (
            f"the weights should be (3, 4), yours {tuple(weights.shape)}"
        )
        assert not weights.isnan().any(), f"there is NaN in the weights:\n{weights.detach()}"
        assert (weights[~mask] == 0).all(), (
            f"forbidden keys should have weights of exactly 0; with the mask\n{mask}\n"
            f"yours has the weights\n{weights.detach()}"
        )
        expected = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0] * 4])
        assert torch.allclose(weights, expected, atol=1e-5), (
            f"the weights should be\n{expected}\n(the first key fits best, but is forbidden)\n"
            f"yours are\n{weights.detach()}"
        )
        assert torch.allclose(output[:, 0], torch.tensor([5.0, -7.0, 0.0]), atol=1e-4), (
            f"the output should be 5, -7 and 0, yours is {output[:, 0].tolist()}"
        )
        output.sum().backward()
        assert query.grad.isfinite().all(), f"the gradient of the query is\n{query.grad}"
        with torch.no_grad():
            # d is 4, so these scores are log 3, 0 and 0.
            one, keys = torch.zeros(1, 4), torch.zeros(3, 4)
            one[0, 0], keys[0, 0] = 2.0, math.log(3.0)
            weights = masked_attention(one, keys, torch.ones(3, 2))[1]
            assert torch.allclose(weights, torch.tensor([[0.6, 0.2, 0.2]])), (
                "for scores log 3, 0, 0 without a mask the weights should be 3/5, 1/5, 1/5, "
                f"yours are {weights}"
            )
            weights = masked_attention(
                one, keys, torch.ones(3, 2), torch.tensor([True, True, False])
            )[1]
            assert torch.allclose(weights, torch.tensor([[0.75, 0.25, 0.0]])), (
                "for scores log 3, 0, 0 without the last key they should be 3/4, 1/4, 0, "
                f"yours are {weights}"
            )
            batch = masked_attention(query.expand(2, 3, 2), key, value, mask[:2, None])
            assert (batch[1][~mask[:2, None].expand(2, 3, 4)] == 0).all(), (
                "a mask of shape (2, 1, 4) should serve all 3 queries of its sentence"
            )
        print("masked_attention: the visible checks hold.")

    check_masked_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Your `softmax` already gives a weight of exactly 0 to one kind of score, and leaves it out of
# the sum. Look at `masked_fill` or `torch.where`, and mind which way round the mask is.
# </details>
#
# <details><summary>Hint 2</summary>
#
# First make sure that every row on which softmax works has a finite score, then put the weights
# of the other rows to 0. Rows without any allowed key are found by a reduction of the mask along
# the keys (with `keepdim=True`, so that it broadcasts). What softmax sees in those rows does not
# matter, as long as it is finite: you throw the result away.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Two sentences, the shorter one filled up; features are the letters of the words.
        texts = [
            ["she", "sells", "sea", "shells"],
            ["sea", "shells", "<pad>", "<pad>"],
        ]
        vocabulary = ["<pad>", "she", "sells", "sea", "shells"]
        tokens = torch.tensor([[vocabulary.index(word) for word in text] for text in texts])
        features = torch.stack([letter_features(text) for text in texts])
        query = 20 * features
        masks = {
            "everything allowed": torch.ones(2, 4, 4, dtype=torch.bool),
            "padding_mask": padding_mask(tokens, 0).expand(2, 4, 4),
            "causal_mask": causal_mask(4).expand(2, 4, 4),
            "decoder_mask": decoder_mask(tokens, 0),
        }
        weights = {
            title: masked_attention(query, features, features, mask)[1]
            for title, mask in masks.items()
        }
        figure, axes = plt.subplots(2, 4, figsize=(11, 6), layout="constrained")
        for column, (title, mask) in zip(axes.T, masks.items(), strict=True):
            for axis, words, w, allowed in zip(column, texts, weights[title], mask, strict=True):
                axis.imshow(w, cmap="Blues", vmin=0, vmax=1)
                for i, j in (~allowed).nonzero().tolist():
                    axis.text(j, i, "×", ha="center", va="center", color="grey")
                axis.set_xticks(range(4), words, rotation=60, ha="right")
                axis.set_yticks(range(4), words)
            column[0].set_title(title)
        plt.show()

# %%
if __name__ == "__main__":
    with demonstration():
        # Change the last word only. Which outputs notice?
        before = letter_features(["she", "sells", "sea", "shells"])
        after = letter_features(["she", "sells", "sea", "urchins"])
        masks = {"no mask": None, "causal_mask": causal_mask(4)}
        print("largest change of the output of each position, when only the last word changes")
        for name, mask in masks.items():
            first, _ = masked_attention(20 * before, before, before, mask)
            second, _ = masked_attention(20 * after, after, after, mask)
            changes = (first - second).abs().amax(dim=-1)
            print(f"{name:<12}", "  ".join(f"{change:.3f}" for change in changes.tolist()))

# %% [markdown]
# **What to notice.**
#
# * A cross marks a forbidden pair. Forbid some keys, and the others of the row share the whole
#   unit among them: their weights grow.
# * Without a mask words give weight to `<pad>`, and the result depends on how much padding there
#   is. The rows of `<pad>` itself are computed, too; nobody will use them.
# * The second cell is the best test of a decoder: change a future token, and nothing before it
#   may move, not even by rounding. A loss that goes down proves little, for models with leaking
#   masks train very well.
