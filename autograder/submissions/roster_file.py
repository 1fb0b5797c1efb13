"""Read the class roster from a CSV file. Entry points: `load` and `for_course`.

`roster.csv`, next to `grading.toml`, has one row per student, but may omit students. The required columns are id (on
the platform), student (in nbgrader) and name. The optional columns are email, group, extension (in hours), late_hours
and excused. The last three may apply to a single day, for example late_hours_day1. Git ignores the file because it contains
personal data.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

FILE = "roster.csv"
REQUIRED = ("id", "student", "name")
# Column names with at least this difflib similarity (0 to 1) may be different spellings of the same name.
SIMILAR_COLUMN = 0.75
# The second group is a day's name.
BY_HAND = re.compile(r"(extension|late_hours|excused)(?:_(.+))?")
MAX_HOURS = 100_000  # about eleven years
YES, NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0", "")


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
    known = [field.name for field in fields(Entry)]
    where = f"{file}, line 1"
    for column in REQUIRED:
        if column not in head:
            raise CourseError(
                f"{where}: column {column!r} is missing. Required: {', '.join(REQUIRED)}. "
                f"Found: {', '.join(filter(None, head)) or 'none'}."
            )
    for column in head:
        if BY_HAND.fullmatch(column):
            if head.count(column) > 1:
                raise CourseError(f"{where}: column {column!r} occurs twice")
            continue
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
