"""Export a day's marks to a file, or to a folder for Gradescope. Entry points: `choose_roster` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from autograder.course.config import Day
from autograder.course.files import write_output
from autograder.export import Format, canvas, csv_table, moodle
from autograder.export.csv_table import or_empty
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.overrides import describe
from autograder.submissions import roster as rosters
from autograder.submissions.roster import Roster

EXERCISES = (
    *("student", "id", "name", "email", "group"),
    *("points", "late_days", "late_per_cent", "points_before", "max_points"),
)
NBGRADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)


def exercise_table(results: Sequence[StudentResult], day: Day) -> str:
    """Return one row per student, with the points for each exercise. Without a submission, the other cells are empty."""
    head = [*EXERCISES, *(e.label for e in day.exercises), "problems", "by_hand"]
    lines: list[Sequence[str | float]] = [head]
    names, most = day.names, day.points
    for result in results:
        entry, marks, late = result.entry, result.marks, result.late
        who = [entry.student, result.id, entry.name, entry.email, entry.group]
        if marks is None:
            rest = [or_empty(result.points), *[""] * (len(head) - len(who) - 1)]
            lines.append([*who, *rest])
            continue
        points = [or_empty(result.points), late.days, late.percent, or_empty(marks.points)]
        earned = {exercise.name: exercise.points for exercise in marks.exercises}
        by_exercise = [or_empty(earned.get(name)) for name in names]
        overrides = "; ".join(describe(e) for e in marks.exercises if e.override)
        lines.append([*who, *points, most, *by_exercise, "; ".join(marks.problems), overrides])
    return csv_table.to_csv(lines)


def nbgrader_table(results: Sequence[StudentResult], day: Day) -> str:
    """Return a table with the same columns as `nbgrader export`. Like nbgrader, give a missing submission 0 points.

    A submission that could not be graded gets no score.
    """
    lines: list[Sequence[str | float]] = [NBGRADER]
    most = day.points
    for result in results:
        first, last = split_name(result.entry.name)
        raw = result.marks.points if result.marks else 0.0
        score = result.points if result.marks else 0.0
        who = [result.entry.student, last, first, result.entry.email]
        when = [_utc(day.late.due), _utc(result.time)]
        scores = [or_empty(raw), result.late.penalty(raw or 0.0), or_empty(score), most]
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


def choose_roster(day: Day, file: Path | None, gradebook: Path | None) -> Roster:
    """Return the given roster or the course's. If there is none, return the students in Canvas's gradebook, if given."""
    roster = rosters.for_course(day.root, file)
    return canvas.read_roster(gradebook) if gradebook and not roster.entries else roster


def export(
    results: Sequence[StudentResult],
    day: Day,
    to: Format,
    out: Path,
    into: Path | None = None,
    column: str = "",
    group: GroupRule = "latest",
    missing: bool = False,
) -> list[str]:
    """Export a class's marks, with late penalties applied, in the format `to`. Return notes about `into`.

    Args:
        results: The class, from `class_list.results`.
        out: The file to write, or the folder for Gradescope.
        into: The Canvas gradebook or Moodle worksheet to fill in.
        column: The assignment's title in Canvas, if it cannot be found by the day's name.
        group: Which submission counts if several match a line of `into`.
        missing: Whether students in `into` without a submission get 0 points. For other students, see `results`.

    Raises:
        CourseError: `into` is invalid.
        FileError: The output cannot be written.
    """
    notes = [] if into else [*csv_table.zeros([r.entry.label for r in results if r.missing == 0])]
    if to == "gradescope":
        from autograder.export import gradescope  # imports Jinja

        gradescope.write(results, day, out)
        return notes
    if into and to == "canvas":
        text, notes = canvas.fill_in(results, day, into, column, group, missing)
    elif into:
        text, notes = moodle.fill_in(results, day, into, group, missing)
    elif to == "moodle":
        text, notes = moodle.grade_import(results, day)
    else:
        formats = {
            "canvas": canvas.new_gradebook,
            "nbgrader": nbgrader_table,
            "csv": exercise_table,
        }
        text = formats[to](results, day)
    write_output(out, text.encode())
    return notes
