"""Extract each exercise's code from a notebook. The reader runs this module in the sandbox; slicer.py calls it.

`prepare` receives a course before any process is forked. It caches the release's cells, which most notebooks contain.
"""

from __future__ import annotations

import ast
import builtins
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from autograder.course.chapters import is_unfilled
from autograder.plain_text import printable_problems
from autograder.slicing.dependencies import Code, slice_for, wider_slice
from autograder.slicing.mentions import Vocabulary, find_forbidden
from autograder.slicing.normal_form import normal_form
from autograder.slicing.statements import parse_units
from autograder.slicing.unit import Unit
from autograder.submissions.cell import Cell
from autograder.submissions.reader_messages import (
    MAX_CODE,
    CoursePart,
    ExerciseSlice,
    ReleasedCourse,
    ReleasedExercise,
    Slices,
    Statement,
)

UNIT_OVERHEAD = 16  # bytes that each unit adds to a message
REFERENCE = "# {name}: the reference"


# ---- courses


@dataclass(frozen=True)
class PreparedCourse:
    """A course whose provided code has already been parsed."""

    exercises: dict[str, ReleasedExercise]
    given: list[Unit]
    provided: list[Unit]
    vocabulary: Vocabulary
    released: frozenset[str]  # the sources of all statements in the release and the provided code


COURSES: dict[str, PreparedCourse] = {}
_PARTS: dict[str, dict[int, bytes]] = {}


def prepare(data: bytes) -> None:
    """Receive a `CoursePart` and prepare the course once all parts have arrived."""
    part = msgspec.msgpack.decode(data, type=CoursePart)
    parts = _PARTS.setdefault(part.course, {})
    parts[part.number] = part.data
    if len(parts) == part.count and part.course not in COURSES:
        whole = b"".join(parts[number] for number in range(part.count))
        course = msgspec.msgpack.decode(whole, type=ReleasedCourse)
        COURSES[part.course] = _prepared(course)
        for exercise in course.exercises:
            is_unfilled(exercise.stub, exercise.stub)  # fill the cache


def _prepared(course: ReleasedCourse) -> PreparedCourse:
    given = [
        replace(u, is_replaceable=not u.needed_by_all and u.binds.isdisjoint(course.unassigned))
        for u in given_units(course.given, [exercise.stub for exercise in course.exercises])
    ]
    vocabulary = Vocabulary(
        frozenset(name for exercise in course.exercises for name in exercise.not_allowed),
        frozenset(name for exercise in course.exercises for name in exercise.libraries),
        frozenset(name for exercise in course.exercises for name in exercise.options),
    )
    exercises = {exercise.name: exercise for exercise in course.exercises}
    provided = parse_units([Cell(0, "code", source) for source in course.provided])[0]
    # Parsing also caches the cells.
    released = [unit for text in course.release for unit in parse_units([Cell(0, "code", text)])[0]]
    sources = frozenset(unit.source for unit in (*released, *provided))
    names = {name for unit in given for name in unit.binds}
    # A function that takes an instance of an exercise's class does not add methods to it.
    provided = [replace(u, extends=frozenset()) for u in provided if u.binds.isdisjoint(names)]
    return PreparedCourse(exercises, given, provided, vocabulary, sources)


def given_units(cells: Sequence[Cell], stubs: Sequence[str]) -> list[Unit]:
    """Return the units that the course provides: imports, constants, and functions that are not exercises.

    Classes mentioned in a stub are always needed, because the exercise takes instances of them as arguments. Imports
    of other chapters are dropped, because the notebook contains all chapters.
    """
    named = {
        name
        for unit in parse_units([Cell(0, "code", stub) for stub in stubs])[0]
        for name in unit.reads
    }
    return [
        replace(unit, needed_by_all=True) if unit.binds & named and not unit.imports else unit
        for unit in parse_units(cells, given=True)[0]
        if not unit.source.lstrip().startswith("from solutions.")
    ]


# ---- notebooks


class NotebookSlicer:
    """A slicer for one notebook, which it parses only once.

    The student's code may use what the notebook's provided cell defines, even if that cell was edited or deleted. It is
    therefore added to the notebook, except definitions of names that the notebook itself binds. In notebooks from earlier
    releases, it replaces cells with the same code.
    """

    def __init__(self, course: PreparedCourse, cells: Sequence[Cell]) -> None:
        self._course = course
        own, self._problems = parse_units(cells)
        copies = {unit.source for unit in course.provided}
        bound = {name for unit in own if unit.source not in copies for name in unit.binds}
        provided = [unit for unit in course.provided if unit.binds.isdisjoint(bound)]
        replaced = {unit.source for unit in provided}
        self._units = [*provided, *(unit for unit in own if unit.source not in replaced)]

    def slice_all(self) -> Slices:
        """Return the slices of all exercises."""
        names = list(self._course.exercises)
        statements = _Statements()
        slices = [
            self._slice(name, self._units, self._course.given, names, statements) for name in names
        ]
        problems = printable_problems(self._problems)
        return Slices(statements.found, slices, problems, self._defining_cells(names))

    def slice_again(self, exercise: str, replaced: Sequence[str], wide: bool) -> Slices:
        """Return the slice of one exercise, with reference solutions in place of the `replaced` exercises.

        If `wide` is true, it contains all statements that may affect the exercise.
        """
        given = [*self._course.given, *map(_reference, replaced)]
        units = [apply_decorators(unit, replaced) for unit in self._units]
        names = [name for name in self._course.exercises if name not in replaced]
        statements = _Statements()
        return Slices(
            statements.found, [self._slice(exercise, units, given, names, statements, wide)]
        )

    def _slice(
        self,
        name: str,
        units: Sequence[Unit],
        given: Sequence[Unit],
        names: Sequence[str],
        statements: _Statements,
        wide: bool = False,
    ) -> ExerciseSlice:
        exercise = self._course.exercises[name]
        code = (
            wider_slice(name, units, given, names, self._course.released)
            if wide
            else slice_for(name, units, given, names)
        )
        if code is None:
            return ExerciseSlice(name, "absent", [], [], (), ())
        reached = [n for n in self._course.exercises if n in code.names and n != name]
        is_stub = _is_stub(exercise, [unit for unit in code.units if not unit.given], wide)
        size = sum(len(unit.source.encode()) + UNIT_OVERHEAD for unit in code.units)
        if size > MAX_CODE:
            return ExerciseSlice(name, "stub" if is_stub else "too_long", [], reached, (), ())
        return ExerciseSlice(
            name,
            "stub" if is_stub else "written",
            [statements.number(unit) for unit in code.units],
            reached,
            printable_problems(code.problems),
            () if is_stub else _forbidden_uses(code, exercise, self._course.vocabulary, names),
        )

    def _defining_cells(self, names: Iterable[str]) -> dict[str, int]:
        """Map each exercise that the notebook defines to the number of the cell with its last definition."""
        bound: dict[str, int] = {}
        defined: dict[str, int] = {}
        wanted = set(names)
        for unit in self._units:
            if not unit.main_only:
                bound |= dict.fromkeys(unit.binds & wanted, unit.cell)
                defined |= dict.fromkeys(unit.defines & unit.binds & wanted, unit.cell)
        return bound | defined


class _Statements:
    """The statements of an answer. A unit that occurs in several slices is sent only once."""

    def __init__(self) -> None:
        self.found: list[Statement] = []
        self._numbers: dict[int, int] = {}

    def number(self, unit: Unit) -> int:
        """Return the index of a unit's statement, adding the statement if it is new."""
        if id(unit) not in self._numbers:
            self._numbers[id(unit)] = len(self.found)
            normal, lines = ("", ()) if unit.given else normal_form(unit.source)
            statement = Statement(unit.source, unit.cell, unit.line, unit.given, normal, lines)
            self.found.append(statement)
        return self._numbers[id(unit)]


def _is_stub(exercise: ReleasedExercise, units: Sequence[Unit], wide: bool) -> bool:
    """Return whether an exercise is still a stub. A class is not a stub if other statements add methods to it."""
    name = exercise.name
    own = [unit for unit in units if name in unit.binds]
    if wide:  # the slice also contains earlier definitions
        own = own[-1:]
    if not any(is_unfilled(unit.source, exercise.stub) for unit in own):
        return False
    extended = any(
        name in unit.changes or any(extension.target == name for extension in unit.extends)
        for unit in units
    )
    return not (extended and any(unit.is_class for unit in own))


def _forbidden_uses(
    code: Code, exercise: ReleasedExercise, vocabulary: Vocabulary, exercises: Collection[str]
) -> tuple[str, ...]:
    """Return the forbidden functions mentioned in the student's code for an exercise, resolving the course's imports."""
    own = _without_unread(code, exercise.name, exercises)
    imports = [unit.source for unit in code.units if unit.given and unit.imports]
    sources = [*imports, *(unit.source for unit in own)]
    found = find_forbidden(sources, exercise.not_allowed, vocabulary, exercise.stub)
    found += _builtin_uses(code, own, exercise.not_allowed)
    return printable_problems(found)


def _without_unread(code: Code, own: str, exercises: Collection[str]) -> list[Unit]:
    """Return the student's units, except definitions of other exercises that an exercise's code does not read.

    A slice may contain such unread definitions, for example if a decorator registers all of them in one table. `own` is the
    exercise's name, and `exercises` contains those of all exercises.
    """
    defining: dict[str, list[Unit]] = defaultdict(list)
    kept: list[Unit] = []
    for unit in code.units:
        names = unit.binds.intersection(exercises)
        for name in names:
            defining[name].append(unit)
        if not names or own in names:
            kept.append(unit)
    for unit in kept:  # the list grows
        for name in unit.reads & defining.keys():
            kept += defining.pop(name)
    read = set(map(id, kept))
    return [unit for unit in code.units if id(unit) in read and not unit.given]


def _builtin_uses(code: Code, own: Sequence[Unit], not_allowed: Collection[str]) -> list[str]:
    """Return the forbidden Python built-ins that the student's code uses, except those that the code redefines."""
    reads = {name for unit in own for name in unit.reads}
    binds = {name for unit in code.units for name in unit.binds}
    return sorted(name for name in reads & set(not_allowed) - binds if hasattr(builtins, name))


def _reference(name: str) -> Unit:
    """Return a placeholder for an exercise's reference solution. The solution itself is not part of the slice."""
    names = frozenset({name})
    return Unit(
        source=REFERENCE.format(name=name),
        cell=0,
        line=1,
        given=True,
        reads=frozenset(),
        binds=names,
        changes=frozenset(),
        needed_by_all=False,
        always_binds=names,
        defines=names,
    )


def apply_decorators(unit: Unit, replaced: Collection[str]) -> Unit:
    """Return a unit that applies the decorators of a replaced exercise to the reference solution.

    The decorators' result is not used. Return other units unchanged.
    """
    if unit.given or unit.binds.isdisjoint(replaced) or "@" not in unit.source:
        return unit
    statement = ast.parse(unit.source).body[0]
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef) or not statement.decorator_list:
        return unit
    call: ast.expr = ast.Name(statement.name)
    for decorator in reversed(statement.decorator_list):
        call = ast.Call(decorator, [call], [])
    units, _ = parse_units([Cell(unit.cell, "code", ast.unparse(call))])
    if len(units) != 1:
        return unit
    return replace(units[0], line=unit.line, receivers=unit.receivers)
