"""Read a class's marks, with Moodle's submission times and overrides. Entry point: `read_class`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.console import add_note, print_text

if TYPE_CHECKING:
    from autograder.course.config import Day
    from autograder.course.files import FileError
    from autograder.marks.model import SubmissionMarks
    from autograder.marks.overrides import Overrides


def read_overrides(day: Day, on_error: Callable[[FileError], None] | None = None) -> Overrides:
    """Return the overrides in the store and in nbgrader's gradebook.

    If the gradebook cannot be read, call `on_error` and ignore the gradebook. Without `on_error`, raise a FileError.
    """
    from autograder.course.files import FileError
    from autograder.marks.overrides import Overrides, read_stored

    stored = read_stored(day)
    if not any((day.root / "submitted").glob(f"*/{day.name}")):
        return stored
    from autograder.nbgrader_plugin import gradebook

    try:
        return Overrides(stored.stored, gradebook.read_overrides(day))
    except FileError as error:
        if on_error is None:
            raise
        on_error(error)
        return stored


def read_class(
    day: Day, file: Path | None = None, worksheet: Path | None = None
) -> list[SubmissionMarks]:
    """Return the marks in the store or, if `file` is given, in a file written by `grade --json`.

    Marks from the store include overrides. Moodle's submission times come from the store and from `worksheet`, and are stored
    if the marks are.

    Raises:
        FileError: The store or nbgrader's gradebook cannot be read, or the times cannot be stored.
        CourseError: The store has no marks for the day, or a file is invalid.
    """
    from autograder.export import moodle
    from autograder.marks import overrides
    from autograder.marks.submission_times import SubmissionTimes

    gc.disable()  # a large class has millions of objects, none of which become garbage
    try:
        graded = _read_file(day, file) if file else _read_store(day)
    finally:
        gc.freeze()
        gc.enable()
    if worksheet:
        times, message, notes = moodle.update_times(day, worksheet, graded, are_stored=not file)
        _print_all(message, notes)
    else:
        zone = day.late.moodle_zone
        times = SubmissionTimes(zone=zone) if file else overrides.read_times(day)
    own = overrides.Overrides() if file else read_overrides(day)
    class_ = [own.apply(times.of(marks)) for marks in graded]
    for note in own.unmatched(class_) + own.surpassed(class_):
        add_note(note)
    return class_


def _read_store(day: Day) -> list[SubmissionMarks]:
    from autograder.course.config import CourseError
    from autograder.marks.history import History

    with History(day.root) as history:
        class_ = history.current(day.name)
    if not class_:
        raise CourseError(
            f"there are no marks for {day.name}. Run `autograder grade {day.name} PATH` first."
        )
    return class_


def _read_file(day: Day, file: Path) -> list[SubmissionMarks]:
    """Read marks written by `grade --json`."""
    from autograder.course.config import CourseError
    from autograder.marks import model

    try:
        return model.decode(file.read_bytes(), day.name).submissions
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}") from None
    except model.InvalidMarks as error:
        raise CourseError(f"{file} {error}") from None


def remember_times(day: Day, worksheet: Path) -> None:
    """Store the submission times from Moodle's worksheet, and print how many were read and in which time zone."""
    from autograder.export import moodle

    _print_all(*moodle.store_times(day, worksheet))


def _print_all(message: str, notes: Iterable[str]) -> None:
    for note in notes:
        add_note(note)
    print_text(message)


def print_overrides(class_: Iterable[SubmissionMarks], overrides: Overrides) -> None:
    """Print the overrides in these marks, and report those that have no effect."""
    from autograder.marks.overrides import describe

    for note in overrides.surpassed(class_):
        add_note(note)
    for marks in class_:
        for exercise in marks.exercises:
            if exercise.override:
                print_text(f"override: {marks.label}: {describe(exercise)}")
