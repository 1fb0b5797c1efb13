"""Find names that a day's code uses but the notebook does not define there, without running any code.

A forgotten import is such a name, and so is an exercise that was deleted or comes later. Entry points: `problems` and `check`.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator
from pathlib import Path

from autograder.course.chapters import ChapterCell
from autograder.course.config import CourseError, Day, check_day
from autograder.course.files import read_text
from autograder.course.provided import given_part, notebook_source, provided_code
from autograder.execution.catalogue import known_mistakes

PREDEFINED = {*dir(builtins), *("__file__", "__name__", "display", "get_ipython")}
Place = tuple[Path, int]  # a file and a line in it


def check(days: Iterable[Day]) -> None:
    """Raise CourseError with the problems of all these days."""
    found = [problem for day in days for problem in problems(day)]
    if found:
        raise CourseError("\n".join(found))


def problems(day: Day) -> Iterator[str]:
    """Yield each problem in the day's chapters, stand-ins, graders and known mistakes, with its file and line."""
    try:
        check_day(day)
    except CourseError as error:  # the chapters may be unreadable
        yield str(error)
        return
    for file in (*sorted(day.graders.glob("*.py")), day.stand_ins):
        if file.is_file():
            try:
                ast.parse(read_text(file))
            except SyntaxError as error:
                yield f"{file}:{error.lineno}: {error.msg}"
                return
    yield from _undefined(day)
    try:
        known_mistakes(day)
    except CourseError as error:
        yield str(error)


def _undefined(day: Day) -> Iterator[str]:
    """Yield a problem for each name that is used where it is not defined.

    Checks and demonstrations run in the order of the notebook. The functions in other cells may use names from later cells,
    but a solution must not use a later exercise, because students write the exercises in order.
    """
    parts = (given_part(day, "opening"), *day.chapters, given_part(day, "closing"))
    cells = [(part.path, c) for part in parts for c in part.cells if c.role != "text"]
    if any("import *" in notebook_source(cell) for _, cell in cells):  # this could define any name
        return
    provided = PREDEFINED.union(*(_defined(code) for _, code in provided_code(day)))
    places = {
        n: (path, c.line) for path, c in reversed(cells) for n in _defined(notebook_source(c))
    }
    exercises = {cell.name for _, cell in cells if cell.role == "exercise"}
    known = set(provided)
    for path, cell in cells:
        known |= _defined(notebook_source(cell))
        anywhere = (
            known if cell.role in ("checks", "demonstration") else known | {*places} - exercises
        )
        for name, line in _used(cell):
            if name not in anywhere:
                yield _message(name, (path, line), places)
    if day.stand_ins.is_file():
        stand_ins = ChapterCell("given", "", read_text(day.stand_ins), 1, 1)
        for name, line in _used(stand_ins):
            if name not in known | _defined(stand_ins.source):
                yield _message(name, (day.stand_ins, line), places)


def _message(name: str, used: Place, places: dict[str, Place]) -> str:
    where = f"{used[0]}:{used[1]}: {name}"
    if name not in places:
        return f"{where} is not defined. Import or define it in this cell or an earlier one"
    path, line = places[name]
    return f"{where} is used before it is defined in {path}:{line}. Move one of the two cells"


def _defined(source: str) -> set[str]:
    return {s.get_name() for s in _globals(source) if s.is_assigned() or s.is_imported()}


def _used(cell: ChapterCell) -> list[tuple[str, int]]:
    """Return the global names that a cell uses, with the line in the file where it uses them first."""
    source = cell.source
    names = {s.get_name() for s in _globals(source) if s.is_referenced()}
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in names:
            lines[node.id] = min(lines.get(node.id, node.lineno), node.lineno)
    return [
        (name, cell.line + line - 1) for name, line in sorted(lines.items(), key=lambda n: n[1])
    ]


def _globals(source: str) -> Iterator[symtable.Symbol]:
    """Yield a cell's global names, including those in functions and classes."""
    tables = [symtable.symtable(source, "", "exec")]
    for table in tables:
        is_module = table.get_type() == "module"
        yield from (symbol for symbol in table.get_symbols() if is_module or symbol.is_global())
        tables += table.get_children()
