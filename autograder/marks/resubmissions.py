"""Compare the final points of students who submitted again. Entry points: `compare` and `notes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.marks.class_list import GroupRule, StudentResult, is_on_time, lateness_for
from autograder.marks.history import Replacement
from autograder.marks.model import SubmissionMarks
from autograder.plain_text import format_number, list_with_count


@dataclass(frozen=True)
class Resubmission:
    """A student's final points before and after a resubmission.

    `before` and `row.points` include manual points and late penalties. They are None if there is no grade. `row` is the
    student's row in the class.
    """

    row: StudentResult
    before: float | None

    def __str__(self) -> str:
        return f"{self.row.entry.student}: {_points(self.before)} → {_points(self.row.points)}"


def compare(
    replacements: Iterable[Replacement],
    rows: Iterable[StudentResult],
    day: Day,
    adjust: Callable[[SubmissionMarks], SubmissionMarks],
) -> list[Resubmission]:
    """Return each student's final points before and after resubmission, if the new submission counts.

    Args:
        replacements: The students' earlier and new marks, as stored.
        rows: The class's rows, which contain the students' extensions.
        day: The day, with its late policy.
        adjust: A function that applies manual points and comments.
    """
    earlier = {one.key: adjust(one.before) for one in replacements if not one.is_older}
    return [
        Resubmission(row, _final_points(earlier[key], row, day))
        for row in rows
        for key in row.keys
        if key in earlier
    ]


def _final_points(earlier: SubmissionMarks, row: StudentResult, day: Day) -> float | None:
    # If Canvas did not mark the earlier submission late, the hours in the roster are for the new one.
    if earlier.points is None or is_on_time(earlier):
        return earlier.points
    return lateness_for(day, earlier.origin, row.entry).reduce(earlier.points)


def notes(again: Sequence[Resubmission], group: GroupRule, day: Day) -> Iterator[str]:
    """Yield notes about resubmissions that the TA should check."""
    worse = [
        one for one in again if one.before is not None and (one.row.points or 0.0) < one.before
    ]
    if worse:
        names = list_with_count([str(one) for one in worse])
        newest = "The newest submission counts. " if group == "latest" else ""
        yield (
            f"these resubmissions lower the final points {names}. {newest}To make an earlier one count, run "
            f"`autograder forget {day.name} STUDENT`, and grade the earlier download again"
        )
    timed = [one.row.entry.label for one in again if one.row.entry.hours_late(day.name) is not None]
    if timed:
        yield (
            f"these students resubmitted and have late_hours in roster.csv {list_with_count(timed)}. If you have not "
            "done so, enter how many hours late the new submissions are"
        )


def _points(points: float | None) -> str:
    return "no grade" if points is None else format_number(points)
