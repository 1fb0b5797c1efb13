"""Grade an exercise again with reference solutions to the exercises that it calls, so a mistake costs points only once.

Entry point: `substitute_references`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from autograder.marks.model import ExerciseMarks, TestMarks
from autograder.plain_text import sanitize
from autograder.slicing.slicer import Slice


@dataclass(frozen=True)
class GradedExercise:
    """An exercise's marks, the graded code, and the exercises replaced with reference solutions.

    `problems` lists errors that occurred while finding and loading the student's own code. `wide` is true if the code
    contains all statements that may affect the exercise. If exercises were replaced, `messages` contains a message for each
    test. These messages may reveal what the reference solutions return, so they must not be shown to students.
    """

    marks: ExerciseMarks
    code: Slice
    problems: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    wide: bool = False
    messages: tuple[str, ...] = ()


STUB_ERROR = re.compile(r"\b(?:raised|got:) (?:NotImplementedError: `|NameError: name ')(\w+)")
GradeWith = Callable[[tuple[str, ...]], GradedExercise]


def substitute_references(
    original: GradedExercise,
    lost: Sequence[str],
    dependent: Sequence[str],
    grade_with: GradeWith,
    sentences: Mapping[str, str],
    unfilled: Collection[str],
) -> GradedExercise:
    """Grade an exercise again with reference solutions to the exercises that lost points, and return the better result.

    First, all of these exercises are replaced at once, because one mistake can hide another. If that gains no points or
    breaks a passing test, the code may depend on what the student's own exercises return. The exercises are then
    replaced one by one. If points are still missing, the dependent exercises are replaced as well. If replacing exercises
    changes no test's result, their mistakes do not affect this exercise, and the original result is returned.

    Args:
        original: The exercise as the student wrote it.
        lost: Earlier exercises that lost points, in course order.
        dependent: Earlier exercises that are correct only with the student's own versions of exercises in `lost`.
        grade_with: A function that grades the exercise, using reference solutions to the given exercises.
        sentences: Maps each test's name to the sentence that students see if the test fails.
        unfilled: The exercises in `lost` that the student did not attempt.
    """
    trials: dict[tuple[str, ...], GradedExercise] = {}

    def trial(names: Collection[str]) -> GradedExercise:
        replaced = tuple(name for name in (*lost, *dependent) if name in names)
        if replaced not in trials:
            trials[replaced] = grade_with(replaced)
        return trials[replaced]

    called = [name for name in lost if name in original.code.reached]
    if not called:
        return original
    best = together = trial(called)
    if not _is_pure_gain(original.marks, together.marks):
        timed_out = "timed_out" in (original.marks.status, together.marks.status)
        best = original if timed_out else _one_by_one(original, called, trial)
    if best.marks.points < best.marks.max_points and best.marks.status != "timed_out":
        further = [name for name in dependent if name in original.code.reached]
        result = trial({*(best.replaced or called), *further}) if further else best
        if result.marks.points > best.marks.points:
            best = result
    if not best.replaced:
        return original
    if _same_results(original, best, sentences):
        # The references change nothing that students see, but a known mistake may be recognised only with them.
        return replace(best, marks=original.marks)
    return replace(best, marks=_with_original_messages(original, best, sentences, unfilled))


def _one_by_one(
    original: GradedExercise,
    names: Sequence[str],
    trial: Callable[[Collection[str]], GradedExercise],
) -> GradedExercise:
    """Replace exercises one at a time. Keep a replacement unless it loses points. Stop at full points or after a timeout."""
    best = original
    for name in names:
        if best.marks.points >= best.marks.max_points:
            break
        if name not in best.code.reached:
            continue
        result = trial({*best.replaced, name})
        if result.marks.points >= best.marks.points:
            best = result
        if result.marks.status == "timed_out":
            break
    return best


def _is_pure_gain(before: ExerciseMarks, after: ExerciseMarks) -> bool:
    """Return whether the points increased and every test that passed before still passes."""
    pairs = zip(before.tests, after.tests, strict=True)
    return after.points > before.points and all(new.passed or not old.passed for old, new in pairs)


def _same_results(
    original: GradedExercise, best: GradedExercise, sentences: Mapping[str, str]
) -> bool:
    """Return whether every test has the same result and message in both runs.

    Messages are compared because they include examples of wrong values. Locations in messages are ignored, because an
    exception inside a reference solution is attributed to the line that called it.
    """
    before = [_without_place(test.message) for test in original.marks.tests]
    after = [
        "" if test.passed else _without_place(sanitize(f"{sentences[test.name]} {text}".strip()))
        for test, text in zip(best.marks.tests, best.messages, strict=False)
    ]
    return before == after


def _without_place(message: str) -> str:
    return message.rpartition(" (cell ")[0] or message


def _with_original_messages(
    original: GradedExercise,
    best: GradedExercise,
    sentences: Mapping[str, str],
    unfilled: Collection[str],
) -> ExerciseMarks:
    """Return the better run's marks with the original run's messages, which show what the student's own code does.

    If the better run raised an exception at a different place, its type and place are added to the message. A message
    about an error caused by an exercise in `unfilled` is replaced by the better run's message or the test's sentence.
    """
    wrong = " and ".join(f"`{name}`" for name in best.replaced if name not in unfilled)
    tests = []
    for old, new in zip(original.marks.tests, best.marks.tests, strict=True):
        shown = old
        if _is_from_stub(old.message, unfilled):
            shown = TestMarks(new.name, 0.0, 0.0, False, "") if wrong else new
        place = new.message_without_values.partition(" (")[2]
        if wrong and place and place not in shown.message:
            also = f"with the course's own {wrong} instead, {new.message_without_values}"
            shown = _with_addition(shown, also, sentences[new.name])
        tests.append(
            msgspec.structs.replace(
                new,
                message="" if new.passed else shown.message or sentences[new.name],
                message_without_values="" if new.passed else shown.message_without_values,
                values=None if new.passed else shown.values,
            )
        )
    return msgspec.structs.replace(
        best.marks,
        tests=tests,
        message=next((test.message for test in tests if not test.passed), ""),
        reference_for=list(best.replaced),
        seconds=round(original.marks.seconds + best.marks.seconds, 4),
    )


def _with_addition(test: TestMarks, text: str, sentence: str) -> TestMarks:
    """Return the marks for a test, with `text` appended to each message that is neither empty nor just the test's sentence."""
    message, without_values = (
        own if own in ("", sentence) else f"{own}; {text}"
        for own in (test.message, test.message_without_values)
    )
    return msgspec.structs.replace(test, message=message, message_without_values=without_values)


def _is_from_stub(message: str, unfilled: Collection[str]) -> bool:
    """Return whether a message is about an exception raised because one of these exercises is a stub or undefined."""
    found = STUB_ERROR.search(message)
    return found is not None and found[1] in unfilled
