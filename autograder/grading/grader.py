"""Grade one submission: select each exercise's code, run its tests in the sandbox, and convert the outcomes to marks.

Entry point: `Grader`.
"""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from autograder.course import fingerprint
from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.course.fingerprint import course_version
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Observer, RunSettings
from autograder.grading import internal_errors
from autograder.grading.exercise_grader import ExerciseGrader, GradedExercise, seeded
from autograder.grading.follow_up import FollowUp
from autograder.grading.results import ResultStore
from autograder.marks.model import (
    SubmissionMarks,
    exact_sum,
    total_points,
    ungraded,
)
from autograder.plain_text import printable, printable_problems
from autograder.protocol.limits import Allowance, Budget
from autograder.sandbox.client import Server
from autograder.sandbox.concrete_shapes import assume_concrete_shapes
from autograder.sandbox.errors import MustRunAlone, NoIsolation
from autograder.slicing import slicer as slicing
from autograder.slicing.slicer import NotebookSlices, Slice, Slicer, SlicingError
from autograder.submissions.cell import Cell, definitions, hash_code
from autograder.submissions.submission import Submission, seed_of

# Seconds that a submission may sleep or wait while others are being graded. If it needs more, it is graded again at the end.
SHARED_IDLE = 5.0
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Grader:
    """A grader for a day's submissions. It grades them one at a time, using one fork server."""

    def __init__(
        self,
        day: Day,
        server: Server,
        secret: bytes = b"",
        results: ResultStore | None = None,
    ) -> None:
        torch.set_num_threads(1)
        assume_concrete_shapes()
        # The server prepares for slicing while this process reads the answer key.
        self.slicing_course = slicing.prepare(server, day)
        self.exercises = ExerciseGrader(day, server, results)
        self._stand_in_copies = StandInCopies(day)
        self._version = course_version(day)
        self._secret = secret

    @property
    def day(self) -> Day:
        """Return the day that this grader grades."""
        return self.exercises.day

    @property
    def key(self) -> AnswerKey:
        """Return the day's tests and reference solutions."""
        return self.exercises.key

    @property
    def server(self) -> Server:
        """Return the fork server that runs submissions."""
        return self.exercises.server

    def grade(
        self,
        submission: Submission,
        seed: str | None = None,
        observe: Observer | None = None,
        is_alone: bool = True,
    ) -> SubmissionMarks:
        """Grade a submission.

        Args:
            seed: The seed for the inputs. By default, it is derived from the secret and the day.
            observe: A function to call after each test in each run of each exercise.
            is_alone: Whether no other submission is graded at the same time.

        Raises:
            MustRunAlone: The code slept for too long or was killed, although the submission is not alone.
            NoIsolation: The sandbox cannot be set up on this machine.
            ServerLost: The fork server died several times in a row.
        """
        started = time.monotonic()
        seed = seed or seed_of(self.day.name, self._secret)
        results = self.exercises.results
        if results:
            results.discard()  # of a submission that could not be graded
        stamp_problems = fingerprint.stamp_problems(submission.release, self.day)
        problems = [*submission.problems, *stamp_problems]
        graded: list[GradedExercise] = []
        code = ""
        budget = Budget(_allowance(self.day, is_alone), "submission")
        if submission.readable:
            settings = RunSettings(seed, budget, observe, is_alone)
            with Slicer(self.server, self.slicing_course, submission.cells) as slicer:
                try:
                    notebook = slicer.slice_all()
                    problems += notebook.problems
                    code = _hash_graded(notebook)
                    problems += self._stand_in_copies.problems(notebook.slices)
                    graded = [
                        self.exercises.grade_slice(
                            exercise,
                            notebook.slices[exercise.name],
                            seeded(settings, notebook.slices[exercise.name]),
                        )
                        for exercise in self.day.exercises
                    ]
                    follow_up = FollowUp(self.exercises, slicer, settings, problems)
                    graded = follow_up.grade_again(graded)
                except SlicingError as error:
                    problems.append(f"the submission's code could not be read: {error}")
        if budget.excess and budget.excess.kind == "idle" and not is_alone:
            raise MustRunAlone  # the search for known mistakes may have stopped early
        if results:
            results.commit(self.day.name, submission.origin.keys)
        problems += [*_problems_in_unread_cells(graded, submission.cells, problems)]
        problems += [problem for exercise in graded for problem in exercise.problems]
        marks = [exercise.marks for exercise in graded]
        problems += _nothing_attempted(self.day, graded)
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed=seed,
            course=self._version,
            isolation=self.server.isolation,
            points=total_points(marks) if marks else None,
            max_points=exact_sum([exercise.credit for exercise in self.day.exercises]),
            seconds=round(time.monotonic() - started, 3),
            problems=list(printable_problems(problems)),
            exercises=marks,
            handed_in=submission.handed_in,
            code=code,
        )

    def grade_or_log(
        self,
        submission: Submission,
        seed: str | None = None,
        observe: Observer | None = None,
        is_alone: bool = True,
    ) -> SubmissionMarks:
        """Grade a submission; see `grade`. If an internal error occurs, log it and return marks with no exercises."""
        try:
            return self.grade(submission, seed, observe, is_alone)
        except (MustRunAlone, NoIsolation):
            raise
        except Exception as error:
            activity = f"grading the submission of {submission.student}"
            problem = printable(internal_errors.log(self.day.root, activity, error))
            isolation = self.server.isolation
            return ungraded(submission, self._version, isolation, self.day.points, problem)


def _allowance(day: Day, is_alone: bool) -> Allowance:
    """Return how much time a submission's code may take."""
    idle = day.budget.idle_seconds
    return replace(day.budget, idle_seconds=idle if is_alone else min(idle, SHARED_IDLE))


def _hash_graded(notebook: NotebookSlices) -> str:
    """Return a hash of the student's graded code, or "" if nothing was attempted."""
    written = [code for code in notebook.slices.values() if code.state == "written"]
    own = (statement.source for code in written for statement in code.own)
    return hash_code(own) if written else ""


def _problems_in_unread_cells(
    graded: Sequence[GradedExercise], cells: Sequence[Cell], problems: Sequence[str]
) -> Iterator[str]:
    """Yield a problem for each exercise that is missing because its cell is not a code cell or could not be parsed.

    If there are several such cells, the problem names the first code cell among them or, if there is none, the first cell.
    """
    missing = [exercise.code.exercise for exercise in graded if exercise.code.state == "absent"]
    for cell in sorted(cells, key=lambda cell: cell.kind != "code") if missing else ():
        is_unread = any(problem.startswith(f"cell {cell.number}: ") for problem in problems)
        if cell.kind == "code" and not is_unread:
            continue
        # A cell may contain millions of definitions.
        found = (match[1] for match in definitions(cell.source))
        for name in {name: None for name in found if name in missing}:
            missing.remove(name)
            if cell.kind != "code":
                yield (
                    f"cell {cell.number}: this is not a code cell, so `{name}` was not graded. Change it to a code cell, "
                    "and submit the notebook again"
                )
            else:
                yield (
                    f"cell {cell.number}: Python {PYTHON} cannot read this cell, so `{name}` was not graded. Correct the cell, "
                    "and submit the notebook again"
                )


def _nothing_attempted(day: Day, graded: Sequence[GradedExercise]) -> Iterator[str]:
    """Yield a problem if no exercise was attempted."""
    if graded and all(exercise.marks.status == "not_attempted" for exercise in graded):
        if all(exercise.code.state == "absent" for exercise in graded):
            yield f"no exercises from {day.name} were found"
        else:
            yield f"no exercises from {day.name} were attempted: the stubs are unchanged"


MIN_LENGTH = 200  # characters; independent solutions may be identical to a shorter stand-in


class StandInCopies:
    """Finds exercises whose code was copied from a day's stand-ins, which the released notebook contains."""

    def __init__(self, day: Day) -> None:
        """Read the day's stand-ins, if it has any. Raises CourseError if the file is not valid Python."""
        text = read_text(day.stand_ins) if day.stand_ins.is_file() else ""
        try:
            nodes = ast.parse(text).body
        except SyntaxError as error:
            raise CourseError(f"{day.stand_ins}, line {error.lineno}: {error.msg}") from None
        sources = [(node, ast.get_source_segment(text, node) or "") for node in nodes]
        self._names = {
            hash_code([source]): node.name
            for node, source in sources
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and len(source) >= MIN_LENGTH
        }

    def problems(self, slices: Mapping[str, Slice]) -> Iterator[str]:
        """Yield a problem that lists the exercises with copied code, if there are any."""
        sources = {statement.source for code in slices.values() for statement in code.own}
        copied = {self._names.get(hash_code([source]), "") for source in sources} - {""}
        if copied:
            names = ", ".join(f"`{name}`" for name in slices if name in copied)
            yield f"code copied from the stand-ins that the notebook contains: {names}"
