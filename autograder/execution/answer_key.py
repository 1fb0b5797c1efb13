"""What the course knows of a day's exercises: the code that it gives, its solutions, and the tests. Entry point: `AnswerKey`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.execution.attempt import Source, joined
from autograder.execution.collect import Test, collect
from autograder.execution.references import Replaced, given_classes, handle
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing import service
from autograder.slicing.dependencies import Code, Unit, parse_units, slice_for
from autograder.submissions.cells import Cell


@dataclass(frozen=True)
class AnswerKey:
    """A day with its tests, its given code and its solutions; `fingerprint` is a hash of all that decides about marks."""

    day: Day
    tests: dict[str, list[Test]]
    given: list[Unit]
    solutions: list[Unit]
    fingerprint: str
    _replaced: dict[tuple[str, ...], Replaced] = field(default_factory=dict)

    @classmethod
    def of(cls, day: Day) -> AnswerKey:
        """Read the day's chapters and graders.

        Raises:
            CourseError: they do not fit together.
        """
        tests, given = collect(day), given_units(day)
        return cls(day, tests, given, solution_units(day), courses.fingerprint(day))

    def code(self, name: str, units: Sequence[Unit]) -> Code:
        """The code that an exercise needs, with these units as what a student would write."""
        code = slice_for(name, units, self.given, self.day.names)
        assert code is not None, f"the course does not define {name}"
        return code

    def solution(self, name: str) -> Source:
        """The code of the course's own solution of an exercise."""
        return joined(self.code(name, self.solutions).units)

    def instead_of_solution(self, name: str, source: str) -> Source:
        """The code of an exercise where this source takes the place of its solution, with the solutions of what it calls."""
        others = [unit for unit in self.solutions if name not in unit.binds]
        units = [*others, *parse_units([Cell(0, "code", source)])[0]]
        return joined(self.code(name, units).units)

    def replaced(self, names: Sequence[str]) -> Replaced | None:
        """What it takes to call the references of these exercises; None without any."""
        if not names:
            return None
        key = tuple(names)
        if key not in self._replaced:
            units = (unit for name in names for unit in self.code(name, self.solutions).units)
            source = joined(list(dict.fromkeys(units)))
            self._replaced[key] = Replaced(
                handles=tuple(handle(name, source.text) for name in names),
                load=m.Load(source.text, list(source.pieces), names[-1], 1, source.flags),
                given=given_classes([unit.source for unit in self.given]),
            )
        return self._replaced[key]


def given_units(day: Day) -> list[Unit]:
    """Return what a day's chapters give; see `slices.given_units`."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    given = [Cell(cell.number, "code", cell.source) for cell in cells if cell.role == "given"]
    return service.given_units(given, [cell.stub for cell in cells if cell.role == "exercise"])


def solution_units(day: Day) -> list[Unit]:
    """The course's own solutions."""
    cells = [
        Cell(cell.number, "code", cell.source)
        for chapter in day.chapters
        for cell in chapter.cells
        if cell.role == "exercise"
    ]
    units, problems = parse_units(cells)
    if problems:
        raise courses.CourseError("; ".join(problems))
    return units


def solved(
    day: Day, exercise: Exercise, solutions: Sequence[Unit], given: Sequence[Unit]
) -> Student:
    """The course's own solution of an exercise, loaded in this process."""
    code = slice_for(exercise.name, solutions, given, day.names)
    assert code is not None
    source = joined(code.units)
    student = Student(LocalProcess())
    student.load(m.Load(source.text, list(source.pieces), exercise.name, 0))
    return student
