"""Show marks under the current names of exercises renamed after grading. Entry point: `rename_exercises`."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from autograder.marks.model import SubmissionMarks


def rename_exercises(marks: SubmissionMarks, current: Mapping[str, str]) -> SubmissionMarks:
    """Return marks with their exercises' current names. `current` maps each older name to the current one."""
    if not any(exercise.name in current for exercise in marks.exercises):
        return marks
    exercises = [
        replace(
            exercise,
            name=current.get(exercise.name, exercise.name),
            reference_for=[current.get(name, name) for name in exercise.reference_for],
        )
        for exercise in marks.exercises
    ]
    return replace(marks, exercises=exercises)
