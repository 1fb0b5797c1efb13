"""Hidden graders of the chapter on attention."""

import math

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    close,
    finite,
    on_meta,
    pair,
    pair_on_meta,
    shaped,
    unchanged,
    weight,
)

# Sums of float32 in another order than the oracle's: far above rounding, far below any mistake.
LOOSE = {"atol": 1e-4, "rtol": 1e-4}


def softmax_oracle(x: Tensor, dim: int) -> Tensor:
    """By torch, in float64."""
    return torch.softmax(x.detach().double(), dim)


def scores_oracle(query: Tensor, key: Tensor) -> Tensor:
    """The plain formula in float64."""
    products = torch.einsum("...nd,...md->...nm", query.double(), key.double())
    return products / query.shape[-1] ** 0.5


def attention_oracle(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output and weights by the plain formula in float64."""
    weights = torch.softmax(scores_oracle(query, key), dim=-1)
    return torch.einsum("...nm,...mv->...nv", weights, value.double()), weights


def gradients(outputs: list[Tensor], inputs: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    """The gradients of the inputs under the given gradients of the outputs; None counts as 0."""
    flowing = [(out, up) for out, up in zip(outputs, upstream, strict=True) if out.requires_grad]
    if not flowing:
        return [torch.zeros_like(x) for x in inputs]
    tops = [out for out, _ in flowing]
    given = [up.to(out.dtype) for out, up in flowing]
    found = torch.autograd.grad(tops, inputs, given, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Copies that ask for a gradient."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


class TestSoftmax:
    exercise = "softmax"

    @weight(2)
    def test_last_axis(self, student, seed):
        """Along the last axis the result is exp(x), divided by its sum."""
        x = Draw(seed).normal(3, 5, scale=2.0)
        close(student.softmax(x), softmax_oracle(x, -1), "softmax", dtype=torch.float32)

    @weight(2)
    def test_any_axis(self, student, seed):
        """`dim` may be any axis, negative ones too; the shape stays."""
        x = Draw(seed).normal(3, 5, 4)
        for dim in (0, 1, 2, -1, -2, -3):
            expected = softmax_oracle(x, dim)
            close(student.softmax(x, dim=dim), expected, f"softmax along dim={dim}", dtype=x.dtype)

    def test_one_axis(self, student, seed):
        """A tensor of one axis and one of four are normalised, too."""
        draw = Draw(seed)
        x, y = draw.normal(7), draw.normal(1, 3, 1, 4)
        close(student.softmax(x), softmax_oracle(x, 0), "softmax of one axis", dtype=x.dtype)
        what = "softmax of (1, 3, 1, 4) along dim=1"
        close(student.softmax(y, 1), softmax_oracle(y, 1), what, dtype=y.dtype)

    @weight(1.5)
    def test_large_entries(self, student, seed):
        """Entries up to 10⁴ do not overflow."""
        draw = Draw(seed)
        near = 1e4 - draw.uniform(4, 6, high=3.0)
        spread = draw.uniform(4, 6, low=-1e4, high=1e4)
        for x, what in ((near, "softmax of entries near 10⁴"), (spread, "softmax up to ±10⁴")):
            close(student.softmax(x), softmax_oracle(x, -1), what, 1e-3, 1e-3, dtype=x.dtype)

    def test_very_negative_entries(self, student, seed):
        """A slice of entries near −10⁴ sums to 1 like any other."""
        x = Draw(seed).uniform(4, 6, high=3.0) - 1e4
        what = "softmax of entries near −10⁴"
        close(student.softmax(x), softmax_oracle(x, -1), what, 1e-3, 1e-3, dtype=x.dtype)

    def test_slices_far_apart(self, student, seed):
        """Slices of one tensor may lie far apart; each is right by itself."""
        draw = Draw(seed)
        x = draw.normal(3, 5) + torch.tensor([[9e3], [0.0], [-9e3]])
        for y, dim in ((x, 1), (x.T.contiguous(), 0)):
            what = f"softmax along dim={dim} of slices near 9000, 0 and −9000"
            close(student.softmax(y, dim=dim), softmax_oracle(y, dim), what, 1e-3, 1e-3, y.dtype)

    def test_minus_infinity(self, student, seed):
        """An entry of −∞ gets exactly 0, and the others are right without it."""
        draw = Draw(seed)
        x = draw.normal(4, 6).masked_fill(draw.mask(4, 6), -math.inf)
        x[torch.arange(4), draw.integers(0, 3, 4)] = -math.inf
        x[torch.arange(4), draw.integers(3, 6, 4)] = 1.0
        self.check_infinity(student, x, "entries of −∞")

    @weight(0.5)
    def test_one_finite_entry(self, student, seed):
        """One finite entry, however low, gets all of the weight if the others are −∞."""
        x = torch.full((3, 4), -math.inf)
        x[torch.arange(3), Draw(seed).integers(0, 4, 3)] = torch.tensor([-1e4, 5.0, 1e4])
        self.check_infinity(student, x, "a single entry above −∞")

    def check_infinity(self, student, x, what):
        """Check softmax along the last axis, and exact zeros."""
        result = shaped(student.softmax(x), x.shape, x.dtype, f"softmax of {what}")
        hidden = result[x == -math.inf]
        worst = hidden[hidden != 0].tolist()[:1]
        assert not worst, f"softmax of {what}: −∞ should get exactly 0, yours gets {worst[0]:.3g}"
        close(result, softmax_oracle(x, -1), f"softmax of {what}", 1e-5, 1e-3, dtype=x.dtype)

    def test_lengths(self, student, seed):
        """A slice of one entry gives 1; a slice of 10,000 entries is right."""
        draw = Draw(seed)
        one = draw.normal(3, 1)
        close(student.softmax(one), torch.ones(3, 1), "softmax of slices of one entry")
        # Spread out, so that some weights of the long slice stand well above the tolerance.
        long = draw.normal(2, 10_000, scale=3.0)
        result = student.softmax(long)
        close(result, softmax_oracle(long, -1), "softmax of 10,000 entries", dtype=long.dtype)
        totals = result.double().sum(dim=-1)
        close(totals, torch.ones(2), "the sum of 10,000 weights", 1e-2, dtype=torch.float64)

    @weight(0.5)
    def test_float64(self, student, seed):
        """float64 stays float64."""
        x = Draw(seed).normal(3, 5, dtype=torch.float64)
        close(student.softmax(x), softmax_oracle(x, -1), "softmax in float64", 1e-5, 1e-5)

    @weight(1.5)
    def test_half_precision(self, student, seed):
        """float16 and bfloat16 stay what they are, and nothing overflows there."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            x = draw.normal(3, 8, dtype=dtype)
            close(student.softmax(x), softmax_oracle(x, -1), f"softmax in {dtype}", dtype=dtype)
        # exp(12) leaves float16, exp(−18) is 0 there. How exact the rest is stays open.
        x = torch.tensor([[20.0], [-25.0]]) + draw.normal(2, 6)
        result = shaped(student.softmax(x.half()), (2, 6), torch.float16, "softmax in float16")
        finite(result, "softmax of float16 entries near 20 and −25")
        totals = result.float().sum(dim=-1)
        close(totals, torch.ones(2), "the sum of float16 weights, entries near ±20", 0.1)

    def test_gradient(self, student, seed):
        """The gradient is that of the formula; entries of −∞ do not spoil that of the others."""
        draw = Draw(seed)
        x, column = draw.normal(3, 5), draw.integers(0, 5, 1)
        self.check_gradient(student, draw, x, "")
        self.check_gradient(student, draw, x.index_fill(1, column, -math.inf), " beside −∞")

    @weight(0.5)
    def test_gradient_of_large_entries(self, student, seed):
        """The gradient stays finite and right for entries near 10⁴."""
        draw = Draw(seed)
        x = 1e4 - draw.uniform(3, 5, high=3.0)
        self.check_gradient(student, draw, x, " for entries near 10⁴", atol=1e-2)
        x = draw.uniform(3, 5, low=-1e4, high=1e4)
        self.check_gradient(student, draw, x, " for entries far apart, up to ±10⁴,", atol=1e-2)

    def check_gradient(self, student, draw, x, where, atol=1e-4):
        """Compare with the gradient in float64; what it is at an entry of −∞ stays open."""
        upstream = draw.normal(3, 5)
        [exact], [given] = leaves(x.double()), leaves(x)
        expected = gradients([torch.softmax(exact, -1)], [exact], [upstream])[0]
        result = shaped(student.softmax(given), (3, 5), torch.float32)
        found = gradients([result], [given], [upstream])[0].masked_fill(x == -math.inf, 0.0)
        finite(found, f"the gradient of softmax{where}")
        close(found, expected, f"the gradient of softmax{where}", atol, atol, dtype=torch.float32)

    def test_argument(self, student, seed):
        """The argument may lie in memory in any way, and is not changed."""
        draw = Draw(seed)
        x = draw.strided(draw.normal(3, 4, 5))
        for y in (x, draw.normal(3, 1, 5).expand(3, 4, 5)):
            result = student.softmax(y, dim=1)
            unchanged(student)
            what = "softmax of a tensor that is not contiguous"
            close(result, softmax_oracle(y, 1), what, dtype=y.dtype)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the device of the argument."""
        x = torch.zeros(3, 5, device="meta")
        on_meta(lambda: student.softmax(x), (3, 5))


class TestAttentionScores:
    exercise = "attention_scores"

    @weight(2)
    def test_products(self, student, seed):
        """Row i, column j holds the dot product of query i and key j (up to a common factor)."""
        draw = Draw(seed)
        query, key = draw.normal(3, 7), draw.normal(5, 7)
        expected = scores_oracle(query, key)
        seen = finite(shaped(student.attention_scores(query, key), (3, 5), what="the scores"))
        factor = (seen.double() * expected).sum() / expected.square().sum()
        assert factor > 0, "the scores should grow with the dot products, yours do not"
        close(seen.double() / factor, expected, "the scores, up to a common factor", 1e-4, 1e-4)

    @weight(2)
    def test_scale(self, student, seed):
        """The dot products are divided by the root of the number of features."""
        draw = Draw(seed)
        for d in (1, 2, 9, 48):
            query, key = draw.normal(2, 3, d), draw.normal(2, 5, d)
            what = f"scores of queries (2, 3, {d}) and keys (2, 5, {d})"
            seen = student.attention_scores(query, key)
            close(seen, scores_oracle(query, key), what, dtype=torch.float32)

    @weight(1.5)
    def test_leading_axes(self, student, seed):
        """Any number of leading axes is allowed."""
        draw = Draw(seed)
        for leading in ((4,), (2, 3), (2, 1, 3)):
            query, key = draw.normal(*leading, 5, 6), draw.normal(*leading, 7, 6)
            what = f"scores with the leading axes {leading}"
            seen = student.attention_scores(query, key)
            close(seen, scores_oracle(query, key), what, dtype=torch.float32)

    def test_broadcast(self, student, seed):
        """Leading axes of queries and keys broadcast."""
        draw = Draw(seed)
        for left, right in (((4, 1), (2,)), ((), (3,)), ((2, 3), ()), ((1,), (4, 3))):
            query, key = draw.normal(*left, 5, 6), draw.normal(*right, 7, 6)
            what = f"scores of queries {tuple(query.shape)} and keys {tuple(key.shape)}"
            seen = student.attention_scores(query, key)
            close(seen, scores_oracle(query, key), what, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """One query, one key and one feature are enough."""
        draw = Draw(seed)
        query, key = draw.normal(1, 1), draw.normal(1, 1)
        what = "the score of one query and one key of one feature"
        close(student.attention_scores(query, key), query * key, what)

    @weight(0.5)
    def test_float64(self, student, seed):
        """float64 stays float64."""
        draw = Draw(seed)
        query, key = draw.normal(2, 3, 5).double(), draw.normal(2, 4, 5).double()
        what = "scores in float64"
        close(student.attention_scores(query, key), scores_oracle(query, key), what, 1e-5, 1e-5)

    @weight(0.5)
    def test_half_precision(self, student, seed):
        """float16 and bfloat16 stay what they are."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            query, key = draw.normal(2, 3, 10, dtype=dtype), draw.normal(2, 4, 10, dtype=dtype)
            seen = student.attention_scores(query, key)
            close(seen, scores_oracle(query, key), f"scores in {dtype}", dtype=dtype)

    @weight(1.5)
    def test_half_overflow(self, student, seed):
        """In float16 a score that fits is right, though the undivided sum would not fit."""
        draw = Draw(seed)
        # Sums from 35²·64 = 78,400 on leave float16 (65,504); an eighth of them does not.
        query, key = (
            torch.where(draw.mask(2, n, 1), 1.0, -1.0) * draw.uniform(2, n, 64, low=35.0, high=50.0)
            for n in (3, 5)
        )
        query, key = query.half(), key.half()
        what = "scores in float16 whose undivided sums do not fit"
        seen = student.attention_scores(query, key)
        close(seen, scores_oracle(query, key), what, dtype=torch.float16)

    def test_gradient(self, student, seed):
        """The gradients of queries and keys are those of the formula."""
        draw = Draw(seed)
        query, key, upstream = (draw.normal(2, *shape) for shape in ((3, 5), (4, 5), (3, 4)))
        exact, given = leaves(query.double(), key.double()), leaves(query, key)
        expected = gradients([scores_oracle(*exact)], exact, [upstream])
        result = shaped(student.attention_scores(*given), (2, 3, 4), torch.float32)
        for name, seen, want in zip(
            ("queries", "keys"), gradients([result], given, [upstream]), expected, strict=True
        ):
            close(seen, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The arguments may lie in memory in any way, and are not changed."""
        draw = Draw(seed)
        query, key = draw.strided(draw.normal(2, 3, 5)), draw.strided(draw.normal(2, 4, 5))
        for k in (key, draw.normal(4, 5).expand(2, 4, 5)):
            result = student.attention_scores(query, k)
            unchanged(student)
            what = "scores of tensors that are not contiguous"
            close(result, scores_oracle(query, k), what, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The scores are on the device of the arguments."""
        query, key = (torch.zeros(2, n, 4, device="meta") for n in (3, 5))
        on_meta(lambda: student.attention_scores(query, key), (2, 3, 5), "the scores")


class TestAttention:
    exercise = "attention"

    @weight(0.5)
    def test_sums(self, student, seed):
        """The weights are not negative, and those of each query sum to 1 over the keys."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        _, weights = pair(student.attention(query, key, value), "output", "weights")
        finite(shaped(weights, (2, 3, 5), torch.float32, "weights"), "weights")
        assert bool((weights >= 0).all()), f"a weight is negative: {weights.min().item():.3g}"
        close(weights.sum(dim=-1), torch.ones(2, 3), "the sum of a query's weights", **LOOSE)

    @weight(2.5)
    def test_weights(self, student, seed):
        """The weights are softmax of the scores over the keys."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        _, weights = pair(student.attention(query, key, value), "output", "weights")
        expected = attention_oracle(query, key, value)[1]
        close(weights, expected, "weights", **LOOSE, dtype=torch.float32)

    @weight(1.5)
    def test_output(self, student, seed):
        """The output is the sum of the values, each times the weight that is returned with it."""
        draw = Draw(seed)
        query, key, value = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        output, weights = pair(student.attention(query, key, value), "output", "weights")
        finite(shaped(weights, (2, 3, 5), torch.float32, "weights"), "weights")
        assert bool((weights != 0).any()), "all weights are 0"
        expected = torch.einsum("bnm,bmv->bnv", weights.double(), value.double())
        close(output, expected, "output", **LOOSE, dtype=torch.float32)

    def test_leading_axes(self, student, seed):
        """Any number of leading axes is allowed, none and two as well."""
        draw = Draw(seed)
        for leading in ((), (2, 3)):
            query, key = draw.normal(*leading, 4, 7), draw.normal(*leading, 5, 7)
            value = draw.normal(*leading, 5, 2)
            seen = pair(student.attention(query, key, value), "output", "weights")
            for name, part, expected in zip(
                ("output", "weights"), seen, attention_oracle(query, key, value), strict=True
            ):
                what = f"{name} with the leading axes {leading}"
                close(part, expected, what, **LOOSE, dtype=torch.float32)

    def test_broadcast(self, student, seed):
        """Leading axes of queries, keys and values broadcast."""
        draw = Draw(seed)
        for left, middle, right in (((4, 1), (2,), (2,)), ((3,), (), ()), ((), (3,), (2, 3))):
            query, key = draw.normal(*left, 5, 6), draw.normal(*middle, 7, 6)
            value = draw.normal(*right, 7, 4)
            what = f"queries {left}, keys {middle} and values {right} as leading axes"
            output, weights = pair(student.attention(query, key, value), "output", "weights")
            expected, sure = attention_oracle(query, key, value)
            close(output, expected, f"output for {what}", **LOOSE, dtype=torch.float32)
            # Whether axes that only the values have appear in the weights is open.
            if isinstance(weights, Tensor) and weights.dim() > sure.dim():
                sure = sure.expand(*expected.shape[:-2], 5, 7)
            close(weights, sure, f"weights for {what}", **LOOSE, dtype=torch.float32)

    def test_large_scores(self, student, seed):
        """Large scores do not overflow."""
        draw = Draw(seed)
        # Scores between −5,000 and 5,000, whole numbers that float32 holds exactly.
        query = draw.integers(-50, 51, 2, 3, 4).float()
        key = draw.integers(-50, 51, 2, 5, 4).float()
        value = draw.normal(2, 5, 6)
        seen = pair(student.attention(query, key, value), "output", "weights")
        for name, part, expected in zip(
            ("output", "weights"), seen, attention_oracle(query, key, value), strict=True
        ):
            close(part, expected, f"{name} for large scores", 2e-2, 2e-2, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """With a single key, every query receives its value; axes of size 1 stay."""
        draw = Draw(seed)
        for b, n, d in ((2, 3, 5), (1, 1, 1)):
            query, key, value = draw.normal(b, n, 4), draw.normal(b, 1, 4), draw.normal(b, 1, d)
            output, weights = pair(student.attention(query, key, value), "output", "weights")
            close(weights, torch.ones(b, n, 1), "weights of a single key")
            close(output, value.expand(b, n, d), "output for a single key")

    def test_dtypes(self, student, seed):
        """The results have the dtype of the inputs: float64, float16 and bfloat16."""
        draw = Draw(seed)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            query, key = draw.normal(2, 3, 8, dtype=dtype), draw.normal(2, 5, 8, dtype=dtype)
            value = draw.normal(2, 5, 4, dtype=dtype)
            seen = pair(student.attention(query, key, value), "output", "weights")
            tolerance = (1e-5, 1e-5) if dtype == torch.float64 else (None, None)
            for name, part, expected in zip(
                ("output", "weights"), seen, attention_oracle(query, key, value), strict=True
            ):
                close(part, expected, f"{name} in {dtype}", *tolerance, dtype=dtype)

    def test_gradient(self, student, seed):
        """The gradients of queries, keys and values are those of the formula."""
        draw = Draw(seed)
        inputs = draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 6)
        upstream = [draw.normal(2, 3, 6), draw.normal(2, 3, 5)]
        exact, given = leaves(*(x.double() for x in inputs)), leaves(*inputs)
        expected = gradients(list(attention_oracle(*exact)), exact, upstream)
        output, weights = pair(student.attention(*given), "output", "weights")
        shaped(output, (2, 3, 6), torch.float32, "output")
        shaped(weights, (2, 3, 5), torch.float32, "weights")
        found = gradients([output, weights], given, upstream)
        for name, seen, want in zip(("queries", "keys", "values"), found, expected, strict=True):
            close(seen, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)
        # Scores so far apart that most weights are 0.
        far = leaves(300 * given[0], given[1], given[2])
        seen = pair(student.attention(*far), "output", "weights")
        for name, found in zip(
            ("queries", "keys", "values"), gradients(seen, far, upstream), strict=True
        ):
            finite(found, f"for scores far apart, the gradient of the {name}")

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The arguments may lie in memory in any way, and are not changed."""
        draw = Draw(seed)
        query, key, value = (
            draw.strided(draw.normal(2, *shape)) for shape in ((3, 4), (5, 4), (5, 6))
        )
        result = student.attention(query, key, value)
        unchanged(student)
        seen = pair(result, "output", "weights")
        for name, part, expected in zip(
            ("output", "weights"), seen, attention_oracle(query, key, value), strict=True
        ):
            what = f"{name} for tensors that are not contiguous"
            close(part, expected, what, **LOOSE, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """Output and weights are on the device of the arguments."""
        shapes = (2, 3, 4), (2, 5, 4), (2, 5, 6)
        inputs = [torch.zeros(shape, device="meta") for shape in shapes]
        pair_on_meta(lambda: student.attention(*inputs), (2, 3, 6), (2, 3, 5))
