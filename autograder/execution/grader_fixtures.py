"""Pytest fixtures for hidden graders: `seed` and `student`. `pytest_plugin` registers them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.execution.answer_key import given_units, load_solution, solution_units
from autograder.execution.attempt import Attempt, not_allowed_message
from autograder.execution.collect import Test
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.plain_text import sanitize
from autograder.sandbox.client import Server
from autograder.slicing.slicer import TOO_LONG, Slice, Slicer, SlicingError, prepare
from autograder.slicing.unit import Unit
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import read_submissions

# The submission's code for a test's exercise.
ATTEMPT: pytest.StashKey[Attempt] = pytest.StashKey()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return a different seed for each test."""
    given = request.config.getoption("--autograder-seed")
    return zlib.crc32(f"{given} {request.node.nodeid}".encode())


@pytest.fixture
def student(
    request: pytest.FixtureRequest, _sandbox: Callable[[], tuple[Server, Reader]]
) -> Iterator[Student | None]:
    """Yield the reference solution. With `--submission`, store the submission's code for `pytest_pyfunc_call` and yield None."""
    day = _day(request.path.parent)
    name = request.cls.exercise
    exercise = next((e for e in day.exercises if e.name == name), None)
    if any(other.name == name for other in day.unassigned):
        pytest.skip(f"students do not fill in {name} in {day.name}, so its grader is not used")
    if exercise is None:
        pytest.fail(f"{day.name} has no exercise {name!r} in grading.toml")
    submission = request.config.getoption("--submission")
    if submission is None:
        yield load_solution(day, exercise, *_units(day))
    else:
        seed = str(request.config.getoption("--autograder-seed"))
        attempt = _submitted(day, exercise, Path(submission), seed, *_sandbox())
        request.node.stash[ATTEMPT] = attempt
        yield None
        attempt.stop()


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test on a submission, and fail with the message that the student would see."""
    attempt = pyfuncitem.stash.get(ATTEMPT, None)
    if attempt is None:
        return None  # pytest calls the function
    owner, name = pyfuncitem.cls, pyfuncitem.name
    assert owner is not None
    outcome = attempt.run_test(Test(owner.exercise, name, "", 1.0, owner, getattr(owner, name)))
    if not outcome.passed:
        pytest.fail(sanitize(outcome.message), pytrace=False)
    return True


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Callable[[], tuple[Server, Reader]]]:
    """Yield a function that returns the session's fork server and reader. Both start on the first call."""
    with ExitStack() as stack:

        @cache
        def start() -> tuple[Server, Reader]:
            server, reader = Server(), Reader()
            stack.callback(server.close)
            stack.callback(reader.close)
            return server, reader

        yield start


def _submitted(
    day: Day, exercise: Exercise, file: Path, seed: str, server: Server, reader: Reader
) -> Attempt:
    """Return a submission's code, or fail the test if grading would not run it."""
    try:
        code = _slices(day, file, reader)[exercise.name]
    except SlicingError as error:
        pytest.fail(f"{file}: {error}", pytrace=False)
    if code.state == "too_long":
        pytest.fail(TOO_LONG, pytrace=False)
    if code.state != "written":
        state = "defined" if code.state == "absent" else "filled in"
        pytest.fail(f"{exercise.name} is not {state} in {file}", pytrace=False)
    if code.used:
        pytest.fail(not_allowed_message(code.used), pytrace=False)
    return Attempt(server, exercise, join_units(code.statements), seed)


@cache
def _slices(day: Day, file: Path, reader: Reader) -> dict[str, Slice]:
    """Return a submission's code for each exercise.

    Raises:
        SlicingError: The submission cannot be read or sliced.
    """
    submission = next(read_submissions([file], day.name, reader))
    if not submission.readable:
        raise SlicingError("; ".join(submission.problems))
    with Slicer(reader.server, prepare(reader.server, day), submission.cells) as slicer:
        return slicer.slice_all().slices


@cache
def _day(graders: Path) -> Day:
    return courses.load(courses.find_root(graders)).day(graders.name)


@cache
def _units(day: Day) -> tuple[list[Unit], list[Unit]]:
    """Return the solutions for a day and the code that its chapters give to students."""
    return solution_units(day), given_units(day)
