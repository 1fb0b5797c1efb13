"""Who handed something in, and when: plain data that passes through the wall and into the marks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

LONGEST = 300  # characters of one name
Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
MAX_PEOPLE = 100  # who hand in together


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
