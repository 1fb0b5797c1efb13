"""Tell the TA which students' grades to check. Entry points: `choice_notes`, `missing_grades` and `unattempted_notes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks
from autograder.marks.row import Row
from autograder.plain_text import counted, list_with_count
from autograder.submissions.roster_entry import Entry


def choice_notes(
    chosen: Iterable[Row], handed: Mapping[Entry, Sequence[SubmissionMarks]]
) -> Iterator[str]:
    """Yield notes about students with several submissions, and about special cases of the late policy.

    `handed` contains each student's submissions.
    """
    for row in chosen:
        if row.marks is None:
            continue
        yield from note_of_others(row.entry.student, row, handed[row.entry])
        if row.late.note and row.marks.points is not None:
            yield f"{row.entry.student}: {row.late.note}"


def note_of_others(student: str, row: Row, others: Iterable[SubmissionMarks]) -> Iterator[str]:
    """Yield a note if the student has submissions that do not count. `row` contains the submission that counts."""
    assert row.marks is not None
    others = list(others)
    paths = {marks.path for marks in others} - {row.marks.path}
    if paths:
        points = "no points" if row.points is None else counted(row.points, "point")
        yield (
            f"{student} has {len(paths) + 1} submissions; {row.marks.path} counts "
            f"({points}), and these do not: {', '.join(sorted(paths))}"
            f"{_differing_names([row.marks, *others])}"
        )


def _differing_names(class_: Iterable[SubmissionMarks]) -> str:
    """Return a warning if these submissions from Canvas have the same student id, but different names."""
    sources = [marks.handed_in for marks in class_ if marks.handed_in]
    # The name is not certain if the file name is ambiguous.
    readings = [[reading.name for reading in source.readings] for source in sources]
    names = [found for found in readings if found]
    names += [[person.name for person in source.people] for source in sources if source.upload]
    if not names or set.intersection(*map(set, names)):
        return ""
    listed = ", ".join(sorted({found[0] for found in names}))
    return f". Their names in Canvas differ: {listed}. Check whether they are from the same student"


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
