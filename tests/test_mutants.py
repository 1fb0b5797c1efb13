"""The list of surviving mutants belongs to the present solutions and graders, and each has its reason."""

from __future__ import annotations

import random

import pytest

from autograder.course import config as courses
from bench.mutants import Judge, Mutant, fingerprint, listed, mutants, reasons, solution
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
DRAWN = 40  # mutants of a day that are tried here; `make mutants` tries all


@pytest.mark.parametrize("day", listed())
def test_the_list_belongs_to_these_solutions_and_graders(day: str) -> None:
    """Where this fails, `make mutants` runs them all and writes the list anew."""
    assert listed()[day]["fingerprint"] == fingerprint(COURSE.day(day))


@pytest.mark.parametrize("day", listed())
def test_every_survivor_has_a_reason_and_stands_where_the_list_says(day: str) -> None:
    made = {m.key for e in COURSE.day(day).exercises for m in mutants(COURSE.day(day), e)}
    known = reasons(COURSE.day(day))
    assert set(known) <= made
    assert len(made) == listed()[day]["mutants"]
    assert [key for key, reason in known.items() if len(reason) < 20] == []


@pytest.mark.parametrize("day", listed())
def test_some_mutants_die_or_survive_as_listed(day: str) -> None:
    judge, known = Judge(COURSE.day(day)), reasons(COURSE.day(day))
    made = [(e, m) for e in judge.day.exercises for m in mutants(judge.day, e)]
    for exercise, mutant in random.Random(0).sample(made, DRAWN):
        assert judge.survives(exercise, mutant) == (mutant.key in known), mutant.key


@pytest.mark.parametrize("day", listed())
def test_what_is_not_changed_survives(day: str) -> None:
    judge = Judge(COURSE.day(day))
    for exercise in judge.day.exercises:
        unchanged = Mutant(exercise.name, 0, 0, "", "", solution(judge.day, exercise))
        assert judge.survives(exercise, unchanged), exercise.name
