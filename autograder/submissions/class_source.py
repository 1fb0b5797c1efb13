"""Find the submissions of a class under the paths that were given, under the roster's names. Entry point: `find_submissions`."""

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
    """A submission, and the path that was given when it was found."""

    submission: Submission
    under: Path


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a class, from 1; they have nothing in common, and all of it together."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The part that "2/5" names.

        Raises:
            ValueError: it names none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text}: should be K/N, such as 2/5")
        return cls(int(match[1]), int(match[2]))

    def contains(self, submission: Submission) -> bool:
        """Whether a submission is of this part; decided by its student's name, so on every machine alike."""
        digest = hashlib.sha256(submission.student.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1


def find_submissions(
    paths: Sequence[Path],
    day: str,
    reader: Reader,
    shard: Shard | None = None,
    roster: Roster = NO_ROSTER,
) -> Iterator[FoundSubmission]:
    """What is found under the paths, in their order, under the roster's names."""
    for path in paths:
        for submission in read_submissions([path], day, reader):
            if shard is None or shard.contains(submission):
                yield FoundSubmission(apply_roster(submission, roster), path)


def apply_roster(submission: Submission, roster: Roster) -> Submission:
    """The same under the names that the roster has for its students; who is not on it keeps theirs."""
    if not roster.entries:
        return submission
    people = (submission.handed_in or HandedIn((Person(submission.student),))).people
    found = [(person, roster.find(person)) for person in people]
    names = [entry.student if entry else person.name for person, entry in found]
    return replace(submission, student=", ".join(dict.fromkeys(names)))
