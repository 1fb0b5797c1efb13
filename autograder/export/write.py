"""Export a day's marks to a file, or to a folder for Gradescope. Entry point: `export`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.files import make_folder, write_output
from autograder.export import Format, canvas, csv_table, gradescope, moodle
from autograder.feedback import sentences
from autograder.feedback.student_page import file_name
from autograder.marks import class_list, class_notes
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import describe
from autograder.submissions import roster as rosters

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


def export(
    day: Day,
    to: Format,
    class_: Iterable[SubmissionMarks],
    out: Path,
    roster_file: Path | None = None,
    into: Path | None = None,
    column: str = "",
    unreadable: float | None = None,
    group: GroupRule = "latest",
) -> list[str]:
    """Export a class's marks, with late penalties applied, in the format `to`. Return notes for the TA.

    Args:
        out: The file to write, or the folder for Gradescope.
        roster_file: The roster to use instead of the course's own.
        into: The Canvas gradebook or Moodle worksheet to fill in.
        column: The assignment's title in Canvas, if it cannot be found by the day's name.
        unreadable: The points for submissions that could not be graded, or None to leave these grades empty.
        group: Which submission counts if several match a group on the roster or a line of `into`.

    Raises:
        CourseError: The roster or `into` is invalid, or the format does not support `into` or `column`.
        FileError: The output cannot be written.
    """
    if into and to not in ("canvas", "moodle"):
        raise CourseError(f"--into works only with canvas and moodle, not with {to}")
    if column and not (into and to == "canvas"):
        raise CourseError("--column works only with --to canvas and --into")
    if into and out.exists() and out.samefile(into):
        raise CourseError(f"--out would overwrite {into}, the --into file. Choose a different name")
    roster = rosters.for_course(day.root, roster_file)
    class_ = list(class_)
    is_from_canvas = any(marks.origin.source == "canvas" for marks in class_)
    if into and to == "canvas" and is_from_canvas and not roster.entries:
        roster = canvas.read_roster(into)
    rows = class_list.results(class_, day, roster, unreadable, group)
    notes = [
        *class_notes.notes(rows, day, roster),
        *class_notes.export_notes(rows, day),
        *_overrides(rows),
    ]
    if to == "gradescope":
        _gradescope(rows, day, out)
        return notes
    if into and to == "canvas":
        text, more = canvas.fill_in(rows, day, into, column, group)
    elif into:
        text, more = moodle.fill_in(rows, day, into, group)
    elif to == "moodle":
        text, more = moodle.grade_import(rows, day)
    else:
        formats = {
            "canvas": canvas.new_gradebook,
            "nbgrader": nbgrader_table,
            "csv": exercise_table,
        }
        text, more = formats[to](rows, day), []
    write_output(out, text.encode())
    return [*notes, *more]


def _overrides(rows: Iterable[StudentResult]) -> list[str]:
    """Return a note for each exercise with manual points or a manual comment."""
    return [
        f"by hand: {row.entry.student}: {describe(exercise)}"
        for row in rows
        if row.marks
        for exercise in row.marks.exercises
        if exercise.override
    ]


def _gradescope(rows: Iterable[StudentResult], day: Day, folder: Path) -> None:
    taken: set[str] = set()
    for name, text in gradescope.files(list(rows), sentences.read(day)):
        make_folder(folder)
        write_output(folder / f"{file_name(name, taken)}.json", text.encode())
