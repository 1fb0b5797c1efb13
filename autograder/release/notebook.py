"""Assemble a day's chapters into one notebook with nbgrader's metadata. Entry point: `solution_notebook`."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nbformat import NotebookNode, v4

from autograder.course import chapters, fingerprint
from autograder.course.chapters import CHECK_PREFIX, Chapter
from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.course.provided import (
    NOT_INSTALLED,
    given_part,
    imported,
    notebook_source,
    split_check,
)
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


def solution_notebook(day: Day, outputs: Mapping[str, Any] | None = None) -> NotebookNode:
    """Return the notebook with solutions, from which nbgrader generates the release.

    Args:
        day: The day.
        outputs: The results of known mistakes. Without them, the visible checks give no hints.

    Raises:
        CourseError: `opening.py`, `closing.py` or a chapter is invalid, or a figure is missing or invalid.
    """
    cells = list(_cells(day, outputs or {}))
    notebook: NotebookNode = v4.new_notebook(
        cells=cells,
        metadata={**METADATA, "lang": day.language, fingerprint.KEY: fingerprint.stamp(day)},
    )
    notebook.nbformat_minor = 5
    return notebook


def _cells(day: Day, outputs: Mapping[str, Any]) -> Iterator[NotebookNode]:
    ids = _Ids()
    points = {exercise.name: exercise.credit for exercise in day.exercises}
    yield _cell("markdown", f"# {day.title}", ids.new("title"))
    opening = given_part(day, "opening")
    filled = day_texts(day)
    before, after = _own_part(day, "opening"), _own_part(day, "closing")
    for part in (*before, opening, *day.chapters, *after, given_part(day, "closing")):
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
            if not source or cell.role == "support":
                continue
            if cell.role == "text":
                yield _cell("markdown", embed(source, part.path), ids.new(section))
            elif cell.role == "exercise":
                yield nbgrader_cell(source, cell.name)
            elif cell.role == "checks":
                hidden = HIDDEN.format(day=day.name, chapter=part.name)
                call = split_check(source)[1] + helper_cells.ORIGIN
                yield nbgrader_cell(call + hidden, CHECK_PREFIX + cell.name, points[cell.name])
            else:
                yield _cell("code", source, ids.new(section))
        if part is opening:
            yield _cell("markdown", helper_cells.INTRODUCTION, ids.new(helper_cells.SECTION))
            provided = _cell(
                "code", helper_cells.provided_cell(day, outputs), ids.new(helper_cells.SECTION)
            )
            # Collapse the cell in JupyterLab and Colab.
            provided.metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
            yield provided


def day_texts(day: Day) -> texts.ReleaseTexts:
    """Return a `ReleaseTexts` object, which fills in the placeholders in a day's texts."""
    return texts.ReleaseTexts(day, [*_own_part(day, "opening"), given_part(day, "opening")])


def _own_part(day: Day, name: str) -> list[Chapter]:
    """Return the day's own opening or closing part as a list of one chapter, or an empty list if the day has none."""
    own = day.root / "solutions" / day.name / f"{name}.py"
    return [chapters.read(own, ())] if own.is_file() else []


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
    if is_check:
        cell.metadata["tags"] = ["raises-exception"]  # "Run All" continues after a failed check
    return cell


def _cell(kind: str, source: str, id_: str) -> NotebookNode:
    new: Callable[..., NotebookNode] = (
        v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
    )
    return new(source, id=id_)


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
    names = imported(day) - sys.stdlib_module_names - set(NOT_INSTALLED)
    packages = {known.get(name, [name])[0] for name in names}
    return "".join(f"{package}\n" for package in sorted(packages, key=str.lower))
