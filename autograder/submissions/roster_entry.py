"""Represent a student on the roster, and compare names, ignoring case, accents and word order."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from autograder.submissions import platforms
from autograder.submissions.people import Person

USER_NAME = re.compile(r"[\w.@+-]+", re.ASCII)
LABEL = re.compile(r".* \([^()]*[\d@][^()]*\)")  # a name with an id or email address


@dataclass(frozen=True)
class Entry:
    """A student on the roster."""

    id: str
    student: str
    name: str
    email: str = ""
    group: str = ""
    # Manual entries for one day, or for every day (""): hours of extension, hours late, and whether lateness is excused.
    extension: tuple[tuple[str, float], ...] = ()
    late_hours: tuple[tuple[str, float], ...] = ()
    excused: tuple[str, ...] = ()

    def extension_on(self, day: str) -> float:
        """Return the student's extension in hours."""
        return _for_day(day, self.extension) or 0.0

    def hours_late(self, day: str) -> float | None:
        """Return how many hours late the student was according to the roster, or None if the roster has no entry for the day."""
        return _for_day(day, self.late_hours)

    def is_excused(self, day: str) -> bool:
        """Return whether the student is exempt from late penalties on this day."""
        return day.casefold() in self.excused or "" in self.excused

    def affects_lateness(self, day: str) -> bool:
        """Return whether the row affects the student's lateness on this day."""
        is_extended = bool(self.extension_on(day))
        return is_extended or self.is_excused(day) or self.hours_late(day) is not None

    def matches_participant(self, person: Person, participant: str) -> bool:
        """Return whether the row's id is this Moodle participant number and the row's name matches the person.

        The names are compared because the row's id may come from a different system. Either name may have fewer words.
        """
        if not participant or self.id != participant:
            return False
        own, other = (set(_words(text)) for text in (self.full_name or self.student, person.name))
        return bool(own and other) and (own <= other or other <= own)

    def contradicts(self, person: Person) -> bool:
        """Return whether the row's id differs from the platform's. Ignore leading zeros, because spreadsheets remove them."""
        ids = {one.casefold().lstrip("0") for one in (self.id, platform_id(person))}
        return bool(self.id and platform_id(person)) and len(ids) > 1

    @property
    def full_name(self) -> str:
        """Return the name, or `student` if the name is empty.

        Return "" if `student` is only a user name, or if the name contains an id or email address.
        """
        name = self.name or ("" if USER_NAME.fullmatch(self.student) else self.student)
        return "" if LABEL.fullmatch(name) else name

    @property
    def label(self) -> str:
        """Return the student's name for use in messages, for example `ada (Ada Lovelace, 12345)`."""
        more = [text for text in (self.name, self.id) if text and text not in self.student]
        return f"{self.student} ({', '.join(more)})" if more else self.student


def normalize(text: str) -> str:
    """Return a string's letters and digits in lower case without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def _for_day(day: str, values: tuple[tuple[str, float], ...]) -> float | None:
    """Return the value for this day. If there is none, return the value that applies to all days, or None."""
    by_day = dict(values)
    return by_day.get(day.casefold(), by_day.get(""))


def _words(name: str) -> list[str]:
    return [word for word in map(normalize, re.split(r"[\W_]+", name)) if word]


def rotations(name: str) -> set[str]:
    """Return all rotations of the words in a name, so that both “Ada Lovelace” and “Lovelace Ada” match."""
    words = _words(name)
    return {"".join(words[at:] + words[:at]) for at in range(len(words))}


def platform_id(person: Person) -> str:
    """Return a person's id, or "" if it is valid only within one download."""
    return "" if platforms.is_local_id(person.id) else person.id
