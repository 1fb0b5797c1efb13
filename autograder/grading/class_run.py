"""Grade a class in parallel. Marks for unchanged submissions come from the store. Entry point: `ClassRun`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from autograder.course.config import Day
from autograder.course.files import FileError
from autograder.course.fingerprint import course_version
from autograder.grading import internal_errors
from autograder.grading.internal_errors import WorkerKilled
from autograder.marks.engine_version import engine_version
from autograder.marks.history import Basis, History, Replacement, basis_of
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.errors import MustRunAlone
from autograder.submissions.submission import Submission, seed_of


class Executor(Protocol):
    """The processes that grade a day's submissions."""

    @property
    def jobs(self) -> int:
        """Return how many submissions can be graded at the same time."""

    def isolation(self) -> list[list[str]]:
        """Wait until a process is ready to grade. Return the isolation layers for each machine type.

        Raises:
            NoIsolation: No machine can isolate student code.
            CourseError: A chapter or grader is invalid.
        """

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = False
    ) -> Future[SubmissionMarks]:
        """Return a future for a submission's marks. Unless `is_alone` is set, it may raise MustRunAlone."""

    def close(self) -> None:
        """Stop all processes, even if they are still grading."""


NOT_RUN = ("not_attempted", "not_allowed")
LOOKAHEAD = 2  # number of submissions to read ahead, per worker process


@dataclass
class ClassRun:
    """A grading run for a class. Marks do not depend on the executor, the order of submissions or the store's contents."""

    day: Day
    secret: bytes
    executor: Executor
    seed: str | None = None
    history: History | None = None
    force: bool = False  # whether to grade unchanged submissions again
    is_current: bool = True  # whether this run's marks become the current marks
    on_store_error: Callable[[FileError], None] = lambda error: None
    exercises: int = 0  # number of exercises in newly graded submissions whose code could be run
    known: int = 0  # number of these exercises whose result was stored
    reused: int = 0  # number of submissions whose marks were stored by an earlier run
    unstored: int = 0  # number of submissions whose marks could not be stored
    replacements: list[Replacement] = field(default_factory=list)  # students who submitted again
    places: list[int] = field(
        default_factory=list
    )  # the place in the class of each submission that was yielded

    def grade(self, class_: Iterable[Submission]) -> Iterator[SubmissionMarks]:
        """Yield the marks of each submission in the class, as soon as they are ready and stored.

        A submission whose code sleeps for too long or is killed is graded again, alone, after all others. This result counts.

        Raises:
            NoIsolation: The sandbox cannot be set up on this machine. No student code was run.
            WorkerKilled: Worker processes were killed before they started grading.
            ConnectionError: The connection to the cluster's scheduler was lost.
        """
        course = course_version(self.day)
        engine_version()  # compute and cache it while the first process starts
        pending: dict[Future[SubmissionMarks], tuple[int, Submission, Basis]] = {}
        postponed: list[tuple[int, Submission, Basis]] = []

        def finished() -> Iterator[SubmissionMarks]:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                number, submission, basis = pending.pop(future)
                try:
                    marks = future.result()
                except MustRunAlone:
                    postponed.append((number, submission, basis))
                    continue
                # Do not store marks after an internal error, so that the next run grades the submission again.
                # Such marks have no seed.
                if marks.seed:
                    # The course may have been edited since this run began. The marks record which version was used,
                    # and how the code was isolated.
                    isolation = " ".join(marks.isolation)
                    used = replace(basis, course=marks.course, isolation=isolation)
                    self._store(used, marks, submission)
                    run = [e for e in marks.exercises if e.status not in NOT_RUN]
                    self.exercises += len(run)
                    self.known += sum(e.seconds == 0 for e in run)
                self.places.append(number)
                yield marks

        try:
            for number, submission in enumerate(class_):
                isolation = self.executor.isolation()
                seed = self.seed or seed_of(self.day.name, self.secret)
                bases = [basis_of(self.day.name, submission, course, seed, i) for i in isolation]
                basis, marks = self._stored(bases, submission)
                if marks is not None:
                    self.reused += self._is_from_earlier_run(basis)
                    self._store(basis, marks, submission)
                    self.places.append(number)
                    yield marks
                    continue
                pending[self.executor.submit(submission, seed)] = number, submission, basis
                if len(pending) >= LOOKAHEAD * self.executor.jobs:
                    yield from finished()
            while pending:
                yield from finished()
            for number, submission, basis in postponed:
                alone = self.executor.submit(submission, basis.seed, is_alone=True)
                pending[alone] = number, submission, basis
                yield from finished()
        except BrokenExecutor:
            message = "a worker process was killed while starting (out of memory?). Run the command again to resume."
            raise WorkerKilled(message) from None

    def _stored(
        self, bases: Sequence[Basis], submission: Submission
    ) -> tuple[Basis, SubmissionMarks | None]:
        """Return the first basis that has stored marks, and those marks.

        If no basis has stored marks, return the first basis and None.
        """
        if self.history is None or self.force:
            return bases[0], None
        try:
            for basis in bases:
                if marks := self.history.find(basis, submission):
                    return basis, marks
        except FileError as error:
            self.on_store_error(error)
        return bases[0], None

    def _is_from_earlier_run(self, basis: Basis) -> bool:
        try:
            return self.history is not None and self.history.is_from_earlier_run(basis)
        except FileError as error:
            self.on_store_error(error)
            return False

    def _store(self, basis: Basis, marks: SubmissionMarks, submission: Submission) -> None:
        """Store marks. If that fails, report the error and continue, because the caller still gets the marks."""
        if self.history is None:
            return
        try:
            self.replacements += self.history.add(
                basis, marks, Path(submission.under), self.is_current
            )
        except FileError as error:
            self.unstored += 1
            self.on_store_error(error)
        except Exception as error:
            self.unstored += 1
            activity = f"storing the marks of {marks.student}"
            message = internal_errors.log(self.day.root, activity, error)
            self.on_store_error(FileError(message))
