"""A small matrix that came out beside the one that was due, as two coloured tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.marks.model import Value, Values

SHADES = 4  # on each side of 0
LISTED = 6  # places that are named in the text


@dataclass(frozen=True)
class GridCell:
    text: str
    shade: str  # a class of exercise.css
    wrong: bool


@dataclass(frozen=True)
class Grid:
    """What a template draws; `places` says in words which values differ."""

    what: str
    part: str
    places: str
    boolean: bool
    columns: range
    first_row: int
    came: list[list[GridCell]]
    due: list[list[GridCell]]


def grid(values: Values) -> Grid | None:
    """Colour both matrices by one scale, and say in words where they differ; None where there is no pattern to see."""
    all_values = [x for row in (*values.seen, *values.expected) for x in row]
    boolean = all(isinstance(x, bool) for x in all_values)
    all_wrong = all(bad for row in values.wrong for bad in row)
    if len(all_values) == 2 or (all_wrong and not boolean):
        return None
    largest = max((abs(x) for x in all_values if not isinstance(x, str)), default=0.0)
    wrong = [
        (values.top + r, values.left + c)
        for r, row in enumerate(values.wrong)
        for c, bad in enumerate(row)
        if bad
    ]
    came, due = (
        [
            [
                GridCell(_text(x), _shade(x, largest), bad and is_seen)
                for x, bad in zip(row, marks, strict=True)
            ]
            for row, marks in zip(matrix, values.wrong, strict=True)
        ]
        for matrix, is_seen in ((values.seen, True), (values.expected, False))
    )
    return Grid(
        what=values.what,
        part=_part(values),
        places=_places(wrong, len(values.shape) == 1),
        boolean=boolean,
        columns=range(values.left, values.left + len(came[0])),
        first_row=values.top,
        came=came,
        due=due,
    )


def _text(value: Value) -> str:
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
    step = math.ceil(SHADES * abs(value) / largest) if largest else 0
    return f"{'minus' if value < 0 else 'plus'}{step}" if step else "zero"


def _part(values: Values) -> str:
    """Which part of the tensor is drawn, if not all of it."""
    parts = []
    if values.matrix:
        at = ", ".join(str(i) for i in values.matrix)
        parts.append(f"Part [{at}] of the whole, which has the shape {tuple(values.shape)}")
    rows, columns = [1, *values.shape][-2:]
    height, width = len(values.seen), len(values.seen[0])
    if height < rows:
        parts.append(f"rows {values.top} to {values.top + height - 1} of {rows}")
    if width < columns:
        parts.append(f"columns {values.left} to {values.left + width - 1} of {columns}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def _places(wrong: Sequence[tuple[int, int]], one_row: bool) -> str:
    named = [f"{c}" if one_row else f"({r}, {c})" for r, c in wrong[:LISTED]]
    more = f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
    where = f"position{'s' * (len(wrong) > 1)}" if one_row else "(row, column)"
    differ = "differs" if len(wrong) == 1 else "differ"
    return f"{len(wrong)} of the values shown {differ}, at {where} {', '.join(named)}{more}"
