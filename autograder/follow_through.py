"""A mistake costs once: an exercise that calls another one that lost points is graded again with the reference in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from autograder.attempt import joined
from autograder.cells import Cell
from autograder.course import Exercise
from autograder.marks import ExerciseMarks
from autograder.needs import Code, Unit, needed, units_of

if TYPE_CHECKING:
    from autograder.grading import Grader

# The reference runs in a namespace of its own, so that it calls no function of the student's.
AS_GIVEN = """\
{name} = (lambda space: (exec({source!r}, space), space)[1])({{"__name__": "reference"}})[{name!r}]
"""


def follow_through(
    grader: Grader,
    exercise: Exercise,
    units: Sequence[Unit],
    first: ExerciseMarks,
    lost: Collection[str],
    seed: str,
) -> tuple[ExerciseMarks, Code | None]:
    """The marks of an exercise with references that make it better, or at least no worse, or else `first`; the code.

    Replaced are those of the exercises among `lost` that its code reaches: all together, as a mistake may hide another. Where
    that helps nothing, or a test that held is lost, the answer may be made for what the student's own code does. Then it is one
    after the other, in the order of the course, and a replacement stays unless the result is worse. The code is that with what
    stayed, in which the mistake, if one is left, is the exercise's own.
    """
    given, own, best = list(grader.given), list(grader.day.names), first
    counts = needed(exercise.name, units, given, own)
    replaced: list[str] = []

    def replaceable() -> list[str]:
        reached = _reached(counts, own) if counts is not None else set()
        return [n for n in own if n in reached and n in lost and n != exercise.name]

    def replace(names: Sequence[str], good: Callable[[ExerciseMarks], bool]) -> bool:
        """Keep these replacements if what comes of them is good."""
        nonlocal given, own, best, counts
        more = [*given, *(unit for n in names for unit in reference_as_given(grader, n))]
        rest = [n for n in own if n not in names]
        trial = needed(exercise.name, units, more, rest)
        assert trial is not None
        marks = grader.judge(exercise, trial, seed)
        if not good(marks):
            return False
        given, own, best, counts = more, rest, marks, trial
        replaced.extend(names)
        return True

    names = replaceable()
    if names and not replace(names, lambda marks: _only_better(first, marks)):
        for name in names:
            if best.points < best.max_points and name in replaceable():
                replace([name], lambda marks: marks.points >= best.points)
    return (_told(grader, first, best, replaced) if replaced else first), counts


def _only_better(before: ExerciseMarks, now: ExerciseMarks) -> bool:
    """Whether each test that passed passes still, and another one too."""
    pairs = zip(before.tests, now.tests, strict=True)
    return now.points > before.points and all(new.passed or not old.passed for old, new in pairs)


def _reached(code: Code, exercises: Collection[str]) -> set[str]:
    """The exercises that the code calls, those included that are not there."""
    return set(code.reached) | {n for u in code.units for n in u.reads if n in exercises}


def reference_as_given(grader: Grader, name: str) -> list[Unit]:
    """The reference of an exercise as a unit that the course gives."""
    code = needed(name, grader.reference, grader.given, grader.day.names)
    assert code is not None
    source = AS_GIVEN.format(name=name, source=joined(code.units).text)
    return units_of([Cell(0, "code", source)], given=True)[0]


def _told(
    grader: Grader, first: ExerciseMarks, best: ExerciseMarks, replaced: list[str]
) -> ExerciseMarks:
    """The better marks; of a run that held reference code only what passed is told."""
    sentences = {test.name: test.sentence for test in grader.tests[first.name]}
    tests = [
        msgspec.structs.replace(
            now,
            message="" if now.passed else before.message or sentences[now.name],
            told="" if now.passed else before.told,
            values=None if now.passed else before.values,
        )
        for before, now in zip(first.tests, best.tests, strict=True)
    ]
    message = next((test.message for test in tests if not test.passed), "")
    return msgspec.structs.replace(
        best,
        tests=tests,
        message=message,
        reference_for=replaced,
        seconds=round(first.seconds + best.seconds, 4),
    )
