"""Collect the code for a notebook's provided cell, and convert a chapter's cells into notebook cells.

The provided cell runs modules from `in_notebook/`, cells with the tag `support` and the definitions of visible checks. Entry
points: `provided_code` and `notebook_source`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from autograder import in_notebook
from autograder.course import chapters
from autograder.course.chapters import Chapter, ChapterCell
from autograder.course.config import Day
from autograder.course.files import read_text

FOLDER = Path(in_notebook.__file__).parent
# In this order, because each module uses only earlier ones.
MODULES = (
    "helper_names",
    "frames",
    "hints",
    "not_allowed",
    "error_advice",
    "predictions",
    "checks",
    "inputs",
    "progress",
    "look",
    "material",
)
TORCH_MODULES = ("inputs", "look")  # left out of notebooks that do not use torch
NOT_INSTALLED = ("autograder", "solutions")  # packages that students do not install
OWN_IMPORT = re.compile(r"^from (?:__future__|autograder)\b[^(\n]*(?:\([^)]*\))?\n", re.MULTILINE)


def provided_code(day: Day) -> Iterator[tuple[str, str]]:
    """Yield the name of a file and its code, in the order in which the provided cell runs them. Names can repeat."""
    for name in modules(day):
        yield f"autograder/{name}.py", module_source(name)
    for part in (given_part(day, "opening"), *day.chapters, given_part(day, "closing")):
        pieces = list(_pieces(part.cells))
        # Base classes and constants need the chapter's imports, which run in a later cell.
        imports = "\n".join(_imports(part.cells)) if pieces else ""
        for source in filter(None, (imports, *pieces)):
            yield part.path.name, source


def modules(day: Day) -> list[str]:
    """Return the names of the modules in `in_notebook/` that the day's notebook contains."""
    uses_torch = "torch" in imported(day)
    return [name for name in MODULES if uses_torch or name not in TORCH_MODULES]


def imported(day: Day) -> set[str]:
    """Return the top-level packages that a day's chapters and the course's own opening and closing import."""
    parts = (given_part(day, "opening"), *day.chapters, given_part(day, "closing"))
    cells = (cell for part in parts for cell in part.cells if cell.role != "text")
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    found = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    found |= {
        node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.partition(".")[0] for name in found}


def module_source(name: str) -> str:
    """Return the source of a module in `in_notebook/`, without imports from this package."""
    source = OWN_IMPORT.sub("", read_text(FOLDER / f"{name}.py"))
    return re.sub(r"\n{4,}", "\n\n\n", source).strip()


def given_part(day: Day, name: str) -> Chapter:
    """Read the notebook's opening or closing part from the course's own file or, by default, from this package."""
    own = day.root / "solutions" / f"{name}.py"
    return chapters.read(own if own.is_file() else FOLDER / f"{name}.py", ())


def _pieces(cells: Sequence[ChapterCell]) -> Iterator[str]:
    for cell in cells:
        if cell.role == "support":
            yield notebook_source(cell)
        elif cell.role == "checks":
            yield split_check(notebook_source(cell))[0]


def _imports(cells: Sequence[ChapterCell]) -> Iterator[str]:
    for source in (notebook_source(cell) for cell in cells if cell.role == "given"):
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield ast.unparse(node)


def notebook_source(cell: ChapterCell) -> str:
    """Return a cell's source for the notebook, with the main guard and imports from other chapters removed."""
    if cell.role in ("checks", "demonstration"):
        return without_guard(cell.source)
    if cell.role in ("given", "support"):
        return without_chapter_imports(cell.source)
    return cell.source.strip()


def split_check(source: str) -> tuple[str, str]:
    """Split a cell of checks into its definitions and the statements after them, such as `check_softmax()`."""
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    end = 0
    for node in ast.parse(source).body:
        if not isinstance(node, definitions):
            break
        end = node.end_lineno or end
    lines = source.split("\n")
    return "\n".join(lines[:end]), "\n".join(lines[end:]).strip()


def without_guard(source: str) -> str:
    """Remove the guard `if __name__ == "__main__":` and dedent its body, except for lines inside strings."""
    guard = ast.parse(source).body[0]
    lines = source.split("\n")
    inside = set(_lines_inside_strings(source))
    body = [
        line if number in inside else line.removeprefix("    ")
        for number, line in enumerate(lines[guard.lineno :], guard.lineno + 1)
    ]
    return "\n".join([*lines[: guard.lineno - 1], *body]).strip()


def _lines_inside_strings(source: str) -> Iterator[int]:
    """Yield the numbers of the lines that start inside a string."""
    opened = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name == "STRING":
            yield from range(token.start[0] + 1, token.end[0] + 1)
        elif name == "FSTRING_START":
            opened.append(token.start[0])
        elif name == "FSTRING_END":
            yield from range(opened.pop() + 1, token.end[0] + 1)


def without_chapter_imports(source: str) -> str:
    """Return a cell's source without imports from `solutions` and `autograder`."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        package = (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else ""
        if package in NOT_INSTALLED:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip()
