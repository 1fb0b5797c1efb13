"""Find names that a day's cells use but do not define, for example because the chapter lacks an import.

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
    """Raise CourseError if a cell of the notebook uses an undefined name.

    Checks and demonstrations may use only names from the cells before them. Functions in other cells may also use names from
    later cells.
    """
    known = PREDEFINED.union(*(_defined(code) for _, code in provided_code(day)))
    missing: list[
        tuple[str, str]
    ] = []  # names that later cells may define, and the errors if they do not
    for part in (given_part(day, "opening"), *day.chapters):
        for cell in part.cells:
            if cell.role == "text":
                continue
            source = notebook_source(cell)
            if "import *" in source:  # this could define any name
                return
            known |= _defined(source)
            for name in _used(source):
                if name not in known:
                    error = (
                        f"{part.path}, cell {cell.number}: {name} is not defined. "
                        "Import or define it in this cell or an earlier one"
                    )
                    if cell.role in ("checks", "demonstration"):
                        raise CourseError(error)
                    missing.append((name, error))
    for name, error in missing:
        if name not in known:
            raise CourseError(error)


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
