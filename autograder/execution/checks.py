"""What hidden graders are written with: inputs to draw and checks that speak to the student. See README.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from autograder.execution.differences import Differs, drawn
from autograder.execution.student import Opaque, Student, StudentError, Thing

Test = TypeVar("Test", bound=Callable[..., None])
T = TypeVar("T")

TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


def weight(share: float) -> Callable[[Test], Test]:
    """Give a test another share of its exercise's points than 1; with 0 it does not run, and is worth nothing."""

    def mark(test: Test) -> Test:
        test.weight = share  # type: ignore[attr-defined]
        return test

    return mark


class Draw:
    """Inputs from one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        """Normally distributed values."""
        drawn = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return (drawn * scale).to(dtype)

    def uniform(
        self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Values between `low` and `high`."""
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return (low + (high - low) * drawn).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from `low` to `high` − 1."""
        return torch.randint(low, high, shape, generator=self._generator)

    def mask(self, *shape: int, p: float = 0.5) -> Tensor:
        """True with probability `p`."""
        return torch.rand(shape, generator=self._generator) < p

    def strided(self, tensor: Tensor) -> Tensor:
        """The same values, lying in memory with the axes in reverse order."""
        order = tuple(range(tensor.dim()))[::-1]
        return tensor.permute(order).contiguous().permute(order)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.integers(0, len(items), 1))]


def shaped(
    seen: Any, shape: Sequence[int], dtype: torch.dtype | None = None, what: str = "the result"
) -> Tensor:
    """Check that `seen` is a tensor of this shape (and dtype), and give it back."""
    assert isinstance(seen, Tensor), f"{what} should be a tensor, it is {_said(seen)}"
    expected, found = tuple(shape), tuple(seen.shape)
    assert found == expected, f"{what} should have the shape {expected}, yours has {found}"
    if dtype is not None:
        want, have = (str(d).removeprefix("torch.") for d in (dtype, seen.dtype))
        assert want == have, f"{what} should have the dtype {want}, yours has {have}"
    return seen


def close(
    seen: Any,
    expected: Tensor,
    what: str = "the result",
    atol: float | None = None,
    rtol: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Check shape, dtype and values within the tolerance of the dtype: `dtype`, where the oracle is finer than that."""
    dtype = dtype or expected.dtype
    found = shaped(seen, expected.shape, dtype, what)
    atol = TOLERANCE[dtype] if atol is None else atol
    rtol = TOLERANCE[dtype] if rtol is None else rtol
    have, want = found.detach().double(), expected.detach().double()
    difference = (have - want).abs()
    # Equal infinities differ by NaN, and are equal.
    right = (have == want) | (difference <= atol + rtol * want.abs())
    if not bool(right.all()):
        badness = torch.where(right, -1.0, difference.nan_to_num(nan=math.inf))
        where = int(badness.argmax())
        raise _differs(what, found, expected, right, where)
    return found


def equal(seen: Any, expected: Tensor, what: str = "the result") -> Tensor:
    """Check shape, dtype and every value."""
    found = shaped(seen, expected.shape, expected.dtype, what)
    wrong = found != expected
    if bool(wrong.any()):
        where = int(wrong.reshape(-1).to(torch.uint8).argmax())
        raise _differs(what, found, expected, ~wrong, where)
    return found


def finite(seen: Any, what: str = "the result") -> Tensor:
    """Check that there is no NaN and no infinity."""
    assert isinstance(seen, Tensor), f"{what} should be a tensor, it is {_said(seen)}"
    bad = ~seen.isfinite()
    if bool(bad.any()):
        where = int(bad.reshape(-1).to(torch.uint8).argmax())
        place = _place(where, seen.shape)
        raise AssertionError(f"{what} should be finite, but is {_number(seen, where)}{place}")
    return seen


def gradient(result: Any, x: Tensor, upstream: Tensor, what: str = "the input") -> Tensor:
    """The gradient of x for what comes from above, which has to be there and finite."""
    seen = shaped(result, upstream.shape, upstream.dtype)
    assert seen.requires_grad, "no gradient flows through the result"
    (found,) = torch.autograd.grad(seen, x, upstream, allow_unused=True)
    assert found is not None, f"no gradient reaches {what}"
    return finite(found, f"the gradient of {what}")


def on_meta(call: Callable[[], Any], shape: Sequence[int], what: str = "the result") -> None:
    """Check that what is made of tensors on `meta`, which stands in for a GPU, is there, too."""
    try:
        seen = shaped(call(), shape, what=what)
    except StudentError as error:
        # Code that reads values cannot run there, and is no mistake.
        if error.meta_read:
            return
        raise
    assert seen.is_meta, (
        f"{what} should be on the device `meta`, which stands in for a GPU, it is on {seen.device}: "
        "is a tensor made without `device=`?"
    )


def pair(seen: Any, *names: str) -> list[Any]:
    """Check that there are as many parts as names, and give them back."""
    parts = " and ".join(names)
    assert isinstance(seen, list), f"the result should be a pair of {parts}, it is {_said(seen)}"
    assert len(seen) == len(names), f"the result should be {parts}, yours has {len(seen)} parts"
    return seen


def pair_on_meta(call: Callable[[], Any], output: Sequence[int], weights: Sequence[int]) -> None:
    """Check that output and weights of attention are both where its inputs are."""
    parts: list[Any] = []

    def first() -> Any:
        parts.extend(pair(call(), "output", "weights"))
        return parts[0]

    on_meta(first, output, "output")
    if parts:
        on_meta(lambda: parts[1], weights, "weights")


def unchanged(student: Student, besides: Sequence[str] | None = None) -> None:
    """Check that the last call changed none of its arguments.

    After a call with dropout, `besides` are those that it changes without dropout as well; another test is about them.
    """
    names = " and ".join(f"`{name}`" for name in student.changed if name not in (besides or ()))
    hint = "" if besides is None else "; does dropout work in place?"
    assert not names, f"the call changed its argument {names} in place{hint}"


@contextmanager
def value_error(*names: str, when: str) -> Iterator[None]:
    """Check that the calls inside raise a ValueError whose message names one of `names`."""
    error: StudentError | None = None
    try:
        yield
    except StudentError as raised:
        error = raised
    if error is None:
        raise AssertionError(f"when {when}, a ValueError should be raised; nothing was")
    said = f"{error.type}: {error.text[:300]}".rstrip(": ")
    assert "ValueError" in error.bases, f"when {when}, a ValueError should be raised; seen: {said}"
    named = any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", error.text) for n in names)
    wanted = " or ".join(f"`{name}`" for name in names)
    assert named, f"the ValueError raised when {when} should name {wanted}; seen: {said}"


def _said(seen: Any) -> str:
    if isinstance(seen, Opaque):
        return seen.type
    if isinstance(seen, Thing):
        return f"a {seen.type}"
    if seen is None:
        return "None (is a return missing?)"
    if isinstance(seen, list):
        return f"a list or tuple of {len(seen)}"
    return f"a {type(seen).__name__}"


def _number(tensor: Tensor, where: int) -> str:
    value = tensor.detach().reshape(-1)[where].item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _place(where: int, shape: Sequence[int]) -> str:
    if not shape:
        return ""
    position: list[int] = []
    for size in reversed(shape):
        position.append(where % size)
        where //= size
    return f" at position {tuple(reversed(position))}" if len(shape) > 1 else f" at {position[0]}"


def _differs(what: str, seen: Tensor, expected: Tensor, right: Tensor, where: int) -> Differs:
    count, wrong = seen.numel(), int((~right).sum())
    values = "the value is wrong: " if count == 1 else f"{wrong} of {count} values is wrong: "
    if wrong > 1:
        values = f"{wrong} of {count} values are wrong; for example "
    have, want = _number(seen, where), _number(expected, where)
    message = f"{what}: {values}{have} instead of {want}{_place(where, seen.shape)}"
    return Differs(message, drawn(what, seen, expected, right, where))
