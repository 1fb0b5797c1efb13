"""One submission → marks: for each exercise its code, a process that runs it, and the tests that ask it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

import msgspec
import torch

from autograder.course import release_stamp
from autograder.course.config import CourseError, Day, Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Outcome, Source, joined, refusal
from autograder.grading import faults, trivial_answers
from autograder.grading.forwarding import Forwarding
from autograder.grading.runner import Job, Observer, Runner
from autograder.grading.substitution import follow_through
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    SubmissionMarks,
    TestMarks,
    exact_sum,
    one_line,
    sanitize,
    split_points,
)
from autograder.protocol.limits import Budget
from autograder.protocol.plain_text import bounded
from autograder.recognition.recognizer import Namer
from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.control import WORKER
from autograder.slicing import client as slicing
from autograder.slicing.client import Slice, Slicer, SlicingError
from autograder.submissions.client import READER
from autograder.submissions.submission import Submission


def start_server(sandbox: Sandbox = "required", layers: Sequence[str] | None = None) -> Server:
    """Start a fork server that can slice and run what students hand in.

    Raises:
        NoIsolation: this machine is no Linux.
    """
    return Server(sandbox, layers, services=(WORKER, READER))


class Grader:
    """Grades submissions of one day, one after the other, with one fork server."""

    def __init__(self, day: Day, server: Server, secret: bytes, seed: str | None = None) -> None:
        torch.set_num_threads(1)
        self.day = day
        self.key = AnswerKey.of(day)
        self.runner = Runner(self.key, server)
        self._slicing = slicing.prepare(server, day)
        self._secret = secret
        self._seed = seed
        self.trivial = trivial_answers.passed(self.runner)
        self._forwarding = Forwarding(self.runner)
        for name, own in self.key.tests.items():
            if all((name, test.name) in self.trivial for test in own):
                raise CourseError(
                    f"{day.name}: {name} can not earn its points, for an answer that does nothing passes all its tests"
                )

    def grade(
        self, submission: Submission, observe: Observer | None = None, only: str = ""
    ) -> SubmissionMarks:
        """Grade a submission; with `only`, that exercise alone.

        Raises:
            NoIsolation: nothing can be run here. ServerLost: the fork server ended several times in a row.
        """
        started = time.monotonic()
        exercises = [e for e in self.day.exercises if only in ("", e.name)]
        seed = self._seed or seed_of(self.day.name, self._secret, submission)
        problems = [
            *submission.problems,
            *release_stamp.stamp_problems(submission.release, self.day),
        ]
        marks: list[ExerciseMarks] = []
        if submission.readable:
            job = Job(seed, Budget(self.day.budget, "submission"), observe)
            with Slicer(self.server, self._slicing, submission.cells) as slicer:
                try:
                    marks = self._graded(slicer, exercises, job, problems, is_whole=not only)
                except SlicingError as error:
                    problems.append(f"its code could not be read: {error}")
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed=seed,
            course=self.key.fingerprint,
            isolation=self.server.isolation,
            points=exact_sum([e.points for e in marks]),
            max_points=exact_sum([e.points for e in exercises]),
            seconds=round(time.monotonic() - started, 3),
            problems=bounded(map(one_line, problems)),
            exercises=marks,
            handed_in=submission.handed_in,
        )

    def ungraded(self, submission: Submission, error: Exception) -> SubmissionMarks:
        """The record of a submission that a fault of the autograder kept from being graded."""
        doing = f"grading {submission.path} of {submission.student}"
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed="",
            course=self.key.fingerprint,
            isolation=self.server.isolation,
            points=0.0,
            max_points=exact_sum([e.points for e in self.day.exercises]),
            seconds=0.0,
            problems=[one_line(faults.log(self.day.root, doing, error))],
            exercises=[],
            handed_in=submission.handed_in,
        )

    def _graded(
        self,
        slicer: Slicer,
        exercises: Sequence[Exercise],
        job: Job,
        problems: list[str],
        is_whole: bool,
    ) -> list[ExerciseMarks]:
        notebook = slicer.slice_all()
        problems += notebook.problems
        marks = []
        for exercise in exercises:
            code = notebook.slices[exercise.name]
            problems += code.problems if code.state == "written" else ()
            marks.append(self.judge(exercise, code, job, problems))
        if is_whole:
            if all(marked.status == "not_attempted" for marked in marks):
                problems.append(f"no exercise of {self.day.name} is filled in")
            marks = self._each_mistake_once(marks, slicer, job, problems)
        return marks

    def _each_mistake_once(
        self, marks: Sequence[ExerciseMarks], slicer: Slicer, job: Job, problems: list[str]
    ) -> list[ExerciseMarks]:
        """What is right once an earlier exercise is replaced has no mistake of its own, and replaces nothing."""
        result = {marked.name: marked for marked in marks}
        for exercise in self.day.exercises:
            marked = result[exercise.name]
            if marked.points < marked.max_points and marked.status != "not_attempted":
                lost = {name for name, other in result.items() if other.points < other.max_points}
                marked, source = self._substituted(exercise, slicer, marked, lost, job)
                name = self._name(exercise, source, marked, job, problems)
                result[exercise.name] = msgspec.structs.replace(marked, mistake=name)
        return list(result.values())

    def _substituted(
        self,
        exercise: Exercise,
        slicer: Slicer,
        marked: ExerciseMarks,
        lost: Collection[str],
        job: Job,
    ) -> tuple[ExerciseMarks, Source]:
        """The better marks with references for what lost points, and the code that they are of."""
        silent = replace(job, observe=None)  # what is explained is the first run

        def judge(code: Slice, replaced: Sequence[str]) -> ExerciseMarks:
            return self.judge(exercise, code, silent, replaced=replaced)

        sentences = {test.name: test.sentence for test in self.key.tests[exercise.name]}
        earlier = self.day.names[: self.day.names.index(exercise.name)]
        lost_earlier = [name for name in earlier if name in lost]
        marks, code = follow_through(slicer, marked, lost_earlier, judge, sentences)
        return marks, joined(code.pieces, self.key.replaced(marks.reference_for))

    def _name(
        self,
        exercise: Exercise,
        source: Source,
        marked: ExerciseMarks,
        job: Job,
        problems: list[str],
    ) -> str | None:
        """The name of a wrong answer's mistake. A fault in the search for it costs the name and no marks."""
        if marked.status not in ("partial", "failed"):
            return None
        failed = [test.name for test in marked.tests if not test.passed]
        try:
            return self.namer.name(exercise, source, failed, job.budget)
        except Exception as error:
            doing = f"naming the mistake in {exercise.name}"
            problems.append(faults.log(self.day.root, doing, error))
            return None

    @property
    def server(self) -> Server:
        """The fork server that runs what is handed in."""
        return self.runner.server

    @cached_property
    def namer(self) -> Namer:
        """Knows the mistakes of the day; made when the first wrong answer comes."""
        return Namer(self.key, self.server)

    def judge(
        self,
        exercise: Exercise,
        code: Slice,
        job: Job,
        problems: list[str] | None = None,
        replaced: Sequence[str] = (),
    ) -> ExerciseMarks:
        """Refuse what is not attempted or not allowed, and run the tests of all else."""
        if code.state != "written":
            why = "defined" if code.state == "absent" else "filled in"
            return self._none(exercise, "not_attempted", f"`{exercise.name}` is not {why}")
        if code.used:
            return self._none(exercise, "not_allowed", refusal(code.used))
        source = joined(code.pieces, self.key.replaced(replaced))
        return self.run(exercise, source, job, problems)

    def _none(self, exercise: Exercise, status: Status, message: str) -> ExerciseMarks:
        tests = self.key.tests[exercise.name]
        parts = split_points(exercise.points, [test.weight for test in tests])
        lost = [
            TestMarks(t.name, 0.0, p, False, sanitize(message), sanitize(message))
            for t, p in zip(tests, parts, strict=True)
        ]
        return ExerciseMarks(
            exercise.name, 0.0, exercise.points, status, sanitize(message), None, [], 0.0, lost
        )

    # ---- running

    def run(
        self, exercise: Exercise, source: Source, job: Job, problems: list[str] | None = None
    ) -> ExerciseMarks:
        """Run an exercise's tests on its code, in a process of its own."""
        started = time.monotonic()
        outcomes = self.runner.outcomes(exercise, source, job, problems)
        replaced = source.replaced.names if source.replaced else ()
        marked = self._marked(exercise, outcomes, replaced)
        return msgspec.structs.replace(marked, seconds=round(time.monotonic() - started, 4))

    def _marked(
        self, exercise: Exercise, outcomes: Sequence[Outcome], replaced: Collection[str]
    ) -> ExerciseMarks:
        tests = self.key.tests[exercise.name]
        refused = next((o for o in outcomes if o.status == "not_allowed"), None)
        if refused:
            return self._none(exercise, "not_allowed", refused.message)
        passed = {t.name for t, outcome in zip(tests, outcomes, strict=True) if outcome.passed}
        earned = self._is_earned(exercise, passed, replaced)
        parts = split_points(exercise.points, [test.weight for test in tests])
        marks = [
            TestMarks(
                test.name,
                part if outcome.passed and earned else 0.0,
                part,
                outcome.passed,
                "" if outcome.passed else sanitize(f"{test.sentence} {outcome.message}".strip()),
                "" if outcome.compared else sanitize(outcome.message),
                outcome.values,
            )
            for test, outcome, part in zip(tests, outcomes, parts, strict=True)
        ]
        points = exact_sum([mark.points for mark in marks])
        status = _status(outcomes, points)
        first = next((mark.message for mark in marks if not mark.passed), "")
        return ExerciseMarks(
            exercise.name, points, exercise.points, status, first, None, [], 0.0, marks
        )

    def _is_earned(
        self, exercise: Exercise, passed: Collection[str], replaced: Collection[str]
    ) -> bool:
        """Whether a test passes that no trivial answer passes, nor forwarding to one of the references."""
        if len(passed) == len(self.key.tests[exercise.name]):
            return True  # forwarding to another exercise passes some tests at most
        own = {name for name in passed if (exercise.name, name) not in self.trivial}
        for name in replaced:
            if own:
                own -= self._forwarding.passed(exercise, name)
        return bool(own)


def seed_of(day: str, secret: bytes, submission: Submission) -> str:
    """HMAC of the secret over the day and the code cells: saving a notebook again changes nothing."""
    code = "\0".join(cell.source for cell in submission.cells if cell.kind == "code")
    digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
    return hmac.digest(secret, day.encode() + b"\0" + digest, "sha256").hex()


def _status(outcomes: Sequence[Outcome], points: float) -> Status:
    for status in ("error", "timed_out", "crashed"):
        if any(outcome.status == status and not outcome.passed for outcome in outcomes):
            return status
    if all(outcome.passed for outcome in outcomes):
        return "passed"
    return "partial" if points else "failed"
