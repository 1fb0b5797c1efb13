"""Describe the code to run for one exercise: the student's statements, and the references that they call.

Entry points: `Source`, `join_units`, `ReferenceSet` and `load_request`.
"""

from __future__ import annotations
import __future__ as future

import ast
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from autograder.course.config import Exercise
from autograder.protocol import messages as m
from autograder.slicing.unit import Unit
from autograder.submissions.reader_messages import Statement

MAX_SHOWN = 70  # maximum length of a line of code in a message
# Special methods that references may call on instances of course-provided classes, in addition to public methods.
SPECIAL_METHODS = ("__len__", "__bool__")


@dataclass(frozen=True)
class ReferenceSet:
    """The reference solutions that replace a student's own code for some exercises.

    `functions` describes the solutions, and `load` is the request that runs their code. `given_methods` lists the
    methods that solutions may call on instances of course-provided classes.
    """

    functions: tuple[m.Reference, ...]
    load: m.Load
    given_methods: Mapping[str, Sequence[str]]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the replaced exercises."""
        return tuple(function.name for function in self.functions)


def describe_reference(name: str, source: str) -> m.Reference:
    """Describe a reference solution by its name, its parameters and, for a class, its public methods."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return m.Reference(name, _parameters(node))
        if isinstance(node, ast.ClassDef) and node.name == name:
            own = {method.name: _parameters(method) for method in _methods(node)}
            public = {method: names for method, names in own.items() if not method.startswith("_")}
            return m.Reference(name, own.get("__init__"), public)
    return m.Reference(name)


def given_methods(sources: Sequence[str]) -> dict[str, list[str]]:
    """Return the methods that reference solutions may call on instances of each course-provided class."""
    nodes = (node for source in sources for node in ast.parse(source).body)
    return {
        node.name: [
            method.name
            for method in _methods(node)
            if not method.name.startswith("_") or method.name in SPECIAL_METHODS
        ]
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]


def _parameters(function: ast.FunctionDef) -> list[str] | None:
    """Return a function's parameter names, or None if it accepts any arguments."""
    arguments = function.args
    if arguments.kwarg:
        return None
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


@dataclass(frozen=True)
class Source:
    """The code for one exercise. `pieces` contains the first and last line number of each statement in `text`.

    `references` contains the reference solutions that the code calls instead of the student's own versions.
    """

    text: str
    pieces: tuple[tuple[int, int], ...]
    units: tuple[Statement | Unit, ...]
    flags: int = 0
    references: ReferenceSet | None = None

    def location(self, line: int) -> str:
        """Return the notebook cell and line from which a line of `text` comes, or "" for the course's own code."""
        # A hostile worker may report an error in each of thousands of pieces.
        number = bisect_right(self.pieces, line, key=itemgetter(0)) - 1
        if number < 0 or line > self.pieces[number][1]:
            return ""
        unit = self.units[number]
        where = f"cell {unit.cell}, line {unit.line + self._offset(number, line)}"
        return "" if unit.given else where

    def _offset(self, number: int, line: int) -> int:
        """Return which line of a unit's source a line of `text` comes from, counting from 0."""
        offset, unit = line - self.pieces[number][0], self.units[number]
        lines = unit.lines if isinstance(unit, Statement) else ()
        return lines[offset] if offset < len(lines) else offset

    def location_with_code(self, line: int) -> str:
        """Return `location(line)` followed by the code on that line, which is easier to find than a line number."""
        location = self.location(line)
        code = ""
        if location:
            number = bisect_right(self.pieces, line, key=itemgetter(0)) - 1
            lines = self.units[number].source.split("\n")
            code = lines[min(self._offset(number, line), len(lines) - 1)]
        code = " ".join(code.split()).replace("`", "'")
        code = code if len(code) <= MAX_SHOWN else f"{code[: MAX_SHOWN - 1]}…"
        return f"{location}: `{code}`" if code else location

    def without(self, line: int) -> Source:
        """Return this source without the statement that contains `line`."""
        kept = [
            unit
            for (first, last), unit in zip(self.pieces, self.units, strict=True)
            if not first <= line <= last
        ]
        return join_units(kept, self.references)


def join_units(units: Sequence[Statement | Unit], references: ReferenceSet | None = None) -> Source:
    """Join statements into one source, separated by blank lines."""
    lines: list[str] = []
    pieces: list[tuple[int, int]] = []
    for unit in units:
        own = _text(unit).split("\n")
        pieces.append((len(lines) + 1, len(lines) + len(own)))
        lines += [*own, ""]
    postponed = any("from __future__ import annotations" in _text(unit) for unit in units)
    flags = future.annotations.compiler_flag if postponed else 0
    return Source("\n".join(lines), tuple(pieces), tuple(units), flags, references)


def _text(unit: Statement | Unit) -> str:
    return unit.text if isinstance(unit, Statement) else unit.source


def load_request(exercise: Exercise, source: Source, seed: int) -> m.Load:
    """Return the request that makes a worker run an exercise's code."""
    return m.Load(
        source=source.text,
        pieces=list(source.pieces),
        wanted=exercise.name,
        seed=seed,
        flags=source.flags,
        operators=list(exercise.forbidden.operators),
        attributes=list(exercise.forbidden.attributes),
        references=list(source.references.functions) if source.references else [],
    )
