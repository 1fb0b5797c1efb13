"""Read the hidden tests, the course-provided code and the solutions for one day. Entry point: `AnswerKey`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.fingerprint import fingerprint
from autograder.execution.collect import Test, collect
from autograder.execution.source import (
    ReferenceSet,
    Source,
    describe_reference,
    given_methods,
    join_units,
)
from autograder.execution.student import Student
from autograder.marks.engine_version import engine_version
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing import notebook_slicer
from autograder.slicing.dependencies import Code, slice_for
from autograder.slicing.statements import parse_units
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell

# Each student may get a different set of exercises wrong, so without this limit, a large class would fill the memory.
MAX_REFERENCE_SETS = 100


@dataclass(frozen=True)
class AnswerKey:
    """The hidden tests, course-provided code and solutions for one day.

    `fingerprint` is a hash of everything in the course that affects marks.
    """

    day: Day
    tests: dict[str, list[Test]]
    given: list[Unit]
    solutions: list[Unit]
    fingerprint: str
    _references: dict[tuple[str, ...], ReferenceSet] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """Return a short hash of the course, the autograder and the versions of torch and Python, for use in cache names."""
        return hashlib.sha256(f"{self.fingerprint} {engine_version()}".encode()).hexdigest()[:16]

    @classmethod
    def read(cls, day: Day) -> AnswerKey:
        """Read the day's chapters and graders.

        Raises:
            CourseError: A grader or a chapter is invalid.
        """
        tests, given = collect(day), given_units(day)
        return cls(day, tests, given, solution_units(day), fingerprint(day))

    def slice_for(self, name: str, units: Sequence[Unit]) -> Code:
        """Return the code that an exercise needs, using the statements in `units` in place of a student's code."""
        code = slice_for(name, units, self.given, self.day.names)
        assert code is not None, f"the course does not define {name}"
        return code

    def solution_source(self, name: str) -> Source:
        """Return the course's own solution to an exercise, plus the code that it needs."""
        return join_units(self.slice_for(name, self.solutions).units)

    def replace_solution(self, name: str, source: str) -> Source:
        """Use `source` as the solution to an exercise, and return it with the course code that it needs."""
        others = [unit for unit in self.solutions if name not in unit.binds]
        units = [*others, *parse_units([Cell(0, "code", source)])[0]]
        return join_units(self.slice_for(name, units).units)

    def references(self, names: Sequence[str]) -> ReferenceSet | None:
        """Return the reference solutions to the named exercises, or None if `names` is empty."""
        if not names:
            return None
        key = tuple(names)
        if key not in self._references:
            if len(self._references) >= MAX_REFERENCE_SETS:
                del self._references[next(iter(self._references))]  # the oldest
            units = (unit for name in names for unit in self.slice_for(name, self.solutions).units)
            source = join_units(list(dict.fromkeys(units)))
            self._references[key] = ReferenceSet(
                functions=tuple(describe_reference(name, source.text) for name in names),
                load=m.Load(source.text, list(source.pieces), names[-1], 1, source.flags),
                given_methods=given_methods([unit.source for unit in self.given]),
            )
        self._references[key] = self._references.pop(key)  # now the newest
        return self._references[key]


def given_units(day: Day) -> list[Unit]:
    """Return the code that a day's chapters provide to students, as units. See `notebook_slicer.given_units`."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    roles = ("given", "support")
    given = [Cell(cell.number, "code", cell.source) for cell in cells if cell.role in roles]
    return notebook_slicer.given_units(
        given, [cell.stub for cell in cells if cell.role == "exercise"]
    )


def solution_units(day: Day) -> list[Unit]:
    """Return the course's own solutions to all of a day's exercises.

    Raises:
        CourseError: A solution cannot be parsed.
    """
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


def load_solution(day: Day, name: str, solutions: Sequence[Unit], given: Sequence[Unit]) -> Student:
    """Load the course's own solution to an exercise into this process, without a sandbox."""
    code = slice_for(name, solutions, given, day.names)
    assert code is not None
    source = join_units(code.units)
    student = Student(LocalProcess())
    student.load(m.Load(source.text, list(source.pieces), name, 0))
    return student
