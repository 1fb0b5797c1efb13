"""Check that the course's own solutions pass all hidden tests, because marks would be too low otherwise. Entry point: `check`."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch

from autograder.course.config import CourseError
from autograder.grading.runner import Runner, RunSettings


def check(runner: Runner) -> None:
    """Run all hidden tests on the course's own solutions.

    Raises:
        CourseError: A test failed. The test itself may be wrong, or may not work with the installed versions.
    """
    day = runner.key.day
    failures = list(_failures(runner))
    if failures:
        versions = f"Python {platform.python_version()} and torch {torch.__version__}"
        raise CourseError(
            f"{day.name}: nothing can be graded, because with {versions}, the course's own solutions fail hidden tests: "
            f"{'; '.join(failures)}. `autograder try {day.name} EXERCISE` shows the details"
        )


def _failures(runner: Runner) -> Iterator[str]:
    for exercise in runner.key.day.exercises:
        source = runner.key.solution_source(exercise.name)
        outcomes = runner.outcomes(exercise, source, RunSettings("0"))
        for test, outcome in zip(runner.key.tests[exercise.name], outcomes, strict=True):
            if not outcome.passed:
                place = f" in {outcome.test_line}" if outcome.test_line else ""
                yield f"{exercise.name} fails {test.name}{place} ({outcome.message})"
                break
