"""Write marks for Moodle: fill in its offline grading worksheet, or create a file for its grade import."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from autograder.course.config import Day
from autograder.export import csv_table, table_lines
from autograder.export.table_lines import Match
from autograder.marks.class_list import GroupRule
from autograder.marks.row import Row
from autograder.plain_text import list_with_count
from autograder.submissions.people import Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

NO_GRADE = "-"
SUBMITTED = "Submitted"  # the beginning of "Submitted for grading" in the Status column
TIME = "Last modified (submission)"
# Date formats of Moodle's languages "English" and "English (United States)", with a 12-hour or 24-hour clock.
TIME_FORMATS = [
    f"{date}, {clock}"
    for date in ("%A, %d %B %Y", "%A, %B %d, %Y", "%d %B %Y", "%B %d, %Y")
    for clock in ("%I:%M %p", "%H:%M")
]
REQUIRED = (
    "Identifier",
    "Grade",
    "Last modified (grade)",
)  # Moodle rejects worksheets without these columns


def grade_import(rows: Sequence[Row], day: Day) -> tuple[str, list[str]]:
    """Return a file for Moodle's “Import grades”, and a note about students whom Moodle cannot identify.

    Moodle identifies students by ID number or email address, not by the participant number in a worksheet.
    """
    participants = {participant(row) for row in rows} - {""}
    unknown = []
    lines: list[Sequence[str | float]] = [["ID number", "Email address", "Full name", day.title]]
    for row in rows:
        points = NO_GRADE if row.points is None else row.points
        id_ = "" if row.entry.id in participants else row.entry.id
        lines.append([id_, row.entry.email, row.entry.name, points])
        if row.marks and not id_ and not row.entry.email:
            unknown.append(row.entry.label)
    notes = []
    if unknown:
        notes.append(
            f"Moodle cannot import these grades, because the ID number and email address are unknown ({len(unknown)}): "
            f"{', '.join(unknown)}. Fill in Moodle's grading worksheet with --into worksheet.csv instead"
        )
    return csv_table.to_csv(lines), notes


@dataclass(frozen=True)
class Worksheet:
    """Moodle's offline grading worksheet. `mod/assign/feedback/offline` defines the format."""

    table: csv_table.Table

    @classmethod
    def read(cls, file: Path) -> Worksheet:
        """Read a worksheet.

        Raises:
            CourseError: The file is not a worksheet.
        """
        table = csv_table.read(file, "a Moodle grading worksheet")
        for name in REQUIRED:
            table.column(name)
        return cls(table)

    def line(self, row: Row) -> int | None:
        """Return a student's line number, or None if the student is not in the worksheet."""
        number = self._line_with_number(row)
        if number is not None:
            return number
        entry = self._roster.find(Person(row.entry.name, email=row.entry.email), has_own_name=True)
        return self._numbers[entry] if entry else None

    def choose(self, rows: Iterable[Row], group: GroupRule) -> tuple[dict[int, Row], list[str]]:
        """Return the submission that counts for each line, and notes about lines that match several submissions.

        A submission with the line's participant number takes precedence.
        """
        lines = [(self.line(row), row) for row in rows if row.marks]
        matches = [
            Match(line, row, by_id=self._line_with_number(row) is not None)
            for line, row in lines
            if line is not None
        ]
        labels = [self._label(number) for number in range(len(self.table.rows))]
        return table_lines.choose(matches, labels, group)

    def _line_with_number(self, row: Row) -> int | None:
        """Return the line number for a student's participant number, or None if there is none."""
        # The participant number of a group submission belongs to the student named in the marks, not to the other members.
        labels = row.marks.labels if row.marks else ()
        is_named = row.entry.student in labels or not row.entry.group
        return self._by_participant.get(participant(row)) if is_named else None

    def cell(self, number: int, column: str) -> str:
        """Return the cell in the column with this name, or "" if there is no such column."""
        table = self.table
        return table.rows[number][table.column(column)].strip() if column in table.head else ""

    def without_marks(
        self, graded: Container[int | None], listed: Container[int | None]
    ) -> list[str]:
        """Return up to two notes about students without marks: one about those who submitted, and one about those who did not.

        `graded` and `listed` contain worksheet line numbers. The second note omits the students in `listed`.
        """
        missing: list[str] = []
        absent: list[str] = []
        for number in range(len(self.table.rows)):
            if number not in graded:
                label = self._label(number)
                if self.cell(number, "Status").startswith(SUBMITTED):
                    missing.append(label)
                elif number not in listed:
                    absent.append(label)
        notes = []
        if missing:
            notes.append(
                f"according to {self.table.file}, these students submitted work, but they have no marks ({len(missing)}): "
                f"{', '.join(missing)}. Unless you deleted their marks with `autograder forget`, look at these submissions in "
                "Moodle: they may be newer than the download, or contain no file"
            )
        if absent:
            names = list_with_count(absent)
            notes.append(f"these students in {self.table.file} have no submission {names}")
        return notes

    def submission_times(self) -> tuple[dict[str, datetime], list[str]]:
        """Return the submission times by participant number, and notes about times that could not be read.

        Moodle writes local times, in the time zone of the TA's profile, without an offset.
        """
        times: dict[str, datetime] = {}
        unread: list[str] = []
        for number in range(len(self.table.rows)):
            text = self.cell(number, TIME)
            time = _parse_time(text)
            if time:
                times[self.participant(number)] = time
            elif text not in ("", "-"):
                unread.append(text)
        notes = []
        if unread:
            notes.append(
                f"{len(unread)} submission times in {self.table.file} could not be read, such as {unread[0]!r}. "
                "Set Moodle's language to English, and download the worksheet again"
            )
        return times, notes

    def _label(self, number: int) -> str:
        name, identifier = self.cell(number, "Full name"), self.cell(number, "Identifier")
        return f"{name} ({identifier})" if name else identifier

    def participant(self, number: int) -> str:
        """Return the participant number on a line."""
        return self.cell(number, "Identifier").rpartition(" ")[2]

    @cached_property
    def _by_participant(self) -> dict[str, int]:
        return {self.participant(number): number for number in range(len(self.table.rows))}

    @cached_property
    def _numbers(self) -> dict[Entry, int]:
        return {
            Entry(
                "",
                f"line {number}",
                self.cell(number, "Full name"),
                self.cell(number, "Email address"),
            ): number
            for number in range(len(self.table.rows))
        }

    @cached_property
    def _roster(self) -> Roster:
        return Roster(tuple(self._numbers))


def fill_in(
    rows: Sequence[Row], day: Day, file: Path, group: GroupRule = "latest"
) -> tuple[str, list[str]]:
    """Enter the day's marks in an offline grading worksheet. Return the new worksheet and notes for the TA.

    All other cells are unchanged, and students without a submission keep their existing grades.

    Raises:
        CourseError: The file is not a worksheet.
    """
    sheet = Worksheet.read(file)
    grade = sheet.table.column("Grade")
    lines = [list(line) for line in sheet.table.rows]
    chosen, notes = sheet.choose(rows, group)
    grades: list[tuple[str, str, float | None]] = []
    for row in rows:
        if row.marks and sheet.line(row) is None:
            notes += table_lines.not_entered(row, file)
    for number, row in chosen.items():
        if sheet.cell(number, "Grade can be changed") == "No":
            notes.append(
                f"{row.entry.label}: Moodle does not allow changes to this grade, so it was left unchanged"
            )
        else:
            new = None
            if row.points is not None:
                maximum = csv_table.number(sheet.cell(number, "Maximum Grade")) or day.points
                new = row.points * maximum / day.points
                lines[number][grade] = csv_table.format_points(new)
            grades.append((row.entry.label, sheet.cell(number, "Grade"), new))
    # The caller reports students on the roster without a submission.
    on_roster = {sheet.line(row) for row in rows if not row.marks}
    notes += csv_table.existing_grades(file, grades)
    notes += sheet.without_marks(chosen, on_roster)
    return csv_table.to_csv([sheet.table.head, *lines], sheet.table.delimiter), notes


def _parse_time(text: str) -> datetime | None:
    for pattern in TIME_FORMATS:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, pattern)
    return None


def participant(row: Row) -> str:
    """Return the participant number that Moodle put in the submission's file name, or "" if there is none."""
    handed_in = row.marks.handed_in if row.marks else None
    return handed_in.participant if handed_in else ""
