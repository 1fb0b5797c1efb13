"""Hidden graders of the chapter positional_encoding."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from autograder.execution.checks import Draw, close, on_meta, shaped, unchanged, value_error, weight

# What the stub allows a table in float32, up to position 10,000.
ATOL = 2e-3


def encoding(positions: Iterable[int], d_model: int) -> Tensor:
    """The encoding of these positions, entry by entry in float64."""
    rows = []
    for position in positions:
        angles = [position / 10000 ** (2 * (c // 2) / d_model) for c in range(d_model)]
        waves = (math.sin, math.cos)
        rows.append([waves[c % 2](angle) for c, angle in enumerate(angles)])
    return torch.tensor(rows, dtype=torch.float64)


def near(seen: Tensor, expected: Tensor, what: str = "the result") -> None:
    """Compare values only; the dtype has a test of its own, so that a wrong one costs once."""
    close(shaped(seen, expected.shape, what=what).double(), expected, what, atol=ATOL)


class TestSinusoidalEncoding:
    exercise = "sinusoidal_encoding"

    @weight(1)
    def test_position_zero(self, student):
        """All angles of position 0 are 0, so its row is 0, 1, 0, 1, …: even columns are sines."""
        table = shaped(student.sinusoidal_encoding(7, 10), (7, 10))
        near(table[0], encoding([0], 10)[0], "row 0")

    @weight(1)
    def test_first_pair(self, student):
        """The angle of the first pair is the position itself, for positions 0, 1, 2, …."""
        table = shaped(student.sinusoidal_encoding(23, 6), (23, 6))
        near(table[:, :2], encoding(range(23), 6)[:, :2], "columns 0 and 1 for d_model 6")

    @weight(1.5)
    def test_frequencies(self, student, seed):
        """Every sine and cosine of the formula occurs in some column."""
        d_model = Draw(seed).choice([8, 10, 12])
        seen = shaped(student.sinusoidal_encoding(300, d_model), (300, d_model)).double()
        expected = encoding(range(300), d_model)
        for column in range(d_model):
            distance = (seen - expected[:, column : column + 1]).abs().amax(dim=0)
            assert (distance < ATOL).any(), (
                f"for d_model {d_model} the right column {column} is nowhere in your table"
            )

    @weight(2.5)
    def test_every_column(self, student, seed):
        """Each column has its own wave: pair by pair, the sine before the cosine."""
        d_model = Draw(seed).choice([14, 16, 18])
        table = student.sinusoidal_encoding(150, d_model)
        near(table, encoding(range(150), d_model), f"the table for d_model {d_model}")
        near(student.sinusoidal_encoding(3, 1030), encoding(range(3), 1030), "for d_model 1030")

    @weight(2)
    def test_odd_width(self, student):
        """An odd d_model ends with a sine, and d itself (not d ± 1) stands in the exponent."""
        near(student.sinusoidal_encoding(40, 7), encoding(range(40), 7), "the table for d_model 7")
        near(student.sinusoidal_encoding(5, 1), encoding(range(5), 1), "the table for d_model 1")

    @weight(1)
    def test_far_positions(self, student, seed):
        """The table is exact up to position 10,000."""
        draw = Draw(seed)
        table = shaped(student.sinusoidal_encoding(10_001, 6), (10_001, 6))
        for position in [10_000, *draw.integers(5_000, 10_000, 30).tolist()]:
            near(table[position], encoding([position], 6)[0], f"the encoding of {position}")

    @weight(0.5)
    def test_no_positions(self, student):
        """A table of length 0 is empty but has its columns; one of length 1 is position 0."""
        shaped(student.sinusoidal_encoding(0, 5), (0, 5), what="the table of length 0")
        near(student.sinusoidal_encoding(1, 4), encoding([0], 4), "the table of length 1")

    @weight(0.5)
    def test_dtype(self, student):
        """The table is float32."""
        shaped(student.sinusoidal_encoding(3, 4), (3, 4), torch.float32)


def shift(student, offset: int, d_model: int) -> Tensor:
    """The student's matrix, in float64."""
    return shaped(student.shift_matrix(offset, d_model), (d_model, d_model)).double()


def moves(student, offset: int, d_model: int, positions: Iterable[int]) -> None:
    """Check M · PE(p) = PE(p + offset) for these positions."""
    matrix = shift(student, offset, d_model)
    for position in positions:
        moved = matrix @ encoding([position], d_model)[0]
        target = encoding([position + offset], d_model)[0]
        near(moved, target, f"M · PE({position}) for offset {offset} and d_model {d_model}")


class TestShiftMatrix:
    exercise = "shift_matrix"

    @weight(2)
    def test_one_pair(self, student, seed):
        """With d_model 2, M turns (sin p, cos p) into (sin(p + k), cos(p + k))."""
        moves(student, Draw(seed).choice([2, 4, 5, 7]), 2, range(6))

    @weight(3)
    def test_every_pair(self, student, seed):
        """With several pairs M turns each by its own angle, and no pair moves another."""
        draw = Draw(seed)
        offset = draw.choice([11, 13, 17])
        moves(student, offset, draw.choice([8, 10, 12]), [0, 1, 2, 5, 30, 77, 150, 400])
        moves(student, offset, 130, [6])

    @weight(1)
    def test_negative_offset(self, student, seed):
        """A negative offset goes back."""
        moves(student, -Draw(seed).choice([4, 5, 7]), 6, [8, 9, 15, 40])

    @weight(1)
    def test_far_positions(self, student, seed):
        """One matrix serves all positions, up to 10,000, and offsets may be large."""
        draw = Draw(seed)
        offset = int(draw.integers(3_000, 6_000, 1))
        starts = draw.integers(0, 10_000 - offset, 5).tolist()
        moves(student, offset, 8, [*starts, 10_000 - offset])
        moves(student, -offset, 8, [start + offset for start in starts])

    @weight(1)
    def test_one_after_the_other(self, student, seed):
        """Shifts add up: going on by a and then by b is going on by a + b, and M is a rotation."""
        first, second = Draw(seed).integers(1, 30, 2).tolist()
        a, b = shift(student, first, 10), shift(student, second, 10)
        both = shift(student, first + second, 10)
        near(b @ a, both, f"the product of the matrices for {first} and {second}")
        near(a @ a.T, torch.eye(10, dtype=torch.float64), "M times its transpose")

    @weight(0.5)
    def test_offset_zero(self, student):
        """Offset 0 changes nothing."""
        near(shift(student, 0, 8), torch.eye(8, dtype=torch.float64), "M for offset 0")

    @weight(1)
    def test_odd_width(self, student):
        """An odd d_model is refused with a ValueError that names it, for offset 0 too."""
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
        """Position p of every sequence gets row p of the table."""
        x = Draw(seed).normal(4, 9, 6)
        module = student.PositionalEncoding(6, max_length=31).eval()
        near(module(x), x + encoding(range(9), 6))

    @weight(1)
    def test_every_sequence_alike(self, student, seed):
        """What is added depends on the position (second axis), not on the sequence (first)."""
        x = Draw(seed).normal(5, 3, 8)
        module = student.PositionalEncoding(8, max_length=40).eval()
        added = shaped(module(x), x.shape).double() - x
        near(added, added[:1].expand(5, 3, 8), "what was added to each sequence")
        apart = (added[0, 1:] - added[0, :-1]).abs().amax(dim=-1)
        assert (apart > 0.1).all(), "the same was added to two neighbouring positions"

    @weight(0.5)
    def test_odd_width(self, student, seed):
        """An odd d_model works, too, also 1."""
        draw = Draw(seed)
        for b, n, d in ((2, 11, 5), (1, 1, 1)):
            x, what = draw.normal(b, n, d), f"the result for d_model {d}"
            near(student.PositionalEncoding(d).eval()(x), x + encoding(range(n), d), what)

    @weight(0.5)
    def test_longest(self, student, seed):
        """A sequence of exactly max_length positions is no error, with the default of 5000 and with more."""
        x = Draw(seed).normal(3, 13, 4)
        module = student.PositionalEncoding(4, max_length=13).eval()
        near(module(x), x + encoding(range(13), 4))
        result = shaped(student.PositionalEncoding(2).eval()(torch.zeros(1, 5000, 2)), (1, 5000, 2))
        near(result[0, 4999], encoding([4999], 2)[0], "the encoding of position 4999")
        module = student.PositionalEncoding(2, max_length=5200).eval()
        result = shaped(module(torch.zeros(1, 5200, 2)), (1, 5200, 2))
        near(result[0, 5199], encoding([5199], 2)[0], "with max_length 5200, position 5199")

    @weight(1)
    def test_too_long(self, student, seed):
        """A sequence of more than max_length positions is refused with a ValueError."""
        draw = Draw(seed)
        module = student.PositionalEncoding(6, max_length=8).eval()
        for n in (9, 20):
            with value_error("max_length", "n", "x", when=f"n is {n} and max_length is 8"):
                module(draw.normal(2, n, 6))
        module = student.PositionalEncoding(6, 8, 0.0).eval()
        shaped(module(draw.normal(9, 8, 6)), (9, 8, 6), what="the result for n = max_length = 8")
        module = student.PositionalEncoding(2).eval()
        with value_error("max_length", "n", "x", when="n is 5001 and max_length its default"):
            module(torch.zeros(1, 5001, 2))

    @weight(1.5)
    def test_dtype_of_the_input(self, student, seed):
        """The result has the dtype of x, whatever the dtype of the table."""
        x = Draw(seed).normal(2, 7, 6, dtype=torch.float64)
        module = student.PositionalEncoding(6, max_length=20).eval()
        expected = x + encoding(range(7), 6)
        close(module(x.float()), expected, "for float32", atol=ATOL, dtype=torch.float32)
        close(module(x), expected, "for float64", atol=ATOL)
        for dtype in (torch.float16, torch.bfloat16):
            close(module(x.to(dtype)), expected, f"the result for {str(dtype)[6:]}", dtype=dtype)

    @weight(1)
    def test_moved_module(self, student, seed):
        """After `.to(dtype)` the module works on inputs of that dtype, and still on others."""
        draw = Draw(seed)
        x = draw.normal(3, 5, 8, dtype=torch.float64)
        expected = x + encoding(range(5), 8)
        module = student.PositionalEncoding(8, max_length=20).eval().to(torch.float64)
        close(module(x), expected, "float64 after .to(float64)", atol=ATOL)
        seen = module(x.float())
        close(seen, expected, "float32 after .to(float64)", atol=ATOL, dtype=torch.float32)
        module = student.PositionalEncoding(8, max_length=20).eval().to(torch.float16)
        close(module(x.half()), expected, "float16 after .to(float16)", dtype=torch.float16)
        # Far positions, which bfloat16 itself can not tell from their neighbours.
        x, dtype = draw.normal(2, 300, 6, dtype=torch.float64), torch.bfloat16
        module = student.PositionalEncoding(6, max_length=300).eval().to(dtype)
        expected = x + encoding(range(300), 6)
        close(module(x.to(dtype)), expected, "bfloat16 after .to(bfloat16)", dtype=dtype)

    @weight(0.5)
    def test_moved_to_another_device(self, student):
        """After a move to another device the module works on inputs that are there."""
        module = student.PositionalEncoding(6, max_length=20).eval()
        x = torch.zeros(2, 3, 6, device="meta")
        on_meta(lambda: module.to_empty(device="meta")(x), (2, 3, 6))

    @weight(1)
    def test_nothing_to_learn(self, student, seed):
        """There are no parameters and the state_dict is empty, before a call and after it."""
        module = student.PositionalEncoding(6, max_length=20, dropout=0.1)
        for when in ("", " after a call"):
            found = sorted(module.weights())
            assert not found, f"there should be no parameters{when}, but there are {found}"
            assert module.state() == {}, f"the state_dict should be empty{when}, and is not"
            module(Draw(seed).normal(2, 3, 6))

    @weight(1)
    def test_evaluation(self, student, seed):
        """In evaluation mode nothing is dropped, and neither is it in training with dropout 0."""
        x = Draw(seed).normal(3, 10, 12)
        expected = x + encoding(range(10), 12)
        module = student.PositionalEncoding(12, max_length=30, dropout=0.6).eval()
        near(module(x), expected, "the result in evaluation mode")
        module = student.PositionalEncoding(12, max_length=30).train()
        near(module(x), expected, "the result in training mode with dropout 0")

    @weight(1)
    def test_training(self, student, seed):
        """In training, dropout acts on the sum: a number becomes 0 or is divided by 1 − dropout."""
        x = Draw(seed).normal(7, 20, 16)
        module = student.PositionalEncoding(16, max_length=30, dropout=0.4)
        module.eval()(x)
        changed = student.changed
        seen = shaped(module.train()(x), x.shape).double()
        unchanged(student, besides=changed)
        total = x + encoding(range(20), 16)
        dropped = seen.abs() <= ATOL
        share = dropped.double().mean().item()
        assert 0.1 < share < 0.8, (
            f"with dropout 0.4, {share:.0%} of the numbers became 0 in train()"
        )
        near(torch.where(dropped, total / 0.6, seen), total / 0.6, "what dropout kept")

    @weight(0.5)
    def test_gradient(self, student, seed):
        """The gradient passes through to x."""
        draw = Draw(seed)
        x = draw.normal(2, 6, 4).requires_grad_()
        result = shaped(student.PositionalEncoding(4, max_length=9).eval()(x), x.shape)
        assert result.requires_grad, "no gradient flows through the result"
        upstream = draw.normal(2, 6, 4)
        (gradient,) = torch.autograd.grad(result, x, upstream.to(result.dtype), allow_unused=True)
        assert gradient is not None, "no gradient reaches x"
        close(gradient, upstream, "the gradient of x")

    @weight(0.5)
    def test_keeps_the_input(self, student, seed):
        """The input itself is not changed, and no call leaves anything to the next, which may be longer."""
        draw = Draw(seed)
        x, longer = draw.strided(draw.normal(3, 4, 6)), draw.normal(2, 9, 6)
        module = student.PositionalEncoding(6, max_length=11).eval()
        with torch.no_grad():
            near(module(x), x + encoding(range(4), 6), "the first result")
        unchanged(student)
        near(module(x), x + encoding(range(4), 6), "the second result for the same x")
        near(module(longer), longer + encoding(range(9), 6), "the result for a longer x after it")
