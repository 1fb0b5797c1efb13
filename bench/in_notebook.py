"""Run hidden tests inside a student's notebook, as plain nbgrader and Otter do. Used only for comparison."""

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
    """Return each exercise's hidden tests."""
    return collect(courses.load(ROOT).day(day))


def test_points(day: str, exercise: str) -> list[float]:
    """Return how many points each of an exercise's tests is worth."""
    points = next(e.points for e in courses.load(ROOT).day(day).exercises if e.name == exercise)
    return split_points(points, [test.weight for test in tests(day)[exercise]])


def run_test(day: str, exercise: str, number: int) -> None:
    """Run one of the tests for an exercise on the definitions in `__main__`.

    Raises:
        Exception: The test failed.
    """
    process = LocalProcess()
    process._worker._module = sys.modules["__main__"]
    try:
        tests(day)[exercise][number].run(Student(process), 0)
    except StudentError as error:
        if error.type == "KeyboardInterrupt":  # raised when the cell exceeds its time limit
            raise KeyboardInterrupt from None
        raise


def points(day: str, exercise: str) -> float:
    """Run an exercise's tests on the definitions in `__main__`, print the failures, and return the points earned."""
    earned = 0.0
    for number, share in enumerate(test_points(day, exercise)):
        try:
            run_test(day, exercise, number)
        except Exception as error:
            print(f"{FAILED}{type(error).__name__}: {error}")
        else:
            earned += share
    return round(earned, 2)
