"""Write marks for Moodle: fill in its offline grading worksheet, or create a file for its grade import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autograder.course.config import Day
from autograder.export import csv_table
from autograder.marks.class_list import Row
from autograder.submissions.people import Person
from autograder.submissions.roster import Entry, Roster

NO_GRADE = "-"


def grade_import(rows: Sequence[Row], day: Day) -> str:
    """Return a file for Moodle's “Import grades”, which identifies students by ID number or email address."""
    lines: list[Sequence[str | float]] = [["ID number", "Email address", "Full name", day.title]]
    for row in rows:
        points = NO_GRADE if row.points is None else row.points
        lines.append([row.entry.id, row.entry.email, row.entry.name, points])
    return csv_table.to_csv(lines)


def fill_in(rows: Sequence[Row], day: Day, file: Path) -> tuple[str, list[str]]:
    """Enter the day's marks in an offline grading worksheet; return the new worksheet and notes for the TA.

    All other cells are unchanged, and students without a submission keep their existing grades. Moodle's
    `mod/assign/feedback/offline` defines the format.

    Raises:
        CourseError: The file is not a worksheet.
    """
    table = csv_table.read(file)
    identifier, grade = table.column("Identifier"), table.column("Grade")
    table.column("Last modified (grade)")  # Moodle rejects a worksheet without this column
    lines = [list(line) for line in table.rows]
    numbers = {_entry(table, line, number): number for number, line in enumerate(lines)}
    roster = Roster(tuple(numbers))
    by_participant = {line[identifier].rpartition(" ")[2]: n for n, line in enumerate(lines)}
    notes = []
    for row in (row for row in rows if row.marks):
        assert row.marks is not None
        # In a group, the participant number identifies only the student named in the marks.
        is_named = row.entry.student in row.marks.student.split(", ") or not row.entry.group
        number = by_participant.get(_participant(row)) if is_named else None
        if number is None:
            entry = roster.find(Person(row.entry.name, email=row.entry.email))
            number = numbers[entry] if entry else None
        if number is None:
            notes.append(
                f"{row.entry.label} is not in {file}: {row.points or 0:g} points were not entered"
            )
        elif _cell(table, lines[number], "Grade can be changed") == "No":
            notes.append(
                f"{row.entry.label}: Moodle does not allow changes to this grade, so it was left unchanged"
            )
        elif row.points is not None:
            maximum = _number(_cell(table, lines[number], "Maximum Grade"), day.points)
            lines[number][grade] = csv_table.format_number(row.points * maximum / day.points)
    return csv_table.to_csv([table.head, *lines], table.delimiter), notes


def _participant(row: Row) -> str:
    """Return the participant number that Moodle put in the submission's name, or "" if there is none."""
    handed_in = row.marks.handed_in if row.marks else None
    return handed_in.participant if handed_in else ""


def _cell(table: csv_table.Table, line: Sequence[str], column: str) -> str:
    return line[table.column(column)].strip() if column in table.head else ""


def _entry(table: csv_table.Table, line: Sequence[str], number: int) -> Entry:
    email = _cell(table, line, "Email address")
    return Entry("", f"line {number}", _cell(table, line, "Full name"), email)


def _number(text: str, default: float) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return default
