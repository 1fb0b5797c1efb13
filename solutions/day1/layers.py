# %% [markdown]
# # Layers
#
# *Chapter 5 of 6 · core: 40 minutes · optional: 15 minutes*
#
# Attention moves information between positions. To stack it into a deep model, three more pieces
# are needed: a network that works on each position, sums that preserve the input, and a norm that
# keeps the numbers in range. This chapter builds the two layers of the Transformer from them.
#
# ![The encoder layer: self-attention with a mask, dropout, sum with the input, norm1; then
# feed-forward, dropout, sum, norm2. The decoder layer has cross-attention to the memory, with its
# own mask, sum and norm, between the two.](figures/layers.svg)

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solutions.day1.multi_head_attention import MultiHeadAttention
from solutions.opening import demonstration

# %% [markdown]
# ## `LayerNorm`
# ★★☆☆☆ · optional · 15 minutes · 5 points
#
# Each layer adds something to its input, so numbers would grow from layer to layer. Layer
# normalisation rescales each position to mean 0 and variance 1. It uses no other position and no
# other sequence, so it does the same in training and in use.
#
# ![Layer normalisation computes mean and variance over the features of one position. Batch
# normalisation computes them over all positions for one feature.](figures/norms.svg)
#
# For one position $x$ with $d$ features
#
# $$\mu = \frac{1}{d}\sum_{i=1}^{d} x_i \qquad
# \sigma^2 = \frac{1}{d}\sum_{i=1}^{d} (x_i - \mu)^2 \qquad
# y = \underbrace{g}_{d} \odot \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \underbrace{b}_{d}$$
#
# The learned $g$ (`weight`, initially ones) and $b$ (`bias`, initially zeros) set scale and offset
# of each feature. They cannot undo the normalisation, because they are the same for all positions.
#
# **The trap.** torch's functions have defaults: by what do they divide, and where does
# $\varepsilon$ go? A network with either mistake still trains, but weights copied from another
# implementation do not fit.
#
# Not allowed: `layer_norm`, `rms_norm`, `group_norm`, `batch_norm`, `instance_norm` and their
# modules.


# %%
class LayerNorm(nn.Module):
    """Normalise the last axis to mean 0 and variance 1, then scale and shift each feature.

    Attributes to define: `weight` and `bias`, parameters of shape `(d_model,)`, initially ones and
    zeros. The result agrees with `nn.LayerNorm`, even if the mean is much larger than the standard
    deviation. If all features are equal, the result is `bias`, and gradients are finite.

    Source: Ba, Kiros and Hinton 2016, section 3.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        ### BEGIN SOLUTION
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return the normalised `x`. Every vector along the last axis is normalised separately."""
        ### BEGIN SOLUTION
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_LayerNorm():
        norm = LayerNorm(4)
        shapes = {name: tuple(parameter.shape) for name, parameter in norm.named_parameters()}
        assert {"weight": (4,), "bias": (4,)}.items() <= shapes.items(), (
            f"the parameters should be `weight` and `bias` of shape (4,), yours: {shapes}"
        )

        # (1, 0, 0, 0): mean 1/4, variance 3/16, so the first feature becomes (3/4) / (√3/4) = √3.
        seen = norm(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        assert seen is not None, "forward returns nothing; did you forget `return`?"
        assert seen.shape == (1, 4), f"the shape should stay (1, 4), yours is {tuple(seen.shape)}"
        assert abs(seen.mean()) < 1e-5, f"the mean should be 0, yours is {seen.mean():.3f}"
        assert abs(seen[0, 0] - 3**0.5) < 1e-3, (
            f"(1, 0, 0, 0) should become (1.732, …), yours begins with {seen[0, 0]:.3f}: by how many "
            "features is the sum of squares divided, and where does the root stand?"
        )

        # (3, −3): variance 9; with ε = 16 the root is 5.
        seen = LayerNorm(2, eps=16.0)(torch.tensor([[3.0, -3.0]]))
        assert torch.allclose(seen, torch.tensor([[0.6, -0.6]])), (
            f"with eps=16, (3, −3) should become (0.6, −0.6), yours is {seen.detach()}: "
            "is the argument used, and where does ε stand?"
        )

        x = torch.arange(24.0).reshape(2, 3, 4).square()
        together, alone = norm(x)[1, 2], norm(x[1:, 2:])[0, 0]
        assert torch.allclose(together, alone, atol=1e-5), (
            "a position should be normalised in the same way whatever stands around it: with others "
            f"it becomes {together.detach()}, alone {alone.detach()}"
        )
        print("LayerNorm: the visible checks hold.")

    check_LayerNorm()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# An attribute that is an `nn.Parameter` is learned, moved and saved with the module. For the mean,
# `keepdim=True` keeps an axis of length 1, so it broadcasts against `x`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x.var(...)` and `x.std(...)` divide by d − 1 unless you pass `correction=0`. You avoid the
# question if you compute the variance as the mean of a square.
# </details>

# %% [markdown]
# **What to notice.** If you multiply `x` by 10, or add 5 to all features, the result does not
# change (as long as $\varepsilon$ is small compared with the variance). Only the pattern is passed
# on. In today's example little is left: *red* (1, 0) becomes (1, −1), and *purple* (1, 1) has
# variance 0 and becomes (0, 0). In 64 features a pattern says more.

# %% [markdown]
# ## `FeedForward`
# ★☆☆☆☆ · core · 5 minutes · 3 points
#
# The output of attention is only a mixture of values. The feed-forward network computes something
# new from it: two linear maps with a ReLU between them, applied to each position separately with
# the same weights.
#
# $$\operatorname{FFN}(x) = \underbrace{W_2}_{d \times d_{ff}}\,
# \operatorname{dropout}\bigl(\max(0,\; \underbrace{W_1}_{d_{ff} \times d}\, x + b_1)\bigr) + b_2$$
#
# The hidden layer usually has $d_{ff} = 4d$ features. Section 3.3 of the paper has no dropout
# inside; we follow torch's `nn.TransformerEncoderLayer`, which does.
#
# **The trap.** Dropout has to be off in evaluation mode. Use a module that follows `train()` and
# `eval()`.


# %%
class FeedForward(nn.Module):
    """Apply two linear maps with a ReLU between them to each position.

    Attributes to define: `linear1` (`nn.Linear(d_model, d_ff)`) and `linear2`
    (`nn.Linear(d_ff, d_model)`). Dropout acts on the hidden features, after the ReLU.

    Source: Vaswani et al. 2017, section 3.3; dropout as in `nn.TransformerEncoderLayer`.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return the network's output for every position of `x`."""
        ### BEGIN SOLUTION
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_FeedForward():
        # One feature, two hidden units that see x and −x: their sum after the ReLU is |x|.
        network = FeedForward(1, 2)
        with torch.no_grad():
            network.linear1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            network.linear1.bias.zero_()
            network.linear2.weight.fill_(1.0)
            network.linear2.bias.fill_(0.5)
        seen = network(torch.tensor([[2.0], [-3.0]]))
        assert seen is not None, "forward returns nothing; did you forget `return`?"
        assert torch.allclose(seen, torch.tensor([[2.5], [3.5]])), (
            "with these weights the network is |x| + 0.5: 2 and −3 should give 2.5 and 3.5, "
            f"not {seen.flatten().tolist()}"
        )

        network = FeedForward(6, 50, dropout=0.5)
        x = torch.linspace(-1, 1, 6).repeat(2, 1)
        network.eval()
        assert torch.equal(network(x), network(x)), "in eval() nothing should be random"
        network.train()
        assert not torch.equal(network(x), network(x)), "in train() dropout should do something"
        print("FeedForward: the visible checks hold.")

    check_FeedForward()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `nn.Linear` works on the last axis and leaves all others alone, so no reshape is needed.
# </details>
#
# <details><summary>Hint 2</summary>
#
# An `nn.Dropout` attribute follows the mode of its module. `F.dropout` needs the argument
# `training`.
# </details>

# %% [markdown]
# **What to notice.** With $d_{ff} = 4d$ this network has $8d^2$ weights and the attention beside it
# $4d^2$. Two thirds of an encoder layer's parameters are here.

# %% [markdown]
# ## `EncoderLayer`
# ★★★☆☆ · core · 20 minutes · 6 points
#
# The encoder layer gathers information with attention, then processes it with the network. Both
# steps have a **residual connection**: the input is added to the output, so a step only has to
# learn what to change. In the paper, the sum is then normalised (*post-norm*).
#
# ![Post-norm: attention and feed-forward branch off the stream and are added back, and each sum
# passes through a norm. Pre-norm: each norm is inside the branch, before attention or
# feed-forward.](figures/residual.svg)
#
# $$x \leftarrow \operatorname{norm}_1
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, x, x))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_2
# \bigl(x + \operatorname{dropout}(\operatorname{FFN}(x))\bigr)$$
#
# Every tensor here has the shape `b n d_model`. If you skipped `LayerNorm`, use
# `nn.LayerNorm(d_model)`: it rescales each position to mean 0 and variance 1.
#
# **The trap.** Several orders of norm, sum and dropout run and train. For each of the two sums,
# check which tensor is added back, and that dropout acts only on the branch.
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention`,
# `multi_head_attention_forward` and `nn.Transformer` with all its parts.


# %%
class EncoderLayer(nn.Module):
    """Apply self-attention and a feed-forward network, each with dropout, a residual and a norm.

    Attributes to define: `self_attention` (a `MultiHeadAttention`), `feed_forward` (a
    `FeedForward` with the same `dropout`), `norm1`, `norm2` (each a `LayerNorm`). With copied
    weights and in evaluation mode the layer agrees with
    `nn.TransformerEncoderLayer(norm_first=False)`.

    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(
        self, x: Float[Tensor, "b n d_model"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "b n d_model"]:
        """Return the new vectors.

        `mask` (`"n n"`, `"b 1 n"` or `"b n n"`) is True where attention is allowed. A row may be
        entirely False.
        """
        ### BEGIN SOLUTION
        attended, _ = self.self_attention(x, x, x, mask)
        x = self.norm1(x + self.dropout(attended))
        return self.norm2(x + self.dropout(self.feed_forward(x)))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_EncoderLayer():
        torch.manual_seed(0)
        layer = EncoderLayer(4, 2, 8).eval()
        x = torch.randn(2, 3, 4)
        seen = layer(x)
        assert seen is not None, "forward returns nothing; did you forget `return`?"
        assert seen.shape == (2, 3, 4), (
            f"the shape should stay (2, 3, 4), yours is {tuple(seen.shape)}"
        )
        assert seen.mean(dim=-1).abs().max() < 1e-4, (
            "after the last norm each position should have mean 0"
        )

        last_hidden = torch.tensor([True, True, False]).expand(3, 3)
        changed = x.clone()
        changed[:, 2] += 1.0
        moved = (layer(x, last_hidden) - layer(changed, last_hidden))[:, :2].abs().max()
        assert moved < 1e-6, (
            f"position 2 is masked, yet it moves the other positions by {moved:.2g}"
        )

        # With both steps silent only the residuals and the norms are left.
        with torch.no_grad():
            for linear in (layer.self_attention.out, layer.feed_forward.linear2):
                linear.weight.zero_()
                linear.bias.zero_()
        seen = layer(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))[0, 0, 0]
        assert abs(seen - 3**0.5) < 1e-3, (
            "if both steps give 0, (1, 0, 0, 0) should come out as (1.732, …), yours begins with "
            f"{seen:.3f}: is the input added back, and the sum normalised?"
        )
        with torch.no_grad():
            layer.norm1.weight.zero_()
            layer.norm1.bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]))
        seen = layer(x)
        assert torch.allclose(seen, seen[0, 0].expand_as(seen)), (
            "norm1 now gives the same vector everywhere and the network adds nothing, yet x is "
            "still to be seen: what is added back in the second step?"
        )

        layer = EncoderLayer(4, 2, 8, dropout=0.5).train()
        assert not torch.equal(layer(x), layer(x)), "in train() dropout should do something"
        print("EncoderLayer: the visible checks hold.")

    check_EncoderLayer()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `MultiHeadAttention` takes query, key and value and returns a pair. In self-attention all three
# arguments are the same.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each step is one line of the form "norm of (input + dropout of what was computed from it)". The
# input of the second step is the output of the first.
# </details>

# %% [markdown]
# **What to notice.** Input and output have the same shape, so layers can be stacked. Most later
# models use pre-norm, because deep stacks then train without a warm-up of the learning rate ([Xiong
# et al. 2020](https://arxiv.org/abs/2002.04745)). You will build that form on Day 2.

# %% [markdown]
# ### Demonstration: what residual connections preserve
#
# The next cell stacks twelve of your layers, freshly initialised, and feeds them random vectors.
# Then it removes the two sums from each layer, but keeps the norms.

# %%
if __name__ == "__main__":

    class WithoutSums(nn.Module):
        """An encoder layer without its residual connections; both norms stay."""

        def __init__(self, layer: EncoderLayer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            x = self.layer.norm1(self.layer.self_attention(x, x, x)[0])
            return self.layer.norm2(self.layer.feed_forward(x))

    def similarity(x):
        """Return the mean cosine similarity of two different positions of a sequence."""
        directions = nn.functional.normalize(x.detach(), dim=-1)
        n = x.shape[1]
        pairs = (directions @ directions.transpose(1, 2)).sum(dim=(1, 2)) - n
        return (pairs / (n * (n - 1))).mean().item()

    def measure(layers):
        """Return similarities and gradient sizes before the first layer and after each layer."""
        torch.manual_seed(1)
        x = [torch.randn(8, 16, 64, requires_grad=True)]
        for layer in layers:
            x.append(layer(x[-1]))
            x[-1].retain_grad()
        (x[-1] * torch.randn_like(x[-1])).sum().backward()
        sizes = [vectors.grad.norm().item() for vectors in x]
        return [similarity(vectors) for vectors in x], [size / sizes[-1] for size in sizes]

    with demonstration():
        torch.manual_seed(0)
        stack = [EncoderLayer(64, 4, 256) for _ in range(12)]
        curves = {
            "with sums": measure(stack),
            "without sums": measure([WithoutSums(layer) for layer in stack]),
        }
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        for (name, (similarities, sizes)), line in zip(curves.items(), ("o-", "s--"), strict=True):
            left.plot(similarities, line, label=name)
            right.plot(sizes, line, label=name)
        left.set(xlabel="layers", ylabel="similarity of positions", ylim=(-0.05, 1.05))
        right.set(xlabel="layers", ylabel="gradient, relative to the end", ylim=(0, 1.05))
        left.legend()
        plt.show()

# %% [markdown]
# **What to notice.** Without the sums, all positions of a sequence have the same vector after two
# layers: their cosine similarity is 1.00 (left). Each attention averages over positions, and
# nothing carries their differences past it. With the sums it is 0.44 after twelve layers. The
# gradient (right) suffers less than you might expect. With the sums, 89 % of it reaches the input.
# Without them, 11 % to 40 % still reach each of the first seven layers, because the norms rescale
# it. (All numbers with seed 0.)

# %% [markdown]
# ## `DecoderLayer`
# ★★★☆☆ · core · 15 minutes · 6 points
#
# The decoder layer has three steps. Self-attention reads the target written so far.
# **Cross-attention** reads the source: queries come from the target, keys and values from `memory`,
# the encoder's output. Then the network processes the result.
#
# $$x \leftarrow \operatorname{norm}_1
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, x, x))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_2
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, \text{memory}, \text{memory}))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_3
# \bigl(x + \operatorname{dropout}(\operatorname{FFN}(x))\bigr)$$
#
# Here $x$ has the shape `b n d_model` and the memory `b m d_model`. The weights are `b h n n` in
# self-attention and `b h n m` in cross-attention:
#
# ![Self-attention: queries and keys are the target, and the mask hides the future. Cross-attention:
# queries are the target, keys the memory, and the memory mask hides the padding of the
# source.](figures/cross-attention.svg)
#
# **The trap.** The two masks hide different things. For each, ask which sequence its last axis
# belongs to.
#
# Not allowed: the same as for `EncoderLayer`.


# %%
class DecoderLayer(nn.Module):
    """Apply masked self-attention, attention to the encoder's output, and a feed-forward network.

    Attributes to define: `self_attention` and `cross_attention` (each a `MultiHeadAttention`),
    `feed_forward` (a `FeedForward` with the same `dropout`), `norm1`, `norm2`, `norm3` (each a
    `LayerNorm`). With copied weights and in evaluation mode the layer agrees with
    `nn.TransformerDecoderLayer(norm_first=False)`.

    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        memory: Float[Tensor, "b m d_model"],
        mask: Bool[Tensor, "..."] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "b n d_model"]:
        """Return the new vectors. Masks are True where attention is allowed.

        `mask` is for attention within x (`"n n"`, `"b 1 n"` or `"b n n"`), `memory_mask` for
        attention from x to the memory (`"n m"`, `"b 1 m"` or `"b n m"`). Rows may be entirely False.
        """
        ### BEGIN SOLUTION
        attended, _ = self.self_attention(x, x, x, mask)
        x = self.norm1(x + self.dropout(attended))
        attended, _ = self.cross_attention(x, memory, memory, memory_mask)
        x = self.norm2(x + self.dropout(attended))
        return self.norm3(x + self.dropout(self.feed_forward(x)))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_DecoderLayer():
        torch.manual_seed(0)
        layer = DecoderLayer(4, 2, 8).eval()
        x, memory = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
        seen = layer(x, memory)
        assert seen is not None, "forward returns nothing; did you forget `return`?"
        assert seen.shape == x.shape, (
            f"the shape should be that of x, (2, 3, 4), yours is {tuple(seen.shape)}"
        )

        causal = torch.ones(3, 3, dtype=torch.bool).tril()
        changed = x.clone()
        changed[:, 2] += 1.0
        moved = (layer(x, memory, causal) - layer(changed, memory, causal))[:, :2].abs().max()
        assert moved < 1e-6, (
            f"position 2 is the future of 0 and 1, yet it moves them by {moved:.2g}"
        )

        visible = torch.tensor([True, True, True, False, False]).reshape(1, 1, 5)
        changed = memory.clone()
        changed[:, 3:] += 1.0
        moved = (layer(x, memory, causal, visible) - layer(x, changed, causal, visible)).abs().max()
        assert moved < 1e-6, f"memory 3 and 4 are masked, yet they move the result by {moved:.2g}"
        moved = (layer(x, memory, causal) - layer(x, changed, causal)).abs().max()
        assert moved > 1e-6, "without a memory_mask every position of the memory should be read"

        # norm1 now forgets x, so only the memory is left to tell two inputs apart.
        with torch.no_grad():
            layer.norm1.weight.zero_()
        assert torch.allclose(layer(x, memory), layer(-x, memory), atol=1e-6), (
            "norm1 gives the same whatever x is, yet x is still to be seen: what is added back in "
            "the second step?"
        )

        layer = DecoderLayer(4, 2, 8, dropout=0.5).train()
        assert not torch.equal(layer(x, memory), layer(x, memory)), (
            "in train() dropout should do something"
        )
        print("DecoderLayer: the visible checks hold.")

    check_DecoderLayer()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The first and the last step are those of `EncoderLayer`. In the middle one, keys and values have
# the length of the source.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Use the memory as it is: no norm, no residual connection and no dropout of this layer acts on it.
# </details>

# %% [markdown]
# **What to notice.** The source enters only as keys and values. So it can have any length, and it
# has to be encoded only once, however many tokens are generated. Its attention weights are the
# picture at the start of this notebook.

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), sections 3.1, 3.3 and 5.4.
# [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Encoder-Decoder
# Architecture". [Dong et al. 2021](https://arxiv.org/abs/2103.03404), introduction: attention alone
# makes all positions alike.
#
# **Discuss.**
#
# 1. Which parts of an encoder layer let one position influence another? What would a model without
#    them be?
# 2. Post-norm puts a norm on the path from input to output, twice per layer. Why might that make
#    deep stacks harder to train, and what does pre-norm give up in return?
#
# <details><summary>Answers</summary>
#
# 1. Only self-attention. Norm, sum, dropout and the network treat each position separately. Without
#    attention, the encoder would be one small network applied to each token alone, a better
#    embedding table.
# 2. In pre-norm the sum alone connects input and output, so the gradient reaches every layer
#    unchanged. In post-norm it passes through every norm, and near the output it is large at the
#    start. So training needs a warm-up (Xiong et al. 2020). In return, nothing limits the size of
#    the stream in pre-norm, and late layers change it relatively little. A last norm before the
#    output is needed.
# </details>
