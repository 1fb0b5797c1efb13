"""Who handed something in, and when: plain data that passes through the wall and into the marks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from autograder.protocol.plain_text import LONGEST, printable

Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
MAX_PEOPLE = 100  # who hand in together
YEARS = range(2000, 2100)  # others would overflow somewhere, and are no time of this course


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody as one system names them; what it does not say is empty."""

    name: Name = ""
    id: Name = ""
    email: Name = ""


class HandedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who, and when: `late` is a mark of being late without how late; a file's own time is never taken.

    `participant` is the number that Moodle's grading worksheet has for them.
    """

    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
    late: bool = False
    time: datetime | None = None
    participant: Name = ""

    @property
    def student(self) -> str:
        """The name, or the names with commas between them."""
        return ", ".join(person.name or person.id for person in self.people)

    def sanitized(self) -> HandedIn:
        """The same, safe to show and to count with, where it comes from behind the wall."""
        people = [[printable(text) for text in (p.name, p.id, p.email)] for p in self.people]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        return HandedIn(persons, self.late, time, printable(self.participant))
