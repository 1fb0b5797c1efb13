"""`autograder export`: the marks of a day, from the store or from a file, as another system takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from autograder.course.config import CourseError, Day
from autograder.course.state_folder import unwritable
from autograder.export import canvas, gradescope, moodle, plain
from autograder.feedback import sentences
from autograder.feedback.student_page import file_name
from autograder.marks import class_list
from autograder.marks.class_list import Row
from autograder.marks.model import SubmissionMarks
from autograder.submissions import roster

Format = Literal["canvas", "moodle", "gradescope", "nbgrader", "csv"]


def export(
    day: Day,
    to: Format,
    class_: Iterable[SubmissionMarks],
    out: Path,
    roster_file: Path | None = None,
    into: Path | None = None,
    column: str = "",
) -> list[str]:
    """Write the file, for Gradescope the folder; gives what somebody should look at, in sentences.

    Raises:
        CourseError: the roster or the file to fill in is not as it should be, or the format takes none.
        StoreError: it can not be written.
    """
    if into and to not in ("canvas", "moodle"):
        raise CourseError(f"--into is for canvas and moodle; {to} has no file to fill in")
    known = roster.for_course(day.root, roster_file)
    if into and to == "canvas" and not known.entries:
        known = canvas.roster(into)
    rows, notes = class_list.rows(class_, day, known)
    if to == "gradescope":
        _gradescope(rows, day, out)
        return notes
    if into and to == "canvas":
        text, more = canvas.into(rows, day, into, column)
    elif into:
        text, more = moodle.into(rows, day, into)
    else:
        made = {
            "canvas": canvas.new,
            "moodle": moodle.new,
            "nbgrader": plain.nbgrader,
            "csv": plain.table,
        }
        text, more = made[to](rows, day), []
    _write(out, text)
    return [*notes, *more]


def _gradescope(rows: Iterable[Row], day: Day, folder: Path) -> None:
    taken: set[str] = set()
    for name, text in gradescope.files(list(rows), sentences.read(day)):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        _write(folder / f"{file_name(name, taken)}.json", text)


def _write(file: Path, text: str) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            opened.write(text)
    except OSError as error:
        raise unwritable(file, error) from None
