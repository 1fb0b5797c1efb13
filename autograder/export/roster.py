"""Make a roster from what platforms export. Entry point: `join`.

Records of several platforms are joined by ids and email addresses that they share. This is the only place where names are
compared: a record that shares no id with the others is joined by its name if exactly one person fits.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from autograder.course.config import CourseError
from autograder.export import canvas, csv_table, moodle
from autograder.submissions.roster import PLATFORM, REQUIRED, normalize_id

# Columns that identify the same person on different platforms. A login name is often the name in nbgrader.
SHARED = ("id", "email", "student", "login")
Record = Mapping[str, str]


@dataclass(eq=False)
class RosterRow:
    """A person on the roster: the cells of their row. `sources` contains the platforms that list the person."""

    cells: dict[str, str]
    sources: list[str]

    def absorb(self, other: RosterRow) -> bool:
        """Add another record of the same person. Return False if one of the sources lists both."""
        if not {*self.sources}.isdisjoint(other.sources):
            return False
        self.cells = other.cells | self.cells
        self.sources += other.sources
        return True

    @property
    def label(self) -> str:
        """Return the person's name and ids, for messages."""
        cells = self.cells.items()
        ids = [f"{key} {text}" for key, text in cells if key in SHARED or PLATFORM.fullmatch(key)]
        return f"{self.cells.get('name') or '?'} ({', '.join(ids)})"


def read_canvas(file: Path) -> Iterator[Record]:
    """Yield the students in a Canvas gradebook."""
    table = csv_table.read(file, canvas.KIND)
    table.column("ID")
    for line in _records(table):
        if line["ID"] and line["Student"] != canvas.TEST_STUDENT:
            yield {
                "name": _in_order(line["Student"]),
                "canvas": line["ID"],
                "id": line.get("SIS User ID", ""),
                "login": line.get("SIS Login ID", ""),
                "section": line.get("Section", ""),
            }


def read_moodle(file: Path, day: str) -> Iterator[Record]:
    """Yield the participants in Moodle's grading worksheet for a day."""
    sheet = moodle.Worksheet.read(file)
    for number, line in enumerate(_records(sheet.table)):
        yield {
            "name": line.get("Full name", ""),
            f"moodle_{day}": sheet.participant(number),
            "id": line.get("ID number", ""),
            "email": line.get("Email address", ""),
        }


def read_gradescope(file: Path) -> Iterator[Record]:
    """Yield the students in Gradescope's roster."""
    table = csv_table.read(file, "a Gradescope roster")
    table.column("Email")
    table.column("SID")
    for line in _records(table):
        if line.get("Role", "Student").casefold() == "student":
            names = [line.get("First Name", ""), line.get("Last Name", "")]
            yield {
                "name": line.get("Name") or " ".join(filter(None, names)),
                "gradescope": line["SID"] or line["Email"],
                "id": line["SID"],
                "email": line["Email"],
                "section": line.get("Section", ""),
            }


def read_nbgrader(file: Path) -> Iterator[Record]:
    """Yield the students in nbgrader's gradebook."""
    query = "SELECT id, first_name, last_name, email FROM student ORDER BY id"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            rows = database.execute(query).fetchall()
    except sqlite3.Error as error:
        raise CourseError(f"{file} is not nbgrader's gradebook: {error}") from None
    for student, first, last, email in rows:
        yield {
            "name": " ".join(filter(None, (first, last))),
            "student": student,
            "email": email or "",
        }


def read_existing(file: Path) -> Iterator[Record]:
    """Yield the rows of an existing roster, with all of their columns."""
    for line in _records(csv_table.read(file, "a roster")):
        yield {key.casefold(): text for key, text in line.items()}


def join(
    sources: Iterable[tuple[str, Iterable[Record]]],
) -> tuple[list[list[str | float]], list[str]]:
    """Join the records of several sources to one row per person. Each source is a pair: its name and its records.

    Return a table, and notes about people who were joined by name or could not be joined.
    """
    people: list[RosterRow] = []
    for source, records in sources:
        for record in records:
            person = RosterRow({key: text for key, text in record.items() if text}, [source])
            joined: RosterRow | None = None
            for one in [one for one in people if _shares_id(one.cells, record)]:
                if joined is None:
                    joined = one if one.absorb(person) else None
                elif joined.absorb(one):
                    people.remove(one)
            if joined is None:
                people.append(person)
    notes = []
    by_name: dict[tuple[str, ...], list[RosterRow]] = {}
    for person in people:
        by_name.setdefault(_words(person.cells.get("name", "")), []).append(person)
    for name, same in by_name.items():
        pairs = combinations([{*one.sources} for one in same], 2)
        if not name or not any(one.isdisjoint(other) for one, other in pairs):
            continue
        labels = " and ".join(one.label for one in same)
        if _are_disjoint(same):
            notes.append(f"joined by name: {labels}")
            for one in same[1:]:
                same[0].absorb(one)
                people.remove(one)
        else:
            notes.append(
                f"not joined, because several people have the same name: {labels}. Enter the ids that belong together in one "
                "row, and delete the other row"
            )
    return _table(people), notes


def _are_disjoint(people: Sequence[RosterRow]) -> bool:
    sources = [source for one in people for source in one.sources]
    return len(sources) == len(set(sources))


def _table(people: Sequence[RosterRow]) -> list[list[str | float]]:
    columns = dict.fromkeys((*REQUIRED, *(key for one in people for key in one.cells)))
    columns.pop("login", None)
    rows: list[list[str | float]] = [[*columns]]
    taken: set[str] = set()
    for person in people:
        cells = person.cells
        choices = (cells.get(key, "") for key in ("student", "login", "email", "id", "name"))
        student = next(filter(None, choices), "?").replace("/", "_").replace(", ", " ")
        unique, number = student, 2
        while unique.casefold() in taken:
            unique, number = f"{student} {number}", number + 1
        taken.add(unique.casefold())
        rows.append([unique if key == "student" else cells.get(key, "") for key in columns])
    return rows


def _shares_id(cells: Record, record: Record) -> bool:
    own, other = (
        {normalize_id(text) for key in SHARED if (text := one.get(key))} for one in (cells, record)
    )
    return not own.isdisjoint(other)


def _records(table: csv_table.Table) -> Iterator[dict[str, str]]:
    for row in table.rows:
        yield {key: text.strip() for key, text in zip(table.head, row, strict=False)}


def _in_order(name: str) -> str:
    """Return “Ada Lovelace” for “Lovelace, Ada”."""
    last, comma, first = name.partition(", ")
    return f"{first} {last}" if comma else name


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name, sorted, in lower case without accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(c for c in letters if unicodedata.category(c)[0] != "M")
    return tuple(sorted(re.findall(r"[^\W_]+", plain)))
