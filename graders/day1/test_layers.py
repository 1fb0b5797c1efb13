"""Hidden tests for the layers chapter. The oracles use torch's own layers or evaluate the formulas in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    finite,
    leaf_gradient,
    on_meta,
    redrawn,
    shaped,
    unchanged,
    weight,
)
from autograder.execution.student import RemoteModule, Student
from graders.equivalent_calls import leading_axes

# All sizes differ, including the number of heads and the head size.
D, HEADS, D_FF, B, N, M = 6, 3, 10, 2, 5, 7
Oracle = Callable[..., Tensor]
DTYPE_TOLERANCES = ((torch.float64, 1e-5), (torch.bfloat16, 1e-1), (torch.float16, 2e-2))


def attention_weights(draw: Draw, prefix: str, d: int) -> dict[str, Tensor]:
    """Return random weights and biases for the four linear layers of an attention module."""
    return {
        f"{prefix}.{part}.{kind}": value
        for part in ("query", "key", "value", "out")
        for kind, value in (("weight", draw.normal(d, d, scale=d**-0.5)), ("bias", draw.normal(d)))
    }


def layer_weights(
    draw: Draw, attentions: tuple[str, ...], d: int = D, d_ff: int = D_FF
) -> dict[str, Tensor]:
    """Return random weights for a layer with the given attention modules, a feed-forward network and one norm per sublayer."""
    weights: dict[str, Tensor] = {}
    for prefix in attentions:
        weights |= attention_weights(draw, prefix, d)
    weights |= {
        "feed_forward.linear1.weight": draw.normal(d_ff, d, scale=d**-0.5),
        "feed_forward.linear1.bias": draw.normal(d_ff),
        "feed_forward.linear2.weight": draw.normal(d, d_ff, scale=d_ff**-0.5),
        "feed_forward.linear2.bias": draw.normal(d),
    }
    weights["feed_forward.linear1.bias"][0] = 6  # keeps ReLU from setting all hidden values to 0
    for i in range(1, len(attentions) + 2):
        weights[f"norm{i}.weight"] = 1 + draw.uniform(d, low=-0.5, high=0.5)
        weights[f"norm{i}.bias"] = draw.normal(d)
    return weights


def encoder_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Return random weights for an `EncoderLayer`."""
    return layer_weights(draw, ("self_attention",), d, d_ff)


def decoder_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Return random weights for a `DecoderLayer`."""
    return layer_weights(draw, ("self_attention", "cross_attention"), d, d_ff)


def to_torch_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights to float64 and rename them to match torch's own layers."""
    found: dict[str, Tensor] = {}
    for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "multihead_attn")):
        if f"{ours}.out.weight" not in weights:
            continue
        for kind in ("weight", "bias"):
            parts = [weights[f"{ours}.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{theirs}.in_proj_{kind}"] = torch.cat(parts)
            found[f"{theirs}.out_proj.{kind}"] = weights[f"{ours}.out.{kind}"]
    for name, value in weights.items():
        if name.startswith(("feed_forward.", "norm")):
            found[name.removeprefix("feed_forward.")] = value
    return {name: value.double() for name, value in found.items()}


@cache
def _cached_layer(kind: type[nn.Module], d: int, heads: int, d_ff: int) -> nn.Module:
    """Return a torch layer whose own weights are never used: `functional_call` replaces them."""
    return kind(d, heads, d_ff, batch_first=True).eval()


def _torch_layer(kind: type[nn.Module], weights: dict[str, Tensor], heads: int) -> Oracle:
    """Return a function that calls a torch layer with these weights."""
    d_ff, d = weights["feed_forward.linear1.weight"].shape
    # Weights that require gradients disable torch's fast path, which has extra restrictions.
    state = {
        name: value.detach().requires_grad_() for name, value in to_torch_weights(weights).items()
    }
    layer = _cached_layer(kind, d, heads, d_ff)
    return lambda *inputs, **masks: functional_call(layer, state, inputs, masks, strict=True)


def torch_encoder_layer(weights: dict[str, Tensor], heads: int = HEADS) -> Oracle:
    """Return torch's encoder layer with these weights, in float64 and evaluation mode."""
    return _torch_layer(nn.TransformerEncoderLayer, weights, heads)


def torch_decoder_layer(weights: dict[str, Tensor], heads: int = HEADS) -> Oracle:
    """Return torch's decoder layer with these weights, in float64 and evaluation mode."""
    return _torch_layer(nn.TransformerDecoderLayer, weights, heads)


def apply_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Apply the layer norm called `name` in float64."""
    scale, shift = (weights[f"{name}.{kind}"].double() for kind in ("weight", "bias"))
    return F.layer_norm(x.double(), scale.shape, scale, shift)


def apply_feed_forward(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Apply the feed-forward network in float64."""
    w = {name: value.double() for name, value in weights.items()}
    hidden = F.linear(x.double(), w["feed_forward.linear1.weight"], w["feed_forward.linear1.bias"])
    return F.linear(hidden.relu(), w["feed_forward.linear2.weight"], w["feed_forward.linear2.bias"])


def zero_outputs(*linears: str) -> dict[str, Tensor]:
    """Return zero weights for the given linear layers. A sublayer that ends with such a layer outputs 0."""
    silent: dict[str, Tensor] = {}
    for linear in linears:
        width = D_FF if linear == "feed_forward.linear2" else D
        silent |= {f"{linear}.weight": torch.zeros(D, width), f"{linear}.bias": torch.zeros(D)}
    return silent


def small_norm_weights(n: int) -> dict[str, Tensor]:
    """Return norm weights so small that the outputs of the first n norms are on the order of √ε."""
    scale, shift = torch.full((D,), 4e-3), torch.zeros(D)
    small = ((f"norm{i}", kind) for i in range(1, n + 1) for kind in ("weight", "bias"))
    return {f"{norm}.{kind}": scale if kind == "weight" else shift for norm, kind in small}


def random_mask(draw: Draw, *shape: int) -> Tensor:
    """Return a random mask in which every row allows key 2 and masks key 1."""
    mask = draw.mask(*shape)
    mask[..., 2], mask[..., 1] = True, False
    return mask


def to_torch_mask(mask: Tensor, n: int, m: int, heads: int = HEADS) -> Tensor:
    """Convert a mask to torch's format: one mask per sequence and head, True where attention is not allowed."""
    return ~mask.expand(B, n, m).repeat_interleave(heads, dim=0)


def check_gradients_reach(parameters: dict[str, Tensor], names: Iterable[str]) -> None:
    """Check after a backward pass that these parameters have finite gradients that are not all zeros."""
    for name in names:
        assert name in parameters, (
            f"your layer should have a parameter `{name}`; it has {sorted(parameters)}"
        )
        found = leaf_gradient(parameters[name], f"`{name}`")
        # The key bias adds the same value to all scores of a query, which cancels out in the softmax.
        assert found.abs().max() > 0 or name.endswith("key.bias"), (
            f"the gradient of `{name}` is all zeros"
        )


def check_dropout(
    student: Student, layer: RemoteModule, inputs: Sequence[Tensor], sublayers: Sequence[str]
) -> None:
    """Check, with dropout=0.5, that dropout is applied to the output of each sublayer and to nothing else."""
    layer.load(zero_outputs(*sublayers))
    baseline = finite(shaped(layer.eval()(*inputs), inputs[0].shape))
    changed = student.changed
    what = "the result in training mode if every sublayer returns 0, so that dropout has no effect"
    actual = layer.train()(*inputs)
    unchanged(student, besides=changed)
    close(actual, baseline, what, atol=1e-4)
    for sublayer in sublayers:
        layer.load(zero_outputs(*sublayers) | {f"{sublayer}.bias": torch.linspace(2, 5, D)})
        baseline = finite(shaped(layer.eval()(*inputs), inputs[0].shape))
        dropped = finite(shaped(layer.train()(*inputs), inputs[0].shape))
        assert (dropped - baseline).abs().max() > 1e-3, (
            f"with dropout=0.5, dropout on the output of `{sublayer}` should change the result in training mode, "
            "but the result is the same as in evaluation mode"
        )
        redrawn(layer(*inputs), dropped)


def check_dropout_rate(
    layer: RemoteModule, lengths: Sequence[int], sublayers: Sequence[str]
) -> None:
    """Check the fraction of each sublayer's output that is dropped, with dropout=0.7 and all-zero inputs."""
    zeros = [torch.zeros(8, n, D) for n in lengths]
    kept = 0.3
    expected_share = (kept - kept**D) / (1 - kept**D - (1 - kept) ** D)
    for sublayer in sublayers:
        layer.load(zero_outputs(*sublayers) | {f"{sublayer}.bias": torch.full((D,), 3.0)})
        rows = finite(shaped(layer.train()(*zeros), zeros[0].shape)).reshape(-1, D)
        # After the norms, each row contains at most two distinct values. If there are two, the
        # lower one marks the dropped entries. Rows with a single value are ignored.
        mixed = rows[rows.amax(dim=1) - rows.amin(dim=1) > 0.1]
        actual = (mixed > mixed.mean(dim=1, keepdim=True)).double().mean().item()
        # The standard deviation is about 0.01. With dropout=0.5, the expected share would be 0.16 higher.
        assert abs(actual - expected_share) < 0.08, "in training mode with dropout=0.7, " + (
            f"at positions where part of the output of `{sublayer}` is dropped, "
            f"your layer keeps {actual:.0%} of it on average, not {expected_share:.0%}"
            if len(mixed)
            else f"there should be positions where only part of the output of `{sublayer}` is dropped; "
            "your layer has none"
        )


def check_hidden_dropout(
    layer: RemoteModule, inputs: Sequence[Tensor], before: str, after: str
) -> None:
    """Check, with dropout=0.5, that hidden values of the feed-forward network are dropped."""
    # The network's input is 0, its hidden values are 1, and each row of linear2 sums to 1. Dropout on
    # the network's output alone would leave at most two distinct values per position.
    second = torch.arange(1.0, 1 + D * D_FF).reshape(D, D_FF).sin() + 2
    layer.load(
        {
            f"{before}.weight": torch.zeros(D),
            f"{before}.bias": torch.zeros(D),
            "feed_forward.linear1.bias": torch.ones(D_FF),
            "feed_forward.linear2.weight": second / second.sum(dim=1, keepdim=True),
            "feed_forward.linear2.bias": torch.zeros(D),
            f"{after}.weight": torch.ones(D),
            f"{after}.bias": torch.zeros(D),
        }
    )
    rows = finite(shaped(layer.train()(*inputs), inputs[0].shape)).reshape(-1, D)
    assert max(map(count_distinct, rows)) > 2, (
        "with dropout=0.5, dropout on the hidden values of `feed_forward` should be visible in the result in "
        "training mode, but it is not"
    )


def count_distinct(row: Tensor) -> int:
    """Count the distinct values in a row, ignoring differences due to rounding."""
    return 1 + int((row.sort().values.diff() > 1e-4).sum())


class TestLayerNorm:
    exercise = "LayerNorm"

    @weight(0.5)
    def test_parameters(self, student):
        """The parameters `weight` and `bias` have shape (d_model,); `weight` is initialised to ones and `bias` to zeros."""
        weights = student.LayerNorm(7).weights()
        for name, start in (("weight", torch.ones(7)), ("bias", torch.zeros(7))):
            assert name in weights, (
                f"your layer should have a parameter `{name}`; it has {sorted(weights)}"
            )
            close(weights[name], start, f"the initial `{name}`")

    @weight(1.5)
    def test_mean_and_variance(self, student, seed):
        """Each vector is normalised to mean 0 and variance 1, using the biased variance."""
        x = Draw(seed).normal(2, 5, 7, scale=2.0) + 3
        close(leading_axes(student.LayerNorm(7), 1)(x), F.layer_norm(x, (7,)), atol=1e-3)

    @weight(1.5)
    def test_eps_inside_the_root(self, student, seed):
        """`eps` is added to the variance inside the square root, and the caller can choose its value."""
        x = Draw(seed).normal(2, 4, 5) * torch.tensor([[1.0], [1.0], [0.2], [0.5]])
        close(leading_axes(student.LayerNorm(5, eps=0.3), 1)(x), F.layer_norm(x, (5,), eps=0.3))

    @weight(0.5)
    def test_default_eps(self, student, seed):
        """`eps` defaults to 1e-5, which matters for vectors with small values."""
        x = Draw(seed).normal(2, 4, 5, scale=3e-3)
        close(leading_axes(student.LayerNorm(5), 1)(x), F.layer_norm(x, (5,)), atol=1e-4)

    @weight(1)
    def test_weight_and_bias(self, student, seed):
        """The normalised features are multiplied by `weight`, then `bias` is added."""
        draw = Draw(seed)
        # The variance is so large that the value of eps does not matter.
        x, scale, shift = draw.normal(2, 3, 7, scale=10.0), draw.normal(7), draw.normal(7)
        layer = student.LayerNorm(7)
        layer.load({"weight": scale, "bias": shift})
        close(leading_axes(layer, 1)(x), F.layer_norm(x, (7,), scale, shift), atol=1e-4)

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Only the last axis is normalised, for any number of leading axes; x may be non-contiguous."""
        draw = Draw(seed)
        layer = student.LayerNorm(7)
        for shape in ((7,), (1, 1, 7), (2, 3, 4, 7)):
            x = draw.normal(*shape)
            close(layer(x), F.layer_norm(x, (7,)), f"the result for x of shape {shape}", atol=1e-3)
        x = draw.strided(draw.normal(3, 5, 7))
        close(layer(x), F.layer_norm(x, (7,)), "the result for a non-contiguous x", atol=1e-3)

    @weight(0.5)
    def test_input_unchanged(self, student, seed):
        """The input is not modified in place, and the result is the same in training and evaluation mode."""
        x = Draw(seed).normal(3, 7)
        layer = student.LayerNorm(7)
        trained = finite(shaped(layer.train()(x), (3, 7)))
        unchanged(student)
        close(layer.eval()(x), trained, "the result in evaluation mode")

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of x, `weight` and `bias` are correct, including the terms from the mean and variance."""
        draw = Draw(seed)
        x, upstream, scale = draw.normal(3, 7), draw.normal(3, 7), draw.normal(7)
        x.requires_grad_()
        layer = student.LayerNorm(7)
        layer.load({"weight": scale})
        weights = layer.weights()
        backpropagate(leading_axes(layer, 1)(x), upstream)
        copy, scale, shift = x.detach().clone(), scale.clone(), torch.zeros(7)
        for leaf in (copy, scale, shift):
            leaf.requires_grad_()
        backpropagate(F.layer_norm(copy, (7,), scale, shift), upstream)
        close(leaf_gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        for name, leaf in (("weight", scale), ("bias", shift)):
            actual = leaf_gradient(weights[name], f"`{name}`")
            close(actual, leaf.grad, f"the gradient of `{name}`", atol=1e-3, rtol=1e-3)

    @weight(0.5)
    def test_equal_features(self, student, seed):
        """If all features are equal, the result is `bias` and the gradient is finite."""
        draw = Draw(seed)
        shift = draw.normal(8)
        x = torch.tensor([[2.0], [-3.0]]).repeat(1, 8).requires_grad_()
        layer = student.LayerNorm(8)
        layer.load({"bias": shift})
        actual = close(leading_axes(layer, 1)(x), shift.expand(2, 8), atol=1e-3)
        backpropagate(actual, draw.normal(2, 8))
        leaf_gradient(x, "x")

    @weight(0.5)
    def test_large_mean(self, student, seed):
        """The variance is accurate even if the mean is large compared to the spread."""
        x = Draw(seed).normal(6, 7) + 3000
        expected = F.layer_norm(x.double(), (7,))
        close(leading_axes(student.LayerNorm(7), 1)(x), expected, atol=1e-2, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """The result has the dtype of the input, including in half and double precision."""
        # The variance is so large that the value of eps does not matter.
        x = Draw(seed).normal(3, 8, dtype=torch.float64, scale=10.0)
        # Computing the mean and variance in float32 for every dtype is also correct.
        for dtype, tolerance in DTYPE_TOLERANCES:
            actual = student.LayerNorm(8).to(dtype)(x.to(dtype))
            expected = F.layer_norm(x.to(dtype).double(), (8,))
            close(actual, expected, f"the result in {dtype}", tolerance, tolerance, dtype)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device."""
        layer, x = student.LayerNorm(7), torch.zeros(3, 7, device="meta")
        on_meta(lambda: layer.to("meta")(x), x.shape)


def _dropout_case(dropout: dict[str, float]) -> str:
    """Return a phrase that describes the `dropout` argument in a message."""
    return f"with dropout={dropout['dropout']}" if dropout else "without a dropout argument"


def _loaded_network(student, draw, scale=0.3, **options):
    """Return a student's `FeedForward` with random weights, along with those weights.

    With the default `scale`, hidden values are so small that clipping large ones has no effect.
    """
    weights = {
        "feed_forward.linear1.weight": draw.normal(11, 5, scale=scale),
        "feed_forward.linear1.bias": draw.uniform(11, low=-1.0, high=1.0),
        "feed_forward.linear2.weight": draw.normal(5, 11),
        "feed_forward.linear2.bias": draw.normal(5),
    }
    layer = student.FeedForward(5, 11, **options).eval()
    layer.load({name.removeprefix("feed_forward."): value for name, value in weights.items()})
    return layer, weights


class TestFeedForward:
    exercise = "FeedForward"

    @weight(2)
    def test_values(self, student, seed):
        """The result is linear2(relu(linear1(x))), with both biases."""
        draw = Draw(seed)
        for scale in (1.0, 10.0):
            layer, weights = _loaded_network(student, draw, scale)
            x = draw.normal(2, 3, 5)
            close(
                leading_axes(layer, 1)(x),
                apply_feed_forward(x, weights),
                atol=1e-3,
                dtype=torch.float32,
            )

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Each vector along the last axis is processed independently, for any number of leading axes; x may be non-contiguous."""
        draw = Draw(seed)
        layer, _ = _loaded_network(student, draw)
        x = draw.normal(2, 3, 4, 5)
        actual = shaped(layer(x), (2, 3, 4, 5))
        unchanged(student)
        one = slice(1)
        for some in ((1,), (1, 2), (0, 2, 3), (one, one, one)):
            what = f"the result for x of shape {tuple(x[some].shape)}"
            close(layer(x[some]), actual[some], what, atol=1e-4)
        close(layer(draw.strided(x)), actual, "the result for a non-contiguous x", atol=1e-4)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """In float64, the gradients of the input and of all four parameters are correct."""
        draw = Draw(seed)
        x, upstream = draw.normal(2, 9, 5, dtype=torch.float64)
        layer, weights = _loaded_network(student, draw)
        parameters = layer.to(torch.float64).weights()
        x.requires_grad_()
        actual = shaped(leading_axes(layer, 1)(x), (9, 5), torch.float64)
        backpropagate(actual, upstream)
        copies = {
            name: w.double().requires_grad_() for name, w in {"x": x.detach(), **weights}.items()
        }
        backpropagate(apply_feed_forward(copies["x"], copies), upstream)
        close(leaf_gradient(x, "x"), copies["x"].grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        for name in weights:
            what = f"`{name.removeprefix('feed_forward.')}`"
            found = leaf_gradient(parameters[what.strip("`")], what)
            close(found, copies[name].grad, f"the gradient of {what}", atol=1e-3, rtol=1e-3)

    @weight(0.75)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in evaluation mode, and also in training mode if `dropout` is not given."""
        draw = Draw(seed)
        x = draw.normal(3, 5)
        for options, mode in (({"dropout": 0.5}, "evaluation"), ({}, "training")):
            layer, weights = _loaded_network(student, draw, **options)
            actual = leading_axes(layer.train(mode == "training"), 1)(x)
            what = f"the result in {mode} mode {_dropout_case(options)}"
            close(actual, apply_feed_forward(x, weights), what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout_on_hidden_values(self, student, seed):
        """In training mode, each hidden value (and its gradient) is independently set to 0 or divided by 1 − p."""
        # Hidden value i is x_i + 1; output i is hidden value i plus 3.
        d = 40
        layer = student.FeedForward(d, d, dropout=0.2)
        layer.load(
            {
                "linear1.weight": torch.eye(d),
                "linear1.bias": torch.ones(d),
                "linear2.weight": torch.eye(d),
                "linear2.bias": torch.full((d,), 3.0),
            }
        )
        x = Draw(seed).uniform(50, d, low=0.5, high=1.5)
        hidden = shaped(leading_axes(layer.eval(), 1)(x), (50, d)) - 3
        changed = student.changed
        x.requires_grad_()
        result = shaped(leading_axes(layer.train(), 1)(x), (50, d))
        unchanged(student, besides=changed)
        actual = result.detach()
        zero, kept = (actual - 3).abs() < 1e-3, (actual - 3 - hidden / 0.8).abs() < 1e-3
        wrong = ~zero & ~kept
        assert not wrong.any(), (
            f"in training mode with dropout=0.2, a hidden value of {hidden[wrong][0]:.4g} and a linear2 bias of 3 "
            f"should give an output of 3 or {3 + hidden[wrong][0] / 0.8:.4g}; your output is {actual[wrong][0]:.4g}"
        )
        share = zero.double().mean().item()
        assert 0.1 < share < 0.3, (
            f"with dropout=0.2, about 20% of the hidden values should be dropped; "
            f"your layer drops {share:.0%}"
        )
        # With independent draws, about 32% of the entries differ from their neighbours.
        for axis, name in enumerate(("positions", "features")):
            differing = (zero != zero.roll(1, axis)).double().mean().item()
            assert differing > 0.1, (
                "each hidden value should be dropped independently of the others; "
                f"your dropout treats all {name} alike"
            )
        redrawn(layer(x.detach()), actual)
        backpropagate(result, torch.ones(50, d))
        expected = torch.where(zero, 0.0, 1 / 0.8)
        close(leaf_gradient(x, "x"), expected, "the gradient of x in training mode", atol=1e-4)
        what = "the bfloat16 result in training mode"
        x = x.detach().bfloat16()
        shaped(layer.to(torch.bfloat16)(x), (50, d), torch.bfloat16, what)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device, including in training mode."""
        layer, x = student.FeedForward(5, 11, dropout=0.5), torch.zeros(3, 5, device="meta")
        on_meta(lambda: layer.train().to("meta")(x), x.shape)


class TestEncoderLayer:
    exercise = "EncoderLayer"

    def _random_layer(self, student, seed, weights=None, **options):
        """Return (draw, weights, layer, x). The layer's weights are random except for those given in `weights`."""
        draw = Draw(seed)
        weights = encoder_weights(draw) | (weights or {})
        layer = student.EncoderLayer(D, HEADS, D_FF, **options).eval()
        layer.load(weights)
        return draw, weights, layer, draw.normal(B, N, D)

    @weight(1.5)
    def test_residuals_and_norms(self, student, seed):
        """If both sublayers return 0, the result is the input, normalised by norm1 and then by norm2."""
        silent = zero_outputs("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x = self._random_layer(student, seed, silent)
        expected = apply_norm(apply_norm(x, weights, "norm1"), weights, "norm2")
        close(layer(x), expected, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """Both norms use ε = 1e-5, which matters for vectors with small values."""
        silent = zero_outputs("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x = self._random_layer(student, seed, small_norm_weights(2) | silent)
        expected = apply_norm(apply_norm(3e-3 * x, weights, "norm1"), weights, "norm2")
        close(layer(3e-3 * x), expected, atol=1e-6, dtype=torch.float32)

    @weight(1)
    def test_network_step(self, student, seed):
        """The feed-forward network is applied to the output of norm1, and its result is added to that output."""
        _, weights, layer, x = self._random_layer(student, seed, zero_outputs("self_attention.out"))
        first = apply_norm(x, weights, "norm1")
        expected = apply_norm(first + apply_feed_forward(first, weights), weights, "norm2")
        close(layer(x), expected, atol=1e-3, dtype=torch.float32)

    @weight(1.5)
    def test_agrees_with_torch(self, student, seed):
        """With the same weights and no mask, the layer gives the same result as `nn.TransformerEncoderLayer`."""
        draw, weights, layer, x = self._random_layer(student, seed)
        x, upstream = x.double().requires_grad_(), draw.normal(B, N, D, dtype=torch.float64)
        copy = x.detach().clone().requires_grad_()
        actual, expected = layer.to(torch.float64)(x), torch_encoder_layer(weights)(copy)
        unchanged(student)
        close(actual, expected, "the float64 result", 1e-4, 1e-4)
        backpropagate(actual, upstream)
        backpropagate(expected, upstream)
        close(leaf_gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        weights, x = encoder_weights(draw, 18, 4), draw.normal(1, 3, 18)
        layer = student.EncoderLayer(18, 9, 4).eval()
        layer.load(weights)
        expected = torch_encoder_layer(weights, 9)(x.double())
        close(layer(x), expected, "the result for 9 heads", 1e-3, dtype=torch.float32)

    @weight(1)
    def test_mask(self, student, seed):
        """`mask` is True where attention is allowed and has shape (n, n), (b, 1, n) or (b, n, n)."""
        draw, weights, layer, x = self._random_layer(student, seed)
        oracle = torch_encoder_layer(weights)
        for shape in ((N, N), (B, 1, N), (B, N, N)):
            mask = random_mask(draw, *shape)
            expected = oracle(x.double(), src_mask=to_torch_mask(mask, N, N))
            what = f"the result with a mask of shape {shape}"
            with torch.no_grad():
                actual = layer(x, mask)
            unchanged(student)
            close(actual, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_every_call(self, student, seed):
        """A mask affects only the call it is passed to. x may be non-contiguous, have length 1 or be in half precision."""
        draw, weights, layer, x = self._random_layer(student, seed)
        x, mask, oracle = draw.strided(x), random_mask(draw, N, N), torch_encoder_layer(weights)
        shaped(layer(x, mask), x.shape)
        for some in (x, x[:1, :1]):
            what = f"the result of a later call without a mask, for x of shape {tuple(some.shape)}"
            close(layer(some), oracle(some.double()), what, atol=1e-3, dtype=torch.float32)
        half, what = x.to(torch.bfloat16), "the bfloat16 result"
        shaped(layer.to(torch.bfloat16)(half, mask), x.shape, torch.bfloat16, what)

    @weight(1)
    def test_masked_positions(self, student, seed):
        """A position that is masked for every query does not affect the results at other positions."""
        draw = Draw(seed)
        x, mask = draw.normal(B, N, D), torch.ones(B, 1, N, dtype=torch.bool)
        mask[0, 0, 3:], mask[1, 0, :2] = False, False
        changed = torch.where(mask.transpose(1, 2), x, draw.normal(B, N, D))
        layer = student.EncoderLayer(D, HEADS, D_FF).eval()
        before = finite(shaped(layer(x, mask), (B, N, D)))
        after = finite(shaped(layer(changed, mask=mask), (B, N, D)))
        allowed = mask[:, 0]
        close(after[allowed], before[allowed], "the result at the other positions", atol=1e-4)
        assert (after - before)[~allowed].abs().max() > 1e-3, (
            "changing x at a masked position should change your result at that position, but it does not"
        )

    @weight(0.5)
    def test_nothing_allowed(self, student, seed):
        """If a position cannot attend to any key, attention outputs the bias of `out` there, not NaN."""
        _, weights, layer, x = self._random_layer(student, seed)
        bias = weights["self_attention.out.bias"].double()
        first = apply_norm(x.double() + bias, weights, "norm1")
        expected = apply_norm(first + apply_feed_forward(first, weights), weights, "norm2")
        x.requires_grad_()
        actual = layer(x, torch.zeros(B, 1, N, dtype=torch.bool))
        close(actual, expected, atol=1e-3, dtype=torch.float32)
        backpropagate(actual, actual.detach())
        leaf_gradient(x, "x")

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach the input and every parameter."""
        draw, weights, layer, x = self._random_layer(student, seed)
        x.requires_grad_()
        parameters = layer.weights()
        actual = shaped(layer.train()(x), (B, N, D))
        backpropagate(actual, draw.normal(B, N, D))
        assert leaf_gradient(x, "x").abs().max() > 0, "the gradient of x is all zeros"
        check_gradients_reach(parameters, weights)

    @weight(1)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in evaluation mode, and also in training mode if `dropout` is not given."""
        for options, mode in (({"dropout": 0.5}, "evaluation"), ({}, "training")):
            _, weights, layer, x = self._random_layer(student, seed, **options)
            expected = torch_encoder_layer(weights)(x.double())
            what = f"the result in {mode} mode {_dropout_case(options)}"
            actual = layer.train(mode == "training")(x)
            close(actual, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout(self, student, seed):
        """In training mode, dropout is applied to the output of each sublayer before it is added to x, and never to x itself."""
        sublayers = ("self_attention.out", "feed_forward.linear2")
        layer = student.EncoderLayer(D, HEADS, D_FF, dropout=0.5)
        check_dropout(student, layer, [Draw(seed).normal(4, N, D)], sublayers)
        check_dropout_rate(student.EncoderLayer(D, HEADS, D_FF, dropout=0.7), [40], sublayers)

    @weight(0.5)
    def test_dropout_in_the_network(self, student, seed):
        """The `dropout` argument is also passed to the `feed_forward` network."""
        layer = student.EncoderLayer(D, HEADS, D_FF, dropout=0.5)
        check_hidden_dropout(layer, [Draw(seed).normal(8, N, D)], "norm1", "norm2")

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with x on that device, with and without a mask."""
        layer, x = student.EncoderLayer(D, HEADS, D_FF), torch.zeros(B, N, D, device="meta")
        mask = torch.ones(B, 1, N, dtype=torch.bool, device="meta")
        on_meta(lambda: layer.to("meta")(x, mask), x.shape)
        on_meta(lambda: layer.to("meta")(x), x.shape)


class TestDecoderLayer:
    exercise = "DecoderLayer"

    def _random_layer(self, student, seed, weights=None, **options):
        """Return (draw, weights, layer, x, memory). The layer's weights are random except for those given in `weights`."""
        draw = Draw(seed)
        weights = decoder_weights(draw) | (weights or {})
        layer = student.DecoderLayer(D, HEADS, D_FF, **options).eval()
        layer.load(weights)
        return draw, weights, layer, draw.normal(B, N, D), draw.normal(B, M, D)

    @weight(1.5)
    def test_residuals_and_norms(self, student, seed):
        """If all three sublayers return 0, the result is the input, normalised by norm1, then norm2, then norm3."""
        silent = zero_outputs("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        _, weights, layer, x, memory = self._random_layer(student, seed, silent)
        expected = x
        for norm in ("norm1", "norm2", "norm3"):
            expected = apply_norm(expected, weights, norm)
        close(layer(x, memory), expected, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """All three norms use ε = 1e-5, which matters for vectors with small values."""
        silent = zero_outputs("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        silent |= small_norm_weights(3)
        _, weights, layer, x, memory = self._random_layer(student, seed, silent)
        expected = x = 3e-3 * x
        for norm in ("norm1", "norm2", "norm3"):
            expected = apply_norm(expected, weights, norm)
        close(layer(x, memory), expected, atol=1e-6, dtype=torch.float32)

    @weight(1.5)
    def test_memory_step(self, student, seed):
        """Cross-attention has a residual connection; its queries come from x, and its keys and values from the memory."""
        silent = zero_outputs("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x, memory = self._random_layer(student, seed, silent)
        expected = torch_decoder_layer(weights)(x.double(), memory.double())
        close(layer(x, memory), expected, atol=1e-3, dtype=torch.float32)

    @weight(1.5)
    def test_agrees_with_torch(self, student, seed):
        """With the same weights and no masks, the layer gives the same result as `nn.TransformerDecoderLayer`."""
        draw, weights, layer, *inputs = self._random_layer(student, seed)
        inputs = [x.double().requires_grad_() for x in inputs]
        copies = [x.detach().clone().requires_grad_() for x in inputs]
        actual, expected = layer.to(torch.float64)(*inputs), torch_decoder_layer(weights)(*copies)
        unchanged(student)
        close(actual, expected, "the float64 result", 1e-4, 1e-4)
        upstream = draw.normal(B, N, D, dtype=torch.float64)
        backpropagate(actual, upstream)
        backpropagate(expected, upstream)
        for what, x, copy in zip(("x", "the memory"), inputs, copies, strict=True):
            close(
                leaf_gradient(x, what), copy.grad, f"the gradient of {what}", atol=1e-3, rtol=1e-3
            )
        # With equal lengths, swapping x and memory raises no error but changes the result.
        x, memory = draw.normal(2, B, N, D, dtype=torch.float64)
        expected = torch_decoder_layer(weights)(x, memory)
        close(layer(x, memory), expected, "the result for a memory as long as x", 1e-4, 1e-4)
        weights, x, memory = (
            decoder_weights(draw, 18, 4),
            draw.normal(1, 3, 18),
            draw.normal(1, 2, 18),
        )
        layer = student.DecoderLayer(18, 9, 4).eval()
        layer.load(weights)
        expected = torch_decoder_layer(weights, 9)(x.double(), memory.double())
        close(layer(x, memory), expected, "the result for 9 heads", 1e-3, dtype=torch.float32)

    @weight(1)
    def test_mask(self, student, seed):
        """`mask` applies to self-attention and has shape (n, n), (b, 1, n) or (b, n, n)."""
        draw, weights, layer, x, memory = self._random_layer(student, seed)
        oracle = torch_decoder_layer(weights)
        causal = torch.ones(N, N, dtype=torch.bool).tril()
        for mask in (causal, random_mask(draw, B, 1, N), random_mask(draw, B, N, N)):
            expected = oracle(x.double(), memory.double(), tgt_mask=to_torch_mask(mask, N, N))
            what = f"the result with a mask of shape {tuple(mask.shape)}"
            with torch.no_grad():
                actual = layer(x, memory, mask)
            unchanged(student)
            close(actual, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_memory_mask(self, student, seed):
        """`memory_mask` applies to cross-attention and has shape (n, m), (b, 1, m) or (b, n, m)."""
        draw, weights, layer, x, memory = self._random_layer(student, seed)
        oracle = torch_decoder_layer(weights)
        for shape in ((N, M), (B, 1, M), (B, N, M)):
            mask = random_mask(draw, *shape)
            expected = oracle(x.double(), memory.double(), memory_mask=to_torch_mask(mask, N, M))
            what = f"the result with a memory_mask of shape {shape}"
            actual = layer(x, memory, memory_mask=mask)
            unchanged(student)
            close(actual, expected, what, atol=1e-3, dtype=torch.float32)
        # With a memory as long as x, swapping the two masks raises no error but changes the result.
        memory = draw.normal(B, N, D)
        masks = [random_mask(draw, B, N, N) for _ in range(2)]
        own, other = (to_torch_mask(mask, N, N) for mask in masks)
        expected = oracle(x.double(), memory.double(), tgt_mask=own, memory_mask=other)
        what = "the result with mask and memory_mask"
        close(layer(x, memory, *masks), expected, what, atol=1e-3, dtype=torch.float32)
        memory = draw.normal(B, N, D)
        expected = oracle(x.double(), memory.double(), tgt_mask=own)
        what = "the result of a later call with a different memory and no memory_mask"
        close(layer(x, memory, masks[0]), expected, what, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_every_call(self, student, seed):
        """A mask affects only the call it is passed to. Inputs may be non-contiguous, have length 1 or be in half precision."""
        draw, weights, layer, *inputs = self._random_layer(student, seed)
        inputs = [draw.strided(x) for x in inputs]
        masks, oracle = [random_mask(draw, N, n) for n in (N, M)], torch_decoder_layer(weights)
        shaped(layer(*inputs, *masks), (B, N, D))
        for some in (inputs, [x[:1, :1] for x in inputs]):
            expected = oracle(*(x.double() for x in some))
            what = (
                f"the result of a later call without masks, for x of shape {tuple(some[0].shape)}"
            )
            close(layer(*some), expected, what, atol=1e-3, dtype=torch.float32)
        halves, what = [x.to(torch.bfloat16) for x in inputs], "the bfloat16 result"
        shaped(layer.to(torch.bfloat16)(*halves, *masks), (B, N, D), torch.bfloat16, what)

    @weight(1)
    def test_future(self, student, seed):
        """With a causal mask, changing a position of x does not affect the results at earlier positions."""
        draw = Draw(seed)
        x, memory = draw.normal(B, N, D), draw.normal(B, M, D)
        changed = torch.cat([x[:, :3], draw.normal(B, N - 3, D)], dim=1)
        causal = torch.ones(N, N, dtype=torch.bool).tril()
        layer = student.DecoderLayer(D, HEADS, D_FF).eval()
        before = finite(shaped(layer(x, memory, causal), x.shape))
        after = finite(shaped(layer(changed, memory, mask=causal), x.shape))
        close(after[:, :3], before[:, :3], "the result at positions 0 to 2", atol=1e-4)
        assert (after - before)[:, 3:].abs().max() > 1e-3, (
            "changing x at positions 3 and later should change your result there, but it does not"
        )

    @weight(1)
    def test_masked_memory(self, student, seed):
        """A memory position that is masked for every query does not affect the result."""
        draw = Draw(seed)
        x, memory = draw.normal(B, N, D), draw.normal(B, M, D)
        mask = torch.ones(B, 1, M, dtype=torch.bool)
        mask[0, 0, 3:], mask[1, 0, :2] = False, False
        changed = torch.where(mask.transpose(1, 2), memory, draw.normal(B, M, D))
        layer = student.DecoderLayer(D, HEADS, D_FF).eval()
        before = finite(shaped(layer(x, memory, memory_mask=mask), x.shape))
        close(
            layer(x, changed, None, mask),
            before,
            "the result after changing the masked part of the memory",
            atol=1e-4,
        )

    @weight(0.5)
    def test_nothing_allowed(self, student, seed):
        """If `memory_mask` does not allow any position, cross-attention outputs the bias of `out`, not NaN."""
        silent = zero_outputs("self_attention.out")
        _, weights, layer, x, memory = self._random_layer(student, seed, silent)
        first = apply_norm(x, weights, "norm1")
        second = apply_norm(first + weights["cross_attention.out.bias"].double(), weights, "norm2")
        expected = apply_norm(second + apply_feed_forward(second, weights), weights, "norm3")
        x.requires_grad_()
        actual = layer(x, memory, memory_mask=torch.zeros(B, 1, M, dtype=torch.bool))
        close(actual, expected, atol=1e-3, dtype=torch.float32)
        backpropagate(actual, actual.detach())
        leaf_gradient(x, "x")

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach x, the memory and every parameter."""
        draw, weights, layer, x, memory = self._random_layer(student, seed)
        x.requires_grad_(), memory.requires_grad_()
        parameters = layer.weights()
        actual = shaped(layer.train()(x, memory), (B, N, D))
        backpropagate(actual, draw.normal(B, N, D))
        for what, tensor in (("x", x), ("the memory", memory)):
            assert leaf_gradient(tensor, what).abs().max() > 0, (
                f"the gradient of {what} is all zeros"
            )
        check_gradients_reach(parameters, weights)

    @weight(1)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in evaluation mode, and also in training mode if `dropout` is not given."""
        for options, mode in (({"dropout": 0.5}, "evaluation"), ({}, "training")):
            _, weights, layer, x, memory = self._random_layer(student, seed, **options)
            expected = torch_decoder_layer(weights)(x.double(), memory.double())
            what = f"the result in {mode} mode {_dropout_case(options)}"
            actual = layer.train(mode == "training")(x, memory)
            close(actual, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout(self, student, seed):
        """In training mode, dropout is applied to the output of each sublayer before it is added to x, and never to x itself."""
        draw = Draw(seed)
        layer = student.DecoderLayer(D, HEADS, D_FF, dropout=0.5)
        sublayers = ("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        check_dropout(student, layer, [draw.normal(4, N, D), draw.normal(4, M, D)], sublayers)
        check_dropout_rate(student.DecoderLayer(D, HEADS, D_FF, dropout=0.7), [40, M], sublayers)

    @weight(0.5)
    def test_dropout_in_the_network(self, student, seed):
        """The `dropout` argument is also passed to the `feed_forward` network."""
        draw = Draw(seed)
        layer = student.DecoderLayer(D, HEADS, D_FF, dropout=0.5)
        check_hidden_dropout(layer, [draw.normal(8, N, D), draw.normal(8, M, D)], "norm2", "norm3")

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with x and memory on that device, with and without masks."""
        layer = student.DecoderLayer(D, HEADS, D_FF)
        x, memory = (torch.zeros(B, n, D, device="meta") for n in (N, M))
        masks = [torch.ones(B, 1, n, dtype=torch.bool, device="meta") for n in (N, M)]
        on_meta(lambda: layer.to("meta")(x, memory, *masks), x.shape)
        on_meta(lambda: layer.to("meta")(x, memory), x.shape)
