"""A chapter of `solutions/` → its cells, each with what it is for. solutions/README.md says how one is written."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from autograder.course.percent import split_cells, uncomment

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
Role = Literal["text", "exercise", "checks", "demonstration", "given"]


class ChapterError(Exception):
    """A chapter is not written as it should be; names the file and the cell."""


@dataclass(frozen=True)
class ChapterCell:
    """One cell; `name` is its exercise's (for `exercise` and `checks`) or empty, `number` counts from 1."""

    role: Role
    name: str
    source: str
    number: int

    @property
    def stub(self) -> str:
        """An exercise as it is released: each solution is a line that raises NotImplementedError."""
        return re.sub(
            rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}",
            rf'\1raise NotImplementedError("{self.name}")',
            self.source,
            flags=re.MULTILINE | re.DOTALL,
        )


@dataclass(frozen=True)
class Chapter:
    path: Path
    cells: tuple[ChapterCell, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def exercise(self, name: str) -> ChapterCell:
        """The cell of this exercise."""
        return next(c for c in self.cells if c.role == "exercise" and c.name == name)

    def check(self, exercises: Sequence[str]) -> None:
        """Check that each of these exercises has one exercise cell and one check cell after it.

        Raises:
            ChapterError: the first that has not.
        """
        for name in exercises:
            cells = [c for c in self.cells if c.role == "exercise" and c.name == name]
            checks = [c for c in self.cells if c.role == "checks" and c.name == name]
            if len(cells) != 1:
                raise ChapterError(f"{self.path}: {name} has {len(cells)} exercise cells, not one")
            if len(checks) != 1 or checks[0].number < cells[0].number:
                raise ChapterError(
                    f"{self.path}: {name} needs one cell of visible checks after it, with "
                    f"def check_{name} under the main guard"
                )
            if BEGIN not in cells[0].source or cells[0].stub.count(BEGIN):
                raise ChapterError(
                    f"{self.path}, cell {cells[0].number}: {name} needs {BEGIN!r} and {END!r}"
                )
        for cell in self.cells:
            if cell.role in ("exercise", "checks") and cell.name not in exercises:
                raise ChapterError(
                    f"{self.path}, cell {cell.number}: {cell.name} is not an exercise of this chapter"
                )


def read(path: Path, exercises: Collection[str]) -> Chapter:
    """Read a percent script; `exercises` are the names that make a cell an exercise.

    Raises:
        ChapterError: it can not be read, or a cell does not parse.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChapterError(f"{path}: {error}") from None
    cells: list[ChapterCell] = []
    _, parts = split_cells(text)
    for number, (options, body) in enumerate(parts, 1):
        source = body.strip("\n")
        if "[markdown]" in options:
            cells.append(ChapterCell("text", "", uncomment(source), number))
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise ChapterError(f"{path}, cell {number}: {error}") from None
        role, name = _role(tree, exercises)
        cells.append(ChapterCell(role, name, source, number))
    return Chapter(path, tuple(cells))


def _role(tree: ast.Module, exercises: Collection[str]) -> tuple[Role, str]:
    if len(tree.body) == 1:
        statement = tree.body[0]
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name in exercises:
            return "exercise", statement.name
        if is_main_guard(statement):
            assert isinstance(statement, ast.If)
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("check_"):
                    return "checks", inner.name.removeprefix("check_")
            return "demonstration", ""
    return "given", ""


def is_main_guard(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and isinstance(statement.test.left, ast.Name)
        and statement.test.left.id == "__name__"
    )


def is_unfilled(source: str, stub: str) -> bool:
    """Whether an exercise is still its stub: every body that the stub leaves open is left open."""
    open_bodies = {name for name, body in _bodies(stub).items() if _is_open(body)}
    own = _bodies(source)
    return bool(open_bodies) and all(
        name in own and (_is_open(own[name]) or own[name] == _bodies(stub)[name])
        for name in open_bodies
    )


@lru_cache(maxsize=256)
def _bodies(source: str) -> dict[str, list[str]]:
    """The functions of a definition, each with its statements but the docstring."""
    return {
        node.name: [ast.dump(s) for s in node.body if not _is_text(s)]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_open(body: list[str]) -> bool:
    """Nothing, `pass`, or `raise NotImplementedError`, with `super().__init__()` before it or not."""
    return all(
        (s.startswith(("Pass(", "Raise(exc=")) and _harmless(s)) or "'super'" in s for s in body
    )


def _harmless(statement: str) -> bool:
    return statement.startswith("Pass(") or "'NotImplementedError'" in statement
