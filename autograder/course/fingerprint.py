"""Identify a course's version. Entry points: `course_version` and `fingerprint`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.release_stamp import released_code

IMPORT_OF_GRADERS = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+(graders\b[^\n(]*(?:\([^)]*\))?)", re.MULTILINE
)


def course_version(day: Day) -> str:
    """Return a hash of everything in the course that affects a day's marks.

    In addition to what `fingerprint` covers, this includes the released code, which the grader distinguishes from code that
    students wrote, and the stand-ins, because it reports copies of them.

    Raises CourseError in the same cases as `fingerprint`, or if the stand-ins cannot be read.
    """
    try:
        stand_ins = day.stand_ins.read_bytes() if day.stand_ins.is_file() else b""
    except OSError as error:
        raise CourseError(f"{error.filename} cannot be read: {error.strerror}") from None
    parts = fingerprint(day), released_code(day), stand_ins
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fingerprint(day: Day) -> str:
    """Return a hash of a day's exercises, budget, chapters, graders and known mistakes.

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
    if own := [(e.name, e.forbidden) for e in day.exercises if e.own_entries]:
        digest.update(repr(own).encode())
    digest.update("".join(f"{name}\0" for e in day.exercises for name in e.renamed_from).encode())
    try:
        graders += _imported_graders(day.graders.parent, graders)
        for file in (*(chapter.path for chapter in day.chapters), *graders, *mistakes):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    except OSError as error:
        raise CourseError(f"{error.filename} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _imported_graders(folder: Path, graders: Sequence[Path]) -> list[Path]:
    """Return a sorted list of the other files in `graders/` that a day's graders import, directly or indirectly."""
    others = set(folder.rglob("*.py")) - set(graders)
    found: set[Path] = set()
    pending = list(graders)
    while pending:
        imports = " ".join(IMPORT_OF_GRADERS.findall(pending.pop().read_text("utf-8", "replace")))
        names = set(re.findall(r"\w+", imports))
        new = {file for file in others - found if file.stem in names}
        found |= new
        pending += new
    return sorted(found)
