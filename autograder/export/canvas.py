"""Write marks as a Canvas gradebook: columns that identify the student, then one column for the assignment.

Canvas parses this format in `lib/gradebook_importer.rb`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.export import csv_table
from autograder.export.csv_table import Table
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.plain_text import Decision, counted, format_number, list_with_count
from autograder.submissions.roster import Entry, Roster, normalize_id

STUDENT = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
IDS = ("ID", "SIS User ID", "SIS Login ID")
POSSIBLE = "Points Possible"
KIND = "a Canvas gradebook"
TEST_STUDENT = "Student, Test"  # every course has one, for the student view


def new_gradebook(rows: Sequence[StudentResult], day: Day) -> str:
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
    rows: Sequence[StudentResult],
    day: Day,
    file: Path,
    title: str = "",
    group: GroupRule = "latest",
    missing: bool = False,
) -> tuple[str, list[str]]:
    """Enter the day's marks in an exported gradebook. Return the new gradebook and notes for the TA.

    The result contains only the student columns and the day's assignment, so Canvas leaves other assignments unchanged.
    Students without a submission keep their existing marks. If `missing` is set, those without marks get 0 points.
    """
    table = csv_table.read(file, KIND)
    section = table.column("Section")
    for name in ("Student", "ID"):
        table.column(name)
    column = _find_column(table, section, day, title)
    possible = _points_possible(table, column, day)
    scale = possible / day.points
    matched, notes = _match(rows, table, day, group)
    lines: list[Sequence[str | float]] = []
    grades: list[tuple[str, str, float | None]] = []
    who = table.column("Student")
    absent = {
        number: line[who]
        for number, line in _students(table)
        if missing and number not in matched and line[who] != TEST_STUDENT
        if not line[column].strip(" -")
    }
    notes += csv_table.zeros([*absent.values()])
    for number, line in enumerate(table.rows):
        row = matched.get(number)
        new = row.points * scale if row and row.points is not None else None
        new = 0.0 if number in absent else new
        lines.append([*line[: section + 1], line[column] if new is None else new])
        if row:
            grades.append((row.entry.label, line[column], new))
    notes += csv_table.existing_grades(file, grades)
    if scale != 1:
        notes.append(
            Decision(
                f"{table.head[column]} is worth {counted(possible, 'point')} in Canvas and {format_number(day.points)} here, "
                "so all marks are scaled. If that is wrong, correct the points in Canvas or grading.toml"
            )
        )
    head = [*table.head[: section + 1], table.head[column]]
    return csv_table.to_csv([head, *lines], table.delimiter), notes


def read_roster(file: Path) -> Roster:
    """Read the students in an exported gradebook as a roster with Canvas's ids."""
    table = csv_table.read(file, KIND)
    name, id_ = table.column("Student"), table.column("ID")
    return Roster(
        tuple(
            Entry("", line[name], line[name], platform_ids=(("canvas", line[id_].strip()),))
            for _, line in _students(table)
            if line[name] != TEST_STUDENT
        ),
        f"in {table.file}",
    )


def _students(table: Table) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the index and cells of each student's row. Skip rows without an ID, because they do not belong to students."""
    id_ = table.column("ID")
    return ((number, line) for number, line in enumerate(table.rows) if line[id_].strip())


def _match(
    results: Sequence[StudentResult], table: Table, day: Day, group: GroupRule
) -> tuple[dict[int, StudentResult], list[str]]:
    """Return the result for each gradebook row, and notes about students who are only in the gradebook or only in `results`.

    The notes omit students in `results` without marks, because the caller reports them.
    """
    listed = list(_students(table))
    by_id = {
        column: {normalize_id(line[table.column(column)].strip()): n for n, line in listed}
        for column in IDS
        if column in table.head
    }
    lines = {result.entry: _line(result, by_id, day) for result in results}
    name = table.column("Student")
    names = [line[name] for line in table.rows]
    notes = csv_table.not_entered(results, lambda result: lines[result.entry], table.file)
    matched, more = csv_table.choose(results, lambda result: lines[result.entry], names, group)
    known = {*lines.values()}
    absent = [names[n] for n, _ in listed if n not in known and names[n] != TEST_STUDENT]
    if absent:
        more.append(f"these students in {table.file} have no submission {list_with_count(absent)}")
    return matched, notes + more


def _line(row: StudentResult, by_id: Mapping[str, Mapping[str, int]], day: Day) -> int | None:
    """Return the gradebook row with the student's Canvas id or, if that is unknown, with an id from a different system."""
    if own := row.id_on("canvas", day.name):
        return by_id["ID"].get(normalize_id(own))
    ids = [normalize_id(id_) for id_ in (row.id, row.entry.student, row.entry.email) if id_]
    found = (lines[id_] for lines in by_id.values() for id_ in ids if id_ in lines)
    return next(found, None)


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
