"""Run the graders manually: `pytest graders` tests the reference, `pytest graders --submission FILE` a submission."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.execution.answer_key import given_units, load_solution, solution_units
from autograder.execution.attempt import Attempt
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.sandbox.client import Server
from autograder.slicing.client import Slicer, prepare
from autograder.submissions.client import Reader
from autograder.submissions.submission import read_submissions

SERVER = pytest.StashKey[Server]()
READER = pytest.StashKey[Reader]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--submission", help="notebook or script to grade (default: the reference)")
    parser.addoption("--seed", type=int, default=0, help="seed for the random inputs")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return a seed that is different for each test."""
    return zlib.crc32(f"{request.config.getoption('--seed')} {request.node.nodeid}".encode())


@pytest.fixture
def student(request: pytest.FixtureRequest) -> Iterator[Student]:
    """Yield the code to test: the reference in this process, or a submission in the sandbox."""
    day = _day(request.path.parent)
    exercise = next(e for e in day.exercises if e.name == request.cls.exercise)
    submission = request.config.getoption("--submission")
    if submission is None:
        yield load_solution(day, exercise, _solution_units(day), _given_units(day))
        return
    reader = _reader(request.config)
    handed_in = next(read_submissions([Path(submission)], day.name, reader))
    with Slicer(reader.server, prepare(reader.server, day), handed_in.cells) as slicer:
        pieces = slicer.slice_all().slices[exercise.name].pieces
    if not pieces:
        pytest.fail(f"{exercise.name} is not defined in {submission}")
    attempt = Attempt(_server(request.config), exercise, join_units(pieces), "0")
    if lost := attempt.start():
        pytest.fail(lost.message)
    assert attempt.student is not None
    yield attempt.student
    attempt.stop()


@cache
def _day(graders: Path) -> courses.Day:
    return courses.load(courses.find_root(graders)).day(graders.name)


_given_units = cache(given_units)
_solution_units = cache(solution_units)


def _server(config: pytest.Config) -> Server:
    if SERVER not in config.stash:
        config.stash[SERVER] = Server()
        config.add_cleanup(config.stash[SERVER].close)
    return config.stash[SERVER]


def _reader(config: pytest.Config) -> Reader:
    if READER not in config.stash:
        config.stash[READER] = Reader()
        config.add_cleanup(config.stash[READER].close)
    return config.stash[READER]
