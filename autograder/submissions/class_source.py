"""Find a class's submissions and replace the students' names with those on the roster. Entry point: `find_submissions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.submissions.client import Reader
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.submission import Submission, read_submissions


@dataclass(frozen=True)
class FoundSubmission:
    """A submission, and the command-line path under which it was found."""

    submission: Submission
    under: Path


def find_submissions(
    paths: Sequence[Path], day: str, reader: Reader, roster: Roster = NO_ROSTER
) -> Iterator[FoundSubmission]:
    """Yield the submissions found under each path in turn, with the students' names replaced by those on the roster."""
    for path in paths:
        for submission in read_submissions([path], day, reader):
            yield FoundSubmission(apply_roster(submission, roster), path)


def apply_roster(submission: Submission, roster: Roster) -> Submission:
    """Return a copy of the submission with the student names from the roster. Names that are not on the roster are kept."""
    if not roster.entries:
        return submission
    people = (submission.handed_in or HandedIn((Person(submission.student),))).people
    found = [(person, roster.find(person)) for person in people]
    names = [entry.student if entry else person.name for person, entry in found]
    return replace(submission, student=", ".join(dict.fromkeys(names)))
