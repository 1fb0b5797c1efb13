"""Represent who submitted a file and when. Reader processes send this data to the grader, which stores it in the marks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from autograder.plain_text import LONGEST, printable

Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
MAX_PEOPLE = 100  # maximum number of people per submission
MAX_UPLOAD = 1 << 62
YEARS = range(2000, 2100)  # other years are implausible and could overflow in date arithmetic


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as identified by a platform. Unknown fields are empty. `student` is the person's name on the roster."""

    name: Name = ""
    id: Name = ""
    email: Name = ""
    student: Name = ""

    @property
    def label(self) -> str:
        """Return the person's name on the roster if it is known, and otherwise the name and id from the platform.

        The id distinguishes people with the same name.
        """
        if self.student:
            return self.student
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

    def handed_in(self) -> HandedIn:
        """Return the person and submission according to this interpretation."""
        return HandedIn((Person(self.name or self.id, self.id),), self.late, upload=self.upload)


class HandedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """The people who made a submission and the submission time, as reported by a platform or nbgrader.

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

    @property
    def student(self) -> str:
        """Return the people's names, separated by commas."""
        names = (person.student or person.name or person.id for person in self.people)
        return ", ".join(dict.fromkeys(names))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a label for each person. No two people on the platform have the same label."""
        if not self.participant:
            return tuple(person.label for person in self.people)
        number = f" {self.participant}"  # a hidden name in Moodle ends with the participant number
        return tuple(
            p.student or (p.name if p.name.endswith(number) else f"{p.name} ({self.participant})")
            for p in self.people
        )

    def without_roster(self) -> HandedIn:
        """Return a copy without the names from the roster."""
        people = tuple(msgspec.structs.replace(person, student="") for person in self.people)
        return msgspec.structs.replace(self, people=people)

    def sanitized(self) -> HandedIn:
        """Return a copy with printable strings and a plausible time. Use this method for data from a reader process."""
        people = [[printable(text) for text in (p.name, p.id, p.email)] for p in self.people]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        participant = printable(self.participant)
        readings = tuple(
            msgspec.structs.replace(r, name=printable(r.name), id=printable(r.id))
            for r in self.readings
        )
        return HandedIn(persons, self.late, time, participant, self.upload, readings)

    def is_older(self, other: HandedIn) -> bool:
        """Return whether, according to the platform, this submission was made before `other`."""
        if self.time and other.time:
            return self.time < other.time
        return bool(self.upload and other.upload) and self.upload < other.upload


def ambiguous(readings: Sequence[NameReading]) -> HandedIn:
    """Return a submission whose student is unknown, because its file name is ambiguous."""
    first = readings[0]
    # The label must not contain the upload number, which changes with each submission.
    person = Person(f"{first.name} ({first.id}?)")
    return HandedIn((person,), any(one.late for one in readings), readings=tuple(readings))


def labels(student: str, handed_in: HandedIn | None) -> tuple[str, ...]:
    """Return a unique label for each student who made a submission.

    A label is the student's name on the roster, which is unique. For students who are not on the roster, it is the name
    and id from the platform.
    """
    if handed_in is None:
        return (student,)
    if printable(handed_in.student) == student:
        return handed_in.labels
    names = tuple(student.split(", "))
    return names if len(names) == len(handed_in.people) else (student,)
