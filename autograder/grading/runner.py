"""Run one exercise's tests on the given code, in a separate sandboxed process. Entry point: `Runner`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autograder.course.config import Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Attempt, Outcome
from autograder.execution.collect import Test
from autograder.execution.source import Source
from autograder.execution.student import Student
from autograder.protocol.limits import Budget
from autograder.sandbox.client import Server

# Function to call after each test in each run of an exercise. Arguments: the exercises that this run replaces with
# references, the test, its message ("" if it passed), and the student's process (None if it has exited).
Observer = Callable[[Sequence[str], Test, str, "Student | None"], None]


@dataclass(frozen=True)
class RunSettings:
    """The settings for a run: the seed for the inputs, the submission's budget, and a function to call after each test.

    Unless the submission `is_alone`, its code must run again if it sleeps for too long or is killed; see `MustRunAlone`. If
    `has_low_limits` is set, each call gets at most two CPU seconds, and the run ends at the first timeout or crash in a test.
    """

    seed: str
    budget: Budget | None = None
    observe: Observer | None = None
    is_alone: bool = True
    has_low_limits: bool = False


class Runner:
    """Runs a day's tests in sandboxed processes forked from one fork server."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self.key = key
        self.server = server

    def attempt(self, exercise: Exercise, source: Source, settings: RunSettings) -> Attempt:
        """Return a new `Attempt` to run the exercise's tests. The caller must stop it."""
        if settings.has_low_limits:
            limits = replace(exercise.limits, cpu_seconds=min(2.0, exercise.limits.cpu_seconds))
            exercise = replace(exercise, limits=limits)
        return Attempt(
            self.server,
            exercise,
            source,
            settings.seed,
            settings.budget,
            settings.is_alone,
            settings.has_low_limits,
        )

    def outcomes(
        self,
        exercise: Exercise,
        source: Source,
        settings: RunSettings,
        problems: list[str] | None = None,
    ) -> list[Outcome]:
        """Return the outcome of each of an exercise's tests. Append errors from loading the code to `problems`."""
        attempt = self.attempt(exercise, source, settings)
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
