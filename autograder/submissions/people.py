"""Represent who submitted a file, and when. Reader processes send this data to the grader, which stores it in the marks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from autograder.protocol.plain_text import LONGEST, printable

Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
MAX_PEOPLE = 100  # people per group submission
YEARS = range(
    2000, 2100
)  # years outside this range are implausible and could overflow in date arithmetic


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person, as identified by one platform. Unknown fields are empty."""

    name: Name = ""
    id: Name = ""
    email: Name = ""


class HandedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """The people who made a submission and the submission time, as reported by a platform or nbgrader.

    File modification times are never used. `late` is set if the platform marks the submission as late without giving a time.
    `participant` is the participant number in Moodle's grading worksheet.
    """

    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
    late: bool = False
    time: datetime | None = None
    participant: Name = ""

    @property
    def student(self) -> str:
        """Return the people's names, separated by commas."""
        return ", ".join(person.name or person.id for person in self.people)

    def sanitized(self) -> HandedIn:
        """Return a copy in which every string is printable and the time is plausible. Use this for data from a reader process."""
        people = [[printable(text) for text in (p.name, p.id, p.email)] for p in self.people]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        return HandedIn(persons, self.late, time, printable(self.participant))
