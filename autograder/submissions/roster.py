"""Find students on the class roster by their names on the learning platform. Entry point: `Roster`.

The roster maps names from the platform, nbgrader and the course to students. `roster_file` reads it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from autograder.submissions.people import HandedIn, Person, ambiguous
from autograder.submissions.roster_entry import (
    USER_NAME,
    Entry,
    normalize,
    platform_id,
    rotations,
)

# Names with at least this difflib similarity (0 to 1) may be different spellings of the same name.
SIMILAR_NAME = 0.8


@dataclass
class Roster:
    """A course's students. The roster is empty if the course has no roster file.

    The roster also records the known participant numbers in Moodle. A row whose id is one of these numbers does not match
    a person with a different number.
    """

    entries: tuple[Entry, ...]
    _numbers: set[str] = field(default_factory=set, init=False, compare=False)

    def add_participants(self, sources: Iterable[HandedIn | None]) -> None:
        """Record the participant numbers of these submissions."""
        self.add_numbers(s.participant for s in sources if s and s.participant)

    def add_numbers(self, numbers: Iterable[str]) -> None:
        """Record participant numbers. An empty roster, such as `NO_ROSTER`, never changes."""
        if self.entries:
            self._numbers.update(numbers)

    def find(
        self, person: Person, label: str = "", participant: str = "", has_own_name: bool = False
    ) -> Entry | None:
        """Find a person on the roster by id, email, `label` or participant number. If none of these match, use the full name.

        If only a folder's name identifies the person, that name is also compared with ids and nbgrader names. Names from
        a platform (if `participant` or `has_own_name` is set) are compared only with full names, because students choose
        them.

        Return None if no student matches, if several students have the same name, or if the id and name do not match.
        """
        by_key = self.find_by_key(person, label, participant, has_own_name)
        by_name = self._namesakes(person)
        if by_key is None:
            if len(by_name) != 1 or by_name[0].contradicts(person):
                return None
            has_other = participant and by_name[0].id in self._numbers - {participant}
            return None if has_other else by_name[0]
        # Different systems may use the same number for different students, whose names then differ.
        exact = (self._labelled(person, label), self._numbered(person, participant))
        is_same = not by_name or by_key in by_name or by_key in exact
        return by_key if is_same else None

    def find_by_key(
        self, person: Person, label: str = "", participant: str = "", has_own_name: bool = False
    ) -> Entry | None:
        """Find a person by id, email address, participant number, label or folder name; see `find`."""
        is_folder = not (has_own_name or participant or person.id or person.email)
        keys = (person.id, person.email, person.name if is_folder else "")
        found = next(filter(None, (self._by_key.get(key.casefold()) for key in keys)), None)
        return found or self._labelled(person, label) or self._numbered(person, participant)

    def _numbered(self, person: Person, participant: str) -> Entry | None:
        found = self._by_key.get(participant.casefold())
        return found if found and found.matches_participant(person, participant) else None

    def _labelled(self, person: Person, label: str) -> Entry | None:
        """Return the student whose roster row contains this person's label, such as `lovelaceada (4211)`."""
        contains_id = label not in ("", person.name)
        found = self._by_label.get(label.casefold()) if contains_id else None
        return found if found and not found.contradicts(person) else None

    def find_with_other_id(self, person: Person) -> Entry | None:
        """Return the student with the person's name but a different id."""
        return next((one for one in self._namesakes(person) if one.contradicts(person)), None)

    def _namesakes(self, person: Person) -> Sequence[Entry]:
        """Return the students with this name.

        If there are none and the platform provides an id, the name may be a user name. In that case, return the students who
        have it and whose rows contain no other name, id or email address.
        """
        name = normalize(person.name)
        found = self._by_name.get(name, ())
        return found or (self._by_only_name.get(name, ()) if platform_id(person) else ())

    def read(self, source: HandedIn) -> HandedIn:
        """Resolve an ambiguous file name if only one interpretation matches an id or, failing that, a full name on the
        roster."""
        readings = source.readings
        by_id = [one for one in readings if self.find_by_key(Person(id=one.id))]
        found = by_id or [
            one for one in readings if len(self._namesakes(Person(one.name, one.id))) == 1
        ]
        if len(found) == 1:
            late = any(one.late for one in readings)
            return msgspec.structs.replace(found[0].handed_in(), late=late)
        return ambiguous(readings) if by_id else source

    def find_all(self, source: HandedIn) -> list[Entry | None]:
        """Find the people who made a submission."""
        pairs = zip(source.people, source.without_roster().labels, strict=True)
        return [self.find(person, label, source.participant) for person, label in pairs]

    def students(self, names: str) -> tuple[Entry, ...]:
        """Look up the students in a comma-separated list. Return an empty tuple unless all of them are on the roster."""
        known = {entry.student: entry for entry in self.entries}
        parts = [names] if names in known else names.split(", ")
        return tuple(known[part] for part in parts) if all(p in known for p in parts) else ()

    def group(self, entry: Entry) -> tuple[Entry, ...]:
        """Return the student followed by the other members of the student's group."""
        others = [e for e in self.entries if e.group and e.group == entry.group and e != entry]
        return (entry, *others)

    def nearest(self, person: Person) -> Entry | None:
        """Return the student whose name is most similar to the person's, or None if no name is similar."""
        for text in filter(None, map(normalize, (person.name, person.label))):
            for close in difflib.get_close_matches(text, self._by_spelling, 1, SIMILAR_NAME):
                return self._by_spelling[close]
        return None

    @cached_property
    def _by_key(self) -> Mapping[str, Entry]:
        """Map email addresses, nbgrader names and ids to students.

        Ids take precedence over names, and names over addresses.
        """
        found: dict[str, Entry] = {}
        for column in ("email", "student", "id"):
            found |= {getattr(e, column).casefold(): e for e in self.entries if getattr(e, column)}
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for key in rotations(entry.full_name):
                found.setdefault(key, []).append(entry)
        return found

    @cached_property
    def _by_spelling(self) -> Mapping[str, Entry]:
        return {
            normalize(text): entry
            for entry in self.entries
            for text in (entry.student, *rotations(entry.full_name))
        }

    @cached_property
    def _by_label(self) -> Mapping[str, Entry]:
        texts = [(e.name, e) for e in self.entries] + [(e.student, e) for e in self.entries]
        return {text.casefold(): entry for text, entry in texts if text}

    @cached_property
    def _by_only_name(self) -> Mapping[str, Sequence[Entry]]:
        """Map user names in the `student` column to rows whose id, name and email are empty."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if USER_NAME.fullmatch(entry.student) and not (entry.id or entry.name or entry.email):
                found.setdefault(normalize(entry.student), []).append(entry)
        return found


NO_ROSTER = Roster(())
