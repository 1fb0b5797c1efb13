"""Grade submissions in a pool of processes, each with its own fork server. Entry point: `Pool`.

This module does not import torch, so that the command line and its worker processes start quickly.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.fork_server import start_server
from autograder.grading.interrupts import blocked_interrupts
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.errors import NoIsolation
from autograder.submissions.submission import Submission

if TYPE_CHECKING:
    from autograder.grading.grader import Grader

T = TypeVar("T")
Send = Callable[[Submission, str, "Future[SubmissionMarks]"], None]
KILLED = (
    "the grading process was killed twice, the second time while no other submission was being graded. "
    "Check whether this machine ran out of memory. The next run tries again."
)


class Pool:
    """A pool of processes that grade submissions for one day. The first process starts immediately.

    If a process is killed, the submissions that were being graded or waiting are graded again, one at a time and each in
    a new process. A submission whose process is killed again gets marks without exercises.
    """

    def __init__(self, day: Day, jobs: int, sandbox: Sandbox) -> None:
        self.jobs = jobs
        self._day, self._sandbox = day, sandbox
        self._lock = threading.Lock()  # protects `_closed` and the start of processes
        self._closed = False
        self._one_by_one = ThreadPoolExecutor(1)  # grades lost submissions, and then later ones
        self._waiting: set[Future[SubmissionMarks]] = set()  # the results of `_one_by_one`
        self._executor = self._processes(jobs)
        self._isolation = self._submit(self._executor, _isolation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def isolation(self) -> list[list[str]]:
        """Wait until the first process is ready, and return the isolation layers of this machine.

        Raises:
            NoIsolation: The sandbox cannot be set up on this machine.
            CourseError: A chapter or grader is invalid.
            BrokenExecutor: The process was killed.
        """
        return [self._isolation.result()]

    def submit(self, submission: Submission, seed: str) -> Future[SubmissionMarks]:
        """Return a future for a submission's marks.

        Its `result` raises BrokenExecutor if processes are killed before they start grading.
        """
        future: Future[SubmissionMarks] = Future()
        if self._waiting:
            # Let the lost submissions finish first, so that each of them is graded alone.
            self._queue(self._send, submission, seed, future)
        else:
            self._send(submission, seed, future)
        return future

    def close(self) -> None:
        """Kill all processes, because they have nothing to save and a clean exit takes longer."""
        with self._lock:
            self._closed = True
            for child in multiprocessing.active_children():
                child.kill()
        self._executor.shutdown()
        self._one_by_one.shutdown()

    def _processes(self, jobs: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        course = self._day.root, self._day.name, self._sandbox
        return ProcessPoolExecutor(jobs, context, _start, course)

    def _submit(
        self, executor: ProcessPoolExecutor, function: Callable[..., T], *arguments: object
    ) -> Future[T]:
        """Submit a call to an executor, which starts processes on demand."""
        with self._lock, blocked_interrupts():
            if self._closed:
                raise BrokenExecutor("the pool is closed")
            return executor.submit(function, *arguments)

    def _send(self, submission: Submission, seed: str, future: Future[SubmissionMarks]) -> None:
        """Grade a submission in the pool, and set the result of `future`."""

        def receive(done: Future[SubmissionMarks]) -> None:
            if isinstance(done.exception(), BrokenExecutor) and not self._closed:
                self._queue(self._send_alone, submission, seed, future)
            else:
                copy_outcome(done, future)

        try:
            sent = self._submit(self._executor, _grade, submission, seed)
        except BrokenExecutor:
            self._executor = self._processes(self.jobs)
            sent = self._submit(self._executor, _grade, submission, seed)
        sent.add_done_callback(receive)

    def _queue(
        self, send: Send, submission: Submission, seed: str, future: Future[SubmissionMarks]
    ) -> None:
        """Call `send` after all lost submissions have been graded."""

        def work() -> None:
            try:
                send(submission, seed, future)
            except Exception as error:
                future.set_exception(error)
            finally:
                self._waiting.discard(future)

        self._waiting.add(future)
        self._one_by_one.submit(work)

    def _send_alone(
        self, submission: Submission, seed: str, future: Future[SubmissionMarks]
    ) -> None:
        future.set_result(self._grade_alone(submission, seed))

    def _grade_alone(self, submission: Submission, seed: str) -> SubmissionMarks:
        """Grade a submission in a new process. If the process is killed, return marks without exercises.

        Raises:
            BrokenExecutor: The process was killed before it started grading, or the pool was closed.
        """
        with self._processes(1) as executor:
            isolation = self._submit(executor, _isolation).result()
            try:
                return self._submit(executor, _grade, submission, seed).result()
            except BrokenExecutor:
                if self._closed:
                    raise
        return SubmissionMarks(
            path=submission.path,
            student=submission.student,
            sha256=submission.sha256,
            seed="",
            course=courses.fingerprint(self._day),
            isolation=isolation,
            points=None,
            max_points=self._day.points,
            seconds=0.0,
            problems=[KILLED],
            exercises=[],
            handed_in=submission.handed_in,
        )


def copy_outcome(done: Future[T], future: Future[T]) -> None:
    """Set a future's result or exception to that of another future that is done."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(error)


# ---- in the processes of the pool

_server: Server | NoIsolation
_grader: Grader | None = None
_course: tuple[Path, str]


def _start(root: Path, day: str, sandbox: Sandbox) -> None:
    global _course, _server
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _course = root, day
    try:
        _server = start_server(sandbox)
    except NoIsolation as error:
        _server = error


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _isolation() -> list[str]:
    if isinstance(_server, NoIsolation):
        raise _server
    _load_grader()
    return _server.isolation


def _load_grader() -> Grader:
    """Return this process's grader. This process and the fork server import their libraries in parallel."""
    global _grader
    if _grader is None:
        assert isinstance(_server, Server)
        with _without_garbage_collection():
            from autograder.grading.grader import Grader

            root, day = _course
            _grader = Grader(courses.load(root).day(day), _server)
    return _grader


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection during imports to speed them up, then exempt the imported objects from collection."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _grade(submission: Submission, seed: str) -> SubmissionMarks:
    return grade_or_log(_load_grader(), submission, seed)


def grade_or_log(grader: Grader, submission: Submission, seed: str) -> SubmissionMarks:
    """Grade a submission. If an internal error occurs, log it and return marks with no exercises.

    Raises:
        NoIsolation: The sandbox cannot be set up on this machine.
    """
    try:
        return grader.grade(submission, seed=seed)
    except NoIsolation:
        raise
    except Exception as error:
        return grader.internal_error(submission, error)
