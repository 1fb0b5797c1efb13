"""Runs hidden tests inside the student's own notebook, as plain nbgrader does. For comparison only."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from autograder import course as courses
from autograder.collecting import Test, collect
from autograder.marks import shares
from autograder.sandbox.local import LocalProcess
from autograder.student import Student

ROOT = Path(__file__).parents[1]


@cache
def _tests(day: str) -> dict[str, list[Test]]:
    return collect(courses.load(ROOT).day(day))


def points(day: str, exercise: str) -> float:
    """Test what `__main__` defines; the points earned."""
    process = LocalProcess()
    process._worker._module = sys.modules["__main__"]
    student = Student(process)
    tests = _tests(day)[exercise]
    worth = next(e.points for e in courses.load(ROOT).day(day).exercises if e.name == exercise)
    earned = 0.0
    for test, part in zip(tests, shares(worth, [t.weight for t in tests]), strict=True):
        try:
            test.run(student, 0)
        except Exception:
            continue
        earned += part
    return round(earned, 2)
