"""Identify a course's version. Entry points: `course_version` and `fingerprint`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from autograder.course.config import CourseError, Day
from autograder.course.files import reading
from autograder.course.provided import provided_code

KEY = "notebook_autograder"
# The stamp's key as it appears in the notebook's JSON. Cell sources cannot match, because their quotes are escaped.
QUOTED_KEY = b'"' + KEY.encode() + b'":'
STAMP = re.compile(rb'\s{0,8}"(\w{1,40} [0-9a-f]{12})"')


@lru_cache(maxsize=8)
def stamp(day: Day) -> str:
    """Return the day's name and a hash of the day's stubs, visible checks and provided code.

    Editing the prose, demonstrations or solutions does not change the stamp, because answers do not depend on them.
    """
    digest = hashlib.sha256()
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role in ("exercise", "checks", "given"):
            digest.update(cell.stub.encode() + b"\0")
    return f"{day.name} {digest.hexdigest()[:12]}"


def find_stamp(data: bytes | bytearray) -> str:
    """Return the last stamp in a file, or "" if there is none.

    The file is searched instead of parsed, because a notebook may contain hundreds of megabytes of output.
    """
    at = len(data)
    while (at := data.rfind(QUOTED_KEY, 0, at)) >= 0:
        found = STAMP.match(data, at + len(QUOTED_KEY))
        if found and data[at - 1 : at] != b"\\":
            return found[1].decode()
    return ""


def stamp_problems(found: str, day: Day) -> list[str]:
    """Return a list with a problem if the stamp is for a different day or version. Otherwise, return an empty list."""
    name, _, _ = found.partition(" ")
    if not found or found == stamp(day):
        return []
    if name != day.name:
        return [f"this is the notebook for {name}, but it was graded as {day.name}"]
    return [f"this notebook is from a different release of {day.name}; its exercises have changed"]


class _ReleasedCell(msgspec.Struct):
    cell_type: str
    source: str | list[str]


class _Release(msgspec.Struct):
    cells: list[_ReleasedCell]


def released_code(day: Day) -> list[str]:
    """Return the sources of the code cells in the students' notebook, or an empty list if it is missing or damaged."""
    try:
        notebook = msgspec.json.decode(day.release.read_bytes(), type=_Release)
    except (OSError, msgspec.MsgspecError):
        return []
    return ["".join(cell.source) for cell in notebook.cells if cell.cell_type == "code"]


IMPORT_OF_GRADERS = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+(graders\b[^\n(]*(?:\([^)]*\))?)", re.MULTILINE
)


def course_version(day: Day) -> str:
    """Return a hash of everything in the course that affects a day's marks.

    In addition to what `fingerprint` covers, this includes the provided code, which students may use, the released code,
    which the grader distinguishes from code that students wrote, and the stand-ins, because it reports copies of them.

    Raises CourseError in the same cases as `fingerprint`, or if the stand-ins cannot be read.
    """
    with reading(day.stand_ins):
        stand_ins = day.stand_ins.read_bytes() if day.stand_ins.is_file() else b""
    parts = fingerprint(day), [*provided_code(day)], released_code(day), stand_ins
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fingerprint(day: Day) -> str:
    """Return a hash of a day's exercises, budget, chapters, graders, known mistakes and, if it needs them, other correct answers.

    Raises CourseError if the day has no graders or if a file cannot be read.
    """
    graders = sorted(day.graders.glob("*.py"))
    if not graders:
        raise CourseError(f"{day.graders} contains no graders")
    mistakes = [day.mistakes / f"{name}.md" for name in day.names]
    mistakes = [file for file in mistakes if file.exists()]
    digest = hashlib.sha256(repr((day.exercises, day.budget)).encode())
    for exercise in day.unassigned:
        digest.update(f"{exercise.name} {exercise.given}".encode())
    if own := [
        (e.name, e.forbidden) for e in day.exercises if e.own_entries.keys() & e.not_allowed
    ]:
        digest.update(repr(own).encode())
    graders += imported_graders(day.graders.parent, graders)
    # Students' tests are graded with the other correct answers.
    styles = day.styles if any(exercise.detects for exercise in day.exercises) else []
    for file in (*(chapter.path for chapter in day.chapters), *graders, *mistakes, *styles):
        with reading(file):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def imported_graders(folder: Path, graders: Sequence[Path]) -> list[Path]:
    """Return a sorted list of the other files in `graders/` that a day's graders import, directly or indirectly."""
    others = set(folder.rglob("*.py")) - set(graders)
    found: set[Path] = set()
    pending = list(graders)
    while pending:
        file = pending.pop()
        with reading(file):
            imports = IMPORT_OF_GRADERS.findall(file.read_text("utf-8", "replace"))
        names = set(re.findall(r"\w+", " ".join(imports)))
        new = {file for file in others - found if file.stem in names}
        found |= new
        pending += new
    return sorted(found)
