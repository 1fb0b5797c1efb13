"""Find the tests that pass for trivial answers: None, zeros, or the first argument. Passing only such tests earns no points.

Entry point: `passed_tests`.
"""

from __future__ import annotations

import msgspec

from autograder.course.config import Exercise
from autograder.course.state_folder import read_cache, write_cache
from autograder.execution.source import join_units
from autograder.grading.runner import Runner
from autograder.slicing.dependencies import parse_units
from autograder.submissions.cells import Cell

ANSWERS = ("None", "zeros", "argument")

TEMPLATE = """
def _trivial(answer, reference):
    import torch

    def zeros(value):
        if isinstance(value, torch.Tensor):
            return torch.zeros_like(value)
        if isinstance(value, (tuple, list)):
            return tuple(zeros(part) for part in value)
        return value

    def instead_of(function, first):
        def trivial(*args, **kwargs):
            if answer == "None":
                return None
            if answer == "argument":
                return args[first] if len(args) > first else next(iter(kwargs.values()), None)
            try:
                return zeros(function(*args, **kwargs))
            except Exception:
                return None

        return trivial

    if not isinstance(reference, type):
        return instead_of(reference, 0)
    methods = {
        name: instead_of(value, 1)
        for name, value in vars(reference).items()
        if callable(value) and not name.startswith("_")
    }
    return type(reference.__name__, (reference,), methods)


"""


def passed_tests(runner: Runner) -> frozenset[tuple[str, str]]:
    """Return an (exercise, test) pair for each test that a trivial answer passes. The result is cached in the course's folder."""
    key = runner.key
    name = f"trivial-{key.day.name}-{key.fingerprint[:16]}.json"
    cached = read_cache(key.day.root, name)
    if cached is not None:
        return frozenset(msgspec.json.decode(cached, type=list[tuple[str, str]]))
    found = sorted(_run(runner))
    write_cache(key.day.root, name, msgspec.json.encode(found))
    return frozenset(found)


def _run(runner: Runner) -> set[tuple[str, str]]:
    return {
        (exercise.name, test)
        for exercise in runner.key.day.exercises
        for test in passed_by_exercise(runner, exercise)
    }


def passed_by_exercise(runner: Runner, exercise: Exercise) -> set[str]:
    """Return the names of an exercise's tests that a trivial answer passes."""
    code = runner.key.slice_for(exercise.name, runner.key.solutions)
    found: set[str] = set()
    for answer in ANSWERS:
        call = f"{exercise.name} = _trivial({answer!r}, {exercise.name})"
        wrapped, _ = parse_units([Cell(0, "code", f"{TEMPLATE}{call}")], given=True)
        found |= runner.passed_tests(exercise, join_units([*code.units, *wrapped]))
    return found
