"""Hidden tests for the positional encoding chapter."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    close,
    finite,
    on_meta,
    redrawn,
    shaped,
    unchanged,
    value_error,
    weight,
)

# The stub requires a float32 table to be this accurate up to position 10,000.
ATOL = 2e-3


def oracle(positions: Iterable[int], d_model: int) -> Tensor:
    """Return the encodings of the given positions, computed entry by entry in float64."""
    rows = []
    for position in positions:
        angles = [position / 10000 ** (2 * (c // 2) / d_model) for c in range(d_model)]
        waves = (math.sin, math.cos)
        rows.append([waves[c % 2](angle) for c, angle in enumerate(angles)])
    return torch.tensor(rows, dtype=torch.float64)


def check_independent(dropped: Tensor, axes: Iterable[str]) -> None:
    """Check that dropout does not drop the same entries for all indices along an axis."""
    for axis, name in enumerate(axes):
        # With independent draws, about 2p(1 − p) of the entries differ from their neighbours: 48% for p = 0.4.
        differing = (dropped != dropped.roll(1, axis)).double().mean().item()
        assert differing > 0.1, (
            f"each value should be dropped independently of the others; your dropout treats all {name} alike"
        )


def compare(actual: Tensor, expected: Tensor, what: str = "the result") -> None:
    """Compare the shape and values of two tensors. A separate test checks the dtype, so a wrong dtype is penalised only once."""
    close(shaped(actual, expected.shape, what=what).double(), expected, what, atol=ATOL)


class TestSinusoidalEncoding:
    exercise = "sinusoidal_encoding"

    @weight(1)
    def test_position_zero(self, student):
        """At position 0, all angles are 0, so row 0 is 0, 1, 0, 1, …, with sines in the even columns."""
        table = shaped(student.sinusoidal_encoding(7, 10), (7, 10))
        compare(table[0], oracle([0], 10)[0], "row 0")

    @weight(1)
    def test_first_pair(self, student):
        """In the first pair of columns, the angle is the position itself: 0, 1, 2, …"""
        table = shaped(student.sinusoidal_encoding(23, 6), (23, 6))
        compare(
            table[:, :2], oracle(range(23), 6)[:, :2], "columns 0 and 1 of the table for d_model=6"
        )

    @weight(1.5)
    def test_frequencies(self, student):
        """Every sine and cosine in the formula appears in some column of the table."""
        d_model = 10
        actual = shaped(student.sinusoidal_encoding(300, d_model), (300, d_model)).double()
        expected = oracle(range(300), d_model)
        for column in range(d_model):
            distance = (actual - expected[:, column : column + 1]).abs().amax(dim=0)
            assert (distance < ATOL).any(), (
                f"for d_model={d_model}, no column of your table has the values expected in column {column}"
            )

    @weight(2.5)
    def test_every_column(self, student):
        """Each pair of columns has its own frequency, with the sine before the cosine."""
        compare(
            student.sinusoidal_encoding(150, 14), oracle(range(150), 14), "the table for d_model=14"
        )
        compare(
            student.sinusoidal_encoding(3, 1030),
            oracle(range(3), 1030),
            "the table for d_model=1030",
        )

    @weight(2)
    def test_odd_width(self, student):
        """If d_model is odd, the last column is a sine, and the denominator in the exponent is d_model, not d_model ± 1."""
        compare(student.sinusoidal_encoding(40, 7), oracle(range(40), 7), "the table for d_model=7")
        compare(student.sinusoidal_encoding(5, 1), oracle(range(5), 1), "the table for d_model=1")

    @weight(1)
    def test_far_positions(self, student):
        """The table is accurate up to position 10,000."""
        table = shaped(student.sinusoidal_encoding(10_001, 6), (10_001, 6))
        for position in range(5_200, 10_001, 160):
            compare(
                table[position], oracle([position], 6)[0], f"the encoding of position {position}"
            )

    @weight(0.5)
    def test_no_positions(self, student):
        """A table of length 0 has shape (0, d_model); a table of length 1 has only the row for position 0."""
        shaped(student.sinusoidal_encoding(0, 5), (0, 5), what="the table of length 0")
        compare(student.sinusoidal_encoding(1, 4), oracle([0], 4), "the table of length 1")

    @weight(0.5)
    def test_dtype(self, student):
        """The table is float32."""
        shaped(student.sinusoidal_encoding(3, 4), (3, 4), torch.float32)


def student_matrix(student, offset: int, d_model: int) -> Tensor:
    """Return the student's shift matrix, converted to float64."""
    return shaped(student.shift_matrix(offset, d_model), (d_model, d_model)).double()


def check_shift(student, offset: int, d_model: int, positions: Iterable[int]) -> None:
    """Check that the student's shift matrix M satisfies M · PE(p) = PE(p + offset) for the given positions p."""
    matrix = student_matrix(student, offset, d_model)
    for position in positions:
        moved = matrix @ oracle([position], d_model)[0]
        target = oracle([position + offset], d_model)[0]
        compare(moved, target, f"M · PE({position}) for offset={offset} and d_model={d_model}")


class TestShiftMatrix:
    exercise = "shift_matrix"

    @weight(2)
    def test_one_pair(self, student):
        """With d_model = 2 and offset k, the shift matrix maps (sin p, cos p) to (sin(p + k), cos(p + k))."""
        check_shift(student, 5, 2, range(6))

    @weight(3)
    def test_every_pair(self, student):
        """If d_model is larger than 2, the shift matrix rotates each pair of columns by its own angle and does not mix pairs."""
        check_shift(student, 13, 10, [0, 1, 2, 5, 30, 77, 150, 400])
        check_shift(student, 13, 130, [6])

    @weight(1)
    def test_negative_offset(self, student):
        """With a negative offset, the shift matrix maps encodings to those of earlier positions."""
        check_shift(student, -7, 6, [8, 9, 15, 40])

    @weight(1)
    def test_far_positions(self, student):
        """The same matrix works for all positions up to 10,000, and offsets may be large."""
        offset, starts = 4567, [0, 811, 2345, 3456, 5077]
        check_shift(student, offset, 8, [*starts, 10_000 - offset])
        check_shift(student, -offset, 8, [start + offset for start in starts])

    @weight(1)
    def test_one_after_the_other(self, student):
        """Shifting by a and then by b is the same as shifting by a + b, and every shift matrix is a rotation."""
        first, second = 4, 19
        a, b = student_matrix(student, first, 10), student_matrix(student, second, 10)
        both = student_matrix(student, first + second, 10)
        compare(b @ a, both, f"the product of the matrices for offsets {first} and {second}")
        compare(a @ a.T, torch.eye(10, dtype=torch.float64), "the product of M and its transpose")

    @weight(0.5)
    def test_offset_zero(self, student):
        """With offset 0, the result is the identity matrix."""
        compare(student_matrix(student, 0, 8), torch.eye(8, dtype=torch.float64), "M for offset=0")

    @weight(1)
    def test_odd_width(self, student):
        """An odd d_model raises a ValueError that mentions d_model, even for offset 0."""
        for offset, d_model in ((2, 7), (2, 1), (0, 5)):
            with value_error("d_model", when=f"d_model is {d_model} and offset is {offset}"):
                student.shift_matrix(offset, d_model)

    @weight(0.5)
    def test_dtype(self, student):
        """The matrix is float32."""
        shaped(student.shift_matrix(3, 4), (4, 4), torch.float32)


class TestPositionalEncoding:
    exercise = "PositionalEncoding"

    @weight(2)
    def test_adds_the_encoding(self, student, seed):
        """Row p of the table is added to position p of every sequence."""
        x = Draw(seed).normal(4, 9, 6)
        module = student.PositionalEncoding(6, max_length=31).eval()
        compare(module(x), x + oracle(range(9), 6))

    @weight(1)
    def test_every_sequence_alike(self, student, seed):
        """The added encoding depends on the position (second axis), not on the sequence (first axis)."""
        x = Draw(seed).normal(5, 3, 8)
        module = student.PositionalEncoding(8, max_length=40).eval()
        added = finite(shaped(module(x), x.shape)).double() - x
        compare(added, added[:1].expand(5, 3, 8), "the encoding added to each sequence")
        difference = (added[0, 1:] - added[0, :-1]).abs().amax(dim=-1)
        assert (difference > 0.1).all(), (
            "in your result, two neighbouring positions get nearly the same encoding"
        )

    @weight(0.5)
    def test_odd_width(self, student, seed):
        """The module works for an odd d_model, including 1."""
        draw = Draw(seed)
        for b, n, d in ((2, 11, 5), (1, 1, 1)):
            x, what = draw.normal(b, n, d), f"the result for d_model={d}"
            compare(student.PositionalEncoding(d).eval()(x), x + oracle(range(n), d), what)

    @weight(0.5)
    def test_longest(self, student, seed):
        """A sequence of exactly max_length positions is accepted, for the default of 5000 and for other values."""
        x = Draw(seed).normal(3, 13, 4)
        module = student.PositionalEncoding(4, max_length=13).eval()
        compare(module(x), x + oracle(range(13), 4))
        result = shaped(student.PositionalEncoding(2).eval()(torch.zeros(1, 5000, 2)), (1, 5000, 2))
        compare(result[0, 4999], oracle([4999], 2)[0], "the encoding of position 4999")
        module = student.PositionalEncoding(2, max_length=5200).eval()
        result = shaped(module(torch.zeros(1, 5200, 2)), (1, 5200, 2))
        compare(
            result[0, 5199],
            oracle([5199], 2)[0],
            "the encoding of position 5199 with max_length=5200",
        )

    @weight(1)
    def test_too_long(self, student, seed):
        """A sequence of more than max_length positions raises a ValueError."""
        draw = Draw(seed)
        module = student.PositionalEncoding(6, max_length=8).eval()
        for n in (9, 20):
            with value_error("max_length", "n", "x", when=f"n is {n} and max_length is 8"):
                module(draw.normal(2, n, 6))
        module = student.PositionalEncoding(6, 8, 0.0).eval()
        shaped(module(draw.normal(9, 8, 6)), (9, 8, 6), what="the result for n=8 and max_length=8")
        module = student.PositionalEncoding(2).eval()
        with value_error(
            "max_length", "n", "x", when="n is 5001 and max_length has its default value"
        ):
            module(torch.zeros(1, 5001, 2))

    @weight(1.5)
    def test_dtype_of_the_input(self, student, seed):
        """The result has the dtype of x, regardless of the dtype of the table."""
        x = Draw(seed).normal(2, 7, 6, dtype=torch.float64)
        module = student.PositionalEncoding(6, max_length=20).eval()
        expected = x + oracle(range(7), 6)
        # Half precision comes first: a call must not make later calls less accurate.
        for dtype in (torch.float16, torch.bfloat16):
            close(
                module(x.to(dtype)),
                expected,
                f"the result for {str(dtype)[6:]} inputs",
                dtype=dtype,
            )
        close(
            module(x.float()),
            expected,
            "the result for float32 inputs",
            atol=ATOL,
            dtype=torch.float32,
        )
        close(module(x), expected, "the result for float64 inputs", atol=ATOL)

    @weight(1)
    def test_moved_module(self, student, seed):
        """After `.to(dtype)`, the module works with inputs of that dtype and with inputs of other dtypes."""
        draw = Draw(seed)
        x = draw.normal(3, 5, 8, dtype=torch.float64)
        expected = x + oracle(range(5), 8)
        module = student.PositionalEncoding(8, max_length=20).eval().to(torch.float64)
        close(module(x), expected, "the float64 result after .to(torch.float64)", atol=ATOL)
        actual = module(x.float())
        close(
            actual,
            expected,
            "the float32 result after .to(torch.float64)",
            atol=ATOL,
            dtype=torch.float32,
        )
        module = student.PositionalEncoding(8, max_length=20).eval().to(torch.float16)
        close(
            module(x.half()),
            expected,
            "the float16 result after .to(torch.float16)",
            dtype=torch.float16,
        )
        # bfloat16 cannot represent all positions near 300, so the table must not be computed in bfloat16.
        x, dtype = draw.normal(2, 300, 6, dtype=torch.float64), torch.bfloat16
        module = student.PositionalEncoding(6, max_length=300).eval().to(dtype)
        expected = x + oracle(range(300), 6)
        close(
            module(x.to(dtype)),
            expected,
            "the bfloat16 result after .to(torch.bfloat16)",
            dtype=dtype,
        )

    @weight(0.5)
    def test_moved_to_another_device(self, student):
        """After `.to(device)`, the module works with inputs on that device."""
        module = student.PositionalEncoding(6, max_length=20).eval()
        x = torch.zeros(2, 3, 6, device="meta")
        on_meta(lambda: module.to("meta")(x), (2, 3, 6))

    @weight(1)
    def test_nothing_to_learn(self, student, seed):
        """The module has no parameters and an empty state_dict, before and after a call."""
        module = student.PositionalEncoding(6, max_length=20, dropout=0.1)
        for when in ("", " after a call"):
            found = sorted(module.weights())
            assert not found, f"the module should have no parameters{when}; yours has {found}"
            assert module.state() == {}, f"the state_dict should be empty{when}; yours is not"
            module(Draw(seed).normal(2, 3, 6))

    @weight(1)
    def test_evaluation(self, student, seed):
        """Dropout is off in evaluation mode, and also in training mode if `dropout` is not given."""
        x = Draw(seed).normal(3, 10, 12)
        expected = x + oracle(range(10), 12)
        module = student.PositionalEncoding(12, max_length=30, dropout=0.6).eval()
        compare(module(x), expected, "the result in evaluation mode")
        module = student.PositionalEncoding(12, max_length=30).train()
        compare(module(x), expected, "the result in training mode without a dropout argument")

    @weight(1)
    def test_training(self, student, seed):
        """In training mode, dropout acts on x plus the encoding: each value is independently set to 0 or divided by 1 − p."""
        x = Draw(seed).normal(7, 20, 16)
        module = student.PositionalEncoding(16, max_length=30, dropout=0.4)
        module.eval()(x)
        changed = student.changed
        actual = shaped(module.train()(x), x.shape).double()
        unchanged(student, besides=changed)
        total = x + oracle(range(20), 16)
        dropped = actual.abs() <= ATOL
        share = dropped.double().mean().item()
        assert 0.1 < share < 0.8, (
            "with dropout=0.4, about 40% of the values should be 0 in training mode; "
            f"{share:.0%} of yours are"
        )
        check_independent(dropped, ("sequences", "positions", "features"))
        redrawn(module(x), actual)
        compare(
            torch.where(dropped, total / 0.6, actual), total / 0.6, "the values that dropout kept"
        )

    @weight(0.5)
    def test_keeps_the_input(self, student, seed):
        """The input is not modified. Neither other modules nor earlier calls, even with shorter inputs, affect results."""
        draw = Draw(seed)
        x, longer = draw.strided(draw.normal(3, 4, 6)), draw.normal(2, 9, 6)
        module = student.PositionalEncoding(6, max_length=11).eval()
        with torch.no_grad():
            compare(module(x), x + oracle(range(4), 6), "the result of the first call")
        unchanged(student)
        # A second module must not replace the table of the first.
        student.PositionalEncoding(8, max_length=3)
        compare(module(x), x + oracle(range(4), 6), "the result of a second call with the same x")
        compare(
            module(longer),
            longer + oracle(range(9), 6),
            "the result of a later call with a longer x",
        )

    @weight(0.5)
    def test_gradient(self, student, seed):
        """The gradient of the result is passed to x unchanged."""
        draw = Draw(seed)
        x = draw.normal(2, 6, 4).requires_grad_()
        result = shaped(student.PositionalEncoding(4, max_length=9).eval()(x), x.shape)
        assert result.requires_grad, "no gradient flows through the result"
        upstream = draw.normal(2, 6, 4)
        (gradient,) = torch.autograd.grad((result * upstream).sum(), x, allow_unused=True)
        assert gradient is not None, "no gradient reaches x"
        close(gradient, upstream, "the gradient of x")
