"""Write marks as CSV, either with a column per exercise or in the format of `nbgrader export`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from autograder.course.config import Day
from autograder.export import csv_table
from autograder.marks.class_list import StudentResult
from autograder.marks.overrides import describe

NBGRADER = [
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
]


def exercise_table(rows: Sequence[StudentResult], day: Day) -> str:
    """Return one row per student, with the points for each exercise. Students without a submission get empty cells."""
    head = ["student", "id", "name", "email", "group", "points", "late_days", "late_per_cent"]
    head += [
        "points_before",
        "max_points",
        *(e.label for e in day.exercises),
        "problems",
        "by_hand",
    ]
    lines: list[Sequence[str | float]] = [head]
    for row in rows:
        entry, marks = row.entry, row.marks
        who = [entry.student, row.id, entry.name, entry.email, entry.group]
        if marks is None:
            lines.append([*who, *[""] * (len(head) - len(who))])
            continue
        earned = {exercise.name: exercise.points for exercise in marks.exercises}
        late = [row.late.days, row.late.percent]
        points = [
            csv_table.or_empty(row.points),
            *late,
            csv_table.or_empty(marks.points),
            day.points,
        ]
        by_exercise = [csv_table.or_empty(earned.get(name)) for name in day.names]
        by_hand = "; ".join(describe(e) for e in marks.exercises if e.override)
        lines.append([*who, *points, *by_exercise, "; ".join(marks.problems), by_hand])
    return csv_table.to_csv(lines)


def nbgrader_table(rows: Sequence[StudentResult], day: Day) -> str:
    """Return a table with the same columns as `nbgrader export`. Like nbgrader, give a missing submission 0 points.

    A submission that could not be graded gets no score.
    """
    lines: list[Sequence[str | float]] = [NBGRADER]
    for row in rows:
        first, last = split_name(row.entry.name)
        raw = row.marks.points if row.marks else 0.0
        score = row.points if row.marks else 0.0
        who = [row.entry.student, last, first, row.entry.email]
        when = [_utc(day.late.due), _utc(row.time)]
        penalty = row.late.penalty(raw or 0.0)
        scores = [csv_table.or_empty(raw), penalty, csv_table.or_empty(score), day.points]
        lines.append([day.name, *when, *who, *scores])
    return csv_table.to_csv(lines)


def split_name(name: str) -> tuple[str, str]:
    """Split “Lovelace, Ada” or “Ada Lovelace” into first and last name. Without a comma, only the last word is the last name."""
    if "," in name:
        last, _, first = name.partition(",")
    else:
        first, _, last = name.strip().rpartition(" ")
    return first.strip(), last.strip()


def _utc(time: datetime | None) -> str:
    return str(time.astimezone(UTC).replace(tzinfo=None)) if time else ""
