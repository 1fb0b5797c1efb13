"""Find a class's submissions, one per student, using names from the roster. Entry point: `find_submissions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import Day, known_names
from autograder.submissions.choice import choose, find_day
from autograder.submissions.reader_client import Reader
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.submission import Submission, read_students

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
