"""Grade a submission again to explain its marks. Entry point: `Run`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autograder.execution.collect import Test
from autograder.execution.student import Student
from autograder.grading.explain import Observed
from autograder.grading.follow_up import own_statements
from autograder.grading.grader import Grader
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.plain_text import sanitize
from autograder.slicing.slicer import Slicer, SlicingError
from autograder.submissions.reader_messages import Statement
from autograder.submissions.submission import Submission

MAX_ELEMENTS = 24  # maximum number of elements; the values of larger tensors are not shown
DIGITS = 6  # number of significant digits of the values


@dataclass
class Run:
    """The result of grading a submission again, and a record of what happened in each test of one exercise.

    Each key of `tests` lists the exercises that a run replaced with reference solutions; the first run's key is (). The
    value maps each test's name to what was observed in that run.
    """

    marks: SubmissionMarks
    statements: Sequence[Statement] = ()
    tests: dict[tuple[str, ...], dict[str, Observed]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, grader: Grader, submission: Submission, exercise: str, seed: str | None = None
    ) -> Run:
        """Grade a submission, and record what happens in the tests of one exercise."""
        tests: dict[tuple[str, ...], dict[str, Observed]] = {}

        def observe(
            replaced: Sequence[str], test: Test, message: str, student: Student | None
        ) -> None:
            if test.exercise == exercise:
                run = tests.setdefault(tuple(replaced), {})
                run[test.name] = _observe(test, message, student)

        run = cls(grader.grade_or_log(submission, seed, observe), (), tests)
        if exercise and run.marks.exercises:
            run.statements = _statements(
                grader, submission, next(e for e in run.marks.exercises if e.name == exercise)
            )
        return run


def _statements(
    grader: Grader, submission: Submission, exercise: ExerciseMarks
) -> tuple[Statement, ...]:
    """Return the code graded in the run that determined the points."""
    with (
        contextlib.suppress(SlicingError),  # grading has already reported this error
        Slicer(grader.server, grader.slicing_course, submission.cells) as slicer,
    ):
        for wide in (False, True):
            code = slicer.slice_again(exercise.name, exercise.reference_for, wide)
            # `statements` comes from the run that counts. It is empty unless the exercise lost points in the first run.
            if not exercise.statements or own_statements(code, grader.day) == exercise.statements:
                return code.statements
    return ()


def _observe(test: Test, message: str, student: Student | None) -> Observed:
    """Return what happened in a test. Copy the arguments, because the student's process ends after the run."""
    call: list[str] = []
    if message and student is not None and student.last_call:
        function, args, kwargs = student.last_call
        call = [f"last call: {function}"]
        call += [f"  {name}: {describe(v)}" for name, v in [*enumerate(args), *kwargs.items()]]
    return Observed(test.sentence, message, call)


def describe(value: Any) -> str:
    """Return an argument's type and shape, plus its values if it is small. Values are marked with ≈ if rounding changes them."""
    if not isinstance(value, torch.Tensor):
        return sanitize(repr(value))
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.is_meta or value.numel() > MAX_ELEMENTS:
        return kind
    exact = value.tolist()
    shown = _round(exact)
    return f"{kind} {'' if shown == exact else '≈ '}{shown}"


def _round(values: Any) -> Any:
    """Round all floats in nested lists to `DIGITS` significant digits."""
    if isinstance(values, list):
        return [_round(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values
