# %% [markdown]
# # Masking
#
# *Chapter 2 of 7*
#
# So far, every query attends to every key. Two kinds of keys have to be hidden:
#
# * **Padding.** Sequences in a batch are padded to the same length. Padding tokens carry no
#   information.
# * **The future.** During training, the decoder gets the whole target at once. Position i has to
#   predict the next token from the tokens up to i. If it could look ahead, it would simply copy the
#   answer.
#
# A **mask** is a boolean tensor that broadcasts to the scores. In this course, as in
# `F.scaled_dot_product_attention`, **True means that attention is allowed.**
#
# ![Three masks for the tokens the, sea, shore and pad. The padding mask is a single row that hides the
# key pad. The causal mask allows the diagonal and everything below it. The decoder mask allows only
# what both other masks allow.](figures/masks.svg)
#
# In today's example, the causal mask lets *red* see only itself. *Blue* has the scores 0 and 0.71,
# so its weights are 1/(1 + 2.03) = 0.33 and 0.67. *Purple* comes last, so it sees all three tokens.
#
# ![The scores of red, blue and purple, before and after the causal mask is applied. The rows of
# weights are (1, 0, 0), (0.33, 0.67, 0) and (0.25, 0.25, 0.50). The outputs are (1, 0), (0.33,
# 0.67) and (0.75, 0.75).](figures/mask.svg)

# %%
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solutions.day1.attention import attention_scores, letter_features, softmax
from solutions.opening import (
    demonstration,
    expecting,
    fixed_numbers,
    look,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## `padding_mask`
# ★☆☆☆☆ · 5 minutes
#
# A batch with m tokens per sequence is an integer tensor of shape `(b, m)`. Padding tokens have the
# id `pad_id`. For sequence s and key j:
#
# $$
# \mathrm{mask}_{s,0,j} = \bigl(\mathrm{tokens}_{s,j} \ne \mathrm{pad}\bigr)
# \qquad \mathrm{tokens}: b \times m, \quad \mathrm{mask}: b \times 1 \times m
# $$
#
# The axis of size 1 broadcasts over the query axis of the scores `(b, n, m)`: the same keys are
# hidden from every query.
#
# **The trap.** Without this axis, broadcasting aligns b with the query axis. If b equals n, there
# is no error, and sequences are masked by each other's padding. Padding may have any id and may be
# anywhere in the sequence.


# %%
def padding_mask(tokens: Int[Tensor, "b m"], pad_id: int) -> Bool[Tensor, "b 1 m"]:
    """Return a mask that is False at padding tokens, wherever they are, and True elsewhere.

    Args:
        tokens: token ids.
        pad_id: the id of padding tokens. It can be any integer and need not occur in `tokens`.
    """
    ### BEGIN SOLUTION
    return (tokens != pad_id).unsqueeze(1)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_padding_mask():
        tokens = torch.tensor([[8, 3, 8, 9], [9, 9, 0, 5]])
        mask = padding_mask(tokens, 9)
        assert mask is not None, "padding_mask returns None. Does it end with `return`?"
        assert mask.shape == (2, 1, 4), (
            "Tokens of shape (2, 4) should give a mask of shape (2, 1, 4); yours has shape "
            f"{tuple(mask.shape)}. The axis of size 1 is for the queries."
        )
        assert mask.dtype == torch.bool, (
            f"The mask should be boolean; yours has dtype {mask.dtype}."
        )
        expected = [[[True, True, True, False]], [[False, False, True, True]]]
        assert mask.tolist() == expected, (
            f"With pad_id 9, the tokens\n{tokens.tolist()}\nshould give the mask\n{expected}\n"
            f"yours is\n{mask.tolist()}\nTrue means that attention is allowed."
        )
        assert padding_mask(tokens, -1).all(), (
            f"With pad_id −1, no token is padding, so the mask should be True everywhere; yours is\n"
            f"{padding_mask(tokens, -1).tolist()}\nCheck where you use `pad_id`."
        )
        print("padding_mask: all visible checks pass.")

    check_padding_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Comparing a tensor with a number works elementwise and returns a boolean tensor of the same shape.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Then insert an axis of size 1 between the other two, with `unsqueeze` or by indexing with `None`.
# </details>

# %% [markdown]
# **What to notice.** The mask hides padded *keys*. Padded *queries* still get an output. In the
# source, later layers' masks hide this output; in the target, the loss ignores it. Libraries
# disagree: in `nn.MultiheadAttention`, True in `key_padding_mask` *forbids* attention.

# %% [markdown]
# ## `causal_mask`
# ★☆☆☆☆ · 5 minutes
#
# Position i may attend to itself and all earlier positions:
#
# $$\mathrm{mask}_{i,j} = (j \le i) \qquad \mathrm{mask}: n \times n$$
#
# **The trap.** There are four triangles: upper or lower, with or without the diagonal. Each
# position has to see itself, because the first position has nothing else to see. This does not
# reveal the answer, which is the *next* token.
#
# Not allowed: `nn.Transformer.generate_square_subsequent_mask`.


# %%
def causal_mask(n: int, device: torch.device | str | None = None) -> Bool[Tensor, "n n"]:
    """Return a mask that is True at (i, j) if j ≤ i.

    Args:
        n: the number of positions. 0 and 1 are allowed.
        device: the device of the mask. None means torch's default device.
    """
    ### BEGIN SOLUTION
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_causal_mask():
        mask = causal_mask(3)
        assert mask is not None, "causal_mask returns None. Does it end with `return`?"
        assert isinstance(mask, torch.Tensor), (
            f"The mask should be a tensor; yours is of type {type(mask).__name__}."
        )
        assert mask.shape == (3, 3), (
            f"causal_mask(3) should have shape (3, 3); yours has shape {tuple(mask.shape)}."
        )
        assert mask.dtype == torch.bool, (
            f"The mask should be boolean; yours has dtype {mask.dtype}."
        )
        yours = f"yours is\n{mask.tolist()}\nRows are queries (i), and columns are keys (j)."
        assert mask[2, 0], f"Position 2 should see position 0, which comes before it; {yours}"
        assert not mask[0, 2], (
            f"Position 0 should not see position 2, which comes after it; {yours}"
        )
        assert mask.diagonal().all(), f"Every position should see itself; {yours}"
        assert mask.sum() == 6, f"The mask should allow 6 of the 9 pairs, not {mask.sum()}; {yours}"
        with expecting("causal_mask(0) should return an empty mask"):
            assert causal_mask(0).shape == (0, 0), (
                "causal_mask(0) should have shape (0, 0); yours has shape "
                f"{tuple(causal_mask(0).shape)}."
            )
        with expecting("causal_mask(2, device='meta') should work"):
            there = causal_mask(2, device="meta").device.type
        assert there == "meta", (
            f"With device='meta', the mask should be on that device; yours is on {there}. "
            "Pass `device` to the function that creates the tensor."
        )
        print("causal_mask: all visible checks pass.")

    check_causal_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The allowed pairs are on and below the diagonal. torch has functions that create a matrix of ones
# and functions that keep only a triangle of a matrix. Functions that create tensors take `dtype`
# and `device`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# You can also implement the formula directly. Compare the positions as a column (i) with the
# positions as a row (j); the comparison broadcasts to an n × n matrix. The same approach works for
# masks that are not triangular.
# </details>

# %% [markdown]
# **What to notice.** With this mask, one forward pass over n tokens gives n predictions, each from
# a context of a different length. This is why Transformers can train on all positions in parallel,
# although they generate one token at a time.

# %% [markdown]
# ## `decoder_mask`
# ★★☆☆☆ · 5 minutes
#
# A decoder reads padded targets from left to right, so both masks apply:
#
# $$
# \mathrm{mask}_{s,i,j} = (j \le i) \wedge \bigl(\mathrm{tokens}_{s,j} \ne \mathrm{pad}\bigr)
# \qquad \mathrm{mask}: b \times n \times n
# $$
#
# **The trap.** Mask only *keys*. Do not set row i to False just because token i is padding. The
# mask must be on the same device as the tokens.
#
# Not allowed: `nn.Transformer.generate_square_subsequent_mask`.


# %%
def decoder_mask(tokens: Int[Tensor, "b n"], pad_id: int) -> Bool[Tensor, "b n n"]:
    """Return a mask that is True at (i, j) if j ≤ i and token j is not padding.

    The mask is on the same device as `tokens`.
    """
    ### BEGIN SOLUTION
    return padding_mask(tokens, pad_id) & causal_mask(tokens.shape[1], tokens.device)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_decoder_mask():
        tokens = torch.tensor([[6, 2, 1], [1, 7, 7]])
        with expecting("Tokens of shape (2, 3) should give a mask of shape (2, 3, 3)"):
            mask = decoder_mask(tokens, 1)
        assert mask is not None, "decoder_mask returns None. Does it end with `return`?"
        assert mask.shape == (2, 3, 3), (
            "Tokens of shape (2, 3) should give a mask of shape (2, 3, 3); yours has shape "
            f"{tuple(mask.shape)}."
        )
        assert mask.dtype == torch.bool, (
            f"The mask should be boolean; yours has dtype {mask.dtype}."
        )
        last_hidden = [[True, False, False], [True, True, False], [True, True, False]]
        first_hidden = [[False, False, False], [False, True, False], [False, True, True]]
        for row, seen, expected in zip(tokens, mask, (last_hidden, first_hidden), strict=True):
            assert seen.tolist() == expected, (
                f"Tokens {row.tolist()} with pad_id 1 should give the mask\n{expected}\n"
                f"yours is\n{seen.tolist()}\nBoth rules hide keys, which are the columns."
            )
        zeros = decoder_mask(torch.tensor([[5, 0, 4]]), 4)
        assert zeros.tolist() == [last_hidden], (
            "With pad_id 4, id 0 is an ordinary token. Tokens [5, 0, 4] have padding only at the end; "
            f"your mask is\n{zeros.tolist()}\nCheck where you use `pad_id`."
        )
        problem = ""
        try:
            decoder_mask(tokens.to("meta"), 1)
        except RuntimeError as error:
            problem = str(error)
        assert "device" not in problem, (
            f"Tokens on another device should work; yours raises: {problem}\n"
            "Create new tensors on the device of `tokens`."
        )
        print("decoder_mask: all visible checks pass.")

    check_decoder_mask()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You have already written both parts. Write down the shapes of both masks, one below the other and
# right-aligned. What shape does broadcasting produce?
# </details>
#
# <details><summary>Hint 2</summary>
#
# The operator `&` computes the logical "and" of boolean tensors. Take the length and the device
# from `tokens`.
# </details>

# %% [markdown]
# **What to notice.** Broadcasting turns `(b, 1, n)` and `(n, n)` into `(b, n, n)`. If a sequence
# starts with padding, the first rows are entirely False (*fully masked*). The next exercise has to
# handle such rows.

# %% [markdown]
# ## `masked_attention`
# ★★★☆☆ · 20 minutes
#
# Every layer of your Transformer will call this function. Let $\mathcal{K}_i$ be the set of keys
# that the mask allows for query i:
#
# $$
# A_{ij} = \begin{cases} \dfrac{\exp S_{ij}}{\sum_{k \in \mathcal{K}_i} \exp S_{ik}} & j \in
# \mathcal{K}_i \\ 0 & \text{otherwise} \end{cases} \qquad O = A\,V \qquad S, A: n \times m, \quad
# O: n \times d_v
# $$
#
# A hidden key gets a weight of exactly 0. If a query has no allowed key, its weights and its output
# are 0.
#
# **The traps.**
#
# * Setting weights to 0 *after* softmax leaves rows that no longer sum to 1.
# * A score of 0 does not hide a key: $e^0 = 1$.
# * −10⁹ overflows in float16, whose lowest finite value is −65,504.
# * In a fully masked row, softmax is 0/0 = NaN. If you add −∞ to scores and replace NaN only in the
#   result, it reappears in the gradients of query and key.
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention` and `flex_attention`.


# %%
def masked_attention(
    query: Float[Tensor, "*#batch n d"],
    key: Float[Tensor, "*#batch m d"],
    value: Float[Tensor, "*#batch m d_v"],
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "*batch n d_v"], Float[Tensor, "*batch n m"]]:
    """Compute attention in which each query sees only the keys that the mask allows.

    The leading axes of query, key and value broadcast as they do in `attention`. The function works
    in half precision.

    Args:
        mask: True where attention is allowed. It can have any shape that broadcasts to the
            shape of the weights, such as `(m,)`. None allows everything.

    Returns:
        the pair (output, weights). Hidden keys have weights of exactly 0. If a query has no allowed
        keys, its weights and its output are 0. Neither the results nor the gradients of query, key
        and value contain NaN.

    Source: Vaswani et al. (2017), sections 3.2.1 and 3.2.3.
    """
    ### BEGIN SOLUTION
    scores = attention_scores(query, key)
    if mask is None:
        weights = softmax(scores, dim=-1)
    else:
        # If all scores in a row were −inf, softmax and its gradient would be NaN. Rows without
        # allowed keys therefore keep their scores, and their weights are set to 0 afterwards.
        fill = ~mask & mask.any(dim=-1, keepdim=True)
        weights = softmax(scores.masked_fill(fill, -math.inf), dim=-1).masked_fill(~mask, 0.0)
    return weights @ value, weights
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_masked_attention():
        query = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], requires_grad=True)
        key = torch.tensor([[900.0, 900.0], [3.0, 3.0], [3.0, 3.0], [-5.0, -5.0]])
        value = torch.tensor([[100.0], [4.0], [6.0], [-7.0]])
        mask = torch.tensor([[False, True, True, False], [False, False, False, True], [False] * 4])
        with expecting(
            "Queries, keys, values and a mask of shapes (3, 2), (4, 2), (4, 1) and (3, 4) should work"
        ):
            result = masked_attention(query, key, value, mask)
        assert isinstance(result, tuple | list), (
            "masked_attention should return the pair (output, weights); yours returns a "
            f"{type(result).__name__}."
        )
        output, weights = result
        assert output.shape == (3, 1), (
            f"The output should have shape (3, 1); yours has shape {tuple(output.shape)}."
        )
        assert weights.shape == (3, 4), (
            f"The weights should have shape (3, 4); yours have shape {tuple(weights.shape)}."
        )
        seen = f"with the mask\n{mask}\nyours are\n{weights.detach()}"
        assert not weights.isnan().any(), (
            f"The weights should not contain NaN; {seen}"
            + "\nFor the last query, the mask hides every key." * weights[:2].isfinite().all()
        )
        assert (weights[:2][~mask[:2]] == 0).all(), (
            f"Hidden keys should get weights of exactly 0; {seen}\nTrue means that attention is allowed."
        )
        assert (weights[2] == 0).all(), f"A fully masked query should get weights of 0; {seen}"
        expected = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0] * 4])
        assert torch.allclose(weights, expected, atol=1e-5), (
            f"The weights should be\n{expected}\nyours are\n{weights.detach()}\n"
            "The first key matches best but is hidden, so it should not contribute to the sum either."
        )
        assert torch.allclose(output[:, 0], torch.tensor([5.0, -7.0, 0.0]), atol=1e-4), (
            f"The output should be 5, −7 and 0; yours is {output[:, 0].tolist()}. "
            "Did you compute it from the weights that you return?"
        )
        with expecting(
            "masked_attention should be differentiable",
            "In-place operations such as `*=` can overwrite values that the gradient needs.",
        ):
            output.sum().backward()
        assert query.grad.isfinite().all(), (
            f"The gradient of the query should be finite; yours is\n{query.grad}\n"
            "NaN can reappear in the gradient, even if you replace it after softmax."
        )
        with torch.no_grad():
            # With d = 4, the scores of the last query are log 3, 0 and 0.
            queries, keys = torch.zeros(3, 4), torch.zeros(3, 4)
            queries[2, 0], keys[0, 0] = 2.0, math.log(3.0)
            with expecting("masked_attention should work without a mask"):
                weights = masked_attention(queries, keys, torch.ones(3, 2))[1][2]
            assert torch.allclose(weights, torch.tensor([0.6, 0.2, 0.2])), (
                "Without a mask, scores of log 3, 0 and 0 should give weights of 3/5, 1/5 and 1/5; "
                f"yours are {weights.tolist()}."
            )
            for allowed, expected in (
                ([[True, True, False]], [0.75, 0.25, 0.0]),
                ([[True, True, True]], [0.6, 0.2, 0.2]),
            ):
                row_mask = torch.tensor(allowed)
                weights = masked_attention(queries, keys, torch.ones(3, 2), row_mask)[1][2]
                assert torch.allclose(weights, torch.tensor(expected)), (
                    f"With the mask {allowed}, scores of log 3, 0 and 0 should give the weights "
                    f"{expected}; yours are {weights.tolist()}."
                )
            queries, keys = fixed_numbers(3, 4), fixed_numbers(5, 4).cos()
            rows = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
            together = masked_attention(queries, keys, keys, rows)[1]
            for row in range(3):
                alone = masked_attention(queries[[row]], keys, keys, rows[[row]])[1]
                assert torch.allclose(together[row], alone[0], atol=1e-5), (
                    f"Query {row} should get the same weights with other queries as without them, "
                    f"{alone[0].tolist()}; yours are {together[row].tolist()}. Each row of the mask "
                    "corresponds to one query."
                )
            one, keys = torch.tensor([[200.0]]), torch.tensor([[-100.0], [0.0]])
            first_only = torch.tensor([[True, False]])
            low = masked_attention(one, keys, torch.ones(2, 1), first_only)[1]
            assert torch.allclose(low, torch.tensor([[1.0, 0.0]])), (
                "The only allowed key should get a weight of 1, even though its score is −20,000; "
                f"your weights are {low.tolist()}. How low do you set the score of a hidden key?"
            )
            with expecting(
                "A mask of shape (2, 1, 4) should apply to all 3 queries of each sequence",
                "The mask broadcasts to the shape of the scores.",
            ):
                batch = masked_attention(query.expand(2, 3, 2), key, value, mask[:2, None])
            assert (batch[1][~mask[:2, None].expand(2, 3, 4)] == 0).all(), (
                "A mask of shape (2, 1, 4) should apply to all 3 queries of each sequence; with "
                f"your function, some hidden keys have nonzero weights:\n{batch[1]}"
            )
            with expecting(
                "masked_attention should accept float16",
                "float16 overflows below −65,504. Use `torch.finfo(dtype).min` or −∞.",
            ):
                half = masked_attention(query.half(), key.half() / 100, value.half(), mask)[1]
            assert half.isfinite().all(), (
                f"In float16, the weights should also be finite; yours are\n{half}"
            )
            assert (half[~mask] == 0).all(), (
                f"In float16, hidden keys should also get weights of 0; yours are\n{half}"
            )
        print("masked_attention: all visible checks pass.")

    check_masked_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Your `softmax` already gives one particular score a weight of exactly 0. Look at `masked_fill` or
# `torch.where`, and check which way round the mask is.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Make sure that every row has a finite score before you apply softmax. Afterwards, set the weights
# to 0 in fully masked rows. To find these rows, reduce the mask along the keys with `keepdim=True`.
# It does not matter what softmax returns for them, as long as it is finite.
# </details>
#
# <details><summary>Help! I get NaN in fully masked rows</summary>
#
# All scores in such a row are −∞, so softmax computes −∞ − (−∞) = NaN. Replacing NaN afterwards
# with `nan_to_num` repairs the output. In the backward pass, however, the derivative of softmax is
# still NaN, and NaN times 0 is NaN. `masked_fill` and `torch.where` stop this NaN at the masked
# scores. If you add a mask of −∞ instead, NaN reaches the query and the key. So avoid NaN in the
# first place: leave the scores of these rows unmasked, and set their weights to 0 at the end. To
# see which rows have an allowed key, print `mask.any(dim=-1, keepdim=True)`.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        words = ["she", "sells", "shells", "<pad>", "<pad>"]  # padded to the length of its batch
        tokens = torch.tensor([[1, 2, 3, 0, 0]])
        features = letter_features(words).unsqueeze(0)
        masks = {
            "padding_mask": padding_mask(tokens, 0),
            "causal_mask": causal_mask(5),
            "decoder_mask": decoder_mask(tokens, 0),
        }
        _, unmasked = masked_attention(5 * features, features, features)
        weights = {
            title: (masked_attention(5 * features, features, features, mask)[1][0], unmasked[0])
            for title, mask in masks.items()
        }
        look(weights, words)

# %%
if __name__ == "__main__":
    predict("With causal_mask, how many of 4 outputs depend on the last word?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        before = letter_features(["she", "sells", "sea", "shells"])
        after = letter_features(["she", "sells", "sea", "urchins"])
        masks = {"no mask": None, "causal_mask": causal_mask(4)}
        changes = {}
        for name, mask in masks.items():
            first, _ = masked_attention(20 * before, before, before, mask)
            second, _ = masked_attention(20 * after, after, after, mask)
            changes[name] = (first - second).abs().amax(dim=-1)
        predict.reveal(
            "With causal_mask, how many of 4 outputs depend on the last word?",
            int((changes["causal_mask"] > 1e-4).sum()),
        )
        print("largest change in the output at each position when only the last word changes")
        for name, change in changes.items():
            print(f"{name:<12}", "  ".join(f"{value:.3f}" for value in change.tolist()))

# %% [markdown]
# **What to notice.**
#
# * Hatching marks a hidden key. Switch the mask off and on: the other weights in the row grow, because
#   they still sum to 1.
# * Without a mask, words attend to `<pad>`.
# * The printed table shows the best test of a decoder: changing a future token must not change
#   earlier outputs.
#
# **Your experiment.** Design a mask for four words, and predict which outputs the last word reaches.

# %%
if __name__ == "__main__":
    predict("With your mask, how many of 4 outputs depend on the last word?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        my_mask = causal_mask(4)
        my_mask[1, 3] = True  # change any entries: row = query, column = key
        first, _ = masked_attention(20 * before, before, before, my_mask)
        second, _ = masked_attention(20 * after, after, after, my_mask)
        reached = int(((first - second).abs().amax(dim=-1) > 1e-4).sum())
        predict.reveal("With your mask, how many of 4 outputs depend on the last word?", reached)
        record("outputs that my mask lets the last word reach", reached)

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.3. [Weng, The
# Transformer Family v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/),
# "Sparse Attention Patterns": sparser masks that save time.
#
# **Discuss.**
#
# 1. A translation model is accidentally trained without a causal mask. What does its training loss
#    look like, and what happens when it translates?
# 2. A Transformer's encoder has no causal mask. Why is that not a problem, and what can the encoder
#    do that a decoder cannot?
#
# <details><summary>Answers</summary>
#
# 1. The loss falls almost to 0, because the model copies each next token from its input. During
#    generation, the next token does not exist yet, so the output is nonsense.
# 2. The whole source is known before the first target token is generated, so nothing leaks. Each
#    source token can attend to tokens on both sides. In `12/4/1987`, the 12 is a month because of
#    the slashes, and both slashes come after it.
# </details>
