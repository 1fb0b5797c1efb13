"""Which tests a trivial answer passes: the stub, None, zeros, its argument. An exercise earns nothing by such tests alone."""

from __future__ import annotations

import msgspec

from autograder.course.state_folder import course_folder, keep
from autograder.execution.attempt import joined
from autograder.grading.runner import Job, Runner
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


def passed(runner: Runner) -> frozenset[tuple[str, str]]:
    """Pairs of exercise and test; found once a course and kept."""
    key = runner.key
    file = course_folder(key.day.root) / f"trivial-{key.day.name}-{key.fingerprint[:16]}.json"
    if file.is_file():
        return frozenset(msgspec.json.decode(file.read_bytes(), type=list[tuple[str, str]]))
    found = sorted(_find(runner))
    keep(file, msgspec.json.encode(found))
    return frozenset(found)


def _find(runner: Runner) -> set[tuple[str, str]]:
    key = runner.key
    found: set[tuple[str, str]] = set()
    for exercise in key.day.exercises:
        code = key.code(exercise.name, key.solutions)
        for answer in ANSWERS:
            line = f"{exercise.name} = _trivial({answer!r}, {exercise.name})"
            wrapped, _ = parse_units([Cell(0, "code", f"{TEMPLATE}{line}")], given=True)
            outcomes = runner.outcomes(exercise, joined([*code.units, *wrapped]), Job("0"))
            tests = key.tests[exercise.name]
            found |= {
                (exercise.name, test.name)
                for test, outcome in zip(tests, outcomes, strict=True)
                if outcome.passed
            }
    return found
