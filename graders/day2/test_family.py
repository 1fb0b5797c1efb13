"""Hidden tests for the family chapter. The oracles evaluate the formulas directly, in float64."""

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    close,
    finite,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from autograder.execution.student import StudentError
from graders.equivalent_calls import attention_like, leading_axes

HALVES = (torch.float16, torch.bfloat16)


def near(seen: Tensor, expected: Tensor, what: str = "the result", atol: float = 2e-4) -> None:
    """Compare the shape and values of two tensors. A separate test checks the dtype, so a wrong dtype is penalised only once."""
    close(shaped(seen, expected.shape, what=what).double(), expected.double(), what, atol, atol)


def check_dtypes(call: Callable[..., Tensor], expected: Tensor, *inputs: Tensor) -> None:
    """Check that the result keeps the dtype of the inputs and is as accurate as that dtype allows."""
    for dtype in (torch.float32, torch.float64):
        result = call(*(x.to(dtype) for x in inputs))
        close(result, expected, f"the result for {str(dtype)[6:]}", 1e-3, 1e-3, dtype)
    for dtype in HALVES:
        result = call(*(x.to(dtype) for x in inputs))
        close(result, expected, f"the result for {str(dtype)[6:]}", dtype=dtype)


def check_device(call: Callable[..., Tensor], shape: tuple[int, ...], *inputs: Tensor) -> None:
    """Check that the result is on the same device as the inputs."""
    on_meta(lambda: call(*(x.to("meta") for x in inputs)), shape)


def gradients(result: Tensor, inputs: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    """Return the gradient of each input, after checking that it exists and is finite."""
    assert result.requires_grad, "no gradient flows through the result"
    found = torch.autograd.grad((result * upstream).sum(), list(inputs.values()), allow_unused=True)
    for name, gradient in zip(inputs, found, strict=True):
        assert gradient is not None, f"no gradient reaches {name}"
        finite(gradient, f"the gradient of {name}")
    return dict(zip(inputs, found, strict=True))


def rope_oracle(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate each pair as a complex number, by multiplying it by e^(i · angle)."""
    d = x.shape[-1]
    angles = [[p * base ** (-2 * i / d) for i in range(d // 2)] for p in positions.tolist()]
    angles = torch.tensor(angles, dtype=torch.float64)
    pairs = torch.complex(x[..., 0::2].double(), x[..., 1::2].double())
    result = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(result).flatten(-2)


class TestRotaryEmbedding:
    exercise = "rotary_embedding"

    @weight(1)
    def test_one_pair(self, student, seed):
        """With d = 2 there is one pair (a, b); at position p it becomes (a·cos p − b·sin p, a·sin p + b·cos p)."""
        x, positions = Draw(seed).normal(7, 2), torch.arange(7)
        near(leading_axes(student.rotary_embedding, 2)(x, positions), rope_oracle(x, positions))

    @weight(2)
    def test_neighbours_are_a_pair(self, student):
        """Columns 2i and 2i + 1 are rotated together and do not affect other columns."""
        # Every row is rotated, even by code that uses the row's index as its position.
        x = torch.eye(8)[1:6]
        positions = torch.tensor([3, 3, 3, 3, 3])
        seen = finite(shaped(leading_axes(student.rotary_embedding, 2)(x, positions), (5, 8)))
        for column, row in enumerate(seen[1:], 2):
            nonzero = row.abs().gt(1e-5).nonzero().flatten().tolist()
            pair = [column // 2 * 2, column // 2 * 2 + 1]
            assert nonzero == pair, (
                f"a row (d = 8) that is nonzero only in column {column} should become nonzero in columns {pair}; "
                f"yours is nonzero in {nonzero}"
            )

    @weight(2)
    def test_every_pair(self, student, seed):
        """Pair i is rotated by the angle position · base^(−2i/d)."""
        draw = Draw(seed)
        x, positions = draw.normal(2, 60, 14), torch.arange(60)
        near(leading_axes(student.rotary_embedding, 2)(x, positions), rope_oracle(x, positions))
        x, positions = draw.normal(2, 130), torch.tensor([3, 1])
        near(
            leading_axes(student.rotary_embedding, 2)(x, positions),
            rope_oracle(x, positions),
            "the result for d = 130",
        )

    @weight(1)
    def test_base(self, student, seed):
        """The angles are computed from the given `base`."""
        draw = Draw(seed)
        base = 70.0
        x, positions = draw.normal(2, 9, 6), torch.arange(9)
        seen = leading_axes(student.rotary_embedding, 2)(x, positions, base=base)
        near(seen, rope_oracle(x, positions, base), f"the result for base = {base:g}")

    @weight(1.5)
    def test_positions(self, student, seed):
        """Each row is rotated according to its own position; positions may be in any order and may repeat."""
        draw = Draw(seed)
        x, positions = draw.normal(3, 8, 6), draw.integers(0, 60, 8)
        positions[5] = positions[2]
        near(leading_axes(student.rotary_embedding, 2)(x, positions), rope_oracle(x, positions))
        x, positions = draw.normal(2, 1, 6), draw.integers(20, 60, 1)
        near(
            leading_axes(student.rotary_embedding, 2)(x, positions),
            rope_oracle(x, positions),
            "the result for a single row",
        )

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Positions run along the second-to-last axis, after any number of leading axes."""
        draw = Draw(seed)
        positions = draw.integers(0, 50, 4)
        for leading in ((), (4,), (2, 3), (5, 2, 3)):
            x = draw.normal(*leading, 4, 6)
            what = f"the result for shape {tuple(x.shape)}"
            near(student.rotary_embedding(x, positions), rope_oracle(x, positions), what)

    @weight(1)
    def test_distance_only(self, student, seed):
        """The dot product of a query and a key depends only on their relative position; rotation preserves norms."""
        draw = Draw(seed)
        query, key = draw.normal(2, 1, 8)
        shifts, distance = draw.integers(0, 40, 6), int(draw.integers(3, 9, 1))
        queries = shaped(
            leading_axes(student.rotary_embedding, 2)(query.repeat(6, 1), shifts + distance), (6, 8)
        )
        keys = shaped(leading_axes(student.rotary_embedding, 2)(key.repeat(6, 1), shifts), (6, 8))
        scores = (queries.double() * keys.double()).sum(dim=-1)
        near(
            scores,
            scores[:1].expand(6),
            f"the scores of one query and key at distance {distance}",
            atol=1e-3,
        )
        near(
            queries.double().norm(dim=-1), query.double().norm().expand(6), "the norms of the rows"
        )

    @weight(1.5)
    def test_far_positions(self, student, seed):
        """Angles are accurate up to position 10,000, even if x is in half precision."""
        draw = Draw(seed)
        positions = torch.cat([draw.integers(5_000, 10_000, 8), torch.tensor([10_000])])
        x = draw.uniform(2, 9, 6, low=-1.0)
        expected = rope_oracle(x, positions)
        for dtype, atol in ((torch.float32, 5e-3), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
            what = f"the result at positions up to 10,000 for {str(dtype)[6:]}"
            near(
                leading_axes(student.rotary_embedding, 2)(x.to(dtype), positions),
                expected,
                what,
                atol,
            )

    @weight(1)
    def test_dtype_and_device(self, student, seed):
        """The result has the dtype and device of x, which may be non-contiguous and is not modified."""
        draw = Draw(seed)
        x, positions = draw.normal(2, 5, 6, dtype=torch.float64), draw.integers(0, 30, 5)
        expected = rope_oracle(x, positions)
        check_dtypes(lambda x: leading_axes(student.rotary_embedding, 2)(x, positions), expected, x)
        strided = draw.strided(x.float())
        what = "the result for a non-contiguous x"
        near(leading_axes(student.rotary_embedding, 2)(strided, positions), expected, what)
        unchanged(student)
        check_device(leading_axes(student.rotary_embedding, 2), (2, 5, 6), x, positions)

    @weight(1)
    def test_odd(self, student, seed):
        """If d is odd, a ValueError is raised, whatever the positions are."""
        for d, positions in (
            (7, torch.arange(4)),
            (1, torch.arange(4)),
            (5, torch.zeros(4).long()),
        ):
            with value_error("d", "x", when=f"d is {d}"):
                student.rotary_embedding(Draw(seed).normal(2, 4, d), positions)

    @weight(1)
    def test_gradient(self, student, seed):
        """The gradient of x is the upstream gradient, rotated back."""
        draw = Draw(seed)
        x, positions = draw.normal(2, 5, 6).requires_grad_(), draw.integers(0, 40, 5)
        result = shaped(leading_axes(student.rotary_embedding, 2)(x, positions), (2, 5, 6))
        upstream = draw.normal(2, 5, 6)
        seen = gradients(result, {"x": x}, upstream)["x"]
        near(seen, rope_oracle(upstream, -positions), "the gradient of x")


def slopes_oracle(n_heads: int) -> list[float]:
    """Return the ALiBi slopes of `n_heads` heads, computed one by one."""
    power = 1
    while 2 * power <= n_heads:
        power *= 2
    found = [2.0 ** (-8 * k / power) for k in range(1, power + 1)]
    k = 1
    while len(found) < n_heads:
        found.append(2.0 ** (-8 * k / (2 * power)))
        k += 2
    return found


def student_slopes(student, n_heads: int) -> Tensor:
    """Return the student's slopes. A head's slope is the amount by which its bias falls per step of distance."""
    return -shaped(student.alibi_bias(n_heads, 2), (n_heads, 2, 2))[:, 1, 0].double()


class TestAlibiBias:
    exercise = "alibi_bias"

    @weight(1.5)
    def test_future(self, student):
        """The bias is −inf above the diagonal and finite elsewhere."""
        bias = shaped(student.alibi_bias(3, 5), (3, 5, 5))
        future = torch.ones(5, 5, dtype=torch.bool).triu(1)
        assert (bias[:, future] == -math.inf).all(), (
            "every bias above the diagonal (j > i) should be −inf; "
            f"{int((bias[:, future] != -math.inf).sum())} of {bias[:, future].numel()} are not"
        )
        finite(bias[:, ~future], "the bias on and below the diagonal")

    @weight(2)
    def test_distance(self, student):
        """In every head, the bias is 0 on the diagonal and falls by a constant amount with each step back."""
        n = 9
        bias = shaped(student.alibi_bias(4, n), (4, n, n)).double()
        diagonal = bias.diagonal(dim1=1, dim2=2)
        near(diagonal, torch.zeros(4, n), "the bias on the diagonal", 1e-6)
        step = finite(bias[:, 1, 0], "bias[:, 1, 0]")
        assert (step < 0).all(), (
            f"bias[:, 1, 0] (one step back) should be negative; yours is {step.tolist()}"
        )
        for i in range(n):
            expected = step.unsqueeze(1) * torch.arange(i, -1, -1)
            near(
                bias[:, i, : i + 1],
                expected,
                f"row {i} of the bias, given your bias[:, 1, 0]",
                1e-5,
            )

    @weight(2)
    def test_power_of_two(self, student):
        """If the number of heads h is a power of two, the slopes are 2^(−8k/h) for k = 1, …, h."""
        for n_heads in (16, 8, 128):
            expected = torch.tensor(slopes_oracle(n_heads))
            near(
                student_slopes(student, n_heads), expected, f"the slopes for {n_heads} heads", 1e-6
            )

    @weight(1.5)
    def test_other_numbers(self, student):
        """If the number of heads is not a power of two, the slopes for the next lower and next higher powers are combined."""
        for n_heads in (6, 12, 3, 80):
            expected = torch.tensor(sorted(slopes_oracle(n_heads)))
            seen = student_slopes(student, n_heads).sort().values
            near(seen, expected, f"the sorted slopes for {n_heads} heads", 1e-6)

    @weight(1)
    def test_order(self, student):
        """The slopes taken from the next higher power of two come last; the slopes are not sorted by size."""
        for n_heads in (11, 5, 7, 12, 3):
            expected = torch.tensor(slopes_oracle(n_heads))
            near(
                student_slopes(student, n_heads), expected, f"the slopes for {n_heads} heads", 1e-6
            )

    @weight(0.5)
    def test_one(self, student):
        """With a single head, the slope is 2^−8 at every distance. With a single position, the bias is 0."""
        near(student_slopes(student, 1), torch.tensor([2.0**-8]), "the slope for 1 head", 1e-6)
        last = shaped(student.alibi_bias(1, 270), (1, 270, 270))[:, -1]
        expected = -(2.0**-8) * torch.arange(269.0, -1, -1)
        near(last, expected.unsqueeze(0), "the last of 270 rows of the bias for 1 head", 1e-5)
        near(student.alibi_bias(6, 1), torch.zeros(6, 1, 1), "the bias for one position")

    @weight(0.5)
    def test_dtype(self, student):
        """The bias is float32."""
        shaped(student.alibi_bias(2, 3), (2, 3, 3), torch.float32)


def check_mask(seen: Tensor, n: int, window: int) -> None:
    """Check every entry of a sliding-window mask. A separate test checks the dtype."""
    queries, keys = torch.arange(n).unsqueeze(1), torch.arange(n)
    correct = (queries - window < keys) & (keys <= queries)
    wrong = ((finite(shaped(seen, (n, n)), "the mask") != 0) != correct).nonzero().tolist()
    if wrong:
        i, j = wrong[0]
        verb = "be able to" if correct[i, j] else "not"
        raise AssertionError(
            f"for n = {n} and window = {window}, position {i} should {verb} attend to position {j}"
        )


class TestSlidingWindowMask:
    exercise = "sliding_window_mask"

    @weight(0.5)
    def test_dtype(self, student):
        """The mask is boolean: True where attention is allowed."""
        shaped(student.sliding_window_mask(4, 2), (4, 4), torch.bool, "the mask")
        for n, window in ((4, 1), (4, 4), (3, 9), (1, 1)):
            # Other tests check whether these windows are accepted.
            with suppress(StudentError):
                mask = student.sliding_window_mask(n, window)
                shaped(mask, (n, n), torch.bool, f"the mask for n = {n} and window = {window}")

    @weight(1)
    def test_future(self, student):
        """Every position may attend to itself but not to later positions."""
        mask = finite(shaped(student.sliding_window_mask(6, 3), (6, 6)), "the mask") != 0
        assert not mask.triu(1).any(), (
            "for n = 6 and window = 3, at least one position can attend to a later one"
        )
        assert mask.diagonal().all(), (
            "for n = 6 and window = 3, at least one position cannot attend to itself"
        )

    @weight(2)
    def test_reach(self, student):
        """Each position may attend to `window` positions: itself and the `window` − 1 positions before it."""
        for n, window in ((11, 4), (270, 20)):
            check_mask(student.sliding_window_mask(n, window), n, window)

    @weight(1)
    def test_window_of_one(self, student):
        """With a window of 1, each position may attend only to itself."""
        check_mask(student.sliding_window_mask(5, 1), 5, 1)
        check_mask(student.sliding_window_mask(1, 1), 1, 1)

    @weight(1)
    def test_wide_window(self, student):
        """With a window of n or more, each position may attend to itself and all earlier positions."""
        for window in (6, 7, 5, 100):
            check_mask(student.sliding_window_mask(6, window), 6, window)
        check_mask(student.sliding_window_mask(1, 4), 1, 4)

    @weight(1)
    def test_no_window(self, student):
        """A window below 1 raises a ValueError that names `window`."""
        for n, window in ((5, 0), (5, -1), (5, -7), (1, 0)):
            with value_error("window", when=f"n is {n} and window is {window}"):
                student.sliding_window_mask(n, window)


def phi(x: Tensor) -> Tensor:
    """Compute elu(x) + 1 without cancellation for very negative x."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def quadratic_oracle(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Compute linear attention with an explicit n × m weight matrix."""
    weights = phi(query.double()) @ phi(key.double()).mT
    if causal:
        weights = weights.tril()
    return weights / weights.sum(dim=-1, keepdim=True) @ value.double()


def random_features(draw: Draw, *shape: int) -> Tensor:
    """Return queries or keys that make the denominators so large that a small ε added to them has no effect."""
    x = draw.uniform(*shape, low=-1.0, high=2.0)
    x[..., 0] = 2.5
    return x


class TestLinearAttention:
    exercise = "linear_attention"

    @weight(1)
    def test_weights_sum_to_one(self, student, seed):
        """The attention weights sum to 1: if all values are equal, every output is that value."""
        draw = Draw(seed)
        query, key = random_features(draw, 4, 6), random_features(draw, 9, 6)
        value = torch.tensor([2.0, -3.0, 0.5]).expand(9, 3)
        near(attention_like(student.linear_attention)(query, key, value), value[:4], atol=1e-3)
        result = attention_like(student.linear_attention)(query, key[:4], value[:4], causal=True)
        near(result, value[:4], "the result with causal=True", 1e-3)

    @weight(1)
    def test_feature_map(self, student, seed):
        """The feature map φ(x) is elu(x) + 1; with d = 1, each key's weight is proportional to φ(key)."""
        draw = Draw(seed)
        key = torch.tensor([[-3.0], [-1.2], [-0.2], [0.4], [1.3], [2.6]]) + 0.1 * draw.normal(6, 1)
        result = attention_like(student.linear_attention)(torch.zeros(1, 1), key, torch.eye(6))
        expected = phi(key.double()).mT / phi(key.double()).sum()
        keys = ", ".join(f"{x:.3g}" for x in key.flatten().tolist())
        near(result, expected, f"the weights of the keys {keys}", 1e-3)

    @weight(2)
    def test_values(self, student, seed):
        """The result is (φ(q) · Σ φ(k)vᵀ) / (φ(q) · Σ φ(k)), even if n ≠ m and d ≠ d_v."""
        draw = Draw(seed)
        inputs = random_features(draw, 7, 4), random_features(draw, 11, 4), draw.normal(11, 5)
        near(
            attention_like(student.linear_attention)(*inputs), quadratic_oracle(*inputs), atol=1e-3
        )

    @weight(2)
    def test_causal(self, student, seed):
        """With causal=True, the sums for position i run over the keys up to and including key i."""
        draw = Draw(seed)
        inputs = random_features(draw, 9, 4), random_features(draw, 9, 4), draw.normal(9, 5)
        near(
            attention_like(student.linear_attention)(*inputs, causal=True),
            quadratic_oracle(*inputs, True),
            atol=1e-3,
        )

    @weight(1)
    def test_leading_axes(self, student, seed):
        """The inputs may have any number of leading axes and may be non-contiguous; batch entries are independent."""
        draw = Draw(seed)
        for leading in ((), (3,), (2, 3), (2, 1, 3)):
            for causal in (False, True):
                m = 5 if causal else 6
                query, key = (
                    random_features(draw, *leading, 5, 2),
                    random_features(draw, *leading, m, 2),
                )
                inputs = [draw.strided(x) for x in (query, key, draw.normal(*leading, m, 4))]
                what = f"the result for leading axes {leading}{' with causal=True' * causal}"
                result = student.linear_attention(*inputs, causal=causal)
                near(result, quadratic_oracle(*inputs, causal), what, 1e-3)

    @weight(1)
    def test_small_and_large(self, student, seed):
        """Results are accurate for entries down to −10; an ε added to the denominator must be below 10⁻⁴."""
        draw = Draw(seed)
        # All values are equal, so that only the sum of the weights affects the result.
        value = draw.uniform(1, 3, low=2.0, high=4.0).expand(8, 3)
        query, key = draw.uniform(5, 4, low=-10, high=-9), draw.uniform(8, 4, low=20, high=40)
        result = attention_like(student.linear_attention)(query, key, value)
        near(
            result, quadratic_oracle(query, key, value), "the result for queries around −9.5", 1e-2
        )
        query, key = draw.uniform(5, 2, low=-3, high=-2.8), draw.uniform(3, 2, low=-3, high=-2.8)
        result = attention_like(student.linear_attention)(query, key, value[:3])
        near(
            result,
            quadratic_oracle(query, key, value[:3]),
            "the result for entries around −2.9",
            1e-2,
        )
        # With a single entry, only an ε can change the result. The denominator is above 0.04.
        query, key = (draw.uniform(1, 1, low=-1.5, high=-1.4) for _ in range(2))
        result = attention_like(student.linear_attention)(query, key, value[:1], causal=True)
        near(result, value[:1], "the result for one entry around −1.45 with causal=True", 1e-2)

    @weight(1)
    def test_no_matrix(self, student, seed):
        """No n × m tensor is created, and the size of the largest tensor grows linearly with n."""
        self._grows_with_n(student, seed, causal=False)

    @weight(1)
    def test_no_matrix_where_causal(self, student, seed):
        """With causal=True, no n × n tensor is created, and the size of the largest tensor grows linearly with n."""
        self._grows_with_n(student, seed, causal=True)

    def _grows_with_n(self, student, seed, causal: bool):
        draw = Draw(seed)
        largest = []
        for n in (1024, 2048):
            inputs = draw.normal(n, 2), draw.normal(n, 2), draw.normal(n, 3)
            with student.measuring() as cost:
                result = attention_like(student.linear_attention)(*inputs, causal=causal)
            shaped(result, (n, 3))
            largest.append(cost.largest)
        mode = f"with d = 2, d_v = 3 and causal={causal}"
        assert largest[0] < 1024 * 1024, (
            f"{mode}, your code creates a tensor of {largest[0]:,} elements for n = m = 1024"
        )
        # Linear growth gives a factor of 2; growth proportional to n^1.5 gives a factor of 2.83.
        assert largest[1] < 2.8 * largest[0] or not largest[0], (
            f"{mode}, the largest tensor has {largest[0]:,} elements for n = m = 1024, "
            f"but {largest[1]:,} for n = m = 2048"
        )

    @weight(1)
    def test_long(self, student, seed):
        """With causal=True, 8192 positions fit in 200 MB of memory, and the result is accurate at every position."""
        draw = Draw(seed)
        query, key = random_features(draw, 8192, 2), random_features(draw, 8192, 2)
        value = draw.normal(8192, 3)
        # At position 1, the weights of the two keys are 0.2 and 0.8.
        key[:2], query[1] = torch.tensor([[2.0, -1.0], [-1.0, 2.0]]), torch.tensor([-1.0, 2.0])
        value[:2] = torch.tensor([[1.0], [-1.0]])
        result = shaped(
            attention_like(student.linear_attention)(query, key, value, causal=True), (8192, 3)
        )
        for i in (0, 1, 1000, 8191):
            expected = quadratic_oracle(query[i : i + 1], key[: i + 1], value[: i + 1])
            near(result[i : i + 1], expected, f"row {i} of the result for n = 8192", 1e-3)

    @weight(1)
    def test_gradient(self, student, seed):
        """The gradients of query, key and value are correct, even for large entries."""
        draw = Draw(seed)
        for causal in (False, True):
            inputs = {"query": random_features(draw, 5, 4), "key": random_features(draw, 5, 4)}
            inputs["value"] = draw.normal(5, 3)
            inputs["query"][1, 2], inputs["key"][3, 0] = 120.0, 150.0
            inputs = {name: x.requires_grad_() for name, x in inputs.items()}
            upstream = draw.normal(5, 3)
            result = shaped(
                attention_like(student.linear_attention)(*inputs.values(), causal=causal), (5, 3)
            )
            seen = gradients(result, inputs, upstream)
            correct = gradients(quadratic_oracle(*inputs.values(), causal), inputs, upstream)
            for name in inputs:
                what = f"the gradient of {name} with causal={causal}"
                near(seen[name], correct[name], what, 3e-3)

    @weight(1)
    def test_dtype_and_device(self, student, seed):
        """The result has the dtype and device of the inputs, which are not modified."""
        draw = Draw(seed)
        inputs = [
            random_features(draw, 2, 6, 4),
            random_features(draw, 2, 6, 4),
            draw.normal(2, 6, 3),
        ]
        for causal in (False, True):

            def call(*inputs: Tensor, causal: bool = causal) -> Tensor:
                return attention_like(student.linear_attention)(*inputs, causal=causal)

            check_dtypes(call, quadratic_oracle(*inputs, causal), *inputs)
            unchanged(student)
            check_device(call, (2, 6, 3), *inputs)


def grouped_oracle(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute grouped-query attention one head at a time; the output is 0 for a query with no allowed key."""
    (b, h, n, d), (_, g, m, _) = query.shape, key.shape
    mask = torch.ones(b, h, n, m, dtype=torch.bool) if mask is None else mask.expand(b, h, n, m)
    heads = []
    for head in range(h):
        k = head * g // h
        scores = query[:, head].double() @ key[:, k].double().mT / math.sqrt(d)
        weights = (scores - scores.amax(dim=-1, keepdim=True)).exp() * mask[:, head]
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-300)
        heads.append(weights @ value[:, k].double())
    return torch.stack(heads, dim=1)


def random_heads(draw: Draw, b: int, h: int, g: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random queries, keys and values of shape (b, h, 5, 6), (b, g, 7, 6) and (b, g, 7, 8)."""
    return draw.normal(b, h, 5, 6), draw.normal(b, g, 7, 6), draw.normal(b, g, 7, 8)


class TestGroupedQueryAttention:
    exercise = "grouped_query_attention"

    @weight(1)
    def test_one_head_each(self, student, seed):
        """With as many key heads as query heads, the result equals that of ordinary attention with scores divided by √d."""
        inputs = random_heads(Draw(seed), 2, 3, 3)
        near(
            attention_like(student.grouped_query_attention, False)(*inputs), grouped_oracle(*inputs)
        )

    @weight(2)
    def test_groups(self, student, seed):
        """Consecutive query heads share a key head: query heads k·h/g to (k+1)·h/g − 1 use key head k."""
        query, key, _ = random_heads(Draw(seed), 2, 27, 9)
        value = torch.arange(9.0).view(1, 9, 1, 1).expand(2, 9, 7, 2)
        seen = shaped(
            attention_like(student.grouped_query_attention, False)(query, key, value), (2, 27, 5, 2)
        )
        for head in range(27):
            read, correct = seen[0, head, 0, 0].item(), head // 3
            assert abs(read - correct) < 1e-3, (
                f"with h = 27 and g = 9, query head {head} should use key head {correct}. "
                f"If all values of key head k are k, the output of query head {head} should be {correct}; yours is {read:.3g}"
            )

    @weight(2)
    def test_values(self, student, seed):
        """Each query head attends to the keys and values of its group."""
        draw = Draw(seed)
        for h, g in ((6, 2), (6, 3)):
            inputs = [draw.strided(x) for x in random_heads(draw, 3, h, g)]
            what = f"the result for h = {h} and g = {g}"
            near(student.grouped_query_attention(*inputs), grouped_oracle(*inputs), what)

    @weight(1)
    def test_one_key_head(self, student, seed):
        """If there is only one key head (g = 1), all query heads share it."""
        for b, h in ((2, 4), (1, 1)):
            inputs = random_heads(Draw(seed), b, h, 1)
            what = f"the result for b = {b}, h = {h} and g = 1"
            near(
                attention_like(student.grouped_query_attention, False)(*inputs),
                grouped_oracle(*inputs),
                what,
            )

    @weight(1.5)
    def test_masks(self, student, seed):
        """The mask is True where attention is allowed, and broadcasts over the batch, the heads and the queries."""
        draw = Draw(seed)
        inputs = random_heads(draw, 3, 6, 2)
        for shape in ((5, 7), (3, 1, 1, 7), (3, 1, 5, 7), (1, 1, 5, 7)):
            mask = draw.mask(*shape)
            mask[..., 2] = True
            seen = attention_like(student.grouped_query_attention, False)(*inputs, mask)
            near(seen, grouped_oracle(*inputs, mask), f"the result for a mask of shape {shape}")

    @weight(1)
    def test_mask_by_head(self, student, seed):
        """The mask may differ between query heads, even within a group."""
        draw = Draw(seed)
        inputs = random_heads(draw, 2, 6, 2)
        for shape in ((2, 6, 5, 7), (1, 6, 1, 7), (6, 5, 7)):
            mask = draw.mask(*shape)
            mask[..., 4] = True
            seen = attention_like(student.grouped_query_attention, False)(*inputs, mask=mask)
            near(seen, grouped_oracle(*inputs, mask), f"the result for a mask of shape {shape}")

    @weight(1.5)
    def test_nothing_allowed(self, student, seed):
        """A query that cannot attend to any key gets an output of 0, and all gradients are finite."""
        draw = Draw(seed)
        query, key, value = (x.requires_grad_() for x in random_heads(draw, 3, 4, 2))
        by_head, by_sentence = draw.mask(3, 4, 5, 7), draw.mask(3, 1, 1, 7)
        by_head[..., 3] = True
        by_head[1, 2, 4] = by_head[0, :, 0] = False
        by_sentence[..., 1] = True
        by_sentence[2] = False
        for mask in (by_head, by_sentence):
            expected = grouped_oracle(query, key, value, mask)
            seen = shaped(
                attention_like(student.grouped_query_attention, False)(query, key, value, mask),
                (3, 4, 5, 8),
            )
            empty = ~mask.any(dim=-1).expand(3, 4, 5)
            near(seen[empty], expected[empty], "the output of queries with no allowed key")
            near(seen, expected)
            inputs = {"query": query, "key": key, "value": value}
            gradients(seen, inputs, draw.normal(3, 4, 5, 8))
        # A mask without any True is not the same as no mask.
        seen = attention_like(student.grouped_query_attention, False)(
            query, key, value, torch.zeros(5, 7).bool()
        )
        what = "the output with a mask that is False everywhere"
        near(seen, torch.zeros(3, 4, 5, 8), what)

    @weight(1)
    def test_not_a_multiple(self, student, seed):
        """A ValueError is raised if the number of query heads h is not a multiple of the number of key heads g."""
        for h, g in ((5, 2), (4, 3), (2, 4)):
            with value_error("h", "g", "query", "key", when=f"h is {h} and g is {g}"):
                student.grouped_query_attention(*random_heads(Draw(seed), 2, h, g))

    @weight(1)
    def test_gradient(self, student, seed):
        """The gradient of a key head is summed over the query heads that share it."""
        draw = Draw(seed)
        inputs = [x.requires_grad_() for x in random_heads(draw, 2, 6, 2)]
        by_name = dict(zip(("query", "key", "value"), inputs, strict=True))
        upstream = draw.normal(2, 6, 5, 8)
        result = shaped(
            attention_like(student.grouped_query_attention, False)(*inputs), (2, 6, 5, 8)
        )
        seen = gradients(result, by_name, upstream)
        correct = gradients(grouped_oracle(*inputs), by_name, upstream)
        for name in by_name:
            near(seen[name], correct[name], f"the gradient of {name}")
        # These scores are so far apart that most weights underflow to 0.
        query, key, value = (x.detach().requires_grad_() for x in (300 * inputs[0], *inputs[1:]))
        result = shaped(
            attention_like(student.grouped_query_attention, False)(query, key, value), (2, 6, 5, 8)
        )
        gradients(result, {"query": query, "key": key, "value": value}, upstream)

    @weight(1)
    def test_dtype_and_device(self, student, seed):
        """The result has the dtype and device of the inputs, which are not modified."""
        draw = Draw(seed)
        inputs, mask = [x.double() for x in random_heads(draw, 2, 4, 2)], draw.mask(5, 7)
        mask[2] = False

        def call(*inputs: Tensor) -> Tensor:
            return attention_like(student.grouped_query_attention, False)(*inputs, mask)

        check_dtypes(call, grouped_oracle(*inputs, mask), *inputs)
        unchanged(student)
        mask = torch.zeros(5, 7, dtype=torch.bool)
        seen = attention_like(student.grouped_query_attention, False)(*inputs, mask)
        what = "the result in float64 with a mask that is False everywhere"
        shaped(seen, (2, 4, 5, 8), torch.float64, what)
        check_device(student.grouped_query_attention, (2, 4, 5, 8), *inputs)
