"""Explain the marks for one exercise, for example when a student appeals. Entry point: `explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.execution.collect import Test
from autograder.execution.student import Student
from autograder.grading.fork_server import start_server
from autograder.grading.grader import Grader
from autograder.marks.model import sanitize
from autograder.sandbox.client import Server
from autograder.slicing.client import Slicer, SlicingCourse, SlicingError, prepare
from autograder.slicing.service import Piece
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission, read_submissions

MAX_ELEMENTS = 24  # number of elements; larger tensors are shown without their values


def explain(day: Day, path: Path, exercise: str, seed: str | None) -> Iterator[str]:
    """Regrade an exercise and yield lines of text: the exercise's code, each test, and the inputs to failed calls.

    The inputs are the same as in the original grading, unless `seed` is given.

    Raises:
        CourseError: The day has no such exercise.
    """
    if exercise not in day.names:
        raise CourseError(
            f"{day.name} has no exercise {exercise!r}; its exercises are {', '.join(day.names)}"
        )
    with start_server() as server, Reader() as reader:
        grader = Grader(day, server, state_folder.secret(day.root))
        course = prepare(reader.server, day)
        for submission in read_submissions([path], day.name, reader):
            yield f"{submission.path} ({submission.student})"
            readable = submission.readable
            pieces = _pieces(reader.server, course, submission, exercise) if readable else ()
            yield from _explain_submission(grader, submission, pieces, exercise, seed)


def _explain_submission(
    grader: Grader,
    submission: Submission,
    pieces: Sequence[Piece],
    exercise: str,
    seed: str | None,
) -> Iterator[str]:
    tests: list[str] = []

    def observe(test: Test, message: str, student: Student | None) -> None:
        if test.exercise == exercise:
            tests.extend(_test_lines(test, message, student))

    marks = grader.grade(submission, observe, seed=seed)
    yield from (f"  problem: {problem}" for problem in marks.problems)
    if not marks.exercises:
        return
    if pieces:
        code = "\n\n".join(piece.source for piece in pieces)
        yield "\nCode:\n"
        yield from (f"    {sanitize(line)}" for line in code.split("\n"))
    result = next(e for e in marks.exercises if e.name == exercise)
    yield "\nTests:\n"
    yield from tests or [f"  {result.message}"]
    if result.reference_for:
        yield f"\nGraded again with the reference for {', '.join(result.reference_for)}."
    yield f"\n{exercise}: {result.points:g} of {result.max_points:g} points, {result.status}"
    yield f"To repeat this run, add --seed {marks.seed}\n"


def _pieces(
    server: Server, course: SlicingCourse, submission: Submission, exercise: str
) -> tuple[Piece, ...]:
    with Slicer(server, course, submission.cells) as slicer:
        try:
            return slicer.slice_all().slices[exercise].pieces
        except SlicingError:
            return ()  # grading reports the same problem


def _test_lines(test: Test, message: str, student: Student | None) -> Iterator[str]:
    yield f"  {'failed' if message else 'passed'}  {test.name}: {test.sentence}"
    if message:
        yield f"          {sanitize(message)}"
        if student is not None and student.last_call:
            function, args, kwargs = student.last_call
            yield f"          last call: {function}"
            for name, value in [*enumerate(args), *kwargs.items()]:
                yield f"            {name}: {_describe(value)}"


def _describe(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return sanitize(repr(value))
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.is_meta or value.numel() > MAX_ELEMENTS:
        return kind
    return f"{kind} {value.tolist()}"
