"""Assemble a day's chapters into one notebook with nbgrader's metadata. Entry point: `solution_notebook`."""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from nbformat import NotebookNode, v4

from autograder import in_notebook
from autograder.course import chapters, release_stamp
from autograder.course.chapters import CHECK_PREFIX, Chapter, ChapterCell
from autograder.course.config import Day
from autograder.release import figures, helper_cells, student_files, texts

HIDDEN = """
### BEGIN HIDDEN TESTS
# The hidden tests are in graders/{day}/test_{chapter}.py and run outside this notebook.
### END HIDDEN TESTS"""

PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]*")  # the name at the start of a requirement
INSTALL = """\
# Install missing packages.
import importlib.metadata
import subprocess
import sys


def installed(package):
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


missing = [package for package in {packages!r} if not installed(package)]
if missing:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", *missing])"""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def solution_notebook(day: Day, outputs: str = "") -> NotebookNode:
    """Return the notebook with solutions, from which nbgrader generates the release.

    Args:
        day: The day.
        outputs: The packed results of known mistakes. Without them, the visible checks give no hints.

    Raises:
        CourseError: `opening.py`, `closing.py` or a chapter is invalid, or a figure is missing or invalid.
    """
    cells = list(_cells(day, outputs))
    notebook: NotebookNode = v4.new_notebook(
        cells=cells,
        metadata={**METADATA, "lang": day.language, release_stamp.KEY: release_stamp.stamp(day)},
    )
    notebook.nbformat_minor = 5
    return notebook


def _cells(day: Day, outputs: str) -> Iterator[NotebookNode]:
    folder = day.root / "solutions"
    ids = _Ids()
    points = {exercise.name: exercise.credit for exercise in day.exercises}
    yield _cell("markdown", f"# {day.title}", ids.new("title"))
    introduction = _introduction(day)
    filled = day_texts(day)
    parts = [
        *introduction,
        _given_part(folder, "opening"),
        *day.chapters,
        _given_part(folder, "closing"),
    ]
    for part in parts:
        if part is parts[len(introduction)]:
            packages = [found[0] for line in _requirements(day) if (found := PACKAGE.match(line))]
            yield _cell("code", INSTALL.format(packages=packages), ids.new("install"))
        section = part.name
        for cell in part.cells:
            if cell.role == "text":
                section = _slug(cell.source) or section
            source = notebook_source(cell)
            if cell.role == "text" and part in day.chapters:
                source = filled.chapter_cell(part, cell)
            elif cell.role == "text":
                source = filled.fill(source, part.path.name)
            if source:
                yield _chapter_cell(day, part, cell, source, ids, section, points)
        if part is parts[len(introduction)]:
            yield _cell("markdown", helper_cells.INTRODUCTION, ids.new(helper_cells.SECTION))
            for source in (*helper_cells.helpers(), helper_cells.data(day, outputs)):
                yield _helper_cell(source, ids.new(helper_cells.SECTION))


def _given_part(folder: Path, name: str) -> Chapter:
    """Read the notebook's opening or closing part from the course's own file or, by default, from this package."""
    own = folder / f"{name}.py"
    default = Path(in_notebook.__file__).with_name(f"{name}.py")
    return chapters.read(own if own.is_file() else default, ())


def day_texts(day: Day) -> texts.ReleaseTexts:
    """Return a `ReleaseTexts` object, which fills in the placeholders in a day's texts."""
    return texts.ReleaseTexts(day, _introduction(day))


def _introduction(day: Day) -> list[Chapter]:
    """Return the day's own introduction as a list of one chapter, or an empty list if the day has none."""
    own = day.root / "solutions" / day.name / "opening.py"
    return [chapters.read(own, ())] if own.is_file() else []


def _chapter_cell(
    day: Day,
    part: Chapter,
    cell: ChapterCell,
    source: str,
    ids: _Ids,
    section: str,
    points: dict[str, float],
) -> NotebookNode:
    if cell.role == "text":
        return _cell("markdown", figures.embed(source, part.path), ids.new(section))
    if cell.role == "exercise":
        return nbgrader_cell(source, cell.name)
    if cell.role == "checks":
        hidden = HIDDEN.format(day=day.name, chapter=part.name)
        return nbgrader_cell(source + hidden, CHECK_PREFIX + cell.name, points[cell.name])
    return _cell("code", source, ids.new(section))


def _helper_cell(source: str, id_: str) -> NotebookNode:
    """Return a code cell that is collapsed in JupyterLab, VS Code and Colab."""
    cell = _cell("code", f"# @title Provided code\n{source}", id_)
    cell.metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
    return cell


def _requirements(day: Day) -> list[str]:
    lines = student_files.requirements(day).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class _Ids:
    """A generator of cell IDs of the form SECTION-NUMBER. Changing a section does not affect IDs in other sections.

    nbformat allows only ASCII in IDs, so non-Latin letters in a section's name are replaced by a hash of the name.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def new(self, section: str) -> str:
        section = _ascii(section)[:50]
        count = self._counts[section] = self._counts.get(section, 0) + 1
        return f"{section}-{count}"


def _slug(markdown: str) -> str:
    heading = re.match(r"#{1,3} +(.+)", markdown)
    return re.sub(r"\W+", "-", heading[1]).strip("-").lower() if heading else ""


def _ascii(text: str) -> str:
    """Remove accents from letters. Add a hash if any other non-ASCII characters remain."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if plain.isascii():
        return plain
    kept = re.sub(r"[^a-zA-Z0-9]+", "-", plain)[:40].strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{kept}-{digest}" if kept else f"section-{digest}"


def nbgrader_cell(source: str, grade_id: str, points: float | None = None) -> NotebookNode:
    """Return a code cell with nbgrader's metadata: a check cell if `points` is given, otherwise a solution cell."""
    is_check = points is not None
    cell = _cell("code", source, grade_id)
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": is_check,
        "locked": is_check,
        "solution": not is_check,
        "task": False,
        **({"points": points} if is_check else {}),
    }
    return cell


def _cell(kind: str, source: str, id_: str) -> NotebookNode:
    new: dict[str, Callable[..., NotebookNode]] = {
        "markdown": v4.new_markdown_cell,
        "code": v4.new_code_cell,
    }
    return new[kind](source, id=id_)


def notebook_source(cell: ChapterCell) -> str:
    """Return a cell's source for the notebook, with the main guard and imports from other chapters removed."""
    if cell.role in ("checks", "demonstration"):
        return without_guard(cell.source)
    if cell.role == "given":
        return without_chapter_imports(cell.source)
    return cell.source.strip()


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
        if package in student_files.NOT_INSTALLED:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip()
