"""Find students on the class roster by their ids. Entry points: `Roster`, `load` and `for_course`.

`roster.csv`, next to `grading.toml`, has at most one row per student; it need not list every student. The required
columns are id, student (the name in nbgrader and in the course) and name. The optional columns are the ids on each
platform (canvas, gradescope, and moodle_DAY for the participant number in a day's assignment), email, group, extension
(in hours), late_hours and excused. The last three may apply to a single day, for example late_hours_day1. Git ignores
the file because it contains personal data. Names are never compared.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.submissions.origin import Origin, Person, ambiguous

FILE = "roster.csv"
REQUIRED = ("id", "student", "name")
# Column names with at least this difflib similarity (0 to 1) may be different spellings of the same name.
SIMILAR_COLUMN = 0.75
# The second group is a day's name.
PLATFORM = re.compile(r"(canvas|gradescope|moodle)(?:_(.+))?")
MANUAL = ("extension", "late_hours", "excused")
BY_HAND = re.compile(rf"({'|'.join(MANUAL)})(?:_(.+))?")
MAX_HOURS = 100_000  # about eleven years
YES, NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0", "")


@dataclass(frozen=True)
class Entry:
    """A student: a row of the roster or, for a student who is not on the roster, what the platform knows.

    `key` is the student's key if the student is not on the roster (see `submissions/origin.py`). `platform_ids` maps columns
    such as "canvas" and "moodle_day1" to ids.
    """

    id: str
    student: str
    name: str
    email: str = ""
    group: str = ""
    # Manual entries for one day, or for every day (""): hours of extension, hours late, and whether lateness is excused.
    extension: tuple[tuple[str, float], ...] = ()
    late_hours: tuple[tuple[str, float], ...] = ()
    excused: tuple[str, ...] = ()
    platform_ids: tuple[tuple[str, str], ...] = ()
    key: str = ""

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

    def id_on(self, source: str, day: str) -> str:
        """Return the student's id in a source, or "" if it is unknown."""
        ids = dict(self.platform_ids)
        return ids.get(f"{source}_{day.casefold()}") or ids.get(source, "")

    @property
    def label(self) -> str:
        """Return the student's name for use in messages, for example `ada (Ada Lovelace, 12345)`."""
        more = [text for text in (self.name, self.id) if text and text not in self.student]
        return f"{self.student} ({', '.join(more)})" if more else self.student


def _for_day(day: str, values: tuple[tuple[str, float], ...]) -> float | None:
    """Return the value for this day. If there is none, return the value that applies to all days, or None."""
    by_day = dict(values)
    return by_day.get(day.casefold(), by_day.get(""))


def normalize_id(text: str) -> str:
    """Return an id for comparison: case and leading zeros do not count, because spreadsheets remove zeros."""
    return text.casefold().lstrip("0")


@dataclass(frozen=True)
class Roster:
    """A course's students. The roster is empty if the course has no roster file.

    `place` says in notes where the students are listed.
    """

    entries: tuple[Entry, ...]
    place: str = "on the roster"

    def find(self, origin: Origin, day: str) -> list[Entry | None]:
        """Find the people who made a submission. Return None for people who are not on the roster.

        A person is found by the id in the source's own column. If the roster has no such column, or the source is a folder,
        the column `id` counts. A folder may also be named after `student`. Email addresses count in every source.
        """
        return [
            self._find(origin.source, id_, person, day)
            for id_, person in zip(origin.ids, origin.people, strict=True)
        ]

    def _find(self, source: str, id_: str, person: Person, day: str) -> Entry | None:
        own = self._by_platform_id(source, day)
        columns = [own if own else self._by("id"), self._by("email")]
        if source == "folder":
            columns.insert(0, self._by("student"))
        wanted = [id_, *([person.email] if person.email else [])]
        found = (column.get(normalize_id(text)) for text in wanted if text for column in columns)
        return next(filter(None, found), None)

    def students(self, origin: Origin, day: str) -> list[tuple[Entry, Person, str]]:
        """Return each person who made a submission, with a row of the roster or, if there is none, a new row, and with a key."""
        origin = self.read(origin, day)
        rows = zip(self.find(origin, day), origin.people, origin.keys, origin.labels, strict=True)
        return [
            (entry or Entry(p.id, label, p.name, p.email, key=key), p, key)
            for entry, p, key, label in rows
        ]

    def with_keys(self, keys: Iterable[str], day: str) -> set[Entry]:
        """Return the rows of the students with these keys."""
        pairs = (key.partition(" ") for key in keys)
        found = (self._find(source, id_, Person(), day) for source, _, id_ in pairs)
        return {entry for entry in found if entry}

    def read(self, origin: Origin, day: str) -> Origin:
        """Resolve an ambiguous file name if only one interpretation has an id on the roster."""
        found = [one for one in origin.readings if self.find(one.origin(), day)[0]]
        if len(found) == 1:
            late = any(one.late for one in origin.readings)
            return msgspec.structs.replace(found[0].origin(), late=late)
        return ambiguous(origin.readings) if found else origin

    def group(self, entry: Entry) -> tuple[Entry, ...]:
        """Return the student followed by the other members of the student's group."""
        others = [e for e in self.entries if e.group and e.group == entry.group and e != entry]
        return (entry, *others)

    def student(self, name: str) -> Entry | None:
        """Return the row of the student with this nbgrader name."""
        return self._by("student").get(normalize_id(name))

    @property
    def lacks_platform_ids(self) -> bool:
        """Return whether the roster has no column with a platform's ids."""
        return bool(self.entries) and not any(entry.platform_ids for entry in self.entries)

    def _by(self, column: str) -> Mapping[str, Entry]:
        return self._columns[column]

    def _by_platform_id(self, source: str, day: str) -> Mapping[str, Entry]:
        return self._columns.get(f"{source}_{day.casefold()}") or self._columns.get(source, {})

    @cached_property
    def _columns(self) -> Mapping[str, Mapping[str, Entry]]:
        """Map each column of ids to a mapping from normalised ids to students."""
        found: dict[str, dict[str, Entry]] = {"id": {}, "student": {}, "email": {}}
        for entry in self.entries:
            cells = [("id", entry.id), ("student", entry.student), ("email", entry.email)]
            for column, id_ in (*cells, *entry.platform_ids):
                if id_:
                    found.setdefault(column, {}).setdefault(normalize_id(id_), entry)
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
        lines: dict[tuple[str, str], int] = {}
        for cells in rows:
            if any(cell.strip() for cell in cells):
                where = f"{file}, line {rows.line_num}"
                entries.append(_entry(where, head, cells))
                _check_unique(where, rows.line_num, entries[-1], lines)
    except csv.Error as error:
        raise CourseError(f"{file}, line {rows.line_num}: invalid CSV: {error}") from None
    return Roster(tuple(entries))


def for_course(root: Path, file: Path | None = None) -> Roster:
    """Load the given roster file, or the course's `roster.csv` by default. Return an empty roster if there is no file.

    Raises:
        CourseError: The file cannot be read or has an invalid line.
    """
    default = root / FILE
    # A link to a file that is missing now, for example on a network drive, is an error. Otherwise, extensions would be lost.
    if file is None and not os.path.lexists(default):
        return Roster(())
    found = load(file or default)
    _check_days(file or default, found, root)
    return found


def _check_days(file: Path, found: Roster, root: Path) -> None:
    """Check that each column for a single day refers to one of the course's days."""
    named = {
        day
        for entry in found.entries
        for day in (*dict(entry.extension), *dict(entry.late_hours), *entry.excused)
        if day
    } | {
        match[2]
        for entry in found.entries
        for column, _ in entry.platform_ids
        if (match := PLATFORM.fullmatch(column)) and match[2]
    }
    if not named:
        return
    days = list(courses.load(root).days)
    if wrong := sorted(named - {day.casefold() for day in days}):
        raise CourseError(
            f"{file}: a column ends in {'_' + wrong[0]!r}, but the days of the course are {', '.join(days)}"
        )


def guess_delimiter(text: str) -> str:
    """Return the delimiter of a CSV file: the candidate that occurs most often in the first line."""
    first = text.lstrip("\ufeff\r\n").split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _check_columns(file: Path, head: Sequence[str]) -> None:
    known = [*REQUIRED, "email", "group", "canvas", "gradescope", "moodle", *MANUAL]
    where = f"{file}, line 1"
    for column in REQUIRED:
        if column not in head:
            raise CourseError(
                f"{where}: column {column!r} is missing. Required: {', '.join(REQUIRED)}. "
                f"Found: {', '.join(filter(None, head)) or 'none'}."
            )
    for column in head:
        if BY_HAND.fullmatch(column) or PLATFORM.fullmatch(column):
            if head.count(column) > 1:
                raise CourseError(f"{where}: column {column!r} occurs twice")
            continue
        close = difflib.get_close_matches(column, known, 1, SIMILAR_COLUMN)
        if close and column not in known:
            raise CourseError(f"{where}: unknown column {column!r}. Did you mean {close[0]!r}?")
        if close and head.count(column) > 1:
            raise CourseError(f"{where}: column {column!r} occurs twice")


def _entry(where: str, head: Sequence[str], cells: Sequence[str]) -> Entry:
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
    ids = tuple((c, cell) for c, cell in row.items() if PLATFORM.fullmatch(c) and cell)
    texts = {column: row.get(column, "") for column in (*REQUIRED, "email", "group")}
    extension, late = (_hours(where, row, column) for column in ("extension", "late_hours"))
    excused = _excused(where, row)
    return Entry(**texts, extension=extension, late_hours=late, excused=excused, platform_ids=ids)


def _check_unique(where: str, line: int, entry: Entry, lines: dict[tuple[str, str], int]) -> None:
    """Check that no earlier row has one of the row's ids. `lines` maps columns and ids to line numbers."""
    for column, id_ in (("id", entry.id), ("student", entry.student), *entry.platform_ids):
        if id_:
            first = lines.setdefault((column, normalize_id(id_)), line)
            if first != line:
                raise CourseError(f"{where}: {column} {id_!r} also occurs in line {first}")


def _hours(where: str, row: Mapping[str, str], name: str) -> tuple[tuple[str, float], ...]:
    """Return a pair for each non-empty cell in the columns with this name: the day ("" for every day) and the hours."""
    hours = []
    for column, cell in row.items():
        found = BY_HAND.fullmatch(column)
        if found and found[1] == name and cell:
            if not re.fullmatch(r"\d+([.,]\d+)?", cell):
                raise CourseError(f"{where}: {column} {cell!r} is not a number of hours")
            number = float(cell.replace(",", "."))
            if number > MAX_HOURS:
                raise CourseError(f"{where}: {column} {cell!r} is more than {MAX_HOURS:,} hours")
            hours.append((found[2] or "", number))
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
