"""Test that the hidden tests detect known mistakes and mutants of the reference solutions.

Mutants that pass the hidden tests are listed as survivors. Every listed survivor must exist and have a reason, and a sample
of all mutants must match the list.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from autograder.course.config import Exercise
from autograder.execution.catalogue import known_mistakes
from autograder.sandbox.worker.warm_up import warm_up
from bench.mutants import survivors
from bench.mutations import Mutant, mutants, solution
from tests.hidden_tests import COURSE, judge_of_day

pytestmark = pytest.mark.slow

DAYS = list(survivors())
# How many mutants and listed survivors to run per day. `make mutants` runs all of them.
SAMPLE, SURVIVORS = 20, 3
SECONDS = 300  # seconds of CPU time for all known mistakes of a day


def in_fork(function: Callable[[], list[Any]]) -> list[Any]:
    """Run a function in a forked process, because `warm_up` changes torch for the whole process. Return the function's result."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            warm_up()
            gc.freeze()  # as in the server: workers collect garbage after each test
            with open(write, "w", encoding="utf-8") as pipe:
                json.dump(function(), pipe)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, (
        f"the process was killed, possibly after {SECONDS} s of CPU time"
    )
    result: list[Any] = json.loads(found)
    return result


@cache
def mutants_of(day: str) -> list[tuple[Exercise, Mutant]]:
    """Return all mutants of a day, with their exercises."""
    exercises = COURSE.day(day).exercises
    return [(e, mutant) for e in exercises for mutant in mutants(COURSE.day(day), e)]


@pytest.mark.parametrize("day", DAYS)
def test_every_listed_survivor_exists_and_has_a_reason(day: str) -> None:
    existing = {mutant.key for _, mutant in mutants_of(day)}
    listed = survivors()[day]
    assert set(listed) <= existing
    assert [key for key, reason in listed.items() if len(reason) < 20] == []


@pytest.mark.parametrize("day", DAYS)
def test_a_sample_of_mutants_survives_as_listed(day: str) -> None:
    judge, listed, draw = judge_of_day(day), survivors()[day], random.Random(0)
    alive = [one for one in mutants_of(day) if one[1].key in listed]
    dead = [one for one in mutants_of(day) if one[1].key not in listed]
    chosen = draw.sample(alive, SURVIVORS) + draw.sample(dead, SAMPLE - SURVIVORS)
    survived = in_fork(lambda: [judge.survives(*one) for one in chosen])
    seen = {mutant.key: alive for (_, mutant), alive in zip(chosen, survived, strict=True)}
    assert seen == {mutant.key: mutant.key in listed for _, mutant in chosen}


@pytest.mark.parametrize("day", DAYS)
def test_every_known_mistake_fails_a_hidden_test_and_the_solution_passes(day: str) -> None:
    judge, known = judge_of_day(day), known_mistakes(COURSE.day(day))
    solutions = [(e, "the solution", solution(judge.day, e)) for e in judge.day.exercises]
    mistakes = [(e, m.name, m.source) for e in judge.day.exercises for m in known[e.name]]

    def passing() -> list[list[str]]:
        every = [*mistakes, *solutions]
        return [[e.name, name] for e, name, code in every if judge.passes(e, code, ["0"])]

    assert in_fork(passing) == [[name, "the solution"] for name in judge.day.names]
