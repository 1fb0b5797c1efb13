"""Grade submissions in a pool of processes. Entry point: `Pool`.

This module does not import torch, so that the command line and its worker processes start quickly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar

from autograder.course.config import Day
from autograder.course.fingerprint import course_version
from autograder.grading import pool_process, process_start
from autograder.grading.process_start import blocked_interrupts, protected_start
from autograder.marks.model import SubmissionMarks, ungraded
from autograder.sandbox.client import Sandbox
from autograder.sandbox.launch import STANDBY
from autograder.submissions.submission import Submission

T = TypeVar("T")
KILLED = (
    "the grading process was killed twice, the second time while no other submission was being graded. "
    "Check whether this machine ran out of memory. The next run tries again."
)


class _Work(NamedTuple):
    """The arguments of `pool_process.grade`."""

    submission: Submission
    seed: str
    is_alone: bool


class Pool:
    """A pool of processes that grade a day's submissions. The first process starts immediately.

    If a process is killed, all submissions in progress or waiting are then graded one at a time. If a
    submission's process is killed again, the submission counts as not graded.
    """

    def __init__(self, day: Day, jobs: int, sandbox: Sandbox, use_results: bool = False) -> None:
        self.jobs = jobs
        self._use_results = use_results
        self._day, self._sandbox = day, sandbox
        self._lock = threading.RLock()  # protects `_closed`, `_executor` and starting processes
        self._closed = False
        self._one_by_one = ThreadPoolExecutor(1)  # starts a process, and grades lost submissions
        self._waiting: set[Callable[[], None]] = set()  # the unfinished work of `_one_by_one`
        self._unfinished: dict[Future[SubmissionMarks], _Work] = {}
        self._executor = self._processes(jobs)
        self._alone = self._processes(1)  # grades lost submissions; starts its process on demand
        self._isolation: Future[list[str]] = Future()
        # The first process starts once its imports are complete, so wait for it in another thread.
        self._queue(self._start_first, self._isolation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def isolation(self) -> list[list[str]]:
        """Wait until the first process is ready, and return this machine's isolation layers; see `Executor`."""
        return [self._isolation.result()]

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = False
    ) -> Future[SubmissionMarks]:
        """Return a future for a submission's marks; see `Executor`.

        Its `result` raises BrokenExecutor if processes are killed before they start grading.
        """
        future: Future[SubmissionMarks] = Future()
        work = _Work(submission, seed, is_alone)
        if self._waiting:
            # Wait until a process is up. Lost submissions finish first, so that each of them is graded alone.
            self._queue(lambda: self._send(work, future), future)
        else:
            self._send(work, future)
        return future

    def close(self) -> None:
        """Kill all processes."""
        self._kill_processes()
        while not self._lock.acquire(timeout=0.1):
            process_start.stop()  # a process is being started; make that fail
        try:
            self._closed = True
            self._kill_processes()
        finally:
            self._lock.release()
        self._executor.shutdown()
        self._alone.shutdown()
        self._one_by_one.shutdown()

    def _kill_processes(self) -> None:
        """Kill all pool processes. They have nothing to save, and a clean exit would wait for all their threads."""
        for executor in (self._executor, self._alone):
            for process in list((executor._processes or {}).values()):
                process.kill()

    def _processes(self, jobs: int) -> ProcessPoolExecutor:
        course = (
            self._day.root,
            self._day.name,
            self._sandbox,
            STANDBY.address,
            self._use_results,
            self._day.budget,
        )
        context = process_start.context(self.jobs)
        with protected_start():  # the executor starts multiprocessing's resource tracker
            return ProcessPoolExecutor(jobs, context, pool_process.start, course)

    def _start_first(self) -> None:
        isolation = self._submit(self._executor, pool_process.isolation)
        isolation.add_done_callback(lambda done: copy_outcome(done, self._isolation))

    def _submit(
        self, executor: ProcessPoolExecutor, function: Callable[..., T], *arguments: object
    ) -> Future[T]:
        """Submit a call to an executor, which starts processes on demand. Raises BrokenExecutor if the pool is closed."""
        with self._lock, protected_start():
            if self._closed:
                raise BrokenExecutor("the pool is closed")
            try:
                sent = executor.submit(function, *arguments)
            except (EOFError, OSError) as error:  # the process was killed while it was starting
                raise BrokenExecutor(f"a process could not be started: {error}") from None
        # If a process is killed during `submit`, Python 3.11 may never complete the future.
        if executor._broken:
            raise BrokenExecutor("a process was killed")
        return sent

    def _send(self, work: _Work, future: Future[SubmissionMarks]) -> None:
        """Grade a submission in the pool, and set the result of `future`."""

        def receive(done: Future[SubmissionMarks]) -> None:
            # Do not acquire `_lock`: the executor may hold its own lock here, but `_send` acquires that lock after `_lock`.
            if isinstance(done.exception(), BrokenExecutor) and not self._closed:
                self._queue(lambda: self._recover(executor))
            elif self._unfinished.pop(future, None):
                copy_outcome(done, future)

        with self._lock:
            executor = self._executor
            self._unfinished[future] = work
            try:
                sent = self._submit(executor, pool_process.grade, *work)
            except Exception as error:
                if isinstance(error, BrokenExecutor) and not self._closed:
                    self._queue(lambda: self._recover(executor))
                    return
                self._unfinished.pop(future, None)
                raise
        sent.add_done_callback(receive)

    def _queue(self, action: Callable[[], None], future: Future[Any] | None = None) -> None:
        """Call `action` in another thread, after all earlier actions. If it fails, `future` gets its exception."""

        def work() -> None:
            try:
                action()
            except Exception as error:
                if future is not None:
                    future.set_exception(error)
            finally:
                self._waiting.discard(work)

        self._waiting.add(work)
        with blocked_interrupts():
            self._one_by_one.submit(work)

    def _recover(self, broken: ProcessPoolExecutor) -> None:
        """Grade, one at a time, all submissions that were sent to a broken executor. Then replace the executor."""
        if self._executor is not broken:
            return
        self._kill_processes()
        while lost := self._next_lost():
            future, work = lost
            try:
                future.set_result(self._grade_lost(work))
            except Exception as error:
                future.set_exception(error)

    def _next_lost(self) -> tuple[Future[SubmissionMarks], _Work] | None:
        """Return the next submission that was sent to the broken executor, with its future.

        If none is left, replace the executor and return None.
        """
        with self._lock:
            for future in list(self._unfinished):
                if lost := self._unfinished.pop(future, None):
                    return future, lost
            self._kill_processes()
            self._executor = self._processes(self.jobs)
            return None

    def _grade_lost(self, work: _Work) -> SubmissionMarks:
        """Grade a submission while no other is being graded. If the process is killed, return marks without a grade."""
        try:
            isolation = self._submit(self._alone, pool_process.isolation).result()
        except BrokenExecutor:
            # The process was killed after an earlier submission.
            self._alone = self._processes(1)
            isolation = self._submit(self._alone, pool_process.isolation).result()
        try:
            return self._submit(self._alone, pool_process.grade, *work).result()
        except BrokenExecutor:
            if self._closed:
                raise
        course = course_version(self._day)
        return ungraded(work.submission, course, isolation, self._day.points, KILLED)


def copy_outcome(done: Future[T], future: Future[T]) -> None:
    """Copy the result or exception of a completed future to another future."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(error)
