"""Represent who submitted a file, and when, as plain data that reader processes send and marks contain."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from autograder.protocol.plain_text import LONGEST, printable

Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
MAX_PEOPLE = 100  # in one group submission
YEARS = range(
    2000, 2100
)  # years outside this range are implausible and could overflow in date arithmetic


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person, as one platform identifies them. Unknown fields are empty."""

    name: Name = ""
    id: Name = ""
    email: Name = ""


class HandedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """The people who made a submission, and its time, as reported by a platform or nbgrader.

    File modification times are never used. `late` is set if the platform marks the submission as late without giving a time.
    `participant` is the participant number in Moodle's grading worksheet.
    """

    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
    late: bool = False
    time: datetime | None = None
    participant: Name = ""

    @property
    def student(self) -> str:
        """The people's names, separated by commas."""
        return ", ".join(person.name or person.id for person in self.people)

    def sanitized(self) -> HandedIn:
        """Return a copy with printable strings and a plausible time, for use on data from a reader process."""
        people = [[printable(text) for text in (p.name, p.id, p.email)] for p in self.people]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        return HandedIn(persons, self.late, time, printable(self.participant))
