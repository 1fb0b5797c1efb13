"""Find the tests that pass for trivial answers. Code that passes no other tests earns points only for error tests.

Trivial answers are None, an empty list, the first argument, and values with the type of the correct answer. These values
either have no elements, or have the correct shape and consist of zeros (0, False, ""), ones (1, True) or NaN. A test is
an error test if trivial answers pass it only when they also raise the errors that the correct answer raises. Entry point:
`passed_tests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from autograder.course.config import Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Attempt, RunSettings
from autograder.execution.collect import Test
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.grading.runner import Runner
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell

# What a trivial answer needs in order to pass a test: only its value, or also the correct answer's errors.
Kind = Literal["value", "errors"]
VALUES = ("zeros", "ones", "NaN", "no elements")
ANSWERS: tuple[tuple[str, Kind], ...] = (
    *((value, "value") for value in (*VALUES, "None", "empty list", "argument")),
    *((value, "errors") for value in VALUES),
)

TEMPLATE = """
def _trivial(reference):
    import torch

    answer, kind, has_raised = "None", "value", False

    def choose(*chosen):
        nonlocal answer, kind, has_raised
        answer, kind = chosen
        if kind == "errors" and not has_raised:
            raise ValueError("the correct answer raises no errors in this test")
        if chosen == ("zeros", "value"):  # the first answer in each test
            has_raised = False

    def fill(tensor):
        if answer == "no elements":
            return tensor[:0] if tensor.dim() else tensor.new_empty(0)
        number = {"zeros": 0, "ones": 1, "NaN": float("nan")}[answer]
        if tensor.is_floating_point():
            return (tensor * 0).nan_to_num(0) + number  # depends on the arguments that require gradients
        return torch.full_like(tensor, number if number == 1 else 0)

    def simple(value):
        if isinstance(value, torch.Tensor):
            return fill(value)
        if isinstance(value, (list, dict)) and answer == "no elements":
            return type(value)()
        if isinstance(value, (tuple, list)):
            return tuple(simple(part) for part in value)
        if isinstance(value, dict):
            return {key: simple(part) for key, part in value.items()}
        if isinstance(value, (bool, int, float)):
            if isinstance(value, float) and answer == "NaN":
                return float("nan")
            return type(value)(answer == "ones")
        return "" if isinstance(value, str) else value

    def instead_of(function, first):
        def trivial(*args, **kwargs):
            nonlocal has_raised
            if answer == "None":
                return None
            if answer == "empty list":
                return []
            if answer == "argument":
                return args[first] if len(args) > first else next(iter(kwargs.values()), None)
            try:
                return simple(function(*args, **kwargs))
            except Exception:
                has_raised = True
                if kind == "errors":
                    raise
                return None

        return trivial

    if not isinstance(reference, type):
        return instead_of(reference, 0), choose
    methods = {
        name: instead_of(value, 1)
        for name, value in vars(reference).items()
        if callable(value) and not name.startswith("_")
    }
    return type(reference.__name__, (reference,), methods), choose


"""


def passed_tests(runner: Runner) -> dict[str, dict[str, Kind]]:
    """Return, for each exercise, the tests that a trivial answer passes."""
    return {e.name: passed_by_exercise(runner, e) for e in runner.key.day.exercises}


def cache_name(key: AnswerKey) -> str:
    """Return the name of the file that caches the result of `passed_tests`."""
    return f"trivial-{key.day.name}-{key.version}.json"


def passed_by_exercise(runner: Runner, exercise: Exercise) -> dict[str, Kind]:
    """Return the names of the exercise's tests that a trivial answer passes."""
    code = runner.key.slice_for(exercise.name, runner.key.solutions)
    wrap = f"{exercise.name}, choose_trivial_answer = _trivial({exercise.name})"
    wrapped, _ = parse_units([Cell(0, "code", TEMPLATE + wrap)], given=True)
    limits = exercise.limits
    total = limits.total_cpu_seconds * len(ANSWERS)
    # Trivial answers may use any function, because a forbidden function does not make them less trivial.
    patient = dataclasses.replace(
        exercise, limits=dataclasses.replace(limits, total_cpu_seconds=total), not_allowed=()
    )
    source = join_units([*code.units, *wrapped])
    found: dict[str, Kind] = {}
    tests = [
        each for test in runner.key.tests[exercise.name] for each in _with_answers(test, found)
    ]
    # One process runs every trivial answer, because starting a process takes longer than most tests.
    attempt = Attempt(runner.server, patient, source, RunSettings("0"))
    try:
        for test in tests:
            attempt.run_test(test)
            if attempt.has_ended:
                # Earlier answers may have used up the worker's time and restarts.
                attempt.stop()
                attempt = Attempt(runner.server, patient, source, RunSettings("0"))
                attempt.run_test(test)
    finally:
        attempt.stop()
    return found


def _with_answers(test: Test, found: dict[str, Kind]) -> Iterator[Test]:
    """Yield a test for each trivial answer. The first test that passes adds its name to `found`, and later tests do nothing."""

    def with_answer(answer: str, kind: Kind) -> Test:
        def run(_: object, student: Student, seed: int) -> None:
            if test.name not in found:
                student.choose_trivial_answer(answer, kind)
                test.run(student, seed)
                found[test.name] = kind

        return dataclasses.replace(test, function=run)

    return (with_answer(*chosen) for chosen in ANSWERS)
