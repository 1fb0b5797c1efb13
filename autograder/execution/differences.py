"""Crop a wrong tensor and the expected tensor to small matrices for a feedback page. Entry points: `Mismatch` and `crop`."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from autograder.marks.model import Value, Values

LARGEST = 12  # maximum number of rows and of columns in the crop


class Mismatch(AssertionError):
    """Raised when a tensor has wrong values. `values` is the cropped part to show the student, or None."""

    def __init__(self, message: str, values: Values | None) -> None:
        super().__init__(message)
        self.values = values


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


def _value(x: bool | int | float) -> Value:
    if isinstance(x, float) and not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return x
