"""Regrade exercises that lost points, so that each mistake costs points only once, and identify known mistakes.

Entry point: `FollowUp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from autograder.course.config import Day, Exercise, older_names
from autograder.execution.attempt import RunSettings
from autograder.execution.collect import Test
from autograder.execution.student import Student
from autograder.grading.exercise_grader import ExerciseGrader
from autograder.grading.substitution import GradedExercise, substitute_references
from autograder.marks.model import Status
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
        self._grader, self._slicer, self._settings, self._problems = (
            grader,
            slicer,
            settings,
            problems,
        )
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
        code = self._wider_code(exercise)
        if code is None or code.state != "written" or code.statements == first.code.statements:
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
        wider = replace(self._grader.grade_slice(exercise, code, settings), wide=True)
        try:
            return self._substitute(exercise, wider, others, settings)
        except SlicingError:
            self._can_widen = False
            return wider

    def _wider_code(self, exercise: Exercise) -> Slice | None:
        """Return all statements that may affect an exercise, or None if slicing fails or no time is left to grade wider code."""
        if not self._can_widen or self._wider_runs.excess is not None:
            return None
        try:
            return self._slicer.slice_again(exercise.name, wide=True)
        except SlicingError:
            self._can_widen = False
            return None

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

        def slice_with(replaced: Sequence[str]) -> Slice:
            return self._slicer.slice_again(exercise.name, replaced, original.wide)

        def grade(code: Slice, replaced: Sequence[str]) -> GradedExercise:
            messages: list[str] = []
            result = self._grader.grade_slice(exercise, code, _record(settings, messages), replaced)
            return replace(
                result, problems=original.problems, wide=original.wide, messages=tuple(messages)
            )

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


def _record(settings: RunSettings, messages: list[str]) -> RunSettings:
    """Return settings that also append each test's message to `messages`, or "" if the test passed."""

    def observe(replaced: Sequence[str], test: Test, message: str, student: Student | None) -> None:
        messages.append(message)
        if settings.observe:
            settings.observe(replaced, test, message, student)

    return replace(settings, observe=observe)


def _lost_points(graded: GradedExercise) -> bool:
    return graded.marks.points < graded.marks.max_points


MAX_CHARACTERS = 12_000  # per exercise


def own_statements(code: Slice, day: Day) -> list[Statement]:
    """Return the student's statements in a slice, excluding other exercises' definitions and the course's code.

    The result has at most `MAX_CHARACTERS` characters. Statements that mention the exercise take precedence.
    """
    older = older_names(day)
    own: list[Statement] = []
    for statement in code.own:
        name = next(definitions(statement.source[:MAX_CHARACTERS]), None)
        defined = older.get(name[1], name[1]) if name else ""
        if defined not in day.names or defined == code.exercise:
            own.append(statement)
    names = {code.exercise, *(old for old, new in older.items() if new == code.exercise)}
    mention = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
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
