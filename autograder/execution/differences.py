"""Describe how a result differs from the expected one. Entry points: `Mismatch`, `without_results` and `crop`.

`crop` cuts a wrong tensor and the expected tensor to small matrices for a feedback page.
"""

from __future__ import annotations

import ast
import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from autograder.marks.model import Value, Values

LARGEST = 12  # maximum number of rows and of columns in the crop


class Mismatch(AssertionError):
    """Raised when a result is wrong.

    `safe` is the message without anything that the student's code returned. If a tensor has wrong values, `values` is
    the cropped part to show the student.
    """

    def __init__(self, safe: str, message: str = "", values: Values | None = None) -> None:
        super().__init__(message or safe)
        self.safe = safe
        self.values = values


def without_results(error: AssertionError) -> str:
    """Return an assertion's message without anything that the student's code returned.

    Of the message of an `assert` statement, only the fixed text remains, and interpolated text that is also a string in
    the same file, such as "training" or "evaluation". Everything else becomes "…".
    """
    if isinstance(error, Mismatch):
        return error.safe
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    file = _asserts_in(frame.f_code.co_filename)
    message = file.messages.get(line)
    return _keep_fixed(str(error), [*_fixed_parts(message)], file.strings) if message else ""


@dataclass(frozen=True)
class _Asserts:
    """The messages of a file's `assert` statements by line, and all strings in the file."""

    messages: dict[int, ast.expr]
    strings: frozenset[str]


@cache
def _asserts_in(file: str) -> _Asserts:
    messages: dict[int, ast.expr] = {}
    strings: set[str] = set()
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assert) and node.msg is not None:
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            messages |= dict.fromkeys(lines, node.msg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    return _Asserts(messages, frozenset(strings))


def _fixed_parts(message: ast.expr) -> Iterator[str]:
    """Yield the fixed parts of a message, and "" for each interpolated part."""
    match message:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            for part in parts:
                yield from _fixed_parts(part)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from _fixed_parts(left)
            yield from _fixed_parts(right)
        case _:
            yield ""


def _keep_fixed(message: str, parts: list[str], strings: frozenset[str]) -> str:
    """Replace interpolated text with "…", unless it is one of the given strings."""
    shown, rest = "", message
    for fixed in [*filter(None, parts), ""]:
        interpolated, found, rest = rest.partition(fixed) if fixed else (rest, "", "")
        if interpolated:
            shown += interpolated if interpolated in strings else "…"
        shown += found
    return shown


def crop(what: str, seen: Tensor, expected: Tensor, right: Tensor, where: int) -> Values | None:
    """Crop `seen` and `expected` to a small matrix around an element. Return None for 0-dimensional tensors.

    A one-dimensional tensor becomes a single row. For a tensor with more than two axes, the result shows the matrix
    that contains the element. `where` is the element's flat index, and `right` is True where `seen` is correct.
    """
    if not seen.dim():
        return None
    # torch.unravel_index imports sympy, which takes longer than most tests.
    place = [int(i) for i in np.unravel_index(where, seen.shape)]
    matrix, row, column = place[:-2], [0, *place][-2], place[-1]
    parts = [
        tensor.detach()[tuple(matrix)].reshape(-1, seen.shape[-1])
        for tensor in (seen, expected, right)
    ]
    top, left = (
        max(0, min(at - LARGEST // 2, size - LARGEST))
        for at, size in zip((row, column), parts[0].shape, strict=True)
    )
    seen_rows, expected_rows, right_rows = (
        [[_value(x) for x in row_values] for row_values in part.tolist()]
        for part in (part[top : top + LARGEST, left : left + LARGEST] for part in parts)
    )
    return Values(
        what=what,
        shape=list(seen.shape),
        matrix=matrix,
        top=top,
        left=left,
        seen=seen_rows,
        expected=expected_rows,
        wrong=[[not cell for cell in row_values] for row_values in right_rows],
    )


def _value(x: bool | int | float | complex) -> Value:
    if isinstance(x, complex):
        return f"{x:.6g}"
    if isinstance(x, float) and not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return x
