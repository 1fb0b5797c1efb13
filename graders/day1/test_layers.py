"""Hidden graders of the layers; the oracles are torch's own layers and formulas in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from autograder.execution.checks import Draw, close, finite, on_meta, shaped, unchanged, weight
from autograder.execution.student import RemoteModule, Student

# All sizes differ, heads and the size of a head too.
D, HEADS, D_FF, B, N, M = 6, 3, 10, 2, 5, 7
Oracle = Callable[..., Tensor]
HALF_AND_DOUBLE = ((torch.float64, 1e-5), (torch.bfloat16, 1e-1), (torch.float16, 2e-2))


def attention_weights(draw: Draw, prefix: str, d: int) -> dict[str, Tensor]:
    """Random weights for the four linear maps of an attention module."""
    return {
        f"{prefix}.{part}.{kind}": value
        for part in ("query", "key", "value", "out")
        for kind, value in (("weight", draw.normal(d, d, scale=d**-0.5)), ("bias", draw.normal(d)))
    }


def layer_weights(
    draw: Draw, attentions: tuple[str, ...], d: int = D, d_ff: int = D_FF
) -> dict[str, Tensor]:
    """Random weights for a layer with these attention modules, and one norm more than those."""
    weights: dict[str, Tensor] = {}
    for prefix in attentions:
        weights |= attention_weights(draw, prefix, d)
    weights |= {
        "feed_forward.linear1.weight": draw.normal(d_ff, d, scale=d**-0.5),
        "feed_forward.linear1.bias": draw.normal(d_ff),
        "feed_forward.linear2.weight": draw.normal(d, d_ff, scale=d_ff**-0.5),
        "feed_forward.linear2.bias": draw.normal(d),
    }
    weights["feed_forward.linear1.bias"][0] = 6  # so that the hidden values are never all 0
    for i in range(1, len(attentions) + 2):
        weights[f"norm{i}.weight"] = 1 + draw.uniform(d, low=-0.5, high=0.5)
        weights[f"norm{i}.bias"] = draw.normal(d)
    return weights


def encoder_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Random weights of an `EncoderLayer`."""
    return layer_weights(draw, ("self_attention",), d, d_ff)


def decoder_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Random weights of a `DecoderLayer`."""
    return layer_weights(draw, ("self_attention", "cross_attention"), d, d_ff)


def in_torch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of torch's own layers, in float64."""
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
def _empty(kind: type[nn.Module], d: int, heads: int, d_ff: int) -> nn.Module:
    return kind(d, heads, d_ff, batch_first=True).eval()


def _torch_layer(kind: type[nn.Module], weights: dict[str, Tensor], heads: int) -> Oracle:
    d_ff, d = weights["feed_forward.linear1.weight"].shape
    # Weights that ask for gradients keep torch from its fast path, which has rules of its own.
    state = {name: value.detach().requires_grad_() for name, value in in_torch(weights).items()}
    layer = _empty(kind, d, heads, d_ff)
    return lambda *inputs, **masks: functional_call(layer, state, inputs, masks, strict=True)


def torch_encoder_layer(weights: dict[str, Tensor], heads: int = HEADS) -> Oracle:
    """torch's own layer with these weights, in float64 and evaluation mode."""
    return _torch_layer(nn.TransformerEncoderLayer, weights, heads)


def torch_decoder_layer(weights: dict[str, Tensor], heads: int = HEADS) -> Oracle:
    """torch's own layer with these weights, in float64 and evaluation mode."""
    return _torch_layer(nn.TransformerDecoderLayer, weights, heads)


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """The norm of this name, in float64."""
    scale, shift = (weights[f"{name}.{kind}"].double() for kind in ("weight", "bias"))
    return F.layer_norm(x.double(), scale.shape, scale, shift)


def network(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The feed-forward network, in float64."""
    w = {name: value.double() for name, value in weights.items()}
    hidden = F.linear(x.double(), w["feed_forward.linear1.weight"], w["feed_forward.linear1.bias"])
    return F.linear(hidden.relu(), w["feed_forward.linear2.weight"], w["feed_forward.linear2.bias"])


def silence(*linears: str) -> dict[str, Tensor]:
    """Weights with which these linear maps, the last of a step, give 0."""
    silent: dict[str, Tensor] = {}
    for linear in linears:
        width = D_FF if linear == "feed_forward.linear2" else D
        silent |= {f"{linear}.weight": torch.zeros(D, width), f"{linear}.bias": torch.zeros(D)}
    return silent


def small_norms(n: int) -> dict[str, Tensor]:
    """Weights with which what the first n norms give is about as small as √ε."""
    scale, shift = torch.full((D,), 4e-3), torch.zeros(D)
    small = ((f"norm{i}", kind) for i in range(1, n + 1) for kind in ("weight", "bias"))
    return {f"{norm}.{kind}": scale if kind == "weight" else shift for norm, kind in small}


def some_allowed(draw: Draw, *shape: int) -> Tensor:
    """A mask in which every row allows something and forbids something."""
    mask = draw.mask(*shape)
    mask[..., 2], mask[..., 1] = True, False
    return mask


def per_head(mask: Tensor, n: int, m: int, heads: int = HEADS) -> Tensor:
    """Our mask as torch's attention wants it: one for each row and head, True where forbidden."""
    return ~mask.expand(B, n, m).repeat_interleave(heads, dim=0)


def backward(result: Tensor, upstream: Tensor, what: str = "the result") -> None:
    """Ask for the gradients, or say in words that none flow."""
    assert result.requires_grad, f"no gradient flows through {what}"
    result.backward(upstream.to(result.dtype))


def gradient(leaf: Tensor, what: str) -> Tensor:
    """The gradient that a backward left at `leaf`, finite, or a failure in words."""
    assert leaf.grad is not None, f"no gradient reaches {what}"
    return finite(leaf.grad, f"the gradient of {what}")


def reached(layer: RemoteModule, names: Iterable[str]) -> None:
    """Check the gradients after a backward: all finite, and none of them missing or 0 throughout."""
    weights = layer.leaves()
    for name in names:
        assert name in weights, f"there is no parameter `{name}`; seen: {sorted(weights)}"
        found = gradient(weights[name], f"`{name}`")
        # A constant added to all keys cancels in the softmax, so nothing need reach it.
        assert found.abs().max() > 0 or name.endswith("key.bias"), f"no gradient reaches `{name}`"


def dropped(
    student: Student, layer: RemoteModule, inputs: Sequence[Tensor], steps: Sequence[str]
) -> None:
    """Check a layer with dropout=0.5: it acts on what each step gives and on nothing else."""
    layer.load(silence(*steps))
    still = shaped(layer.eval()(*inputs), inputs[0].shape)
    changed = student.changed
    what = "in train(), where all steps give 0 so that nothing is left to drop, the result"
    seen = layer.train()(*inputs)
    unchanged(student, besides=changed)
    close(seen, still, what, atol=1e-4)
    for step in steps:
        layer.load(silence(*steps) | {f"{step}.bias": torch.linspace(2, 5, D)})
        still = shaped(layer.eval()(*inputs), inputs[0].shape)
        moved = shaped(layer.train()(*inputs), inputs[0].shape) - still
        assert moved.abs().max() > 1e-3, f"in train(), nothing of what `{step}` gives is dropped"


def dropped_share(layer: RemoteModule, axes: Sequence[int], steps: Sequence[str]) -> None:
    """Check a layer with dropout=0.3, on zeros: this part of what each step gives is dropped."""
    zeros = [torch.zeros(8, n, D) for n in axes]
    kept = 0.7
    due = (kept - kept**D) / (1 - kept**D - (1 - kept) ** D)
    for step in steps:
        layer.load(silence(*steps) | {f"{step}.bias": torch.full((D,), 3.0)})
        rows = shaped(layer.train()(*zeros), zeros[0].shape).reshape(-1, D)
        # The norms leave two values, the lower one for what was dropped; a row of one value says nothing.
        mixed = rows[rows.amax(dim=1) - rows.amin(dim=1) > 0.1]
        seen = (mixed > mixed.mean(dim=1, keepdim=True)).double().mean().item()
        assert abs(seen - due) < 0.08, (
            f"in train() with dropout=0.3, where some of what `{step}` gives is dropped, {due:.0%} "
            f"should be left; yours leaves {seen:.0%}"
        )


def dropped_inside(layer: RemoteModule, inputs: Sequence[Tensor], before: str, after: str) -> None:
    """Check a layer with dropout=0.5: the hidden values of the feed-forward network are dropped."""
    # The network sees zeros, all its hidden values are 1, and each row of linear2 sums to 1:
    # dropout on its result alone would leave no more than two values at a position.
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
    rows = shaped(layer.train()(*inputs), inputs[0].shape).reshape(-1, D)
    assert max(map(distinct, rows)) > 2, (
        "in train(), no hidden values of `feed_forward` are dropped"
    )


def distinct(row: Tensor) -> int:
    """How many values a row holds that differ by more than rounding."""
    return 1 + int((row.sort().values.diff() > 1e-4).sum())


class TestLayerNorm:
    exercise = "LayerNorm"

    @weight(0.5)
    def test_parameters(self, student):
        """`weight` and `bias` are parameters with a number a feature, at first ones and zeros."""
        weights = student.LayerNorm(7).weights()
        for name, start in (("weight", torch.ones(7)), ("bias", torch.zeros(7))):
            assert name in weights, f"there is no parameter `{name}`; seen: {sorted(weights)}"
            close(weights[name], start, f"`{name}` at the start")

    @weight(1.5)
    def test_mean_and_variance(self, student, seed):
        """Each vector gets mean 0 and a biased variance of 1."""
        x = Draw(seed).normal(2, 5, 7, scale=2.0) + 3
        close(student.LayerNorm(7)(x), F.layer_norm(x, (7,)), atol=1e-3)

    @weight(1.5)
    def test_eps_inside_the_root(self, student, seed):
        """ε is added to the variance, inside the root, and can be set."""
        x = Draw(seed).normal(4, 5) * torch.tensor([[1.0], [1.0], [0.2], [0.5]])
        close(student.LayerNorm(5, eps=0.3)(x), F.layer_norm(x, (5,), eps=0.3))

    @weight(0.5)
    def test_default_eps(self, student, seed):
        """ε is 1e-5 where nothing is said: it shows on small numbers."""
        x = Draw(seed).normal(4, 5, scale=3e-3)
        close(student.LayerNorm(5)(x), F.layer_norm(x, (5,)), atol=1e-4)

    @weight(1)
    def test_weight_and_bias(self, student, seed):
        """The normalised features are multiplied by `weight`, then `bias` is added."""
        draw = Draw(seed)
        x, scale, shift = draw.normal(3, 7), draw.normal(7), draw.normal(7)
        layer = student.LayerNorm(7)
        layer.load({"weight": scale, "bias": shift})
        close(layer(x), F.layer_norm(x, (7,), scale, shift), atol=1e-4)

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Only the last axis is normalised, whatever stands before it: no axis, one, or three."""
        draw = Draw(seed)
        layer = student.LayerNorm(7)
        for shape in ((7,), (1, 1, 7), (2, 3, 4, 7)):
            x = draw.normal(*shape)
            close(layer(x), F.layer_norm(x, (7,)), f"the result for the shape {shape}", atol=1e-3)
        x = draw.strided(draw.normal(3, 5, 7))
        close(layer(x), F.layer_norm(x, (7,)), "the result for a permuted view", atol=1e-3)

    @weight(1)
    def test_gradients(self, student, seed):
        """Gradients reach the input, `weight` and `bias`, through mean and variance too."""
        draw = Draw(seed)
        x, upstream, scale = draw.normal(3, 7), draw.normal(3, 7), draw.normal(7)
        x.requires_grad_()
        layer = student.LayerNorm(7)
        layer.load({"weight": scale})
        weights = layer.weights()
        backward(shaped(layer(x), (3, 7)), upstream)
        copy, scale, shift = x.detach().clone(), scale.clone(), torch.zeros(7)
        for leaf in (copy, scale, shift):
            leaf.requires_grad_()
        (F.layer_norm(copy, (7,), scale, shift) * upstream).sum().backward()
        close(gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        for name, leaf in (("weight", scale), ("bias", shift)):
            seen = gradient(weights[name], f"`{name}`")
            close(seen, leaf.grad, f"the gradient of `{name}`", atol=1e-3, rtol=1e-3)

    @weight(0.5)
    def test_equal_features(self, student, seed):
        """Where all features are equal the result is `bias`, and the gradient is finite."""
        draw = Draw(seed)
        shift = draw.normal(8)
        x = torch.tensor([[2.0], [-3.0]]).repeat(1, 8).requires_grad_()
        layer = student.LayerNorm(8)
        layer.load({"bias": shift})
        seen = close(layer(x), shift.expand(2, 8), atol=1e-3)
        backward(seen, draw.normal(2, 8))
        gradient(x, "x")

    @weight(0.5)
    def test_large_mean(self, student, seed):
        """The variance is right, too, where the mean is large beside it."""
        x = Draw(seed).normal(6, 7) + 3000
        expected = F.layer_norm(x.double(), (7,))
        close(student.LayerNorm(7)(x), expected, atol=1e-2, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """The result has the dtype of the input, in half and double precision too."""
        x = Draw(seed).normal(3, 8, dtype=torch.float64)
        # Mean and variance that are computed in float32 whatever the dtype are no mistake.
        for dtype, tolerance in HALF_AND_DOUBLE:
            seen = student.LayerNorm(8).to(dtype)(x.to(dtype))
            expected = F.layer_norm(x.to(dtype).double(), (8,))
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)

    @weight(0.5)
    def test_input_unchanged(self, student, seed):
        """The input is not changed, and training and evaluation mode do the same."""
        x = Draw(seed).normal(3, 7)
        layer = student.LayerNorm(7)
        trained = shaped(layer.train()(x), (3, 7))
        unchanged(student)
        close(layer.eval()(x), trained, "the result in eval()")

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on an input that is there."""
        layer, x = student.LayerNorm(7), torch.zeros(3, 7, device="meta")
        on_meta(lambda: layer.to_empty(device="meta")(x), x.shape)


def _with(dropout: dict[str, float]) -> str:
    """What is said of dropout, in words."""
    return f"with dropout={dropout['dropout']}" if dropout else "where no dropout is given"


def _loaded_network(student, draw, scale=1.0, **more):
    """A student's FeedForward with random weights, and these."""
    weights = {
        "feed_forward.linear1.weight": draw.normal(11, 5, scale=scale),
        "feed_forward.linear1.bias": draw.normal(11),
        "feed_forward.linear2.weight": draw.normal(5, 11),
        "feed_forward.linear2.bias": draw.normal(5),
    }
    layer = student.FeedForward(5, 11, **more).eval()
    layer.load({name.removeprefix("feed_forward."): value for name, value in weights.items()})
    return layer, weights


class TestFeedForward:
    exercise = "FeedForward"

    @weight(2)
    def test_values(self, student, seed):
        """linear2(relu(linear1(x))), with both biases."""
        draw = Draw(seed)
        for scale in (1.0, 10.0):
            layer, weights = _loaded_network(student, draw, scale)
            x = draw.normal(2, 3, 5)
            close(layer(x), network(x, weights), atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Each vector along the last axis is treated alone, whatever stands before it."""
        draw = Draw(seed)
        layer, _ = _loaded_network(student, draw)
        x = draw.normal(2, 3, 4, 5)
        seen = shaped(layer(x), (2, 3, 4, 5))
        unchanged(student)
        one = slice(1)
        for some in ((1,), (1, 2), (0, 2, 3), (one, one, one)):
            what = f"the result for the shape {tuple(x[some].shape)}"
            close(layer(x[some]), seen[some], what, atol=1e-4)
        close(layer(draw.strided(x)), seen, "the result for a permuted view", atol=1e-4)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach the input and all four parameters, in double precision too."""
        draw = Draw(seed)
        x, upstream = draw.normal(2, 9, 5, dtype=torch.float64)
        layer, weights = _loaded_network(student, draw)
        layer.to(torch.float64).train().weights()
        x.requires_grad_()
        seen = shaped(layer(x), (9, 5), torch.float64)
        backward(seen, upstream)
        copies = {
            name: w.double().requires_grad_() for name, w in {"x": x.detach(), **weights}.items()
        }
        network(copies["x"], copies).backward(upstream)
        close(gradient(x, "x"), copies["x"].grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        for name in weights:
            what = f"`{name.removeprefix('feed_forward.')}`"
            found = gradient(layer.leaves()[what.strip("`")], what)
            close(found, copies[name].grad, f"the gradient of {what}", atol=1e-3, rtol=1e-3)

    @weight(0.75)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in eval(), and off in train() where its probability is 0."""
        draw = Draw(seed)
        x = draw.normal(3, 5)
        for more, mode in (({"dropout": 0.5}, "eval"), ({}, "train")):
            layer, weights = _loaded_network(student, draw, **more)
            seen = layer.train(mode == "train")(x)
            what = f"the result in {mode}() {_with(more)}"
            close(seen, network(x, weights), what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout_on_hidden_values(self, student, seed):
        """In train(), hidden values become 0 with probability p = `dropout`, else value / (1 − p)."""
        # Hidden value i is x_i + 1, which linear2 passes on to feature i and adds 3 to.
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
        hidden = shaped(layer.eval()(x), (50, d)) - 3
        changed = student.changed
        seen = shaped(layer.train()(x), (50, d))
        unchanged(student, besides=changed)
        zero, kept = (seen - 3).abs() < 1e-3, (seen - 3 - hidden / 0.8).abs() < 1e-3
        wrong = ~zero & ~kept
        assert not wrong.any(), (
            f"with a hidden value of {hidden[wrong][0]:.4g}, a linear2 that adds 3 and dropout=0.2, "
            f"an output should be 3 or {3 + hidden[wrong][0] / 0.8:.4g}; seen: {seen[wrong][0]:.4g}"
        )
        share = zero.double().mean().item()
        assert 0.1 < share < 0.3, f"with dropout=0.2, a fifth should be dropped, not {share:.0%}"
        what = "the result in train() in half precision"
        shaped(layer.to(torch.bfloat16)(x.bfloat16()), (50, d), torch.bfloat16, what)

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on an input that is there, in train() too."""
        layer, x = student.FeedForward(5, 11, dropout=0.5), torch.zeros(3, 5, device="meta")
        on_meta(lambda: layer.train().to_empty(device="meta")(x), x.shape)


class TestEncoderLayer:
    exercise = "EncoderLayer"

    def _drawn(self, student, seed, weights=None, **more):
        """Random weights with these changes, a layer that has them, and x."""
        draw = Draw(seed)
        weights = encoder_weights(draw) | (weights or {})
        layer = student.EncoderLayer(D, HEADS, D_FF, **more).eval()
        layer.load(weights)
        return draw, weights, layer, draw.normal(B, N, D)

    @weight(1.5)
    def test_residuals_and_norms(self, student, seed):
        """Where attention and network give 0, the input is left, normalised by both norms."""
        silent = silence("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x = self._drawn(student, seed, silent)
        expected = normed(normed(x, weights, "norm1"), weights, "norm2")
        close(layer(x), expected, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """ε of both norms is 1e-5: it shows on small numbers."""
        silent = silence("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x = self._drawn(student, seed, small_norms(2) | silent)
        expected = normed(normed(3e-3 * x, weights, "norm1"), weights, "norm2")
        close(layer(3e-3 * x), expected, atol=1e-6, dtype=torch.float32)

    @weight(1)
    def test_network_step(self, student, seed):
        """The network works on what norm1 gives, and its output is added to the same."""
        _, weights, layer, x = self._drawn(student, seed, silence("self_attention.out"))
        first = normed(x, weights, "norm1")
        expected = normed(first + network(first, weights), weights, "norm2")
        close(layer(x), expected, atol=1e-3, dtype=torch.float32)

    @weight(1.5)
    def test_agrees_with_torch(self, student, seed):
        """On copied weights, without a mask, it agrees with `nn.TransformerEncoderLayer`."""
        draw, weights, layer, x = self._drawn(student, seed)
        x, upstream = x.double().requires_grad_(), draw.normal(B, N, D, dtype=torch.float64)
        copy = x.detach().clone().requires_grad_()
        seen, expected = layer.to(torch.float64)(x), torch_encoder_layer(weights)(copy)
        unchanged(student)
        close(seen, expected, "the result in double precision", 1e-4, 1e-4)
        backward(seen, upstream)
        expected.backward(upstream)
        close(gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-3, rtol=1e-3)
        weights, x = encoder_weights(draw, 18, 4), draw.normal(1, 3, 18)
        layer = student.EncoderLayer(18, 9, 4).eval()
        layer.load(weights)
        expected = torch_encoder_layer(weights, 9)(x.double())
        close(layer(x), expected, "the result for 9 heads", 1e-3, dtype=torch.float32)

    @weight(1)
    def test_mask(self, student, seed):
        """`mask` is True where attention is allowed, with the shapes `n n`, `b 1 n` and `b n n`."""
        draw, weights, layer, x = self._drawn(student, seed)
        oracle = torch_encoder_layer(weights)
        for shape in ((N, N), (B, 1, N), (B, N, N)):
            mask = some_allowed(draw, *shape)
            expected = oracle(x.double(), src_mask=per_head(mask, N, N))
            what = f"the result under a mask of shape {shape}"
            with torch.no_grad():
                seen = layer(x, mask)
            unchanged(student)
            close(seen, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_every_call(self, student, seed):
        """A call without a mask may follow one with; x may be one position, have any strides, or be in half precision."""
        draw, weights, layer, x = self._drawn(student, seed)
        x, mask, oracle = draw.strided(x), some_allowed(draw, N, N), torch_encoder_layer(weights)
        shaped(layer(x, mask), x.shape)
        for some in (x, x[:1, :1]):
            what = f"after a call with a mask, the result without one for x of {tuple(some.shape)}"
            close(layer(some), oracle(some.double()), what, atol=1e-3, dtype=torch.float32)
        half, what = x.to(torch.bfloat16), "the result in bfloat16"
        shaped(layer.to(torch.bfloat16)(half, mask), x.shape, torch.bfloat16, what)

    @weight(1)
    def test_masked_positions(self, student, seed):
        """What stands at a position that nobody may attend to moves no other position."""
        draw = Draw(seed)
        x, mask = draw.normal(B, N, D), torch.ones(B, 1, N, dtype=torch.bool)
        mask[0, 0, 3:], mask[1, 0, :2] = False, False
        changed = torch.where(mask.transpose(1, 2), x, draw.normal(B, N, D))
        layer = student.EncoderLayer(D, HEADS, D_FF).eval()
        seen = shaped(layer(x, mask), (B, N, D))
        moved = shaped(layer(changed, mask=mask), (B, N, D))
        allowed = mask[:, 0]
        close(moved[allowed], seen[allowed], "the result at the other positions", atol=1e-4)
        assert (moved - seen)[~allowed].abs().max() > 1e-3, "the changed positions should move"

    @weight(0.5)
    def test_nothing_allowed(self, student, seed):
        """A position that may attend to nothing gets the bias of `out`, and nothing is NaN."""
        _, weights, layer, x = self._drawn(student, seed)
        bias = weights["self_attention.out.bias"].double()
        first = normed(x.double() + bias, weights, "norm1")
        expected = normed(first + network(first, weights), weights, "norm2")
        x.requires_grad_()
        seen = layer(x, torch.zeros(B, 1, N, dtype=torch.bool))
        close(seen, expected, atol=1e-3, dtype=torch.float32)
        backward(seen, seen.detach())
        gradient(x, "x")

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach the input and every parameter."""
        draw, weights, layer, x = self._drawn(student, seed)
        x.requires_grad_()
        layer.weights()
        seen = shaped(layer.train()(x), (B, N, D))
        backward(seen, draw.normal(B, N, D))
        assert gradient(x, "x").abs().max() > 0, "no gradient reaches x"
        reached(layer, weights)

    @weight(1)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in eval(), and off in train() where its probability is 0."""
        for more, mode in (({"dropout": 0.5}, "eval"), ({}, "train")):
            _, weights, layer, x = self._drawn(student, seed, **more)
            expected = torch_encoder_layer(weights)(x.double())
            what = f"the result in {mode}() {_with(more)}"
            seen = layer.train(mode == "train")(x)
            close(seen, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout(self, student, seed):
        """In train(), dropout acts on what attention and network give, and on nothing else."""
        steps = ("self_attention.out", "feed_forward.linear2")
        layer = student.EncoderLayer(D, HEADS, D_FF, dropout=0.5)
        dropped(student, layer, [Draw(seed).normal(4, N, D)], steps)
        dropped_share(student.EncoderLayer(D, HEADS, D_FF, dropout=0.3), [40], steps)

    @weight(0.5)
    def test_dropout_in_the_network(self, student, seed):
        """`dropout` is given to `feed_forward` as well."""
        layer = student.EncoderLayer(D, HEADS, D_FF, dropout=0.5)
        dropped_inside(layer, [Draw(seed).normal(8, N, D)], "norm1", "norm2")

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on x and mask that are there."""
        layer, x = student.EncoderLayer(D, HEADS, D_FF), torch.zeros(B, N, D, device="meta")
        mask = torch.ones(B, 1, N, dtype=torch.bool, device="meta")
        on_meta(lambda: layer.to_empty(device="meta")(x, mask), x.shape)


class TestDecoderLayer:
    exercise = "DecoderLayer"

    def _drawn(self, student, seed, weights=None, **more):
        """Random weights with these changes, a layer that has them, x, and a longer memory."""
        draw = Draw(seed)
        weights = decoder_weights(draw) | (weights or {})
        layer = student.DecoderLayer(D, HEADS, D_FF, **more).eval()
        layer.load(weights)
        return draw, weights, layer, draw.normal(B, N, D), draw.normal(B, M, D)

    @weight(1.5)
    def test_residuals_and_norms(self, student, seed):
        """Where all three steps give 0, the input is left, normalised by norm1, norm2 and norm3."""
        silent = silence("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        _, weights, layer, x, memory = self._drawn(student, seed, silent)
        expected = x
        for norm in ("norm1", "norm2", "norm3"):
            expected = normed(expected, weights, norm)
        close(layer(x, memory), expected, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """ε of all three norms is 1e-5: it shows on small numbers."""
        silent = silence("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        silent |= small_norms(3)
        _, weights, layer, x, memory = self._drawn(student, seed, silent)
        expected = x = 3e-3 * x
        for norm in ("norm1", "norm2", "norm3"):
            expected = normed(expected, weights, norm)
        close(layer(x, memory), expected, atol=1e-6, dtype=torch.float32)

    @weight(1.5)
    def test_memory_step(self, student, seed):
        """Queries of cross-attention come from x, keys and values from the memory; x is added."""
        silent = silence("self_attention.out", "feed_forward.linear2")
        _, weights, layer, x, memory = self._drawn(student, seed, silent)
        expected = torch_decoder_layer(weights)(x.double(), memory.double())
        close(layer(x, memory), expected, atol=1e-3, dtype=torch.float32)

    @weight(1.5)
    def test_agrees_with_torch(self, student, seed):
        """On copied weights, without masks, it agrees with `nn.TransformerDecoderLayer`."""
        draw, weights, layer, *inputs = self._drawn(student, seed)
        inputs = [x.double().requires_grad_() for x in inputs]
        copies = [x.detach().clone().requires_grad_() for x in inputs]
        seen, expected = layer.to(torch.float64)(*inputs), torch_decoder_layer(weights)(*copies)
        unchanged(student)
        close(seen, expected, "the result in double precision", 1e-4, 1e-4)
        upstream = draw.normal(B, N, D, dtype=torch.float64)
        backward(seen, upstream)
        expected.backward(upstream)
        for what, x, copy in zip(("x", "the memory"), inputs, copies, strict=True):
            close(gradient(x, what), copy.grad, f"the gradient of {what}", atol=1e-3, rtol=1e-3)
        # Of one length, so that the two can be exchanged and the answer says so.
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
        """`mask` is for attention within x: `n n`, `b 1 n` or `b n n`, True where allowed."""
        draw, weights, layer, x, memory = self._drawn(student, seed)
        oracle = torch_decoder_layer(weights)
        causal = torch.ones(N, N, dtype=torch.bool).tril()
        for mask in (causal, some_allowed(draw, B, 1, N), some_allowed(draw, B, N, N)):
            expected = oracle(x.double(), memory.double(), tgt_mask=per_head(mask, N, N))
            what = f"the result under a mask of shape {tuple(mask.shape)}"
            with torch.no_grad():
                seen = layer(x, memory, mask)
            unchanged(student)
            close(seen, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_memory_mask(self, student, seed):
        """`memory_mask` is for attention to the memory: `n m`, `b 1 m` or `b n m`."""
        draw, weights, layer, x, memory = self._drawn(student, seed)
        oracle = torch_decoder_layer(weights)
        for shape in ((N, M), (B, 1, M), (B, N, M)):
            mask = some_allowed(draw, *shape)
            expected = oracle(x.double(), memory.double(), memory_mask=per_head(mask, N, M))
            what = f"the result under a memory_mask of shape {shape}"
            seen = layer(x, memory, memory_mask=mask)
            unchanged(student)
            close(seen, expected, what, atol=1e-3, dtype=torch.float32)
        # A memory as long as x, so that the two masks can be exchanged and the answer says so.
        memory = draw.normal(B, N, D)
        masks = [some_allowed(draw, B, N, N) for _ in range(2)]
        own, other = (per_head(mask, N, N) for mask in masks)
        expected = oracle(x.double(), memory.double(), tgt_mask=own, memory_mask=other)
        what = "the result under mask and memory_mask"
        close(layer(x, memory, *masks), expected, what, atol=1e-3, dtype=torch.float32)
        memory = draw.normal(B, N, D)
        expected = oracle(x.double(), memory.double(), tgt_mask=own)
        what = "then, with another memory and without memory_mask, the result"
        close(layer(x, memory, masks[0]), expected, what, atol=1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_every_call(self, student, seed):
        """A call without masks may follow one with; inputs may be one position, have any strides, or be in half precision."""
        draw, weights, layer, *inputs = self._drawn(student, seed)
        inputs = [draw.strided(x) for x in inputs]
        masks, oracle = [some_allowed(draw, N, n) for n in (N, M)], torch_decoder_layer(weights)
        shaped(layer(*inputs, *masks), (B, N, D))
        for some in (inputs, [x[:1, :1] for x in inputs]):
            expected = oracle(*(x.double() for x in some))
            what = f"after a call with masks, the result without, of {tuple(expected.shape)},"
            close(layer(*some), expected, what, atol=1e-3, dtype=torch.float32)
        halves, what = [x.to(torch.bfloat16) for x in inputs], "the result in bfloat16"
        shaped(layer.to(torch.bfloat16)(*halves, *masks), (B, N, D), torch.bfloat16, what)

    @weight(1)
    def test_future(self, student, seed):
        """Under a causal mask, a changed position of x moves nothing before it."""
        draw = Draw(seed)
        x, memory = draw.normal(B, N, D), draw.normal(B, M, D)
        changed = torch.cat([x[:, :3], draw.normal(B, N - 3, D)], dim=1)
        causal = torch.ones(N, N, dtype=torch.bool).tril()
        layer = student.DecoderLayer(D, HEADS, D_FF).eval()
        before = shaped(layer(x, memory, causal), x.shape)
        after = shaped(layer(changed, memory, mask=causal), x.shape)
        close(after[:, :3], before[:, :3], "the result at positions 0 to 2", atol=1e-4)
        assert (after - before)[:, 3:].abs().max() > 1e-3, "the changed positions should move"

    @weight(1)
    def test_masked_memory(self, student, seed):
        """What stands in the memory where nobody may look moves nothing."""
        draw = Draw(seed)
        x, memory = draw.normal(B, N, D), draw.normal(B, M, D)
        mask = torch.ones(B, 1, M, dtype=torch.bool)
        mask[0, 0, 3:], mask[1, 0, :2] = False, False
        changed = torch.where(mask.transpose(1, 2), memory, draw.normal(B, M, D))
        layer = student.DecoderLayer(D, HEADS, D_FF).eval()
        before = shaped(layer(x, memory, memory_mask=mask), x.shape)
        close(layer(x, changed, None, mask), before, "the result with another memory", atol=1e-4)

    @weight(0.5)
    def test_nothing_allowed(self, student, seed):
        """Where nothing of the memory may be seen, `out` adds its bias alone, and nothing is NaN."""
        silent = silence("self_attention.out")
        _, weights, layer, x, memory = self._drawn(student, seed, silent)
        first = normed(x, weights, "norm1")
        second = normed(first + weights["cross_attention.out.bias"].double(), weights, "norm2")
        expected = normed(second + network(second, weights), weights, "norm3")
        x.requires_grad_()
        seen = layer(x, memory, memory_mask=torch.zeros(B, 1, M, dtype=torch.bool))
        close(seen, expected, atol=1e-3, dtype=torch.float32)
        backward(seen, seen.detach())
        gradient(x, "x")

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach x, the memory and every parameter."""
        draw, weights, layer, x, memory = self._drawn(student, seed)
        x.requires_grad_(), memory.requires_grad_()
        layer.weights()
        seen = shaped(layer.train()(x, memory), (B, N, D))
        backward(seen, draw.normal(B, N, D))
        for what, tensor in (("x", x), ("the memory", memory)):
            assert gradient(tensor, what).abs().max() > 0, f"no gradient reaches {what}"
        reached(layer, weights)

    @weight(1)
    def test_no_dropout_in_eval(self, student, seed):
        """Dropout is off in eval(), and off in train() where its probability is 0."""
        for more, mode in (({"dropout": 0.5}, "eval"), ({}, "train")):
            _, weights, layer, x, memory = self._drawn(student, seed, **more)
            expected = torch_decoder_layer(weights)(x.double(), memory.double())
            what = f"the result in {mode}() {_with(more)}"
            seen = layer.train(mode == "train")(x, memory)
            close(seen, expected, what, atol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dropout(self, student, seed):
        """In train(), dropout acts on what each of the three steps gives, and on nothing else."""
        draw = Draw(seed)
        layer = student.DecoderLayer(D, HEADS, D_FF, dropout=0.5)
        steps = ("self_attention.out", "cross_attention.out", "feed_forward.linear2")
        dropped(student, layer, [draw.normal(4, N, D), draw.normal(4, M, D)], steps)
        dropped_share(student.DecoderLayer(D, HEADS, D_FF, dropout=0.3), [40, M], steps)

    @weight(0.5)
    def test_dropout_in_the_network(self, student, seed):
        """`dropout` is given to `feed_forward` as well."""
        draw = Draw(seed)
        layer = student.DecoderLayer(D, HEADS, D_FF, dropout=0.5)
        dropped_inside(layer, [draw.normal(8, N, D), draw.normal(8, M, D)], "norm2", "norm3")

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on x, memory and masks that are there."""
        layer = student.DecoderLayer(D, HEADS, D_FF)
        x, memory = (torch.zeros(B, n, D, device="meta") for n in (N, M))
        masks = [torch.ones(B, 1, n, dtype=torch.bool, device="meta") for n in (N, M)]
        on_meta(lambda: layer.to_empty(device="meta")(x, memory, *masks), x.shape)
