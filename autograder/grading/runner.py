"""Run the tests of one exercise on code, in a sandboxed process of its own. Entry point: `Runner`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograder.course.config import Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Attempt, Outcome, Source
from autograder.execution.collect import Test
from autograder.execution.student import Student
from autograder.execution.turns import Turns
from autograder.protocol.limits import Budget
from autograder.sandbox.client import Server

Observer = Callable[[Test, str, "Student | None"], None]


@dataclass(frozen=True)
class Job:
    """Settings of one run: the seed of the inputs, the budget, and a function that is called after each test."""

    seed: str
    budget: Budget | None = None
    observe: Observer | None = None


class Runner:
    """Runs code for one day with one fork server."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self.key = key
        self.server = server
        self._turns = Turns(key.day.root)

    def outcomes(
        self, exercise: Exercise, source: Source, job: Job, problems: list[str] | None = None
    ) -> list[Outcome]:
        """What became of each test. What went wrong while the code was loaded is added to `problems`."""
        attempt = Attempt(self.server, exercise, source, job.seed, job.budget, self._turns)
        outcomes: list[Outcome] = []
        try:
            for test in self.key.tests[exercise.name]:
                outcome = attempt.test(test)
                outcomes.append(outcome)
                if job.observe:
                    job.observe(test, "" if outcome.passed else outcome.message, attempt.student)
        finally:
            attempt.stop()
        if problems is not None:
            problems += attempt.problems
        return outcomes
