"""Keep the tests of all grader processes of a course apart from one that has to run alone. Entry point: `Turns`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autograder.course.state_folder import StoreError, course_folder

FILES = ("turnstile.lock", "tests.lock")


class Turns:
    """Locks in the course's `.autograder/`: many may hold `beside` at a time, `alone` excludes all others.

    A process that waits for `alone` keeps the turnstile closed: no `beside` begins meanwhile, so every wait ends. The kernel
    releases the locks of a process that ends. Without a course, and where its folder cannot be written, there are no locks.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._files: tuple[int, int] | None = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Run a test while others run theirs; not to be called while `alone` is held."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run a test while no other one runs; not to be called while `beside` is held."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        files = self._open()
        if files is None:
            yield
            return
        turnstile, tests = files
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(tests, how)
        finally:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(tests, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int] | None:
        if self._files is None and self._root is not None:
            with contextlib.suppress(StoreError, OSError):
                folder = course_folder(self._root)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                turnstile, tests = (os.open(folder / name, flags, 0o600) for name in FILES)
                self._files = turnstile, tests
        return self._files

    def __del__(self) -> None:
        for file in self._files or ():
            os.close(file)
