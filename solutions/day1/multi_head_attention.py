# %% [markdown]
# # Multi-head attention
#
# One attention gives every word one mean over the others. But a word may need several things at
# once: a verb its subject, a pronoun the noun that it stands for, and each of them the word before.
# Softmax forces a choice. Several **heads** do not have to choose: each is an attention of its
# own, with its own queries, keys and values, on its own slice of the features.
#
# ```text
#  query ─ W_q ─ split ─┐                    ┌─ head 0 ─┐
#  key   ─ W_k ─ split ─┼─ masked_attention ─┼─ head 1 ─┼─ merge ─ W_o ─ output
#  value ─ W_v ─ split ─┘  all heads at once └─ head 2 ─┘
#  b n d         b h n d_head                 b h n d_head    b n d         b n d
# ```
#
# Heads cost nothing: the same projections of d × d numbers are cut into h slices of d_head = d /
# h features. So the only new pieces are the cut and its inverse. They take one line each, and are
# where the mistakes of this chapter happen. Source: Vaswani et al., *Attention Is All You Need*
# (2017), section 3.2.2.

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solutions.day1.masking import masked_attention
from solutions.day1.positional_encoding import shift_matrix, sinusoidal_encoding
from solutions.opening import demonstration

# %% [markdown]
# ## `split_heads`
# ★★☆☆☆ · 10 minutes · 3 points
#
# Your attention takes any number of leading axes. If the heads stand among them, it treats each
# head by itself, all at once and without a loop. So we cut the feature axis into heads and bring
# the heads to the front.
#
# $$\underbrace{x}_{b \times n \times d} \;\longrightarrow\;
# \underbrace{y}_{b \times h \times n \times d_\text{head}}
# \qquad y[b, k, p, j] = x[b, p, k \cdot d_\text{head} + j] \qquad d_\text{head} = d / h$$
#
# ```text
#                 head 0    head 1                       head 0       head 1
#               ┌─────────┬─────────┐                 ┌─────────┐  ┌─────────┐
#   position 0  │ a  b  c │ d  e  f │     position 0  │ a  b  c │  │ d  e  f │
#   position 1  │ g  h  i │ j  k  l │     position 1  │ g  h  i │  │ j  k  l │
#               └─────────┴─────────┘                 └─────────┘  └─────────┘
#                 x: n × d = 2 × 6               split: h × n × d_head = 2 × 2 × 3
# ```
#
# No number changes and none is lost: a split only says anew which number stands where.
#
# **The trap.** Every tensor of b·n·d numbers can be *viewed* as `b h n d_head`, without an error,
# and the result has the right shape. Follow the letter d in the picture: in memory x lies row by
# row, a b c d e f g h …; where would a mere view put it? A model built on that mistake trains,
# too; its heads just read mixtures of positions, the future included.


# %%
def split_heads(x: Float[Tensor, "b n d"], n_heads: int) -> Float[Tensor, "b n_heads n d_head"]:
    """Cut the features into heads: head k holds the features k·d_head … (k+1)·d_head − 1.

    Here d_head is d / `n_heads`.

    Raises:
        ValueError: where d is not divisible by `n_heads`.

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

    def check_split_heads():
        # The twelve letters of the picture, as numbers: one sentence, 2 positions, 6 features.
        x = torch.arange(12.0).reshape(1, 2, 6)
        expected = torch.tensor([[[[0.0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]])
        heads = split_heads(x, 2)
        assert heads is not None, "split_heads returns nothing; did you forget `return`?"
        assert heads.shape == (1, 2, 2, 3), (
            f"(1, 2, 6) in 2 heads gives the shape (1, 2, 2, 3), yours is {tuple(heads.shape)}"
        )
        assert torch.equal(heads, expected), (
            f"the two heads of\n{x}\nshould be\n{expected}\nyours are\n{heads}"
        )
        # One position, so that only the order of the features matters.
        heads = split_heads(torch.arange(12.0).reshape(1, 1, 12), 3)
        assert heads.shape == (1, 3, 1, 4), (
            f"(1, 1, 12) in 3 heads gives the shape (1, 3, 1, 4), yours is {tuple(heads.shape)}"
        )
        assert heads[0, 1, 0].tolist() == [4, 5, 6, 7], (
            f"of 12 features, head 1 of 3 holds 4, 5, 6, 7; yours holds {heads[0, 1, 0].tolist()}"
        )
        try:
            split_heads(x, 4)
        except ValueError as error:
            message = str(error)
            assert "n_heads" in message or "d" in message.split(), (
                f"the message should name d or n_heads, yours is '{message}'"
            )
        else:
            raise AssertionError("6 features cannot be cut into 4 heads: that is a ValueError")
        print("split_heads: the visible checks hold.")

    check_split_heads()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Do it in two steps, and write the shape after each of them in a comment. First only the last
# axis changes: it becomes two. The second step changes no size at all.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `reshape` and `unflatten` split an axis in place, `transpose` lets two axes change places. After
# the first step the shape is `b n h d_head`, with the heads where features were.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Three positions of eight features, each entry with the number at which it lies in memory.
        numbered = torch.arange(24.0).reshape(1, 3, 8)
        split = split_heads(numbered, 2)
        figure, axes = plt.subplots(
            1, 3, figsize=(11, 2.2), gridspec_kw={"width_ratios": [2, 1, 1]}
        )
        panels = [("x: n × d", numbered[0]), ("head 0", split[0, 0]), ("head 1", split[0, 1])]
        for axis, (title, entries) in zip(axes, panels, strict=True):
            # The colour is the head to which a feature belongs.
            axis.imshow(entries % 8 // 4, cmap="Set3", vmin=0, vmax=11, aspect="auto")
            for row, numbers in enumerate(entries.tolist()):
                for column, number in enumerate(numbers):
                    axis.text(column, row, f"{number:g}", ha="center", va="center")
            axis.set(title=title, ylabel="position", yticks=range(3), xticks=[])
        figure.tight_layout()
        plt.show()
        print(f"strides of x: {numbered.stride()}, of the heads: {split.stride()}")
        print(f"the same memory: {numbered.data_ptr() == split.data_ptr()}")

# %% [markdown]
# **What to notice.** Each head is one colour, and has every position once. If the last line says
# `True`, your split moved nothing: only the strides changed, which say how far apart in memory
# the neighbours along an axis lie. (A split that copies is just as right.) And it shows why the
# projections before it matter: the slices are fixed, but *what* stands in a slice is what the
# projection puts there, and that is learned.

# %% [markdown]
# ## `merge_heads`
# ★★☆☆☆ · 5 minutes · 3 points
#
# After attention, every position has h results of d_head features. They go back side by side,
# where they came from.
#
# $$\underbrace{y}_{b \times h \times n \times d_\text{head}} \;\longrightarrow\;
# \underbrace{x}_{b \times n \times d}
# \qquad x[b, p, k \cdot d_\text{head} + j] = y[b, k, p, j] \qquad d = h \cdot d_\text{head}$$
#
# ```text
#        head 0        head 1
#      ┌─────────┐   ┌─────────┐              ┌───────────────────┐
#      │ a  b  c │   │ d  e  f │      ─→      │ a  b  c   d  e  f │   position 0
#      │ g  h  i │   │ j  k  l │              │ g  h  i   j  k  l │   position 1
#      └─────────┘   └─────────┘              └───────────────────┘
# ```
#
# **The trap.** The same as before, backwards: a reshape alone gives a tensor of the right shape.
# And some of torch's ways to reshape refuse a tensor whose axes have changed places; read what
# the error message proposes, and why.


# %%
def merge_heads(x: Float[Tensor, "b h n d_head"]) -> Float[Tensor, "b n h*d_head"]:
    """Put the features of all heads side by side, head 0 first: the inverse of `split_heads`.

    Source: Vaswani et al. (2017), section 3.2.2.
    """
    ### BEGIN SOLUTION
    return x.transpose(1, 2).flatten(2)  # b n h d_head -> b n h·d_head
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_merge_heads():
        heads = torch.tensor([[[[0.0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]])
        merged = merge_heads(heads)
        assert merged is not None, "merge_heads returns nothing; did you forget `return`?"
        assert merged.shape == (1, 2, 6), (
            f"2 heads of 3 features give 6: the shape (1, 2, 6), yours is {tuple(merged.shape)}"
        )
        assert merged.flatten().tolist() == list(range(12)), (
            f"the rows should be 0 … 5 and 6 … 11, yours are\n{merged[0]}"
        )
        # Three heads, one of which is marked: its features must end up together.
        marked = torch.zeros(2, 3, 5, 4)
        marked[:, 1] = 1
        row = merge_heads(marked)[1, 2].tolist()
        assert row == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], (
            f"head 1 of 3 fills the features 4 … 7 of each position, yours gives {row}"
        )
        print("merge_heads: the visible checks hold.")

    check_merge_heads()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Undo the two steps of `split_heads` in the opposite order.
# </details>
#
# <details><summary>Hint 2</summary>
#
# First bring the axes into the order `b n h d_head`, then make one axis of the last two. `view`
# can only join axes that lie next to each other in memory; `reshape` and `flatten` copy where
# they have to.
# </details>

# %% [markdown]
# **What to notice.** A split can be had without copying, a merge in general cannot: after
# attention each head's results lie together in memory, and the features of one position have to
# be fetched from h places.

# %% [markdown]
# ## `MultiHeadAttention`
# ★★★★☆ · 30 minutes · 9 points
#
# Now the whole. Three linear layers make queries, keys and values out of the inputs, the heads
# attend, and a fourth linear layer mixes what they bring home. Without that last one the features
# of different heads would never meet here.
#
# $$Q = \mathrm{split}(x_q W_q^\top + b_q) \qquad K = \mathrm{split}(x_k W_k^\top + b_k) \qquad
# V = \mathrm{split}(x_v W_v^\top + b_v)$$
#
# $$\underbrace{A}_{b \times h \times n \times m}
# = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d_\text{head}}}\right) \qquad
# \underbrace{O}_{b \times n \times d} = \mathrm{merge}(A V)\, W_o^\top + b_o$$
#
# The inputs for queries, keys and values need not be the same. In self-attention all three are x;
# when a decoder reads the encoder's output, the queries come from the decoder and the rest from
# the encoder, so n ≠ m.
#
# **The traps.** *Which d?* Two of them could stand under the root; `masked_attention` has an
# opinion if you hand it the right thing. *Which axes has the mask?* It is given for positions,
# `n m`, `b 1 m` or `b n m`, and serves all heads; the scores have one axis more, and broadcasting
# counts from the end. With b = h the wrong axis raises no error. *Who projects what?* Names are
# easily mistyped when three lines look alike.
#
# `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention` and
# `multi_head_attention_forward` are not allowed.


# %%
class MultiHeadAttention(nn.Module):
    """Attention with several heads, each on its own slice of the projected features.

    Attributes to define: `query`, `key`, `value` and `out`, each an `nn.Linear` from `d_model` to
    `d_model`, with a bias or, where `bias` is False, without. On copied weights the layer agrees
    with `nn.MultiheadAttention`.

    Raises:
        ValueError: where `d_model` is not divisible by `n_heads`.

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
        """Let every query attend to the keys, in each head by itself.

        Args:
            query: what the queries are made of.
            key: what the keys are made of.
            value: what the values are made of.
            mask: True where attention is allowed, the same for all heads; of two or three axes,
                broadcastable to `b n m`. None allows everything.

        Returns:
            the pair (output, weights), with the weights of every head. A query that may attend to
            nothing has weights 0 and the output that `out` makes of 0.
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

    def check_MultiHeadAttention():
        torch.manual_seed(0)
        layer = MultiHeadAttention(8, 2)
        shapes = {name: tuple(weight.shape) for name, weight in layer.named_parameters()}
        wanted = {f"{name}.weight": (8, 8) for name in ("query", "key", "value", "out")}
        wanted |= {f"{name}.bias": (8,) for name in ("query", "key", "value", "out")}
        assert wanted.items() <= shapes.items(), (
            f"the parameters should be\n{wanted}\nyours are\n{shapes}"
        )
        query, key, value = torch.randn(3, 4, 8), torch.randn(3, 5, 8), torch.randn(3, 5, 8)
        result = layer(query, key, value)
        assert isinstance(result, tuple | list), (
            f"forward should return the pair (output, weights), yours is a {type(result).__name__}"
        )
        output, weights = result
        assert output.shape == (3, 4, 8), (
            f"the output should have the shape of the query, (3, 4, 8), not {tuple(output.shape)}"
        )
        assert weights.shape == (3, 2, 4, 5), (
            f"b, h, n, m are 3, 2, 4, 5; your weights have the shape {tuple(weights.shape)}"
        )
        # torch has this layer, too. It keeps the weights of the three projections in one tensor.
        theirs = nn.MultiheadAttention(8, 2, batch_first=True)
        with torch.no_grad():
            ours = (layer.query, layer.key, layer.value)
            theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in ours]))
            theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in ours]))
            theirs.out_proj.load_state_dict(layer.out.state_dict())
        their_output, their_weights = theirs(query, key, value, average_attn_weights=False)
        error = (weights - their_weights).abs().max().item()
        assert error < 1e-5, (
            f"your weights differ from those of nn.MultiheadAttention by {error:.2g}: look at the "
            "split, and at the root by which the scores are divided"
        )
        error = (output - their_output).abs().max().item()
        assert error < 1e-5, (
            f"your weights are right, your output differs from that of nn.MultiheadAttention by "
            f"{error:.2g}: look at `value`, the merge and `out`"
        )

        # Each sentence has another key that may not be seen; what stands there must not matter.
        mask = torch.ones(3, 1, 5, dtype=torch.bool)
        for sentence, hidden in enumerate((4, 0, 2)):
            mask[sentence, 0, hidden] = False
        output, weights = layer(query, key, value, mask)
        for sentence, hidden in enumerate((4, 0, 2)):
            seen = weights[sentence, :, :, hidden].abs().max().item()
            assert seen == 0, (
                f"key {hidden} of sentence {sentence} is masked but has weight {seen:.2g}"
            )
            value[sentence, hidden] += 100
        moved = (layer(query, key, value, mask)[0] - output).abs().max().item()
        assert moved < 1e-5, f"a masked value was changed, and your output moved by {moved:.2g}"
        nothing = torch.zeros(4, 5, dtype=torch.bool)
        output, weights = layer(query, key, value, nothing)
        assert torch.allclose(output, layer.out.bias.expand(3, 4, 8)), (
            "where nothing may be attended to, the output should be `out` of 0, that is its bias"
        )
        try:
            MultiHeadAttention(8, 3)
        except ValueError as error:
            message = str(error)
            assert "d_model" in message or "n_heads" in message, (
                f"the message should name d_model or n_heads, yours is '{message}'"
            )
        else:
            raise AssertionError("8 features cannot be cut into 3 heads: that is a ValueError")
        print("MultiHeadAttention: the visible checks hold.")

    check_MultiHeadAttention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Follow the picture at the top of this chapter from left to right; all pieces exist. If you cut
# queries, keys *and* values into heads before you call `masked_attention`, it divides by the root
# of what it sees as the number of features. Print that number.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The scores are `b h n m`. A mask `b n m` needs an axis of size 1 where the heads are, and that
# is the third axis from the end, whether the mask has two axes or three; `unsqueeze` takes
# negative numbers. A mask of None stays None.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # Weights set by hand: the words are pure positions, and each head asks for a place.
        n_words, width, wanted_offsets = 12, 128, (-1, 0, 1, -4)
        places = sinusoidal_encoding(n_words, width).unsqueeze(0)
        by_hand = MultiHeadAttention(width, 4, bias=False)
        d_head = width // 4
        with torch.no_grad():
            for head, head_offset in enumerate(wanted_offsets):
                rows = slice(head * d_head, (head + 1) * d_head)
                # All heads read the 16 fastest pairs; a query asks for them at another position.
                by_hand.key.weight[rows] = torch.eye(width)[:d_head]
                by_hand.query.weight[rows] = 5 * shift_matrix(head_offset, width)[:d_head]
            _, head_weights = by_hand(places, places, places)
        figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True)
        for head, axis in enumerate(axes):
            axis.imshow(head_weights[0, head], cmap="Blues", vmin=0, vmax=1)
            axis.set(title=f"head {head}: offset {wanted_offsets[head]}", xlabel="key")
        axes[0].set_ylabel("query")
        plt.show()

# %%
if __name__ == "__main__":
    with demonstration():
        for n_heads in (1, 2, 4, 8):
            n_parameters = sum(p.numel() for p in MultiHeadAttention(64, n_heads).parameters())
            print(f"d_model 64, {n_heads} heads: {n_parameters:,} parameters")

# %% [markdown]
# **What to notice.** One layer looks at four places at once, and every head keeps its habit along
# the whole sentence. These weights were set by hand, with your `shift_matrix` as the projection
# of the queries; that a trained head can come to look like this is what the sinusoids were chosen
# for. Where the wanted place does not exist, as before the first word, softmax still has to give
# its weight to someone. And heads are free: the number of parameters does not depend on how many
# there are. What they cost is width: more heads are narrower ones.
