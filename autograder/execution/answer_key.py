"""Read the hidden tests, the course-provided code and the solutions for one day. Entry point: `AnswerKey`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.course.fingerprint import fingerprint
from autograder.execution.candidates import Candidates, Implementation, Implementations
from autograder.execution.catalogue import known_mistakes
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
from autograder.submissions.cell_reader import read_cells

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
    # By the exercise whose answers are tests: see `candidates`.
    implementations: dict[str, Implementations] = field(default_factory=dict)
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
        key = cls(day, tests, given, solution_units(day), fingerprint(day))
        for exercise in day.exercises:
            if exercise.detects:
                key.implementations[exercise.name] = key._implementations_for(exercise)
        return key

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

    def _implementations_for(self, exercise: Exercise) -> Implementations:
        """Return the implementations that students' tests should tell apart: solutions and known mistakes.

        Raises:
            CourseError: A hidden test lists a mistake that is not known, or lists none.
        """
        tested = exercise.detects
        broken = {
            mistake.name: _implementation(
                self.replace_solution(tested, mistake.source), mistake.name
            )
            for mistake in known_mistakes(self.day)[tested]
        }
        kinds = tuple(test.mistakes for test in self.tests[exercise.name])
        for test, kind in zip(self.tests[exercise.name], kinds, strict=True):
            unknown = [name for name in kind if name not in broken]
            if unknown or not kind:
                where = f"{self.day.graders}: {test.owner.__name__}.{test.name}"
                reason = f"has no mistake {unknown[0]!r}" if unknown else "needs a list of mistakes"
                raise courses.CourseError(
                    f"{where}: {self.day.mistakes / tested}.md {reason}; define the test with `broken`"
                )
        correct = [self.solution_source(tested)]
        for file in self.day.styles:
            units, _ = parse_units(read_cells(file.read_bytes(), file.name)[0])
            if any(tested in unit.binds for unit in units):
                correct.append(join_units(self.slice_for(tested, units).units))
        return Implementations(tested, tuple(map(_implementation, correct)), broken, kinds)

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
    return load_locally(source, name)


def load_locally(
    source: Source, name: str, implementations: Implementations | None = None
) -> Student:
    """Load code for an exercise into this process, without a sandbox. It must be the course's own code."""

    @contextmanager
    def start(load: m.Load | None) -> Iterator[Student]:
        student = Student(LocalProcess())
        student.load(load or m.Load(source.text, list(source.pieces), name, 0, source.flags))
        yield student

    with start(None) as student:
        if implementations is not None:
            student.connection.candidates = Candidates(name, implementations, start, 0)
        return student


def _implementation(source: Source, mistake: str = "") -> Implementation:
    # `flags` has the effect of the imports from `__future__`, which are allowed only at the beginning of a file.
    units = [unit for unit in source.units if not unit.source.startswith("from __future__")]
    return Implementation(join_units(units).text, source.flags, mistake)
