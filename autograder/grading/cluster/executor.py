"""Grade submissions on a Dask cluster. Entry point: `Cluster`.

Only this process knows the secret and writes to the store. Workers receive submissions and seeds, and return marks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from distributed.scheduler import KilledWorker

from autograder.course.config import Day
from autograder.course.fingerprint import course_version
from autograder.grading.cluster import launch
from autograder.grading.cluster.messages import (
    CourseVersion,
    Graded,
    Place,
    Postponed,
    RefusedWorker,
    Task,
)
from autograder.grading.cluster.workers import INTERVAL, BrokenTask, Workers, reply_to
from autograder.grading.pool import Pool, copy_outcome
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Sandbox
from autograder.sandbox.errors import MustRunAlone
from autograder.submissions.submission import Submission

ATTEMPTS = 3  # maximum attempts for a task that workers cannot load


class Cluster:
    """A Dask cluster that grades a day's submissions.

    Workers that cannot isolate student code or have a different version of the course are retired, and their tasks are
    sent to other workers. A submission is graded on this machine if the workers that try to grade it are killed repeatedly.
    """

    def __init__(
        self,
        day: Day,
        jobs: int,
        sandbox: Sandbox,
        place: Place,
        warn: Callable[[Exception], None],
    ) -> None:
        """Start the cluster or connect to it.

        Args:
            jobs: The number of workers to start. On SLURM, this is the maximum.
            place: Where the workers run.
            warn: A function to call with errors that do not end the run.

        Raises:
            ClusterError: The cluster does not exist or cannot be used safely.
        """
        self._day, self._sandbox = day, sandbox
        root = str(day.root.absolute())
        version = course_version(day), engine_version()
        self._course = CourseVersion(root, day.name, *version, sandbox)
        self._pool: Pool | None = None
        self._counted = float("-inf")
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(launch.connect(place, jobs, day.root))
            self._jobs = jobs
            self._grows = place.is_running
            self._workers = Workers(client, self._course, warn)
            self._stack = stack.pop_all()

    @property
    def jobs(self) -> int:
        """Return the number of workers."""
        if self._grows and time.monotonic() > self._counted + INTERVAL:
            self._jobs = max(1, len(self._workers.present()))
            self._counted = time.monotonic()
        return self._jobs

    def isolation(self) -> list[list[str]]:
        """Return the isolation layers for each machine type.

        First, wait until at least one worker is connected and all connected workers are ready.

        Raises:
            NoIsolation, CourseError: All workers were rejected as unsuitable.
            ConnectionError: The connection to the scheduler was lost.
        """
        if not self._workers.isolation:
            self._workers.probe()
        return sorted(map(list, self._workers.isolation))

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = False
    ) -> Future[SubmissionMarks]:
        """Return a future for a submission's marks; see `Executor`.

        The future's `result` method raises the same errors as `isolation`.
        """
        future: Future[SubmissionMarks] = Future()
        self._send(Task(self._course, submission, seed, is_alone), future)
        return future

    def close(self) -> None:
        """Stop the workers that this run started. On an existing cluster, cancel the tasks that have not started."""
        self._stack.close()
        if self._pool is not None:
            self._pool.close()

    def _send(self, task: Task, future: Future[SubmissionMarks], attempt: int = 1) -> None:
        def receive(sent: Any) -> None:
            try:
                self._receive(sent, task, future, attempt)
            except Exception as error:
                future.set_exception(error)
            finally:
                sent.release()  # lets the scheduler and the worker delete the reply

        self._workers.send(task).add_done_callback(receive)

    def _receive(
        self, sent: Any, task: Task, future: Future[SubmissionMarks], attempt: int
    ) -> None:
        try:
            reply = reply_to(sent)
        except KilledWorker:
            self._grade_here(task, future)
        except BrokenTask as error:
            if attempt == ATTEMPTS:
                raise ConnectionError(f"the cluster's workers failed: {error}") from None
            self._find_broken_worker(task, future, attempt)
        else:
            if isinstance(reply, Graded):
                future.set_result(reply.marks)
            elif isinstance(reply, Postponed):
                raise MustRunAlone
            elif isinstance(reply, RefusedWorker):
                self._workers.refuse(reply)
                self._send(task, future)

    def _grade_here(self, task: Task, future: Future[SubmissionMarks]) -> None:
        """Grade a submission on this machine, because the workers that tried to grade it were killed."""
        assert task.submission is not None
        if self._pool is None:
            self._pool = Pool(self._day, 1, self._sandbox)
        sent = self._pool.submit(task.submission, task.seed, task.is_alone)
        sent.add_done_callback(lambda done: copy_outcome(done, future))

    def _find_broken_worker(
        self, task: Task, future: Future[SubmissionMarks], attempt: int
    ) -> None:
        """Probe all workers, because Dask does not report which one failed. Then resend the task."""

        def probe_and_send() -> None:
            try:
                self._workers.probe()
                self._send(task, future, attempt + 1)
            except Exception as error:
                future.set_exception(error)

        # Probe in a new thread, because the current thread must remain free to receive replies.
        threading.Thread(target=probe_and_send, daemon=True).start()
