"""Runs hidden tests inside the student's own notebook, as plain nbgrader and Otter do. For comparison only."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from autograder.course import config as courses
from autograder.execution.collect import Test, collect
from autograder.execution.student import Student, StudentError
from autograder.marks.model import split_points
from autograder.sandbox.worker.in_process import LocalProcess

ROOT = Path(__file__).parents[1]
FAILED = "failed: "


@cache
def tests(day: str) -> dict[str, list[Test]]:
    """The hidden tests of each exercise."""
    return collect(courses.load(ROOT).day(day))


def worth(day: str, exercise: str) -> list[float]:
    """The points of each test of an exercise."""
    points = next(e.points for e in courses.load(ROOT).day(day).exercises if e.name == exercise)
    return split_points(points, [test.weight for test in tests(day)[exercise]])


def ask(day: str, exercise: str, place: int) -> None:
    """Run one test of an exercise on what `__main__` defines.

    Raises:
        Exception: it does not hold.
    """
    process = LocalProcess()
    process._worker._module = sys.modules["__main__"]
    try:
        tests(day)[exercise][place].run(Student(process), 0)
    except StudentError as error:
        if error.type == "KeyboardInterrupt":  # the cell's own limit
            raise KeyboardInterrupt from None
        raise


def points(day: str, exercise: str) -> float:
    """Run all tests of an exercise on what `__main__` defines, and print which fail; the points earned."""
    earned = 0.0
    for place, part in enumerate(worth(day, exercise)):
        try:
            ask(day, exercise, place)
        except Exception as error:
            print(f"{FAILED}{type(error).__name__}: {error}")
        else:
            earned += part
    return round(earned, 2)
