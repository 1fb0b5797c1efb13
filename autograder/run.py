"""A class → marks: what the store knows is taken from it, all else is graded, in processes with a fork server each."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from autograder import course as courses
from autograder import faults
from autograder.course import Day
from autograder.enrolment import enrolled
from autograder.grading import Grader, seed_of, start_server
from autograder.history import Basis, History, basis
from autograder.marks import SubmissionMarks
from autograder.reading import Reader
from autograder.roster import NO_ROSTER, Roster
from autograder.sandbox.client import NoIsolation, Sandbox, Server
from autograder.store import StoreError
from autograder.submission import Submission, submissions

AHEAD = 2  # submissions a process that are read before it is their turn


class Ended(Exception):
    """A process of the grader was ended from outside; what was stored until then is stored."""


@dataclass(frozen=True)
class Found:
    """A submission, and the path that was given when it was found."""

    submission: Submission
    under: Path


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a class, from 1; they have nothing in common, and all of it together."""

    number: int
    count: int

    @classmethod
    def named(cls, text: str) -> Self:
        """The part that "2/5" names.

        Raises:
            ValueError: it names none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text}: should be K/N, such as 2/5")
        return cls(int(match[1]), int(match[2]))

    def has(self, submission: Submission) -> bool:
        """Whether a submission is of this part; decided by its student's name, so on every machine alike."""
        digest = hashlib.sha256(submission.student.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1


def found(
    paths: Sequence[Path],
    day: str,
    reader: Reader,
    shard: Shard | None = None,
    roster: Roster = NO_ROSTER,
) -> Iterator[Found]:
    """What is found under the paths, in their order, under the roster's names."""
    for path in paths:
        for submission in submissions([path], day, reader):
            if shard is None or shard.has(submission):
                yield Found(enrolled(submission, roster), path)


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

    def grade(self, class_: Iterable[Found]) -> Iterator[SubmissionMarks]:
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

    def _as_they_come(self, class_: Iterable[Found]) -> Iterator[tuple[int, SubmissionMarks]]:
        """The same as they are done, each with its place in the class."""
        course = courses.fingerprint(self.day)
        day = self.day
        arguments = (day.root, day.name, self.secret, self.seed, self.sandbox)
        pool = ProcessPoolExecutor(
            self.jobs, multiprocessing.get_context("spawn"), _start_job, arguments
        )
        waiting: dict[Future[SubmissionMarks], tuple[int, Found, Basis]] = {}

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
                on = basis(day.name, submission, course, seed, isolation)
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

    def _store(self, on: Basis, marks: SubmissionMarks, handed_in: Found) -> None:
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
