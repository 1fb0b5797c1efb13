"""Let a notebook define and call an exercise under the name that it had in an earlier release.

Adding the statement `new = old` to the notebook turns a student's `old` into the exercise `new`. If the reference
solution for `new` is used instead, `old = new` redirects the student's calls to it. Entry points:
`define_present_names`, `define_older_names` and `rename_stub`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from autograder.slicing.statements import parse_units
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell


def define_present_names(units: Sequence[Unit], current: Mapping[str, str]) -> Iterator[Unit]:
    """Yield the statement `new = old` for each exercise that the notebook defines only under an older name.

    `current` maps each older name to the current one. A function or class definition takes precedence over other
    bindings, such as `double = partial(mul, 2)`, because these may be unrelated variables with the same name.
    """
    bound: dict[str, tuple[bool, int]] = {}
    for unit in units:
        for name in () if unit.main_only else unit.binds:
            is_definition = name in unit.defines - unit.imports
            bound[name] = max(bound.get(name, (False, 0)), (is_definition, unit.cell))
    for older, name in current.items():
        if older in bound and (name not in bound or bound[older][0] > bound[name][0]):
            bound[name] = bound[older]
            yield _alias(name, older, bound[older][1])


def define_older_names(name: str, current: Mapping[str, str]) -> Iterator[Unit]:
    """Yield the statement `older = name` for each of the exercise's older names."""
    for older, present in current.items():
        if present == name:
            yield _alias(older, name, 0)


def rename_stub(stub: str, name: str, older: str) -> str:
    """Return an exercise's stub with the function or class renamed to one of the exercise's older names."""
    return re.sub(rf"\b{name}\b", older, stub)


def _alias(name: str, other: str, cell: int) -> Unit:
    """Return the unit `name = other`, which is treated as a definition that the course provides."""
    (unit,), _ = parse_units([Cell(cell, "code", f"{name} = {other}")], given=True)
    return replace(unit, defines=frozenset({name}))
