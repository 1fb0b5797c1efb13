"""Write marks for Moodle, and read submission times from its worksheets.

Entry points: `fill_in` for its offline grading worksheet, `grade_import`, `store_times` and `update_times`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.export import csv_table
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import OverrideStore, read_times
from autograder.marks.submission_times import SubmissionTimes, corrections
from autograder.plain_text import Decision, counted, list_with_count, utc_offset
from autograder.submissions.origin import Person, moodle_name

NO_GRADE = "-"
SUBMITTED = "Submitted"  # the beginning of "Submitted for grading" in the Status column
TIME = "Last modified (submission)"
# Date formats of Moodle's languages "English" and "English (United States)", with a 12-hour or 24-hour clock.
TIME_FORMATS = [
    f"{date}, {clock}"
    for date in ("%A, %d %B %Y", "%A, %B %d, %Y", "%d %B %Y", "%B %d, %Y")
    for clock in ("%I:%M %p", "%H:%M")
]
# Moodle rejects worksheets without these columns.
REQUIRED = ("Identifier", "Grade", "Last modified (grade)")


def grade_import(rows: Sequence[StudentResult], day: Day) -> tuple[str, list[str]]:
    """Return a file for Moodle's “Import grades”, and a note about students whom Moodle cannot identify.

    Moodle identifies students by ID number or email address, not by the participant number in a worksheet.
    """
    unknown = []
    lines: list[Sequence[str | float]] = [["ID number", "Email address", "Full name", day.title]]
    for row in rows:
        points = NO_GRADE if row.points is None else row.points
        # In a roster without a column for Moodle, the id may be the participant number.
        id_ = "" if row.entry.id == row.id_on("moodle", day.name) else row.entry.id
        lines.append([id_, row.entry.email, row.entry.name, points])
        if row.marks and not id_ and not row.entry.email:
            unknown.append(row.entry.label)
    notes: list[str] = []
    if unknown:
        notes.append(
            Decision(
                f"Moodle cannot import these grades, because the ID number and email address are unknown ({len(unknown)}): "
                f"{', '.join(unknown)}. Fill in Moodle's grading worksheet with --into worksheet.csv instead"
            )
        )
    return csv_table.to_csv(lines), notes


@dataclass(frozen=True)
class Worksheet:
    """Moodle's offline grading worksheet. `mod/assign/feedback/offline` defines the format."""

    table: csv_table.Table

    @classmethod
    def read(cls, file: Path) -> Worksheet:
        """Read a worksheet. Raises CourseError if it is in a different language or format."""
        table = csv_table.read(file, "a Moodle grading worksheet")
        if missing := [name for name in REQUIRED if name not in table.head]:
            raise CourseError(
                f"{file} is not a Moodle grading worksheet in English: it has no column {missing[0]!r}. Its columns are "
                f"{', '.join(table.head)}. Set Moodle's language to English, and download the worksheet again"
            )
        return cls(table)

    def line(self, row: StudentResult, day: str) -> int | None:
        """Return the number of the line with a student's participant number or, failing that, email address, or None."""
        number = self._by_participant.get(row.id_on("moodle", day))
        return number if number is not None else self._by_email.get(row.entry.email.casefold())

    def choose(
        self, rows: Iterable[StudentResult], day: str, group: GroupRule
    ) -> tuple[dict[int, StudentResult], list[str]]:
        """Return the submission that counts for each line, and notes about lines that match several submissions."""
        labels = [self.label(number) for number in range(len(self.table.rows))]
        return csv_table.choose(rows, lambda row: self.line(row, day), labels, group)

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
        others = [number for number in range(len(self.table.rows)) if number not in graded]
        submitted = {n for n in others if self.cell(n, "Status").startswith(SUBMITTED)}
        missing = [self.label(n) for n in others if n in submitted]
        absent = [self.label(n) for n in others if n not in submitted and n not in listed]
        notes: list[str] = []
        if missing:
            notes.append(
                Decision(
                    f"according to {self.table.file}, these students submitted work, but they have no marks ({len(missing)}): "
                    f"{', '.join(missing)}. Unless you deleted their marks with `autograder forget`, look at these submissions "
                    "in Moodle: they may be newer than the download, or contain no file"
                )
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
        notes: list[str] = []
        if unread:
            notes.append(
                Decision(
                    f"{len(unread)} submission times in {self.table.file} could not be read, such as {unread[0]!r}. "
                    "Set Moodle's language to English, and download the worksheet again"
                )
            )
        return times, notes

    def contains(self, participant: str) -> bool:
        """Return whether the worksheet has a line with this participant number."""
        return participant in self._by_participant

    def label(self, number: int) -> str:
        """Return the name and identifier on a line."""
        name, identifier = self.cell(number, "Full name"), self.cell(number, "Identifier")
        return f"{name} ({identifier})" if name else identifier

    def participant(self, number: int) -> str:
        """Return the participant number on a line."""
        return self.cell(number, "Identifier").rpartition(" ")[2]

    @cached_property
    def teams(self) -> dict[str, tuple[Person, ...]]:
        """Map the names of teams, as `moodle_name` returns them, to their members. Omit teams whose names are not unique."""
        found: dict[str, dict[str, list[Person]]] = {}
        for number in range(len(self.table.rows)):
            if team := self.cell(number, "Group"):
                who, email = self.participant(number), self.cell(number, "Email address")
                name = self.cell(number, "Full name") or self.cell(number, "Identifier")
                same = found.setdefault(moodle_name(team), {})
                same.setdefault(team, []).append(Person(name, who, email))
        return {
            name: tuple(members)
            for name, same in found.items()
            for members in same.values()
            if len(same) == 1
        }

    @cached_property
    def _by_participant(self) -> dict[str, int]:
        return {self.participant(number): number for number in range(len(self.table.rows))}

    @cached_property
    def _by_email(self) -> dict[str, int]:
        emails = [self.cell(n, "Email address").casefold() for n in range(len(self.table.rows))]
        return {email: number for number, email in enumerate(emails) if email}


def fill_in(
    rows: Sequence[StudentResult],
    day: Day,
    file: Path,
    group: GroupRule = "latest",
    missing: bool = False,
) -> tuple[str, list[str]]:
    """Enter the day's marks in an offline grading worksheet. Return the new worksheet and notes for the TA.

    All other cells are unchanged, and students without a submission keep their existing grades. If `missing` is set, those
    without grades get 0 points, unless Moodle has a submission from them.
    """
    sheet = Worksheet.read(file)
    grade = sheet.table.column("Grade")
    lines = [list(line) for line in sheet.table.rows]
    chosen, notes = sheet.choose(rows, day.name, group)
    grades: list[tuple[str, str, float | None]] = []
    notes += csv_table.not_entered(rows, lambda row: sheet.line(row, day.name), file)
    for number, row in chosen.items():
        if sheet.cell(number, "Grade can be changed") == "No":
            notes.append(
                Decision(
                    f"{row.entry.label}: Moodle does not allow changes to this grade, so it was left "
                    "unchanged. Unlock it, and export again"
                )
            )
        else:
            new = None
            if row.points is not None:
                maximum = csv_table.number(sheet.cell(number, "Maximum Grade")) or day.points
                new = row.points * maximum / day.points
                lines[number][grade] = csv_table.format_points(new)
            grades.append((row.entry.label, sheet.cell(number, "Grade"), new))
    zeros = [
        number
        for number in range(len(lines))
        if missing and number not in chosen and not sheet.cell(number, "Grade").strip("-")
        if not sheet.cell(number, "Status").startswith(SUBMITTED)
        if sheet.cell(number, "Grade can be changed") != "No"
    ]
    for number in zeros:
        lines[number][grade] = "0"
    notes += csv_table.zeros([sheet.label(number) for number in zeros])
    # The caller reports students on the roster without a submission.
    on_roster = {sheet.line(row, day.name) for row in rows if not row.marks}
    notes += csv_table.existing_grades(file, grades)
    notes += sheet.without_marks(chosen, on_roster)
    return csv_table.to_csv([sheet.table.head, *lines], sheet.table.delimiter), notes


def _parse_time(text: str) -> datetime | None:
    for pattern in TIME_FORMATS:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, pattern)
    return None


def store_times(day: Day, file: Path) -> tuple[str, list[str]]:
    """Store the submission times from a worksheet. Return a message with their count and time zone, and notes for the TA."""
    sheet = Worksheet.read(file)
    found, notes = sheet.submission_times()
    earlier = read_times(day).in_worksheet
    if earlier and not any(map(sheet.contains, earlier)):
        notes.append(
            Decision(
                f"{file} and the worksheet that was read before it for {day.name} have no participant in common. If {file} is "
                "that of a different assignment, run the command again with the right one"
            )
        )
    with OverrideStore(day.root) as opened:
        opened.add_times(day.name, found, {})
        opened.set_teams(day.name, sheet.teams)
    return _describe_times(day, file, len(found)), notes


def update_times(
    day: Day, file: Path, class_: Iterable[SubmissionMarks], are_stored: bool
) -> tuple[SubmissionTimes, str, list[str]]:
    """Return a class's submission times, and the message and notes from `store_times`.

    The worksheet may be newer or older than the graded files. A graded file without a time gets the worksheet's time. A
    file with a time keeps it, unless the worksheet shows all times in a different time zone. Store the times of all graded
    files, because the next worksheet contains only the newest file's time. If the marks are not in the store, neither read
    nor store times.

    Raises:
        CourseError: The file is not a worksheet, or belongs to a different assignment.
        FileError: The times cannot be stored.
    """
    worksheet = Worksheet.read(file)
    found, notes = worksheet.submission_times()
    message = _describe_times(day, file, len(found))
    teams = worksheet.teams
    if not are_stored:
        return SubmissionTimes(found, zone=day.late.moodle_zone, teams=teams), message, notes
    class_ = list(class_)
    before = replace(read_times(day), teams=teams)
    sources = [before.of(marks).origin for marks in class_ if marks.origin.source == "moodle"]
    if sources and not any(worksheet.contains(id_) for one in sources for id_ in one.ids):
        raise CourseError(
            f"{file} contains none of the participants who submitted {day.name} ({len(sources)}). It, or the worksheet with "
            "which they were graded, may be that of a different assignment. Grade and export with the same one"
        )
    known = before.local_times(class_)
    sheet = {**before.in_worksheet, **found}
    of_students = {participant: time for (participant, _), time in known.items()}
    shifts = corrections(of_students, sheet)
    files = {
        (participant, hash_): time + shifts.get(participant, timedelta())
        for (participant, hash_), time in {**known, **before.of_files}.items()
    }
    times = SubmissionTimes(sheet, files, before.zone, teams)
    times = replace(times, of_files={**files, **times.local_times(class_)})
    with OverrideStore(day.root) as opened:
        opened.add_times(day.name, found, times.of_files)
        opened.set_teams(day.name, teams)
    different = [
        marks.label
        for marks in class_
        if marks.origin.source == "moodle"
        if (who := times.of(marks).origin.ids[0]) in of_students and who not in shifts
        if sheet.get(who, of_students[who]) != of_students[who]
    ]
    if shifts:
        corrected = counted(len(shifts), "graded file")
        notes.append(f"{file} corrects the submission times of {corrected}")
    if different:
        notes.append(
            Decision(
                f"the submission times in {file} differ from those of the graded files {list_with_count(different)}. "
                "The times of the graded files count. If the students submitted again, grade a new download. If the times "
                f"of the graded files are wrong, run `autograder grade {day.name} PATH --worksheet {file}`"
            )
        )
    return times, message, notes


def _describe_times(day: Day, file: Path, count: int) -> str:
    read = f"{count} submission {'time was' if count == 1 else 'times were'} read"
    return f"{read} from {file} and assumed to be in {_describe_zone(day)}"


def _describe_zone(day: Day) -> str:
    late = day.late
    if late.moodle_time_zone:
        return f"{late.moodle_time_zone}, the `moodle_time_zone` in grading.toml"
    if late.due:
        return (
            f"{utc_offset(late.due)}, like `due`. If Moodle shows you times in a different time zone, "
            "set `moodle_time_zone` in grading.toml"
        )
    return f"UTC, because grading.toml sets no `due` for {day.name}. Once you set it, its offset applies"
