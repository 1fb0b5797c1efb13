"""Represent who submitted a file, when, and where. Reader processes send this data to the grader, which stores it in the marks.

A student is an id: each source (a platform, or the folder's name) gives the student an id, and the student's *key* consists of
the source and this id. Names are only for reading. Entry point: `Origin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from autograder.plain_text import LONGEST, printable

Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
Source = Literal["canvas", "moodle", "gradescope", "folder"]
MAX_PEOPLE = 100  # maximum number of people per submission
MAX_UPLOAD = 1 << 62
YEARS = range(2000, 2100)  # other years are implausible and could overflow in date arithmetic


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as identified by a source. Unknown fields are empty."""

    name: Name = ""
    id: Name = ""
    email: Name = ""

    @property
    def label(self) -> str:
        """Return the name and the id, which distinguishes people with the same name."""
        key = self.id or self.email
        if self.name and key.startswith(f"{self.name} "):
            return key
        return (
            f"{self.name} ({key})" if self.name and key not in ("", self.name) else self.name or key
        )


class NameReading(msgspec.Struct, frozen=True):
    """One way to interpret a file name in Canvas's format, which is ambiguous if the student's name contains digits."""

    name: Name
    id: Name
    late: bool = False
    upload: Annotated[int, msgspec.Meta(ge=0, le=MAX_UPLOAD)] = 0

    def origin(self) -> Origin:
        """Return the person and submission according to this interpretation."""
        person = Person(self.name or self.id, self.id)
        return Origin((person,), self.late, upload=self.upload, source="canvas")


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The people who made a submission, the submission time and the source that reported them.

    File modification times are never used. `late` is set if the platform marks the submission as late without giving a
    time. `participant` is the participant number in Moodle's grading worksheet. `upload` is Canvas's file number, which
    is higher for later uploads. If a file's name is ambiguous, `readings` contains all ways to interpret it.
    """

    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
    late: bool = False
    time: datetime | None = None
    participant: Name = ""
    upload: Annotated[int, msgspec.Meta(ge=0, le=MAX_UPLOAD)] = 0
    readings: Annotated[tuple[NameReading, ...], msgspec.Meta(max_length=MAX_PEOPLE)] = ()
    source: Source = "folder"

    def __post_init__(self) -> None:
        if self.source == "folder" and any(one.id or one.email for one in self.people):
            # Marks from versions before 0.2 do not contain the source.
            known = "canvas" if self.upload or self.readings else "gradescope"
            msgspec.structs.force_setattr(self, "source", known)
        elif self.source == "folder" and (self.participant or self.readings):
            known = "moodle" if self.participant else "canvas"
            msgspec.structs.force_setattr(self, "source", known)

    @property
    def student(self) -> str:
        """Return the people's names, separated by commas."""
        return ", ".join(dict.fromkeys(person.name or person.id for person in self.people))

    @property
    def ids(self) -> tuple[str, ...]:
        """Return each person's id in the source: an id, a participant number, an email address or a folder's name."""
        return tuple(p.id or self.participant or p.email or p.name for p in self.people)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return each person's key, such as "canvas 4211". Ids of different sources are never compared."""
        return tuple(f"{self.source} {id_}" for id_ in self.ids)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a label for each person. No two people in the source have the same label."""
        if not self.participant:
            return tuple(person.label for person in self.people)
        number = f" {self.participant}"  # a hidden name in Moodle ends with the participant number
        return tuple(
            p.name if p.name.endswith(number) else f"{p.name} ({self.participant})"
            for p in self.people
        )

    def sanitized(self) -> Origin:
        """Return a copy with printable strings and a plausible time. Use this method for data from a reader process."""
        people = [[printable(text) for text in (p.name, p.id, p.email)] for p in self.people]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        readings = tuple(
            msgspec.structs.replace(r, name=printable(r.name), id=printable(r.id))
            for r in self.readings
        )
        number = printable(self.participant)
        return Origin(persons, self.late, time, number, self.upload, readings, self.source)

    def is_older(self, other: Origin) -> bool:
        """Return whether, according to the platform, this submission was made before `other`."""
        if self.time and other.time:
            return self.time < other.time
        return bool(self.upload and other.upload) and self.upload < other.upload


def ambiguous(readings: Sequence[NameReading]) -> Origin:
    """Return a submission whose student is unknown, because its file name is ambiguous."""
    first = readings[0]
    # The label must not contain the upload number, which changes with each submission.
    person = Person(f"{first.name} ({first.id}?)")
    late = any(one.late for one in readings)
    return Origin((person,), late, readings=tuple(readings), source="canvas")


def from_folder(name: str) -> Origin:
    """Return the origin of a file whose student is known only by the name of its folder, or by its own name."""
    return Origin((Person(name),))


def labels(student: str, origin: Origin) -> tuple[str, ...]:
    """Return a label for each student: the names in `student`, unless they are the platform's, which need an id."""
    if printable(origin.student) == student:
        return origin.labels
    names = tuple(student.split(", "))
    return names if len(names) == len(origin.people) else (student,)
