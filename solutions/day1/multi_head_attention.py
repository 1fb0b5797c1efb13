# %% [markdown]
# # Multi-head attention
#
# *Chapter 4 of 7*
#
# A single attention head gives each token one weighted mean. But a token may need several things at
# once. A verb needs its subject, a pronoun needs its noun, and both need the previous word.
# **Multi-head attention** runs several heads in parallel. Each head has its own queries, keys and
# values.
#
# ![Linear maps turn query, key and value into new vectors, which are split into heads. Each head
# computes attention separately. The results are merged, and a final linear map mixes
# them.](figures/multi-head.svg)
#
# The linear maps W_q, W_k and W_v are learned. They determine what each token looks for, which
# queries it matches, and what it passes on. Each output of a map mixes all d input features; each
# head uses d_head = d / h outputs. In today's example, without linear maps, head 0 would compare
# only redness, and head 1 only blueness.

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solutions.day1.masking import masked_attention
from solutions.day1.positional_encoding import shift_matrix, sinusoidal_encoding
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
# ## `split_heads`
# ★★☆☆☆ · 10 minutes
#
# Your attention function accepts any number of leading axes. If one of them is the head axis, it
# processes each head separately, without a loop. So split the feature axis into heads, and move the
# head axis in front of the position axis:
#
# ![A 2 × 6 matrix contains the letters a to l. Head 0 gets the first three columns of both rows,
# and head 1 gets the last three. Merging puts them side by side again.](figures/heads.svg)
#
# $$\underbrace{x}_{b \times n \times d} \;\longrightarrow\;
# \underbrace{y}_{b \times h \times n \times d_\text{head}}
# \qquad y[s, r, p, j] = x[s, p, r \cdot d_\text{head} + j]$$
#
# (s: sequence, r: head, p: position, j: feature within the head)
#
# **The trap.** You can *view* any contiguous tensor of b·n·d numbers as `b h n d_head`. The shape
# is right, and there is no error. Follow the letter e in the figure. In memory, the letters are in
# the order a, b, c, d, e, …. Where would a plain view put e? A model with this mistake still trains,
# but its heads mix positions, including future ones.


# %%
def split_heads(x: Float[Tensor, "b n d"], n_heads: int) -> Float[Tensor, "b n_heads n d_head"]:
    """Split the features of `x` into heads.

    Head r gets features r·d_head to (r+1)·d_head − 1, where d_head is d / `n_heads`.

    Raises:
        ValueError: if d is not divisible by `n_heads`. The message names one of them.

    Source: Vaswani et al. (2017), section 3.2.2.
    """
    ### BEGIN SOLUTION
    d = x.shape[-1]
    if d % n_heads:
        raise ValueError(f"d is {d}, which is not divisible by n_heads = {n_heads}")
    by_head = x.unflatten(-1, (n_heads, d // n_heads))  # b n h d_head
    return by_head.transpose(1, 2)  # b h n d_head
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_split_heads():
        # Use numbers instead of the letters in the figure, and 3 positions.
        x = torch.arange(18.0).reshape(1, 3, 6)
        first, second = [[0, 1, 2], [6, 7, 8], [12, 13, 14]], [[3, 4, 5], [9, 10, 11], [15, 16, 17]]
        expected = torch.tensor([[first, second]]).float()
        with expecting(
            "Splitting x of shape (1, 3, 6) into 2 heads should give shape (1, 2, 3, 3)"
        ):
            heads = split_heads(x, 2)
        assert heads is not None, "split_heads returns None. Does it end with `return`?"
        assert heads.shape == (1, 2, 3, 3), (
            "Splitting x of shape (1, 3, 6) into 2 heads should give shape (1, 2, 3, 3); yours is "
            f"{tuple(heads.shape)}. The order of the axes is b, h, n, d_head."
        )
        assert torch.equal(heads, expected), (
            f"The two heads of\n{x}\nshould be\n{expected}\nyours are\n{heads}\n"
            "Each row should contain adjacent features of one position. `reshape` cannot swap axes."
        )
        # With one position, only the order of the features matters.
        heads = split_heads(torch.arange(12.0).reshape(1, 1, 12), 3)
        assert heads.shape == (1, 3, 1, 4), (
            "Splitting x of shape (1, 1, 12) into 3 heads should give shape (1, 3, 1, 4); yours is "
            f"{tuple(heads.shape)}."
        )
        assert heads[0, 1, 0].tolist() == [4, 5, 6, 7], (
            "With 12 features and 3 heads, head 1 should get features 4, 5, 6 and 7; yours gets "
            f"{heads[0, 1, 0].tolist()}. The features of a head are adjacent."
        )
        with expecting_value_error("Splitting 6 features into 4 heads", "d", "n_heads", "x", "h"):
            split_heads(x, 4)
        print("split_heads: all visible checks pass.")

    check_split_heads()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Use two steps, and write the shape after each step in a comment. The first step splits the last
# axis in two. The second step only reorders the axes.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `reshape` and `unflatten` split an axis, and `transpose` swaps two axes. After the first step, the
# shape is `b n h d_head`.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Use 3 positions with 8 features each. Each entry equals its own offset in memory.
        numbered = torch.arange(24.0).reshape(1, 3, 8)
        split = split_heads(numbered, 2)
        figure, axes = plt.subplots(
            1, 3, figsize=(11, 2.2), gridspec_kw={"width_ratios": [2, 1, 1]}
        )
        panels = [("x: n × d", numbered[0]), ("head 0", split[0, 0]), ("head 1", split[0, 1])]
        for axis, (title, entries) in zip(axes, panels, strict=True):
            # The colour shows which head a feature belongs to: blue for head 0, orange for head 1.
            axis.imshow(entries % 8 // 4, cmap="coolwarm", vmin=-1.5, vmax=2.5, aspect="auto")
            for row, numbers in enumerate(entries.tolist()):
                for column, number in enumerate(numbers):
                    axis.text(column, row, f"{number:g}", ha="center", va="center")
            axis.set(title=title, ylabel="position", yticks=range(3), xticks=[])
        figure.tight_layout()
        plt.show()
        print(f"strides of x: {numbered.stride()}, of the heads: {split.stride()}")
        print(f"the same memory: {numbered.data_ptr() == split.data_ptr()}")

# %% [markdown]
# **What to notice.** Each head is drawn in a single colour and contains every position once. If the
# last line shows `True`, your split copied no data and only changed the strides. Copying is equally
# correct.

# %% [markdown]
# ## `merge_heads`
# ★★☆☆☆ · 5 minutes
#
# After attention, each position has h results with d_head features each. Concatenate them:
#
# $$\underbrace{y}_{b \times h \times n \times d_\text{head}} \;\longrightarrow\;
# \underbrace{x}_{b \times n \times d}
# \qquad x[s, p, r \cdot d_\text{head} + j] = y[s, r, p, j]$$
#
# **The trap.** Again, a reshape alone gives the right shape but the wrong values. If axes have been
# swapped, `view` raises an error; read its message.


# %%
def merge_heads(x: Float[Tensor, "b h n d_head"]) -> Float[Tensor, "b n h*d_head"]:
    """Concatenate the features of all heads, starting with head 0. This inverts `split_heads`.

    Source: Vaswani et al. (2017), section 3.2.2.
    """
    ### BEGIN SOLUTION
    return x.transpose(1, 2).flatten(2)  # b n h d_head -> b n h·d_head
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_merge_heads():
        heads = torch.tensor([[[[0.0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]])
        with expecting("Heads of shape (1, 2, 2, 3) should give shape (1, 2, 6)"):
            merged = merge_heads(heads)
        assert merged is not None, "merge_heads returns None. Does it end with `return`?"
        assert merged.shape == (1, 2, 6), (
            f"Heads of shape (1, 2, 2, 3) should give shape (1, 2, 6); yours is {tuple(merged.shape)}."
        )
        assert merged.flatten().tolist() == list(range(12)), (
            f"The rows should be 0 to 5 and 6 to 11; yours are\n{merged[0]}\n"
            "A row contains the features of one position in all heads."
        )
        # Mark one of three heads. Its features must end up next to each other.
        marked = torch.zeros(2, 3, 5, 4)
        marked[:, 1] = 1
        with expecting(
            "Heads of shape (2, 3, 5, 4) should give shape (2, 5, 12)",
            "`view` can only merge axes that are adjacent in memory; `reshape` copies if it has to.",
        ):
            row = merge_heads(marked)[1, 2].tolist()
        assert row == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], (
            f"With 3 heads, head 1 should fill features 4 to 7 at each position; yours gives {row}."
        )
        print("merge_heads: all visible checks pass.")

    check_merge_heads()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Undo the two steps of `split_heads` in reverse order.
# </details>
#
# <details><summary>Hint 2</summary>
#
# First permute the axes to `b n h d_head`, then merge the last two. `view` can only merge axes that
# are adjacent in memory; `reshape` and `flatten` copy the data if they have to.
# </details>

# %% [markdown]
# **What to notice.** Splitting needs no copy, but merging usually does: after attention, the
# features of one position are in h different places.

# %% [markdown]
# ## `MultiHeadAttention`
# ★★★★☆ · 20 minutes
#
# Three linear maps compute queries, keys and values from the inputs. Each head computes attention,
# and a fourth linear map mixes the results:
#
# $$Q = \mathrm{split}(x_q W_q^\top + b_q) \qquad K = \mathrm{split}(x_k W_k^\top + b_k) \qquad
# V = \mathrm{split}(x_v W_v^\top + b_v)$$
#
# $$\underbrace{A}_{b \times h \times n \times m}
# = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d_\text{head}}}\right) \qquad
# \underbrace{z}_{b \times n \times d} = \mathrm{merge}(A V)\, W_o^\top + b_o$$
#
# In self-attention, $x_q$, $x_k$ and $x_v$ are the same. In cross-attention, $x_q$ comes from the
# decoder and the other two come from the encoder, so n and m may differ.
#
# **The traps.**
#
# * Which d belongs under the square root? `masked_attention` gets it right if you pass it the right
#   tensors.
# * A mask has shape `n m`, `b 1 m` or `b n m` and applies to all heads. The scores also have a head
#   axis, and broadcasting aligns axes from the end. If b = h, aligning the wrong axes raises no
#   error.
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention` and
# `multi_head_attention_forward`.


# %%
class MultiHeadAttention(nn.Module):
    """Attention with several heads, each of which uses its own slice of the projected features.

    Attributes to define: `query`, `key`, `value` and `out`. Each is an `nn.Linear` from `d_model` to
    `d_model`, without a bias if `bias` is False. With copied weights, the layer matches
    `nn.MultiheadAttention`.

    Raises:
        ValueError: if `d_model` is not divisible by `n_heads`. The message names one of them.

    Source: Vaswani et al. (2017), section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int, bias: bool = True):
        super().__init__()
        ### BEGIN SOLUTION
        if d_model % n_heads:
            raise ValueError(f"d_model is {d_model}, not divisible by n_heads = {n_heads}")
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.key = nn.Linear(d_model, d_model, bias=bias)
        self.value = nn.Linear(d_model, d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)
        ### END SOLUTION

    def forward(
        self,
        query: Float[Tensor, "b n d_model"],
        key: Float[Tensor, "b m d_model"],
        value: Float[Tensor, "b m d_model"],
        mask: Bool[Tensor, "#n m"] | Bool[Tensor, "#b #n m"] | None = None,
    ) -> tuple[Float[Tensor, "b n d_model"], Float[Tensor, "b h n m"]]:
        """Compute attention separately in each head and combine the results.

        Args:
            query, key, value: the inputs of the linear maps.
            mask: True where attention is allowed. It has two or three axes, broadcasts to `b n m` and
                applies to all heads. None allows everything.

        Returns:
            the pair (output, weights), with separate weights for each head. If a query has no allowed
            keys, its weights are 0 and its output is `out` applied to zeros.
        """
        ### BEGIN SOLUTION
        if mask is not None:
            mask = mask.unsqueeze(-3)  # an axis for the heads: 1 n m or b 1 n m
        heads, weights = masked_attention(
            split_heads(self.query(query), self.n_heads),
            split_heads(self.key(key), self.n_heads),
            split_heads(self.value(value), self.n_heads),
            mask,
        )
        return self.out(merge_heads(heads)), weights
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_MultiHeadAttention():
        layer = MultiHeadAttention(8, 2)
        parameters = dict(layer.named_parameters(remove_duplicate=False))
        shapes = {name: tuple(weight.shape) for name, weight in parameters.items()}
        wanted = {f"{name}.weight": (8, 8) for name in ("query", "key", "value", "out")}
        wanted |= {f"{name}.bias": (8,) for name in ("query", "key", "value", "out")}
        assert wanted.items() <= shapes.items(), (
            f"The parameters should be\n{wanted}\nyours are\n{shapes}\n"
            "Check the attribute names and sizes in the docstring."
        )
        assert len({parameters[name] for name in wanted}) == len(wanted), (
            "`query`, `key`, `value` and `out` should be separate modules; yours share parameters."
        )
        layer = filled(layer)
        query, key, value = (
            fixed_numbers(3, 4, 8),
            fixed_numbers(3, 5, 8).cos(),
            fixed_numbers(3, 5, 8).exp(),
        )
        with expecting(
            "A query of shape (3, 4, 8) with a key and value of shape (3, 5, 8) should work",
            "Apply the three linear maps first, then split queries, keys and values into heads.",
        ):
            result = layer(query, key, value)
        assert isinstance(result, tuple | list), (
            "forward should return the pair (output, weights); yours returns a "
            f"{type(result).__name__}."
        )
        output, weights = result
        assert output.shape == (3, 4, 8), (
            "The output should have the same shape as the query, (3, 4, 8); yours has shape "
            f"{tuple(output.shape)}."
        )
        assert weights.shape == (3, 2, 4, 5), (
            "The weights should have shape (b, h, n, m) = (3, 2, 4, 5); yours have shape "
            f"{tuple(weights.shape)}."
        )
        # Compare with torch's own layer, which stores the weights of the three projections in one tensor.
        theirs = nn.MultiheadAttention(8, 2, batch_first=True)
        with torch.no_grad():
            ours = (layer.query, layer.key, layer.value)
            theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in ours]))
            theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in ours]))
            theirs.out_proj.load_state_dict(layer.out.state_dict())
        their_output, their_weights = theirs(query, key, value, average_attn_weights=False)
        sums = weights.sum(dim=-1)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-3), (
            f"The weights of each query should sum to 1 over the keys; yours sum to\n{sums.detach()}"
        )
        error = (weights - their_weights).abs().max().item()
        assert error < 1e-3, (
            "Your attention weights should match those of nn.MultiheadAttention; they differ by up to "
            f"{error:.2g}. d_head is 4, so √d_head is 2."
        )
        error = (output - their_output).abs().max().item()
        assert error < 1e-3, (
            "Your attention weights are right, but the output should match that of "
            f"nn.MultiheadAttention; it differs by up to {error:.2g}. Check `value`, the merge and `out`."
        )

        # Hide a different key in each sequence. The content of that position must not matter.
        mask = torch.ones(3, 1, 5, dtype=torch.bool)
        for sequence, hidden in enumerate((4, 0, 2)):
            mask[sequence, 0, hidden] = False
        with expecting(
            "A mask of shape (b, 1, m) = (3, 1, 5) should work for weights of shape (3, 2, 4, 5)",
            "The mask needs an axis for the heads, in the same place as in the weights, b h n m.",
        ):
            output, weights = layer(query, key, value, mask)
        for sequence, hidden in enumerate((4, 0, 2)):
            seen = weights[sequence, :, :, hidden].abs().max().item()
            assert seen == 0, (
                f"Key {hidden} of sequence {sequence} is masked, so its weights should be 0; yours are "
                f"up to {seen:.2g}."
            )
        changed = value.clone()
        for sequence, hidden in enumerate((4, 0, 2)):
            changed[sequence, hidden] += 100
        moved = (layer(query, key, changed, mask)[0] - output).abs().max().item()
        assert moved < 1e-3, (
            f"A masked value should not affect the output; in your layer, it changes the output by up to {moved:.2g}."
        )
        for queries in (3, 4):
            causal = torch.ones(queries, 5, dtype=torch.bool).tril()
            with expecting(
                f"A mask of shape (n, m) = ({queries}, 5), without a batch axis, should work",
                "With two axes, `unsqueeze(1)` puts the new axis between n and m. Count from the end.",
            ):
                _, weights = layer(query[:, :queries], key, value, causal)
            assert weights.shape == (3, 2, queries, 5), (
                f"The weights should have shape (3, 2, {queries}, 5); yours have shape {tuple(weights.shape)}."
            )
            seen = weights.masked_fill(causal, 0).abs().max().item()
            assert seen == 0, (
                f"With a causal mask of shape (n, m) = ({queries}, 5), later keys should have weights of 0; "
                f"yours have weights up to {seen:.2g}. The two axes of the mask are queries and keys."
            )
        full = mask & torch.ones(4, 5, dtype=torch.bool).tril(1)
        with expecting("A mask of shape (b, n, m) = (3, 4, 5) should work"):
            _, weights = layer(query, key, value, full)
        seen = weights.masked_fill(full[:, None], 0).abs().max().item()
        assert seen == 0, (
            "With a mask of shape (b, n, m), masked keys should have weights of 0; yours have weights "
            f"up to {seen:.2g}."
        )
        nothing = torch.zeros(4, 5, dtype=torch.bool)
        output, weights = layer(query, key, value, nothing)
        assert torch.allclose(output, layer.out.bias.expand(3, 4, 8)), (
            "If every key is masked, the output should be `out` applied to 0, which is its bias "
            f"{layer.out.bias.tolist()}; yours is {output[0, 0].tolist()}."
        )
        with_bias = [
            n for n, _ in MultiHeadAttention(8, 2, bias=False).named_parameters() if "bias" in n
        ]
        assert not with_bias, (
            f"With bias=False, the layer should have no biases; yours has {with_bias}."
        )
        with expecting_value_error("Splitting 8 features into 3 heads", "d_model", "n_heads"):
            MultiHeadAttention(8, 3)
        print("MultiHeadAttention: all visible checks pass.")

    check_MultiHeadAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Follow the figure at the top of this chapter from left to right; you have already written all the
# pieces. Split queries, keys *and* values before you call `masked_attention`. It divides by the
# square root of the number of features that it receives. Print that number.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The scores have shape `b h n m`. A mask of shape `b n m` needs an axis of size 1 for the heads. It
# is the third axis from the end, whether the mask has two axes or three. `unsqueeze` accepts
# negative indices. If the mask is None, leave it as None.
# </details>
#
# <details><summary>Help! The mask raises an error, or a masked key has a nonzero weight</summary>
#
# Write the shapes one below the other, right-aligned:
#
# ```
# scores    b h n m        scores    b h n m        scores    b h n m
# mask        n m          mask        b n m        mask      b 1 n m
# fits as it is            wrong: b aligns with h   fits
# ```
#
# `unsqueeze(1)` is right for a mask with three axes, but it turns `n m` into `n 1 m`, which then
# broadcasts along the wrong axes. `unsqueeze(-3)` is right for both kinds of mask.
# </details>

# %%
if __name__ == "__main__":

    def weights_by_hand(offsets, sharpness=5.0):
        """Return the weights of a layer whose heads attend by offset. Its linear maps are set by hand."""
        layer = MultiHeadAttention(128, 4, bias=False)
        with torch.no_grad():
            for head, head_offset in enumerate(offsets):
                rows = slice(head * 32, (head + 1) * 32)
                # Use the 16 fastest pairs. Each query is the encoding of a shifted position.
                layer.key.weight[rows] = torch.eye(128)[:32]
                layer.query.weight[rows] = sharpness * shift_matrix(head_offset, 128)[:32]
            places = sinusoidal_encoding(12, 128).unsqueeze(0)
            return layer(places, places, places)[1][0]

    with demonstration():
        wanted_offsets = (-1, 0, 1, -4)
        titles = [f"offset {head_offset}" for head_offset in wanted_offsets]
        look(dict(zip(titles, weights_by_hand(wanted_offsets), strict=True)), range(12))

# %%
if __name__ == "__main__":
    predict("For d = 64, one head has 16,640 parameters. How many have 8 heads?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        sizes = {
            n_heads: sum(p.numel() for p in MultiHeadAttention(64, n_heads).parameters())
            for n_heads in (1, 2, 4, 8)
        }
        predict.reveal(
            "For d = 64, one head has 16,640 parameters. How many have 8 heads?", sizes[8]
        )
        for n_heads, n_parameters in sizes.items():
            n_weights = n_heads * 100 * 100
            print(
                f"h = {n_heads}, d_head = {64 // n_heads:>2}: {n_parameters:,} parameters, "
                f"{n_weights:,} attention weights for 100 tokens"
            )

# %% [markdown]
# **What to notice.** This layer attends to four positions at once: a shift matrix gives each head its
# own offset. If an offset points outside the sequence, softmax still distributes a weight of 1 over
# existing positions. More heads need no more parameters,
# but more memory, and each is narrower.
#
# **Your experiment.** Choose where a head looks and how sharply. The sharpness multiplies its queries;
# above, it is 5.

# %%
if __name__ == "__main__":
    predict("What percentage of position 6's weight goes to the position that you chose?", ...)

# %%
if __name__ == "__main__":
    my_offset, sharpness = -2, 1.0  # from −6 to 5, and from 0 to 10
    with demonstration():
        my_head = weights_by_hand([my_offset] * 4, sharpness)[0]
        share = 100 * my_head[6, 6 + my_offset].item()
        predict.reveal(
            "What percentage of position 6's weight goes to the position that you chose?", share
        )
        record(f"% of the weight at offset {my_offset} with sharpness {sharpness}", share)
        look({"my head": my_head}, range(12))

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.2 and table 3, rows
# (A). [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Multi-Head
# Self-Attention". [Michel et al. 2019](https://arxiv.org/abs/1905.10650), sections 1 to 3: most
# heads can be individually removed after training.
#
# **Discuss.**
#
# 1. With d = 512, the paper uses 8 heads of 64 features. What would you lose with 512 heads of one
#    feature? And with a single head?
# 2. Suppose you reorder the heads. How must W_o change so that the output stays the same?
#
# <details><summary>Answers</summary>
#
# 1. A head with one feature compares a query and a key by multiplying two numbers. Its
#    largest weight therefore always goes to the key with the largest or smallest feature. A single
#    head gives each token only one set of weights, so it has to average over everything that the token
#    needs. In table 3, both 1 and 32 heads are worse than 8.
# 2. Reorder its columns in the same way, in blocks of d_head. The order of the heads is arbitrary,
#    so "head 3" means nothing when you compare two training runs.
# </details>
