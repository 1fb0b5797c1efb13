"""Export a day's marks to a file, or to a folder for Gradescope. Entry point: `export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.files import make_folder, write_output
from autograder.export import Format, canvas, gradescope, moodle, plain
from autograder.feedback import sentences
from autograder.feedback.student_page import file_name
from autograder.marks import class_list, class_notes
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import describe
from autograder.submissions import roster as rosters


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
            "nbgrader": plain.nbgrader_table,
            "csv": plain.exercise_table,
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
