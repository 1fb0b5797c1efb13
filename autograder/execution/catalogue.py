"""Read the known mistakes for a day from `mistakes/DAY/EXERCISE.md`; mistakes/README.md describes the format."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.marks.model import MISTAKE_SEPARATOR

CODE = re.compile(r"```(diff|python)\n((?:(?!```).*\n)+)```\s*")


@dataclass(frozen=True)
class Mistake:
    """A known mistake in an exercise: its name, the sentence shown to the student, the incorrect code, and the solution."""

    exercise: str
    name: str
    sentence: str
    source: str
    reference: str = field(repr=False)  # the build hashes the representation


def known_mistakes(day: Day) -> dict[str, list[Mistake]]:
    """Return the known mistakes for each of a day's exercises, in the order of the mistakes file.

    Raises:
        CourseError: A file is unreadable or does not match an exercise, a section is malformed, or a diff does not
            apply to the reference solution.
    """
    references = {
        cell.name: cell.solution.split("\n")
        for chapter in day.chapters
        for cell in chapter.cells
        if cell.role == "exercise"
    }
    expected = {f"{exercise.name}.md" for exercise in (*day.exercises, *day.unassigned)}
    for file in sorted(day.mistakes.glob("[!.]*.*")):
        if file.name not in expected:
            raise CourseError(
                f"{file}: the file name should be EXERCISE.md, where EXERCISE is the name of an exercise in {day.name}"
            )
    return {name: _read(day.mistakes / f"{name}.md", references[name]) for name in day.names}


def combine(first: Mistake, second: Mistake) -> str | None:
    """Return the solution with the changes of two mistakes, or None if they change the same lines or break the syntax."""
    changes = sorted([*_changes(first), *_changes(second)])
    for (start, end, _), (next_start, _, _) in itertools.pairwise(changes):
        if next_start < end or next_start == start:
            return None
    lines = first.reference.rstrip().split("\n")
    for start, end, new in reversed(changes):
        lines[start:end] = new
    source = "\n".join(lines) + "\n"
    try:
        ast.parse(source)
    except SyntaxError:
        return None
    return source


def _changes(mistake: Mistake) -> list[tuple[int, int, list[str]]]:
    """Return the start and end of each range of lines that a mistake changes in the solution, and the new lines."""
    old, new = (text.rstrip().split("\n") for text in (mistake.reference, mistake.source))
    return [
        (start, end, new[new_start:new_end])
        for tag, start, end, new_start, new_end in SequenceMatcher(
            None, old, new, autojunk=False
        ).get_opcodes()
        if tag != "equal"
    ]


def _read(file: Path, reference: Sequence[str]) -> list[Mistake]:
    """Read the mistakes file of one exercise (a title and one section per mistake). Return [] if there is no file."""
    if not file.exists():
        return []
    title, *sections = re.split(r"^## ", read_text(file), flags=re.MULTILINE)
    if title.strip() != f"# {file.stem}":
        raise CourseError(f"{file}: the first line should be `# {file.stem}`")
    found: dict[str, Mistake] = {}
    for section in sections:
        name = section.split("\n")[0].strip()
        if name in found:
            raise CourseError(f"{file}: two mistakes are named {name!r}")
        if MISTAKE_SEPARATOR in name:
            raise CourseError(f"{file}: {name!r}: a name cannot contain {MISTAKE_SEPARATOR!r}")
        try:
            found[name] = _mistake(file.stem, section, reference)
        except ValueError as error:
            raise CourseError(f"{file}: {name!r}: {error}") from None
    return list(found.values())


def _mistake(exercise: str, section: str, reference: Sequence[str]) -> Mistake:
    """Parse one section of a mistakes file: a name, a paragraph for students, an optional source, and a code block."""
    name, _, body = section.partition("\n")
    text, fence, block = body.partition("```")
    code = CODE.fullmatch(fence + block)
    if not code:
        raise ValueError("the section should end with one code block, either ```diff or ```python")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    is_source = [part.startswith("Source:") for part in paragraphs]
    if is_source not in ([False], [False, True]):
        raise ValueError(
            "the section should have one paragraph for students, optionally followed by one that starts with `Source:`"
        )
    language, source = code.groups()
    if language == "diff":
        source = _changed(reference, source)
    return Mistake(exercise, name.strip(), paragraphs[0], source, "\n".join(reference))


def _changed(reference: Sequence[str], diff: str) -> str:
    """Apply a diff to the reference solution and return the resulting code. Hunks in the diff are separated by `@@` lines."""
    hunks = [_hunk(hunk, reference) for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)]
    lines = list(reference)
    end = len(lines)
    for start, count, new in sorted(hunks, reverse=True):
        if start + count > end:
            raise ValueError(f"two hunks of the diff overlap at {lines[end]!r}")
        lines[start : start + count] = new
        end = start
    return "\n".join(lines) + "\n"


def _hunk(hunk: str, reference: Sequence[str]) -> tuple[int, int, list[str]]:
    """Return the line at which a hunk of a diff applies, the number of lines that it replaces, and the new lines.

    A hunk may omit indentation that all its lines share.
    """
    marked = hunk.splitlines()
    for line in marked:
        if line[:1] not in ("-", "+", " ", ""):
            raise ValueError(f"each line of a diff should start with -, + or a space: {line!r}")
    old = [line[1:].rstrip() for line in marked if not line.startswith("+")]
    new = [line[1:].rstrip() for line in marked if not line.startswith("-")]
    if not any(old) or old == new:
        raise ValueError(
            f"a hunk should contain at least one line of the reference solution and at least one change: {hunk!r}"
        )
    places: list[tuple[int, str]] = []
    for start in range(len(reference) - len(old) + 1):
        indent = reference[start].removesuffix(old[0])
        if not indent.strip() and _indented(old, indent) == reference[start : start + len(old)]:
            places.append((start, indent))
    if len(places) != 1:
        contains = (
            f"contains these lines {len(places)} times"
            if places
            else "does not contain these lines"
        )
        first = next(line for line in old if line)
        raise ValueError(f"the reference solution {contains}: {first!r}")
    start, indent = places[0]
    return start, len(old), _indented(new, indent)


def _indented(lines: Sequence[str], indent: str) -> list[str]:
    return [indent + line if line else "" for line in lines]
