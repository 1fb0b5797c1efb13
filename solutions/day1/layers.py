# %% [markdown]
# # Layers
#
# *Chapter 5 of 7*
#
# Attention moves information between positions. A deep model also needs a feed-forward network
# applied to each position, residual connections that preserve the input, and norms that keep
# activations in range. You will build these parts and combine them into encoder and decoder layers.
#
# ![The encoder layer passes its input and a mask to self-attention, applies dropout, adds the
# input, and applies norm1. It then does the same with the feed-forward network and norm2, without a
# mask. Between these two sublayers, the decoder layer has a third: cross-attention to the memory,
# with its own mask and norm.](figures/layers.svg)

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solutions.day1.multi_head_attention import MultiHeadAttention
from solutions.opening import (
    demonstration,
    expecting,
    filled,
    fixed_numbers,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## `LayerNorm`
# ★★☆☆☆ · 10 minutes
#
# Each layer adds something to its input, so without normalisation, activations would grow from
# layer to layer. Layer normalisation rescales each position to mean 0 and variance 1. It does not
# depend on other positions or sequences, so it behaves the same in training and at inference.
#
# ![Layer normalisation computes the mean and variance over the features of one position. Batch
# normalisation computes them over all positions for one feature.](figures/norms.svg)
#
# For one position $x$ with $d$ features:
#
# $$\mu = \frac{1}{d}\sum_{i=1}^{d} x_i \qquad
# \sigma^2 = \frac{1}{d}\sum_{i=1}^{d} (x_i - \mu)^2 \qquad
# y = \underbrace{\gamma}_{d} \odot \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \underbrace{\beta}_{d}$$
#
# The learned $\gamma$ (`weight`, initially ones) and $\beta$ (`bias`, initially zeros) set the
# scale and offset of each feature. They cannot undo the normalisation, because they are the same
# for all positions.
#
# **The trap.** What do torch's variance functions divide by, and where does $\varepsilon$ go? If
# you get either wrong, the model still trains, but weights copied from another implementation give
# different results.
#
# Not allowed: `layer_norm`, `rms_norm`, `group_norm`, `batch_norm`, `instance_norm` and their
# modules.


# %%
class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, followed by a learned scale and shift per feature.

    Attributes to define: `weight` and `bias`, parameters of shape `(d_model,)`, initialised to ones
    and zeros. Unless squares overflow, the result matches `nn.LayerNorm`, even if the mean is much
    larger than the standard deviation. If all features are equal, the result is `bias`, and the
    gradients are finite.

    Source: Ba, Kiros and Hinton (2016), section 3.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        ### BEGIN SOLUTION
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return the normalised `x`. Each vector along the last axis is normalised separately."""
        ### BEGIN SOLUTION
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_LayerNorm():
        norm = LayerNorm(4)
        shapes = {
            name: tuple(parameter.shape)
            for name, parameter in norm.named_parameters(remove_duplicate=False)
        }
        assert {"weight": (4,), "bias": (4,)}.items() <= shapes.items(), (
            f"The parameters should be `weight` and `bias` of shape (4,); yours are {shapes}."
        )

        # The mean is 10,000.25 and the variance 3/16, so the first feature becomes (3/4) / (√3/4) = √3.
        with expecting("An input of shape (1, 4) should keep its shape"):
            seen = norm(torch.tensor([[10001.0, 10000.0, 10000.0, 10000.0]]))
        assert seen is not None, "forward returns None. Does it end with `return`?"
        assert seen.shape == (1, 4), (
            f"The shape should still be (1, 4); yours is {tuple(seen.shape)}."
        )
        assert abs(seen.mean()) < 1e-5, (
            f"The mean of the result should be 0; yours is {seen.mean():.1g}."
        )
        assert abs(seen[0, 0] - 3**0.5) < 1e-3, (
            "(10001, 10000, 10000, 10000) has variance 3/16 and should become (1.732, …); yours begins with "
            f"{seen[0, 0]:.3f}."
        )

        # (3, −3) has variance 9. With ε = 16, the square root is 5.
        seen = LayerNorm(2, eps=16.0)(torch.tensor([[3.0, -3.0]]))
        assert torch.allclose(seen, torch.tensor([[0.6, -0.6]])), (
            f"With eps=16, (3, −3) should become (0.6, −0.6); yours is {seen.tolist()}. "
            "Do you use `eps`, and is it inside the square root?"
        )
        equal = norm(torch.full((1, 4), 5.0))
        assert torch.allclose(equal, torch.zeros(1, 4), atol=1e-3), (
            f"Four equal features should become 0; yours become {equal.tolist()}. What is ε for?"
        )

        x = torch.arange(24.0).reshape(2, 3, 4).square()
        before = x.clone()
        with expecting("Inputs of shape (2, 3, 4) and (4,) should work"):
            together, alone, vector = norm(x)[1, 2], norm(x[1:, 2:])[0, 0], norm(x[1, 2])
        assert torch.equal(x, before), "forward should not modify its argument; yours changes x."
        assert torch.allclose(together, alone, atol=1e-4), (
            "A position should give the same result alone as with other positions; your LayerNorm gives "
            f"{alone.tolist()} alone and {together.tolist()} with others. Along which axis do you compute "
            "the mean and the variance?"
        )
        assert torch.allclose(together, vector, atol=1e-4), (
            f"A single vector should become {together.tolist()}; yours becomes {vector.tolist()}."
        )
        scaled = filled(LayerNorm(4))
        seen, expected = scaled(x), scaled.weight * norm(x) + scaled.bias
        assert torch.allclose(seen, expected, atol=1e-4), (
            "The result should be the normalised vector times `weight`, plus `bias`, which is "
            f"{expected[0, 0].tolist()}; yours is {seen[0, 0].tolist()}."
        )
        # The normalised features always sum to 0, so the gradient of their sum is 0.
        x = fixed_numbers(2, 4).requires_grad_()
        norm(x).sum().backward()
        assert x.grad.abs().max() < 1e-3, (
            "The sum of the result does not depend on x, so its gradient should be 0; yours is "
            f"{x.grad[0].tolist()}. Gradients also flow through the mean and the variance."
        )
        print("LayerNorm: all visible checks pass.")

    check_LayerNorm()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# If you assign an `nn.Parameter` to an attribute, it is trained, moved and saved with the module.
# With `keepdim=True`, the mean keeps an axis of size 1, so it broadcasts against `x`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x.var(...)` and `x.std(...)` divide by d − 1 unless you pass `correction=0`. You can sidestep
# this by computing the variance as the mean of the squared deviations.
# </details>

# %% [markdown]
# **What to notice.** Multiplying `x` by 10, or adding 5 to all features, does not change the result
# (if $\varepsilon$ is small compared with the variance). Only the pattern of the features remains.
# In today's example, that is not much: *red* (1, 0) becomes (1, −1), and *purple* (1, 1) has
# variance 0 and becomes (0, 0). With 64 features, a pattern carries more information.

# %% [markdown]
# ## `FeedForward`
# ★☆☆☆☆ · 5 minutes
#
# The output of attention is only a mixture of values. The feed-forward network computes new
# features from it. It applies the same two linear maps, with a ReLU between them, to each position
# separately:
#
# $$\operatorname{FFN}(x) = \operatorname{dropout}\bigl(\max(0,\; \underbrace{x}_{* \times d}\,
# \underbrace{W_1^\top}_{d \times d_{ff}} + b_1)\bigr)\, \underbrace{W_2^\top}_{d_{ff} \times d} + b_2$$
#
# The hidden layer usually has $d_{ff} = 4d$ features. The paper (section 3.3) does not use dropout
# here; we follow torch's `nn.TransformerEncoderLayer`, which does.
#
# **The trap.** Dropout has to be off in evaluation mode. Use a module that responds to `train()`
# and `eval()`.


# %%
class FeedForward(nn.Module):
    """Two linear maps with a ReLU between them, applied to each position separately.

    Attributes to define: `linear1` (`nn.Linear(d_model, d_ff)`) and `linear2`
    (`nn.Linear(d_ff, d_model)`). Dropout is applied to the hidden features, after the ReLU.

    Source: Vaswani et al. (2017), section 3.3; `nn.TransformerEncoderLayer` for the dropout.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return the output of the feed-forward network at each position of `x`."""
        ### BEGIN SOLUTION
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_FeedForward():
        # Use one feature and two hidden units, x and −x. After the ReLU, their sum is |x|.
        network = FeedForward(1, 2).eval()
        shapes = {
            name: tuple(parameter.shape)
            for name, parameter in network.named_parameters(remove_duplicate=False)
        }
        wanted = {"linear1.weight": (2, 1), "linear1.bias": (2,)}
        wanted |= {"linear2.weight": (1, 2), "linear2.bias": (1,)}
        assert wanted.items() <= shapes.items(), (
            f"With d_model 1 and d_ff 2, the parameters should be {wanted}; yours are {shapes}."
        )
        with torch.no_grad():
            network.linear1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            network.linear1.bias.zero_()
            network.linear2.weight.fill_(1.0)
            network.linear2.bias.fill_(0.5)
        seen = network(torch.tensor([[2.0], [-3.0], [8.0]]))
        assert seen is not None, "forward returns None. Does it end with `return`?"
        noisy, row = filled(FeedForward(6, 50, dropout=0.5)).eval(), fixed_numbers(1, 6)
        assert torch.equal(noisy(row), noisy(row)), (
            "In evaluation mode, two results should be equal; yours differ. Is dropout still active?"
        )
        assert torch.allclose(seen, torch.tensor([[2.5], [3.5], [8.5]])), (
            "With these weights, FeedForward computes |x| + 0.5, so 2, −3 and 8 should give 2.5, 3.5 and "
            f"8.5; yours gives {seen.flatten().tolist()}. The hidden features are x and −x."
        )
        with torch.no_grad():
            network.linear2.bias.fill_(-4.0)
        seen = network(torch.tensor([[2.0], [-3.0]]))
        assert torch.allclose(seen, torch.tensor([[-2.0], [-1.0]])), (
            "With these weights, FeedForward computes |x| − 4, so 2 and −3 should give −2 and −1; yours "
            f"gives {seen.flatten().tolist()}. There is no activation after the second linear map."
        )
        network, x = filled(FeedForward(6, 5)).eval(), fixed_numbers(2, 3, 6)
        with expecting("Inputs of shape (2, 3, 6) should work"):
            together, alone = network(x)[1, 2], network(x[1, 2])
        assert torch.allclose(together, alone, atol=1e-4), (
            "A position should give the same result alone as with other positions; your FeedForward gives "
            f"{alone.tolist()} alone and {together.tolist()} with others."
        )
        with expecting(
            "A non-contiguous input should work", "You do not need to reshape anything here."
        ):
            network(x.transpose(0, 1))

        # The two hidden features cancel out, unless dropout sets one of them to 0.
        with torch.no_grad():
            network = filled(FeedForward(1, 2, dropout=0.5)).train()
            network.linear1.weight.fill_(1.0)
            network.linear1.bias.zero_()
            network.linear2.weight.copy_(torch.tensor([[1.0, -1.0]]))
            network.linear2.bias.zero_()
        assert network(torch.ones(50, 1)).any(), (
            "In training mode, dropout should set some hidden features to 0; yours sets none to 0."
        )
        kept, dropped = filled(FeedForward(6, 5)), filled(FeedForward(6, 5, dropout=0.9999999))
        assert torch.allclose(kept.train()(x), kept.eval()(x), atol=1e-4), (
            "If `dropout` is not given, training mode should not change the result; in your module, it does. "
            "Which probability do you use?"
        )
        seen, expected = dropped.train()(x), dropped.linear2.bias.expand(2, 3, 6)
        assert torch.allclose(seen, expected, atol=1e-4), (
            "If dropout sets all hidden values to 0, the result should be the bias of linear2, "
            f"{expected[0, 0].tolist()}; yours is {seen[0, 0].tolist()}. What do you apply dropout to?"
        )
        assert torch.allclose(dropped.eval()(x), kept.eval()(x), atol=1e-4), (
            "In evaluation mode, dropout should not change the result; yours differs from the result without dropout."
        )
        print("FeedForward: all visible checks pass.")

    check_FeedForward()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `nn.Linear` works on the last axis and leaves all others unchanged, so you do not need to reshape
# anything.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `train()` and `eval()` on your module also switch its `nn.Dropout` submodules on and off.
# `F.dropout` needs the argument `training`.
# </details>

# %% [markdown]
# **What to notice.** With $d_{ff} = 4d$, the feed-forward network has $8d^2$ weights, two thirds of
# an encoder layer's total; the attention layer has $4d^2$.

# %% [markdown]
# ## `EncoderLayer`
# ★★★☆☆ · 15 minutes
#
# The encoder layer gathers information with attention, then processes it with the feed-forward
# network. Each of these *sublayers* has a **residual connection**: its input is added to its output,
# so it only has to learn what to change. In the paper, the sum is then normalised (*post-norm*).
#
# ![In post-norm, the outputs of attention and of the feed-forward network are added to the main
# path, and each sum passes through a norm. In pre-norm, each norm is inside a branch, before attention or
# the feed-forward network.](figures/residual.svg)
#
# $$x \leftarrow \operatorname{norm}_1
# \bigl(x + \operatorname{dropout}(\operatorname{attention}(x, x, x))\bigr)$$
#
# $$x \leftarrow \operatorname{norm}_2
# \bigl(x + \operatorname{dropout}(\operatorname{FFN}(x))\bigr)$$
#
# Every tensor here has shape `b n d_model`. Each norm is a `LayerNorm`, which rescales each position
# to mean 0 and variance 1.
#
# **The trap.** Even with norm, addition and dropout in the wrong order, a layer often still trains.
# For both residual connections, check that you add back the right tensor and apply dropout only to
# the branch.
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention`,
# `multi_head_attention_forward`, and `nn.Transformer` and its encoder and decoder classes.


# %%
class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, a residual connection and a norm.

    Attributes to define: `self_attention` (a `MultiHeadAttention`), `feed_forward` (a `FeedForward`
    with the same `dropout`), `norm1` and `norm2` (each a `LayerNorm`). With copied weights, the
    layer matches `nn.TransformerEncoderLayer(norm_first=False)` in evaluation mode.

    Source: Vaswani et al. (2017), sections 3.1 and 5.4.
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
        """Return the updated vectors.

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

    @visible_check
    def check_EncoderLayer():
        layer, x = EncoderLayer(4, 2, 8).eval(), fixed_numbers(2, 3, 4)
        names = {name.split(".")[0] for name, _ in layer.named_parameters(remove_duplicate=False)}
        wanted = {"self_attention", "feed_forward", "norm1", "norm2"}
        assert wanted <= names, (
            f"The layer should have the submodules {sorted(wanted)}; yours has {sorted(names)}. "
            "Check the attribute names in the docstring."
        )
        assert layer.norm1 is not layer.norm2, (
            "norm1 and norm2 should be different modules; yours are the same object."
        )
        assert layer.self_attention.out.bias is not None, (
            "self_attention should have biases, but yours has none. Its third argument is `bias`."
        )
        with expecting(
            "An x of shape (2, 3, 4) should keep its shape",
            "Compare each call with the signature. What does MultiHeadAttention return?",
        ):
            seen = layer(x)
        assert seen is not None, "forward returns None. Does it end with `return`?"
        assert seen.shape == (2, 3, 4), (
            f"The shape should still be (2, 3, 4); yours is {tuple(seen.shape)}."
        )
        assert seen.mean(dim=-1).abs().max() < 1e-4, (
            "After the last norm, each position should have mean 0; yours have means "
            f"{seen.mean(dim=-1).tolist()}."
        )
        x_before = x.clone()
        layer(x)
        assert torch.equal(x, x_before), "forward should not modify its argument; yours changes x."

        layer = filled(layer)
        last_hidden = torch.tensor([True, True, False]).expand(3, 3)
        changed = x.clone()
        changed[:, 2, 0] += 1.0
        moved = (layer(x, last_hidden) - layer(changed, last_hidden))[:, :2].abs().max()
        assert moved < 1e-5, (
            "Position 2 is masked, so it should not affect the other positions; in your layer, it changes "
            f"them by up to {moved:.2g}. Do you pass the mask on? True means that attention is allowed."
        )
        moved = (layer(x) - layer(changed))[:, :2].abs().max()
        assert moved > 1e-5, (
            "Without a mask, position 2 should affect the other positions; in your layer, it does not."
        )

        # If both sublayers return 0, only the residual connections and the norms remain.
        silent = filled(EncoderLayer(4, 2, 8)).eval()
        with torch.no_grad():
            for linear in (silent.self_attention.out, silent.feed_forward.linear2):
                linear.weight.zero_()
                linear.bias.zero_()
            for norm in (silent.norm1, silent.norm2):
                norm.weight.fill_(1.0)
                norm.bias.zero_()
        seen = silent(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))[0, 0, 0]
        assert abs(seen - 3**0.5) < 1e-3, (
            "If both sublayers return 0, (1, 0, 0, 0) should become (1.732, …); yours begins with "
            f"{seen:.3f}. Each residual connection adds the input of its sublayer."
        )
        with torch.no_grad():
            silent.norm1.weight.zero_()
            silent.norm1.bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]))
        seen = silent(x)
        assert torch.allclose(seen, seen[0, 0].expand_as(seen), atol=1e-5), (
            "Here, norm1 returns the same vector at every position and feed_forward returns 0, so all "
            "positions should be equal; yours differ. After norm1, the layer no longer needs its input."
        )

        # Compare with torch's own layer.
        theirs = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True).eval()
        ours = layer.self_attention
        with torch.no_grad():
            parts = (ours.query, ours.key, ours.value)
            theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.self_attn.out_proj.load_state_dict(ours.out.state_dict())
        for name in ("linear1", "linear2"):
            getattr(theirs, name).load_state_dict(getattr(layer.feed_forward, name).state_dict())
        for name in ("norm1", "norm2"):
            getattr(theirs, name).load_state_dict(getattr(layer, name).state_dict(), strict=False)
        error = (layer(x) - theirs(x)).abs().max().item()
        assert error < 1e-3, (
            "With the same weights, the result should match that of nn.TransformerEncoderLayer; yours "
            f"differs by up to {error:.2g}. The two norms contain different weights."
        )

        noisy = filled(EncoderLayer(4, 2, 8, dropout=0.5))
        noisy.eval()
        assert torch.equal(noisy(x), noisy(x)), (
            "In evaluation mode, two results should be equal; yours differ. Is dropout still active?"
        )
        noisy.train()
        assert not torch.equal(noisy(x), noisy(x)), (
            "In training mode, dropout should make two results differ; yours are equal."
        )
        dropped = filled(EncoderLayer(4, 2, 8, dropout=0.9999999)).train()
        seen, expected = dropped(x), x
        for norm in (dropped.norm1, dropped.norm2):
            expected = nn.functional.layer_norm(expected, (4,), norm.weight, norm.bias)
        assert torch.allclose(seen, expected, atol=1e-3), (
            "If dropout sets the outputs of both sublayers to 0, the result should be norm2(norm1(x)) = "
            f"{expected[0, 0].tolist()}; yours is {seen[0, 0].tolist()}. Apply dropout to the output of each "
            "sublayer before you add it to x."
        )
        for step, silent in (
            ("attention", "self_attention.out"),
            ("the feed-forward network", "feed_forward.linear2"),
        ):
            one = filled(EncoderLayer(4, 2, 8, dropout=0.5)).train()
            with torch.no_grad():
                one.get_submodule(silent).weight.zero_()
                one.get_submodule(silent).bias.zero_()
            assert not torch.equal(one(x), one(x)), (
                f"In training mode, dropout should make two results differ even if {step} returns 0; "
                "yours are equal."
            )
        # Attention returns 0, and the layer gets the same vector 500 times. Dropout on the 4
        # features that feed_forward returns gives at most 16 different results.
        one = filled(EncoderLayer(4, 2, 8, dropout=0.5)).train()
        with torch.no_grad():
            one.self_attention.out.weight.zero_()
            one.self_attention.out.bias.zero_()
        n_results = len(one(x[:1, :1].expand(1, 500, 4)).round(decimals=3).unique(dim=1)[0])
        assert n_results > 40, (
            "With dropout both inside feed_forward and on its output, there should be more than 40 different "
            f"results; your layer gives {n_results}. Do you pass `dropout` to feed_forward?"
        )
        print("EncoderLayer: all visible checks pass.")

    check_EncoderLayer()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `MultiHeadAttention` takes a query, a key and a value, and returns a pair. In self-attention, all
# three arguments are the same.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each formula fits on one line of the form "norm of (input + dropout of the branch)". The input of
# the second formula is the result of the first.
# </details>

# %% [markdown]
# **What to notice.** Input and output have the same shape, so layers can be stacked. Most later
# models, and Day 2, use pre-norm: deep stacks then train more stably ([Xiong et al.
# 2020](https://arxiv.org/abs/2002.04745)).

# %% [markdown]
# ### Demonstration: what residual connections preserve
#
# The demonstration feeds random vectors into twelve untrained encoder layers, with and without
# residual connections.


# %% tags=["support"]
class WeakResiduals(nn.Module):
    """An encoder layer whose residual connections are multiplied by `kept`."""

    def __init__(self, layer: EncoderLayer, kept: float):
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, x):
        x = self.layer.norm1(self.kept * x + self.layer.self_attention(x, x, x)[0])
        return self.layer.norm2(self.kept * x + self.layer.feed_forward(x))


def position_similarity(x):
    """Return the mean cosine similarity between different positions of a sequence."""
    directions = F.normalize(x.detach(), dim=-1)
    n = x.shape[1]
    pairs = (directions @ directions.transpose(1, 2)).sum(dim=(1, 2)) - n
    return (pairs / (n * (n - 1))).mean().item()


def measure_layers(layers):
    """Return the similarities and gradient norms before the first layer and after each layer."""
    torch.manual_seed(1)
    x = [torch.randn(8, 16, 64, requires_grad=True)]
    for layer in layers:
        x.append(layer(x[-1]))
        x[-1].retain_grad()
    (x[-1] * torch.randn_like(x[-1])).sum().backward()
    sizes = [vectors.grad.norm().item() for vectors in x]
    return [position_similarity(vectors) for vectors in x], [size / sizes[-1] for size in sizes]


# %%
if __name__ == "__main__":
    predict("Without residuals, how similar (cosine) are positions after 12 layers?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        stack = [EncoderLayer(64, 4, 256) for _ in range(12)]
        curves = {
            "with residual connections": measure_layers(stack),
            "without residual connections": measure_layers(
                [WeakResiduals(layer, 0) for layer in stack]
            ),
        }
        predict.reveal(
            "Without residuals, how similar (cosine) are positions after 12 layers?",
            curves["without residual connections"][0][-1],
        )
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        for (name, (similarities, sizes)), line in zip(curves.items(), ("o-", "s--"), strict=True):
            left.plot(similarities, line, label=name)
            right.plot(sizes, line, label=name)
        left.set(xlabel="layers", ylabel="similarity of positions", ylim=(-0.05, 1.05))
        right.set(xlabel="layers", ylabel="gradient, relative to the end", ylim=(0, 1.05))
        left.legend()
        plt.show()

# %% [markdown]
# **What to notice.** Without residual connections, all positions of a sequence have almost the same
# vector after two layers: their cosine similarity is 1.00 (left). Each attention layer averages
# over positions, and nothing preserves their differences. With residual connections, the similarity
# is 0.44 after twelve layers, and 89% of the gradient reaches the input (right). Without
# them, the norms rescale the gradient, and 40% reaches the input. (All numbers are for seed 0.)
#
# **Your experiment.** Residual connections can also be weaker or stronger. Multiply them by a factor;
# 0 removes them, and 1 is the encoder layer.

# %%
if __name__ == "__main__":
    predict("With your factor, how similar (cosine) are positions after 12 layers?", ...)

# %%
if __name__ == "__main__":
    kept = 0.5  # choose a number from 0 to 4
    with demonstration():
        my_similarity = measure_layers([WeakResiduals(layer, kept) for layer in stack])[0][-1]
        predict.reveal(
            "With your factor, how similar (cosine) are positions after 12 layers?", my_similarity
        )
        record(f"similarity of positions with residuals times {kept}", my_similarity)

# %% [markdown]
# ## `DecoderLayer`
# ★★★☆☆ · 15 minutes
#
# The decoder layer has three sublayers. Self-attention reads the target so far. **Cross-attention**
# reads the source: queries come from the target, and keys and values come from `memory`, the
# encoder's output. Finally, the feed-forward network processes the result.
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
# Here $x$ has shape `b n d_model`, and the memory has shape `b m d_model`. The attention weights
# have shape `b h n n` in self-attention and `b h n m` in cross-attention:
#
# ![In self-attention, queries and keys come from the target, and the mask hides the future. In
# cross-attention, queries come from the target, keys come from the memory, and the memory mask
# hides source padding.](figures/cross-attention.svg)
#
# **The trap.** The two masks hide different things. For each mask, ask which sequence its last axis
# corresponds to.
#
# Not allowed: the same as for `EncoderLayer`.


# %%
class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention to the encoder's output and a feed-forward network.

    Attributes to define: `self_attention` and `cross_attention` (each a `MultiHeadAttention`),
    `feed_forward` (a `FeedForward` with the same `dropout`), `norm1`, `norm2` and `norm3` (each a
    `LayerNorm`). With copied weights, the layer matches
    `nn.TransformerDecoderLayer(norm_first=False)` in evaluation mode.

    Source: Vaswani et al. (2017), sections 3.1 and 5.4.
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
        """Return the updated vectors. Masks are True where attention is allowed.

        `mask` is for attention within x (`"n n"`, `"b 1 n"` or `"b n n"`). `memory_mask` is for
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

    @visible_check
    def check_DecoderLayer():
        layer = DecoderLayer(4, 2, 8).eval()
        x, memory = fixed_numbers(2, 3, 4), fixed_numbers(2, 5, 4).cos()
        names = {name.split(".")[0] for name, _ in layer.named_parameters(remove_duplicate=False)}
        wanted = {"self_attention", "cross_attention", "feed_forward", "norm1", "norm2", "norm3"}
        assert wanted <= names, (
            f"The layer should have the submodules {sorted(wanted)}; yours has {sorted(names)}. "
            "Check the attribute names in the docstring."
        )
        modules = {
            layer.norm1,
            layer.norm2,
            layer.norm3,
            layer.self_attention,
            layer.cross_attention,
        }
        assert len(modules) == 5, (
            "The three norms and the two attention layers should be five different modules; in your layer, "
            "some are the same object."
        )
        assert layer.self_attention.out.bias is not None, (
            "self_attention should have biases, but yours has none. Its third argument is `bias`."
        )
        layer = filled(layer)
        with expecting(
            "An x of shape (2, 3, 4) and a memory of shape (2, 5, 4) should work",
            "In cross-attention, both the keys and the values come from the memory.",
        ):
            seen = layer(x, memory)
        assert seen is not None, "forward returns None. Does it end with `return`?"
        assert seen.shape == x.shape, (
            f"The result should have the same shape as x, (2, 3, 4); yours has shape {tuple(seen.shape)}. "
            "Where do the queries in cross-attention come from?"
        )
        twice = layer(x, memory.sin())
        assert not torch.allclose(seen, twice, atol=1e-5), (
            "A different memory should give a different result; yours is the same."
        )

        causal = torch.ones(3, 3, dtype=torch.bool).tril()
        changed = x.clone()
        changed[:, 2, 0] += 1.0
        with expecting(
            "A mask of shape (3, 3) should work for an x of shape (2, 3, 4) and a memory of 5 positions",
            "`mask` is only for self-attention.",
        ):
            result = layer(x, memory, causal)
        moved = (result - layer(changed, memory, causal))[:, :2].abs().max()
        assert moved < 1e-5, (
            "With a causal mask, position 2 should not affect positions 0 and 1; in your layer, it changes them "
            f"by up to {moved:.2g}. Do you pass on `mask`? True means that attention is allowed."
        )

        visible = torch.tensor([True, True, True, False, False]).reshape(1, 1, 5)
        changed = memory.clone()
        changed[:, 3:, 0] += 1.0
        with expecting(
            "A memory_mask of shape (1, 1, 5) should work for a memory of 5 positions",
            "`memory_mask` is only for cross-attention.",
        ):
            result = layer(x, memory, causal, visible)
        moved = (result - layer(x, changed, causal, visible)).abs().max()
        assert moved < 1e-5, (
            "Positions 3 and 4 of the memory are masked, so they should not affect the result; in your layer, "
            f"they change it by up to {moved:.2g}. Do you pass on `memory_mask`? True means that attention is allowed."
        )
        moved = (layer(x, memory, causal) - layer(x, changed, causal)).abs().max()
        assert moved > 1e-5, (
            "Without a memory_mask, every position of the memory should affect the result; in your layer, "
            "positions 3 and 4 do not."
        )
        short, changed = memory[:, :3], memory[:, :3].clone()
        changed[:, 2, 0] += 1.0
        moved = (layer(x, short, causal) - layer(x, changed, causal))[:, 0].abs().max()
        assert moved > 1e-5, (
            "Position 0 should see the whole memory, even if the memory is as long as x; in your layer, "
            "position 2 of the memory does not affect it. Which attention layer do you pass `mask` to?"
        )

        # norm1 now returns the same vector for every x, so the result depends only on the memory.
        forgetful = filled(DecoderLayer(4, 2, 8)).eval()
        with torch.no_grad():
            forgetful.norm1.weight.zero_()
        assert torch.allclose(forgetful(x, memory), forgetful(-x, memory), atol=1e-5), (
            "Here, norm1 returns the same vector for every x, so x and −x should give the same result; "
            "yours differ. After norm1, the layer no longer needs its input."
        )

        # Compare with torch's own layer.
        theirs = nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0, batch_first=True).eval()
        pairs = (
            (theirs.self_attn, layer.self_attention),
            (theirs.multihead_attn, layer.cross_attention),
        )
        for their_attention, ours in pairs:
            with torch.no_grad():
                parts = (ours.query, ours.key, ours.value)
                their_attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
                their_attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            their_attention.out_proj.load_state_dict(ours.out.state_dict())
        for name in ("linear1", "linear2"):
            getattr(theirs, name).load_state_dict(getattr(layer.feed_forward, name).state_dict())
        for name in ("norm1", "norm2", "norm3"):
            getattr(theirs, name).load_state_dict(getattr(layer, name).state_dict(), strict=False)
        error = (layer(x, memory) - theirs(x, memory)).abs().max().item()
        assert error < 1e-3, (
            "With the same weights, the result should match that of nn.TransformerDecoderLayer; yours "
            f"differs by up to {error:.2g}. Compare your three steps with the formulas."
        )

        noisy = filled(DecoderLayer(4, 2, 8, dropout=0.5))
        noisy.eval()
        assert torch.equal(noisy(x, memory), noisy(x, memory)), (
            "In evaluation mode, two results should be equal; yours differ. Is dropout still active?"
        )
        noisy.train()
        assert not torch.equal(noisy(x, memory), noisy(x, memory)), (
            "In training mode, dropout should make two results differ; yours are equal."
        )
        dropped = filled(DecoderLayer(4, 2, 8, dropout=0.9999999)).train()
        seen, expected = dropped(x, memory), x
        for norm in (dropped.norm1, dropped.norm2, dropped.norm3):
            expected = nn.functional.layer_norm(expected, (4,), norm.weight, norm.bias)
        assert torch.allclose(seen, expected, atol=1e-3), (
            "If dropout sets the outputs of all three sublayers to 0, the result should be "
            f"norm3(norm2(norm1(x))) = {expected[0, 0].tolist()}; yours is {seen[0, 0].tolist()}. "
            "Apply dropout to the output of each sublayer before you add it to x."
        )
        # As in check_EncoderLayer: both attention layers return 0, and all 500 vectors are equal.
        one = filled(DecoderLayer(4, 2, 8, dropout=0.5)).train()
        with torch.no_grad():
            for attention in (one.self_attention, one.cross_attention):
                attention.out.weight.zero_()
                attention.out.bias.zero_()
        result = one(x[:1, :1].expand(1, 500, 4), memory[:1])
        n_results = len(result.round(decimals=3).unique(dim=1)[0])
        assert n_results > 40, (
            "With dropout both inside feed_forward and on its output, there should be more than 40 different "
            f"results; your layer gives {n_results}. Do you pass `dropout` to feed_forward?"
        )
        print("DecoderLayer: all visible checks pass.")

    check_DecoderLayer()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The first and last sublayers are the same as in `EncoderLayer`. In the middle one, there are as
# many keys and values as source tokens.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Use the memory unchanged: this layer applies no norm, residual connection or dropout to it.
# </details>

# %% [markdown]
# **What to notice.** The source enters only as keys and values. It can therefore have any length,
# and you encode it only once, however many tokens you generate. The first figure in this notebook
# shows cross-attention weights.

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
#    them compute?
# 2. Post-norm puts two norms per encoder layer on the path from input to output. Why might that
#    make deep stacks harder to train, and what are the drawbacks of pre-norm?
#
# <details><summary>Answers</summary>
#
# 1. Only self-attention does. The norms, residual connections, dropout and feed-forward network
#    process each position separately. Without attention, the encoder would apply a small network to
#    each token separately: it would be a glorified embedding table.
# 2. In pre-norm, the path through all layers contains only additions. One term of the gradient
#    therefore reaches every layer unchanged; the branches add other terms. In post-norm, the
#    gradient passes through every norm, and early in training it is large near the output. Training
#    therefore needs a warm-up (Xiong et al. 2020). The drawback of pre-norm is that nothing limits
#    the size of x (the *residual stream*), so late layers change it relatively little. Pre-norm
#    also needs a final norm before the output.
# </details>
