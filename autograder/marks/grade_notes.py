"""Tell the TA about students who get no grade or no points. Entry points: `missing_grades` and `unattempted_notes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autograder.course.config import Day
from autograder.marks.class_list import Row
from autograder.plain_text import counted, list_with_count


def missing_grades(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a note for each student whose submission could not be graded."""
    for row in rows:
        if row.marks and row.marks.points is None:
            grade = "no grade" if row.points is None else counted(row.points, "point")
            yield f"{row.entry.label}: {grade}, because {row.marks.reason}"


def unattempted_notes(rows: Iterable[Row], day: Day) -> Iterator[str]:
    """Yield a note about students who get 0 points because they attempted no exercises."""
    names = [
        row.entry.label
        for row in rows
        if row.marks
        and row.marks.exercises
        and row.marks.points == 0
        and all(exercise.status == "not_attempted" for exercise in row.marks.exercises)
    ]
    if names:
        yield (
            f"these students get 0 points because they attempted no exercises {list_with_count(names)}. Ask whether they "
            f"submitted the wrong file. To leave a grade empty, run `autograder forget {day.name} STUDENT` just "
            "before you export"
        )
