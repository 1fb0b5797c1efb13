"""Test that every listed survivor is an existing mutant with a stated reason, and that a sample of mutants confirms the list."""

from __future__ import annotations

import random

import pytest

from autograder.course import config as courses
from bench.mutants import Judge, survivors
from bench.mutations import Mutant, mutants, solution
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
DAYS = list(survivors())
SAMPLE = 40  # number of mutants to run per day; `make mutants` runs all of them


@pytest.mark.parametrize("day", DAYS)
def test_every_listed_survivor_exists_and_has_a_reason(day: str) -> None:
    existing = {m.key for e in COURSE.day(day).exercises for m in mutants(COURSE.day(day), e)}
    listed = survivors()[day]
    assert set(listed) <= existing
    assert [key for key, reason in listed.items() if len(reason) < 20] == []


@pytest.mark.parametrize("day", DAYS)
def test_a_sample_of_mutants_survives_as_listed(day: str) -> None:
    judge, listed = Judge(COURSE.day(day)), survivors()[day]
    made = [(e, m) for e in judge.day.exercises for m in mutants(judge.day, e)]
    for exercise, mutant in random.Random(0).sample(made, SAMPLE):
        assert judge.survives(exercise, mutant) == (mutant.key in listed), mutant.key


@pytest.mark.parametrize("day", DAYS)
def test_the_unchanged_solution_survives(day: str) -> None:
    judge = Judge(COURSE.day(day))
    for exercise in judge.day.exercises:
        unchanged = Mutant(exercise.name, "", 0, "", "", solution(judge.day, exercise))
        assert judge.survives(exercise, unchanged), exercise.name
