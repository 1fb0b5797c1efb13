"""Run one exercise's tests on the given code, in a separate sandboxed process. Entry point: `Runner`."""

from __future__ import annotations

import msgspec

from autograder.course.config import Exercise
from autograder.course.state_folder import read_json_cache, write_cache
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Attempt, Outcome, RunSettings
from autograder.execution.source import Source, describe_reference, join_units
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
        attempt = Attempt(self.server, exercise, source, settings)
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
        if problems is not None:
            problems += attempt.problems
        return outcomes

    def passed_tests(self, exercise: Exercise, source: Source) -> set[str]:
        """Return the names of the tests that the code passes with the seed "0"."""
        outcomes = self.outcomes(exercise, source, RunSettings("0"))
        tests = self.key.tests[exercise.name]
        return {test.name for test, o in zip(tests, outcomes, strict=True) if o.passed}


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
        self._runner = runner
        key = runner.key
        self._root = key.day.root
        self._file = f"forwarding-{key.day.name}-{key.version}.json"
        self._passed = self._load()

    def passed_tests(self, exercise: Exercise, other: str) -> frozenset[str]:
        """Return the tests that `exercise` passes if it only forwards its arguments to `other`'s reference solution."""
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
            passed |= self._runner.passed_tests(exercise, source)
        return passed

    def _is_class(self, name: str) -> bool:
        text = "\n".join(unit.source for unit in self._runner.key.solutions if name in unit.binds)
        return describe_reference(name, text).methods is not None
