# %% [markdown]
# # Language models
#
# *Chapter 2 of 8*
#
# A **language model** reads text and predicts, at each position, the next token. Take the
# Transformer from Day 1, remove the encoder and the cross-attention, and you have a language model.
#
# [Shannon (1951)](https://doi.org/10.1002/j.1538-7305.1951.tb01366.x) had people guess English text
# letter by letter. The better the guesses, the fewer bits it takes to encode the text. So we
# compare models on the same text by **bits per character**. To predict well, a model has to learn
# spelling, grammar and facts. This chapter builds GPT-2 ([Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)).
#
# <details><summary>If you skipped Day 1</summary>
#
# A Transformer represents each token by d features. In **attention**, three linear layers turn
# these into a *query*, a *key* and a *value*. The *scores* are the dot products of a query with all
# keys, divided by √d. Softmax turns them into weights that sum to 1. The output is the weighted mean
# of the values. For n queries and m keys:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) V
# \qquad Q: n \times d \qquad K, V: m \times d \qquad Q K^\top: n \times m$$
#
# In *self-attention*, queries and keys come from the same sequence; in *cross-attention*, from two
# sequences. *Multi-head* attention splits the d features into h heads with d / h features each. It
# computes attention in each head, dividing scores by √(d / h), and concatenates the results. A
# **causal mask** sets the scores of all later keys to −∞ before softmax, so that their weights are
# 0. Attention ignores the order of its inputs, so a vector that depends on the position is added to
# each token's vector. A *layer* or *block* consists of attention and a feed-forward network: two
# linear layers with a nonlinearity between them, applied to each position separately. Each part has
# a *residual connection*, which adds its input to its output, and a *layer norm*, which rescales
# each position's features to mean 0 and variance 1. The *logits* are one number per token in the
# vocabulary; their softmax gives the predicted probabilities.
# </details>
#
# ![Tokens are embedded and pass through n_layers blocks and a norm. Multiplying by the transposed
# token embedding gives the logits. The model has three uses: training on all positions at once,
# measuring the probability of a text, and generating text token by
# token.](figures/language-model.svg)

# %%
import functools
import math
import os
import re
import sys
import time
import urllib.request
from pydoc_data.topics import topics
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from solutions.opening import (
    demonstration,
    expecting,
    expecting_value_error,
    filled,
    fixed_numbers,
    look,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## Given: the cache
#
# To generate text, you run the model once per token. Earlier keys and values never change, because
# no position attends to later ones. So each attention layer keeps them in a `KeyValueCache`, and
# each forward pass processes only the new positions: first the prompt, then one token at a time.
# Earlier queries are not needed again.
#
# ![Left: call 1 computes the queries, keys and values of positions 0 to 2. Calls 2 and 3 each
# compute one position and read the earlier keys and values from the cache. Right: with 3 cached
# positions and 2 new ones, the mask consists of the last 2 rows of a 5 by 5 triangle. A triangle
# aligned to the upper-left corner would hide earlier positions.](figures/kv-cache.svg)


# %%
class KeyValueCache:
    """The keys and values that one attention layer has computed so far."""

    def __init__(self):
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(
        self, keys: Float[Tensor, "b h n d_head"], values: Float[Tensor, "b h n d_head"]
    ) -> tuple[Float[Tensor, "b h m d_head"], Float[Tensor, "b h m d_head"]]:
        """Append the n new keys and values. Return all m keys and values so far."""
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def __bool__(self) -> bool:
        return True  # `if cache:` should be true for an empty cache


# %% [markdown]
# ## `CausalSelfAttention`
# ★★★★☆ · 35 minutes
#
# Write causal multi-head self-attention in two steps.
#
# **Step 1: without a cache.** GPT-2 computes queries, keys and values with one linear layer, `qkv`.
#
# $$\underbrace{\mathrm{qkv}(x)}_{b \times n \times 3d}
# = \bigl[\ \underbrace{Q_0 \dots Q_{h-1}}_{d}\ \bigm|\ \underbrace{K_0 \dots K_{h-1}}_{d}\ \bigm|\
# \underbrace{V_0 \dots V_{h-1}}_{d}\ \bigr]
# \qquad
# O_k = \mathrm{softmax}\!\left(\frac{Q_k K_k^\top}{\sqrt{d_\text{head}}}\right) V_k
# \qquad O_k: b \times n \times d_\text{head}$$
#
# ![The 3·d features of a position are first split into queries, keys and values (d each), which are
# then split into heads. Splitting into heads first gives the right shapes but the wrong
# values.](figures/qkv.svg)
#
# Rearrange Q, K and V to `b h n d_head` and apply attention with a causal mask. Then concatenate
# the heads and apply `out`.
#
# **Step 2: with a cache.** Now the n positions of x follow those in the cache. Queries come from x
# alone; keys and values come from all m positions. The mask is therefore n × m. Position i of x
# attends to the whole cache and to positions 0 to i of x.
#
# **The trap.** When n ≠ m, the triangle must be aligned to the lower-right corner.
# `torch.tril(mask)` and `scaled_dot_product_attention(..., is_causal=True)` align it to the
# upper-left corner.
#
# Not allowed: `MultiheadAttention`, `multi_head_attention_forward`. Allowed:
# `scaled_dot_product_attention`.


# %%
class CausalSelfAttention(nn.Module):
    """Causal multi-head self-attention: each position attends to itself and all earlier positions.

    Attributes to define: `qkv` (`nn.Linear(d_model, 3 * d_model)`: queries, keys and values in this
    order, each with its heads concatenated) and `out` (`nn.Linear(d_model, d_model)`). Dropout is
    active in training mode only. You may apply it to the attention weights or to the output.

    Raises:
        ValueError: if `d_model` is not divisible by `n_heads`. The message names one of them.

    Source: Vaswani et al. (2017), section 3.2; Radford et al. (2018), section 3.1 (GPT).
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        if d_model % n_heads:
            raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        ### END SOLUTION

    def forward(
        self, x: Float[Tensor, "b n d_model"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "b n d_model"]:
        """Let each position of x attend to itself and to all positions before it.

        With a cache, the positions of x follow the cached ones. The keys and values of x are
        appended to the cache. Position i of x attends to all cached positions and to positions 0 to
        i of x. Feeding a sequence in pieces through one cache gives the same result as feeding all
        of it at once.
        """
        ### BEGIN SOLUTION
        apart = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))  # b n 3 h d_head
        query, key, value = apart.permute(2, 0, 3, 1, 4)  # b h n d_head each
        if cache is not None:
            key, value = cache.append(key, value)
        n, m = query.shape[2], key.shape[2]
        allowed = torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)
        heads = F.scaled_dot_product_attention(
            query, key, value, allowed, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(heads.transpose(1, 2).flatten(2))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_CausalSelfAttention():
        attention = filled(CausalSelfAttention(6, 3)).eval()
        parameters = attention.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(weight.shape) for name, weight in parameters}
        wanted = {"qkv.weight": (18, 6), "qkv.bias": (18,), "out.weight": (6, 6), "out.bias": (6,)}
        assert wanted.items() <= shapes.items(), (
            f"The parameters should include\n{wanted}\nyours are\n{shapes}\n"
            "Compare them with the docstring."
        )
        with expecting_value_error("8 features in 3 heads", "d_model", "n_heads"):
            CausalSelfAttention(8, 3)

        # Step 1. Queries of 0 give equal scores, so each output is the mean of the visible values.
        plain = filled(CausalSelfAttention(4, 2)).eval()
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.zero_()
            plain.qkv.weight[8:] = torch.eye(4)
            plain.out.weight.copy_(torch.eye(4))
        x = torch.tensor([[[2.0, 0, 0, 3], [4, 6, 0, 3], [0, 0, 9, 0]]])
        with expecting(
            "Step 1: an input of shape (1, 3, 4) should give an output of the same shape"
        ):
            seen = plain(x)
        assert seen is not None, "forward returns None. Does it end with `return`?"
        assert seen.shape == (1, 3, 4), (
            f"Step 1: the output should have the shape (1, 3, 4); yours has {tuple(seen.shape)}."
        )
        means = torch.tensor([[[2.0, 0, 0, 3], [3, 3, 0, 3], [2, 2, 3, 2]]])
        assert torch.allclose(seen, means, atol=1e-5), (
            "Step 1: if all scores are equal, each output should be the mean of the values up to "
            f"its position:\n{means[0]}\nyours gives\n{seen[0].detach()}\n"
            "Features 8 to 11 of qkv(x) are the values. The weights of each position sum to 1."
        )

        # Queries and keys equal x. In the second head, position 1 has the score ln 3 with itself and the score
        # 0 with position 0, so the weights are 3/4 and 1/4.
        with torch.no_grad():
            plain.qkv.weight[:4] = plain.qkv.weight[4:8] = torch.eye(4)
        size = (2**0.5 * math.log(3)) ** 0.5
        x = torch.tensor([[[0.0, 0, 8, 0], [0, 0, 0, size]]])
        seen = plain(x)[0, 1]
        assert torch.allclose(seen, torch.tensor([0, 0, 2, 0.75 * size]), atol=1e-5), (
            f"Step 1: the output at position 1 should be (0, 0, 2, {0.75 * size:.3f}); yours is "
            f"{seen.detach()}. Which features belong to each head? Do you divide the scores by "
            "√d_head?"
        )

        # torch also provides this layer. In its mask, True means that attention is forbidden.
        theirs = nn.MultiheadAttention(6, 3, batch_first=True).eval()
        with torch.no_grad():
            theirs.in_proj_weight.copy_(attention.qkv.weight)
            theirs.in_proj_bias.copy_(attention.qkv.bias)
        theirs.out_proj.load_state_dict(attention.out.state_dict(), strict=False)
        x = fixed_numbers(2, 6, 6)
        future = torch.ones(6, 6, dtype=torch.bool).triu(1)
        whole = attention(x)
        error = (whole - theirs(x, x, x, attn_mask=future)[0]).abs().max().item()
        assert error < 1e-4, (
            "Step 1: with the same weights, your output should match nn.MultiheadAttention; it "
            f"differs by up to {error:.2g}. Does qkv(x) contain queries, keys and values in this "
            "order? Do you divide by √d_head and apply `out`?"
        )
        noisy = filled(CausalSelfAttention(6, 3, dropout=0.5)).eval()
        assert torch.equal(noisy(x), noisy(x)), (
            "Step 1: in evaluation mode, two calls should give equal results; yours differ. Is "
            "dropout active only in training mode?"
        )
        noisy.train()
        assert not torch.equal(noisy(x), noisy(x)), (
            "Step 1: in training mode, dropout should make the results of two calls differ; "
            "yours are equal."
        )
        print("CausalSelfAttention, step 1 (without a cache): all visible checks pass.")

        # Step 2.
        cache = KeyValueCache()
        with expecting(
            "Step 2: feeding pieces of 3, 2 and 1 positions through one cache should work",
            "The second piece has 2 queries and 5 keys.",
        ):
            pieces = torch.cat([attention(piece, cache) for piece in x.split([3, 2, 1], 1)], dim=1)
        assert len(cache) == 6, (
            "Step 2: after pieces of 3, 2 and 1 positions, the cache should contain 6 positions; "
            f"yours contains {len(cache)}. Call `cache.append` once per forward pass, with the "
            "keys and values of x."
        )
        for position, error in enumerate((pieces - whole).abs().amax(dim=(0, 2)).tolist()):
            assert error < 1e-5, (
                "Step 2: feeding pieces of 3, 2 and 1 positions should give the same result as "
                f"feeding all 6 at once; at position {position}, yours differs by {error:.2g}. "
                "The figure above shows the mask for the second piece, and `append` returns its keys."
            )
        print("CausalSelfAttention, step 2 (with a cache): all visible checks pass.")

    check_CausalSelfAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Step 1: `unflatten` splits an axis. Split the last axis into `(3, n_heads, d_head)` and move the
# axis of size 3 to the front. You can then unpack queries, keys and values in one line. Set the
# scores of future keys to −∞ before softmax. In the mask of `scaled_dot_product_attention`, True
# means that a query may attend to a key. Step 2: append to the cache first, and continue with the
# keys and values that `append` returns. Their shape gives you m.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The queries belong to the last n of m positions, so the mask is the last n rows of the m × m
# triangle. `torch.tril` has a second argument that moves the diagonal to the right. It must be 0
# for n = m, and 3 for 2 queries and 5 keys.
# </details>

# %% [markdown]
# **What to notice.** The cache costs memory: each layer stores 2·m·d numbers per sequence. In large
# models, reading the cache limits the speed ([Shazeer 2019](https://arxiv.org/abs/1911.02150),
# section 2.4), and storing it limits the batch size ([Kwon et al.
# 2023](https://arxiv.org/abs/2309.06180), section 1).

# %% [markdown]
# ## `GPTBlock`
# ★★☆☆☆ · 15 minutes
#
# A block has two branches: attention and a feed-forward network. Each branch reads x and adds its
# output to x:
#
# $$x \leftarrow x + \operatorname{attention}(\operatorname{norm}_1(x)) \qquad
# x \leftarrow x + \operatorname{linear}_2\bigl(\underbrace{\operatorname{gelu}(
# \operatorname{linear}_1(\operatorname{norm}_2(x)))}_{b \times n \times d_{ff}}\bigr)
# \qquad x: b \times n \times d$$
#
# ![In a post-norm layer, each norm follows a sum, on the main path from input to output. In a
# pre-norm layer, each norm is the first step of a branch, and the main path contains only
# sums.](figures/pre-norm.svg)
#
# Three things differ from Day 1. First, the norms are inside the branches (**pre-norm**). Gradients
# are then well behaved at initialisation, and training works even without warm-up ([Xiong et al.
# 2020](https://arxiv.org/abs/2002.04745), sections 3 and 4). Second, the tanh approximation of GELU
# replaces ReLU ([Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415), section 2):
#
# $$\operatorname{gelu}(z) = \tfrac12 z \left(1 + \tanh\!\left(\sqrt{2/\pi}\,
# (z + 0.044715\, z^3)\right)\right)$$
#
# Third, dropout applies only to the output of each branch.
#
# **The traps.** Add the output of each branch to x itself, not to norm(x). `F.gelu` defaults to the
# exact form, which differs in the fourth decimal place.
#
# Not allowed: `MultiheadAttention`, `multi_head_attention_forward`, and `nn.Transformer` and its
# encoder and decoder classes.


# %%
class GPTBlock(nn.Module):
    """A pre-norm layer of causal self-attention and a feed-forward network with GELU (tanh).

    Attributes to define: `norm1`, `norm2` (weight and bias of size `d_model`, eps 1e-5),
    `attention` (with `qkv` and `out`), `linear1` (`nn.Linear(d_model, d_ff)`), `linear2`
    (`nn.Linear(d_ff, d_model)`). Dropout applies to both branches, in training mode only.

    Source: Radford et al. (2019), section 2.3; Hendrycks and Gimpel (2016), section 2, for GELU.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(
        self, x: Float[Tensor, "b n d_model"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "b n d_model"]:
        """Return x plus the outputs of both branches. Pass the cache to `attention`."""
        ### BEGIN SOLUTION
        x = x + self.dropout(self.attention(self.norm1(x), cache))
        hidden = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")
        return x + self.dropout(self.linear2(hidden))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_GPTBlock():
        block = filled(GPTBlock(4, 2, 6)).eval()
        parameters = block.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(weight.shape) for name, weight in parameters}
        wanted = {"linear1.weight": (6, 4), "linear2.weight": (4, 6), "norm1.weight": (4,)}
        wanted |= {"norm2.bias": (4,), "attention.qkv.weight": (12, 4)}
        assert wanted.items() <= shapes.items(), (
            f"The parameters should include\n{wanted}\nyours are\n{shapes}\n"
            "Compare them with the docstring."
        )
        assert {*block.norm1.parameters()}.isdisjoint(block.norm2.parameters()), (
            "`norm1` and `norm2` should be separate modules; yours share parameters."
        )
        x = fixed_numbers(2, 3, 4)
        x_before = x.clone()
        with expecting("An input of shape (2, 3, 4) should give an output of the same shape"):
            seen = block(x)
        assert seen is not None, "forward returns None. Does it end with `return`?"
        assert seen.shape == x.shape, (
            f"The output should have the shape {tuple(x.shape)}; yours has {tuple(seen.shape)}."
        )
        assert torch.equal(x, x_before), "forward should not change its argument."

        # torch also provides this block.
        theirs = nn.TransformerEncoderLayer(
            4,
            2,
            6,
            dropout=0.0,
            activation=functools.partial(F.gelu, approximate="tanh"),
            batch_first=True,
            norm_first=True,
        ).eval()
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
            theirs.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(block.attention.out.state_dict(), strict=False)
        for name in ("norm1", "norm2", "linear1", "linear2"):
            getattr(theirs, name).load_state_dict(getattr(block, name).state_dict(), strict=False)
        future = torch.ones(3, 3, dtype=torch.bool).triu(1)

        # If attention outputs 0, only the feed-forward network adds to x.
        with torch.no_grad():
            for silent in (block.attention.out, theirs.self_attn.out_proj):
                silent.weight.zero_()
                silent.bias.zero_()
            added, added_to_more = block(x) - x, block(100 * x) - 100 * x
        error = (added - added_to_more).abs().max()
        assert error < 1e-2, (
            "If attention outputs 0, the feed-forward network should add the same values to 100·x "
            f"as to x, because it reads norm2(x); yours differ by {error:.2g}. Where are the norms, "
            "and what do you add each output to?"
        )
        # The network outputs gelu(1) everywhere: 0.841192 with tanh, 0.841345 in the exact form.
        flat = filled(GPTBlock(4, 2, 6)).eval()
        with torch.no_grad():
            for linear in (flat.attention.out, flat.linear1, flat.linear2):
                linear.weight.zero_()
                linear.bias.zero_()
            flat.linear1.bias.fill_(1.0)
            flat.linear2.weight.fill_(1 / 6)
        seen = (flat(x) - x).mean().item()
        assert abs(seen - 0.841192) < 5e-5, (
            "This block should add the tanh approximation of gelu(1), 0.841192, to x; yours adds "
            f"{seen:.6f}. Check the activation."
        )
        for scale, what in ((1.0, "x"), (0.01, "0.01·x, where the eps of the norms matters")):
            for linear, other in (
                (block.attention.out, theirs.self_attn.out_proj),
                (block.linear2, theirs.linear2),
            ):
                filled(linear)
                other.load_state_dict(linear.state_dict(), strict=False)
            error = (block(scale * x) - theirs(scale * x, src_mask=future)).abs().max().item()
            assert error < 1e-4, (
                f"For {what}, your output should match torch's pre-norm layer with the same "
                f"weights; it differs by up to {error:.2g}. What does each branch read, and what "
                "do you add its output to?"
            )
        cache = KeyValueCache()
        with expecting("Feeding positions one by one through a cache should work"):
            one_by_one = torch.cat([block(x[:, i : i + 1], cache) for i in range(3)], dim=1)
        error = (one_by_one - block(x)).abs().max()
        assert error < 1e-5, (
            "Feeding positions one by one through a cache should give the same output as feeding "
            f"all 3 at once; yours differs by {error:.2g}. Do you pass the cache to `attention`?"
        )
        noisy = filled(GPTBlock(4, 2, 6, dropout=0.5)).eval()
        assert torch.equal(noisy(x), noisy(x)), (
            "In evaluation mode, two calls should give equal results; yours differ. Is dropout "
            "active only in training mode?"
        )
        noisy.train()
        assert not torch.equal(noisy(x), noisy(x)), (
            "In training mode, dropout should make the results of two calls differ; yours are "
            "equal."
        )
        print("GPTBlock: all visible checks pass.")

    check_GPTBlock()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The formula has two steps, and `forward` needs one line for each. Pass the cache to `attention`;
# nothing else needs it.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `F.gelu` has an `approximate` argument. In each line, apply the norm, the branch and dropout, and
# then add x as it was before the norm.
# </details>

# %% [markdown]
# **What to notice.** Every block only adds to x, which is called the *residual stream*. Its
# magnitude grows from block to block, so the model needs a final norm.

# %% [markdown]
# ## `GPT`
# ★★★☆☆ · 30 minutes
#
# The model looks up token and position embeddings, adds them, applies the blocks and a final norm,
# and computes the logits:
#
# $$x = \underbrace{E[\text{tokens}]}_{b \times n \times d} + \underbrace{P[\text{positions}]}_{n
# \times d} \qquad
# \text{logits} = \underbrace{\operatorname{norm}(\text{blocks}(x))}_{b \times n \times d}\
# \underbrace{E^\top}_{d \times v}$$
#
# The position embeddings P are learned. The model uses the table E twice: to embed tokens and to
# compute logits. This **weight tying** saves v·d parameters and improves language models ([Press
# and Wolf 2017](https://arxiv.org/abs/1608.05859)).
#
# **The traps.**
#
# * *Positions continue.* With caches of length 3, the next tokens are at positions 3, 4, …. A model
#   that restarts at 0 raises no error but writes worse text. Read the cache length before you run
#   the blocks, because they append to the caches.
# * *The length limit.* Cached positions count towards `max_length`. A call that raises ValueError
#   should leave the caches unchanged.
#
# Not allowed: `MultiheadAttention`, `multi_head_attention_forward`, and `nn.Transformer` and its
# encoder and decoder classes.


# %%
class GPT(nn.Module):
    """A decoder-only language model that returns the logits for the next token at each position.

    Attributes to define: `token_embedding`, `position_embedding` (`nn.Embedding`), `blocks` (an
    `nn.ModuleList` of `n_layers` `GPTBlock`s with d_ff = 4·d_model), `norm` (an `nn.LayerNorm` after
    the last block), `max_length` and `n_layers`. The logits are norm(x) times the transposed token
    embedding, without a bias or other parameters. Embeddings are not multiplied by √d_model. Dropout
    is active in training mode only; GPT-2 applies it in the blocks and to the sum of the embeddings.

    With GPT-2's weights, the model returns GPT-2's logits.

    Source: Radford et al. (2019), section 2.3; Press and Wolf (2017) for tied weights.
    """

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        ### BEGIN SOLUTION
        self.max_length, self.n_layers = max_length, n_layers
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(max_length, d_model)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            GPTBlock(d_model, n_heads, 4 * d_model, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        ### END SOLUTION

    def forward(
        self, tokens: Int[Tensor, "b n"], caches: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "b n vocab_size"]:
        """Return the logits for the next token at each position.

        `caches` contains one `KeyValueCache` per block, all of the same length. The positions of
        `tokens` start at this length. Raise ValueError if a position would reach `max_length`.
        """
        ### BEGIN SOLUTION
        start = len(caches[0]) if caches is not None else 0
        end = start + tokens.shape[1]
        if end > self.max_length:
            raise ValueError(f"tokens end at position {end - 1}, max_length is {self.max_length}")
        positions = torch.arange(start, end, device=tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches is not None else None)
        return self.norm(x) @ self.token_embedding.weight.T
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_GPT():
        model = filled(GPT(vocab_size=7, max_length=5, d_model=6, n_heads=2, n_layers=2)).eval()
        tokens = torch.tensor([[1, 4, 0, 6, 6], [2, 2, 5, 3, 1]])
        with expecting("5 tokens without caches should give logits"):
            logits = model(tokens)
        assert logits is not None, "forward returns None. Does it end with `return`?"
        assert logits.shape == (2, 5, 7), (
            f"The logits should have the shape (2, 5, 7); yours have {tuple(logits.shape)}."
        )
        n_blocks, n_layers, max_length = len(model.blocks), model.n_layers, model.max_length
        assert (n_blocks, n_layers, max_length) == (2, 2, 5), (
            "`blocks` should have 2 entries, `n_layers` should be 2 and `max_length` 5; yours are "
            f"{n_blocks}, {n_layers} and {max_length}."
        )
        # Embeddings of 7 tokens and 5 positions, the final norm, and the parameters of two blocks.
        wanted = (7 + 5) * 6 + 2 * 6 + 2 * ((18 + 6) * 6 + 24 + 2 * 6 * 24 + 24 + 6 + 4 * 6)
        seen = sum(parameter.numel() for parameter in model.parameters())
        assert seen == wanted, (
            f"The model should have {wanted} parameters; yours has {seen}. Does it have two "
            "embeddings, `n_layers` blocks and a final norm? Do you reuse the token embedding "
            "for the logits, without a bias?"
        )

        changed = tokens.clone()
        changed[:, 3] = 2
        moved = (model(changed) - logits)[:, :3].abs().max()
        assert moved < 1e-5, (
            "Changing token 3 should not affect the logits at positions 0 to 2; yours change by "
            f"{moved:.2g}."
        )

        # If the blocks add 0, x is E[token] + P[position], here (2, 0, 0, −2) and (0, 2, −2, 0). The
        # norm turns ±2 into ±√2.
        silent = GPT(vocab_size=2, max_length=2, d_model=4, n_heads=1, n_layers=2).eval()
        with torch.no_grad():
            for name, parameter in silent.blocks.named_parameters(remove_duplicate=False):
                if ".attention.out." in name or ".linear2." in name:
                    parameter.zero_()
            silent.token_embedding.weight.copy_(torch.tensor([[1.0, 1, -1, -1], [0, 1, 2, 0]]))
            silent.position_embedding.weight.copy_(torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
            seen = silent(torch.tensor([[0, 0]]))[0]
        wanted = 2**0.5 * torch.tensor([[2.0, 0], [2, -1]])
        assert torch.allclose(seen, wanted, atol=1e-4), (
            f"If the blocks add nothing, the tokens [0, 0] should give the logits\n{wanted}\n"
            f"yours gives\n{seen}\nThe logits are norm(E[token] + P[position]) times E transposed."
        )
        with torch.no_grad():
            for parameter in model.norm.parameters():
                parameter.mul_(2)
            doubled = model(tokens)
            for parameter in model.norm.parameters():
                parameter.div_(2)
        assert torch.allclose(doubled, 2 * logits, atol=1e-4), (
            "Doubling the weight and bias of `norm` should double the logits; yours do not double. Apply `norm` "
            "only once, after the last block."
        )

        caches = [KeyValueCache() for _ in range(2)]
        with expecting("Feeding pieces of 2, 1 and 2 tokens through caches should work"):
            pieces = torch.cat(
                [model(piece, caches) for piece in tokens.split([2, 1, 2], 1)], dim=1
            )
        assert pieces.shape == logits.shape, (
            "Pieces of 2, 1 and 2 tokens should give logits for 5 positions; yours have the "
            f"shape {tuple(pieces.shape)}."
        )
        for position, error in enumerate((pieces - logits).abs().amax(dim=(0, 2)).tolist()):
            assert error < 1e-5, (
                "Feeding pieces of 2, 1 and 2 tokens should give the same logits as feeding all "
                f"5 at once; at position {position}, yours differ by {error:.2g}. The second "
                "piece has position 2; the third has positions 3 and 4."
            )
        assert [len(cache) for cache in caches] == [5, 5], (
            "After 5 tokens, the caches of both blocks should contain 5 positions; yours contain "
            f"{[len(cache) for cache in caches]}. Does `forward` apply every block before it returns?"
        )
        with expecting_value_error("6 tokens with max_length 5", "max_length", "tokens"):
            model(torch.zeros(1, 6, dtype=torch.long))
        with expecting_value_error(
            "5 cached tokens and 1 more with max_length 5", "max_length", "tokens", "caches"
        ):
            model(tokens[:, :1], caches)
        assert [len(cache) for cache in caches] == [5, 5], (
            "A call that raises ValueError should leave the caches at length 5; yours have the "
            f"lengths {[len(cache) for cache in caches]}. Check the length before you run the "
            "blocks."
        )
        noisy = filled(GPT(7, 5, 6, 2, 2, dropout=0.5)).eval()
        assert torch.equal(noisy(tokens), noisy(tokens)), (
            "In evaluation mode, two calls should give equal results; yours differ. Is dropout "
            "active only in training mode?"
        )
        noisy.train()
        assert not torch.equal(noisy(tokens), noisy(tokens)), (
            "In training mode, dropout should make the results of two calls differ; yours are "
            "equal."
        )
        print("GPT: all visible checks pass.")

    check_GPT()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How long is the text so far? All caches have the same length, so read the length of the first one
# before any block runs. Positions are consecutive integers, which you look up like tokens.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The positions of n tokens are `start, …, start + n − 1`, where `start` is 0 or the length of the
# first cache. An `nn.Embedding` stores its table in `.weight`, of shape `v d`. To get the logits,
# multiply by its transpose. `zip(self.blocks, caches)` needs a list of `None` if there are no
# caches.
# </details>

# %% [markdown]
# **What to notice.** The smallest GPT-2 is this class with v = 50,257, `max_length` = 1,024, d = 768,
# 12 heads and 12 layers. torch initialises embeddings with a standard deviation of 1. The logit of the token
# just read is then of order d, the others of order √d. An untrained model repeats this
# token. GPT-2 uses a standard deviation of 0.02.

# %% [markdown]
# ## `next_token_loss`
# ★★☆☆☆ · 10 minutes
#
# The logits at position t predict token t + 1, so the targets are the text itself, shifted by one:
#
# $$\text{loss} = -\frac{1}{b\,(n - 1)} \sum_{r=0}^{b-1} \sum_{t=0}^{n-2}
# \log\, \operatorname{softmax}(\text{logits}_{r,t})\,[\text{tokens}_{r,t+1}]$$
#
# ```text
#   token             t   h   e   ␣   c   a   t
#   position          0   1   2   3   4   5   6
#   predicted at      ·   0   1   2   3   4   5
# ```
#
# The logarithm is natural, so the loss is in nats. Divide it by log 2 to get bits.
#
# **The trap.** Without the shift, the model only has to repeat the token it has just read. The loss
# drops quickly, but the model then writes the same letter forever.


# %%
def next_token_loss(
    logits: Float[Tensor, "b n v"], tokens: Int[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the mean of −log p(tokens[t + 1]) under logits[t], over all t < n − 1, in nats.

    n is at least 2, and all rows of the batch have equal weight. The result is correct for float32
    logits of ±10⁴.

    Source: Radford et al. (2018), section 3.1 (GPT).
    """
    ### BEGIN SOLUTION
    log_p = logits[:, :-1].log_softmax(dim=-1)
    return -log_p.gather(-1, tokens[:, 1:].unsqueeze(-1)).mean()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_next_token_loss():
        # Each position predicts 1/2, 1/4, 1/8 and 1/8, which cost 1, 2, 3 and 3 bits.
        logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().repeat(2, 3, 1)
        tokens = torch.tensor([[3, 0, 2], [1, 1, 3]])
        with expecting(
            "Logits of shape (2, 3, 4) and tokens of shape (2, 3) should give a loss",
            "`cross_entropy` takes the classes on axis 1; flatten the other axes, or move the last one.",
        ):
            loss = next_token_loss(logits, tokens)
        assert loss is not None, "next_token_loss returns None. Does it end with `return`?"
        assert isinstance(loss, Tensor), (
            f"The loss should be a tensor; yours is a {type(loss).__name__}. Do you call `item`?"
        )
        assert loss.shape == (), (
            f"The loss should be a scalar; yours has the shape {tuple(loss.shape)}."
        )
        assert abs(loss - 2.25 * math.log(2)) < 1e-5, (
            "The targets are tokens 0 and 2 in the first row, and 1 and 3 in the second. They "
            "cost 1, 3, 2 and 3 bits, which is 2.25 bits or 1.560 nats on average; yours is "
            f"{loss:.3f}."
        )
        # The model is certain that 1 follows 0 and 0 follows 1. The last prediction does not count.
        logits = torch.tensor([[[-1e4, 1e4], [1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]]])
        loss = next_token_loss(logits, torch.tensor([[0, 1, 0, 1]])).item()
        assert abs(loss) < 1e-3, (
            f"Predictions that are certain and correct should cost 0; yours cost {loss}. Is "
            "each token compared with the logits before it? Does `exp` overflow? `log_softmax` does not."
        )
        loss = next_token_loss(logits, torch.tensor([[0, 1, 0, 0]])).item()
        assert abs(loss - 2e4 / 3) < 1, (
            "One of three predictions is wrong by 20,000 nats, so the mean should be 6,666.7; "
            f"yours is {loss}. Does a probability underflow to 0 before you take its logarithm?"
        )
        print("next_token_loss: all visible checks pass.")

    check_next_token_loss()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write the tokens in a row, and below each token write the position that predicts it. Which
# prediction has no target, and which token is never predicted?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compare the logits of all positions but the last with all tokens but the first. `F.cross_entropy`
# expects the classes on the second axis, or batch and positions flattened into one axis.
# </details>

# %% [markdown]
# **What to notice.** A text of n tokens gives n − 1 training examples in one forward pass, with
# contexts of 1 to n − 1 tokens. This works only because no position attends to later tokens.

# %% [markdown]
# ## `next_token_probabilities`
# ★★★★☆ · 30 minutes
#
# To generate text, you draw each token from the predicted distribution. Unlikely tokens
# occasionally come up, and each makes the next prediction worse. So we sharpen the distribution and
# cut off its tail. Write one step at a time. At the end, add the argument checks above all steps.
#
# 1. **Temperature** T divides the logits before softmax. T < 1 makes likely tokens more likely. T =
#    0 needs its own case: the largest logit gets probability 1.
# 2. **Top-k** keeps the k most likely tokens and renormalises ([Fan et al.
#    2018](https://arxiv.org/abs/1805.04833), "Generation").
# 3. **Top-p**, or nucleus sampling, then keeps the smallest set of most likely tokens with a total
#    probability of at least p ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751), section
#    3.1).
#
# ![Left: of the probabilities 0.5, 0.25, 0.15 and 0.1, top_p = 0.6 keeps the first two. The
# probabilities before each of them add up to less than 0.6. After renormalising, they are 2/3 and
# 1/3. Right: for a confident and for an uncertain prediction, top_k = 2 keeps two tokens. With
# top_p = 0.8, one token remains for the confident prediction and four for the uncertain
# one.](figures/nucleus.svg)
#
# **The traps.** Keep the token that crosses the threshold. Otherwise, at p = 0.8, a token with
# probability 0.9 would be dropped and nothing would be left. Each row of a batch has its own
# cutoff.


# %%
def next_token_probabilities(
    logits: Float[Tensor, "*batch v"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "*batch v"]:
    """Return the distribution from which to draw the next token. It sums to 1.

    Args:
        logits: finite numbers.
        temperature: divides the logits. At 0, the largest logit gets probability 1.
        top_k: the number of largest logits to keep. None, or a number above v, keeps all.
        top_p: after `top_k` and renormalising, keep the smallest set of most likely tokens with a
            total probability of at least `top_p`. At least one token is kept. None keeps all.

    If logits tie at the cutoff, you may keep all of them or only as many as fit.

    Raises:
        ValueError: if `temperature` is negative, `top_k` is below 1, or `top_p` is outside (0, 1],
            even at temperature 0. The message names the invalid argument.

    Source: Fan et al. (2018) for top-k; Holtzman et al. (2020), section 3.1, for top-p.
    """
    ### BEGIN SOLUTION
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}, but it should be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but it should be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but it should be above 0 and at most 1")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    # The largest logit becomes 0, so dividing by a small temperature causes no overflow.
    shifted = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    p, order = shifted.softmax(dim=-1).sort(dim=-1, descending=True)
    if top_k is not None:
        p = p.masked_fill(torch.arange(p.shape[-1], device=p.device) >= top_k, 0)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None:
        more_likely = p.cumsum(dim=-1) - p  # the probability of all tokens before this one
        p = p.masked_fill(more_likely >= top_p, 0)
        p = p / p.sum(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_next_token_probabilities():
        logits = torch.tensor([0.15, 0.5, 0.1, 0.25]).log()
        steps = {
            "temperature": [
                ({}, [0.15, 0.5, 0.1, 0.25]),
                ({"temperature": 0.5}, [0.0652, 0.7246, 0.0290, 0.1812]),  # squares, renormalised
                ({"temperature": 0}, [0, 1, 0, 0]),
            ],
            "top_k": [
                ({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]),
                ({"top_k": 9}, [0.15, 0.5, 0.1, 0.25]),
                ({"temperature": 0.5, "top_k": 2}, [0, 0.8, 0, 0.2]),
            ],
            "top_p": [
                ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
                ({"top_p": 0.3}, [0, 1, 0, 0]),
                ({"top_p": 0.8}, [1 / 6, 5 / 9, 0, 5 / 18]),
                ({"top_p": 1.0}, [0.15, 0.5, 0.1, 0.25]),
            ],
            # With top_k=3, the most likely token has 5/9 of the probability. At temperature 0.5, it
            # has 0.7246.
            "two steps together": [
                ({"top_k": 3, "top_p": 0.53}, [0, 1, 0, 0]),
                ({"temperature": 0.5, "top_p": 0.7}, [0, 1, 0, 0]),
            ],
        }
        for step, cases in steps.items():
            for arguments, wanted in cases:
                with expecting(f"next_token_probabilities(logits, {arguments}) should work"):
                    seen = next_token_probabilities(logits, **arguments)
                assert seen is not None, (
                    "next_token_probabilities returns None. Does it end with `return`?"
                )
                assert seen.dtype == torch.float32, (
                    f"{step}: the result should have the dtype of the logits, torch.float32; with "
                    f"{arguments}, yours has {seen.dtype}. Convert it with `.to(logits.dtype)`."
                )
                target = torch.tensor(wanted, dtype=torch.float32)
                is_permuted = torch.allclose(seen.sort()[0], target.sort()[0], atol=1e-4)
                assert torch.allclose(seen, target, atol=1e-4), (
                    f"{step}: for the probabilities 0.15, 0.5, 0.1, 0.25 and "
                    f"{arguments or 'no other arguments'}, the result should be "
                    f"{[round(p, 3) for p in wanted]}; yours is {[round(p, 3) for p in seen.tolist()]}."
                    + " Is each probability at the index of its token?"
                    * is_permuted
                )
            print(f"next_token_probabilities, {step}: passes.")

        # In each row, a different token has the lowest probability. In the second row, `top_p` keeps all
        # three tokens that `top_k` keeps.
        rows = torch.tensor([[[0.15, 0.5, 0.1, 0.25]], [[0.24, 0.21, 0.32, 0.23]]]).log()
        wanted = torch.tensor([[[0, 2 / 3, 0, 1 / 3]], [[24 / 79, 0, 32 / 79, 23 / 79]]])
        with expecting("Logits of shape (2, 1, 4) should work", "Count axes from the end."):
            seen = next_token_probabilities(rows, top_k=3, top_p=0.8)
        assert seen.shape == (2, 1, 4), (
            f"The shape should be (2, 1, 4); yours is {tuple(seen.shape)}."
        )
        assert torch.allclose(seen, wanted, atol=1e-4), (
            f"With top_k=3 and top_p=0.8, the two rows should become\n{wanted}\nyours are\n"
            f"{seen}\nEach row needs its own order, cutoff and sum."
        )
        wrong = [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}]
        for arguments in [*wrong, {"temperature": 0, "top_k": 0}]:
            with expecting_value_error(f"{arguments}", list(arguments)[-1]):
                next_token_probabilities(logits, **arguments)
        print("next_token_probabilities: all visible checks pass.")

    check_next_token_probabilities()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Sort the probabilities in descending order; each filter then keeps a prefix. At the end, restore
# the original order. `sort` also returns the original index of each value.
# </details>
#
# <details><summary>Hint 2</summary>
#
# For top-p, check for each token whether the tokens *before* it already reach `top_p`. Their total
# probability is `cumsum` minus the token's own probability (0 for the first token). If this total
# is at least `top_p`, set the token's probability to 0 with `masked_fill`. Then renormalise, and
# restore the original order with `scatter(-1, order, p)`, where `p` holds the sorted probabilities.
# </details>


# %% tags=["support"]
def draw_filters(logits: Tensor, choices: list[dict]) -> None:
    """Plot the probabilities that each choice of arguments gives for the same logits."""
    panels = [next_token_probabilities(logits, **choice) for choice in choices]
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 2.4), sharey=True)
    for axis, choice, probabilities in zip(axes, choices, panels, strict=True):
        axis.bar(range(len(logits)), probabilities)
        title = ", ".join(f"{name} {value}" for name, value in choice.items())
        axis.set(title=title, xlabel="token, by rank", xticks=[])
    axes[0].set_ylabel("probability")
    figure.tight_layout()
    plt.show()


# %%
if __name__ == "__main__":
    with demonstration():
        falling = -0.35 * torch.arange(12.0)
        draw_filters(
            falling,
            [
                {"temperature": 1.0},
                {"temperature": 0.5},
                {"temperature": 2.0},
                {"top_k": 4},
                {"top_p": 0.6},
            ],
        )

# %% [markdown]
# **What to notice.** Temperature shifts probability between likely and unlikely tokens, but every
# token remains possible. Top-k and top-p remove the tail and scale up the rest. Here top-k keeps
# four tokens and top-p three.

# %% [markdown]
# ## `generate`
# ★★★★☆ · 30 minutes
#
# To generate text, run the model, draw a token from the probabilities at the last position, append
# it and repeat. With caches, each forward pass after the first reads only the newest token:
#
# ```text
#   the model reads    without cache      with cache
#   step 1  draws ␣    t h e              t h e
#   step 2  draws c    t h e ␣            ␣
#   step 3  draws a    t h e ␣ c          c
# ```
#
# **The traps.**
#
# * *The same tokens.* With the same seed, the tokens must be the same with and without the cache.
#   So call `torch.multinomial` exactly once per step for all rows, even at temperature 0.
# * *The model's mode.* Restore the original mode afterwards, and do not track gradients.


# %%
def generate(
    model: nn.Module,
    prompt: Int[Tensor, "b n"],
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b n+n_tokens"]:
    """Return the prompt, followed in each row by `n_tokens` tokens drawn from the model.

    Each step calls `torch.multinomial(probabilities, 1, generator=generator)` exactly once, with
    probabilities of shape `b v`, even at temperature 0. With the same seed, the tokens are then the
    same with and without the cache. `temperature`, `top_k` and `top_p` are passed to
    `next_token_probabilities`.

    With the cache (one `KeyValueCache` per block), the first call to the model gets the whole
    prompt, and each later call gets a single token. Without the cache, each call gets all tokens so
    far and no caches.

    The model runs in evaluation mode and without gradients. Its original mode is restored
    afterwards. `model` has the attributes `max_length`, `n_layers` and `blocks`, and
    `forward(tokens, caches=None)`.

    Raises:
        ValueError: if the result would be longer than `model.max_length`. The message names this
            limit or the prompt.
    """
    ### BEGIN SOLUTION
    if prompt.shape[1] + n_tokens > model.max_length:
        raise ValueError(
            f"a prompt of {prompt.shape[1]} and n_tokens = {n_tokens} do not fit into "
            f"max_length = {model.max_length}"
        )
    caches = [KeyValueCache() for _ in range(model.n_layers)] if use_cache else None
    was_training = model.training
    model.eval()
    tokens = unread = prompt
    with torch.no_grad():
        for _ in range(n_tokens):
            logits = model(unread, caches)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            drawn = torch.multinomial(p, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
            unread = drawn if use_cache else tokens
    model.train(was_training)
    return tokens
    ### END SOLUTION


# %%
if __name__ == "__main__":

    class CountingModel(nn.Module):
        """A model that predicts the sum of all tokens so far, modulo 10, and records its calls."""

        max_length, n_layers = 8, 2

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Identity() for _ in range(self.n_layers))
            # A solution may look up `next(model.parameters()).device`.
            self.weight = nn.Parameter(torch.zeros(1))
            self.n_read, self.modes, self.gradients, self.calls = [], set(), set(), []

        def __deepcopy__(self, memo):
            copied = type(self).__new__(type(self))
            vars(copied).update(vars(self))  # both record calls in the same lists
            return copied

        def forward(self, tokens, caches=None):
            self.n_read.append(tokens.shape[1])
            self.calls.append((tokens.shape[1], self.training, torch.is_grad_enabled()))
            self.modes.add(self.training)
            self.gradients.add(torch.is_grad_enabled())
            for cache in caches or ():  # each cache stores all tokens
                memory, _ = cache.append(tokens[:, None, :, None], tokens[:, None, :, None])
            known = memory[:, 0, :, 0] if caches else tokens
            following = known.cumsum(dim=1)[:, -tokens.shape[1] :] % 10
            return 2.0 * F.one_hot(following, 10) - 0.1 * torch.arange(10)  # no two are equal

    @visible_check
    def check_generate():
        prompt = torch.tensor([[1, 3], [2, 5]])
        wanted = torch.tensor([[1, 3, 4, 8, 6, 2], [2, 5, 7, 4, 8, 6]])
        for use_cache, enough in ((False, [2, 3, 4, 5]), (True, [2, 1, 1, 1])):
            model = CountingModel().train()
            with expecting(f"With use_cache={use_cache}, generating 4 tokens should work"):
                seen = generate(model, prompt, 4, temperature=0, use_cache=use_cache)
            assert seen is not None, "generate returns None. Does it end with `return`?"
            assert model.n_read[:4] == enough, (
                f"With use_cache={use_cache}, the model should read {enough} positions in the 4 "
                f"steps; yours reads {model.n_read}. Which tokens has the model not read yet?"
            )
            assert torch.equal(seen, wanted), (
                f"With use_cache={use_cache}, the result should be\n{wanted.tolist()}\nyours is\n"
                f"{seen.tolist()}\nThis model predicts the sum of all tokens so far, modulo 10."
            )
            assert model.modes == {False}, (
                "The model should be in evaluation mode while it generates; yours is not."
            )
            assert model.gradients == {False}, (
                "The model should run without gradients; yours tracks them. Use `torch.no_grad()`."
            )
            assert model.training, (
                "The model was in training mode before, so you should restore that mode; your function "
                "leaves it in evaluation mode."
            )
        model = CountingModel().eval()
        generate(model, prompt, 1, temperature=0)
        assert not model.training, (
            "The model was in evaluation mode before, so you should restore that mode; your function "
            "leaves it in training mode."
        )
        assert torch.equal(generate(CountingModel(), prompt, 0), prompt), (
            "n_tokens=0 should return the prompt."
        )
        with expecting("A prompt of 2 and 6 more tokens should fit into max_length=8"):
            generate(CountingModel(), prompt, 6, temperature=0)
        for arguments in ({"top_k": 1}, {"top_p": 0.01}):
            seen = generate(CountingModel(), prompt, 4, temperature=2.0, **arguments)
            assert torch.equal(seen, wanted), (
                f"With {arguments}, only the most likely token is left, so the result should be\n"
                f"{wanted.tolist()}\nyours is\n{seen.tolist()}\nDo you pass on top_k and top_p?"
            )

        with mock.patch("torch.multinomial", wraps=torch.multinomial) as draw:
            generate(CountingModel(), prompt, 4)
        assert draw.call_count <= 4, (
            "In 4 steps, torch.multinomial should be called 4 times, each time for all rows; yours "
            f"calls it {draw.call_count} times."
        )
        # Whatever the probabilities, four calls to multinomial leave the generator in the same state.
        for temperature, use_cache in ((0, True), (2.0, True), (2.0, False)):
            generator, like = (torch.Generator().manual_seed(1) for _ in range(2))
            settings = {"top_k": 5, "use_cache": use_cache, "generator": generator}
            seen = generate(CountingModel(), prompt, 4, temperature, **settings)
            for _ in range(4):
                torch.multinomial(torch.ones(2, 10), 1, generator=like)
            assert torch.equal(generator.get_state(), like.get_state()), (
                f"With temperature={temperature} and use_cache={use_cache}, each of the 4 steps "
                "should call torch.multinomial once for all rows, with `generator`; yours leaves "
                "`generator` in a different state."
            )
            more, expected = (
                generate(CountingModel(), prompt, 4, temperature=2.0, generator=used)
                for used in (generator, like)
            )
            assert torch.equal(more, expected), (
                f"After 4 steps with temperature={temperature}, the next tokens drawn with "
                f"`generator` should be {expected.tolist()}; yours are {more.tolist()}."
            )
            if use_cache:
                with_cache = seen
        assert torch.equal(seen, with_cache), (
            f"With the same seed, yours draws {with_cache.tolist()} with the cache and "
            f"{seen.tolist()} without it. The two results should be equal."
        )
        with expecting_value_error(
            "A prompt of 2 and 7 more tokens with max_length=8", "max_length", "n_tokens", "prompt"
        ):
            generate(CountingModel(), prompt, 7)
        print("generate: all visible checks pass.")

    check_generate()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep two tensors: all tokens so far, and those that the model has not read yet. Without a cache
# they are the same. `[KeyValueCache()] * n` contains the *same* cache n times.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Check the length, save `model.training`, then use `model.eval()` and `torch.no_grad()`. In each
# step, pass the logits of the last position (`b v`) to your `next_token_probabilities`. Then call
# `multinomial` once (it returns `b 1`) and append the result with `torch.cat` along the sequence
# axis.
# </details>

# %% [markdown]
# **What to notice.** The cache saves work without changing the predictions. But it requires causal
# attention. In a bidirectional model, each new token would change the keys and values of all
# earlier positions in every layer after the first.
# %% [markdown]
# ### Demonstration: your model is GPT-2
#
# *Further · 5 minutes*
#
# If `transformers` is installed, the next cell creates a small GPT-2 with random weights. It copies
# the weights into your `GPT` and compares the logits. With a network connection, it then downloads
# the real GPT-2 (550 MB, once) and continues a sentence with your code.


# %% tags=["support"]
def copy_weights(theirs, ours):
    """Copy the weights of a GPT-2 from `transformers`, which stores linear weights as (in, out)."""
    pairs = [(ours.token_embedding, theirs.wte), (ours.position_embedding, theirs.wpe)]
    pairs.append((ours.norm, theirs.ln_f))
    for block, other in zip(ours.blocks, theirs.h, strict=True):
        pairs += [(block.norm1, other.ln_1), (block.norm2, other.ln_2)]
        pairs += [(block.attention.qkv, other.attn.c_attn)]
        pairs += [(block.attention.out, other.attn.c_proj)]
        pairs += [(block.linear1, other.mlp.c_fc), (block.linear2, other.mlp.c_proj)]
    with torch.no_grad():
        for mine, other in pairs:
            for name, weight in other.named_parameters():
                turned = isinstance(mine, nn.Linear) and name == "weight"
                getattr(mine, name).copy_(weight.T if turned else weight)


def as_gpt(theirs):
    """Return your `GPT` with the weights of a GPT-2."""
    c = theirs.config
    ours = GPT(c.vocab_size, c.n_positions, c.n_embd, c.n_head, c.n_layer).eval()
    copy_weights(theirs.transformer, ours)
    return ours


def load_gpt2(transformers):
    """Load GPT-2 and its tokenizer from the cache or the network. Return None if both fail."""
    for offline in (True, False):
        try:
            if not offline:
                if os.environ.get("HF_HUB_OFFLINE"):
                    return None
                urllib.request.urlopen("https://huggingface.co", timeout=3).close()
                print("Downloading GPT-2 …")
            name, options = "openai-community/gpt2", {"local_files_only": offline}
            return (
                transformers.GPT2LMHeadModel.from_pretrained(name, **options).eval(),
                transformers.GPT2TokenizerFast.from_pretrained(name, **options),
            )
        except OSError:
            continue
    return None


def compare_with_gpt2(transformers):
    """Compare your logits with those of a small GPT-2 with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.2)
    tokens = torch.randint(100, (2, 32))
    with torch.no_grad():
        difference = (as_gpt(theirs)(tokens) - theirs(tokens).logits).abs().max().item()
    record("largest difference from GPT-2's logits", difference)


def continue_with_gpt2(transformers, beginning):
    """Continue a sentence with your code and the weights of the real GPT-2."""
    loaded = load_gpt2(transformers)
    if loaded is None:
        print(f"GPT-2 could not be downloaded. It would continue: {beginning} …")
        return
    theirs, tokenizer = loaded
    prompt = torch.tensor([tokenizer.encode(beginning)])
    generator = torch.Generator().manual_seed(0)
    tokens = generate(as_gpt(theirs), prompt, 40, top_p=0.9, generator=generator)
    print(tokenizer.decode(tokens[0].tolist()))


# %%
if __name__ == "__main__":
    with demonstration():
        try:
            import transformers

            transformers.logging.set_verbosity_error()
        except ImportError:
            print(
                "`transformers` is not installed. After `pip install transformers`, this cell "
                "compares your model's logits with GPT-2's and continues a sentence with GPT-2's "
                "weights."
            )
        else:
            compare_with_gpt2(transformers)
            continue_with_gpt2(transformers, "Attention is")

# %% [markdown]
# **What to notice.** The logits agree up to rounding (within 4·10⁻⁷ in the reference run), so every
# detail is right.
# %% [markdown]
# ## Your GPT at work: the Python manual
#
# Python ships with its language reference; `help("with")` prints part of it. This notebook's numbers
# are for Python 3.11: 427,000 characters without tables, 103 of them different. The first 90% is used
# for training; the rest is held out. Each character is a token.
#
# The manual repeats itself: the topics `with` and `while`, which are held out, are also part of
# `compound`. So passages of 40 or more characters that also occur in the held-out text are removed from
# the training text.

# %% tags=["support"]
TOPIC_TEXT = re.sub(r"^ *[+|].*\n", "", "\n".join(topics.values()), flags=re.MULTILINE)
TOPIC_SYMBOLS = sorted(set(TOPIC_TEXT))
TOPIC_COPY = 40  # the length of the shortest passage that counts as a copy


def topic_tokens(text: str) -> Int[Tensor, "n"]:
    """Encode each character as a token."""
    numbers = {symbol: number for number, symbol in enumerate(TOPIC_SYMBOLS)}
    return torch.tensor([numbers[symbol] for symbol in text])


def topic_text(tokens: Int[Tensor, "n"]) -> str:
    """Decode tokens to text."""
    return "".join(TOPIC_SYMBOLS[token] for token in tokens.tolist())


def passages(text: str) -> set[str]:
    """Return all passages of TOPIC_COPY characters in a text."""
    return {text[i : i + TOPIC_COPY] for i in range(len(text) - TOPIC_COPY + 1)}


def are_copied(text: str, other: str) -> Bool[Tensor, "n"]:
    """Return, for each character of `text`, whether it is part of a passage that also occurs in `other`."""
    known, copied = passages(other), torch.zeros(len(text), dtype=torch.bool)
    for i in range(len(text) - TOPIC_COPY + 1):
        if text[i : i + TOPIC_COPY] in known:
            copied[i : i + TOPIC_COPY] = True
    return copied


def without_copies(text: str, other: str) -> str:
    """Return `text` without passages of TOPIC_COPY characters that also occur in `other`."""
    copied, kept = passages(other), []
    for symbol in text:
        kept.append(symbol)
        if "".join(kept[-TOPIC_COPY:]) in copied:
            del kept[-TOPIC_COPY:]
    return "".join(kept)


TOPIC_SPLIT = len(TOPIC_TEXT) * 9 // 10
TOPIC_HELD_OUT = topic_tokens(TOPIC_TEXT[TOPIC_SPLIT:])
TOPIC_TRAINING = topic_tokens(without_copies(TOPIC_TEXT[:TOPIC_SPLIT], TOPIC_TEXT[TOPIC_SPLIT:]))

# %%
if __name__ == "__main__":
    training_text, held_out_text = map(topic_text, (TOPIC_TRAINING, TOPIC_HELD_OUT))
    assert passages(training_text).isdisjoint(passages(held_out_text))
    print(training_text[:300])
    print(
        f"{len(TOPIC_TRAINING):,} characters for training, {len(TOPIC_HELD_OUT):,} held out, "
        f"{len(TOPIC_SYMBOLS)} distinct characters"
    )

# %% [markdown]
# ### The baseline: n-gram models
#
# An **n-gram** model predicts a character from the n − 1 characters before it, by counting which
# characters followed them in the training text.
#
# If all characters were equally likely, each would cost 6.7 bits. The next cell also trains with
# the **leak**: the removed copies, which make up a tenth of the held-out text.
#
# <details><summary>What if a character never followed a particular context in the training text?</summary>
#
# Its probability comes from the model with a context one character shorter ([Witten and Bell
# 1991](https://doi.org/10.1109/18.87000), method C). Let *total* be the number of characters that
# followed a context, and *distinct* the number of different characters among them. On *distinct*
# occasions, the next character was one that had not followed this context before. Therefore,
#
# $$P_n(x \mid \text{context}) = \frac{\operatorname{count}(\text{context}\,x) + \text{distinct} \cdot
# P_{n-1}(x \mid \text{context without its first character})}{\text{total} + \text{distinct}}$$
#
# and $P_0$ is uniform. The probabilities sum to 1 over x, and none of them is 0.
# </details>


# %% tags=["support"]
def count_of(asked: np.ndarray, known: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Look up the count of each number in `asked`. Numbers that are not in the sorted array `known` have count 0."""
    at = np.searchsorted(known, asked).clip(max=len(known) - 1)
    return np.where(known[at] == asked, counts[at], 0)


def witten_bell(
    training: Int[Tensor, "n"], windows: Int[Tensor, "m order"], n_symbols: int
) -> list[Float[Tensor, "m"]]:
    """Return the probability of the last symbol of each window, given the symbols before it.

    The result contains one tensor per order, from 1 (unigrams) to the length of the windows.
    Source: Witten and Bell (1991), method C, interpolated.
    """
    probability = np.full(len(windows), 1 / n_symbols)
    of_orders = []
    for order in range(1, windows.shape[1] + 1):
        # Encode each string as a number whose digits are its symbols. `// n_symbols` gives its context.
        digits = n_symbols ** np.arange(order)[::-1]
        grams, counts = np.unique(training.unfold(0, order, 1).numpy() @ digits, return_counts=True)
        contexts, first, kinds = np.unique(
            grams // n_symbols, return_index=True, return_counts=True
        )
        followers = np.add.reduceat(counts, first)

        asked = windows[:, -order:].numpy() @ digits
        count = count_of(asked, grams, counts)
        total = count_of(asked // n_symbols, contexts, followers)
        distinct = count_of(asked // n_symbols, contexts, kinds)
        # If a context never occurred (total = distinct = 0), use the probability for the shorter context.
        mixed = (count + distinct * probability) / np.maximum(total + distinct, 1)
        probability = np.where(total > 0, mixed, probability)
        of_orders.append(torch.from_numpy(probability))
    return of_orders


# %%
if __name__ == "__main__":
    predict("With the leak, which order (1 to 8) predicts the copied passages best?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        longest = 8
        leaky = topic_tokens(TOPIC_TEXT[:TOPIC_SPLIT])
        copied = are_copied(TOPIC_TEXT[TOPIC_SPLIT:], TOPIC_TEXT[:TOPIC_SPLIT])
        losses = []
        for training in (leaky, TOPIC_TRAINING):
            # The end of the training text is the context of the first held-out characters.
            windows = torch.cat([training[1 - longest :], TOPIC_HELD_OUT]).unfold(0, longest, 1)
            losses.append(-torch.stack(witten_bell(training, windows, len(TOPIC_SYMBOLS))).log2())
        ngram_bits = {f"{n}-gram": row.mean().item() for n, row in enumerate(losses[1], start=1)}
        on_copies = losses[0][:, copied].mean(dim=1)
        predict.reveal(
            "With the leak, which order (1 to 8) predicts the copied passages best?",
            on_copies.argmin().item() + 1,
        )
        for name, bits in ngram_bits.items():
            record(f"bits per character, {name}", bits)
        print("\n         leak removed   with the leak (copied passages, other text)")
        for order, (name, bits) in enumerate(ngram_bits.items()):
            both, other = losses[0][order].mean(), losses[0][order, ~copied].mean()
            print(f"{name}{bits:15.2f}{both:16.2f} ({on_copies[order]:.2f}, {other:.2f})")

# %% [markdown]
# **What to notice.** Longer contexts help up to order 5. Many longer strings never occurred in
# training, so there is nothing to count. With the leak, the longest context is best on the copied
# passages, because the model only has to recite.
#
# A GPT represents contexts as vectors, so it can generalise from similar contexts.
#
# ### Training
#
# Each step reads 8 windows of 128 characters at random positions. The learning rate follows common
# practice: 200 warm-up steps, then cosine decay to 0.
#
# For a fair comparison, each held-out character is predicted once, only from earlier characters.
# The GPT reads windows that overlap by half. Only predictions in the second half of a window count;
# each has a context of 64 to 127 characters.

# %% tags=["support"]
GPT_STEPS = 2000  # when the first result is reported
GPT_LONG_STEPS = 4800  # the end of this training run
GPT_CONTEXT = 128
GPT_BATCH = 8


def held_out_bits(model: nn.Module) -> float:
    """Return the mean number of bits that the model needs per held-out character."""
    half = GPT_CONTEXT // 2
    filling = TOPIC_TRAINING[: -len(TOPIC_HELD_OUT) % half]  # completes the last window
    text = torch.cat([TOPIC_TRAINING[-half:], TOPIC_HELD_OUT, filling])
    log_p = []
    model.eval()
    with torch.no_grad():
        for windows in text.unfold(0, GPT_CONTEXT, half).split(64):
            guesses = model(windows)[:, half - 1 : -1].log_softmax(dim=-1)
            log_p.append(guesses.gather(-1, windows[:, half:].unsqueeze(-1)).flatten())
    model.train()
    return -torch.cat(log_p)[: len(TOPIC_HELD_OUT)].mean().item() / math.log(2)


def train_gpt(model: nn.Module, seed: int) -> list[tuple[int, float, float, float]]:
    """Train `model` for GPT_LONG_STEPS steps.

    Return one row per measurement: step, seconds elapsed, and bits per character on training text
    (the mean since the previous row) and on held-out text.
    """
    generator = torch.Generator().manual_seed(seed)
    for table in (model.token_embedding.weight, model.position_embedding.weight):
        nn.init.normal_(table, std=0.1, generator=generator)
    for block in model.blocks:
        for linear in (block.attention.out, block.linear2):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / 200, 0.5 + 0.5 * math.cos(math.pi * step / GPT_LONG_STEPS)),
    )
    places = TOPIC_TRAINING.unfold(0, GPT_CONTEXT, 1)
    measured = {GPT_STEPS, *range(0, GPT_LONG_STEPS, 400), GPT_LONG_STEPS}
    rows, losses = [], []
    started = time.perf_counter()
    model.train()
    # tqdm writes to stderr by default, which JupyterLab shows on a red background.
    for step in tqdm(
        range(1, GPT_LONG_STEPS + 1), "training GPT", mininterval=0.5, file=sys.stdout
    ):
        windows = places[torch.randint(len(places), (GPT_BATCH,), generator=generator)]
        loss = next_token_loss(model(windows), windows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item() / math.log(2))
        if step in measured:
            bits = held_out_bits(model)
            rows.append((step, time.perf_counter() - started, sum(losses) / len(losses), bits))
            losses = []
    return rows


@functools.cache
def trained_gpt(seed: int = 0) -> tuple[nn.Module, list[tuple[int, float, float, float]]]:
    """Return a GPT trained on the manual, and the rows from `train_gpt`. Later calls reuse the result."""
    torch.manual_seed(seed)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    model = GPT(len(TOPIC_SYMBOLS), GPT_CONTEXT, d_model=96, n_heads=4, n_layers=3, dropout=0.1)
    rows = train_gpt(model, seed)
    torch.set_num_threads(n_threads)
    return model.eval(), rows


# %% tags=["support"]
def draw_bits(rows: list[tuple[int, float, float, float]], ngram_bits: dict[str, float]) -> None:
    """Plot bits per character against the training step, with a line for each n-gram model."""
    steps, _, training, held_out = zip(*rows, strict=True)
    figure, axis = plt.subplots(figsize=(8, 4.5))
    axis.plot(steps, training, color="tab:gray", label="GPT, training text (mean of 400 steps)")
    axis.plot(steps, held_out, "o-", color="tab:blue", label="GPT, held-out text")
    for name, where in (("2-gram", 3), ("3-gram", 3), ("4-gram", 3), ("5-gram", -10)):
        axis.axhline(ngram_bits[name], color="tab:orange", linestyle="--", linewidth=1)
        axis.annotate(
            name,
            (0, ngram_bits[name]),
            xycoords=axis.get_yaxis_transform(),
            color="tab:orange",
            xytext=(4, where),
            textcoords="offset points",
        )
    axis.set(xlabel="step", ylabel="bits per character")
    axis.set_title("GPT and n-gram models")
    axis.set_xlim(left=0)
    axis.legend()
    figure.tight_layout()
    plt.show()


# %%
if __name__ == "__main__":
    predict("How many bits per held-out character will your GPT need?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        trained_gpt.cache_clear()  # rerunning this cell trains again
        trained_gpt()

# %%
if __name__ == "__main__":
    with demonstration():
        _, rows = trained_gpt()
        predict.reveal("How many bits per held-out character will your GPT need?", rows[-1][-1])
        at_checkpoint = next(row for row in rows if row[0] == GPT_STEPS)
        for step, seconds, _, bits in (at_checkpoint, rows[-1]):
            record(f"bits per character, GPT after {step} steps", bits)
            record(f"seconds, GPT after {step} steps", seconds)
        print("\nmodel     bits per character")
        for name, bits in (*ngram_bits.items(), ("GPT", rows[-1][-1])):
            print(f"{name:<10}{bits:.3f}  {'█' * round(10 * bits)}")
        draw_bits(rows, ngram_bits)

# %% [markdown]
# **What to notice.** The best n-gram model (order 5) needs 2.27 bits per character. The GPT needs
# 2.25 after 2,000 steps and 1.98 after 4,800. The n-gram model trains in seconds, and
# training longer would not improve it. A GPT improves with more steps, parameters and text; its
# loss follows power laws ([Kaplan et al. 2020](https://arxiv.org/abs/2001.08361), section 3).
#
# <details><summary>Why is the loss on held-out text lower than on training text for the first 2,000
# steps?</summary>
#
# The grey line is the mean over the 400 steps before, when the model was worse. Dropout is active
# during training, and the first characters of a training window have hardly any context.
# </details>
#
# ### What the model writes
#
# There are only 128 position embeddings, so the text is generated in chunks: the last 64 characters
# are the prompt for the next 64.
#
# **Your experiment.** Choose a prompt, a temperature and `top_p` in the second cell, and predict. Then
# change one of the three.


# %% tags=["support"]
def write(model, beginning, temperature, top_p):
    """Continue a text by seven chunks of 64 characters."""
    generator = torch.Generator().manual_seed(0)
    tokens = topic_tokens(beginning).unsqueeze(0)
    for _ in range(7):
        context = tokens[:, -64:]
        longer = generate(model, context, 64, temperature, top_p=top_p, generator=generator)
        tokens = torch.cat([tokens, longer[:, context.shape[1] :]], dim=1)
    return topic_text(tokens[0])


# %%
if __name__ == "__main__":
    predict("What percentage of the words in your text will occur in the training text?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        my_prompt, my_temperature, my_top_p = "The statement ", 0.6, None
        gpt, _ = trained_gpt()
        written = write(gpt, my_prompt, my_temperature, my_top_p)
        words = re.findall("[A-Za-z]+", written[len(my_prompt) :])
        known = set(re.findall("[A-Za-z]+", topic_text(TOPIC_TRAINING)))
        predict.reveal(
            "What percentage of the words in your text will occur in the training text?",
            100 * sum(word in known for word in words) / max(1, len(words)),
        )
        print(written)

# %% [markdown]
# **What to notice.** Without `top_p`, most words are real at temperature 0.6. At 0.3, the model repeats
# itself. At 1.5 it draws unlikely characters, and the text soon looks unlike anything in the training
# data. `top_p` = 0.5 prevents this.

# %% [markdown]
# ### Where heads look
#
# *Further · 5 minutes*
#
# The output of `qkv` contains all queries and keys. From it, `look` computes the attention weights of
# each head. It also shows how the temperature changes the probabilities of the next character.

# %%
if __name__ == "__main__":
    with demonstration():
        gpt, _ = trained_gpt()
        text = topic_tokens("an expression statement").unsqueeze(0)
        look(gpt, text, symbols=TOPIC_SYMBOLS, n_heads=4)

# %% [markdown]
# **What to notice.** In the first block, head 1 attends to the previous character, with a weight of
# 1.00 (seed 0). The model learned this from the loss alone: two characters predict the next better
# than one. Head 3 attends to the character before that (0.61). At the last step, a space and `s` have
# nearly all of the probability at temperature 0.3, but less than half at 1.5.

# %% [markdown]
# ### What the cache saves
#
# *Further · 5 minutes*
#
# The next cell generates text with and without the cache, on one thread. The weights do not affect
# the time, so the model is untrained.


# %% tags=["support"]
def seconds_to_write(model: nn.Module, n_tokens: int, use_cache: bool) -> float:
    """Return the CPU time needed to generate `n_tokens` tokens from a prompt of one token."""
    before = time.process_time()
    generate(model, torch.zeros(1, 1, dtype=torch.long), n_tokens, use_cache=use_cache)
    return time.process_time() - before


def draw_seconds(lengths: list[int], cached: list[float], uncached: list[float]) -> None:
    """Plot the times with and without a cache against the number of tokens."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    axis.plot(lengths, uncached, "o-", color="tab:orange", label="without cache")
    axis.plot(lengths, cached, "o-", color="tab:blue", label="with cache")
    axis.set(xlabel="tokens generated", ylabel="CPU time (s)", title="time to generate text")
    axis.legend()
    figure.tight_layout()
    plt.show()


# %%
if __name__ == "__main__":
    with demonstration():
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        untrained = GPT(len(TOPIC_SYMBOLS), 513, d_model=96, n_heads=4, n_layers=3)
        lengths = [64, 128, 256, 512]
        seconds_to_write(untrained, 8, use_cache=True)  # warm-up: the first calls are slower
        cached = [seconds_to_write(untrained, n, use_cache=True) for n in lengths]
        uncached = [seconds_to_write(untrained, n, use_cache=False) for n in lengths]
        torch.set_num_threads(n_threads)
        record("seconds for 512 tokens, with cache", cached[-1])
        record("seconds for 512 tokens, without cache", uncached[-1])
        draw_seconds(lengths, cached, uncached)

# %% [markdown]
# **What to notice.** With the cache, twice as many tokens take about twice as long. Without it, the
# time grows much faster: 512 tokens take 4.3 s of CPU time instead of 0.60 s.

# %% [markdown]
# **Read.** [Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf),
# sections 2 and 3. [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Transformer Basics".
# [Holtzman et al. 2020](https://arxiv.org/abs/1904.09751), sections 1 and 4.3: why the most likely
# text is degenerate.
#
# **Discuss.**
#
# 1. A word-level model and a character-level model both report their loss per token. Why can't you
#    compare these numbers, and what could you compare instead?
# 2. The GPT predicts held-out text better than n-gram models do, yet its text makes no sense. What
#    does a loss of 1.98 bits per character measure, and what does it not measure?
#
# <details><summary>Answers</summary>
#
# 1. A word is harder to predict than a character, but a text has fewer words than characters.
#    Compare bits per character on the same text: the sum of the losses in bits, divided by the number
#    of characters.
# 2. It measures how well the model predicts each next character of real text. Spelling and common
#    phrases account for most of the loss. During generation, the model continues its own text, and
#    errors accumulate. Meaning depends on a few characters that are far apart and hardly affect the
#    mean loss.
# </details>
