"""Grade submissions in a pool of processes, each with its own fork server. Entry point: `Pool`.

This module does not import torch, so that the command line and its worker processes start quickly.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

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


class Pool:
    """A pool of processes that grade submissions for one day. The first process starts immediately."""

    def __init__(self, day: Day, jobs: int, sandbox: Sandbox) -> None:
        self.jobs = jobs
        self._executor = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), _start, (day.root, day.name, sandbox)
        )
        with blocked_interrupts():  # the executor starts processes on demand
            self._isolation = self._executor.submit(_isolation)

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
        """Return a future for a submission's marks. Its `result` raises BrokenExecutor if a pool process is killed."""
        with blocked_interrupts():
            return self._executor.submit(_grade, submission, seed)

    def close(self) -> None:
        """Kill all processes, because they have nothing to save and a clean exit takes longer."""
        for child in multiprocessing.active_children():
            child.kill()
        self._executor.shutdown()


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
