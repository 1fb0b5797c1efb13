"""Compare numbers, strings, lists and dicts with the expected values. `checks.close` and `checks.equal` call `compare`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from autograder.execution.differences import Mismatch
from autograder.execution.student import Opaque, RemoteModule, RemoteObject

SHOWN = 60  # maximum length of a value in a message
PLAIN = (bool, int, float, str)
Close = Callable[[float, float], bool]


def compare(seen: Any, expected: Any, what: str, close: Close, tensors: Callable[..., Any]) -> None:
    """Check that a value equals the expected one, and raise AssertionError if it does not.

    Ints, floats and 0-dimensional tensors count as numbers, but bools do not. Tuples count as lists. `close` compares
    two numbers, and `tensors(seen, expected, what)` checks a tensor in a list or dict.
    """
    if isinstance(expected, Tensor):
        tensors(seen, expected, what)
        return
    if isinstance(seen, Tensor) and not seen.dim() and not seen.is_meta and _kind(expected):
        seen = seen.item()
    kind = _kind(expected)
    if not kind:
        raise TypeError(
            f"the expected value is {describe(expected)}; it must be a tensor, bool, number, string, list, tuple, dict or None"
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
    return f"a {type(seen).__name__}"


def _kind(value: Any) -> str:
    """Return a noun phrase for the value's type, or "" if values of this type cannot be compared."""
    kinds = {
        bool: "True or False",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        tuple: "a list",
        dict: "a dict",
        type(None): "None",
    }
    return kinds.get(type(value), "")


def _show_both(seen: Any, expected: Any) -> tuple[str, str]:
    """Format two different values so that the texts differ. Numbers get six digits, or more if needed."""
    if isinstance(seen, float) or isinstance(expected, float):
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
