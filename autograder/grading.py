"""One submission → marks: for each exercise its code, a process that runs it, and the tests that ask it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import msgspec
import torch

from autograder import course as courses
from autograder import faults, not_allowed, release, trivial
from autograder import messages as m
from autograder.alone import Turns
from autograder.attempt import Attempt, Outcome, Source, joined, refusal
from autograder.cells import Cell
from autograder.chapters import is_unfilled
from autograder.collecting import Test, collect
from autograder.course import Day, Exercise
from autograder.follow_through import follow_through
from autograder.forwarding import Forwarding
from autograder.marks import (
    ExerciseMarks,
    Status,
    SubmissionMarks,
    TestMarks,
    added,
    line,
    shares,
    words,
)
from autograder.naming import Namer
from autograder.needs import Code, Unit, needed, units_of
from autograder.plain import bounded
from autograder.references import Replaced, given_classes, handle
from autograder.sandbox.budget import Budget
from autograder.sandbox.client import NoIsolation, Server
from autograder.sandbox.local import LocalProcess
from autograder.student import Student
from autograder.submission import Submission

Observer = Callable[[Test, str, "Student | None"], None]


def given_units(day: Day) -> list[Unit]:
    """What the course gives: imports, constants, and functions that are not exercises.

    A class that a stub's annotations name is an argument of the exercise, and there whether the answer names it or not.
    """
    units = _units(day, "given", given=True)
    stubs = [cell.stub for c in day.chapters for cell in c.cells if cell.role == "exercise"]
    named = {
        n for stub in stubs for unit in units_of([Cell(0, "code", stub)])[0] for n in unit.reads
    }
    return [
        replace(unit, always=True) if unit.binds & named and not unit.imports else unit
        for unit in units
    ]


def reference_units(day: Day) -> list[Unit]:
    """The course's own solution."""
    return _units(day, "exercise", given=False)


def _units(day: Day, role: str, given: bool) -> list[Unit]:
    cells = [
        Cell(cell.number, "code", cell.source)
        for chapter in day.chapters
        for cell in chapter.cells
        if cell.role == role
    ]
    units, problems = units_of(cells, given)
    if problems:
        raise courses.CourseError("; ".join(problems))
    return [unit for unit in units if not _from_the_course(unit)]


def _handle(name: str) -> Unit:
    """Binds the name of a replaced exercise; its handle is there before any code runs."""
    binds = frozenset({name})
    return Unit(
        source=f"# {name}: the reference",
        cell=0,
        line=1,
        given=True,
        reads=frozenset(),
        binds=binds,
        changes=frozenset(),
        always=False,
        surely=binds,
        defines=binds,
    )


def _from_the_course(unit: Unit) -> bool:
    """Imports between chapters, which disappear when they are joined."""
    return unit.source.lstrip().startswith("from solutions.")


def reference(
    day: Day, exercise: Exercise, units: Sequence[Unit], given: Sequence[Unit]
) -> Student:
    """The course's own solution of an exercise, in this process."""
    code = needed(exercise.name, units, given, day.names)
    assert code is not None
    source = joined(code.units)
    student = Student(LocalProcess())
    student.load(m.Load(source.text, list(source.pieces), exercise.name, 0))
    return student


class Grader:
    """Grades submissions of one day, one after the other, with one fork server."""

    def __init__(self, day: Day, server: Server, secret: bytes, seed: str | None = None) -> None:
        torch.set_num_threads(1)
        self.day = day
        self.tests = collect(day)
        self.given = given_units(day)
        self.reference = reference_units(day)
        self.course = courses.fingerprint(day)
        self.server = server
        self.turns = Turns(day.root)
        self._secret = secret
        self._seed = seed
        self._given_classes = given_classes([unit.source for unit in self.given])
        self._replaced: dict[tuple[str, ...], Replaced] = {}
        self.trivial: frozenset[tuple[str, str]] = frozenset()
        self.trivial = trivial.passed(self)
        self.forwarding = Forwarding(self)
        for name, own in self.tests.items():
            if all((name, test.name) in self.trivial for test in own):
                raise courses.CourseError(
                    f"{day.name}: {name} can not earn its points, for an answer that does nothing passes all its tests"
                )

    def grade(
        self, submission: Submission, observe: Observer | None = None, only: str = ""
    ) -> SubmissionMarks:
        """Grade a submission; with `only`, that exercise alone."""
        started = time.monotonic()
        exercises = [e for e in self.day.exercises if only in ("", e.name)]
        seed = self._seed or seed_of(self.day.name, self._secret, submission)
        problems = [*submission.problems, *release.noticed(submission.release, self.day)]
        marks: list[ExerciseMarks] = []
        if submission.readable:
            units, found = units_of(submission.cells)
            problems += found
            for exercise in exercises:
                marked, more = self._exercise(exercise, units, seed, observe)
                marks.append(marked)
                problems += more
            if not only:
                if all(marked.status == "not_attempted" for marked in marks):
                    problems.append(f"no exercise of {self.day.name} is filled in")
                marks = self._each_mistake_once(marks, units, seed, problems)
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed=seed,
            course=self.course,
            isolation=self.server.isolation,
            points=added([e.points for e in marks]),
            max_points=added([e.points for e in exercises]),
            seconds=round(time.monotonic() - started, 3),
            problems=bounded(map(line, problems)),
            exercises=marks,
            handed_in=submission.handed_in,
        )

    def _each_mistake_once(
        self,
        marks: Sequence[ExerciseMarks],
        units: Sequence[Unit],
        seed: str,
        problems: list[str],
    ) -> list[ExerciseMarks]:
        """What is right once an earlier exercise is replaced has no mistake of its own, and replaces nothing."""
        result = {marked.name: marked for marked in marks}
        for exercise in self.day.exercises:
            marked = result[exercise.name]
            if marked.points < marked.max_points and marked.status != "not_attempted":
                lost = {name for name, other in result.items() if other.points < other.max_points}
                try:
                    result[exercise.name] = self._own_mistake(exercise, units, marked, lost, seed)
                except NoIsolation:
                    raise
                except Exception as error:  # what was graded so far stays
                    doing = f"the follow-through and the name of a mistake in {exercise.name}"
                    problems.append(faults.log(self.day.root, doing, error))
        return list(result.values())

    def _own_mistake(
        self,
        exercise: Exercise,
        units: Sequence[Unit],
        first: ExerciseMarks,
        lost: Collection[str],
        seed: str,
    ) -> ExerciseMarks:
        """The marks without what other exercises cost, and the name of the mistake if it is known."""
        marked, code, replaced = follow_through(self, exercise, units, first, lost, seed)
        if marked.status not in ("partial", "failed") or code is None:
            return marked
        failed = [test.name for test in marked.tests if not test.passed]
        source = joined(code.units, self.replaced(replaced))
        return msgspec.structs.replace(marked, mistake=self.namer.name(exercise, source, failed))

    def ungraded(self, submission: Submission, error: Exception) -> SubmissionMarks:
        """The record of a submission that a fault of the autograder kept from being graded."""
        doing = f"grading {submission.path} of {submission.student}"
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed="",
            course=self.course,
            isolation=self.server.isolation,
            points=0.0,
            max_points=added([e.points for e in self.day.exercises]),
            seconds=0.0,
            problems=[line(faults.log(self.day.root, doing, error))],
            exercises=[],
        )

    @cached_property
    def namer(self) -> Namer:
        """Knows the mistakes of the day; made when the first wrong answer comes."""
        return Namer(self)

    def code(
        self, exercise: Exercise, units: Sequence[Unit], replaced: Sequence[str] = ()
    ) -> Code | None:
        """The code that an exercise needs, without that of the exercises that references answer for."""
        given = [*self.given, *(_handle(name) for name in replaced)]
        names = [name for name in self.day.names if name not in replaced]
        return needed(exercise.name, units, given, names)

    def replaced(self, names: Sequence[str]) -> Replaced | None:
        """What is needed for the references of these exercises to be called; None without any."""
        if not names:
            return None
        if (known := self._replaced.get(tuple(names))) is not None:
            return known
        codes = [needed(n, self.reference, self.given, self.day.names) for n in names]
        units = dict.fromkeys(unit for code in codes if code is not None for unit in code.units)
        source = joined(list(units))
        found = self._replaced[tuple(names)] = Replaced(
            handles=tuple(handle(name, source.text) for name in names),
            load=m.Load(source.text, list(source.pieces), names[-1], 1, source.flags),
            given=self._given_classes,
        )
        return found

    def _exercise(
        self, exercise: Exercise, units: Sequence[Unit], seed: str, observe: Observer | None
    ) -> tuple[ExerciseMarks, list[str]]:
        code = self.code(exercise, units)
        if code is None:
            return self._none(exercise, "not_attempted", f"`{exercise.name}` is not defined"), []
        if self._is_stub(exercise, code.units):
            return self._none(exercise, "not_attempted", f"`{exercise.name}` is not filled in"), []
        problems = list(code.problems)
        return self.judge(exercise, code, seed, observe, problems), problems

    def judge(
        self,
        exercise: Exercise,
        code: Code,
        seed: str,
        observe: Observer | None = None,
        problems: list[str] | None = None,
        replaced: Sequence[str] = (),
    ) -> ExerciseMarks:
        """Read the code for what is not allowed, and run its tests, with references for the exercises that are replaced."""
        own = [unit.source for unit in code.units if not unit.given]
        imports = [unit.source for unit in code.units if unit.given and unit.imports]
        used = not_allowed.uses([*imports, *own], exercise.not_allowed)
        if used:
            return self._none(exercise, "not_allowed", refusal(used))
        source = joined(code.units, self.replaced(replaced))
        return self.run(exercise, source, seed, observe, problems)

    def _is_stub(self, exercise: Exercise, units: Sequence[Unit]) -> bool:
        chapter = next(c for c in self.day.chapters if c.name == exercise.chapter)
        stub = chapter.exercise(exercise.name).stub
        return any(
            exercise.name in unit.binds and not unit.given and is_unfilled(unit.source, stub)
            for unit in units
        )

    def _none(self, exercise: Exercise, status: Status, message: str) -> ExerciseMarks:
        tests = self.tests[exercise.name]
        parts = shares(exercise.points, [test.weight for test in tests])
        lost = [
            TestMarks(t.name, 0.0, p, False, words(message), words(message))
            for t, p in zip(tests, parts, strict=True)
        ]
        return ExerciseMarks(
            exercise.name, 0.0, exercise.points, status, words(message), None, [], 0.0, lost
        )

    # ---- running

    def run(
        self,
        exercise: Exercise,
        source: Source,
        seed: str,
        observe: Observer | None = None,
        problems: list[str] | None = None,
        budget: Budget | None = None,
    ) -> ExerciseMarks:
        """Run an exercise's tests on its code, in a process of its own."""
        started = time.monotonic()
        outcomes = self.outcomes(exercise, source, seed, budget, observe, problems)
        replaced = source.replaced.names if source.replaced else ()
        marked = self._marked(exercise, outcomes, replaced)
        return msgspec.structs.replace(marked, seconds=round(time.monotonic() - started, 4))

    def outcomes(
        self,
        exercise: Exercise,
        source: Source,
        seed: str,
        budget: Budget | None = None,
        observe: Observer | None = None,
        problems: list[str] | None = None,
    ) -> list[Outcome]:
        """Run an exercise's tests on its code; what became of each. Problems of loading the code are added to `problems`."""
        attempt = Attempt(self.server, exercise, source, seed, budget, self.turns)
        outcomes: list[Outcome] = []
        for test in self.tests[exercise.name]:
            outcome = attempt.test(test)
            outcomes.append(outcome)
            if observe:
                observe(test, "" if outcome.passed else outcome.message, attempt.student)
        attempt.stop()
        if problems is not None:
            problems += attempt.problems
        return outcomes

    def _marked(
        self, exercise: Exercise, outcomes: Sequence[Outcome], replaced: Sequence[str]
    ) -> ExerciseMarks:
        tests = self.tests[exercise.name]
        refused = next((o for o in outcomes if o.status == "not_allowed"), None)
        if refused:
            return self._none(exercise, "not_allowed", refused.message)
        passed = {t.name for t, outcome in zip(tests, outcomes, strict=True) if outcome.passed}
        passed -= {name for of, name in self.trivial if of == exercise.name}
        for name in replaced if passed else ():
            passed -= self.forwarding.passed(exercise, name)
        earned = bool(passed)
        parts = shares(exercise.points, [test.weight for test in tests])
        marks = [
            TestMarks(
                test.name,
                part if outcome.passed and earned else 0.0,
                part,
                outcome.passed,
                "" if outcome.passed else words(f"{test.sentence} {outcome.message}".strip()),
                "" if outcome.compared else words(outcome.message),
                outcome.values,
            )
            for test, outcome, part in zip(tests, outcomes, parts, strict=True)
        ]
        points = added([mark.points for mark in marks])
        status = _status(outcomes, points)
        first = next((mark.message for mark in marks if not mark.passed), "")
        return ExerciseMarks(
            exercise.name, points, exercise.points, status, first, None, [], 0.0, marks
        )


def seed_of(day: str, secret: bytes, submission: Submission) -> str:
    """HMAC of the secret over the day and the code cells: saving a notebook again changes nothing."""
    code = "\0".join(cell.source for cell in submission.cells if cell.kind == "code")
    digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
    return hmac.digest(secret, day.encode() + b"\0" + digest, "sha256").hex()


def _status(outcomes: Sequence[Outcome], points: float) -> Status:
    for status in ("error", "timed_out", "crashed"):
        if any(outcome.status == status and not outcome.passed for outcome in outcomes):
            return status
    if all(outcome.passed for outcome in outcomes):
        return "passed"
    return "partial" if points else "failed"
