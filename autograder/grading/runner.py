"""Run one exercise's tests on the given code, in a separate sandboxed process. Entry point: `Runner`.

Code that passes only tests that a trivial answer also passes earns points only for error tests. Trivial answers are None,
an empty list, the first argument, and values with the type of the correct answer. These values either have no elements, or
have the correct shape and consist of zeros (0, False, ""), ones (1, True) or NaN. A test is an error test if trivial
answers pass it only when they also raise the errors that the correct answer raises. Calls that are only forwarded to the
reference solution of another exercise earn nothing either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import msgspec

from autograder.course.config import Exercise
from autograder.course.state_folder import read_json_cache, write_cache
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Attempt, Outcome, RunSettings
from autograder.execution.collect import Test
from autograder.execution.source import Source, describe_reference, join_units
from autograder.execution.student import Student
from autograder.sandbox.client import Server
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell


class Runner:
    """Runs a day's tests in sandboxed processes forked from one fork server."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self.key = key
        self.server = server

    def outcomes(
        self,
        exercise: Exercise,
        source: Source,
        settings: RunSettings,
        problems: list[str] | None = None,
    ) -> list[Outcome]:
        """Return the outcome of each of an exercise's tests. Append errors from loading the code to `problems`."""
        attempt, outcomes = self.attempt(exercise, source, settings)
        if problems is not None:
            problems += attempt.problems
        return outcomes

    def attempt(
        self, exercise: Exercise, source: Source, settings: RunSettings
    ) -> tuple[Attempt, list[Outcome]]:
        """Run an exercise's tests. Return the finished attempt and the outcome of each test."""
        implementations = self.key.implementations.get(exercise.name)
        attempt = Attempt(self.server, exercise, source, settings, implementations)
        outcomes: list[Outcome] = []
        try:
            for test in self.key.tests[exercise.name]:
                outcome = attempt.run_test(test)
                outcomes.append(outcome)
                if settings.observe:
                    replaced = source.references.names if source.references else ()
                    message = "" if outcome.passed else outcome.message
                    settings.observe(replaced, test, message, attempt.student)
        finally:
            attempt.stop()
        return attempt, outcomes


CALL = """
def _call(function, args, kwargs):
    for count in {counts}:
        for named in (kwargs, {{}}):
            try:
                return function(*args[:count], **named)
            except TypeError as error:
                refused = error
    raise refused
"""
# The number of arguments to forward: as many as the reference accepts, or only the first.
COUNTS = ("range(len(args), -1, -1)", "[1]")
FUNCTION = """
def {name}(*args, **kwargs):
    return _call({other}, args, kwargs)
"""
CLASS_OF_FUNCTION = """
class {name}(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, *args, **kwargs):
        return _call({other}, args, kwargs)
"""
CLASS = """
class {name}({other}):
    def __init__(self, *args, **kwargs):
        _call(super().__init__, args, kwargs)

    def forward(self, *args, **kwargs):
        return _call(super().forward, args, kwargs)
"""


class Forwarding:
    """A cache of the tests that pass if one exercise forwards its arguments to another. Each pair of exercises is tested once."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._root = runner, runner.key.day.root
        self._file = f"forwarding-{runner.key.day.name}-{runner.key.version}.json"
        self._passed = self._load()

    def passed_tests(self, exercise: Exercise, other: str) -> frozenset[str]:
        pair = f"{exercise.name} {other}"
        if pair not in self._passed:
            self._passed[pair] = sorted(self._run(exercise, other))
            self._passed = self._load() | self._passed  # Another process may have added pairs.
            write_cache(self._root, self._file, msgspec.json.encode(self._passed))
        return frozenset(self._passed[pair])

    def _load(self) -> dict[str, list[str]]:
        return read_json_cache(self._root, self._file, dict[str, list[str]]) or {}

    def _run(self, exercise: Exercise, other: str) -> set[str]:
        key = self._runner.key
        body = CLASS if self._is_class(other) else CLASS_OF_FUNCTION
        body = body if self._is_class(exercise.name) else FUNCTION
        passed: set[str] = set()
        for counts in COUNTS:
            text = CALL.format(counts=counts) + body.format(name=exercise.name, other=other)
            own, _ = parse_units([Cell(0, "code", f"import torch\n{text}")])
            source = join_units([*key.given, *own], key.references([other]))
            outcomes = self._runner.outcomes(exercise, source, RunSettings("0"))
            tests = key.tests[exercise.name]
            passed |= {test.name for test, o in zip(tests, outcomes, strict=True) if o.passed}
        return passed

    def _is_class(self, name: str) -> bool:
        text = "\n".join(unit.source for unit in self._runner.key.solutions if name in unit.binds)
        return describe_reference(name, text).methods is not None


# What a trivial answer needs in order to pass a test: only its value, or also the correct answer's errors.
Kind = Literal["value", "errors"]
VALUES = ("zeros", "ones", "NaN", "no elements")
ANSWERS: tuple[tuple[str, Kind], ...] = (
    *((value, "value") for value in (*VALUES, "None", "empty list", "argument")),
    *((value, "errors") for value in VALUES),
)

TEMPLATE = """
def _trivial(reference):
    import contextlib, io

    import numpy as np
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

    def fill_array(array):
        if answer == "no elements":
            return array.reshape(-1)[:0] if not array.ndim else array[:0]
        number = {"zeros": 0, "ones": 1, "NaN": float("nan")}[answer]
        return np.full_like(array, number if number == 1 or array.dtype.kind in "fc" else 0)

    def simple(value):
        if isinstance(value, torch.Tensor):
            return fill(value)
        if type(value) is np.ndarray:
            return fill_array(value)
        if isinstance(value, (set, bytes)):
            return type(value)()
        if isinstance(value, np.number):
            value = value.item()
        if isinstance(value, (list, dict)) and answer == "no elements":
            return type(value)()
        if isinstance(value, (tuple, list)):
            return tuple(simple(part) for part in value)
        if isinstance(value, dict):
            return {key: simple(part) for key, part in value.items()}
        if isinstance(value, (bool, int, float, complex)):
            if isinstance(value, float) and answer == "NaN":
                return float("nan")
            return type(value)(answer == "ones")
        return "" if isinstance(value, str) else value

    @contextlib.contextmanager
    def simple_attributes(owner):
        before = dict(getattr(owner, "__dict__", {}))
        yield
        if not isinstance(owner, torch.nn.Module):  # the attributes of modules are tested through their results
            for name, value in getattr(owner, "__dict__", {}).items():
                if before.get(name, before) is not value and not name.startswith("_"):
                    setattr(owner, name, simple(value))

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
                quiet = contextlib.redirect_stdout(io.StringIO())
                with simple_attributes(args[0] if first else None), quiet:
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


def passed_by_trivial_answers(runner: Runner, exercise: Exercise) -> dict[str, Kind]:
    """Return the names of the exercise's tests that a trivial answer passes."""
    if exercise.detects:
        return {}  # a trivial test rejects a correct implementation or accepts every broken one
    code = runner.key.slice_for(exercise.name, runner.key.solutions)
    wrap = f"{exercise.name}, choose_trivial_answer = _trivial({exercise.name})"
    wrapped, _ = parse_units([Cell(0, "code", TEMPLATE + wrap)], given=True)
    total = exercise.limits.total_cpu_seconds * len(ANSWERS)
    limits = replace(exercise.limits, total_cpu_seconds=total)
    # Trivial answers may use any function, because a forbidden function does not make them less trivial.
    patient = replace(exercise, limits=limits, not_allowed=())
    source = join_units([*code.units, *wrapped])
    found: dict[str, Kind] = {}
    own = runner.key.tests[exercise.name]
    tests = [_with_answer(test, *chosen, found) for test in own for chosen in ANSWERS]
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


def _with_answer(test: Test, answer: str, kind: Kind, found: dict[str, Kind]) -> Test:
    """Return a test of a trivial answer. It does nothing if `found` contains the test; if it passes, it is added."""

    def run(_: object, student: Student, seed: int) -> None:
        if test.name not in found:
            student.choose_trivial_answer(answer, kind)
            test.run(student, seed)
            found[test.name] = kind

    return replace(test, function=run)
