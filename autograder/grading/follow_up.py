"""Regrade the exercises of a submission that lost points, so that each mistake costs points once and has a name if possible.

Entry point: `FollowUp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from autograder.course.config import Exercise
from autograder.grading.exercise_grader import ExerciseGrader
from autograder.grading.own_code import own_statements
from autograder.grading.runner import Job
from autograder.grading.substitution import Graded, substitute_references
from autograder.marks.model import Status
from autograder.slicing.client import Slicer

# More statements cannot help an exercise with these statuses.
NOT_WIDENED: Sequence[Status] = ("timed_out", "not_allowed")


@dataclass(frozen=True)
class FollowUp:
    """Regrades exercises of one submission. Adds internal errors to `problems`."""

    grader: ExerciseGrader
    slicer: Slicer
    job: Job
    problems: list[str]

    def regrade(self, graded: Sequence[Graded]) -> list[Graded]:
        """Regrade exercises that lost points, replacing earlier ones with reference solutions, and look for known mistakes.

        Exercises are processed in order. If an exercise earns full points when regraded, later exercises use the
        student's code for it.
        """
        result = {first.code.exercise: first for first in graded}
        for exercise in self.grader.day.exercises:
            first = result[exercise.name]
            if first.marks.points == first.marks.max_points:
                continue
            original = self._with_wider_code(exercise, first)
            if original.marks.status != "not_attempted":
                best = self._substituted(exercise, original, result)
                mistake = self.grader.name_mistake(exercise, best, self.job, self.problems)
                statements = own_statements(best.code, self.grader.day)
                marks = structs.replace(best.marks, mistake=mistake, statements=statements)
                result[exercise.name] = replace(best, marks=marks)
        return list(result.values())

    def _with_wider_code(self, exercise: Exercise, first: Graded) -> Graded:
        """Regrade an exercise with all statements that may affect it. Return the better result."""
        if first.marks.status in NOT_WIDENED:
            return first
        code = self.slicer.slice_again(exercise.name, wide=True)
        if code.state != "written" or code.pieces == first.code.pieces:
            return first
        wider = self.grader.grade_slice(exercise, code, replace(self.job, observe=None))
        if wider.marks.points <= first.marks.points:
            return first
        if self.job.observe:
            self.grader.grade_slice(exercise, code, self.job)
        return replace(wider, wide=True)

    def _substituted(
        self, exercise: Exercise, original: Graded, others: Mapping[str, Graded]
    ) -> Graded:
        """Regrade an exercise, replacing earlier ones that lost points with reference solutions. Return the best result."""
        if not _lost_points(original):
            return original

        def grade_with(replaced: tuple[str, ...]) -> Graded:
            code = self.slicer.slice_again(exercise.name, replaced, original.wide)
            result = self.grader.grade_slice(exercise, code, self.job, replaced)
            return replace(result, problems=original.problems, wide=original.wide)

        earlier = self.grader.day.names[: self.grader.day.names.index(exercise.name)]
        lost = [name for name in earlier if _lost_points(others[name])]
        dependent = [
            name
            for name in earlier
            if name not in lost
            and not others[name].replaced
            and not set(others[name].code.reached).isdisjoint(lost)
        ]
        sentences = {test.name: test.sentence for test in self.grader.key.tests[exercise.name]}
        return substitute_references(original, lost, dependent, grade_with, sentences)


def _lost_points(graded: Graded) -> bool:
    return graded.marks.points < graded.marks.max_points
