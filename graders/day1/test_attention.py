"""Hidden tests for the attention chapter. The oracles compute the expected results in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    close,
    finite,
    on_meta,
    pair,
    shaped,
    unchanged,
    weight,
)
from graders.equivalent_calls import attention_like, leading_axes

# float32 sums may be accumulated in a different order than in the oracle. This tolerance is well
# above rounding error and well below the error that a mistake causes.
LOOSE = {"atol": 1e-4, "rtol": 1e-4}


def softmax_oracle(x: Tensor, dim: int) -> Tensor:
    """Return torch's softmax, computed in float64."""
    return torch.softmax(x.detach().double(), dim)


def scores_oracle(query: Tensor, key: Tensor) -> Tensor:
    """Return Q Kᵀ / √d, computed in float64."""
    products = torch.einsum("...nd,...md->...nm", query.double(), key.double())
    return products / query.shape[-1] ** 0.5


def attention_oracle(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and the weights of attention, computed in float64."""
    weights = torch.softmax(scores_oracle(query, key), dim=-1)
    return torch.einsum("...nm,...mv->...nv", weights, value.double()), weights


def gradients(outputs: list[Tensor], inputs: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    """Return the gradients of the inputs, given the gradients of the outputs. Replace missing gradients with zeros."""
    pairs = zip(outputs, upstream, strict=True)
    products = [(out * up).sum() for out, up in pairs if out.requires_grad]
    if not products:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(sum(products), inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Return detached copies of the tensors, with gradients enabled."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def check_dtype(actual: Any, dtype: torch.dtype, what: str) -> None:
    """Check the dtype of a tensor; a separate test checks its shape."""
    shaped(actual, actual.shape if isinstance(actual, Tensor) else (), dtype, what)


def pair_on_meta(call: Callable[[], Any], output: Sequence[int], weights: Sequence[int]) -> None:
    """Check that `call`, given inputs on the device `meta`, returns the output and the weights on that device."""
    parts: list[Any] = []

    def first() -> Any:
        parts.extend(pair(call(), "output", "weights"))
        return parts[0]

    on_meta(first, output, "output")
    if parts:
        on_meta(lambda: parts[1], weights, "weights")


class TestSoftmax:
    exercise = "softmax"

    @weight(2)
    def test_last_axis(self, student, seed):
        """By default, softmax divides exp(x) by the sum of exp(x) along the last axis."""
        x = Draw(seed).normal(3, 5, scale=2.0)
        close(
            leading_axes(student.softmax, 1)(x),
            softmax_oracle(x, -1),
            "softmax",
            dtype=torch.float32,
        )

    @weight(2)
    def test_any_axis(self, student, seed):
        """`dim` can be any axis and may be negative; the result has the same shape as `x`."""
        x = Draw(seed).normal(3, 5, 4)
        for dim in (0, 1, 2, -1, -2, -3):
            expected = softmax_oracle(x, dim)
            close(student.softmax(x, dim=dim), expected, f"softmax along dim={dim}", dtype=x.dtype)

    def test_one_axis(self, student, seed):
        """`softmax` works for tensors with one axis and with four axes."""
        draw = Draw(seed)
        x, y = draw.normal(7), draw.normal(1, 3, 1, 4)
        close(
            student.softmax(x),
            softmax_oracle(x, 0),
            "softmax of a tensor with one axis",
            dtype=x.dtype,
        )
        what = "softmax of a tensor of shape (1, 3, 1, 4) along dim=1"
        close(student.softmax(y, 1), softmax_oracle(y, 1), what, dtype=y.dtype)

    @weight(1.5)
    def test_large_entries(self, student, seed):
        """Entries up to ±10⁴ do not cause an overflow."""
        draw = Draw(seed)
        near = 1e4 - draw.uniform(4, 6, high=3.0)
        spread = draw.uniform(4, 6, low=-1e4, high=1e4)
        for x, what in (
            (near, "softmax of entries near 10⁴"),
            (spread, "softmax of entries up to ±10⁴"),
        ):
            close(
                leading_axes(student.softmax, 1)(x),
                softmax_oracle(x, -1),
                what,
                1e-3,
                1e-3,
                dtype=x.dtype,
            )

    def test_very_negative_entries(self, student, seed):
        """The softmax of a slice whose entries are all near −10⁴ still sums to 1."""
        x = Draw(seed).uniform(4, 6, high=3.0) - 1e4
        what = "softmax of entries near −10⁴"
        close(
            leading_axes(student.softmax, 1)(x),
            softmax_oracle(x, -1),
            what,
            1e-3,
            1e-3,
            dtype=x.dtype,
        )

    def test_slices_far_apart(self, student, seed):
        """Each slice is normalised independently, even if the slices differ greatly in magnitude."""
        draw = Draw(seed)
        x = draw.normal(3, 5) + torch.tensor([[9e3], [0.0], [-9e3]])
        for y, dim in ((x, 1), (x.T.contiguous(), 0)):
            what = f"softmax along dim={dim} of slices near 9000, 0 and −9000"
            close(student.softmax(y, dim=dim), softmax_oracle(y, dim), what, 1e-3, 1e-3, y.dtype)

    def test_minus_infinity(self, student, seed):
        """An entry of −∞ gets a weight of exactly 0 and does not affect the other entries."""
        draw = Draw(seed)
        x = draw.normal(4, 6).masked_fill(draw.mask(4, 6), -math.inf)
        x[torch.arange(4), draw.integers(0, 3, 4)] = -math.inf
        x[torch.arange(4), draw.integers(3, 6, 4)] = 1.0
        self.check_infinity(student, x, "entries of −∞")

    @weight(0.5)
    def test_one_finite_entry(self, student, seed):
        """If all entries of a slice except one are −∞, the finite entry gets weight 1, however negative it is."""
        x = torch.full((3, 4), -math.inf)
        x[torch.arange(3), Draw(seed).integers(0, 4, 3)] = torch.tensor([-1e4, 5.0, 1e4])
        self.check_infinity(student, x, "slices with a single finite entry")

    def check_infinity(self, student, x, what):
        """Check that softmax along the last axis is exactly 0 at entries of −∞ and correct elsewhere."""
        result = shaped(leading_axes(student.softmax, 1)(x), x.shape, x.dtype, f"softmax of {what}")
        hidden = result[x == -math.inf]
        worst = hidden[hidden != 0].tolist()[:1]
        assert not worst, (
            f"softmax of {what}: an entry of −∞ should get a weight of exactly 0; your weight is {worst[0]:.3g}"
        )
        close(result, softmax_oracle(x, -1), f"softmax of {what}", 1e-5, 1e-3, dtype=x.dtype)

    def test_lengths(self, student, seed):
        """The softmax of a slice with one entry is 1, and a slice with 10,000 entries is normalised correctly."""
        draw = Draw(seed)
        one = draw.normal(3, 1)
        close(
            leading_axes(student.softmax, 1)(one),
            torch.ones(3, 1),
            "softmax of slices with one entry",
        )
        # Widely spread entries make some weights of the long slice much larger than the tolerance.
        long = draw.normal(2, 10_000, scale=3.0)
        result = leading_axes(student.softmax, 1)(long)
        close(result, softmax_oracle(long, -1), "softmax of 10,000 entries", dtype=long.dtype)
        totals = result.double().sum(dim=-1)
        close(totals, torch.ones(2), "the sum of 10,000 weights", 1e-2, dtype=torch.float64)

    @weight(0.5)
    def test_float64(self, student, seed):
        """A float64 input gives a float64 result."""
        x = Draw(seed).normal(3, 5, dtype=torch.float64)
        close(
            leading_axes(student.softmax, 1)(x),
            softmax_oracle(x, -1),
            "softmax in float64",
            1e-5,
            1e-5,
        )
        what = "softmax of slices of length 1 in float64"
        check_dtype(leading_axes(student.softmax, 1)(x[:, :1]), torch.float64, what)

    @weight(1.5)
    def test_half_precision(self, student, seed):
        """For float16 and bfloat16 inputs, the result has the same dtype as the input and does not overflow."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            x = draw.normal(3, 8, dtype=dtype)
            close(
                leading_axes(student.softmax, 1)(x),
                softmax_oracle(x, -1),
                f"softmax in {dtype}",
                dtype=dtype,
            )
        # In float16, exp(12) overflows and exp(−18) underflows to 0. Individual weights may be inexact, so only
        # the sums are compared.
        x = torch.tensor([[20.0], [-25.0]]) + draw.normal(2, 6)
        result = shaped(
            leading_axes(student.softmax, 1)(x.half()), (2, 6), torch.float16, "softmax in float16"
        )
        finite(result, "softmax of float16 entries near 20 and −25")
        totals = result.float().sum(dim=-1)
        close(totals, torch.ones(2), "the sum of float16 weights for entries near 20 and −25", 0.1)

    def test_argument(self, student, seed):
        """`x` may be non-contiguous and is not modified in place."""
        draw = Draw(seed)
        x = draw.strided(draw.normal(3, 4, 5))
        for y in (x, draw.normal(3, 1, 5).expand(3, 4, 5)):
            result = student.softmax(y, dim=1)
            unchanged(student)
            what = "softmax of a non-contiguous tensor"
            close(result, softmax_oracle(y, 1), what, dtype=y.dtype)

    def test_gradient(self, student, seed):
        """The gradient is correct for finite entries, even if other entries in the slice are −∞."""
        draw = Draw(seed)
        x, column = draw.normal(3, 5), draw.integers(0, 5, 1)
        self.check_gradient(student, draw, x, "")
        self.check_gradient(
            student, draw, x.index_fill(1, column, -math.inf), " in slices that contain −∞"
        )

    @weight(0.5)
    def test_gradient_of_large_entries(self, student, seed):
        """The gradient is finite and correct for entries up to ±10⁴."""
        draw = Draw(seed)
        x = 1e4 - draw.uniform(3, 5, high=3.0)
        self.check_gradient(student, draw, x, " for entries near 10⁴", atol=1e-2)
        x = draw.uniform(3, 5, low=-1e4, high=1e4)
        self.check_gradient(student, draw, x, " for entries up to ±10⁴", atol=1e-2)

    def check_gradient(self, student, draw, x, where, atol=1e-4):
        """Compare the gradient of softmax with the oracle's; at entries of −∞, any gradient is accepted."""
        upstream = draw.normal(3, 5)
        [exact], [given] = leaves(x.double()), leaves(x)
        expected = gradients([torch.softmax(exact, -1)], [exact], [upstream])[0]
        result = shaped(leading_axes(student.softmax, 1)(given), (3, 5), torch.float32)
        found = gradients([result], [given], [upstream])[0].masked_fill(x == -math.inf, 0.0)
        finite(found, f"the gradient of softmax{where}")
        close(found, expected, f"the gradient of softmax{where}", atol, atol, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as `x`."""
        x = torch.zeros(3, 5, device="meta")
        on_meta(lambda: leading_axes(student.softmax, 1)(x), (3, 5))


class TestAttentionScores:
    exercise = "attention_scores"

    @weight(2)
    def test_products(self, student, seed):
        """The score in row i and column j is the dot product of query i and key j, up to a constant factor."""
        draw = Draw(seed)
        query, key = draw.normal(3, 7), draw.normal(5, 7)
        expected = scores_oracle(query, key)
        actual = finite(
            shaped(attention_like(student.attention_scores)(query, key), (3, 5), what="the scores")
        )
        factor = (actual.double() * expected).sum() / expected.square().sum()
        assert factor > 0, "the scores should increase with the dot products, but yours do not"
        close(
            actual.double() / factor, expected, "the scores, divided by a common factor", 1e-4, 1e-4
        )

    @weight(2)
    def test_scale(self, student, seed):
        """The dot products are divided by √d, where d is the number of features per query."""
        draw = Draw(seed)
        for d in (1, 2, 9, 48):
            query, key = draw.normal(2, 3, d), draw.normal(2, 5, d)
            what = f"the scores for queries (2, 3, {d}) and keys (2, 5, {d})"
            actual = attention_like(student.attention_scores)(query, key)
            close(actual, scores_oracle(query, key), what, dtype=torch.float32)

    @weight(1.5)
    def test_leading_axes(self, student, seed):
        """The inputs may have any number of leading axes."""
        draw = Draw(seed)
        for leading in ((), (4,), (2, 3), (2, 1, 3)):
            query, key = draw.normal(*leading, 5, 6), draw.normal(*leading, 7, 6)
            what = f"the scores for leading axes {leading}"
            actual = student.attention_scores(query, key)
            close(actual, scores_oracle(query, key), what, dtype=torch.float32)

    def test_broadcast(self, student, seed):
        """The leading axes of the queries and the keys broadcast against each other."""
        draw = Draw(seed)
        for left, right in (((4, 1), (2,)), ((), (3,)), ((2, 3), ()), ((1,), (4, 3))):
            query, key = draw.normal(*left, 5, 6), draw.normal(*right, 7, 6)
            what = f"the scores for queries {tuple(query.shape)} and keys {tuple(key.shape)}"
            actual = student.attention_scores(query, key)
            close(actual, scores_oracle(query, key), what, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """`attention_scores` works for a single query and a single key with one feature each."""
        draw = Draw(seed)
        query, key = draw.uniform(1, 1, low=0.5, high=1.5), draw.uniform(1, 1, low=-1.5, high=-0.5)
        what = "the score of one query and one key with one feature"
        close(attention_like(student.attention_scores)(query, key), query * key, what)

    @weight(0.5)
    def test_float64(self, student, seed):
        """float64 inputs give float64 scores."""
        draw = Draw(seed)
        query, key = draw.normal(2, 3, 5).double(), draw.normal(2, 4, 5).double()
        what = "the scores in float64"
        close(
            attention_like(student.attention_scores)(query, key),
            scores_oracle(query, key),
            what,
            1e-5,
            1e-5,
        )

    @weight(0.5)
    def test_half_precision(self, student, seed):
        """float16 and bfloat16 inputs give scores of the same dtype."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            query, key = draw.normal(2, 3, 10, dtype=dtype), draw.normal(2, 4, 10, dtype=dtype)
            actual = attention_like(student.attention_scores)(query, key)
            close(actual, scores_oracle(query, key), f"the scores in {dtype}", dtype=dtype)

    @weight(1.5)
    def test_half_overflow(self, student, seed):
        """In float16, a score within the range of float16 is correct even if the unscaled dot product would overflow."""
        draw = Draw(seed)
        # The dot products are at least 35²·64 = 78,400 in absolute value, which overflows float16
        # (maximum 65,504). Divided by √64 = 8, they no longer overflow.
        query, key = (
            torch.where(draw.mask(2, n, 1), 1.0, -1.0) * draw.uniform(2, n, 64, low=35.0, high=50.0)
            for n in (3, 5)
        )
        query, key = query.half(), key.half()
        what = "float16 scores whose unscaled dot products overflow"
        actual = attention_like(student.attention_scores)(query, key)
        close(actual, scores_oracle(query, key), what, dtype=torch.float16)

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The inputs may be non-contiguous and are not modified in place."""
        draw = Draw(seed)
        query, key = draw.strided(draw.normal(2, 3, 5)), draw.strided(draw.normal(2, 4, 5))
        for k in (key, draw.normal(4, 5).expand(2, 4, 5)):
            result = attention_like(student.attention_scores)(query, k)
            unchanged(student)
            what = "the scores for non-contiguous inputs"
            close(result, scores_oracle(query, k), what, dtype=torch.float32)

    def test_gradient(self, student, seed):
        """The gradients of the queries and the keys are correct."""
        draw = Draw(seed)
        query, key, upstream = (draw.normal(2, *shape) for shape in ((3, 5), (4, 5), (3, 4)))
        exact, given = leaves(query.double(), key.double()), leaves(query, key)
        expected = gradients([scores_oracle(*exact)], exact, [upstream])
        result = shaped(attention_like(student.attention_scores)(*given), (2, 3, 4), torch.float32)
        for name, actual, want in zip(
            ("queries", "keys"), gradients([result], given, [upstream]), expected, strict=True
        ):
            close(actual, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The scores are on the same device as the inputs."""
        query, key = (torch.zeros(2, n, 4, device="meta") for n in (3, 5))
        on_meta(
            lambda: attention_like(student.attention_scores)(query, key), (2, 3, 5), "the scores"
        )


class TestAttention:
    exercise = "attention"

    @weight(0.5)
    def test_sums(self, student, seed):
        """The weights are non-negative, and the weights of each query sum to 1 over the keys."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        _, weights = pair(attention_like(student.attention)(query, key, value), "output", "weights")
        finite(shaped(weights, (2, 3, 5), torch.float32, "the weights"), "the weights")
        assert bool((weights >= 0).all()), (
            f"the weights should not be negative; your smallest weight is {weights.min().item():.3g}"
        )
        close(weights.sum(dim=-1), torch.ones(2, 3), "the sum of each query's weights", **LOOSE)

    @weight(2.5)
    def test_weights(self, student, seed):
        """The weights are the softmax of the scores over the keys."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        _, weights = pair(attention_like(student.attention)(query, key, value), "output", "weights")
        expected = attention_oracle(query, key, value)[1]
        close(weights, expected, "the weights", **LOOSE, dtype=torch.float32)

    @weight(1.5)
    def test_output(self, student, seed):
        """The output is the weighted sum of the values, computed with the returned weights."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        output, weights = pair(
            attention_like(student.attention)(query, key, value), "output", "weights"
        )
        finite(shaped(weights, (2, 3, 5), torch.float32, "the weights"), "the weights")
        # With tiny weights, any tiny output would be correct.
        assert bool((weights.abs() > 1e-3).any()), "all weights in your result are almost 0"
        expected = torch.einsum("bnm,bmv->bnv", weights.double(), value.double())
        close(
            output,
            expected,
            "the output for the weights that you returned",
            **LOOSE,
            dtype=torch.float32,
        )

    def test_leading_axes(self, student, seed):
        """The inputs may have any number of leading axes, including none."""
        draw = Draw(seed)
        for leading in ((), (2,), (2, 3)):
            query, key = draw.normal(*leading, 4, 7), draw.normal(*leading, 5, 7)
            value = draw.normal(*leading, 5, 2)
            actual = pair(student.attention(query, key, value), "output", "weights")
            for name, part, expected in zip(
                ("output", "weights"), actual, attention_oracle(query, key, value), strict=True
            ):
                what = f"the {name} for leading axes {leading}"
                close(part, expected, what, **LOOSE, dtype=torch.float32)

    def test_broadcast(self, student, seed):
        """The leading axes of the queries, keys and values broadcast against each other."""
        draw = Draw(seed)
        for left, middle, right in (((4, 1), (2,), (2,)), ((3,), (), ()), ((), (3,), (2, 3))):
            query, key = draw.normal(*left, 5, 6), draw.normal(*middle, 7, 6)
            value = draw.normal(*right, 7, 4)
            what = f"leading axes {left} (queries), {middle} (keys) and {right} (values)"
            output, weights = pair(student.attention(query, key, value), "output", "weights")
            expected, expected_weights = attention_oracle(query, key, value)
            close(output, expected, f"the output for {what}", **LOOSE, dtype=torch.float32)
            # The weights may omit leading axes that only the values have.
            if isinstance(weights, Tensor) and weights.dim() > expected_weights.dim():
                expected_weights = expected_weights.expand(*expected.shape[:-2], 5, 7)
            close(
                weights, expected_weights, f"the weights for {what}", **LOOSE, dtype=torch.float32
            )

    def test_large_scores(self, student, seed):
        """Large scores do not cause an overflow."""
        draw = Draw(seed)
        # The scores are between −1,300 and 1,300, and float32 represents them exactly. In each row, they are
        # more than 500 apart, so that dividing them by a wrong constant does not change the weights.
        query, key = draw.integers(-5, 6, 2, 3, 4).float(), draw.integers(-5, 6, 2, 5, 4).float()
        query[..., 0] = torch.where(draw.mask(2, 3), 50.0, -50.0)
        order = draw.uniform(2, 5).argsort(dim=-1)
        key[..., 0] = torch.tensor([-50.0, -25.0, 0.0, 25.0, 50.0])[order]
        value = draw.normal(2, 5, 6)
        actual = pair(attention_like(student.attention)(query, key, value), "output", "weights")
        for name, part, expected in zip(
            ("output", "weights"), actual, attention_oracle(query, key, value), strict=True
        ):
            close(part, expected, f"the {name} for large scores", 2e-2, 2e-2, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """With a single key, the output for every query is that key's value. Both results keep axes of size 1."""
        draw = Draw(seed)
        for b, n, d in ((2, 3, 5), (1, 1, 1)):
            query, key, value = draw.normal(b, n, 4), draw.normal(b, 1, 4), draw.normal(b, 1, d)
            output, weights = pair(
                attention_like(student.attention)(query, key, value), "output", "weights"
            )
            close(weights, torch.ones(b, n, 1), "the weights for a single key")
            close(output, value.expand(b, n, d), "the output for a single key")

    def test_dtypes(self, student, seed):
        """For float64, float16 and bfloat16 inputs, the output and the weights have the dtype of the inputs."""
        draw = Draw(seed)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            query, key = draw.normal(2, 3, 8, dtype=dtype), draw.normal(2, 5, 8, dtype=dtype)
            value = draw.normal(2, 5, 4, dtype=dtype)
            actual = pair(attention_like(student.attention)(query, key, value), "output", "weights")
            tolerance = (1e-5, 1e-5) if dtype == torch.float64 else (None, None)
            for name, part, expected in zip(
                ("output", "weights"), actual, attention_oracle(query, key, value), strict=True
            ):
                close(part, expected, f"the {name} in {dtype}", *tolerance, dtype=dtype)
            parts = pair(
                attention_like(student.attention)(query, key[:, :1], value[:, :1]),
                "output",
                "weights",
            )
            for name, part in zip(("output", "weights"), parts, strict=True):
                check_dtype(part, dtype, f"the {name} for a single key in {dtype}")

    def test_gradient(self, student, seed):
        """The gradients of the queries, keys and values are correct."""
        draw = Draw(seed)
        inputs = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        upstream = [draw.normal(2, 3, 6), draw.normal(2, 3, 5)]
        exact, given = leaves(*(x.double() for x in inputs)), leaves(*inputs)
        expected = gradients(list(attention_oracle(*exact)), exact, upstream)
        output, weights = pair(attention_like(student.attention)(*given), "output", "weights")
        shaped(output, (2, 3, 6), torch.float32, "the output")
        shaped(weights, (2, 3, 5), torch.float32, "the weights")
        found = gradients([output, weights], given, upstream)
        for name, actual, want in zip(("queries", "keys", "values"), found, expected, strict=True):
            close(actual, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)
        # These scores are so far apart that most weights are 0.
        far = leaves(300 * given[0], given[1], given[2])
        actual = pair(attention_like(student.attention)(*far), "output", "weights")
        for name, found in zip(
            ("queries", "keys", "values"), gradients(actual, far, upstream), strict=True
        ):
            finite(found, f"the gradient of the {name} for widely spread scores")

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The inputs may be non-contiguous and are not modified in place."""
        draw = Draw(seed)
        query, key, value = (
            draw.strided(draw.normal(2, *shape)) for shape in ((3, 4), (5, 4), (5, 6))
        )
        result = attention_like(student.attention)(query, key, value)
        unchanged(student)
        actual = pair(result, "output", "weights")
        for name, part, expected in zip(
            ("output", "weights"), actual, attention_oracle(query, key, value), strict=True
        ):
            what = f"the {name} for non-contiguous inputs"
            close(part, expected, what, **LOOSE, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The output and the weights are on the same device as the inputs."""
        shapes = (2, 3, 4), (2, 5, 4), (2, 5, 6)
        inputs = [torch.zeros(shape, device="meta") for shape in shapes]
        pair_on_meta(lambda: attention_like(student.attention)(*inputs), (2, 3, 6), (2, 3, 5))
