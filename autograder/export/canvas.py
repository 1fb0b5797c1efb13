"""Write marks as a Canvas gradebook: columns that identify the student, then one column for the assignment.

Canvas parses this format in `lib/gradebook_importer.rb`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.export import csv_table, table_lines
from autograder.export.csv_table import Table
from autograder.export.table_lines import Match
from autograder.marks.class_list import GroupRule
from autograder.marks.model import SubmissionMarks
from autograder.marks.row import Row
from autograder.plain_text import counted, format_number, list_with_count
from autograder.submissions.people import Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

STUDENT = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
IDS = ("ID", "SIS User ID", "SIS Login ID")
KEYS = (*IDS, "Student")
POSSIBLE = "Points Possible"
KIND = "a Canvas gradebook"
TEST_STUDENT = "Student, Test"  # every course has one, for the student view


def new_gradebook(rows: Sequence[Row], day: Day) -> str:
    """Return a gradebook that contains only this day's marks. Canvas creates a new assignment when it imports the file."""
    lines: list[Sequence[str | float]] = [
        [*STUDENT, day.title],
        [f"    {POSSIBLE}", "", "", "", "", day.points],
    ]
    for row in rows:
        points = csv_table.or_empty(row.points)
        lines.append([row.entry.name or row.entry.student, row.id, "", "", "", points])
    return csv_table.to_csv(lines)


def fill_in(
    rows: Sequence[Row], day: Day, file: Path, title: str = "", group: GroupRule = "latest"
) -> tuple[str, list[str]]:
    """Enter the day's marks in an exported gradebook. Return the new gradebook and notes for the TA.

    The result contains only the student columns and the day's assignment, so Canvas leaves other assignments unchanged.
    Students without a submission keep their existing marks.

    Raises:
        CourseError: The file is not a gradebook, or the day's column is missing or ambiguous.
    """
    table = csv_table.read(file, KIND)
    section = table.column("Section")
    for name in ("Student", "ID"):
        table.column(name)
    column = _find_column(table, section, day, title)
    possible = _points_possible(table, column, day)
    scale = possible / day.points
    matched, notes = _match(rows, table, group)
    lines: list[Sequence[str | float]] = []
    grades: list[tuple[str, str, float | None]] = []
    for number, line in enumerate(table.rows):
        row = matched.get(number)
        new = row.points * scale if row and row.points is not None else None
        lines.append([*line[: section + 1], line[column] if new is None else new])
        if row:
            grades.append((row.entry.label, line[column], new))
    notes += csv_table.existing_grades(file, grades)
    if scale != 1:
        notes.append(
            f"{table.head[column]} is worth {counted(possible, 'point')} in Canvas and {format_number(day.points)} here, "
            "so all marks are scaled"
        )
    head = [*table.head[: section + 1], table.head[column]]
    return csv_table.to_csv([head, *lines], table.delimiter), notes


def read_roster(file: Path, class_: Iterable[SubmissionMarks]) -> Roster:
    """Read the students in an exported gradebook as a roster. Include ids only if `class_` was downloaded from Canvas."""
    table = csv_table.read(file, KIND)
    student, id_ = table.column("Student"), table.column("ID")
    has_ids = any(marks.handed_in and marks.handed_in.upload for marks in class_)
    lines = [line for _, line in _students(table) if line[student] != TEST_STUDENT]
    listed = [(line[id_] if has_ids else "", line[student]) for line in lines]
    return Roster(tuple(Entry(number, name, name) for number, name in listed))


def _students(table: Table) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the index and cells of each student's row. Skip rows without an ID, because they do not belong to students."""
    id_ = table.column("ID")
    return ((number, line) for number, line in enumerate(table.rows) if line[id_].strip())


def _match(rows: Sequence[Row], table: Table, group: GroupRule) -> tuple[dict[int, Row], list[str]]:
    """Return the marks for each gradebook row, and notes about students who are only in the gradebook or only in
    `rows`.

    The notes omit students in `rows` without marks, because the caller reports them.
    """
    listed = list(_students(table))
    name = table.column("Student")
    # In these rosters, `student` is the line number, because ids are also compared with `student`.
    numbers = {f"line {n}": n for n, _ in listed}
    rosters = [
        Roster(tuple(Entry(line[column], f"line {n}", line[name]) for n, line in listed))
        for column in (table.column(key) for key in KEYS if key in table.head)
    ]
    by_name = Roster(tuple(Entry("", f"line {n}", line[name]) for n, line in listed))
    matches = []
    absent = {number: line[name] for number, line in listed if line[name] != TEST_STUDENT}
    notes = []
    for row in rows:
        ids = [id_ for id_ in (row.id, row.entry.student, row.entry.email) if id_]
        people = [(roster, Person(row.entry.name, id_)) for roster in rosters for id_ in ids]
        if not _has_canvas_id(row):
            people.append((by_name, Person(row.entry.name)))
        entry = next(
            filter(None, (roster.find(who, has_own_name=True) for roster, who in people)), None
        )
        found = numbers[entry.student] if entry else None
        if found is not None:
            absent.pop(found, None)
        if found is not None and row.marks:
            matches.append(Match(found, row, by_id=row.id in _ids(table, found)))
        elif row.marks:
            notes += table_lines.not_entered(row, table.file)
    matched, more = table_lines.choose(matches, [line[name] for line in table.rows], group)
    notes += more
    if absent:
        names = list_with_count([*absent.values()])
        notes.append(f"these students in {table.file} have no submission {names}")
    return matched, notes


def _ids(table: Table, line: int) -> set[str]:
    cells = (table.rows[line][table.column(key)] for key in IDS if key in table.head)
    return {*cells} - {""}


def _has_canvas_id(row: Row) -> bool:
    source = row.marks.handed_in if row.marks else None
    return bool(source and source.upload and row.id)


def _find_column(table: Table, section: int, day: Day, title: str) -> int:
    # Canvas appends a number to each assignment's title, but not to the titles of totals.
    assignments = {
        number: re.sub(r" \(\d+\)$", "", table.head[number])
        for number in range(section + 1, len(table.head))
        if re.search(r" \(\d+\)$", table.head[number])
    }
    if title:
        fitting = [n for n in assignments if title in (assignments[n], table.head[n])]
    else:
        pattern = re.compile(rf"(?<![a-z]){re.escape(day.name)}(?!\d)")
        fitting = [
            number
            for number, name in assignments.items()
            if pattern.match(re.sub(r"[\W_]+", "", name.casefold()))
        ]
        fitting = [n for n in fitting if assignments[n] == day.title] or fitting
    if len(fitting) != 1:
        problem = "several columns match" if fitting else "no column matches"
        names = ", ".join(assignments.values())
        raise CourseError(
            f"{table.file}: {problem} {title or day.name!r}. "
            + (f"Choose one with --column: {names}" if names else "It has no assignment columns.")
        )
    return fitting[0]


def _points_possible(table: Table, column: int, day: Day) -> float:
    for line in table.rows:
        if line[0].strip().startswith(POSSIBLE):
            try:
                return float(line[column].replace(",", ".")) or day.points
            except ValueError:
                break
    return day.points
