"""Draw random inputs and check results in hidden graders. `graders/README.md` documents every function here."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from autograder.execution.differences import Mismatch, crop
from autograder.execution.student import Opaque, RemoteModule, RemoteObject, Student, StudentError
from autograder.in_notebook.error_advice import names_any

TestT = TypeVar("TestT", bound=Callable[..., None])
T = TypeVar("T")

TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
ARRAY_TOLERANCE = {
    "float64": 1e-9,
    "complex128": 1e-9,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float16": 2e-2,
}
Array = np.ndarray[Any, Any]


def weight(share: float) -> Callable[[TestT], TestT]:
    """Set the relative weight of a test within its exercise. The default is 1; a test with weight 0 does not run."""

    def mark(test: TestT) -> TestT:
        test.weight = share  # type: ignore[attr-defined]
        return test

    return mark


class Draw:
    """A source of random inputs that depend only on the seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        """Draw from a normal distribution with mean 0 and standard deviation `scale`."""
        values = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return (values * scale).to(dtype)

    def uniform(
        self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw uniformly from [`low`, `high`)."""
        values = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return (low + (high - low) * values).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw integers from [`low`, `high`)."""
        return torch.randint(low, high, shape, generator=self._generator)

    def mask(self, *shape: int, p: float = 0.5) -> Tensor:
        """Draw a boolean mask whose elements are True with probability `p`."""
        return torch.rand(shape, generator=self._generator) < p

    def strided(self, tensor: Tensor) -> Tensor:
        """Return a non-contiguous copy of a tensor, with its axes reversed in memory."""
        order = tuple(range(tensor.dim()))[::-1]
        return tensor.permute(order).contiguous().permute(order)

    def choice(self, items: Sequence[T]) -> T:
        """Return a randomly chosen item."""
        return items[int(self.integers(0, len(items), 1))]


def shaped(
    seen: Any, shape: Sequence[int], dtype: torch.dtype | None = None, what: str = "the result"
) -> Tensor:
    """Check that `seen` is a tensor with the given shape (and dtype, if given), and return the tensor."""
    tensor = _tensor(seen, what)
    _check_shape(tuple(tensor.shape), tuple(shape), what)
    if dtype is not None and tensor.dtype != dtype:
        want, have = (str(d).removeprefix("torch.") for d in (dtype, tensor.dtype))
        raise Mismatch(f"{what} should have dtype {want}; yours has dtype {have}")
    return tensor


def array(seen: Any, shape: Sequence[int], dtype: Any = None, what: str = "the result") -> Array:
    """Check that `seen` is a NumPy array with the given shape (and dtype, if given), and return the array."""
    if not isinstance(seen, np.ndarray):
        raise Mismatch(
            f"{what} should be an array", f"{what} should be an array, but it is {describe(seen)}"
        )
    _check_shape(seen.shape, tuple(shape), what)
    if dtype is not None and seen.dtype != np.dtype(dtype):
        raise Mismatch(f"{what} should have dtype {np.dtype(dtype)}; yours has dtype {seen.dtype}")
    return seen


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found != expected:
        safe = f"{what} should have shape {expected}"
        message = f"{safe}; yours has shape {found}"
        # A shape with other sizes could encode values.
        is_safe = len(found) <= len(expected) + 1 and {*found} <= {1, *expected}
        raise Mismatch(message if is_safe else f"{safe}; yours has a different shape", message)


def _tensor(seen: Any, what: str) -> Tensor:
    if not isinstance(seen, Tensor):
        safe = f"{what} should be a tensor"
        raise Mismatch(safe, f"{safe}, but it is {describe(seen)}")
    return seen


def close(
    seen: Any,
    expected: Any,
    what: str = "the result",
    atol: float | None = None,
    rtol: float | None = None,
    dtype: Any = None,
) -> Any:
    """Check that a tensor, array, number, string, set, list or dict is close to `expected`, and return it.

    A tensor or array must have the given `dtype` (default: the dtype of `expected`) and equal `expected` within the dtype's
    tolerance. Numbers are compared with the tolerance of float32, because code may compute them from float32 tensors.
    Strings and ints must match exactly. A float may differ from an expected int by a rounding error, unless `rtol` is
    given. An infinity matches only the same infinity, and NaN matches only NaN.
    """
    if _is_array(expected):
        return _close_arrays(seen, expected, what, atol, rtol, dtype)
    if not isinstance(expected, Tensor):
        compare(seen, expected, what, _within(atol, rtol), partial(close, atol=atol, rtol=rtol))
        return seen
    dtype = dtype or expected.dtype
    found = shaped(seen, expected.shape, dtype, what)
    atol = TOLERANCE.get(dtype, 0.0) if atol is None else atol
    rtol = TOLERANCE.get(dtype, 0.0) if rtol is None else rtol
    have, want = found.detach().double(), expected.detach().double()
    difference = (have - want).abs()
    limit = atol + rtol * want.abs()
    # float64 does not represent every int64, so a limit of 0 requires equality in the original dtype.
    right = _same(found, expected) | (want.isfinite() & (difference <= limit) & (limit > 0))
    if not bool(right.all()):
        # Subtracting an infinity from itself gives NaN.
        worst = torch.where(right, -1.0, difference.nan_to_num(nan=math.inf))
        where = int(worst.argmax())
        raise _mismatch(what, found, expected, right, where)
    return found


def _is_array(expected: Any) -> bool:
    """Return whether `expected` is an array with axes. Without axes, it counts as a number, as in NumPy."""
    return isinstance(expected, np.ndarray) and expected.ndim > 0


def _close_arrays(
    seen: Any, expected: Array, what: str, atol: float | None, rtol: float | None, dtype: Any
) -> Array:
    found = array(seen, expected.shape, expected.dtype if dtype is None else dtype, what)
    default = ARRAY_TOLERANCE.get(found.dtype.name, 0.0)
    atol, rtol = (default if given is None else given for given in (atol, rtol))
    right = (found == expected) | ((found != found) & (expected != expected))
    if atol or rtol:  # otherwise, int64 numbers must not be rounded
        right |= np.isclose(found, expected, rtol, atol, equal_nan=True)
    if not right.all():
        with np.errstate(all="ignore"):
            difference = np.nan_to_num(np.abs(found * 1.0 - expected), nan=math.inf)
        where = int(np.where(right, -1.0, difference).argmax())
        tensors = _as_tensor(found), _as_tensor(expected), _as_tensor(right)
        raise _mismatch(what, *tensors, where)
    return found


def _as_tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, order="C"))


def signs_like(seen: Any, expected: Array, axis: int | None = None) -> Array:
    """Return `expected` with the sign that `seen` has, to compare vectors that are determined only up to sign.

    With `axis`, the vectors along this axis get a sign each: `close(q, signs_like(q, expected, axis=0))` compares columns.
    """
    if not isinstance(seen, np.ndarray) or seen.shape != expected.shape:
        return expected  # `close` reports the difference
    products = np.sum(seen.conj() * expected, axis, keepdims=True)
    return np.where(products.real < 0, -expected, expected)


def rows_like(seen: Any, expected: Array) -> Array:
    """Return `expected` with its rows in the order of the nearest rows of `seen`, to compare them up to a permutation.

    `close(centers, rows_like(centers, expected))` accepts the centers of clusters in any order.
    """
    if not isinstance(seen, np.ndarray) or seen.shape != expected.shape:
        return expected  # `close` reports the difference
    left, order = list(range(len(expected))), []
    for row in seen:
        with np.errstate(all="ignore"):
            distances = np.abs(expected[left] * 1.0 - row).reshape(len(left), -1).max(1, initial=0)
        order.append(left.pop(int(np.nan_to_num(distances, nan=math.inf).argmin())))
    return expected[order]


def _same(seen: Tensor, expected: Tensor) -> Tensor:
    """Return a mask of the positions at which two tensors are equal or both NaN."""
    if seen.is_floating_point() or expected.is_floating_point():
        # Otherwise, PyTorch would round an int64 tensor to the other tensor's dtype.
        seen, expected = seen.double(), expected.double()
    return (seen == expected) | (seen.isnan() & expected.isnan())


def _within(atol: float | None, rtol: float | None) -> Callable[[float, float], bool]:
    """Return a function that checks whether two numbers are equal within the tolerance. Ints must match exactly."""
    default = TOLERANCE[torch.float32]

    def within(seen: Any, expected: Any) -> bool:
        if isinstance(seen, complex) or isinstance(expected, complex):
            parts = (seen.real, expected.real), (seen.imag, expected.imag)
            return all(within(*part) for part in parts)
        if seen == expected or (seen != seen and expected != expected):
            return True
        if isinstance(seen, int) and isinstance(expected, int):
            return False
        if not (math.isfinite(seen) and math.isfinite(expected)):
            return False
        slack = abs(expected) * (default if rtol is None else rtol)
        if rtol is None and isinstance(expected, int):
            slack = min(slack, 0.4)  # A float that is closer to a different int is wrong.
        limit = slack + (default if atol is None else atol)
        # Subtracting a float from an int would round the int, whereas fractions are exact.
        return bool(abs(Fraction(seen) - Fraction(expected)) <= limit)

    return within


def equal(seen: Any, expected: Any, what: str = "the result") -> Any:
    """Check that a tensor, array, number, string, set, list or dict equals `expected`, and return it.

    Shapes and dtypes must match.
    """
    if _is_array(expected):
        return _close_arrays(seen, expected, what, 0, 0, None)
    if not isinstance(expected, Tensor):
        compare(seen, expected, what, _within(0, 0), equal)
        return seen
    found = shaped(seen, expected.shape, expected.dtype, what)
    wrong = ~_same(found, expected)
    if bool(wrong.any()):
        where = int(wrong.reshape(-1).to(torch.uint8).argmax())
        raise _mismatch(what, found, expected, ~wrong, where)
    return found


def finite(seen: Any, what: str = "the result") -> Any:
    """Check that a tensor or array contains neither NaN nor infinity, and return it."""
    tensor = _as_tensor(seen) if isinstance(seen, np.ndarray) else _tensor(seen, what)
    bad = ~tensor.isfinite()
    if bool(bad.any()):
        where = int(bad.reshape(-1).to(torch.uint8).argmax())
        safe = f"{what} should be finite, but it is {_format_value(tensor, where)}"
        raise Mismatch(safe, f"{safe}{_format_position(where, tensor.shape)}")
    return seen


def gradient(result: Any, x: Tensor, upstream: Tensor, what: str = "the input") -> Tensor:
    """Return the gradient of `result` with respect to `x`, after checking that it exists and is finite."""
    seen = shaped(result, upstream.shape, upstream.dtype)
    assert seen.requires_grad, "no gradient flows through the result"
    (found,) = torch.autograd.grad((seen * upstream).sum(), x, allow_unused=True)
    if found is None:
        raise Mismatch(f"no gradient reaches {what}")
    finite(found, f"the gradient of {what}")
    return found


def leaf_gradient(leaf: Tensor, what: str) -> Tensor:
    """Return the gradient of a leaf tensor after a backward pass, after checking that it exists and is finite."""
    if leaf.grad is None:
        raise Mismatch(f"no gradient reaches {what}")
    finite(leaf.grad, f"the gradient of {what}")
    return leaf.grad


def backpropagate(result: Any, upstream: Tensor, what: str = "the result") -> None:
    """Run a backward pass from `result` with the gradient `upstream`. First check the result's shape and `requires_grad`.

    `result.backward(upstream)` would import sympy, which takes longer than most tests.
    """
    seen = shaped(result, upstream.shape, what=what)
    if not seen.requires_grad:
        raise Mismatch(f"no gradient flows through {what}")
    (seen * upstream.to(seen.dtype)).sum().backward()


def on_meta(call: Callable[[], Any], shape: Sequence[int], what: str = "the result") -> None:
    """Check that `call`, whose inputs are on the device `meta`, returns a tensor on that device. `meta` stands in for a GPU."""
    try:
        seen = shaped(call(), shape, what=what)
    except StudentError as error:
        # Code that reads tensor values cannot run on `meta`, but may still be correct.
        if error.meta_read:
            return
        raise
    if not seen.is_meta:
        raise Mismatch(
            f"{what} should be on the device `meta`, which stands in for a GPU, but it is on `{seen.device}`. "
            "Did you create a tensor without `device=`?"
        )


def pair(seen: Any, *names: str) -> list[Any]:
    """Check that the result is a list or tuple with one part per name. Return the parts."""
    parts = " and ".join(names)
    if not isinstance(seen, list):
        safe = f"the result should be a pair of {parts}"
        raise Mismatch(safe, f"{safe}, but it is {describe(seen)}")
    if len(seen) != len(names):
        safe = f"the result should consist of {parts}"
        raise Mismatch(safe, f"{safe}, but it has {len(seen)} parts")
    return seen


def unchanged(student: Student, besides: Sequence[str] | None = None) -> None:
    """Check that the last call changed none of its arguments in place.

    After a call with dropout, use `besides` to exclude arguments that the code changes even without dropout. A separate
    test covers those changes.
    """
    names = [f"`{name}`" for name in student.changed if name not in (besides or ())]
    noun = "argument" if len(names) == 1 else "arguments"
    hint = "" if besides is None else "; is dropout applied in place?"
    if names:
        message = f"the call changed its {noun} {' and '.join(names)} in place{hint}"
        raise Mismatch(f"the call changed its {noun} in place{hint}", message)


def redrawn(seen: Any, earlier: Tensor) -> None:
    """Check that `earlier` and `seen`, the results of two training-mode calls with the same arguments, differ."""
    assert not torch.equal(shaped(seen, earlier.shape).to(earlier.dtype), earlier), (
        "in training mode, every call should drop different values, but two calls give the same result; "
        "does your code set a seed?"
    )


@contextmanager
def value_error(*names: str, when: str) -> Iterator[None]:
    """Check that the code in the `with` block raises a ValueError whose message names one of these arguments.

    The message may also name the quantity in words. See `error_advice.names_any`.
    """
    error: StudentError | None = None
    try:
        yield
    except StudentError as raised:
        error = raised
    if error is None:
        raise Mismatch(f"a ValueError should be raised when {when}, but nothing was raised")
    shown = f"{error.type}: {error.text[:300]}".rstrip(": ")
    if "ValueError" not in error.bases:
        safe = f"a ValueError should be raised when {when}"
        safe += f"; got: {error.type}" if hasattr(builtins, error.type) else ""
        raise Mismatch(safe, f"a ValueError should be raised when {when}; got: {shown}")
    if not names_any(error.text, names):
        wanted = " or ".join(f"`{name}`" for name in names)
        safe = f"the ValueError raised when {when} should mention {wanted}, in code or in words"
        raise Mismatch(safe, f"{safe}; got: {shown}")


def _format_value(tensor: Tensor, where: int, digits: int = 6) -> str:
    """Return the element at a flat index, formatted with this number of significant digits."""
    value = tensor.detach().reshape(-1)[where].item()
    return f"{value:.{digits}g}" if isinstance(value, float | complex) else str(value)


def _format_position(where: int, shape: Sequence[int]) -> str:
    """Return a phrase such as ` at position (0, 2)` for a flat index into a tensor of this shape."""
    if not shape:
        return ""
    position: list[int] = []
    for size in reversed(shape):
        position.append(where % size)
        where //= size
    shown = tuple(reversed(position)) if len(shape) > 1 else position[0]
    return f" at position {shown}"


def _mismatch(what: str, seen: Tensor, expected: Tensor, right: Tensor, where: int) -> Mismatch:
    count, wrong = seen.numel(), int((~right).sum())
    values = "the value is wrong: " if count == 1 else f"{wrong} of {count} values is wrong: "
    if wrong > 1:
        values = f"{wrong} of {count} values are wrong; for example, "
    have, want = _format_value(seen, where), _format_value(expected, where)
    if have == want:
        have, want = _format_value(seen, where, 17), _format_value(expected, where, 17)
    message = f"{what}: {values}{have} instead of {want}{_format_position(where, seen.shape)}"
    number = "all values are" if wrong == count else "some values are"
    safe = f"{what}: {'the value is' if count == 1 else number} wrong"
    safe += f"; for example, {have}" * (have in ("nan", "inf", "-inf"))
    return Mismatch(safe, message, crop(what, seen, expected, right, where))


SHOWN = 60  # maximum length of a value in a message
PLAIN = (bool, int, float, str)
Close = Callable[[float, float], bool]


def compare(seen: Any, expected: Any, what: str, close: Close, tensors: Callable[..., Any]) -> None:
    """Check that a value equals the expected one, and raise AssertionError if it does not.

    Ints, floats, complex numbers and 0-dimensional tensors and arrays count as numbers, but bools do not. Tuples count as
    lists. `close` compares two numbers, and `tensors(seen, expected, what)` checks a tensor in a list or dict.
    """
    if isinstance(expected, Tensor) or _is_array(expected):
        tensors(seen, expected, what)
        return
    if isinstance(expected, np.generic | np.ndarray):
        expected = expected.item()
    if isinstance(seen, Tensor) and not seen.dim() and not seen.is_meta and _kind(expected):
        seen = seen.item()
    if isinstance(seen, np.ndarray) and not seen.ndim:
        seen = seen.item()
    kind = _kind(expected)
    if not kind:
        raise TypeError(
            f"the expected value is {describe(expected)}; "
            "it must be a tensor, array, bool, number, string, bytes, set, list, tuple, dict or None"
        )
    if _kind(seen) != kind:
        raise Mismatch(
            f"{what} should be {kind}", f"{what} should be {kind}, but it is {describe(seen)}"
        )
    if isinstance(expected, dict):
        missing = [key for key in expected if key not in seen]
        extra = [key for key in seen if key not in expected]
        if missing:
            raise Mismatch(f"{what} lacks the key {_show(missing[0])}")
        if extra:
            message = f"{what} has the key {_show(extra[0])}, which it should not have"
            raise Mismatch(f"{what} has a key that it should not have", message)
        for key, value in expected.items():
            compare(seen[key], value, f"{what} at {_show(key)}", close, tensors)
    elif isinstance(expected, set | frozenset):
        if missing := sorted(expected - seen, key=repr):
            raise Mismatch(f"{what} lacks {_show(missing[0])}")
        if extra := sorted(seen - expected, key=repr):
            message = f"{what} contains {_show(extra[0])}, which it should not contain"
            raise Mismatch(f"{what} contains something that it should not contain", message)
    elif isinstance(expected, list | tuple):
        if len(seen) != len(expected):
            safe = f"{what} should have length {len(expected)}"
            raise Mismatch(safe, f"{safe}; yours has length {len(seen)}")
        for position, (one, other) in enumerate(zip(seen, expected, strict=True)):
            compare(one, other, f"{what} at position {position}", close, tensors)
    elif not (close(seen, expected) if kind == "a number" else seen == expected):
        have, want = _show_both(seen, expected)
        raise Mismatch(f"{what}: the value is wrong", f"{what}: {have} instead of {want}")


def describe(seen: Any) -> str:
    """Return a noun phrase that describes a value of the wrong type."""
    if isinstance(seen, Opaque):
        return seen.type
    if isinstance(seen, RemoteModule):
        return "an nn.Module"
    if isinstance(seen, RemoteObject):
        return f"a {seen.type}"
    if seen is None:
        return "None (is a `return` missing?)"
    if isinstance(seen, list):
        return f"a list or tuple of length {len(seen)}"
    if isinstance(seen, PLAIN):
        return f"the {type(seen).__name__} {_show(seen)}"
    if isinstance(seen, Tensor):
        return f"a tensor of shape {tuple(seen.shape)}"
    if isinstance(seen, np.ndarray):
        return f"an array of shape {seen.shape}"
    if isinstance(seen, complex | bytes):
        return f"the {type(seen).__name__} {_show(seen)}"
    return f"a {type(seen).__name__}"


def _kind(value: Any) -> str:
    """Return a noun phrase for the value's type, or "" if values of this type cannot be compared."""
    kinds = {
        bool: "True or False",
        int: "a number",
        float: "a number",
        complex: "a number",
        bytes: "a bytes object",
        set: "a set",
        frozenset: "a set",
        str: "a string",
        list: "a list",
        tuple: "a list",
        dict: "a dict",
        type(None): "None",
    }
    return kinds.get(type(value), "")


def _show_both(seen: Any, expected: Any) -> tuple[str, str]:
    """Format two different values so that the texts differ. Numbers get six digits, or more if needed."""
    if isinstance(seen, float | complex) or isinstance(expected, float | complex):
        have, want = f"{seen:.6g}", f"{expected:.6g}"
        return (have, want) if have != want else (repr(seen), repr(expected))
    if not isinstance(seen, str) or max(len(seen), len(expected)) <= SHOWN:
        return _show(seen), _show(expected)
    pairs = enumerate(zip(seen, expected, strict=False))
    first = next((n for n, (a, b) in pairs if a != b), min(len(seen), len(expected)))
    start = max(0, first - SHOWN // 2)
    return _show(seen, start), _show(expected, start)


def _show(value: Any, start: int = 0) -> str:
    """Return the repr of a value, truncated if it is long."""
    if not isinstance(value, str):
        shown = repr(value)
        return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    part = value[start : start + SHOWN]
    return f"{'…' * bool(start)}{part!r}{'…' * (len(value) > start + SHOWN)}"
