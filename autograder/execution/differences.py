"""A wrong tensor beside the right one, cut to a matrix that a page can draw."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.marks.model import Value, Values

LARGEST = 12  # rows and columns that are drawn


class Differs(AssertionError):
    """A check found other values than it should; the message says it in words, `values` shows it."""

    def __init__(self, message: str, values: Values | None) -> None:
        super().__init__(message)
        self.values = values


def drawn(what: str, seen: Tensor, expected: Tensor, right: Tensor, where: int) -> Values | None:
    """The matrix around the element `where` (of the flat tensor); all have one shape, and None is drawn of one without axes.

    A tensor of one axis is drawn as one row, of more than two as the matrix that holds the element.
    """
    if not seen.dim():
        return None
    place = [int(i) for i in torch.unravel_index(torch.tensor(where), seen.shape)]
    matrix, row, column = place[:-2], [0, *place][-2], place[-1]
    parts = [
        tensor.detach()[tuple(matrix)].reshape(-1, seen.shape[-1])
        for tensor in (seen, expected, right)
    ]
    top, left = (
        max(0, min(at - LARGEST // 2, size - LARGEST))
        for at, size in zip((row, column), parts[0].shape, strict=True)
    )
    came, due, held = (
        [[_value(x) for x in line] for line in part.tolist()]
        for part in (part[top : top + LARGEST, left : left + LARGEST] for part in parts)
    )
    return Values(
        what=what,
        shape=list(seen.shape),
        matrix=matrix,
        top=top,
        left=left,
        seen=came,
        expected=due,
        wrong=[[not cell for cell in line] for line in held],
    )


def _value(x: bool | int | float) -> Value:
    if isinstance(x, float) and not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return x
