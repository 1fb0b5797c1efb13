"""A mistake costs points once: an exercise that calls one that lost points is graded again with the reference in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from autograder.attempt import Source
from autograder.course import Exercise
from autograder.marks import ExerciseMarks
from autograder.slicer import Slicer

if TYPE_CHECKING:
    from autograder.grading import Grader, Job


def follow_through(
    grader: Grader,
    exercise: Exercise,
    slicer: Slicer,
    first: ExerciseMarks,
    lost: Collection[str],
    job: Job,
) -> tuple[ExerciseMarks, Source]:
    """Grade an exercise again with references for what lost points; return the better marks and the code that they are of.

    Only exercises that come earlier in the course, and that the code reaches, are replaced. All together come first, since one
    mistake may hide another. Where that helps nothing, or a test that passed fails, the answer may be made for what the student's
    own code does. Then they are replaced one after the other, in the order of the course, and a replacement stays unless the
    result is worse. After a timeout nothing is tried one by one. If the code returned has a mistake, it is the exercise's own.
    """
    job = replace(job, observe=None)  # what is explained is the first run
    earlier = grader.day.names[: grader.day.names.index(exercise.name)]
    best, counts = first, slicer.notebook().slices[exercise.name]
    replaced: tuple[str, ...] = ()
    timed_out = first.status == "timed_out"

    def replaceable() -> list[str]:
        return [n for n in earlier if n in counts.reached and n in lost and n not in replaced]

    def substitute(names: Sequence[str], good: Callable[[ExerciseMarks], bool]) -> bool:
        """Keep these replacements if what comes of them is good."""
        nonlocal best, counts, replaced, timed_out
        together = tuple(n for n in earlier if n in names or n in replaced)
        trial = slicer.again(exercise.name, together)
        marks = grader.judge(exercise, trial, job, replaced=together)
        timed_out = timed_out or marks.status == "timed_out"
        if not good(marks):
            return False
        best, counts, replaced = marks, trial, together
        return True

    names = replaceable()
    if names and not substitute(names, lambda marks: _only_better(first, marks)):
        for name in names:
            if best.points < best.max_points and name in replaceable() and not timed_out:
                substitute([name], lambda marks: marks.points >= best.points)
    marks = _told(grader, first, best, replaced) if replaced else first
    return marks, grader.source(counts, replaced)


def _only_better(before: ExerciseMarks, now: ExerciseMarks) -> bool:
    """Whether each test that passed passes still, and another one too."""
    pairs = zip(before.tests, now.tests, strict=True)
    return now.points > before.points and all(new.passed or not old.passed for old, new in pairs)


def _told(
    grader: Grader, first: ExerciseMarks, best: ExerciseMarks, replaced: Sequence[str]
) -> ExerciseMarks:
    """The better marks, with messages of the first run only: a message of the second could show what a reference returned."""
    sentences = {test.name: test.sentence for test in grader.key.tests[first.name]}
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
