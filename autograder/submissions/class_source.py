"""Find a class's submissions, one per student, using names from the roster. Entry point: `find_submissions`."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import Day, known_names
from autograder.plain_text import list_names
from autograder.submissions.cell import EMPTY_FILE, EMPTY_NOTEBOOK, Cell, definitions
from autograder.submissions.filenames import is_other_day, stem
from autograder.submissions.origin import original_name
from autograder.submissions.reader_client import Reader
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.submission import Submission, read_students

STATEMENT = re.compile(r"^[^\s#)\]}]", re.MULTILINE)  # a line that begins a top-level statement
STUB = "NotImplementedError"
EARLIEST = datetime.min.replace(tzinfo=UTC)


def choose(candidates: Sequence[Submission], exercises: Collection[str]) -> Submission:
    """Choose which of a student's submissions to grade, and return it.

    Prefer the submission with the most exercises filled in, then the newest one according to the platform, then the first
    one by name. If there are several candidates, the result's `problems` list the candidates that were not graded. If no
    candidate is readable, `problems` gives the reason for each candidate.
    """
    if len(candidates) == 1:
        return candidates[0]
    names = _short_names(candidates)
    filled = [len(filled_in(each.cells, exercises)) for each in candidates]

    def rank(number: int) -> tuple[bool, int, float, str]:
        each = candidates[number]
        time = each.handed_in.time if each.handed_in else None
        seconds = (time or EARLIEST).timestamp()
        return not each.readable, -filled[number], -seconds, names[number]

    best, *others = sorted(range(len(candidates)), key=rank)
    if not candidates[best].readable:
        reasons = [f"{names[n]}: {'; '.join(candidates[n].problems)}" for n in (best, *others)]
        return replace(candidates[best], problems=tuple(reasons))
    left_out = list_names(_describe(candidates[n], names[n], filled[n]) for n in others)
    taken = _describe(candidates[best], names[best], filled[best])
    problem = f"{len(candidates)} files were submitted; graded: {taken}; not graded: {left_out}"
    own = [f"{names[best]}: {each}" for each in candidates[best].problems]
    return replace(candidates[best], problems=(problem, *own))


def filled_in(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises whose last definition in the cells is not a stub."""
    found: set[str] = set()
    for cell in (cell for cell in cells if cell.kind == "code"):
        for match in definitions(cell.source):
            if match[1] in exercises:
                end = STATEMENT.search(cell.source, match.end())
                body = cell.source[match.end() : end.start() if end else None]
                (found.discard if STUB in body else found.add)(match[1])
    return found


def find_day(submission: Submission, day: str, exercises: Mapping[str, Collection[str]]) -> str:
    """Return the day to which a submission belongs.

    A notebook that defines an exercise of `day` belongs to that day. Otherwise, the day is determined by the release
    stamp, then by exercises of other days, and then by the file name. `exercises` maps each day to its exercises.
    """
    if defined(submission.cells, exercises[day]):
        return day
    if stamped := submission.release.partition(" ")[0]:
        return stamped
    for name, names in exercises.items():
        if defined(submission.cells, names):
            return name
    file = stem(original_name(os.path.basename(submission.path)))
    return file if is_other_day(file, day) else day


def defined(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises that the cells define, whether or not they are filled in."""
    code = (cell.source for cell in cells if cell.kind == "code")
    found = (match[1] for source in code for match in definitions(source))
    return {name for name in found if name in exercises}


def _describe(submission: Submission, name: str, filled: int) -> str:
    if not submission.readable:
        is_empty = not {EMPTY_FILE, EMPTY_NOTEBOOK}.isdisjoint(submission.problems)
        return f"{name} ({'empty' if is_empty else 'unreadable'})"
    return f"{name} ({filled} {'exercise' if filled == 1 else 'exercises'} filled in)"


def _short_names(candidates: Sequence[Submission]) -> list[str]:
    """Return the original file names of a student's submissions, or relative paths if the names are not unique."""
    names = [original_name(os.path.basename(each.path)) for each in candidates]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([os.path.dirname(each.path) for each in candidates])
    return [os.path.relpath(each.path, above or ".") for each in candidates]


AMBIGUOUS = (
    "the file's name does not show who submitted it: the student's id in Canvas may be {ids}, and the file was graded as "
    "{label}. If that is wrong, the TA can enter the correct id in roster.csv and grade the file again"
)


@dataclass(frozen=True)
class FoundSubmission:
    """A submission and the command-line path under which it was found."""

    submission: Submission
    under: Path


def find_submissions(
    paths: Sequence[Path], day: Day, reader: Reader, roster: Roster = NO_ROSTER
) -> Iterator[FoundSubmission]:
    """Yield one submission per student or group under each path, with student names from the roster.

    A notebook for a different day becomes an unreadable submission.
    """
    exercises = {other.name: known_names(other) for other in courses.load(day.root).days.values()}
    exercises[day.name] = known_names(day)
    for path, of_student in read_students(paths, day.name, reader):
        chosen = choose(of_student, exercises[day.name])
        found = find_day(chosen, day.name, exercises) if chosen.readable else day.name
        if found != day.name:
            problem = f"this is the notebook for {found}, not for {day.name}"
            chosen = replace(chosen, problems=(problem,), readable=False, release="")
        yield FoundSubmission(apply_roster(chosen, roster, day.name), path)


def apply_roster(submission: Submission, roster: Roster, day: str) -> Submission:
    """Return a copy of the submission with student names from the roster. Keep names that are not on the roster."""
    origin = roster.read(submission.origin, day)
    found = zip(roster.find(origin, day), origin.people, strict=True)
    names = [entry.student if entry else person.name or person.id for entry, person in found]
    problems = submission.problems
    if origin.readings:
        ids = " or ".join(reading.id for reading in origin.readings)
        problems = (AMBIGUOUS.format(ids=ids, label=origin.labels[0]), *problems)
    student = ", ".join(dict.fromkeys(names))
    return replace(submission, student=student, handed_in=origin, problems=problems)
