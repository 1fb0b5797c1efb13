"""Parse the chapters in `solutions/` into cells, classify each cell, and select the cells that students get.

solutions/README.md describes how to write a chapter. Entry points: `read`, `select` and `is_unfilled`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from autograder.course.files import CourseError, read_text

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CHECK_PREFIX = "check_"  # an exercise's visible checks are the function check_EXERCISE
SUPPORT = re.compile(
    r'\btags=\[[^\]]*"support"'
)  # a tag in the options of a cell that moves to the provided cell
Role = Literal["text", "exercise", "checks", "demonstration", "given", "support"]


@dataclass(frozen=True)
class ChapterCell:
    """A cell in a chapter. `name` is the exercise that it defines or checks, or "" if there is none. `number` starts at 1.

    `line` is the line of the file in which the source starts.
    """

    role: Role
    name: str
    source: str
    number: int
    line: int = 1

    @property
    def stub(self) -> str:
        """Return the source with each solution replaced by a line that raises NotImplementedError."""
        return re.sub(
            rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}",
            rf'\1raise NotImplementedError("{self.name}")',
            self.source,
            flags=re.MULTILINE | re.DOTALL,
        )

    @property
    def solution(self) -> str:
        """Return the source without the solution markers."""
        lines = self.source.split("\n")
        return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))

    @property
    def is_constant(self) -> bool:
        """Return whether the cell defines a function without parameters, whose answer is a constant."""
        match ast.parse(self.source).body:
            case [ast.FunctionDef(args=arguments)]:
                return not ast.unparse(arguments)
        return False


@dataclass(frozen=True)
class Chapter:
    """A chapter: its file and its cells."""

    path: Path
    cells: tuple[ChapterCell, ...]

    @property
    def name(self) -> str:
        """Return the file name without its extension."""
        return self.path.stem

    def exercise(self, name: str) -> ChapterCell:
        """Return the cell that defines an exercise."""
        return next(c for c in self.cells if c.role == "exercise" and c.name == name)

    def check(self, exercises: Sequence[str]) -> None:
        """Check that each exercise has one cell with a marked solution, followed later by one cell of visible checks."""
        for name in exercises:
            cells = [c for c in self.cells if c.role == "exercise" and c.name == name]
            checks = [c for c in self.cells if c.role == "checks" and c.name == name]
            if len(cells) != 1:
                raise CourseError(
                    f"{self.path}: {name} has {len(cells)} exercise cells instead of 1"
                )
            if len(checks) != 1 or checks[0].number < cells[0].number:
                raise CourseError(
                    f"{self.path}: {name} needs one cell of visible checks after its exercise cell. "
                    f"Define {CHECK_PREFIX}{name} under if __name__ == '__main__'."
                )
            if BEGIN not in cells[0].source or cells[0].stub.count(BEGIN):
                raise CourseError(
                    f"{self.path}, cell {cells[0].number}: mark the solution to {name} with "
                    f"{BEGIN!r} and {END!r}"
                )
        for cell in self.cells:
            if cell.role in ("exercise", "checks") and cell.name not in exercises:
                raise CourseError(
                    f"{self.path}, cell {cell.number}: {cell.name} is not an exercise in this chapter"
                )


def read(path: Path, exercises: Collection[str]) -> Chapter:
    """Read a chapter. A cell that defines one of `exercises` is an exercise cell."""
    cells: list[ChapterCell] = []
    text = read_text(path)
    _, parts = split_cells(text)
    starts = [marker.end() for marker in MARKER.finditer(text)]
    for number, ((options, body), start) in enumerate(zip(parts, starts, strict=True), 1):
        source = body.strip("\n")
        line = 1 + text.count("\n", 0, start) + len(body) - len(body.lstrip("\n"))
        if "[markdown]" in options:
            cells.append(ChapterCell("text", "", uncomment(source), number, line))
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            where = f"{path}:{line + (error.lineno or 1) - 1}"
            raise CourseError(f"{where}: {error.msg}") from None
        role, name = _role(tree, exercises)
        if SUPPORT.search(options):
            role, name = "support", ""
        cells.append(ChapterCell(role, name, source, number, line))
    return Chapter(path, tuple(cells))


def _role(tree: ast.Module, exercises: Collection[str]) -> tuple[Role, str]:
    match tree.body:
        case [ast.FunctionDef(name=name) | ast.ClassDef(name=name)] if name in exercises:
            return "exercise", name
        case [ast.If(test=ast.Compare(left=ast.Name(id="__name__")), body=body)]:
            for inner in body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith(CHECK_PREFIX):
                    return "checks", inner.name.removeprefix(CHECK_PREFIX)
            return "demonstration", ""
    return "given", ""


def is_unfilled(source: str, stub: str) -> bool:
    """Return whether every function that the student should fill in is still empty or the same as in the stub."""
    empty = {name for name, body in _bodies(stub).items() if _is_empty(body)}
    own = _bodies(source)
    return bool(empty) and all(
        name in own and (_is_empty(own[name]) or own[name] == _bodies(stub)[name]) for name in empty
    )


@lru_cache(maxsize=256)
def _bodies(source: str) -> dict[str, list[str]]:
    """Map each function in a definition to the AST dumps of the function's statements, excluding its docstring."""
    return {
        node.name: [ast.dump(s) for s in node.body if not _is_text(s)]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_empty(body: list[str]) -> bool:
    """Return whether a function body contains only `pass`, `raise NotImplementedError` and calls to `super()`."""
    return all(
        statement.startswith("Pass(")
        or (statement.startswith("Raise(exc=") and "'NotImplementedError'" in statement)
        or "'super'" in statement
        for statement in body
    )


MARKER = re.compile(r"^#[ \t]*%%+(?:$|(?=[ \t\[])([^\n]*))\n?", re.MULTILINE)
COMMENT = re.compile(r"^# ?", re.MULTILINE)


def split_cells(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first cell marker, and the options and body of each cell.

    The options are the rest of the marker's line: `[markdown]`, a title or metadata.
    """
    markers = list(MARKER.finditer(text))
    if not markers:
        return text, []
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    cells = [
        (marker[1] or "", text[marker.end() : end])
        for marker, end in zip(markers, ends, strict=True)
    ]
    return text[: markers[0].start()], cells


def uncomment(body: str) -> str:
    """Remove the leading `# ` from each line of a markdown cell."""
    return COMMENT.sub("", body)


HEADING = re.compile(r"#{1,6} ")
# A hint cell begins with a `<details>` block. Answers to questions do not match, because they follow their questions.
HINTS = re.compile(r"\A(<details>.*?</details>\s*)+", re.DOTALL)


def select(
    chapters: Sequence[Chapter], assigned: Collection[str], others: Mapping[str, bool]
) -> tuple[Chapter, ...]:
    """Return the chapters, keeping only the content that students get.

    `assigned` contains the exercises that students fill in, and `others` all other exercises. Students get the reference
    solution to one of these if its value is true or if something uses it.
    """
    if not others:
        return tuple(chapters)
    for name in others.keys() - _exercises(chapters):
        raise CourseError(
            f"no chapter contains the exercise {name}, so its solution cannot be given to students"
        )
    wanted = {*assigned, *(name for name, is_given in others.items() if is_given)}
    kept = _used_chapters(chapters, wanted)
    needed = _needed_exercises(kept, wanted)
    return tuple(replace(c, cells=tuple(_cells(c, assigned, needed))) for c in kept)


def _exercises(chapters: Iterable[Chapter]) -> set[str]:
    return {cell.name for c in chapters for cell in c.cells if cell.role == "exercise"}


# ---- used chapters and exercises


def _used_chapters(chapters: Sequence[Chapter], wanted: set[str]) -> list[Chapter]:
    """Return the chapters that contain an exercise in `wanted`, and all chapters whose names they use."""
    kept = [chapter for chapter in chapters if _exercises([chapter]) & wanted]
    while True:
        used = {name for chapter in kept for name in _read(chapter.cells) - _bound(chapter.cells)}
        more = [c for c in chapters if c not in kept and _bound(c.cells) & used]
        if not more:
            return [chapter for chapter in chapters if chapter in kept]
        kept += more


def _needed_exercises(chapters: Sequence[Chapter], wanted: set[str]) -> set[str]:
    """Return `wanted`, plus the exercises that demonstrations or provided code use, and all exercises on which these depend.

    An exercise depends on the exercises that its solution and its checks use.
    """
    needed = set(wanted)
    while True:
        used = set[str]()
        for cell in (cell for chapter in chapters for cell in chapter.cells):
            if cell.role not in ("exercise", "checks") or cell.name in needed:
                used |= _read([cell]) - {cell.name}
        if _exercises(chapters) & used <= needed:
            return needed
        needed |= _exercises(chapters) & used


def _read(cells: Iterable[ChapterCell]) -> set[str]:
    names = (node for cell in cells for node in _nodes(cell) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def _bound(cells: Iterable[ChapterCell]) -> set[str]:
    """Return the names that cells bind, except those that they import from other chapters."""
    bound = set[str]()
    for node in (node for cell in cells for node in _nodes(cell)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("solutions."):
                pass
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound |= {alias.asname or alias.name.split(".")[0] for alias in names}
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
            ):
                bound.add(name)
    return bound


@lru_cache(maxsize=1024)
def _nodes(cell: ChapterCell) -> tuple[ast.AST, ...]:
    return () if cell.role == "text" else tuple(ast.walk(ast.parse(cell.source)))


# ---- remaining cells


def _cells(
    chapter: Chapter, assigned: Collection[str], needed: Collection[str]
) -> Iterator[ChapterCell]:
    """Yield a chapter's cells. For exercises that students do not get, omit the solution, checks, hints and text."""
    for section in _sections(chapter.cells):
        inside = [cell.name for cell in section if cell.role == "exercise"]
        if inside and not any(name in needed for name in inside):
            section = [cell for cell in section if cell.role != "text"]
        exercise = ""
        for cell in section:
            exercise = cell.name if cell.role == "exercise" else exercise
            if cell.role in ("exercise", "checks") and cell.name not in assigned:
                if cell.role == "exercise" and cell.name in needed:
                    yield replace(cell, role="given", source=cell.solution)
            elif cell.role == "text" and exercise and exercise not in assigned:
                if text := HINTS.sub("", cell.source).strip():
                    yield replace(cell, source=text)
            else:
                yield cell


def _sections(cells: Sequence[ChapterCell]) -> list[list[ChapterCell]]:
    """Split cells into sections. A section begins at a text cell with a heading."""
    sections: list[list[ChapterCell]] = [[]]
    for cell in cells:
        if cell.role == "text" and HEADING.match(cell.source):
            sections.append([])
        sections[-1].append(cell)
    return sections
