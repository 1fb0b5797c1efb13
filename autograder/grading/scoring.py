"""Convert an exercise's test outcomes to points and a status. Entry points: `score` and `no_points`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autograder.course.config import Exercise
from autograder.execution.attempt import Outcome
from autograder.execution.collect import Test
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    TestMarks,
    exact_sum,
    split_points,
)
from autograder.plain_text import sanitize


def score(
    exercise: Exercise, tests: Sequence[Test], outcomes: Sequence[Outcome], earned: Collection[str]
) -> ExerciseMarks:
    """Return the marks for an exercise. Only the tests in `earned` earn points."""
    shares = split_points(exercise.points, [test.weight for test in tests])
    marks = [
        TestMarks(
            name=test.name,
            points=share if test.name in earned else 0.0,
            max_points=share,
            passed=outcome.passed,
            message=""
            if outcome.passed
            else sanitize(f"{test.sentence} {outcome.message}".strip()),
            message_without_values="" if outcome.compared else sanitize(outcome.message),
            values=outcome.values,
        )
        for test, outcome, share in zip(tests, outcomes, shares, strict=True)
    ]
    points = exact_sum([mark.points for mark in marks])
    status = _status(outcomes, points)
    message = next((mark.message for mark in marks if not mark.passed), "")
    return _marks(exercise, points, status, message, marks)


def no_points(
    exercise: Exercise, tests: Sequence[Test], status: Status, message: str
) -> ExerciseMarks:
    """Return marks with 0 points and the same message for the exercise and each of its tests."""
    text = sanitize(message)
    shares = split_points(exercise.points, [test.weight for test in tests])
    marks = [
        TestMarks(test.name, 0.0, share, False, text, text)
        for test, share in zip(tests, shares, strict=True)
    ]
    return _marks(exercise, 0.0, status, text, marks)


def _marks(
    exercise: Exercise, points: float, status: Status, message: str, tests: list[TestMarks]
) -> ExerciseMarks:
    return ExerciseMarks(
        name=exercise.name,
        points=points,
        max_points=exercise.points,
        status=status,
        message=message,
        mistake=None,
        reference_for=[],
        seconds=0.0,
        tests=tests,
        optional=exercise.optional,
    )


def _status(outcomes: Sequence[Outcome], points: float) -> Status:
    for status in ("error", "timed_out", "crashed"):
        if any(outcome.status == status and not outcome.passed for outcome in outcomes):
            return status
    if all(outcome.passed for outcome in outcomes):
        return "passed"
    return "partial" if points else "failed"
