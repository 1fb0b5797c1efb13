"""Measure how often random pairs of known mistakes in one exercise are named (`python -m bench.two_mistakes`).

Entry points: `random_pairs` and `measure`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import Exercise
from autograder.execution.attempt import RunSettings
from autograder.execution.catalogue import combine
from autograder.execution.source import Source
from autograder.grading.exercise_grader import ExerciseGrader
from autograder.marks.model import MISTAKE_SEPARATOR
from autograder.recognition.recognizer import FAILURES
from autograder.recognition.signatures import exact_matches
from autograder.sandbox.client import start_server

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Pair:
    """A solution with the changes of two known mistakes, and the mistakes' names."""

    exercise: Exercise
    names: tuple[str, str]
    source: Source


@dataclass(frozen=True)
class Named:
    """The names that the grader gave a pair, and how long it took to find them."""

    pair: Pair
    names: Sequence[str]
    seconds: float

    @property
    def outcome(self) -> str:
        """Return how many of the mistakes were named, or "wrong" if a name belongs to neither."""
        if set(self.names) - set(self.pair.names):
            return "wrong"
        return ("none", "one", "both")[len(self.names)]


def random_pairs(
    grader: ExerciseGrader, draw: random.Random, names: Sequence[str] = ()
) -> Iterator[Pair]:
    """Yield random pairs of mistakes that change different lines, from the named exercises or all exercises.

    Skip a pair if its results are those of the solution or of a single known mistake.
    """
    mistakes = grader.recognizer.mistakes
    pairs = {
        exercise.name: list(itertools.combinations(mistakes[exercise.name], 2))
        for exercise in grader.day.exercises
        if exercise.name in names or not names
    }
    exercises = {exercise.name: exercise for exercise in grader.day.exercises}
    while any(pairs.values()):
        name = draw.choice([name for name, left in pairs.items() if left])
        first, second = pairs[name].pop(draw.randrange(len(pairs[name])))
        text = combine(first, second)
        if text is None:
            continue
        source = grader.key.replace_solution(name, text)
        try:
            signature = grader.recognizer.signature(exercises[name], source)
        except FAILURES:
            continue
        known = grader.recognizer.signatures(exercises[name])
        single = exact_matches(known, signature.failed_tests, signature.observations)
        if signature.failed_tests and not single:
            yield Pair(exercises[name], (first.name, second.name), source)


def measure(grader: ExerciseGrader, pair: Pair) -> Named:
    """Grade a pair like a submission, and name its mistakes."""
    settings = RunSettings(MISTAKE_SEPARATOR.join(pair.names))
    tests = grader.grade_source(pair.exercise, pair.source, settings).tests
    failed = [test.name for test in tests if not test.passed]
    started = time.perf_counter()
    named = grader.recognizer.recognize(pair.exercise, pair.source, failed)
    seconds = time.perf_counter() - started
    return Named(pair, named.split(MISTAKE_SEPARATOR) if named else (), seconds)


def main() -> None:
    """Measure pairs of all days, and print how many were named and the wrong names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300, help="for all days together")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    days = courses.load(ROOT).days
    found: list[Named] = []
    with start_server() as server:
        for number, day in enumerate(days.values(), 1):
            grader = ExerciseGrader(day, server)
            pairs = random_pairs(grader, random.Random(f"{arguments.seed} {day.name}"))
            count = arguments.pairs * number // len(days) - len(found)
            found += [measure(grader, pair) for pair in itertools.islice(pairs, count)]
    outcomes = Counter(named.outcome for named in found)
    counts = ", ".join(f"{name}: {outcomes[name]}" for name in ("both", "one", "none", "wrong"))
    print(f"{len(found)} pairs; named {counts}")
    for named in found:
        if named.outcome == "wrong":
            print(f"{named.pair.exercise.name}: {named.pair.names} named {named.names}")
    seconds = [named.seconds for named in found]
    print(f"median {statistics.median(seconds):.2f} s, maximum {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
