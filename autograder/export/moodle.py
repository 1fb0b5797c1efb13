"""Moodle: its offline grading worksheet filled in (`mod/assign/feedback/offline`), or a file for its grade import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autograder.course.config import Day
from autograder.export import csv_table
from autograder.marks.class_list import Row
from autograder.submissions.people import Person
from autograder.submissions.roster import Entry, Roster

NO_GRADE = "-"


def new(rows: Sequence[Row], day: Day) -> str:
    """For “Import grades”, where each column is mapped by hand: students by ID number or e-mail."""
    lines: list[Sequence[str | float]] = [["ID number", "Email address", "Full name", day.title]]
    for row in rows:
        points = row.points if row.marks else NO_GRADE
        lines.append([row.entry.id, row.entry.email, row.entry.name, points])
    return csv_table.text(lines)


def into(rows: Sequence[Row], day: Day, file: Path) -> tuple[str, list[str]]:
    """The worksheet with grades, all else as it was; who handed nothing in keeps what they have.

    Also gives what somebody should look at.

    Raises:
        CourseError: the file is no worksheet.
    """
    table = csv_table.read(file)
    identifier, grade = table.column("Identifier"), table.column("Grade")
    table.column("Last modified (grade)")  # Moodle refuses a worksheet without it
    lines = [list(line) for line in table.rows]
    listed = {_entry(table, line, at): at for at, line in enumerate(lines)}
    known = Roster(tuple(listed))
    by_number = {line[identifier].rpartition(" ")[2]: at for at, line in enumerate(lines)}
    notes = []
    for row in (row for row in rows if row.marks):
        assert row.marks is not None
        alone = row.entry.student in row.marks.student.split(", ") or not row.entry.group
        at = by_number.get(_participant(row)) if alone else None
        if at is None:
            entry = known.find(Person(row.entry.name, email=row.entry.email))
            at = listed[entry] if entry else None
        if at is None:
            notes.append(f"{row.entry.label} is not in {file}: {row.points:g} points not put in")
        elif (
            "Grade can be changed" in table.head
            and _cell(table, lines[at], "Grade can be changed") == "No"
        ):
            notes.append(f"{row.entry.label}: Moodle says that the grade can not be changed")
        else:
            most = _number(_cell(table, lines[at], "Maximum Grade"), day.points)
            lines[at][grade] = csv_table.number(row.points * most / day.points)
    return csv_table.text([table.head, *lines], table.delimiter), notes


def _participant(row: Row) -> str:
    """The number of whoever handed it in, as the worksheet has it; "" where Moodle is not where it comes from."""
    handed_in = row.marks.handed_in if row.marks else None
    return handed_in.participant if handed_in else ""


def _cell(table: csv_table.Table, line: Sequence[str], column: str) -> str:
    return line[table.column(column)].strip() if column in table.head else ""


def _entry(table: csv_table.Table, line: Sequence[str], at: int) -> Entry:
    email = _cell(table, line, "Email address")
    return Entry("", f"line {at}", _cell(table, line, "Full name"), email)


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return otherwise
