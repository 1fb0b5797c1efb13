"""For appeals: the code that was taken, each test, and the failing call with its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.execution.collect import Test
from autograder.execution.student import Student
from autograder.grading.grader import Grader, start_server
from autograder.marks.model import sanitize
from autograder.sandbox.client import Server
from autograder.slicing.client import Slicer, SlicingCourse, SlicingError, prepare
from autograder.slicing.service import Piece
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission, read_submissions

SHOWN = 24  # elements of a tensor that are printed


def explain(day: Day, path: Path, exercise: str, seed: str | None) -> Iterator[str]:
    """Lines of text: grades the exercise again, with the inputs that the submission got.

    Raises:
        CourseError: the day has no such exercise.
    """
    if exercise not in day.names:
        raise CourseError(f"{day.name} has no exercise {exercise!r}; it has {', '.join(day.names)}")
    with start_server() as server, Reader() as reader:
        grader = Grader(day, server, state_folder.secret(day.root), seed)
        course = prepare(reader.server, day)
        for submission in read_submissions([path], day.name, reader):
            yield f"{submission.path} ({submission.student})"
            tests: list[str] = []

            def observe(
                test: Test, message: str, student: Student | None, tests: list[str] = tests
            ) -> None:
                if test.exercise == exercise:
                    tests.extend(_test(test, message, student))

            marks = grader.grade(submission, observe)
            yield from (f"  problem: {problem}" for problem in marks.problems)
            if not marks.exercises:
                continue
            if pieces := _pieces(reader.server, course, submission, exercise):
                yield "\nThe code that was taken:\n"
                text = "".join(f"{piece.source}\n\n" for piece in pieces)
                yield from (f"    {line}" for line in words_of(text.removesuffix("\n")))
            yield "\nThe tests:\n"
            marked = next(e for e in marks.exercises if e.name == exercise)
            yield from tests or [f"  {marked.message}"]
            if marked.reference_for:
                yield f"\nGraded again with the reference for {', '.join(marked.reference_for)}."
            yield f"\n{exercise}: {marked.points:g} of {marked.max_points:g} points, {marked.status}"
            yield f"replay with --seed {marks.seed}\n"


def _pieces(
    server: Server, course: SlicingCourse, submission: Submission, exercise: str
) -> tuple[Piece, ...]:
    with Slicer(server, course, submission.cells) as slicer:
        try:
            return slicer.slice_all().slices[exercise].pieces
        except SlicingError:
            return ()  # the marks say why


def words_of(text: str) -> list[str]:
    """Lines that are safe for a terminal, however long the text."""
    return [sanitize(line) for line in text.split("\n")]


def _test(test: Test, message: str, student: Student | None) -> Iterator[str]:
    yield f"  {'lost' if message else 'held'}  {test.name}: {test.sentence}"
    if message:
        yield f"        {sanitize(message)}"
        if student is not None and student.last_call:
            what, args, kwargs = student.last_call
            yield f"        the last call: {what}"
            for name, value in [*enumerate(args), *kwargs.items()]:
                yield f"          {name}: {_shown(value)}"


def _shown(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return sanitize(repr(value))
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.is_meta or value.numel() > SHOWN:
        return kind
    return f"{kind} {value.tolist()}"
