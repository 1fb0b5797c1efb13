"""Assemble a day's chapters into one notebook with nbgrader's metadata. Entry point: `solution_notebook`."""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import io
import re
import sys
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from xml.etree import ElementTree

from nbformat import NotebookNode, v4

from autograder import in_notebook
from autograder.course import chapters, fingerprint
from autograder.course.chapters import CHECK_PREFIX, Chapter, ChapterCell
from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.release import helper_cells, texts

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
        metadata={**METADATA, "lang": day.language, fingerprint.KEY: fingerprint.stamp(day)},
    )
    notebook.nbformat_minor = 5
    return notebook


def _cells(day: Day, outputs: str) -> Iterator[NotebookNode]:
    ids = _Ids()
    points = {exercise.name: exercise.credit for exercise in day.exercises}
    yield _cell("markdown", f"# {day.title}", ids.new("title"))
    opening = _given_part(day, "opening")
    filled = day_texts(day)
    for part in (*_introduction(day), opening, *day.chapters, _given_part(day, "closing")):
        if part is opening:
            packages = [
                found[0]
                for line in requirements(day).splitlines()
                if (found := PACKAGE.match(line))
            ]
            yield _cell("code", INSTALL.format(packages=packages), ids.new("install"))
        section = part.name
        for cell in part.cells:
            source = notebook_source(cell)
            if cell.role == "text":
                section = _slug(cell.source) or section
                source = (
                    filled.chapter_cell(part, cell)
                    if part in day.chapters
                    else filled.fill(source, part.path.name)
                )
            if not source:
                continue
            if cell.role == "text":
                yield _cell("markdown", embed(source, part.path), ids.new(section))
            elif cell.role == "exercise":
                yield nbgrader_cell(source, cell.name)
            elif cell.role == "checks":
                hidden = HIDDEN.format(day=day.name, chapter=part.name)
                yield nbgrader_cell(source + hidden, CHECK_PREFIX + cell.name, points[cell.name])
            else:
                yield _cell("code", source, ids.new(section))
        if part is opening:
            yield _cell("markdown", helper_cells.INTRODUCTION, ids.new(helper_cells.SECTION))
            for source in (*helper_cells.helpers(), helper_cells.data(day, outputs)):
                yield _helper_cell(source, ids.new(helper_cells.SECTION))


def _given_part(day: Day, name: str) -> Chapter:
    """Read the notebook's opening or closing part from the course's own file or, by default, from this package."""
    own = day.root / "solutions" / f"{name}.py"
    default = Path(in_notebook.__file__).with_name(f"{name}.py")
    return chapters.read(own if own.is_file() else default, ())


def day_texts(day: Day) -> texts.ReleaseTexts:
    """Return a `ReleaseTexts` object, which fills in the placeholders in a day's texts."""
    return texts.ReleaseTexts(day, _introduction(day))


def _introduction(day: Day) -> list[Chapter]:
    """Return the day's own introduction as a list of one chapter, or an empty list if the day has none."""
    own = day.root / "solutions" / day.name / "opening.py"
    return [chapters.read(own, ())] if own.is_file() else []


def _helper_cell(source: str, id_: str) -> NotebookNode:
    """Return a code cell that is collapsed in JupyterLab, VS Code and Colab."""
    cell = _cell("code", f"# @title Provided code\n{source}", id_)
    cell.metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
    return cell


class _Ids:
    """A generator of cell IDs of the form SECTION-NUMBER. Changing a section does not affect IDs in other sections."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def new(self, section: str) -> str:
        section = _ascii(section)[:50]
        self._counts[section] += 1
        return f"{section}-{self._counts[section]}"


def _slug(markdown: str) -> str:
    heading = re.match(r"#{1,3} +(.+)", markdown)
    return re.sub(r"\W+", "-", heading[1]).strip("-").lower() if heading else ""


def _ascii(text: str) -> str:
    """Remove accents from letters. Add a hash if other characters remain that nbformat does not allow in IDs."""
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
    new: Callable[..., NotebookNode] = (
        v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
    )
    return new(source, id=id_)


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
        if package in NOT_INSTALLED:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip()


LINK = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]*)\)")
ELSEWHERE = ("http://", "https://", "data:")
ROOT = "{http://www.w3.org/2000/svg}svg"
MEDIA = {
    ".svg": ("image/svg+xml", "an SVG image"),
    ".gif": ("image/gif", "a GIF image"),
    ".wav": ("audio/wav", "a WAV recording"),
}


def embed(markdown: str, chapter: Path) -> str:
    """Return a markdown cell's text with each linked file embedded in an `<img>` or `<audio>` element.

    Links are relative to the chapter's folder. JupyterLab strips inline `<svg>`, and Colab has no access to local files.
    """

    def element(link: re.Match[str]) -> str:
        alt, target = " ".join(link["alt"].split()), link["target"]
        if target.startswith(ELSEWHERE):
            return link[0]
        if not alt:
            raise CourseError(
                f"{chapter}: the figure {target} has no alternative text. Describe it in the link: ![text]({target})"
            )
        data, media_type = _read(chapter.parent / target, chapter)
        source = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if media_type.startswith("audio/"):
            return f'<audio controls src="{source}">{html.escape(alt)}</audio>'
        return f'<img src="{source}" alt="{html.escape(alt)}">'

    return LINK.sub(element, markdown)


def _read(file: Path, chapter: Path) -> tuple[bytes, str]:
    """Return a file's content and media type."""
    if file.suffix not in MEDIA:
        raise CourseError(
            f"{chapter}: the suffix of figure {file} must be one of {', '.join(MEDIA)}"
        )
    media_type, kind = MEDIA[file.suffix]
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CourseError(
            f"{chapter}: the figure {file} cannot be read: {error.strerror}"
        ) from None
    try:
        valid = _is_valid(data, file.suffix)
    except ElementTree.ParseError as error:
        raise CourseError(f"{chapter}: the figure {file} is not {kind}: {error}") from None
    if not valid:
        raise CourseError(f"{chapter}: the figure {file} is not {kind}")
    return data, media_type


def _is_valid(data: bytes, suffix: str) -> bool:
    if suffix == ".svg":
        return ElementTree.fromstring(data).tag == ROOT
    if suffix == ".gif":
        return data.startswith((b"GIF87a", b"GIF89a"))
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


README = """\
# {title}

    pip install jupyterlab -r requirements.txt
    jupyter lab {name}.ipynb          # VS Code and Colab work as well

Work from top to bottom. Replace each `raise NotImplementedError` with your code and run the checks below it. When you are
done, submit `{name}.ipynb`.
"""
ALWAYS = ("torch",)  # packages that the given code in every notebook uses
NOT_INSTALLED = ("autograder", "solutions")  # packages that students do not install


def readme(day: Day) -> str:
    """Return the day's README, or a default README with the day's title."""
    file = day.root / "solutions" / day.name / "README.md"
    if file.is_file():
        return read_text(file)
    return README.format(title=day.title, name=day.name)


def requirements(day: Day) -> str:
    """Return the day's requirements.txt or, by default, the packages that the chapters import."""
    file = day.root / "solutions" / day.name / "requirements.txt"
    if file.is_file():
        return read_text(file)
    known = packages_distributions()
    imported = set(_imported(day)) - sys.stdlib_module_names - set(NOT_INSTALLED)
    packages = {known.get(name, [name])[0] for name in (*ALWAYS, *imported)}
    return "".join(f"{package}\n" for package in sorted(packages, key=str.lower))


def _imported(day: Day) -> Iterator[str]:
    """Yield the top-level package of each module that a day's chapters import."""
    cells = (cell for chapter in day.chapters for cell in chapter.cells if cell.role != "text")
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]
