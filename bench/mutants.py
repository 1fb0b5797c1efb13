"""Find surviving mutants: changed reference solutions that pass the hidden tests (`make mutants`).

mutmut and cosmic-ray change whole files and start pytest for each change. Here, each mutant needs only one forked process,
which runs the exercise's tests up to the first failure. The file tests/survivors.toml lists the mutants that survive, each with
the reason why no test can detect it.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.execution.answer_key import AnswerKey, load_locally
from autograder.execution.attempt import derive_seed
from autograder.execution.collect import Test
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.sandbox.worker.warm_up import warm_up
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell
from bench.mutations import Key, Mutant, mutants

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "survivors.toml"
SEEDS = ("0", "1", "2")
SECONDS = 20  # seconds of CPU time for all tests of an exercise; a mutant that takes longer counts as detected


class Judge:
    """A runner of a day's hidden tests on mutants. Call `warm_up` first, or each forked process initialises torch again."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.key = AnswerKey.read(day)
        self.tests, self.given = self.key.tests, self.key.given
        self.solutions = self.key.solutions

    def survives(self, exercise: Exercise, mutant: Mutant) -> bool:
        """Run an exercise's tests on a mutant, in a forked process with limited CPU time. Return whether they all
        pass."""
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            passed = False
            try:
                passed = self.passes(exercise, mutant.source)
            finally:
                os._exit(0 if passed else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def passes(self, exercise: Exercise, source: str, seeds: Sequence[str] = SEEDS) -> bool:
        """Return whether a version of an exercise passes all tests. Discard all further output from the process."""
        sys.stdout = sys.stderr = io.StringIO()
        code = join_units(self.units(exercise.name, source))
        # `not_allowed` is ignored: in a shared process, the functions would also be forbidden in the tests.
        tested = self.key.implementations.get(exercise.name)
        student = load_locally(code, exercise.name, tested)
        tests = self.tests[exercise.name]
        return all(self._test_passes(test, student, seed) for seed in seeds for test in tests)

    def units(self, exercise: str, source: str) -> Sequence[Unit]:
        """Return the code of an exercise, with this version of it and the solutions that it needs."""
        others = [unit for unit in self.solutions if exercise not in unit.binds]
        units = [*others, *parse_units([Cell(0, "code", source)])[0]]
        code = slice_for(exercise, units, self.given, self.day.names)
        assert code is not None
        return code.units

    def _test_passes(self, test: Test, student: Student, seed: str) -> bool:
        try:
            test.run(student, derive_seed(seed, test.exercise, test.name))
        except Exception:
            return False
        return True


def survivors() -> dict[str, dict[Key, str]]:
    """Read tests/survivors.toml. Return the surviving mutants of each day, with the reason why each one survives."""
    days: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {
        day: {
            (e["exercise"], e["code"], e["column"], e["before"], e["after"]): e["reason"]
            for e in entries
        }
        for day, entries in days.items()
    }


def run(day: Day) -> Iterator[tuple[Mutant, bool]]:
    """Yield each of a day's mutants, and whether it passes all hidden tests."""
    judge = Judge(day)
    for exercise in day.exercises:
        for mutant in mutants(day, exercise):
            yield mutant, judge.survives(exercise, mutant)


def differences(day: Day, listed: dict[Key, str]) -> Iterator[str]:
    """Run all of a day's mutants. Yield each difference from the list of survivors, with advice on how to fix it."""
    gone = set(listed)
    for mutant, survives in run(day):
        gone.discard(mutant.key)
        if survives and mutant.key not in listed:
            yield (
                f"{_label(mutant.key)} survives. Add a test that detects this mutant, "
                f"or add the mutant to the list:\n{_entry(day, mutant)}"
            )
        elif not survives and mutant.key in listed:
            yield f"{_label(mutant.key)} no longer survives. Remove it from {FILE.name}."
    for key in sorted(gone):
        yield f"{_label(key)} no longer exists. Remove it from {FILE.name}."


def _label(key: Key) -> str:
    exercise, code, _, before, after = key
    return f"{exercise}: {before} → {after} in `{code}`"


def _entry(day: Day, mutant: Mutant) -> str:
    """Return an entry for tests/survivors.toml that describes a mutant and leaves the reason empty."""
    return "\n".join(
        [
            f"[[{day.name}]]",
            f"exercise = {_quoted(mutant.exercise)}",
            f"code = {_quoted(mutant.code)}",
            f"column = {mutant.column}",
            f"before = {_quoted(mutant.before)}",
            f"after = {_quoted(mutant.after)}",
            'reason = ""',
        ]
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def main() -> None:
    """Run the mutants and print the differences from the list of survivors. The exit code is 1 if there are differences."""
    listed = survivors()
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n")[0])
    parser.add_argument("days", nargs="*", default=list(listed), help="default: all")
    course, count = courses.load(ROOT), 0
    warm_up()
    gc.freeze()  # as in the server: workers collect garbage after each test
    for name in parser.parse_args().days:
        for difference in differences(course.day(name), listed.get(name, {})):
            print(difference, flush=True)
            count += 1
    print(f"{count} differences from {FILE.name}")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
