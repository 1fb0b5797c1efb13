"""Runs graders by hand: `pytest autograder/graders`, on the reference or on `--submission FILE`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from autograder.student import Student


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--submission", help="a notebook or script; without it, the reference")
    parser.addoption("--seed", type=int, default=0, help="inputs are drawn from it")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Another one for each test."""
    return zlib.crc32(f"{request.config.getoption('--seed')} {request.node.nodeid}".encode())


@pytest.fixture
def student(request: pytest.FixtureRequest) -> Iterator[Student]:
    """The code of the class's exercise, in this process for the reference and behind the wall for a submission."""
    from autograder.grading import for_pytest

    yield from for_pytest(
        request.path.parent.name, request.cls.exercise, request.config.getoption("--submission")
    )
