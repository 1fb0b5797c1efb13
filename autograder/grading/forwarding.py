"""Which tests of an exercise pass by forwarding its arguments to the reference of another one.

A reference that replaces what an exercise calls must not earn that exercise's points: where references are called, an exercise
earns nothing unless a test passes that forwarding to none of them passes.
"""

from __future__ import annotations

import msgspec

from autograder.course.config import Exercise
from autograder.course.state_folder import course_folder, keep
from autograder.execution.attempt import joined
from autograder.execution.references import handle
from autograder.grading.runner import Job, Runner
from autograder.slicing.dependencies import parse_units
from autograder.submissions.cells import Cell

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
COUNTS = (
    "range(len(args), -1, -1)",
    "[1]",
)  # as many arguments as the reference takes, and the first one alone
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
    """Finds for pairs of exercises what forwarding passes, once a course, when a pair is first asked for."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        key = runner.key
        name = f"forwarding-{key.day.name}-{key.fingerprint[:16]}.json"
        self._file = course_folder(key.day.root) / name
        self._passed = self._kept()

    def passed(self, exercise: Exercise, other: str) -> frozenset[str]:
        """The tests of `exercise` that pass where its body only forwards its arguments to the exercise `other`."""
        pair = f"{exercise.name} {other}"
        if pair not in self._passed:
            self._passed[pair] = sorted(self._find(exercise, other))
            self._passed = self._kept() | self._passed
            keep(self._file, msgspec.json.encode(self._passed))
        return frozenset(self._passed[pair])

    def _kept(self) -> dict[str, list[str]]:
        if not self._file.is_file():
            return {}
        return msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[str]])

    def _find(self, exercise: Exercise, other: str) -> set[str]:
        key = self._runner.key
        body = CLASS if self._is_class(other) else CLASS_OF_FUNCTION
        body = body if self._is_class(exercise.name) else FUNCTION
        found: set[str] = set()
        for counts in COUNTS:
            text = CALL.format(counts=counts) + body.format(name=exercise.name, other=other)
            own, _ = parse_units([Cell(0, "code", f"import torch\n{text}")])
            source = joined([*key.given, *own], key.replaced([other]))
            outcomes = self._runner.outcomes(exercise, source, Job("0"))
            tests = key.tests[exercise.name]
            found |= {t.name for t, o in zip(tests, outcomes, strict=True) if o.passed}
        return found

    def _is_class(self, name: str) -> bool:
        text = "\n".join(unit.source for unit in self._runner.key.solutions if name in unit.binds)
        return handle(name, text).methods is not None
