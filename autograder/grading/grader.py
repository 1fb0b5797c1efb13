"""Grade one submission: select each exercise's code, run its tests in the sandbox, and convert the outcomes to marks.

Entry point: `Grader`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

import msgspec
import torch

from autograder.course import release_stamp
from autograder.course.config import CourseError, Day, Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Outcome, not_allowed_message
from autograder.execution.source import Source, join_units
from autograder.grading import internal_errors, trivial_answers
from autograder.grading.forwarding import Forwarding
from autograder.grading.own_code import own_statements
from autograder.grading.runner import Job, Observer, Runner
from autograder.grading.scoring import no_points, score
from autograder.grading.seeds import seed_of
from autograder.grading.substitution import Graded, substitute_references
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    SubmissionMarks,
    exact_sum,
    one_line,
    total_points,
)
from autograder.protocol.limits import Budget
from autograder.protocol.plain_text import bounded
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox.client import Server
from autograder.sandbox.concrete_shapes import assume_concrete_shapes
from autograder.slicing import client as slicing
from autograder.slicing.client import NotebookSlices, Slice, Slicer, SlicingError
from autograder.submissions.code_hash import hash_code
from autograder.submissions.submission import Submission

# More statements cannot help an exercise with these statuses.
NOT_WIDENED: Sequence[Status] = ("timed_out", "not_allowed")


class Grader:
    """Grades submissions for one day, one at a time, with one fork server."""

    def __init__(self, day: Day, server: Server, secret: bytes = b"") -> None:
        torch.set_num_threads(1)
        assume_concrete_shapes()
        self.day = day
        # The server prepares for slicing while this process reads the answer key.
        self._slicing = slicing.prepare(server, day)
        self.key = AnswerKey.read(day)
        self.runner = Runner(self.key, server)
        self._secret = secret
        self.trivial_passes = trivial_answers.passed_tests(self.runner)
        self._forwarding = Forwarding(self.runner)
        for name, tests in self.key.tests.items():
            if all(self.trivial_passes[name].get(test.name) == "value" for test in tests):
                raise CourseError(
                    f"{day.name}: no submission can earn points for {name}, because a trivial answer passes all "
                    "of that exercise's tests. Add a test that fails for None, 0, 1, NaN, an empty value and the first argument. "
                    "For example, call the function twice and expect different results."
                )

    def grade(
        self,
        submission: Submission,
        observe: Observer | None = None,
        only: str = "",
        seed: str | None = None,
    ) -> SubmissionMarks:
        """Grade a submission, or only one of its exercises.

        Args:
            observe: A function to call after each test in each run of each exercise.
            only: The name of the exercise to grade, or "" for all exercises.
            seed: The seed for the inputs. By default, it is derived from the secret and the submission.

        Raises:
            NoIsolation: The sandbox cannot be set up on this machine.
            ServerLost: The fork server died several times in a row.
        """
        started = time.monotonic()
        exercises = [e for e in self.day.exercises if only in ("", e.name)]
        seed = seed or seed_of(self.day.name, self._secret, submission)
        stamp_problems = release_stamp.stamp_problems(submission.release, self.day)
        problems = [*submission.problems, *stamp_problems]
        marks: list[ExerciseMarks] = []
        code = ""
        if submission.readable:
            job = Job(seed, Budget(self.day.budget, "submission"), observe)
            with Slicer(self.server, self._slicing, submission.cells) as slicer:
                try:
                    marks = self._grade_exercises(slicer, exercises, job, problems)
                    if not only:
                        marks = self._follow_up(marks, slicer, job, problems)
                    code = _hash_graded(slicer.slice_all())
                except SlicingError as error:
                    problems.append(f"the submission's code could not be read: {error}")
        max_points = exact_sum([exercise.credit for exercise in exercises])
        seconds = round(time.monotonic() - started, 3)
        shown = bounded(map(one_line, problems))
        return self._record(submission, seed, max_points, seconds, shown, marks, code)

    def internal_error(self, submission: Submission, error: Exception) -> SubmissionMarks:
        """Return marks with no exercises, for a submission that could not be graded because of an internal error."""
        activity = f"grading the submission of {submission.student}"
        problem = one_line(internal_errors.log(self.day.root, activity, error))
        return self._record(submission, "", self.day.points, 0.0, [problem], [])

    def _record(
        self,
        submission: Submission,
        seed: str,
        max_points: float,
        seconds: float,
        problems: list[str],
        marks: list[ExerciseMarks],
        code: str = "",
    ) -> SubmissionMarks:
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed=seed,
            course=self.key.fingerprint,
            isolation=self.server.isolation,
            points=total_points(marks) if marks else None,
            max_points=max_points,
            seconds=seconds,
            problems=problems,
            exercises=marks,
            handed_in=submission.handed_in,
            code=code,
        )

    def _grade_exercises(
        self, slicer: Slicer, exercises: Sequence[Exercise], job: Job, problems: list[str]
    ) -> list[ExerciseMarks]:
        """Grade each exercise as the student wrote it."""
        notebook = slicer.slice_all()
        problems += notebook.problems
        marks = []
        for exercise in exercises:
            code = notebook.slices[exercise.name]
            problems += code.problems if code.state == "written" else ()
            marks.append(self.grade_slice(exercise, code, job, problems))
        return marks

    def _follow_up(
        self, marks: Sequence[ExerciseMarks], slicer: Slicer, job: Job, problems: list[str]
    ) -> list[ExerciseMarks]:
        """Regrade exercises that lost points, replacing earlier ones with reference solutions, and look for known mistakes.

        Exercises are processed in order. If an exercise earns full points when regraded, later exercises use the
        student's code for it.
        """
        result = {exercise.name: exercise for exercise in marks}
        for exercise in self.day.exercises:
            first = result[exercise.name]
            if first.points == first.max_points:
                continue
            original = self._with_wider_code(exercise, slicer, first, job, problems)
            if original.marks.status != "not_attempted":
                lost = {name for name, other in result.items() if other.points < other.max_points}
                best = self._substituted(exercise, slicer, original, lost, job)
                source = join_units(best.code.pieces, self.key.references(best.marks.reference_for))
                mistake = self._name_mistake(exercise, source, best.marks, job, problems)
                result[exercise.name] = msgspec.structs.replace(
                    best.marks,
                    mistake=mistake,
                    statements=own_statements(best.code, self.day),
                )
        if all(exercise.status == "not_attempted" for exercise in result.values()):
            slices = slicer.slice_all().slices.values()
            problems.append(
                f"no exercise of {self.day.name} was found"
                if all(code.state == "absent" for code in slices)
                else f"no exercise of {self.day.name} was attempted: the stubs are unchanged"
            )
        return list(result.values())

    def _with_wider_code(
        self,
        exercise: Exercise,
        slicer: Slicer,
        first: ExerciseMarks,
        job: Job,
        problems: list[str],
    ) -> Graded:
        """Regrade an exercise with all statements that may affect it. Return the better result."""
        original = Graded(first, slicer.slice_all().slices[exercise.name])
        if first.status in NOT_WIDENED:
            return original
        wider = slicer.slice_again(exercise.name, wide=True)
        if wider.state != "written" or wider.pieces == original.code.pieces:
            return original
        marks = self.grade_slice(exercise, wider, replace(job, observe=None))
        if marks.points <= first.points:
            return original
        if job.observe:
            self.grade_slice(exercise, wider, job)
        if original.code.state == "written":
            for problem in original.code.problems:
                with contextlib.suppress(ValueError):
                    problems.remove(problem)
        problems += wider.problems
        return Graded(marks, wider, wide=True)

    def _substituted(
        self,
        exercise: Exercise,
        slicer: Slicer,
        original: Graded,
        lost: Collection[str],
        job: Job,
    ) -> Graded:
        """Regrade an exercise, replacing earlier ones that lost points with reference solutions. Return the best result."""

        if original.marks.points == original.marks.max_points:
            return original

        def grade_with(replaced: tuple[str, ...]) -> Graded:
            code = slicer.slice_again(exercise.name, replaced, original.wide)
            marks = self.grade_slice(exercise, code, job, replaced=replaced)
            return Graded(marks, code, replaced, original.wide)

        earlier = self.day.names[: self.day.names.index(exercise.name)]
        lost_earlier = [name for name in earlier if name in lost]
        sentences = {test.name: test.sentence for test in self.key.tests[exercise.name]}
        return substitute_references(original, lost_earlier, grade_with, sentences)

    def _name_mistake(
        self,
        exercise: Exercise,
        source: Source,
        marks: ExerciseMarks,
        job: Job,
        problems: list[str],
    ) -> str | None:
        """Return the known mistake in a wrong answer, or None. Internal errors are logged and do not affect marks."""
        if marks.status not in ("partial", "failed"):
            return None
        failed = [test.name for test in marks.tests if not test.passed]
        try:
            return self.recognizer.recognize(exercise, source, failed, job.budget)
        except Exception as error:
            activity = f"naming the mistake in {exercise.name}"
            problems.append(internal_errors.log(self.day.root, activity, error))
            return None

    @property
    def server(self) -> Server:
        """Return the fork server that runs submissions."""
        return self.runner.server

    @cached_property
    def recognizer(self) -> Recognizer:
        """Return the recognizer for the day's known mistakes, creating it on first use."""
        return Recognizer(self.key, self.server)

    def grade_slice(
        self,
        exercise: Exercise,
        code: Slice,
        job: Job,
        problems: list[str] | None = None,
        replaced: Sequence[str] = (),
    ) -> ExerciseMarks:
        """Run an exercise's tests, unless its code is missing, unchanged or too long, or uses forbidden functions."""
        tests = self.key.tests[exercise.name]
        if code.state == "too_long":
            return no_points(exercise, tests, "error", slicing.TOO_LONG)
        if code.state != "written":
            state = "defined" if code.state == "absent" else "filled in"
            return no_points(exercise, tests, "not_attempted", f"`{exercise.name}` is not {state}")
        if code.used:
            return no_points(exercise, tests, "not_allowed", not_allowed_message(code.used))
        source = join_units(code.pieces, self.key.references(replaced))
        return self.grade_source(exercise, source, job, problems)

    def grade_source(
        self, exercise: Exercise, source: Source, job: Job, problems: list[str] | None = None
    ) -> ExerciseMarks:
        """Run an exercise's tests on the given code in a new process. Add problems with loading the code to `problems`."""
        started = time.monotonic()
        outcomes = self.runner.outcomes(exercise, source, job, problems)
        marks = self._score(
            exercise, outcomes, source.references.names if source.references else ()
        )
        return msgspec.structs.replace(marks, seconds=round(time.monotonic() - started, 4))

    def _score(
        self, exercise: Exercise, outcomes: Sequence[Outcome], replaced: Collection[str]
    ) -> ExerciseMarks:
        tests = self.key.tests[exercise.name]
        refused = next((outcome for outcome in outcomes if outcome.status == "not_allowed"), None)
        if refused:
            return no_points(exercise, tests, "not_allowed", refused.message)
        passed = {test.name for test, o in zip(tests, outcomes, strict=True) if o.passed}
        return score(exercise, tests, outcomes, self._earned(exercise, passed, replaced))

    def _earned(
        self, exercise: Exercise, passed: Collection[str], replaced: Collection[str]
    ) -> Collection[str]:
        """Return which of the passed tests earn points.

        All of them do if neither trivial answers nor forwarding to references would pass one of them. Otherwise, only
        tests for errors do.
        """
        if len(passed) == len(self.key.tests[exercise.name]):
            return passed  # neither forwarding nor a trivial answer passes all tests
        trivial = self.trivial_passes[exercise.name]
        own = {name for name in passed if trivial.get(name) != "value"}
        for name in replaced:
            if own:
                own -= self._forwarding.passed_tests(exercise, name)
        return passed if own - trivial.keys() else own


def _hash_graded(notebook: NotebookSlices) -> str:
    """Return a hash of the student's code that was graded, or "" if nothing was attempted."""
    written = [code for code in notebook.slices.values() if code.state == "written"]
    pieces = (piece.source for code in written for piece in code.pieces if not piece.given)
    return hash_code(pieces) if written else ""
