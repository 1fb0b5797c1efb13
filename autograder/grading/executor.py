"""Define the interface between a grading run and the processes that grade: a pool on this machine, or a cluster."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from autograder.marks.model import SubmissionMarks
from autograder.submissions.submission import Submission


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
