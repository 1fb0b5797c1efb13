"""Find the tests that pass for trivial answers. Passing only such tests earns no points.

Trivial answers are None, the first argument, zeros (0, False, ""), ones (1, True) and empty lists. They have the type
and shape of the correct answer. Entry point: `passed_tests`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import msgspec

from autograder.course.config import Exercise
from autograder.course.state_folder import computation_lock, read_cache, write_cache
from autograder.execution.source import join_units
from autograder.grading.runner import Runner
from autograder.slicing.dependencies import parse_units
from autograder.submissions.cells import Cell

ANSWERS = ("None", "zeros", "argument")
# More answers for exercises that return numbers, strings or containers. To save time, tensors are replaced only with
# zeros.
PLAIN_ANSWERS = ("ones", "empty")
NOT_PLAIN = frozenset(
    ["Tensor", "Float", "Int", "Bool", "Module", "nn", "torch", "tuple", "None"]
)  # in annotations

TEMPLATE = """
def _trivial(answer, reference):
    import torch

    def simple(value):
        if isinstance(value, torch.Tensor):
            return torch.zeros_like(value) if answer == "zeros" else None
        if isinstance(value, (list, dict)) and answer == "empty":
            return type(value)()
        if isinstance(value, (tuple, list)):
            return tuple(simple(part) for part in value)
        if isinstance(value, dict):
            return {key: simple(part) for key, part in value.items()}
        if isinstance(value, (bool, int, float)):
            return type(value)(answer == "ones")
        return "" if isinstance(value, str) else value

    def instead_of(function, first):
        def trivial(*args, **kwargs):
            if answer == "None":
                return None
            if answer == "argument":
                return args[first] if len(args) > first else next(iter(kwargs.values()), None)
            try:
                return simple(function(*args, **kwargs))
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
    root = runner.key.day.root
    name = f"trivial-{runner.key.day.name}-{runner.key.fingerprint[:16]}.json"
    cached = read_cache(root, name)
    if cached is None:
        with computation_lock(root, name):
            cached = read_cache(root, name)
            if cached is None:
                cached = msgspec.json.encode(sorted(_run(runner)))
                write_cache(root, name, cached)
    return frozenset(msgspec.json.decode(cached, type=list[tuple[str, str]]))


def _run(runner: Runner) -> set[tuple[str, str]]:
    return {
        (exercise.name, test)
        for exercise in runner.key.day.exercises
        for test in passed_by_exercise(runner, exercise)
    }


def passed_by_exercise(runner: Runner, exercise: Exercise) -> set[str]:
    """Return the names of an exercise's tests that a trivial answer passes."""
    code = runner.key.slice_for(exercise.name, runner.key.solutions)
    own = [unit.source for unit in code.units if exercise.name in unit.binds]
    found: set[str] = set()
    for answer in ANSWERS + PLAIN_ANSWERS if _may_be_plain(own) else ANSWERS:
        call = f"{exercise.name} = _trivial({answer!r}, {exercise.name})"
        wrapped, _ = parse_units([Cell(0, "code", f"{TEMPLATE}{call}")], given=True)
        found |= runner.passed_tests(exercise, join_units([*code.units, *wrapped]))
    return found


def _may_be_plain(sources: Sequence[str]) -> bool:
    """Return whether a definition has a public function whose annotations allow a result that is not a tensor."""
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            parts = ast.walk(node.returns) if node.returns else ()
            names = {part.id for part in parts if isinstance(part, ast.Name)}
            if not names or not names <= NOT_PLAIN:
                return True
    return False
