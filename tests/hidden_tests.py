"""Run the course's hidden tests on a changed solution, in this process. Entry points: `judge_of` and `failed_tests`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from autograder.course import config as courses
from autograder.course.config import Exercise
from autograder.execution.attempt import derive_seed
from autograder.execution.collect import Test
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from bench.mutants import Judge
from bench.mutations import solution
from tests.conftest import ROOT

COURSE = courses.load(ROOT)


@cache
def judge(day: str) -> Judge:
    return Judge(COURSE.day(day))


def judge_of(name: str) -> tuple[Judge, Exercise]:
    """Return the judge of an exercise's day, and the exercise."""
    day = next(day for day in COURSE.days.values() if name in day.names)
    return judge(day.name), next(e for e in day.exercises if e.name == name)


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
    student = Student(LocalProcess())
    student.load(m.Load(code.text, list(code.pieces), name, 0))
    failed = {}
    for test in filter(chosen, own.tests[name]):
        try:
            test.run(student, derive_seed("0", name, test.name))
        except Exception as error:
            failed[test.name] = str(error)
    return failed
