"""Read marks from the store and apply the changes that TAs made by hand. Entry point: `stored_class`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.console import print_note, print_text, print_warning

if TYPE_CHECKING:
    from autograder.course.config import Day
    from autograder.marks.model import SubmissionMarks
    from autograder.marks.overrides import Adjustments


def adjustments(day: Day) -> Adjustments:
    """Return the manual points and comments, including those from nbgrader's gradebook.

    Raises:
        FileError: The overrides or the gradebook cannot be read.
    """
    from autograder.marks.overrides import Adjustments, read_stored

    stored = read_stored(day)
    if not any((day.root / "submitted").glob(f"*/{day.name}")):
        return stored
    from autograder.nbgrader_plugin import manual_grades

    return Adjustments(stored.stored, manual_grades.read(day))


def remember_times(day: Day, worksheet: Path) -> None:
    """Store the submission times from Moodle's worksheet, and print how many were read and in which time zone.

    Raises:
        CourseError: The file is not a worksheet.
        FileError: The times cannot be stored.
    """
    from autograder.export import moodle

    message, notes = moodle.store_times(day, worksheet)
    for note in notes:
        print_note(note)
    print_text(message)


def update_times(
    day: Day, worksheet: Path, class_: Iterable[SubmissionMarks], are_stored: bool
) -> list[SubmissionMarks]:
    """Return the class with the times from Moodle's worksheet. Print how many were read and in which time zone.

    If these marks are in the store, the times are stored as well.

    Raises:
        CourseError: The file is not a worksheet.
        FileError: The times cannot be stored.
    """
    from autograder.export import moodle

    change = moodle.update_times if are_stored else moodle.add_times
    updated, message, notes = change(day, worksheet, class_)
    for note in notes:
        print_note(note)
    print_text(message)
    return updated


def adjustments_or_warning(day: Day, quiet: bool) -> Adjustments:
    """Return `adjustments(day)`. If nbgrader's gradebook cannot be read, ignore it, and warn unless `quiet` is true."""
    from autograder.course.files import FileError
    from autograder.marks.overrides import read_stored

    try:
        return adjustments(day)
    except FileError as error:
        if not quiet:
            print_warning(error)
        return read_stored(day)


def stored_class(day: Day) -> list[SubmissionMarks]:
    """Return the current marks in the store, with manual points and comments applied.

    Raises:
        FileError: The store cannot be read.
        CourseError: The store has no marks for the day.
    """
    from autograder.course.config import CourseError, older_names
    from autograder.marks.history import History
    from autograder.marks.overrides import read_times

    with History(day.root, read_times(day)) as history:
        class_ = history.current(day.name, older_names(day))
    if not class_:
        raise CourseError(
            f"there are no marks for {day.name}. Run `autograder grade {day.name} PATH` first."
        )
    by_hand = adjustments(day)
    for note in by_hand.unused(class_):
        print_note(note)
    return [by_hand.apply(marks) for marks in class_]


def print_overrides(class_: Iterable[SubmissionMarks], by_hand: Adjustments) -> None:
    """Print the manual points and comments in these marks, and report those that have no effect."""
    from autograder.marks.overrides import describe

    for note in by_hand.surpassed(class_):
        print_note(note)
    for marks in class_:
        for exercise in marks.exercises:
            if exercise.override:
                print_text(f"by hand: {marks.label}: {describe(exercise)}")
