"""The marks of shards, or of several machines, as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from autograder.course.config import CourseError
from autograder.marks.model import FORMAT, ExerciseMarks, Marks, SubmissionMarks


def merged(files: Mapping[Path, Marks], day: str) -> Marks:
    """The submissions of all files, sorted by path; one that is in two of them with the same marks counts once.

    Raises:
        CourseError: they were graded by different courses, or a submission has two different marks.
    """
    found: dict[tuple[str, str], tuple[Path, SubmissionMarks]] = {}
    first: tuple[Path, str] | None = None
    for file, marks in files.items():
        for one in marks.submissions:
            first = first or (file, one.course)
            if one.course != first[1]:
                raise CourseError(
                    f"{file} was graded by another course than {first[0]}: "
                    f"{one.course[:12]}… and {first[1][:12]}…; grade again what is older"
                )
            # Another machine may have the class in another folder, and a student two files.
            key = one.student, one.sha256 or one.path
            other, before = found.setdefault(key, (file, one))
            if _lasting(before) != _lasting(one):
                raise CourseError(
                    f"{one.path} of {one.student} has {before.points:g} points in {other} and "
                    f"{one.points:g} in {file}, or other reasons for them; were there two secrets?"
                )
    kept = [marks for _, marks in found.values()]
    return Marks(FORMAT, day, sorted(kept, key=lambda marks: (marks.path, marks.student)))


def _lasting(marks: SubmissionMarks) -> tuple[float, list[str], list[ExerciseMarks]]:
    """What is no chance of a run or of a machine."""
    exercises = [replace(exercise, seconds=0.0) for exercise in marks.exercises]
    return marks.points, marks.problems, exercises
