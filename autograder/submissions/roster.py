"""Read the class roster, which maps names from the learning platform, nbgrader and the course to students.

`roster.csv`, next to `grading.toml`, has one row per student, but may omit students. The required columns are id (on
the platform), student (in nbgrader) and name. The optional columns are email, group, extension (in hours), late_hours
and excused. The last three may apply to a single day, as in late_hours_day1. Git ignores the file because it contains
personal data. Entry points: `load` and `for_course`.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import msgspec

from autograder.course.config import CourseError
from autograder.submissions.people import HandedIn, Person, ambiguous
from autograder.submissions.roster_entry import (
    USER_NAME,
    Entry,
    normalize,
    platform_id,
    rotations,
)

FILE = "roster.csv"
REQUIRED = ("id", "student", "name")
# Strings with at least this difflib similarity (0 to 1) may be different spellings of the same student or column name.
SIMILAR_NAME = 0.8
SIMILAR_COLUMN = 0.75
BY_HAND = re.compile(
    r"(extension|late_hours|excused)(?:_(.+))?"
)  # the second group is the name of a day
YES, NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0", "")


@dataclass(frozen=True)
class Roster:
    """The students of a course. Empty if the course has no roster file."""

    entries: tuple[Entry, ...]

    def find(
        self, person: Person, label: str = "", participant: str = "", has_own_name: bool = False
    ) -> Entry | None:
        """Find a person on the roster by id, e-mail address, `label` or number in Moodle, or otherwise by full name.

        If a folder's name is all that is known of a person, it may also be an id or the name in nbgrader. This is not the
        case if there is a `participant` number or `has_own_name` is set, because students choose their own names on a
        platform.

        Returns None if no student matches, if several students have the same name, or if the id and name do not match.
        """
        by_key = self.find_by_key(person, label, participant, has_own_name)
        by_name = self._namesakes(person)
        if by_key is None:
            is_found = len(by_name) == 1 and not by_name[0].contradicts(person)
            return by_name[0] if is_found else None
        # Different systems may use the same number for different students. In that case, the names differ.
        exact = (self._labelled(person, label), self._numbered(person, participant))
        is_same = not by_name or by_key in by_name or by_key in exact
        return by_key if is_same else None

    def find_by_key(
        self, person: Person, label: str = "", participant: str = "", has_own_name: bool = False
    ) -> Entry | None:
        """Find a person by id, e-mail address or number, by a label with one of these, or by a folder's name; see `find`."""
        is_folder = not (has_own_name or participant or person.id or person.email)
        keys = (person.id, person.email, person.name if is_folder else "")
        found = next(filter(None, (self._by_key.get(key.casefold()) for key in keys)), None)
        return found or self._labelled(person, label) or self._numbered(person, participant)

    def _numbered(self, person: Person, participant: str) -> Entry | None:
        found = self._by_key.get(participant.casefold())
        return found if found and found.has_number(person, participant) else None

    def _labelled(self, person: Person, label: str) -> Entry | None:
        """Return the student whose row contains the label of a person, such as `lovelaceada (4211)`."""
        contains_id = label not in ("", person.name)
        found = self._by_label.get(label.casefold()) if contains_id else None
        return found if found and not found.contradicts(person) else None

    def find_with_other_id(self, person: Person) -> Entry | None:
        """Return the student who has the person's name, but a different id."""
        return next((one for one in self._namesakes(person) if one.contradicts(person)), None)

    def _namesakes(self, person: Person) -> Sequence[Entry]:
        """Return the students with this name. Beside a platform's id, it may be all that a row contains."""
        name = normalize(person.name)
        found = self._by_name.get(name, ())
        return found or (self._by_only_name.get(name, ()) if platform_id(person) else ())

    def read(self, source: HandedIn) -> HandedIn:
        """Choose between the readings of a file name if the roster contains the id of only one, or otherwise its full name."""
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
        """Map e-mail addresses, nbgrader names and ids to students.

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
        """Map the user names in `student` to rows that contain no other name, id or e-mail address."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if USER_NAME.fullmatch(entry.student) and not (entry.id or entry.name or entry.email):
                found.setdefault(normalize(entry.student), []).append(entry)
        return found


NO_ROSTER = Roster(())


def load(file: Path) -> Roster:
    """Load a roster from a CSV file. The delimiter may be a comma, a semicolon or a tab.

    The file must be encoded in UTF-8, with or without a byte order mark.

    Raises:
        CourseError: The file cannot be read or has an invalid line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CourseError(f"{file} could not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CourseError(f"{file} is not UTF-8. Save it as “CSV UTF-8”.") from None
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=guess_delimiter(text), strict=True)
    try:
        head = [cell.strip().casefold() for cell in next(rows, [])]
        _check_columns(file, head)
        entries: list[Entry] = []
        for cells in rows:
            if any(cell.strip() for cell in cells):
                entries.append(_entry(f"{file}, line {rows.line_num}", head, cells, entries))
    except csv.Error as error:
        raise CourseError(f"{file}, line {rows.line_num}: invalid CSV: {error}") from None
    return Roster(tuple(entries))


def for_course(root: Path, file: Path | None = None) -> Roster:
    """Load the given roster file, or the course's `roster.csv` by default. Return an empty roster if there is no file.

    Raises:
        CourseError: The file cannot be read or has an invalid line.
    """
    default = root / FILE
    if file is None and not default.is_file():
        return NO_ROSTER
    return load(file or default)


def guess_delimiter(text: str) -> str:
    """Return the delimiter of a CSV file: the candidate that occurs most often in the first line."""
    first = text.lstrip("\ufeff\r\n").split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _check_columns(file: Path, head: Sequence[str]) -> None:
    known = [field.name for field in fields(Entry)]
    where = f"{file}, line 1"
    for column in REQUIRED:
        if column not in head:
            raise CourseError(
                f"{where}: column {column!r} is missing. Required: {', '.join(REQUIRED)}. "
                f"Found: {', '.join(filter(None, head)) or 'none'}."
            )
    for column in (column for column in head if not BY_HAND.fullmatch(column)):
        close = difflib.get_close_matches(column, known, 1, SIMILAR_COLUMN)
        if close and column not in known:
            raise CourseError(f"{where}: unknown column {column!r}. Did you mean {close[0]!r}?")
        if close and head.count(column) > 1:
            raise CourseError(f"{where}: column {column!r} occurs twice")


def _entry(where: str, head: Sequence[str], cells: Sequence[str], before: Iterable[Entry]) -> Entry:
    if len(cells) != len(head):
        raise CourseError(
            f"{where}: the row has {len(cells)} cells, but the header has {len(head)}"
        )
    row = {column: cell.strip() for column, cell in zip(head, cells, strict=True)}
    if not row["student"]:
        raise CourseError(f"{where}: the column 'student' is empty")
    if ", " in row["student"] or "/" in row["student"]:
        raise CourseError(
            f"{where}: student {row['student']!r} is not a valid nbgrader folder name: it must not contain '/' or ', '"
        )
    for entry in before:
        for column in ("id", "student"):
            if row[column] and row[column].casefold() == getattr(entry, column).casefold():
                raise CourseError(f"{where}: {column} {row[column]!r} occurs twice")
    texts = {column: row.get(column, "") for column in (*REQUIRED, "email", "group")}
    extension, late = (_hours(where, row, column) for column in ("extension", "late_hours"))
    return Entry(**texts, extension=extension, late_hours=late, excused=_excused(where, row))


def _hours(where: str, row: Mapping[str, str], name: str) -> tuple[tuple[str, float], ...]:
    """Return the day ("" for every day) and the hours in each filled cell of the columns with this name."""
    hours = []
    for column, cell in row.items():
        found = BY_HAND.fullmatch(column)
        if found and found[1] == name and cell:
            if not re.fullmatch(r"\d+([.,]\d+)?", cell):
                raise CourseError(f"{where}: {column} {cell!r} is not a number of hours")
            hours.append((found[2] or "", float(cell.replace(",", "."))))
    return tuple(hours)


def _excused(where: str, row: Mapping[str, str]) -> tuple[str, ...]:
    """Return the days ("" for every day) on which the student's lateness is excused."""
    days = []
    for column, cell in row.items():
        found = BY_HAND.fullmatch(column)
        if found and found[1] == "excused":
            if cell.casefold() not in (*YES, *NO):
                raise CourseError(f"{where}: {column} {cell!r} is neither yes nor no")
            days += [found[2] or ""] if cell.casefold() in YES else []
    return tuple(days)
