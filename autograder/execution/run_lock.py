"""Provide a lock that lets a test run while no other tests of the course run on this machine. Entry point: `RunLock`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autograder.course.output_files import FileError
from autograder.course.state_folder import course_folder

FILES = ("turnstile.lock", "tests.lock")


class RunLock:
    """A readers-writer lock shared by all of a course's grader processes, using lock files in `.autograder/`.

    While a process waits for exclusive access, it holds the turnstile lock, so no other test can start and the wait is
    finite. The kernel releases a process's locks when it exits. Without a course or a writable folder, nothing is
    locked.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._files: tuple[int, int] | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock while a test runs alongside other tests. The caller must not already hold the lock."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock while a test runs alone. The caller must not already hold the lock."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        files = self._open()
        if files is None:
            yield
            return
        turnstile, tests = files
        with contextlib.suppress(OSError):  # some network file systems do not support locks
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            try:
                fcntl.flock(tests, mode)
            finally:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(tests, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int] | None:
        if self._files is None and self._root is not None:
            with contextlib.suppress(FileError, OSError):
                folder = course_folder(self._root)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                turnstile, tests = (os.open(folder / name, flags, 0o600) for name in FILES)
                self._files = turnstile, tests
        return self._files

    def __del__(self) -> None:
        for file in self._files or ():
            os.close(file)
