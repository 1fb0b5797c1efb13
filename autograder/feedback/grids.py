"""Display a wrong tensor and the expected one side by side, as coloured tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.marks.model import Value, Values

SHADES = 4  # number of colours on each side of 0
LISTED = 6  # maximum number of differing positions listed in the text


@dataclass(frozen=True)
class GridCell:
    """A table cell: its text, its CSS class (see exercise.css) and whether it has a frame."""

    text: str
    shade: str
    wrong: bool


@dataclass(frozen=True)
class Grid:
    """Two matrices of cells. `crop` describes the visible part of the tensor; `differences` lists the positions that differ."""

    what: str
    crop: str
    differences: str
    boolean: bool
    columns: range
    first_row: int
    actual: list[list[GridCell]]
    expected: list[list[GridCell]]


def make_grid(values: Values) -> Grid | None:
    """Return two matrices coloured on the same scale, with their differences, or None if colours would show no pattern."""
    all_values = [x for row in (*values.seen, *values.expected) for x in row]
    boolean = all(isinstance(x, bool) for x in all_values)
    all_wrong = all(wrong for row in values.wrong for wrong in row)
    if len(all_values) == 2 or (all_wrong and not boolean):
        return None
    largest = max((abs(x) for x in all_values if not isinstance(x, str)), default=0.0)
    positions = [
        (values.top + r, values.left + c)
        for r, row in enumerate(values.wrong)
        for c, wrong in enumerate(row)
        if wrong
    ]
    actual, expected = (
        [
            [
                GridCell(_format(x), _shade(x, largest), wrong and is_actual)
                for x, wrong in zip(row, flags, strict=True)
            ]
            for row, flags in zip(matrix, values.wrong, strict=True)
        ]
        for matrix, is_actual in ((values.seen, True), (values.expected, False))
    )
    return Grid(
        what=values.what,
        crop=_describe_crop(values),
        differences=_describe_positions(positions, len(values.shape) == 1),
        boolean=boolean,
        columns=range(values.left, values.left + len(actual[0])),
        first_row=values.top,
        actual=actual,
        expected=expected,
    )


def _format(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(int(value)).replace("-", "−")
    fits = value == 0 or 0.01 <= abs(value) < 1000
    text = f"{value:.3g}" if fits else f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return text.replace("-", "−")


def _shade(value: Value, largest: float) -> str:
    if isinstance(value, str):
        return "odd"
    step = math.ceil(SHADES * (abs(value) / largest)) if largest else 0
    return f"{'minus' if value < 0 else 'plus'}{step}" if step else "zero"


def _describe_crop(values: Values) -> str:
    """Describe which part of the tensor is shown, or return "" if the whole tensor is shown."""
    parts = []
    if values.matrix:
        indices = ", ".join(str(i) for i in values.matrix)
        parts.append(f"slice [{indices}] of a tensor of shape {tuple(values.shape)}")
    rows, columns = [1, *values.shape][-2:]
    height, width = len(values.seen), len(values.seen[0])
    if height < rows:
        parts.append(f"rows {values.top} to {values.top + height - 1} of {rows}")
    if width < columns:
        parts.append(f"columns {values.left} to {values.left + width - 1} of {columns}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def _describe_positions(positions: Sequence[tuple[int, int]], one_row: bool) -> str:
    listed = [f"{c}" if one_row else f"({r}, {c})" for r, c in positions[:LISTED]]
    more = f" and {len(positions) - LISTED} more" if len(positions) > LISTED else ""
    where = f"position{'s' * (len(positions) > 1)}" if one_row else "(row, column)"
    differ = "differs" if len(positions) == 1 else "differ"
    return f"{len(positions)} of the values shown {differ}, at {where} {', '.join(listed)}{more}"
