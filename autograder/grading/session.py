"""Grade or regrade a class for the command line: lock the store, read the submissions and collect notes for the TA.

Entry point: `open_session`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.course.late_policy import Lateness
from autograder.course.state_folder import StoreError
from autograder.grading.class_run import ClassRun
from autograder.grading.pool import Pool
from autograder.marks import class_list, regrade
from autograder.marks.history import History
from autograder.marks.model import CompressedMarks, SubmissionMarks
from autograder.marks.regrade import Change
from autograder.sandbox.client import Sandbox
from autograder.submissions import roster
from autograder.submissions.class_source import find_submissions
from autograder.submissions.client import Reader
from autograder.submissions.roster import Roster

Watch = Callable[[Iterator[SubmissionMarks]], Iterator[SubmissionMarks]]


@dataclass(frozen=True)
class GradedClass:
    """The marks of a class, how late each submission is, and notes about the roster."""

    submissions: CompressedMarks
    lateness: list[Lateness]
    roster_notes: list[str]
    reused: int
    unstored: int

    @property
    def ungraded(self) -> list[SubmissionMarks]:
        """Return the marks of submissions that could not be read or graded. Their `problems` explain why."""
        return [marks for marks in self.submissions if not marks.exercises]


@dataclass(frozen=True)
class Session:
    """A grading run for one day. It owns a pool, a reader and, unless `history` is None, the lock on the day's marks."""

    day: Day
    secret: bytes
    pool: Pool
    reader: Reader
    history: History | None
    roster: Roster
    on_store_error: Callable[[StoreError], None]

    def grade(
        self, paths: Sequence[Path], seed: str | None, force: bool, watch: Watch = iter
    ) -> GradedClass:
        """Grade the submissions under the given paths.

        Args:
            seed: Overrides the seed of every submission.
            force: Grade unchanged submissions again.
            watch: A function that wraps the iterator of marks, to show progress.
        """
        run = self._run(seed=seed, force=force)
        found = find_submissions(paths, self.day.name, self.reader, roster=self.roster)
        submissions = CompressedMarks(watch(run.grade(found)))
        lateness = class_list.lateness_of_each(submissions, self.day, self.roster)
        notes = class_list.roster_notes(submissions, self.day, self.roster)
        return GradedClass(submissions, lateness, notes, run.reused, run.unstored)

    def regrade(self, is_current: bool = False) -> tuple[list[Change], list[SubmissionMarks]]:
        """Regrade the submissions in the store.

        Args:
            is_current: Make the new marks the current ones. Otherwise, the new marks are only stored.

        Returns:
            The marks of each submission before and after, and the stored marks of submissions that no longer exist.

        Raises:
            CourseError: The store contains no marks for the day.
        """
        assert self.history is not None
        day = self.day.name
        stored = self.history.current_with_paths(day)
        if not stored:
            raise CourseError(
                f"the store has no marks for {day}. Run `autograder grade {day}` first."
            )
        found = regrade.find_again(stored, day, self.reader, self.roster)
        return regrade.compare(stored, self._run(is_current=is_current).grade(found))

    def _run(
        self, seed: str | None = None, force: bool = False, is_current: bool = True
    ) -> ClassRun:
        return ClassRun(
            self.day,
            self.secret,
            self.pool,
            seed,
            self.history,
            force,
            is_current,
            self.on_store_error,
        )


@contextlib.contextmanager
def open_session(
    day: Day,
    jobs: int,
    sandbox: Sandbox,
    on_store_error: Callable[[StoreError], None],
    use_store: bool = True,
) -> Iterator[Session]:
    """Start the pool and a reader, and open and lock the store.

    Raises:
        CourseError: The roster is invalid.
        StoreError: The store is damaged or locked by another run, or the secret cannot be read.
        NoIsolation: The sandbox cannot be set up on this machine.
    """
    secret = state_folder.secret(day.root)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(Pool(day, jobs, sandbox))
        reader = stack.enter_context(Reader(sandbox))
        history = stack.enter_context(History(day.root)) if use_store else None
        if history:
            stack.enter_context(history.lock(day.name))
        class_roster = roster.for_course(day.root)
        yield Session(day, secret, pool, reader, history, class_roster, on_store_error)


def submitted_folders(day: Day) -> list[Path]:
    """Return the folders that nbgrader collected for a day, `submitted/STUDENT/DAY`.

    Raises:
        CourseError: There are no submissions.
    """
    folders = sorted((day.root / "submitted").glob(f"*/{day.name}"))
    if not folders:
        place = day.root / "submitted" / "*" / day.name
        raise CourseError(
            f"there are no submissions in {place}. Pass the PATH of the submissions to grade."
        )
    return folders
