"""A class → marks: what the store knows is taken from it, all else is graded, in processes with a fork server each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.state_folder import StoreError
from autograder.grading import faults
from autograder.grading.grader import Grader, seed_of, start_server
from autograder.marks.history import Basis, History, basis_of
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.errors import NoIsolation
from autograder.submissions.class_source import FoundSubmission
from autograder.submissions.submission import Submission

AHEAD = 2  # submissions a process that are read before it is their turn


class Ended(Exception):
    """A process of the grader was ended from outside; what was stored until then is stored."""


@dataclass
class Run:
    """One run over a class. Marks depend neither on `jobs` nor on the order, nor on what is known already."""

    day: Day
    secret: bytes
    jobs: int = 1
    seed: str | None = None
    sandbox: Sandbox = "required"
    history: History | None = None
    force: bool = False  # grades again what is known
    is_current: bool = True  # its marks count from now on
    on_trouble: Callable[[StoreError], None] = lambda error: None
    known: int = 0  # submissions that were not graded again
    unstored: int = 0  # submissions whose marks are not in the store, for it refused them

    def grade(self, class_: Iterable[FoundSubmission]) -> Iterator[SubmissionMarks]:
        """The marks of a class in its order; each is in the store as soon as it is made.

        Raises:
            NoIsolation: the machine gives too little of it; nothing was run.
            Ended: a process of the grader was ended from outside.
        """
        ready: dict[int, SubmissionMarks] = {}
        due = 0
        for number, marks in self._as_they_come(class_):
            ready[number] = marks
            while due in ready:
                yield ready.pop(due)
                due += 1

    def _as_they_come(
        self, class_: Iterable[FoundSubmission]
    ) -> Iterator[tuple[int, SubmissionMarks]]:
        """The same as they are done, each with its place in the class."""
        course = courses.fingerprint(self.day)
        day = self.day
        arguments = (day.root, day.name, self.secret, self.seed, self.sandbox)
        pool = ProcessPoolExecutor(
            self.jobs, multiprocessing.get_context("spawn"), _start_job, arguments
        )
        waiting: dict[Future[SubmissionMarks], tuple[int, FoundSubmission, Basis]] = {}

        def done(when: str) -> Iterator[tuple[int, SubmissionMarks]]:
            for future in wait(waiting, return_when=when).done:
                number, handed_in, on = waiting.pop(future)
                marks = future.result()
                # What a fault kept from being graded is graded again next time.
                if marks.exercises or not handed_in.submission.readable:
                    # Read there, and not here: somebody may edit the course in the meantime.
                    self._store(replace(on, course=marks.course), marks, handed_in)
                yield number, marks

        try:
            isolation = pool.submit(_isolation).result()
            for number, handed_in in enumerate(class_):
                submission = handed_in.submission
                seed = self.seed or seed_of(day.name, self.secret, submission)
                on = basis_of(day.name, submission, course, seed, isolation)
                marks = None if self.force else self._known(on, submission)
                if marks is not None:
                    self.known += 1
                    self._store(on, marks, handed_in)
                    yield number, marks
                    continue
                waiting[pool.submit(_grade_one, submission)] = number, handed_in, on
                if len(waiting) >= AHEAD * self.jobs:
                    yield from done(FIRST_COMPLETED)
            while waiting:
                yield from done(FIRST_COMPLETED)
        except BrokenProcessPool:
            text = "a process of the grader was ended from outside; is there enough memory? Run it again: it goes on where it was"
            raise Ended(text) from None
        finally:
            if waiting:  # the run ends early
                for child in multiprocessing.active_children():
                    child.kill()
            pool.shutdown()

    def _known(self, on: Basis, submission: Submission) -> SubmissionMarks | None:
        if self.history is None:
            return None
        try:
            return self.history.find(on, submission)
        except StoreError as error:
            self.on_trouble(error)
            return None

    def _store(self, on: Basis, marks: SubmissionMarks, handed_in: FoundSubmission) -> None:
        """A store that refuses marks costs nobody theirs: they are yielded all the same."""
        if self.history is None:
            return
        try:
            self.history.add(on, marks, handed_in.under, self.is_current)
        except StoreError as error:
            self.unstored += 1
            self.on_trouble(error)
        except Exception as error:
            self.unstored += 1
            doing = f"storing the marks of {marks.student}"
            self.on_trouble(StoreError(faults.log(self.day.root, doing, error)))


# ---- in a process of its own

_server: Server | NoIsolation | None = None
_grader: Grader | None = None
_course: tuple[Path, str, bytes, str | None]


def _start_job(root: Path, day: str, secret: bytes, seed: str | None, sandbox: Sandbox) -> None:
    global _course, _server
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _course = root, day, secret, seed
    try:
        _server = start_server(sandbox)
    except NoIsolation as error:
        _server = error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _isolation() -> list[str]:
    if not isinstance(_server, Server):
        assert _server is not None
        raise _server
    return _server.isolation


def _grade_one(submission: Submission) -> SubmissionMarks:
    global _grader
    if _grader is None:
        root, day, secret, seed = _course
        assert isinstance(_server, Server)
        _grader = Grader(courses.load(root).day(day), _server, secret, seed)
    try:
        return _grader.grade(submission)
    except NoIsolation:
        raise
    except Exception as error:
        return _grader.ungraded(submission, error)
