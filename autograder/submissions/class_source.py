"""Find the submissions of a class and name their students as the roster does. Entry point: `find_submissions`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from autograder.submissions.client import Reader
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.submission import Submission, read_submissions


@dataclass(frozen=True)
class FoundSubmission:
    """A submission, and the command-line path under which it was found."""

    submission: Submission
    under: Path


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` disjoint parts of a class."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard written as "2/5".

        Raises:
            ValueError: `text` has another form, or the number exceeds the count.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"invalid shard {text!r}: expected K/N with 1 ≤ K ≤ N, such as 2/5")
        return cls(int(match[1]), int(match[2]))

    def contains(self, submission: Submission) -> bool:
        """Return whether a submission belongs to this part. A hash of the student's name decides, so all machines agree."""
        digest = hashlib.sha256(submission.student.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1


def find_submissions(
    paths: Sequence[Path],
    day: str,
    reader: Reader,
    shard: Shard | None = None,
    roster: Roster = NO_ROSTER,
) -> Iterator[FoundSubmission]:
    """Yield the submissions found under the paths, in the order of the paths, with the roster's names for their students."""
    for path in paths:
        for submission in read_submissions([path], day, reader):
            if shard is None or shard.contains(submission):
                yield FoundSubmission(apply_roster(submission, roster), path)


def apply_roster(submission: Submission, roster: Roster) -> Submission:
    """Return the submission with the roster's names for its students. Students who are not on the roster keep their names."""
    if not roster.entries:
        return submission
    people = (submission.handed_in or HandedIn((Person(submission.student),))).people
    found = [(person, roster.find(person)) for person in people]
    names = [entry.student if entry else person.name for person, entry in found]
    return replace(submission, student=", ".join(dict.fromkeys(names)))
