"""Check that a day's chapters, graders and `grading.toml` entries are consistent. Entry point: `check_day`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from autograder.course.config import GRADING_TOML, CourseError, Day
from autograder.course.files import read_text

CELL_ID = re.compile(
    r"[A-Za-z0-9_]{1,58}"
)  # nbformat allows 64 characters, and a check cell's ID is check_NAME


def check_day(day: Day) -> None:
    """Check that every exercise has a stub, a solution, visible checks and a grader, and that every grader tests an
    exercise. Raises CourseError for the first one that fails the check.
    """
    for name in day.names:
        if not CELL_ID.fullmatch(name):
            raise CourseError(
                f"{GRADING_TOML}: {day.name}.exercises.{name}: the name becomes part of a cell ID. Use at most 58 characters: "
                "letters from A to Z, digits and underscores."
            )
    for chapter in day.chapters:
        chapter.check([e.name for e in day.exercises if e.chapter == chapter.name])
    graded = graded_exercises(day)
    for exercise in day.exercises:
        if exercise.name not in graded:
            file = day.graders / f"test_{exercise.chapter}.py"
            raise CourseError(
                f"{day.name}: {exercise.name} has no grader. Add a class with "
                f'exercise = "{exercise.name}" to {file}.'
            )
    for name, file in graded.items():
        if name not in (*day.names, *(e.name for e in day.unassigned)):
            raise CourseError(
                f"{file}: {name!r} has a grader here, but is not an exercise in {GRADING_TOML}. "
                "To give students its solution, list it there with given = true."
            )


def graded_exercises(day: Day) -> dict[str, Path]:
    """Map each exercise that the day's graders test to the grader's file."""
    found: dict[str, Path] = {}
    for file in sorted(day.graders.glob("test_*.py")):
        for name in _named_exercises(file):
            if name in found:
                raise CourseError(f"{file}: {name!r} already has a grader in {found[name]}")
            found[name] = file
    return found


def _named_exercises(file: Path) -> Iterator[str]:
    """Yield the string assigned to `exercise` in each of a grader's classes."""
    try:
        tree = ast.parse(read_text(file), file.name)
    except (SyntaxError, ValueError) as error:  # ValueError: the file contains null bytes
        raise CourseError(f"{file} cannot be imported: {error}") from None
    for test_class in ast.walk(tree):
        for statement in test_class.body if isinstance(test_class, ast.ClassDef) else []:
            match statement:
                case ast.Assign(
                    [ast.Name("exercise")], ast.Constant(str() as name)
                ) | ast.AnnAssign(ast.Name("exercise"), _, ast.Constant(str() as name)):
                    yield name
