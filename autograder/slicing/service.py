"""Slice a notebook into the code of each exercise; runs in the reader, behind the wall. client.py is the grader's end.

`prepare` gets a course ready before any process is forked, and reads the cells of the release, which most notebooks share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from autograder.course.chapters import is_unfilled
from autograder.protocol.plain_text import bounded, printable
from autograder.slicing.dependencies import Code, parse_units, slice_for
from autograder.slicing.mentions import find_forbidden
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell
from autograder.submissions.messages import Sentence, Sentences

MAX_UNITS = 500_000
REFERENCE = "# {name}: the reference"
Number = Annotated[int, Meta(ge=0, le=1 << 31)]


# ---- messages


class Exercise(msgspec.Struct, frozen=True):
    """An exercise as it is released."""

    name: str
    stub: str
    not_allowed: list[str]


class Course(msgspec.Struct, frozen=True):
    """What slicing has to know of a day; all of it is in the release."""

    exercises: list[Exercise]
    given: list[Cell]
    release: list[str]  # the sources of all code cells


class Part(msgspec.Struct, frozen=True):
    """A part of an encoded `Course`, as one control message is small."""

    course: str
    number: int
    count: int
    data: bytes


class Piece(msgspec.Struct, frozen=True):
    """A top-level statement, with the cell and line that it comes from; `given` by the course, or the student's."""

    source: str
    cell: Number
    line: Number
    given: bool


class ExerciseSlice(msgspec.Struct, frozen=True):
    """The code of one exercise; `pieces` are numbers of the answer's pieces, in the order in which they run."""

    exercise: Sentence
    state: Literal["absent", "stub", "written"]
    pieces: Annotated[list[Number], Meta(max_length=MAX_UNITS)]
    reached: Annotated[list[Sentence], Meta(max_length=1000)]
    problems: Sentences
    used: Sentences


class Answer(msgspec.Struct, frozen=True):
    """The code of the exercises that were asked for, and what there is to say about the whole notebook."""

    pieces: Annotated[list[Piece], Meta(max_length=MAX_UNITS)]
    slices: Annotated[list[ExerciseSlice], Meta(max_length=1000)]
    problems: Sentences = ()
    homes: dict[Sentence, Number] = {}


# ---- courses


@dataclass(frozen=True)
class PreparedCourse:
    """A course, with what it gives read already."""

    exercises: dict[str, Exercise]
    given: list[Unit]


COURSES: dict[str, PreparedCourse] = {}
_PARTS: dict[str, dict[int, bytes]] = {}


def prepare(data: bytes) -> None:
    """Take a `Part`; with the last, get the course ready."""
    part = msgspec.msgpack.decode(data, type=Part)
    parts = _PARTS.setdefault(part.course, {})
    parts[part.number] = part.data
    if len(parts) == part.count and part.course not in COURSES:
        whole = b"".join(parts[number] for number in range(part.count))
        course = msgspec.msgpack.decode(whole, type=Course)
        COURSES[part.course] = _prepared(course)
        for source in course.release:
            parse_units([Cell(0, "code", source)])
        for exercise in course.exercises:
            is_unfilled(exercise.stub, exercise.stub)


def _prepared(course: Course) -> PreparedCourse:
    given = given_units(course.given, [exercise.stub for exercise in course.exercises])
    return PreparedCourse({exercise.name: exercise for exercise in course.exercises}, given)


def given_units(cells: Sequence[Cell], stubs: Sequence[str]) -> list[Unit]:
    """Return what the course gives: imports, constants, and functions that are not exercises.

    A class that a stub's annotations name is an argument of the exercise, so it is always taken. Imports between chapters
    disappear when the chapters are joined.
    """
    named = {
        name
        for unit in parse_units([Cell(0, "code", stub) for stub in stubs])[0]
        for name in unit.reads
    }
    return [
        replace(unit, always=True) if unit.binds & named and not unit.imports else unit
        for unit in parse_units(cells, given=True)[0]
        if not unit.source.lstrip().startswith("from solutions.")
    ]


# ---- notebooks


class NotebookSlicer:
    """One notebook and its units."""

    def __init__(self, course: PreparedCourse, cells: Sequence[Cell]) -> None:
        self._course = course
        self._units, self._problems = parse_units(cells)

    def notebook(self) -> Answer:
        """The code of every exercise."""
        names = list(self._course.exercises)
        pieces = _Pieces()
        chosen = [self._chosen(name, self._course.given, names, pieces) for name in names]
        problems = tuple(bounded(map(printable, self._problems)))
        return Answer(pieces.found, chosen, problems, self._homes(names))

    def again(self, exercise: str, replaced: Sequence[str]) -> Answer:
        """The code of one exercise, where the course gives these others."""
        given = [*self._course.given, *map(_reference, replaced)]
        names = [name for name in self._course.exercises if name not in replaced]
        pieces = _Pieces()
        chosen = self._chosen(exercise, given, names, pieces)
        return Answer(pieces.found, [chosen])

    def _chosen(
        self, name: str, given: Sequence[Unit], names: Sequence[str], pieces: _Pieces
    ) -> ExerciseSlice:
        exercise = self._course.exercises[name]
        code = slice_for(name, self._units, given, names)
        if code is None:
            return ExerciseSlice(name, "absent", [], [], (), ())
        is_stub = _is_stub(exercise, [unit for unit in code.units if not unit.given])
        reads = {n for unit in code.units for n in unit.reads}
        reached = [n for n in names if (n in code.reached or n in reads) and n != name]
        return ExerciseSlice(
            name,
            "stub" if is_stub else "written",
            [pieces.number(unit) for unit in code.units],
            reached,
            tuple(bounded(map(printable, code.problems))),
            () if is_stub else _used(code, exercise.not_allowed),
        )

    def _homes(self, names: Iterable[str]) -> dict[str, int]:
        """For each exercise that is defined, the number of the cell with its last definition."""
        bound: dict[str, int] = {}
        defined: dict[str, int] = {}
        wanted = set(names)
        for unit in self._units:
            if not unit.main_only:
                bound |= dict.fromkeys(unit.binds & wanted, unit.cell)
                defined |= dict.fromkeys(unit.defines & unit.binds & wanted, unit.cell)
        return bound | defined


class _Pieces:
    """Numbers the units that are taken, each once."""

    def __init__(self) -> None:
        self.found: list[Piece] = []
        self._numbers: dict[int, int] = {}

    def number(self, unit: Unit) -> int:
        """The number of a unit's piece."""
        if id(unit) not in self._numbers:
            self._numbers[id(unit)] = len(self.found)
            self.found.append(Piece(unit.source, unit.cell, unit.line, unit.given))
        return self._numbers[id(unit)]


def _is_stub(exercise: Exercise, units: Sequence[Unit]) -> bool:
    """Whether the definition is as it was released, and is no class that other statements give its methods."""
    name = exercise.name
    own = [unit for unit in units if name in unit.binds]
    if not any(is_unfilled(unit.source, exercise.stub) for unit in own):
        return False
    extended = any(
        name in unit.changes or any(extension.target == name for extension in unit.extends)
        for unit in units
    )
    return not (extended and any(unit.is_class for unit in own))


def _used(code: Code, not_allowed: Sequence[str]) -> tuple[str, ...]:
    """What the exercise does not allow and its own code, or what the course imports for it, mentions."""
    own = [unit.source for unit in code.units if not unit.given]
    imports = [unit.source for unit in code.units if unit.given and unit.imports]
    return tuple(bounded(map(printable, find_forbidden([*imports, *own], not_allowed))))


def _reference(name: str) -> Unit:
    """A stand-in for an exercise that the course gives: its code is no part of the slice."""
    names = frozenset({name})
    return Unit(
        source=REFERENCE.format(name=name),
        cell=0,
        line=1,
        given=True,
        reads=frozenset(),
        binds=names,
        changes=frozenset(),
        always=False,
        surely=names,
        defines=names,
    )
