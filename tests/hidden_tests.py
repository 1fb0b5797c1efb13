"""Run the course's hidden tests in this process. Entry points: `judge_of`, `failed_tests` and `failed_in`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import cache

from autograder.course import config as courses
from autograder.course.config import Exercise
from autograder.execution.answer_key import load_locally
from autograder.execution.attempt import derive_seed
from autograder.execution.collect import Test
from autograder.execution.source import Source, join_units
from bench.mutants import Judge
from bench.mutations import solution
from tests.conftest import ROOT

COURSE = courses.load(ROOT)


@cache
def judge_of_day(day: str) -> Judge:
    return Judge(COURSE.day(day))


def judge_of(name: str) -> tuple[Judge, Exercise]:
    """Return the judge of an exercise's day, and the exercise."""
    day = next(day for day in COURSE.days.values() if name in day.names)
    return judge_of_day(day.name), next(e for e in day.exercises if e.name == name)


def solution_of(name: str) -> str:
    """Return the source of an exercise's reference solution."""
    own, exercise = judge_of(name)
    return solution(own.day, exercise)


def failed_tests(
    name: str, source: str, chosen: Callable[[Test], bool] = lambda _: True
) -> dict[str, str]:
    """Return the messages of the chosen tests that this version of an exercise fails."""
    own, _ = judge_of(name)
    code = join_units(own.units(name, source))
    return failed_in(code, name, filter(chosen, own.tests[name]))


def failed_in(code: Source, name: str, tests: Iterable[Test], seed: str = "0") -> dict[str, str]:
    """Return the messages of the tests that this code of an exercise fails."""
    # As in the server: each test ends with a garbage collection, and torch imports modules while earlier tests run.
    gc.collect()
    gc.freeze()
    own, _ = judge_of(name)
    student = load_locally(code, name, own.key.implementations.get(name))
    failed = {}
    for test in tests:
        try:
            test.run(student, derive_seed(seed, name, test.name))
        except Exception as error:
            failed[test.name] = str(error)
    return failed
