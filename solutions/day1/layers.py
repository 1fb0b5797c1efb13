# %% [markdown]
# # Layers
#
# Attention lets positions exchange information. A Transformer needs three more things before it
# can be stacked: something that keeps the numbers in range, something that works on each position
# alone, and a way round every step. This chapter builds them and puts them together into the two
# layers of *Attention Is All You Need* (Vaswani et al. 2017, section 3.1).

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solutions.day1.multi_head_attention import MultiHeadAttention
from solutions.opening import demonstration

# %% [markdown]
# ## `LayerNorm`
# ★★☆☆☆ · 15 minutes · 5 points
#
# Every layer adds something to its input. After a few of them the numbers would have wandered off
# to any size, and softmax and the learning rate depend on size. Layer normalisation brings each
# position back to mean 0 and variance 1, on its own: it looks at no other position and no other
# sentence, so it does the same in training and in use.
#
# For one position $x$ with $d$ features
#
# $$\mu = \frac{1}{d}\sum_{i=1}^{d} x_i \qquad
# \sigma^2 = \frac{1}{d}\sum_{i=1}^{d} (x_i - \mu)^2 \qquad
# y = \underbrace{w}_{d} \odot \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \underbrace{b}_{d}$$
#
# where $w$ (`weight`) and $b$ (`bias`) are learned, so that the layer can undo the normalisation
# where that helps. They start as ones and zeros.
#
# ```text
#                 features d                       features d
#              ┌─────────────┐                  ┌─────────────┐
#   position 0 │ ■ ■ ■ ■ ■ ■ │ ← one mean       │ ■ · · · · · │
#   position 1 │ · · · · · · │                  │ ■ · · · · · │
#   position 2 │ · · · · · · │                  │ ■ · · · · · │
#              └─────────────┘                  └─────────────┘
#              layer normalisation              batch normalisation: not this
# ```
#
# **The trap.** Read the formula closely and compare it with what torch's functions do when you do
# not tell them otherwise. What is divided by what, and where exactly does $\varepsilon$ stand? A
# network with either slip still trains, so no loss curve will tell you; and weights copied from
# another implementation will not fit.
#
# `layer_norm`, `rms_norm`, `group_norm`, `batch_norm`, `instance_norm` and their modules are not
# allowed.


# %%
class LayerNorm(nn.Module):
    """Normalise the last axis to mean 0 and variance 1, then scale and shift each feature.

    Attributes to define: `weight` and `bias`, parameters of shape `(d_model,)`, at first ones and
    zeros. Agrees with `nn.LayerNorm`, also where the mean is large beside the spread and where all
    features are equal (the result is then `bias`, and gradients are finite).

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
        """Return the normalised `x`; every vector along the last axis is treated alone."""
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
# A tensor is learned, moved and saved with the module when it is an `nn.Parameter` attribute. For
# the mean, `keepdim=True` keeps an axis of length 1, so that it lines up with `x` again.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x.var(...)` and `x.std(...)` divide by d − 1 unless `correction=0` is given. Writing the
# variance out as the mean of a square avoids the question.
# </details>

# %% [markdown]
# **What to notice.** The result does not change when `x` is multiplied by 10 or when 5 is added to
# all its features (as long as $\varepsilon$ is small beside the variance): neither the size of a
# vector nor its mean is passed on, only its pattern. And for a vector whose features are all equal, the variance is
# 0 and $\varepsilon$ alone prevents a division by zero, in the gradient too.

# %% [markdown]
# ## `FeedForward`
# ★☆☆☆☆ · 5 minutes · 3 points
#
# Attention only mixes: its output is a weighted mean of values. What is done *with* the mixture
# happens here, in a small network with one hidden layer that is applied to every position alone,
# with the same weights everywhere.
#
# $$\operatorname{FFN}(x) = \underbrace{W_2}_{d \times d_{ff}}\,
# \operatorname{dropout}\bigl(\max(0,\; \underbrace{W_1}_{d_{ff} \times d}\, x + b_1)\bigr) + b_2$$
#
# The hidden layer is usually four times as wide as the model. Dropout sets each hidden value to 0
# with probability `dropout` while training, and scales the others up so that the mean stays.
#
# **The trap.** None in the formula; but a module has to know whether it is training. Use something
# that follows `train()` and `eval()` by itself.


# %%
class FeedForward(nn.Module):
    """Apply two linear maps with a ReLU between them to each position.

    Attributes to define: `linear1` (`nn.Linear(d_model, d_ff)`) and `linear2`
    (`nn.Linear(d_ff, d_model)`). Dropout acts on the hidden values, after the ReLU.

    Source: Vaswani et al. 2017, section 3.3.
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
# `nn.Linear` works on the last axis and leaves all others alone, so nothing has to be reshaped.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `nn.Dropout` in an attribute follows the mode of the module that holds it. `F.dropout` has to be
# told.
# </details>

# %% [markdown]
# **What to notice.** With $d_{ff} = 4d$ this network has $8d^2$ weights and the attention beside
# it $4d^2$: two thirds of an encoder layer's parameters stand here. Geva et al. (2021) read the rows of
# $W_1$ as patterns that are looked for and the columns of $W_2$ as what is added when one is
# found.

# %% [markdown]
# ## `EncoderLayer`
# ★★★☆☆ · 20 minutes · 6 points
#
# The layer that is stacked: attention to gather, the network to work on what was gathered. Around
# each of the two goes a *residual connection*: the input is added to the output, so the step only
# has to learn what to change, and gradients have a way past it. The sum is then normalised
# ("post-norm", as in the paper).
#
# $$x \leftarrow \operatorname{norm}_1
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, x, x))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_2
# \bigl(x + \operatorname{dropout}(\operatorname{FFN}(x))\bigr)$$
#
# Everything here keeps the shape `b n d_model`: the input, the output of each step, and the sums.
#
# ```text
#       ┌─────────────────────────────────────┐
#       │                                     ▼
#   x ──┴─► self_attention (mask) ─► dropout ─► + ─► norm1 ──┐
#                                                            │
#       ┌────────────────────────────────────────────────────┤
#       │                                                    ▼
#       └─► feed_forward ─► dropout ───────────────────────► + ─► norm2 ─►
# ```
#
# **The trap.** There are several orders of norm, sum and dropout that run, train and look alike.
# Check, for each of the two sums, which tensor is being added back and whether dropout touches it.
#
# `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention`,
# `multi_head_attention_forward` and `nn.Transformer` with all its parts are not allowed.


# %%
class EncoderLayer(nn.Module):
    """Apply self-attention and a feed-forward network, each with dropout, a residual and a norm.

    Attributes to define: `self_attention` (a `MultiHeadAttention`), `feed_forward` (a
    `FeedForward`, which gets `dropout` too), `norm1`, `norm2` (each a `LayerNorm`). On copied
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

        `mask` (`"n n"`, `"b 1 n"` or `"b n n"`) is True where attention is allowed; it may allow a
        position nothing.
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
# Your `MultiHeadAttention` takes query, key and value, and gives a pair. In self-attention all
# three arguments are the same.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each step is one line, and both have the form "norm of (what came in + dropout of what was
# computed from it)". What comes into the second step is what left the first.
# </details>

# %% [markdown]
# **What to notice.** A layer has input and output of one shape, so layers can be stacked, and none
# of them knows how deep it stands. In most later models the norm moved to the front of each step
# ("pre-norm"), $x + \operatorname{FFN}(\operatorname{norm}(x))$: the way along the sums is then free
# of norms, and deep stacks train without a warm-up of the learning rate (Xiong et al. 2020). You
# will meet that form on Day 2.

# %% [markdown]
# ### Demonstration: what the residuals are good for
#
# Twelve of your layers, freshly initialised, stand one after the other; then the same twelve without
# their residual connections. How much of the gradient at the end of the stack arrives at the input
# of each layer?

# %%
if __name__ == "__main__":

    class Without(nn.Module):
        """A layer without its residuals: attention, then the network, then the last norm."""

        def __init__(self, layer: EncoderLayer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer.norm2(self.layer.feed_forward(self.layer.self_attention(x, x, x)[0]))

    def gradient_sizes(layers):
        """The size of the gradient at each layer's input, for one random direction at the end."""
        torch.manual_seed(1)
        inputs = [torch.randn(8, 16, 64, requires_grad=True)]
        for layer in layers:
            inputs.append(layer(inputs[-1]))
            inputs[-1].retain_grad()
        (inputs[-1] * torch.randn_like(inputs[-1])).sum().backward()
        return [x.grad.norm().item() for x in inputs]

    with demonstration():
        torch.manual_seed(0)
        stack = [EncoderLayer(64, 4, 256) for _ in range(12)]
        stacks = {
            "as in the paper": stack,
            "without residuals": [Without(layer) for layer in stack],
        }
        curves = {name: gradient_sizes(layers) for name, layers in stacks.items()}
        figure, axis = plt.subplots(figsize=(6, 3))
        for name, sizes in curves.items():
            axis.semilogy([size / sizes[-1] for size in sizes], marker="o", label=name)
        axis.set(xlabel="layers from the input", ylabel="gradient, relative to the end")
        axis.legend()
        figure.tight_layout()
        plt.show()

# %% [markdown]
# **What to notice.** With residuals the gradient reaches the first layer nearly as large as it was
# at the end: a sum hands it on past the step beside it, and only the norms rescale it on its way.
# Without residuals about a twentieth is left after twelve layers (mind the logarithmic axis), and
# the norms alone do not prevent that.

# %% [markdown]
# ## `DecoderLayer`
# ★★★☆☆ · 20 minutes · 6 points
#
# The decoder writes the target one token after the other while it reads the source. Its layer has
# three steps: it looks at what was written so far (self-attention), then at the source
# (cross-attention: the queries come from the target, keys and values from `memory`, the output of
# the encoder), then the network works on the result.
#
# $$x \leftarrow \operatorname{norm}_1
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, x, x))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_2
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, M, M))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_3
# \bigl(x + \operatorname{dropout}(\operatorname{FFN}(x))\bigr)$$
#
# Here $x$ has the shape `b n d_model` and the memory $M$ the shape `b m d_model`. The first
# attention has weights `b h n n`, the second `b h n m`.
#
# ```text
#                               keys of the        keys of the
#                               target (n)         source (m)
#                              ┌─────────┐        ┌─────────────┐
#                  queries     │ ■ · · · │        │ ■ ■ ■ ■ · · │
#                  from the    │ ■ ■ · · │        │ ■ ■ ■ ■ · · │
#                  target (n)  │ ■ ■ ■ · │        │ ■ ■ ■ ■ · · │
#                              │ ■ ■ ■ ■ │        │ ■ ■ ■ ■ · · │
#                              └─────────┘        └─────────────┘
#                                  mask             memory_mask
# ```
#
# **The trap.** There are two masks, and they do not forbid the same things. Ask of each of them
# over which sequence its last axis runs.
#
# `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention`,
# `multi_head_attention_forward` and `nn.Transformer` with all its parts are not allowed.


# %%
class DecoderLayer(nn.Module):
    """Apply masked self-attention, attention to the encoder's output, and a feed-forward network.

    Attributes to define: `self_attention` and `cross_attention` (each a `MultiHeadAttention`),
    `feed_forward` (a `FeedForward`, which gets `dropout` too), `norm1`, `norm2`, `norm3` (each a
    `LayerNorm`). On copied weights and in evaluation mode the layer agrees with
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
        """Return the new vectors; masks are True where attention is allowed.

        `mask` is for attention within x (`"n n"`, `"b 1 n"` or `"b n n"`), `memory_mask` for
        attention from x to the memory (`"n m"`, `"b 1 m"` or `"b n m"`). Both may allow a position
        nothing.
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
# The memory is passed on as it is: no norm, no residual and no dropout of this layer acts on it.
# </details>

# %% [markdown]
# **What to notice.** The source comes in at one place only, and only as keys and values. So its
# length is free, and it need be encoded only once, however many tokens are written:
# `greedy_decode` will use that. The weights of the cross-attention say which source position each
# target position looked at; you will see them as an alignment at the end of the day.
