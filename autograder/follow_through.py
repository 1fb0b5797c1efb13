"""A mistake costs points once: an exercise that calls one that lost points is graded again with the reference in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from autograder.course import Exercise
from autograder.marks import ExerciseMarks
from autograder.needs import Code, Unit

if TYPE_CHECKING:
    from autograder.grading import Grader


def follow_through(
    grader: Grader,
    exercise: Exercise,
    units: Sequence[Unit],
    first: ExerciseMarks,
    lost: Collection[str],
    seed: str,
) -> tuple[ExerciseMarks, Code | None, tuple[str, ...]]:
    """Grade an exercise again with references for what lost points; return the better marks, their code and what was replaced.

    Only exercises that come earlier in the course, and that the code reaches, are replaced. All together come first, since one
    mistake may hide another. Where that helps nothing, or a test that passed fails, the answer may be made for what the student's
    own code does. Then they are replaced one after the other, in the order of the course, and a replacement stays unless the
    result is worse. After a timeout nothing is tried one by one. The code returned is the one whose mistake, if it has one, is
    the exercise's own.
    """
    earlier = grader.day.names[: grader.day.names.index(exercise.name)]
    best, counts = first, grader.code(exercise, units)
    replaced: tuple[str, ...] = ()
    timed_out = first.status == "timed_out"

    def replaceable() -> list[str]:
        reached = counts.names if counts is not None else frozenset()
        return [n for n in earlier if n in reached and n in lost and n not in replaced]

    def replace(names: Sequence[str], good: Callable[[ExerciseMarks], bool]) -> bool:
        """Keep these replacements if what comes of them is good."""
        nonlocal best, counts, replaced, timed_out
        together = tuple(n for n in earlier if n in names or n in replaced)
        trial = grader.code(exercise, units, together)
        assert trial is not None
        marks = grader.judge(exercise, trial, seed, replaced=together)
        timed_out = timed_out or marks.status == "timed_out"
        if not good(marks):
            return False
        best, counts, replaced = marks, trial, together
        return True

    names = replaceable()
    if names and not replace(names, lambda marks: _only_better(first, marks)):
        for name in names:
            if best.points < best.max_points and name in replaceable() and not timed_out:
                replace([name], lambda marks: marks.points >= best.points)
    return (_told(grader, first, best, replaced) if replaced else first), counts, replaced


def _only_better(before: ExerciseMarks, now: ExerciseMarks) -> bool:
    """Whether each test that passed passes still, and another one too."""
    pairs = zip(before.tests, now.tests, strict=True)
    return now.points > before.points and all(new.passed or not old.passed for old, new in pairs)


def _told(
    grader: Grader, first: ExerciseMarks, best: ExerciseMarks, replaced: Sequence[str]
) -> ExerciseMarks:
    """The better marks, with messages of the first run only: a message of the second could show what a reference returned."""
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
        reference_for=list(replaced),
        seconds=round(first.seconds + best.seconds, 4),
    )
