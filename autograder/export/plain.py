"""CSV for people and programs: one with a column an exercise, and one as `nbgrader export` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from autograder.course.config import Day
from autograder.export import csv_table
from autograder.marks.class_list import Row

NBGRADER = [
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
]


def table(rows: Sequence[Row], day: Day) -> str:
    """A row a student with all points; cells are empty where nothing was handed in."""
    head = ["student", "id", "name", "email", "group", "points", "late_days", "late_per_cent"]
    head += ["points_before", "max_points", *day.names, "problems"]
    lines: list[Sequence[str | float]] = [head]
    for row in rows:
        entry, marks = row.entry, row.marks
        who = [entry.student, entry.id, entry.name, entry.email, entry.group]
        if marks is None:
            lines.append([*who, *[""] * (len(head) - len(who))])
            continue
        own = {exercise.name: exercise.points for exercise in marks.exercises}
        points = [row.points, row.late.days, row.late.per_cent, marks.points, day.points]
        lines.append(
            [*who, *points, *(own.get(name, 0.0) for name in day.names), "; ".join(marks.problems)]
        )
    return csv_table.text(lines)


def nbgrader(rows: Sequence[Row], day: Day) -> str:
    """The columns of nbgrader's own export, but quoted; who handed nothing in has zeros, as there."""
    lines: list[Sequence[str | float]] = [NBGRADER]
    for row in rows:
        first, last = names(row.entry.name)
        raw = row.marks.points if row.marks else 0.0
        who = [row.entry.student, last, first, row.entry.email]
        when = [_utc(day.late.due), _utc(row.time)]
        scores = [raw, row.late.penalty(raw), row.points, day.points]
        lines.append([day.name, *when, *who, *scores])
    return csv_table.text(lines)


def names(name: str) -> tuple[str, str]:
    """First names and the family name, of “Lovelace, Ada” or of “Ada Lovelace”, whose last word it is."""
    if "," in name:
        last, _, first = name.partition(",")
    else:
        first, _, last = name.strip().rpartition(" ")
    return first.strip(), last.strip()


def _utc(time: datetime | None) -> str:
    return str(time.astimezone(UTC).replace(tzinfo=None)) if time else ""
