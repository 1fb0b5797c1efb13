"""Collect a day's hidden graders. Entry points: `collect` and `Test.run`.

Pytest collects the tests once. They are then called directly, because running pytest would cost 250 ms per submission.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autograder.course.config import CourseError, Day
from autograder.execution.student import Student
from autograder.sandbox.walls.rlimits import limited_growth

# Maximum number of bytes by which a test may increase this process's memory. Limits on a result's size are not enough,
# because a few million rows become as many tensors if a test iterates over them.
MAX_MEMORY = 1 << 30
NO_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
USER_OPTIONS = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
FIXTURES = frozenset({"student", "seed"})


@dataclass(frozen=True)
class Test:
    """One hidden test for an exercise. Students see `sentence` if their code fails the test."""

    exercise: str
    name: str
    sentence: str
    weight: float
    owner: type
    function: Callable[..., None]

    def run(self, student: Student, seed: int) -> None:
        """Call the test function with the fixtures that it requests, under a memory limit. No test uses another's objects."""
        fixtures: dict[str, Any] = {"student": student, "seed": seed}
        arguments = {name: fixtures[name] for name in _arguments(self.function)}
        student.connection.start_test()
        with limited_growth(MAX_MEMORY):
            self.function(self.owner(), **arguments)

    def line_of(self, error: Exception) -> str:
        """Return where in the test's own file an exception was raised, or "" if its traceback does not contain this file."""
        file = self.function.__code__.co_filename
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        return f"{os.path.basename(file)}, line {lines[-1]}" if lines else ""


def _arguments(function: Callable[..., None]) -> tuple[str, ...]:
    """Return the names of a test function's arguments, except `self`."""
    return function.__code__.co_varnames[1 : function.__code__.co_argcount]


class _Collector:
    """A pytest plugin that stores the collected items and the collection errors."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.errors: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = items

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(_describe(str(report.longrepr)))


def _describe(traceback: str) -> str:
    """Return the last location and the error in pytest's traceback, as one line."""
    places = re.findall(r"^(\S+):(\d+): ", traceback, re.MULTILINE)
    # A syntax error is not in the last file of the traceback, which is pytest's.
    places = re.findall(r'^E +File "(.+)", line (\d+)$', traceback, re.MULTILINE) or places
    errors = re.findall(r"^E +(.+)", traceback, re.MULTILINE) or [" ".join(traceback.split())]
    return f"{places[-1][0]}, line {places[-1][1]}: {errors[-1]}" if places else errors[-1]


@contextlib.contextmanager
def _default_pytest() -> Iterator[None]:
    """Keep pytest from loading installed plugins and from reading options in the user's environment.

    Plugins take time to load, and both plugins and options might change which tests are collected.
    """
    before = {name: os.environ.pop(name, None) for name in (NO_PLUGINS, *USER_OPTIONS)}
    os.environ[NO_PLUGINS] = "1"
    try:
        yield
    finally:
        del os.environ[NO_PLUGINS]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let a course's graders import each other as `graders.DAY.test_CHAPTER`. Unload previously imported graders."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "graders"]:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def collect(day: Day) -> dict[str, list[Test]]:
    """Return the tests for each exercise, in the order in which they are defined.

    Raises:
        CourseError: A grader cannot be imported, a test is incomplete, or an exercise has no test.
    """
    collector = _Collector()
    arguments = ["--collect-only", "--assert=plain", "--override-ini=addopts="]
    # Disable unneeded plugins. Two of them end with a full garbage collection, which takes longer than collecting the tests.
    for plugin in ("cacheprovider", "terminal", "unraisableexception", "threadexception"):
        arguments += ["-p", f"no:{plugin}"]
    arguments += [f"--rootdir={day.root}", "--import-mode=importlib", str(day.graders)]
    with _importable(day.root), _default_pytest():
        code = pytest.main(arguments, plugins=[collector])
    if collector.errors:
        raise CourseError(f"{day.graders} cannot be imported: {collector.errors[0]}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise CourseError(
            f"pytest cannot collect {day.graders}. A path with square brackets may be the cause"
        )
    tests: dict[str, list[Test]] = {name: [] for name in day.names}
    for item in collector.items:
        test = _checked_test(item, day)
        if test is not None:
            tests[test.exercise].append(test)
    for name, found in tests.items():
        if not found:
            raise CourseError(
                f"{day.name}: {name} has no test with a positive weight in {day.graders}"
            )
    return tests


def _checked_test(item: pytest.Item, day: Day) -> Test | None:
    """Return the test that pytest collected, or None if it is disabled or its exercise is not assigned.

    Raises:
        CourseError: The test is incomplete.
    """
    owner = getattr(item, "cls", None)
    name = getattr(owner, "exercise", None)
    if name in [exercise.name for exercise in day.unassigned]:
        return None
    if owner is None or name not in day.names:
        raise CourseError(
            f"{item.nodeid}: the test's class must set `exercise` to the name of an exercise in {day.name}"
        )
    if hasattr(item, "callspec"):
        raise CourseError(
            f"{item.nodeid}: a test cannot be parametrized, because the marks identify tests by name. Use a loop"
        )
    function = getattr(owner, item.name)
    if unknown := sorted({*_arguments(function)} - FIXTURES):
        raise CourseError(
            f"{item.nodeid}: the argument {unknown[0]!r} should be `student` or `seed`"
        )
    if not function.__doc__:
        raise CourseError(
            f"{item.nodeid}: add a docstring that tells the student what the test checks"
        )
    sentence = " ".join(function.__doc__.split())
    weight = getattr(function, "weight", 1)
    if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise CourseError(f"{item.nodeid}: the weight {weight!r} should be a number, 0 or more")
    if weight == 0:  # Weight 0 disables a test.
        return None
    return Test(name, item.name, sentence, float(weight), owner, function)
