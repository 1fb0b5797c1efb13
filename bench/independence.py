"""Check that the points of a correct exercise do not depend on which other exercises are empty or wrong.

    python -m bench.independence [--cases 500] [--seed 0] [--styles functional config]

Each case takes a file from `tests/styles/` or the course's solution, and one of its exercises that uses earlier ones. A random
subset of these is replaced by stubs and known mistakes. The exercise must still earn full points. The exit code
is 1 if it does not in any case.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest import mock

from autograder.course import config as courses
from autograder.course.config import Course
from autograder.execution import catalogue
from autograder.grading.exercise_grader import ExerciseGrader
from autograder.grading.grader import Grader
from autograder.marks.model import ExerciseMarks
from autograder.sandbox.client import Server, start_server
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission
from bench.same_marks import ROOT
from bench.simulated import ROLES, styles

STUB = "empty"


@dataclass(frozen=True)
class Case:
    """An exercise in one author's solutions, and what is wrong with others: a known mistake's name, or `STUB`."""

    day: str
    author: str
    exercise: str
    faults: Mapping[str, str]

    def __str__(self) -> str:
        faults = ", ".join(f"{name}: {fault}" for name, fault in self.faults.items())
        return f"{self.day} {self.author} {self.exercise} with {faults}"


class Author:
    """One author's solutions to a day's exercises, as the source code of top-level statements."""

    def __init__(self, grader: Grader, cells: Sequence[str]) -> None:
        numbered = [Cell(number, "code", source) for number, source in enumerate(cells)]
        day, units = grader.day, parse_units(numbered)[0]
        self._statements = [(unit.source, unit.binds) for unit in units]
        found = {name: slice_for(name, units, grader.key.given, day.names) for name in day.names}
        self.uses = {
            name: uses
            for number, (name, code) in enumerate(found.items())
            if code and (uses := [other for other in day.names[:number] if other in code.reached])
        }

    def submission(self, replaced: Mapping[str, str]) -> Submission:
        """Return a submission with the definitions of some exercises replaced."""
        sources = [
            next((replaced[name] for name in replaced if name in binds), source)
            for source, binds in self._statements
        ]
        cells = tuple(Cell(number, "code", source) for number, source in enumerate(sources))
        return Submission("script.py", "ada", "", cells, (), True)


class Judge:
    """A grader of cases, with one fork server. It does not name mistakes, which takes longer and earns no points."""

    def __init__(self, course: Course, server: Server) -> None:
        self._graders = {day: Grader(course.day(day), server, b"bench") for day in course.days}
        self._authors = {
            (name, author): Author(grader, cells)
            for name, grader in self._graders.items()
            for author, cells in _authors(grader)
        }
        self._sources = {name: _faulty_sources(grader) for name, grader in self._graders.items()}

    def cases(self, count: int, seed: int, only: Sequence[str] = ()) -> Iterator[Case]:
        """Yield random cases. If `only` is given, draw authors from this list."""
        draw = random.Random(seed)
        exercises = [
            (*key, exercise)
            for key, author in self._authors.items()
            for exercise in author.uses
            if not only or key[1] in only
        ]
        for _ in range(count):
            day, author, exercise = draw.choice(exercises)
            uses = self._authors[day, author].uses[exercise]
            faulty = [name for name in uses if draw.random() < 0.5] or [draw.choice(uses)]
            known = {name: [*self._sources[day][name]] for name in faulty}
            faults = {
                name: STUB if draw.random() < 0.5 else draw.choice(known[name]) for name in faulty
            }
            yield Case(day, author, exercise, faults)

    def grade(self, case: Case) -> ExerciseMarks:
        """Return the marks of the case's exercise. Only this exercise and those that it uses are graded."""
        grader, author = self._graders[case.day], self._authors[case.day, case.author]
        known = self._sources[case.day]
        replaced = {name: known[name][fault] for name, fault in case.faults.items()}
        day, needed = grader.day, {case.exercise, *author.uses[case.exercise]}
        graded = tuple(exercise for exercise in day.exercises if exercise.name in needed)
        grader.exercises.day = replace(day, exercises=graded)
        try:
            with mock.patch.object(ExerciseGrader, "name_mistake", return_value=None):
                marks = grader.grade(author.submission(replaced), "0")
        finally:
            grader.exercises.day = day
        return next(exercise for exercise in marks.exercises if exercise.name == case.exercise)


def _authors(grader: Grader) -> Iterator[tuple[str, list[str]]]:
    day = grader.day
    files = sorted((day.root / "tests" / "styles" / day.name).glob("*.py"))
    return zip(["solution", *(file.stem for file in files)], styles(day), strict=True)


def _faulty_sources(grader: Grader) -> dict[str, dict[str, str]]:
    """Map each exercise to its stub and its known mistakes, by name."""
    cells = [cell for chapter in grader.day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in cells if cell.role == ROLES[1]}
    known = catalogue.known_mistakes(grader.day)
    return {
        name: {STUB: stubs[name]} | {mistake.name: mistake.source for mistake in known[name]}
        for name in grader.day.names
    }


def main() -> int:
    """Print each case in which the exercise loses points. Return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m bench.independence", description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--styles", nargs="*", default=[], help="default: all, and the solution")
    arguments = parser.parse_args()
    lost = 0
    with start_server() as server:
        judge = Judge(courses.load(ROOT), server)
        for case in judge.cases(arguments.cases, arguments.seed, arguments.styles):
            marks = judge.grade(case)
            if marks.points < marks.max_points:
                lost += 1
                failed = [test.name for test in marks.tests if not test.passed]
                points = f"{marks.points} of {marks.max_points}"
                print(f"{case}: {points} ({', '.join(failed)})", flush=True)
    print(f"{lost} of {arguments.cases} cases lose points")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
