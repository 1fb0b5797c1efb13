"""Canvas's gradebook (its `lib/gradebook_importer.rb`): students' columns, then one column an assignment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.export import csv_table
from autograder.export.csv_table import Table
from autograder.marks.class_list import Row
from autograder.submissions.people import Person
from autograder.submissions.roster import Entry, Roster

STUDENT = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
KEYS = ("ID", "SIS User ID", "SIS Login ID", "Student")
POSSIBLE = "Points Possible"


def new(rows: Sequence[Row], day: Day) -> str:
    """A gradebook of this day alone; Canvas makes a new assignment of it."""
    lines: list[Sequence[str | float]] = [
        [*STUDENT, day.title],
        [f"    {POSSIBLE}", "", "", "", "", day.points],
    ]
    for row in rows:
        points: str | float = row.points if row.marks else ""
        lines.append([row.entry.name or row.entry.student, row.entry.id, "", "", "", points])
    return csv_table.text(lines)


def into(rows: Sequence[Row], day: Day, file: Path, title: str = "") -> tuple[str, list[str]]:
    """The students' columns of an exported gradebook and one assignment's; who handed nothing in keeps what they have.

    Other assignments are left out, and so left alone. Also gives what somebody should look at.

    Raises:
        CourseError: the file is no gradebook, or no column or several may be the day's.
    """
    table = csv_table.read(file)
    section = table.column("Section")
    for name in ("Student", "ID"):
        table.column(name)
    column = _column(table, section, day, title)
    possible = _possible(table, column, day)
    scale = possible / day.points
    found, notes = _by_line(rows, table)
    lines: list[Sequence[str | float]] = []
    for at, line in enumerate(table.rows):
        row = found.get(at)
        value: str | float = row.points * scale if row else line[column]
        lines.append([*line[: section + 1], value])
    if scale != 1:
        notes.append(
            f"{table.head[column]} has {possible:g} points in Canvas and {day.points:g} here: all are scaled"
        )
    head = [*table.head[: section + 1], table.head[column]]
    return csv_table.text([head, *lines], table.delimiter), notes


def roster(file: Path) -> Roster:
    """The students of an exported gradebook, where the course has no roster."""
    table = csv_table.read(file)
    student, id_ = table.column("Student"), table.column("ID")
    listed = [line for _, line in _students(table)]
    return Roster(tuple(Entry(line[id_], line[student], line[student]) for line in listed))


def _students(table: Table) -> Iterator[tuple[int, Sequence[str]]]:
    """The lines of students: those that have an id."""
    id_ = table.column("ID")
    return ((at, line) for at, line in enumerate(table.rows) if line[id_].strip())


def _by_line(rows: Sequence[Row], table: Table) -> tuple[dict[int, Row], list[str]]:
    """Whose marks stand in which line of the gradebook."""
    listed = list(_students(table))
    name = table.column("Student")
    found: dict[int, Row] = {}
    notes = []
    for row in rows:
        at = None
        for key in (key for key in KEYS if key in table.head):
            column = table.column(key)
            numbered = {Entry(line[column], str(at), line[name]): at for at, line in listed}
            known = Roster(tuple(numbered))
            for id_ in (row.entry.id, row.entry.student, row.entry.email):
                entry = known.find(Person(row.entry.name, id_)) if at is None else None
                at = numbered[entry] if entry else at
        if at is not None and row.marks:
            found[at] = row
        elif row.marks:
            notes.append(
                f"{row.entry.label} is not in {table.file}: {row.points:g} points not put in"
            )
    return found, notes


def _column(table: Table, section: int, day: Day, title: str) -> int:
    given = {
        at: re.sub(r" \(\d+\)$", "", table.head[at]) for at in range(section + 1, len(table.head))
    }
    own = {
        at: name for at, name in given.items() if name != table.head[at]
    }  # totals have no number
    if title:
        fitting = [at for at in own if title in (own[at], table.head[at])]
    else:
        named = re.compile(rf"(?<![a-z]){re.escape(day.name)}(?!\d)")
        fitting = [
            at for at, name in own.items() if named.match(re.sub(r"[\W_]+", "", name.casefold()))
        ]
        fitting = [at for at in fitting if own[at] == day.title] or fitting
    if len(fitting) != 1:
        many = "several columns may be" if fitting else "no column is"
        raise CourseError(
            f"{table.file}: {many} {title or day.name!r}; name one by --column: {', '.join(own.values()) or 'there is none'}"
        )
    return fitting[0]


def _possible(table: Table, column: int, day: Day) -> float:
    for line in table.rows:
        if line[0].strip().startswith(POSSIBLE):
            try:
                return float(line[column].replace(",", ".")) or day.points
            except ValueError:
                break
    return day.points
