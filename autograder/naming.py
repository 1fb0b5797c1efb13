"""A mistake has a name: a wrong answer that does what a known mistake does, call by call, is told what it is."""

from __future__ import annotations

import ast
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor

from autograder import messages as m
from autograder.attempt import Source, derived, joined, loading
from autograder.cells import Cell, read_cells
from autograder.course import CourseError, Day, Exercise
from autograder.needs import needed, units_of
from autograder.recording import Exchange, Leaf, Leaves, Recorder, replay, same
from autograder.sandbox.client import Died, Late, Process
from autograder.store import course_folder
from autograder.student import NotAllowed, Student, StudentError

if TYPE_CHECKING:
    from autograder.grading import Grader

SEED = "one for all submissions, so that answers can be compared"


@dataclass(frozen=True)
class Mistake:
    """A known mistake of an exercise: its name, the sentence that the student reads, and its code."""

    exercise: str
    name: str
    sentence: str
    source: str


@dataclass(frozen=True)
class Behaviour:
    """Which tests some code fails, and what it answers to all that these ask: test, number and place of each value."""

    failed: frozenset[str]
    answers: Leaves


@dataclass(frozen=True)
class Known:
    """What tells a known mistake: the tests that it fails, its answers to them that are no chance, those that are not right."""

    failed: list[str]
    certain: Leaves
    telling: Leaves
    by_chance: bool  # some answers depend on random numbers


class Namer:
    """Finds the known mistake that a wrong answer equals; learns what each does when that is first needed."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self.mistakes = known_mistakes(grader.day)
        self._version = _version(grader.course)
        self._asked: dict[str, dict[str, list[Exchange]]] = {}
        self._known: dict[str, dict[str, Known]] = {}

    def name(self, exercise: Exercise, source: Source) -> str | None:
        """The name of the one known mistake that does what this code does; None without one, and with two."""
        known = self.known(exercise)
        seen = self._behaviour(exercise, source, 1, [set(k.failed) for k in known.values()])
        if seen is None:
            return None
        names = [name for name, mistake in known.items() if _equal(mistake, seen)]
        return names[0] if len(names) == 1 else None

    def known(self, exercise: Exercise) -> dict[str, Known]:
        """What tells each known mistake of an exercise; found once a course and kept, without those that nothing tells."""
        name, day = exercise.name, self._grader.day
        if name not in self._known:
            file = course_folder(day.root) / f"mistakes-{day.name}-{name}-{self._version}.pt"
            if not file.is_file():
                _write(file, {k: vars(known) for k, known in self._learn(exercise).items()})
            kept = torch.load(file, weights_only=True)
            self._known[name] = {k: Known(**values) for k, values in kept.items()}
        return self._known[name]

    def _learn(self, exercise: Exercise) -> dict[str, Known]:
        asked = self._recorded(exercise)
        right = _joined({test: [e.leaves for e in exchanges] for test, exchanges in asked.items()})
        found: dict[str, Known] = {}
        for mistake in self.mistakes[exercise.name]:
            source = self.source(mistake)
            first, second = (self._behaviour(exercise, source, seed) for seed in (1, 2))
            if first is not None and second is not None:
                known = _what_tells(first, second, right)
                if _tells(known, len(asked), right):
                    found[mistake.name] = known
        return found

    def source(self, mistake: Mistake) -> Source:
        """The code of a known mistake, with the references for what it calls."""
        grader, name = self._grader, mistake.exercise
        right = [unit for unit in grader.reference if name not in unit.binds]
        units = [*right, *units_of([Cell(0, "code", mistake.source)])[0]]
        code = needed(name, units, grader.given, grader.day.names)
        assert code is not None
        return joined(code.units)

    def _behaviour(
        self,
        exercise: Exercise,
        source: Source,
        seed: int,
        failing: Sequence[set[str]] | None = None,
    ) -> Behaviour | None:
        """What code does; None where it hangs, dies, can not be loaded, or fails tests that are not among `failing`."""
        asked = self._recorded(exercise)
        load = loading(exercise, source, seed)
        # Without code or rules all it does is to set the random numbers back.
        again = msgspec.structs.replace(load, pieces=[], operators=[], attributes=[])
        process = Process(self._grader.server, exercise.limits)
        try:
            student = Student(process)
            student.load(load)
            failed = self._failed(exercise, student)
            if failing is not None and failed not in failing:
                return None
            answers: dict[str, list[Leaves]] = {}
            for test in failed:
                student.load(again)
                answers[test] = replay(asked[test], process)
            return Behaviour(failed, _joined(answers))
        except (Late, Died, m.WireError, NotAllowed, StudentError):
            return None
        finally:
            process.stop()

    def _failed(self, exercise: Exercise, student: Student) -> frozenset[str]:
        failed: set[str] = set()
        for test in self._grader.tests[exercise.name]:
            try:
                test.run(student, _seed(exercise.name, test.name))
            except (Late, Died, m.WireError, NotAllowed):
                raise
            except Exception:
                failed.add(test.name)
        return frozenset(failed)

    def _recorded(self, exercise: Exercise) -> dict[str, list[Exchange]]:
        """What each test of an exercise asks, and what the reference answers."""
        if exercise.name not in self._asked:
            grader = self._grader
            code = needed(exercise.name, grader.reference, grader.given, grader.day.names)
            assert code is not None
            recorder = Recorder(Process(grader.server, exercise.limits))
            load = loading(exercise, joined(code.units), 1)
            asked: dict[str, list[Exchange]] = {}
            for test in grader.tests[exercise.name]:
                recorder.student.load(load)
                recorder.exchanges = []
                test.run(recorder.student, _seed(exercise.name, test.name))
                asked[test.name] = list(recorder.exchanges)
            recorder.stop()
            self._asked[exercise.name] = asked
        return self._asked[exercise.name]


def known_mistakes(day: Day) -> dict[str, list[Mistake]]:
    """The known mistakes of each exercise of a day, from `autograder/mistakes/`."""
    found: dict[str, list[Mistake]] = {name: [] for name in day.names}
    for file in sorted((day.root / "autograder" / "mistakes" / day.name).glob("*.py")):
        imports, *cells = read_cells(file.read_bytes(), file.name)[0]
        for cell in cells:
            exercise, _, name = str(cell.metadata.get("title", "")).partition(": ")
            if exercise not in found:
                raise CourseError(f"{file}: a cell's title is `EXERCISE: what is wrong`")
            source = f"{imports.source}\n\n\n{cell.source}"
            found[exercise].append(Mistake(exercise, name, _sentence(source, exercise), source))
    return found


def _sentence(source: str, exercise: str) -> str:
    """The docstring of the definition, in one line."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == exercise:
            return " ".join((ast.get_docstring(node) or "").split())
    return ""


def _version(course: str) -> str:
    """Of what is kept: the course, and how mistakes are told apart."""
    here = Path(__file__)
    code = b"".join(here.with_name(name).read_bytes() for name in (here.name, "recording.py"))
    return hashlib.sha256(course.encode() + code).hexdigest()[:16]


def _write(file: Path, what: Any) -> None:
    """Whole or not at all, as others may do the same at this moment."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        torch.save(what, part)
    os.replace(part.name, file)


def _seed(exercise: str, test: str) -> int:
    return int.from_bytes(derived(SEED, exercise, test)[:7])


def _joined(answers: Mapping[str, Sequence[Leaves]]) -> Leaves:
    return {
        f"{test} {number} {place}": leaf
        for test, exchanges in answers.items()
        for number, leaves in enumerate(exchanges)
        for place, leaf in leaves.items()
    }


def _what_tells(first: Behaviour, second: Behaviour, right: Leaves) -> Known:
    """From two runs with different random numbers. How often a model is asked is free, as long as it is asked as it should."""
    certain = {
        place: leaf
        for place, leaf in first.answers.items()
        if _same(leaf, second.answers, place)
        and not (place.endswith("asked") and _same(leaf, right, place))
    }
    telling = {
        place: leaf for place, leaf in first.answers.items() if not _same(leaf, right, place, 4)
    }
    by_chance = len(first.answers) > sum(
        _same(leaf, second.answers, place) for place, leaf in first.answers.items()
    )
    return Known(sorted(first.failed), certain, telling, by_chance)


def _tells(known: Known, tests: int, right: Leaves) -> bool:
    """Whether what a mistake does can be no accident of code that is wrong in another way.

    A test that fails though all that is seen is right tells by itself, and so do values. Failures and NaN
    do only beside tests that pass.
    """
    if not known.telling:
        return not known.by_chance
    values = any(_is_value(leaf, right.get(place)) for place, leaf in known.telling.items())
    return values or len(known.failed) < tests


def _is_value(leaf: Leaf, right: Leaf) -> bool:
    if not isinstance(leaf, Tensor) or not isinstance(right, Tensor):
        return False
    if leaf.shape != right.shape or leaf.is_meta or right.is_meta:
        return True
    finite = leaf.isfinite() & right.isfinite()
    return leaf.dtype != right.dtype or not same(leaf[finite], right[finite])


def _equal(known: Known, seen: Behaviour) -> bool:
    """Whether code fails the tests that a known mistake fails, with its answers, wrong ones among them."""
    return (
        set(known.failed) == seen.failed
        and all(_same(leaf, seen.answers, place) for place, leaf in known.certain.items())
        and (
            not known.telling
            or any(_same(leaf, seen.answers, place) for place, leaf in known.telling.items())
        )
    )


def _same(leaf: Leaf, answers: Leaves, place: str, times: float = 1.0) -> bool:
    return place in answers and same(leaf, answers[place], times)
