"""Pytest plugin for hidden graders: `pytest graders` tests the reference solutions in pytest's own process.

Pytest loads this module for every project in the environment. It therefore imports little, and adds the fixtures only when it
finds a grader.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autograder.course.files import GRADING_TOML


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--autograder-seed`."""
    text = "seed for the random inputs of graders"
    parser.addoption("--autograder-seed", type=int, default=0, help=text)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Add the graders' fixtures if the file is in a course's `graders` folder."""
    plugins = parent.config.pluginmanager
    for folder in file_path.parents:
        is_grader = folder.name == "graders" and (folder.parent / GRADING_TOML).is_file()
        if is_grader and not plugins.has_plugin("autograder-fixtures"):
            plugins.register(_Fixtures(), "autograder-fixtures")


class _Fixtures:
    @pytest.fixture
    def seed(self, request: pytest.FixtureRequest) -> int:
        """Return a different seed for each test."""
        given = request.config.getoption("--autograder-seed")
        return zlib.crc32(f"{given} {request.node.nodeid}".encode())

    @pytest.fixture
    def student(self, request: pytest.FixtureRequest) -> Any:
        """Return the reference solution to the test's exercise."""
        from autograder.execution.answer_key import load_solution

        day, *code = _read(request.path.parent)
        if request.cls.exercise in [exercise.name for exercise in day.unassigned]:
            pytest.skip(f"{day.name} does not assign this exercise, so its grader is not used")
        return load_solution(day, request.cls.exercise, *code)

    @pytest.fixture
    def candidates(self, request: pytest.FixtureRequest) -> Any:
        """Return the implementations that the reference solution, itself a test, should tell apart."""
        from autograder.execution.answer_key import load_locally

        key, name = _read_key(request.path.parent), request.cls.exercise
        tested = key.implementations.get(name)
        return load_locally(key.solution_source(name), name, tested).connection.candidates


@cache
def _read(graders: Path) -> tuple[Any, ...]:
    from autograder.course import config as courses
    from autograder.execution.answer_key import given_units, solution_units

    day = courses.load(courses.find_root(graders)).day(graders.name)
    return day, solution_units(day), given_units(day)


@cache
def _read_key(graders: Path) -> Any:
    from autograder.course import config as courses
    from autograder.execution.answer_key import AnswerKey

    return AnswerKey.read(courses.load(courses.find_root(graders)).day(graders.name))
