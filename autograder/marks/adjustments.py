"""Apply manual points and comments, and submission times from Moodle, to marks. Entry points: `Adjustments` and `read_stored`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from autograder.course.config import Day
from autograder.course.renames import older_names
from autograder.marks.model import ExerciseMarks, Override, SubmissionMarks, total_points
from autograder.marks.overrides import (
    OVERRIDES_DB,
    OverrideStore,
    StudentOverride,
    keys,
    read_times,
)
from autograder.marks.submission_times import SubmissionTimes
from autograder.plain_text import counted, format_number

FORMGRADER = "formgrader"  # value of `by` for points and comments from nbgrader's gradebook

# Maps exercise names to one student's overrides.
Overrides = Mapping[str, Override]


@dataclass(frozen=True)
class Adjustments:
    """All manual points and comments for a day, and submission times that were missing from the download.

    `manual` maps folders in submitted/ to the points and comments from nbgrader's gradebook, which take precedence. If
    `times` is None, the marks already contain their submission times.
    """

    stored: Sequence[StudentOverride] = ()
    manual: Mapping[Path, Overrides] = field(default_factory=dict)
    times: SubmissionTimes | None = None

    def apply(self, marks: SubmissionMarks) -> SubmissionMarks:
        """Return marks with manual points and comments applied."""
        folders = Path(os.path.abspath(marks.path)).parents if self.manual else ()
        manual = next((self.manual[folder] for folder in folders if folder in self.manual), None)
        if self.times:
            source = self.times.added_to(marks.handed_in, marks.sha256)
            marks = replace(marks, handed_in=source)
        return apply(marks, self.stored, manual)

    def unused(self, class_: Sequence[SubmissionMarks]) -> list[str]:
        """Return notes about overrides that have no effect. `class_` contains all marks, with or without overrides applied."""
        return self.unmatched(class_) + self.outdone(class_)

    def unmatched(self, class_: Iterable[SubmissionMarks]) -> list[str]:
        """Return notes about overrides for students or exercises without marks. `class_` contains all students' marks."""
        graded = {key: {e.name for e in marks.exercises} for marks in class_ for key in keys(marks)}
        return [
            f"the override of {one.exercise} for {one.student} has no effect: "
            + ("the submission has no such exercise" if one.key in graded else _no_marks(one))
            for one in self.stored
            if one.exercise not in graded.get(one.key, ())
        ]

    def outdone(self, class_: Iterable[SubmissionMarks]) -> list[str]:
        """Return notes about overrides that have no effect because the current submission earned more points without them."""
        return [
            f"{marks.label}: the override of {one.exercise} to {format_number(one.override.points or 0)} has no effect, because "
            f"the submission earned {counted(exercise.points, 'point')} without it"
            for marks in class_
            for one in stored_for(marks, self.stored).values()
            for exercise in marks.exercises
            if exercise.name == one.exercise and exercise.override is None
            if one.is_outdone_by(exercise)
        ]


def _no_marks(one: StudentOverride) -> str:
    """Return a note about an override that matches no marks. Add advice if the student may have marks under a different id."""
    if one.key == one.student:
        return f"there is no submission from {one.student}"
    return (
        f"there is no submission with the id {one.key}. If the student has marks under a different id, "
        "enter the override again"
    )


def read_stored(day: Day) -> Adjustments:
    """Return the overrides and submission times in the course's store. Replace older exercise names with the current ones.

    Raises:
        FileError: The store cannot be read.
    """
    times = read_times(day)
    if not (day.root / ".autograder" / OVERRIDES_DB).exists():
        return Adjustments(times=times)
    with OverrideStore(day.root) as store:
        stored = store.read(day.name)
    current = older_names(day)
    stored = [dataclasses.replace(o, exercise=current.get(o.exercise, o.exercise)) for o in stored]
    return Adjustments(stored, times=times)


def apply(
    marks: SubmissionMarks, stored: Iterable[StudentOverride], manual: Overrides | None = None
) -> SubmissionMarks:
    """Return marks with their students' overrides applied. `manual` contains the marks from nbgrader, which take precedence.

    If an override raised the points, but the code now earns more without it, for example after a resubmission, the override
    is ignored.
    """
    own = stored_for(marks, stored)
    chosen = {
        exercise.name: own[exercise.name].override
        for exercise in marks.exercises
        if exercise.name in own and not own[exercise.name].is_outdone_by(exercise)
    } | dict(manual or {})
    if not any(exercise.name in chosen for exercise in marks.exercises):
        return marks
    exercises = [_override(e, chosen[e.name]) if e.name in chosen else e for e in marks.exercises]
    return replace(marks, exercises=exercises, points=total_points(exercises))


def stored_for(
    marks: SubmissionMarks, stored: Iterable[StudentOverride]
) -> dict[str, StudentOverride]:
    """Map exercises to the latest override stored for the submission. An override for one student applies to the whole group."""
    own_keys = keys(marks)
    own = sorted((o for o in stored if o.key in own_keys), key=lambda o: o.override.time)
    return {one.exercise: one for one in own}


def _override(exercise: ExerciseMarks, override: Override) -> ExerciseMarks:
    points = exercise.points if override.points is None else override.points
    return replace(exercise, points=points, override=replace(override, graded=exercise.points))


def without_manual(marks: SubmissionMarks) -> SubmissionMarks:
    """Remove points and comments that came from nbgrader's gradebook, so that the marks can be copied back into it."""
    exercises = [
        replace(e, points=e.override.graded, override=None)
        if e.override and e.override.by == FORMGRADER
        else e
        for e in marks.exercises
    ]
    if exercises == marks.exercises:
        return marks
    return replace(marks, exercises=exercises, points=total_points(exercises))


def describe(exercise: ExerciseMarks) -> str:
    """Return a description of an exercise's override for the TA, beginning with the exercise's name, or "" if there is none."""
    override = exercise.override
    return f"{exercise.name} {describe_override(override)}" if override else ""


def describe_override(override: Override) -> str:
    """Return the points, the author, the date and the comment of an override."""
    by = " ".join(filter(None, [override.by, override.time[:10]]))
    comment = f": {override.comment}" if override.comment else ""
    return f"{override.change()} ({by}){comment}".lstrip()
