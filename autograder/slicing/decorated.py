"""Apply the student's decorators to reference solutions. Entry point: `apply_decorators`.

If a decorator such as `@register("encoder")` adds an exercise to a table, code that uses the table must find the
reference solution there.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import replace

from autograder.slicing.statements import parse_units
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell


def apply_decorators(unit: Unit, replaced: Collection[str]) -> Unit:
    """Return a unit that applies the decorators of a replaced exercise to the reference solution.

    The decorators' result is not used. Return other units unchanged.
    """
    if unit.given or unit.binds.isdisjoint(replaced) or "@" not in unit.source:
        return unit
    statement = ast.parse(unit.source).body[0]
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef) or not statement.decorator_list:
        return unit
    call: ast.expr = ast.Name(statement.name)
    for decorator in reversed(statement.decorator_list):
        call = ast.Call(decorator, [call], [])
    units, _ = parse_units([Cell(unit.cell, "code", ast.unparse(call))])
    if len(units) != 1:
        return unit
    return replace(units[0], line=unit.line, receivers=unit.receivers)
