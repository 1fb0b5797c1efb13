"""Collect a day's hidden graders, by the same names as pytest. Entry points: `collect` and `Test.run`."""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from autograder.course.config import CourseError, Day
from autograder.execution.student import Student
from autograder.sandbox.walls.rlimits import limited_growth

# Maximum number of bytes by which a test may increase this process's memory. Limits on a result's size are not enough,
# because a few million rows become as many tensors if a test iterates over them.
MAX_MEMORY = 1 << 30
FIXTURES = frozenset({"student", "seed", "candidates"})


@dataclass(frozen=True)
class Test:
    """One hidden test for an exercise. Students see `sentence` if their code fails the test."""

    exercise: str
    name: str
    sentence: str
    weight: float
    owner: type
    function: Callable[..., None]
    # The known mistakes in another exercise, of which the student's own test should notice one; see `candidates`.
    mistakes: tuple[str, ...] = ()

    def run(self, student: Student, seed: int) -> None:
        """Call the test function with the fixtures that it requests, under a memory limit. No test uses another's objects."""
        fixtures: dict[str, Any] = {
            "student": student,
            "seed": seed,
            "candidates": student.connection.candidates,
        }
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


def collect(day: Day) -> dict[str, list[Test]]:
    """Return the tests for each exercise, in the order in which they are defined.

    Raises:
        CourseError: A grader cannot be imported, a test is incomplete, or an exercise has no test.
    """
    tests: dict[str, list[Test]] = {name: [] for name in day.names}
    for module in _import_graders(day):
        for owner, name, function in _find_tests(module):
            test = _checked_test(owner, name, function, day)
            if test is not None:
                tests[test.exercise].append(test)
    for name, found in tests.items():
        if not found:
            raise CourseError(
                f"{day.name}: {name} has no test with a positive weight in {day.graders}"
            )
    return tests


def _import_graders(day: Day) -> list[ModuleType]:
    """Import a day's graders as `graders.DAY.test_CHAPTER`, so that they can import each other by these names.

    Previously imported graders, which may be a different course's, are unloaded first.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "graders"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    root = str(day.root.resolve())
    sys.path.insert(0, root)
    try:
        return [
            importlib.import_module(f"graders.{day.name}.{file.stem}")
            for file in sorted(day.graders.glob("test_*.py"))
        ]
    except Exception as error:
        last = traceback.TracebackException.from_exception(error)
        file, line = last.stack[-1].filename, last.stack[-1].lineno
        if isinstance(error, SyntaxError):
            file, line = str(error.filename), error.lineno
        text = f"{file}, line {line}: {type(error).__name__}: {getattr(error, 'msg', error)}"
        raise CourseError(f"{day.graders} cannot be imported: {text}") from error
    finally:
        sys.path.remove(root)


def _find_tests(module: ModuleType) -> Iterator[tuple[type | None, str, FunctionType]]:
    """Yield each test function with its class, which is None for a function outside a class."""
    for name, item in vars(module).items():
        if isinstance(item, FunctionType) and name.startswith("test"):
            yield None, name, item
        elif isinstance(item, type) and name.startswith("Test"):
            methods = {
                name: function
                for base in reversed(item.__mro__)
                for name, function in vars(base).items()
                if isinstance(function, FunctionType) and name.startswith("test")
            }
            yield from ((item, name, function) for name, function in methods.items())


def _checked_test(owner: type | None, name: str, function: FunctionType, day: Day) -> Test | None:
    """Return the test, or None if it is disabled or its exercise is not assigned."""
    where = f"{function.__code__.co_filename}, {function.__qualname__}"
    exercise = getattr(owner, "exercise", None)
    if exercise in [other.name for other in day.unassigned]:
        return None
    if owner is None or exercise not in day.names:
        raise CourseError(
            f"{where}: the test's class must set `exercise` to the name of an exercise in {day.name}"
        )
    if any(mark.name == "parametrize" for mark in getattr(function, "pytestmark", ())):
        raise CourseError(
            f"{where}: a test cannot be parametrized, because the marks identify tests by name. Use a loop"
        )
    if unknown := sorted({*_arguments(function)} - FIXTURES):
        raise CourseError(
            f"{where}: the argument {unknown[0]!r} should be `student`, `seed` or `candidates`"
        )
    if not function.__doc__:
        raise CourseError(f"{where}: add a docstring that tells the student what the test checks")
    sentence = " ".join(function.__doc__.split())
    weight = getattr(function, "weight", 1)
    if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise CourseError(f"{where}: the weight {weight!r} should be a number, 0 or more")
    if weight == 0:  # Weight 0 disables a test.
        return None
    mistakes = getattr(function, "mistakes", ())
    return Test(exercise, name, sentence, float(weight), owner, function, mistakes)
