"""Grade one exercise: run its tests on given code, score the outcomes, and identify any known mistake.

Entry point: `ExerciseGrader`.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import torch

from autograder.course.config import CourseError, Day, Exercise
from autograder.course.state_folder import compute_once, read_json_cache, write_cache
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import (
    OUT_OF_MEMORY,
    Outcome,
    RunSettings,
    derive_seed,
    not_allowed_message,
)
from autograder.execution.collect import Test
from autograder.execution.source import Source, join_units
from autograder.grading import internal_errors
from autograder.grading.result_key import ResultKeys, places_in
from autograder.grading.results import Result, ResultStore
from autograder.grading.runner import Forwarding, Kind, Runner, passed_by_trivial_answers
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    TestMarks,
    exact_sum,
    split_points,
)
from autograder.plain_text import sanitize
from autograder.protocol.limits import Allowance, Budget
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox.client import Server
from autograder.slicing.slicer import TOO_LONG, Slice


@dataclass(frozen=True)
class GradedExercise:
    """An exercise's marks, the graded code, and the exercises replaced with reference solutions.

    `problems` lists errors that occurred while finding and loading the student's own code. `wide` is true if the code
    contains all statements that may affect the exercise. If exercises were replaced, `messages` contains a message for each
    test. These messages may reveal what the reference solutions return, so they must not be shown to students.
    """

    marks: ExerciseMarks
    code: Slice
    problems: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    wide: bool = False
    messages: tuple[str, ...] = ()


class ExerciseGrader:
    """A grader for a day's exercises. It grades them one at a time, using one fork server."""

    def __init__(self, day: Day, server: Server, results: ResultStore | None = None) -> None:
        self.day, self.results = day, results
        self.key = AnswerKey.read(day)
        self._keys = ResultKeys(self.key, server)
        self.runner = Runner(self.key, server)
        self.recognizer = Recognizer(self.key, server)
        self.trivial_passes = _check_tests(self.runner)
        self._forwarding = Forwarding(self.runner)
        for name, tests in self.key.tests.items():
            if all(self.trivial_passes[name].get(test.name) == "value" for test in tests):
                raise CourseError(
                    f"{day.name}: no submission can earn points for {name}, because a trivial answer passes all "
                    "of that exercise's tests. Add a test that fails for None, 0, 1, NaN, an empty value and the first argument. "
                    "For example, call the function twice and expect different results."
                )

    @property
    def server(self) -> Server:
        """Return the fork server that runs submissions."""
        return self.runner.server

    def grade_slice(
        self, exercise: Exercise, code: Slice, settings: RunSettings, replaced: Sequence[str] = ()
    ) -> GradedExercise:
        """Run an exercise's tests, unless its code is missing, unchanged or too long, or uses forbidden functions."""
        tests = self.key.tests[exercise.name]
        problems = [*code.problems] if code.state == "written" else []
        messages: tuple[str, ...] = ()
        if code.state == "too_long":
            marks = no_points(exercise, tests, "error", TOO_LONG)
        elif code.state != "written":
            state = "defined" if code.state == "absent" else "filled in"
            message = f"`{exercise.name}` is not {state}"
            marks = no_points(exercise, tests, "not_attempted", message)
        elif code.used:
            marks = no_points(exercise, tests, "not_allowed", not_allowed_message(code.used))
        else:
            source = join_units(code.statements, self.key.references(replaced))
            started = time.monotonic()
            result, is_new = self._result(exercise, source, settings)
            problems += result.problems
            if replaced:
                messages = tuple("" if o.passed else o.message for o in result.outcomes)
            marks = self._score(exercise, result.outcomes, replaced)
            seconds = round(time.monotonic() - started, 4) if is_new else 0.0
            marks = msgspec.structs.replace(marks, seconds=seconds)
        return GradedExercise(marks, code, tuple(problems), tuple(replaced), messages=messages)

    def _result(
        self, exercise: Exercise, source: Source, settings: RunSettings
    ) -> tuple[Result, bool]:
        """Return the result of running an exercise's tests, and whether it is new, that is, not from the store.

        A stored run is charged like a new one. It does not count if the time left would not have been enough.
        """
        key = b""
        places = places_in(source)
        if self.results and not settings.observe:
            key = self._keys.key("tests", exercise, source, settings)
            found = self._find(key, places, settings)
            if found and len(found.outcomes) == len(self.key.tests[exercise.name]):
                return found, False
        attempt, outcomes = self.runner.attempt(exercise, source, settings)
        cpu, idle = attempt.seconds
        texts = [*attempt.problems, *(text for o in outcomes for text in (o.message, o.safe))]
        has_places = any("cell " in text for text in texts)
        result = Result(outcomes, attempt.problems, None, cpu, idle, places if has_places else "")
        if self.results and key and not attempt.was_interrupted and _is_kept(outcomes, texts):
            self.results.add(key, result)
        return result, True

    def _find(self, key: bytes, places: str, settings: RunSettings) -> Result | None:
        assert self.results is not None
        found = self.results.find(key, places)
        if found is None:
            return None
        if settings.budget:
            if not settings.budget.allows(found.cpu, found.idle):
                return None
            settings.budget.charge(found.cpu, found.idle)
        self.results.use(key)
        return found

    def grade_source(
        self,
        exercise: Exercise,
        source: Source,
        settings: RunSettings,
        problems: list[str] | None = None,
    ) -> ExerciseMarks:
        """Run an exercise's tests on the given code in a new process. Add any errors during loading to `problems`."""
        started = time.monotonic()
        outcomes = self.runner.outcomes(exercise, source, settings, problems)
        marks = self._score(
            exercise, outcomes, source.references.names if source.references else ()
        )
        return msgspec.structs.replace(marks, seconds=round(time.monotonic() - started, 4))

    def name_mistake(
        self, exercise: Exercise, graded: GradedExercise, settings: RunSettings, problems: list[str]
    ) -> str | None:
        """Return the known mistake in a wrong answer, or None.

        Errors are added to `problems` and do not affect marks. Internal errors are also logged.
        """
        if graded.marks.status not in ("partial", "failed"):
            return None
        source = join_units(graded.code.statements, self.key.references(graded.replaced))
        failed = [test.name for test in graded.marks.tests if not test.passed]
        try:
            return self._mistake(exercise, source, failed, settings)
        except CourseError:
            # Students may read this text, so it contains neither the test's name nor the test's message.
            problems.append(
                f"the course's own solution to {exercise.name} fails a hidden test, so the points for {exercise.name} may "
                f"be too low. `autograder try {self.day.name} {exercise.name}` shows the cause"
            )
            return None
        except Exception as error:
            activity = f"naming the mistake in {exercise.name}"
            problems.append(internal_errors.log(self.day.root, activity, error))
            return None

    def _mistake(
        self, exercise: Exercise, source: Source, failed: list[str], settings: RunSettings
    ) -> str | None:
        """Return the known mistake. Only names are stored, because a limit may be why there is none."""
        key = b""
        if self.results:
            version = f"mistake {self.key.version} {' '.join(failed)}"
            key = self._keys.key(version, exercise, source, settings)
            if found := self._find(key, "", settings):
                return found.mistake
        budget = Budget(UNLIMITED, "submission", settings.budget)
        name = self.recognizer.recognize(exercise, source, failed, budget)
        if self.results and name:
            self.results.add(key, Result(mistake=name, cpu=budget.cpu, idle=budget.idle))
        return name

    def _score(
        self, exercise: Exercise, outcomes: Sequence[Outcome], replaced: Collection[str]
    ) -> ExerciseMarks:
        tests = self.key.tests[exercise.name]
        refused = next((outcome for outcome in outcomes if outcome.status == "not_allowed"), None)
        if refused:
            return no_points(exercise, tests, "not_allowed", refused.message)
        passed = {test.name for test, o in zip(tests, outcomes, strict=True) if o.passed}
        if replaced:
            # Messages could reveal what the reference solutions return.
            outcomes = [replace(o, message=o.safe, values=None) for o in outcomes]
        return score(exercise, tests, outcomes, self._earned(exercise, passed, replaced))

    def _earned(
        self, exercise: Exercise, passed: Collection[str], replaced: Collection[str]
    ) -> Collection[str]:
        """Return which of the passed tests earn points.

        All of them earn points if at least one cannot be passed by a trivial answer or by forwarding to a reference solution.
        Otherwise, only error tests do (see `runner`).
        """
        if len(passed) == len(self.key.tests[exercise.name]):
            return passed  # neither forwarding nor a trivial answer passes all tests
        trivial = self.trivial_passes[exercise.name]
        own = {name for name in passed if trivial.get(name) != "value"}
        for name in replaced:
            if own:
                own -= self._forwarding.passed_tests(exercise, name)
        return passed if own - trivial.keys() else own


UNLIMITED = Allowance(math.inf, math.inf)


def seeded(settings: RunSettings, code: Slice) -> RunSettings:
    """Return settings whose seed is derived from the student's text that is run, so that equal code gets equal inputs."""
    text = "\n".join(statement.text for statement in code.statements if not statement.given)
    seed = derive_seed(settings.seed, code.exercise, text, size=32)
    return replace(settings, seed=f"{seed:064x}")


def _is_kept(outcomes: Sequence[Outcome], texts: Sequence[str]) -> bool:
    """Return whether the same code would have the same outcomes again, whatever else this machine does."""
    is_complete = not any(o.status in ("timed_out", "crashed") for o in outcomes)
    return is_complete and not any(OUT_OF_MEMORY in text for text in texts)


def _check_tests(runner: Runner) -> dict[str, dict[str, Kind]]:
    """Check that the course's own solutions pass all tests, and return the tests that a trivial answer passes.

    The result is cached in the course's folder, so the tests run only once for each version of the course.
    """
    day, name = runner.key.day, cache_name(runner.key)
    root = day.root

    def compute() -> dict[str, dict[str, Kind]]:
        check_solutions(runner)
        found = {e.name: passed_by_trivial_answers(runner, e) for e in day.exercises}
        write_cache(root, name, msgspec.json.encode(found))
        return found

    read = partial(read_json_cache, root, name, dict[str, dict[str, Kind]])
    return compute_once(root, name, read, compute)


def cache_name(key: AnswerKey) -> str:
    """Return the name of the file that caches the tests that a trivial answer passes."""
    return f"trivial-{key.day.name}-{key.version}.json"


def score(
    exercise: Exercise, tests: Sequence[Test], outcomes: Sequence[Outcome], earned: Collection[str]
) -> ExerciseMarks:
    """Return the marks for an exercise. Only the tests in `earned` earn points."""
    shares = split_points(exercise.points, [test.weight for test in tests])
    marks = [
        TestMarks(
            name=test.name,
            points=share if test.name in earned else 0.0,
            max_points=share,
            passed=outcome.passed,
            message=""
            if outcome.passed
            else sanitize(f"{test.sentence} {outcome.message}".strip()),
            message_without_values="" if outcome.compared else sanitize(outcome.message),
            values=outcome.values,
        )
        for test, outcome, share in zip(tests, outcomes, shares, strict=True)
    ]
    points = exact_sum([mark.points for mark in marks])
    status = _status(outcomes, points)
    message = next((mark.message for mark in marks if not mark.passed), "")
    return _marks(exercise, points, status, message, marks)


def no_points(
    exercise: Exercise, tests: Sequence[Test], status: Status, message: str
) -> ExerciseMarks:
    """Return marks with 0 points and the same message for the exercise and each of its tests."""
    text = sanitize(message)
    shares = split_points(exercise.points, [test.weight for test in tests])
    marks = [
        TestMarks(test.name, 0.0, share, False, text, text)
        for test, share in zip(tests, shares, strict=True)
    ]
    return _marks(exercise, 0.0, status, text, marks)


def _marks(
    exercise: Exercise, points: float, status: Status, message: str, tests: list[TestMarks]
) -> ExerciseMarks:
    return ExerciseMarks(
        name=exercise.name,
        points=points,
        max_points=exercise.points,
        status=status,
        message=message,
        mistake=None,
        reference_for=[],
        seconds=0.0,
        tests=tests,
        optional=exercise.optional,
    )


def _status(outcomes: Sequence[Outcome], points: float) -> Status:
    for status in ("error", "timed_out", "crashed"):
        if any(outcome.status == status and not outcome.passed for outcome in outcomes):
            return status
    if all(outcome.passed for outcome in outcomes):
        return "passed"
    return "partial" if points else "failed"


def check_solutions(runner: Runner) -> None:
    """Raise CourseError if the course's own solutions fail a hidden test, for example with the installed versions."""
    day = runner.key.day
    failures = list(_failures(runner))
    if failures:
        versions = f"Python {platform.python_version()} and torch {torch.__version__}"
        raise CourseError(
            f"{day.name}: nothing can be graded, because with {versions}, the course's own solutions fail hidden tests: "
            f"{'; '.join(failures)}. `autograder try {day.name} EXERCISE` shows the details"
        )


def _failures(runner: Runner) -> Iterator[str]:
    for exercise in runner.key.day.exercises:
        source = runner.key.solution_source(exercise.name)
        outcomes = runner.outcomes(exercise, source, RunSettings("0"))
        for test, outcome in zip(runner.key.tests[exercise.name], outcomes, strict=True):
            if not outcome.passed:
                place = f" in {outcome.test_line}" if outcome.test_line else ""
                yield f"{exercise.name} fails {test.name}{place} ({outcome.message})"
                break
