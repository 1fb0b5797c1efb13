"""Find names that a day's checks and demonstrations use but no cell before them defines, such as a forgotten import.

`autograder try` reports them without running the demonstrations, which may take minutes. Entry point: `check`.
"""

from __future__ import annotations

import builtins
import symtable
from collections.abc import Iterator

from autograder.course.config import CourseError, Day
from autograder.course.provided import given_part, notebook_source, provided_code

PREDEFINED = {*dir(builtins), "display", "get_ipython"}


def check(day: Day) -> None:
    """Raise CourseError if running the notebook from top to bottom would reach an undefined name.

    Only checks and demonstrations are examined: other cells may define functions that use names from later cells.
    """
    known = PREDEFINED.union(*(_defined(code) for _, code in provided_code(day)))
    for part in (given_part(day, "opening"), *day.chapters):
        for cell in part.cells:
            if cell.role == "text":
                continue
            source = notebook_source(cell)
            if "import *" in source:  # this could define any name
                return
            known |= _defined(source)
            if cell.role not in ("checks", "demonstration"):
                continue
            for name in _used(source):
                if name not in known:
                    raise CourseError(
                        f"{part.path}, cell {cell.number}: {name} is not defined. "
                        "Import or define it in this cell or an earlier one"
                    )


def _defined(source: str) -> set[str]:
    return {s.get_name() for s in _globals(source) if s.is_assigned() or s.is_imported()}


def _used(source: str) -> list[str]:
    return [symbol.get_name() for symbol in _globals(source) if symbol.is_referenced()]


def _globals(source: str) -> Iterator[symtable.Symbol]:
    """Yield a cell's global names, including those in functions and classes."""
    tables = [symtable.symtable(source, "", "exec")]
    for table in tables:
        is_module = table.get_type() == "module"
        yield from (symbol for symbol in table.get_symbols() if is_module or symbol.is_global())
        tables += table.get_children()
