"""Regrade exercises that lost points, so that each mistake costs points only once, and identify known mistakes.

An exercise is graded again with reference solutions to the exercises that it calls. Entry point: `FollowUp`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations

import msgspec
from msgspec import structs

from autograder.course.config import Day, Exercise
from autograder.execution.attempt import RunSettings
from autograder.grading.exercise_grader import ExerciseGrader, GradedExercise, seeded
from autograder.marks.model import ExerciseMarks, Status, TestMarks
from autograder.plain_text import sanitize
from autograder.protocol.limits import Allowance, Budget
from autograder.slicing.slicer import Slice, Slicer, SlicingError
from autograder.submissions.cell import definitions
from autograder.submissions.reader_messages import Statement

# If an exercise has one of these statuses, running more statements cannot help.
NOT_WIDENED: Sequence[Status] = ("timed_out", "not_allowed")
# All runs with wider code share this limit, because wider code may contain slow experiments.
WIDER_RUNS = Allowance(cpu_seconds=20, idle_seconds=20)


class FollowUp:
    """Grades the exercises of one submission again. Appends errors to the list `problems`."""

    def __init__(
        self, grader: ExerciseGrader, slicer: Slicer, settings: RunSettings, problems: list[str]
    ) -> None:
        self._grader, self._slicer = grader, slicer
        self._settings, self._problems = settings, problems
        self._wider_runs = Budget(WIDER_RUNS, "submission", settings.budget)
        self._can_widen = True

    def grade_again(self, graded: Sequence[GradedExercise]) -> list[GradedExercise]:
        """Regrade exercises that lost points, and look for known mistakes.

        Exercises are processed in order. Reference solutions replace earlier exercises that lost points. If an exercise
        earns full points when graded again, later exercises use the student's code for it. If points are still missing, the
        exercise is also graded with all statements that may affect it, first without and then with reference solutions.
        """
        result = {first.code.exercise: first for first in graded}
        for exercise in self._grader.day.exercises:
            first = best = result[exercise.name]
            try:
                best = self._substitute(exercise, first, result, self._settings)
            except SlicingError as error:
                self._problems.append(f"exercises could not be graded again: {error}")
            if _lost_points(best) and first.marks.status not in NOT_WIDENED:
                best = self._widen(exercise, first, best, result)
            if _lost_points(first) and best.marks.status != "not_attempted":
                mistake = self._grader.name_mistake(exercise, best, self._settings, self._problems)
                statements = own_statements(best.code, self._grader.day)
                marks = structs.replace(best.marks, mistake=mistake, statements=statements)
                result[exercise.name] = replace(best, marks=marks)
        return list(result.values())

    def _widen(
        self,
        exercise: Exercise,
        first: GradedExercise,
        best: GradedExercise,
        others: Mapping[str, GradedExercise],
    ) -> GradedExercise:
        """Grade an exercise again with all statements that may affect it. Return the better of this result and `best`."""
        if not self._can_widen or self._wider_runs.excess is not None:
            return best
        try:
            code = self._slicer.slice_again(exercise.name, wide=True)
        except SlicingError:
            self._can_widen = False
            return best
        if code.state != "written" or code.statements == first.code.statements:
            return best
        settings = replace(
            self._settings, budget=self._wider_runs, observe=None, has_low_limits=True
        )
        wider = self._grade_wide(exercise, code, others, settings)
        if wider.marks.status == "timed_out" and self._wider_runs.excess is None:
            settings = replace(self._settings, observe=None)  # the tests need more time
            wider = self._grade_wide(exercise, code, others, settings)
        if wider.marks.points <= best.marks.points:
            return best
        if self._settings.observe:
            # Run without a budget, because this only repeats the run that counts, which may have used up the budget.
            observed = replace(settings, budget=None, observe=self._settings.observe)
            observed = seeded(observed, code)  # before references replace other exercises
            replaced = wider.marks.reference_for
            code = self._slicer.slice_again(exercise.name, replaced, wide=True)
            self._grader.grade_slice(exercise, code, observed, replaced)
        return wider

    def _grade_wide(
        self,
        exercise: Exercise,
        code: Slice,
        others: Mapping[str, GradedExercise],
        settings: RunSettings,
    ) -> GradedExercise:
        wider = replace(self._grader.grade_slice(exercise, code, seeded(settings, code)), wide=True)
        try:
            return self._substitute(exercise, wider, others, settings)
        except SlicingError:
            self._can_widen = False
            return wider

    def _substitute(
        self,
        exercise: Exercise,
        original: GradedExercise,
        others: Mapping[str, GradedExercise],
        settings: RunSettings,
    ) -> GradedExercise:
        """Regrade an exercise, using reference solutions for earlier exercises that lost points. Return the best result."""
        if not _lost_points(original) or original.marks.status == "not_attempted":
            return original

        # References keep the inputs.
        own = seeded(settings, original.code)

        def slice_with(replaced: Sequence[str]) -> Slice:
            return self._slicer.slice_again(exercise.name, replaced, original.wide)

        def grade(code: Slice, replaced: Sequence[str]) -> GradedExercise:
            result = self._grader.grade_slice(exercise, code, own, replaced)
            return replace(result, problems=original.problems, wide=original.wide)

        earlier = self._grader.day.names[: self._grader.day.names.index(exercise.name)]
        lost = [name for name in earlier if _lost_points(others[name])]
        dependent = [
            name
            for name in earlier
            if name not in lost
            and not {*lost}.isdisjoint({*others[name].code.reached} - {*others[name].replaced})
        ]
        unfilled = [name for name in lost if others[name].marks.status == "not_attempted"]
        sentences = {test.name: test.sentence for test in self._grader.key.tests[exercise.name]}
        return substitute_references(
            original, lost, dependent, unfilled, sentences, slice_with, grade
        )


def _lost_points(graded: GradedExercise) -> bool:
    return graded.marks.points < graded.marks.max_points


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
    # A known mistake may be recognised only where no other wrong code hides it.
    alike = [result for result in trials.values() if _passed(result) == _passed(best)]
    isolated = min([best, *alike], key=lambda result: len(_own(result, order)))
    if best is original:
        return replace(isolated, marks=original.marks)
    return replace(isolated, marks=_with_own_messages(original, first, best, sentences, unfilled))


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


def _own(graded: GradedExercise, names: Collection[str]) -> set[str]:
    """Return which of these exercises' own code is part of the graded code."""
    return {*graded.code.reached}.intersection(names).difference(graded.replaced)


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


MAX_CHARACTERS = 12_000  # per exercise


def own_statements(code: Slice, day: Day) -> list[Statement]:
    """Return the student's statements in a slice, excluding other exercises' definitions and the course's code.

    The result has at most `MAX_CHARACTERS` characters. Statements that mention the exercise take precedence.
    """
    own: list[Statement] = []
    for statement in code.own:
        found = next(definitions(statement.source[:MAX_CHARACTERS]), None)
        if not found or found[1] not in {*day.names} - {code.exercise}:
            own.append(statement)
    mention = re.compile(rf"\b{re.escape(code.exercise)}\b")
    kept: set[int] = set()
    left = MAX_CHARACTERS
    for number in sorted(range(len(own)), key=lambda n: not mention.search(own[n].source)):
        if len(own[number].source) <= left:
            left -= len(own[number].source)
            kept.add(number)
    return [_printable(statement) for number, statement in enumerate(own) if number in kept]


def _printable(statement: Statement) -> Statement:
    lines = [sanitize(line.expandtabs(4)) for line in statement.source.split("\n")]
    return Statement("\n".join(lines), statement.cell, statement.line)
