"""Parse a notebook's code cells into units. Entry point: `parse_units`."""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from autograder.slicing.ipython import count_tokens, gc_paused, parse_cell
from autograder.slicing.unit import Unit, make_unit
from autograder.submissions.cell import Cell

# Exceptions that Python's parser, compiler and `symtable` raise for hostile or deeply nested code.
REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
MAX_CACHED = 20_000  # maximum number of characters in a cached cell
MAX_UNITS = 100_000  # maximum number of units per notebook
MAX_TOKENS = 1_000_000  # maximum number of tokens in all cells of a notebook
TOO_LONG = "the notebook is too long; the rest was not read"


def parse_units(cells: Iterable[Cell], given: bool = False) -> tuple[list[Unit], list[str]]:
    """Return the units in a notebook's code cells and any problems. `given` marks the units as provided by the course."""
    with gc_paused():
        return _parse_units([cell for cell in cells if cell.kind == "code"], given)


def _parse_units(cells: Sequence[Cell], given: bool) -> tuple[list[Unit], list[str]]:
    units: list[Unit] = []
    problems: list[str] = []
    left = MAX_TOKENS
    is_long = sum(len(cell.source) for cell in cells) > left
    for cell in cells:
        left -= count_tokens(cell.source) if is_long else 0
        if left < 0 or len(units) > MAX_UNITS:
            problems.append(f"cell {cell.number}: {TOO_LONG}")
            break
        if len(cell.source) <= MAX_CACHED:
            found, cell_problems = _cached_cell_units(cell.source)
            found = [replace(unit, cell=cell.number, given=given) for unit in found]
        else:
            found, cell_problems = _cell_units(cell.source, cell.number, given)
        units += found
        problems += [f"cell {cell.number}: {problem}" for problem in cell_problems]
    return units, problems


def _cell_units(text: str, cell: int = 0, given: bool = False) -> tuple[list[Unit], list[str]]:
    source, tree, problem = parse_cell(text)
    problems = [problem] if problem is not None else []
    statements = tree.body if tree else []
    units: list[Unit] = []
    lines = re.split(r"\r\n|\r|\n", source)
    with warnings.catch_warnings():
        # Ignore warnings, such as those about invalid escapes in a student's strings.
        warnings.simplefilter("ignore")
        for group in _group_by_line(statements, lines):
            start, end = _first_line(group[0], lines), group[-1].end_lineno or 0
            if len(units) > MAX_UNITS:
                return units, [*problems, TOO_LONG]
            # A backslash at the end continues onto an empty line, which is not part of the unit.
            own = "\n".join(lines[start - 1 : end]).removesuffix("\\")
            try:
                unit = make_unit(own, group, start)
                units.append(replace(unit, cell=cell, given=given) if cell or given else unit)
            except REFUSALS as error:
                problems.append(_describe_error(error))
    return units, problems


# Most cells (checks, demonstrations and given code) are the same in all notebooks of a class.
_cached_cell_units = lru_cache(maxsize=1024)(_cell_units)


def _describe_error(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    if isinstance(error, RecursionError | MemoryError):
        return "the code is too deeply nested for Python"
    return f"{type(error).__name__}: {error}"


def _first_line(statement: ast.stmt, lines: list[str]) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    while decorators and first > 1 and not lines[first - 1].lstrip().startswith("@"):
        first -= 1  # the decorator starts on an earlier line: `@(`
    return first


def _group_by_line(statements: list[ast.stmt], lines: list[str]) -> Iterator[list[ast.stmt]]:
    """Group statements that share a line so that each group consists of whole lines."""
    group: list[ast.stmt] = []
    for statement in statements:
        if group:
            end = group[-1].end_lineno or 0
            if _first_line(statement, lines) > end and not lines[end - 1].endswith("\\"):
                yield group
                group = []
        group.append(statement)
    if group:
        yield group
