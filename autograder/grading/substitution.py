"""A mistake costs points once: an exercise that calls one that lost points is graded again with the reference in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from autograder.marks.model import ExerciseMarks
from autograder.slicing.client import Slice, Slicer

Judge = Callable[[Slice, Sequence[str]], ExerciseMarks]


def follow_through(
    slicer: Slicer,
    first: ExerciseMarks,
    lost: Sequence[str],
    judge: Judge,
    sentences: Mapping[str, str],
) -> tuple[ExerciseMarks, Slice]:
    """Grade an exercise again with references for what lost points; return the better marks and the code that they are of.

    `lost` are the exercises before it that lost points, in the order of the course. Those of them that the code reaches are
    replaced. All together come first, since one mistake may hide another. Where that helps nothing, or a test that passed
    fails, the answer may be made for what the student's own code does. Then they are replaced one after the other, and a
    replacement stays unless the result is worse. After a timeout nothing is tried one by one. If the code returned has a
    mistake, it is the exercise's own.

    Args:
        judge: grades code in which these exercises are replaced.
        sentences: what each test says when it fails.
    """
    best, counts = first, slicer.slice_all().slices[first.name]
    replaced: tuple[str, ...] = ()
    timed_out = first.status == "timed_out"

    def replaceable() -> list[str]:
        return [name for name in lost if name in counts.reached and name not in replaced]

    def substitute(names: Sequence[str], good: Callable[[ExerciseMarks], bool]) -> bool:
        """Keep these replacements if what comes of them is good."""
        nonlocal best, counts, replaced, timed_out
        together = tuple(name for name in lost if name in names or name in replaced)
        trial = slicer.slice_with_references(first.name, together)
        marks = judge(trial, together)
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
    return (_told(first, best, replaced, sentences) if replaced else first), counts


def _only_better(before: ExerciseMarks, now: ExerciseMarks) -> bool:
    """Whether each test that passed passes still, and another one too."""
    pairs = zip(before.tests, now.tests, strict=True)
    return now.points > before.points and all(new.passed or not old.passed for old, new in pairs)


def _told(
    first: ExerciseMarks,
    best: ExerciseMarks,
    replaced: Sequence[str],
    sentences: Mapping[str, str],
) -> ExerciseMarks:
    """The better marks, with messages of the first run only: a message of the second could show what a reference returned."""
    tests = [
        msgspec.structs.replace(
            now,
            message="" if now.passed else before.message or sentences[now.name],
            message_without_values="" if now.passed else before.message_without_values,
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
