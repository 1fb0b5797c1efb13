"""Grade an exercise again with reference solutions to the exercises that it calls, so a mistake costs points only once.

Entry point: `substitute_references`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

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


STUB_ERROR = re.compile(r"\b(?:raised|got:) (?:NotImplementedError: `?|NameError: name ')(\w+)")
MAX_RUNS = 16  # maximum number of runs of an exercise, including the first one
MAX_WIDE_RUNS = 4  # the same for code that contains all statements that may affect the exercise
MAX_CHOICES = 100  # maximum number of choices; many of them may select the same code
SliceWith = Callable[[tuple[str, ...]], Slice]
Grade = Callable[[Slice, tuple[str, ...]], GradedExercise]


def substitute_references(
    original: GradedExercise,
    lost: Sequence[str],
    dependent: Sequence[str],
    unfilled: Collection[str],
    sentences: Mapping[str, str],
    slice_with: SliceWith,
    grade: Grade,
) -> GradedExercise:
    """Grade an exercise again with reference solutions to exercises that it calls, and return the best result.

    Exercises that the student did not attempt are always replaced. Of the others, the search replaces all, none, one, all
    but one and so on, because an exercise may depend on what the student's own version of another one does. It stops at
    full points. Of results with equal points, the one with the fewest replacements counts. If replacements change no
    test's result, the original marks are returned.

    Args:
        original: The exercise as the student wrote it.
        lost: Earlier exercises that lost points, in course order.
        dependent: Earlier exercises that are correct only with the student's own versions of exercises in `lost`.
        unfilled: The exercises in `lost` that the student did not attempt.
        sentences: Maps each test's name to the sentence that students see if the test fails.
        slice_with: A function that returns the exercise's code with reference solutions to the given exercises.
        grade: A function that grades this code.
    """
    reached = original.code.reached
    empty, wrong, further = (
        [name for name in names if name in reached]
        for names in (unfilled, [name for name in lost if name not in unfilled], dependent)
    )
    if not empty and not wrong:
        return original
    order = [*lost, *dependent]
    trials: dict[tuple[str, ...], GradedExercise] = {} if empty else {(): original}

    def trial(names: Collection[str]) -> GradedExercise | None:
        """Return the result with references to the given exercises, or None if it is already known."""
        code = slice_with(tuple(name for name in order if name in names))
        # The code may no longer read an exercise that only a replaced one calls.
        replaced = tuple(name for name in order if name in names and name in code.reached)
        if replaced in trials:
            return None
        trials[replaced] = grade(code, replaced)
        return trials[replaced]

    first = trial(empty) or original
    _search(first, empty, wrong, further, trial)
    points = max(result.marks.points for result in trials.values())
    equal = [result for result in trials.values() if result.marks.points == points]
    best = min(equal, key=lambda result: len(result.replaced))
    if best is first and len(equal) > 1:
        best = equal[1]  # the student learns that the exercise fails even with references
    for simpler in (first, original):
        same = _results(simpler, sentences) == _results(best, sentences)
        if simpler.marks.points > points or same:
            best = simpler
    # A known mistake may be recognised only with more references than those that change the result.
    alike = [result for result in trials.values() if _passed(result) == _passed(best)]
    widest = max([best, *alike], key=lambda result: len(result.replaced))
    if best is original:
        return replace(widest, marks=original.marks)
    return replace(widest, marks=_with_own_messages(original, first, best, sentences, unfilled))


def _search(
    first: GradedExercise,
    empty: Sequence[str],
    wrong: Sequence[str],
    further: Sequence[str],
    trial: Callable[[Collection[str]], GradedExercise | None],
) -> None:
    """Try replacing different exercises in addition to those in `empty`, until a result has full points.

    The first choices are all exercises in `wrong`, without and with those in `further`, all but one, and each one. They find
    an exercise that needs the student's own version of one other, or a reference to one other. Each later choice differs
    from the best of these by a set that `_changes` yields.
    """
    best, runs = first, 1 + bool(empty)
    limit = MAX_WIDE_RUNS if first.wide else MAX_RUNS
    choices = {frozenset(first.replaced), frozenset({*empty, *further})}
    all_but_one = combinations(wrong, max(1, len(wrong) - 1))
    usual = chain([tuple(wrong), (*wrong, *further)], all_but_one, combinations(wrong, 1))
    for changes in (usual, _changes(wrong, further)):
        base = best
        for changed in changes:
            if _is_full(best) or runs == limit or len(choices) == MAX_CHOICES:
                return
            names = frozenset({*empty, *({*base.replaced} ^ {*changed})})
            if names in choices:
                continue
            choices.add(names)
            result = trial(names)
            if result is None:
                continue
            runs += 1
            if result.marks.status == "timed_out":
                return
            if result.marks.points > best.marks.points:
                best = result


def _changes(wrong: Sequence[str], further: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield subsets of `wrong`: each one, all but one, each two and so on, all; first without and then with `further`."""
    count = len(wrong)
    for more in ((), further):
        for size in range(1, count // 2 + 1):
            for names in (*combinations(wrong, size), *combinations(wrong, count - size)):
                yield (*names, *more)
        yield (*wrong, *more)


def _is_full(graded: GradedExercise) -> bool:
    return graded.marks.points >= graded.marks.max_points


def _passed(graded: GradedExercise) -> list[bool]:
    return [test.passed for test in graded.marks.tests]


def _results(graded: GradedExercise, sentences: Mapping[str, str]) -> list[str]:
    """Return each test's message, which contains examples of wrong values, or "" if the test passed.

    Locations are removed, because an exception inside a reference solution is attributed to the line that called it.
    """
    tests = graded.marks.tests
    if not graded.replaced:
        return [_without_place(test.message) for test in tests]
    return [
        "" if test.passed else _without_place(sanitize(f"{sentences[test.name]} {text}".strip()))
        for test, text in zip(tests, graded.messages, strict=False)
    ]


def _without_place(message: str) -> str:
    return message.rpartition(" (cell ")[0] or message


def _with_own_messages(
    original: GradedExercise,
    first: GradedExercise,
    best: GradedExercise,
    sentences: Mapping[str, str],
    unfilled: Collection[str],
) -> ExerciseMarks:
    """Return the best run's marks with messages that show what the student's own code does.

    They come from the original run or, if an exercise in `unfilled` caused the failure, from the first run with references
    to these exercises only. If the best run failed in a different way, this is added.
    """
    wrong = " and ".join(f"`{name}`" for name in best.replaced if name not in unfilled)
    tests = []
    for old, own, new in zip(
        original.marks.tests, first.marks.tests, best.marks.tests, strict=True
    ):
        shown = own if _is_from_stub(old.message, unfilled) else old
        if wrong:
            shown = _with_addition(
                shown, new, f"with the course's own {wrong} instead, ", sentences
            )
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


def _with_addition(
    shown: TestMarks, new: TestMarks, when: str, sentences: Mapping[str, str]
) -> TestMarks:
    """Return the marks for a test with the messages of `new` added, unless they say nothing or the same."""
    sentence = sentences[new.name]
    texts = {
        "message": new.message.removeprefix(sentence).strip(),
        "message_without_values": new.message_without_values,
    }
    added = {}
    for field, text in texts.items():
        own = getattr(shown, field)
        place = text.partition(" (cell ")[2] or text
        if text and place not in own and own not in ("", sentence):
            added[field] = f"{own}; {when}{text}"
    return msgspec.structs.replace(shown, **added)


def _is_from_stub(message: str, unfilled: Collection[str]) -> bool:
    """Return whether a message is about an exception raised because one of these exercises is a stub or undefined."""
    found = STUB_ERROR.search(message)
    return found is not None and found[1] in unfilled
