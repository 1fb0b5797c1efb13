"""Compare the final points of students who submitted again. Entry points: `compare` and `notes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.marks import class_list
from autograder.marks.class_list import Row
from autograder.marks.current_marks import Replacement
from autograder.marks.model import SubmissionMarks
from autograder.marks.roster_notes import list_names
from autograder.submissions.roster import Roster


@dataclass(frozen=True)
class Resubmission:
    """A student's points for the earlier and the new submission, including points by hand and late penalties.

    They are None if the submission could not be graded.
    """

    student: str
    path: str
    before: float | None
    after: float | None

    def __str__(self) -> str:
        return f"{self.student}: {_points(self.before)} → {_points(self.after)}"


def compare(
    replacements: Iterable[Replacement],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
    adjust: Callable[[SubmissionMarks], SubmissionMarks],
) -> list[Resubmission]:
    """Return the students whose new submission counts.

    Args:
        replacements: The students' earlier and new marks, as stored.
        class_: The marks of all new submissions. They decide which rows of the roster apply.
        adjust: A function that applies manual points and comments.
    """
    again = [one for one in replacements if not one.is_older]
    both = [adjust(marks) for one in again for marks in (one.before, one.after)]
    late = class_list.lateness_of_each([*both, *class_], day, roster)
    points = [
        None if marks.points is None else late_by.reduce(marks.points)
        for marks, late_by in zip(both, late, strict=False)
    ]
    # Hours in the roster are those of the new submission if Canvas did not mark the earlier one late.
    points[::2] = [
        earlier.points if class_list.is_on_time(earlier) else reduced
        for earlier, reduced in zip(both[::2], points[::2], strict=True)
    ]
    return [
        Resubmission(one.student, one.after.path, points[2 * n], points[2 * n + 1])
        for n, one in enumerate(again)
    ]


def notes(again: Sequence[Resubmission], rows: Iterable[Row], day: Day) -> Iterator[str]:
    """Yield notes about resubmissions that the TA should check."""
    worse = [one for one in again if one.before is not None and (one.after or 0.0) < one.before]
    if worse:
        yield (
            f"resubmissions that lower the final points {list_names([str(one) for one in worse])}. The newest submission "
            "counts. The guide explains how to make an earlier one count"
        )
    paths = {one.path for one in again}
    timed = [
        row.entry.label
        for row in rows
        if row.marks and row.marks.path in paths and row.entry.hours_late(day.name) is not None
    ]
    if timed:
        yield (
            f"students who resubmitted, with late_hours in roster.csv {list_names(timed)}. Enter the hours of the new "
            "submission if you have not done so"
        )


def _points(points: float | None) -> str:
    return "no grade" if points is None else f"{points:g}"
