"""Manage private folders, and limit their size, for processes without their own tmpfs. Entry point: `Folders`.

The size check cannot see an unnamed file that is open or mapped. The system call filter therefore prevents files in
these folders from being removed or moved (see `seccomp.REMOVING`). `remove_by_emptying` patches Python's functions
accordingly: `os.remove` empties the file, and `os.rename` copies the file and empties the original.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

# Half of the 64 MB that a process may use, because it can keep writing until the next check.
BYTES = 32 << 20
ENTRIES = 4096
FILE_BYTES = 8 << 20
WATCH_SECONDS = 0.01


class Folders:
    """The private folders of all processes, with limits on size and number of entries."""

    def __init__(self, uid: int, gid: int) -> None:
        self.root = tempfile.mkdtemp(prefix="autograder-")
        os.chown(self.root, uid, gid)
        self._by_pid: dict[int, str] = {}

    def create(self) -> str:
        """Create an empty folder for the next process and return its path."""
        return tempfile.mkdtemp(dir=self.root)  # other processes cannot guess its name

    def assign(self, folder: str, pid: int) -> None:
        """Record that a folder belongs to a process."""
        self._by_pid[pid] = folder

    @property
    def pids(self) -> list[int]:
        """Return the ids of the processes that have a private folder."""
        return list(self._by_pid)

    def overfull(self) -> list[int]:
        """Return the processes whose folders exceed the limits."""
        return [pid for pid, folder in self._by_pid.items() if not _fits(folder)]

    def remove(self, pid: int) -> None:
        """Remove a finished process's folder."""
        folder = self._by_pid.pop(pid, None)
        if folder is not None:
            with contextlib.suppress(OSError):  # `close` will try again
                remove(folder)

    def close(self) -> None:
        """Remove all folders."""
        for pid in list(self._by_pid):
            self.remove(pid)
        shutil.rmtree(self.root, ignore_errors=True)


def _fits(folder: str) -> bool:
    size = 0
    try:
        for count, used in enumerate(_blocks(folder)):
            size += used
            if size > BYTES or count >= ENTRIES:
                return False
    except FileNotFoundError:
        return True  # the folder is being modified, so wait for the next check
    except OSError:
        return False  # ordinary programs do not make folders unreadable or nest them this deeply
    return True


def _blocks(folder: str) -> Iterator[int]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def remove(folder: str) -> None:
    """Remove a folder, regardless of its nesting depth and its files' names and modes.

    Nested folders are first moved to the top level, to keep paths short and avoid recursion.
    """
    beside = tempfile.mkdtemp(dir=os.path.dirname(folder))
    waiting, moved = [folder], 0
    while waiting:
        path = waiting.pop()
        os.chmod(path, 0o700)
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                moved += 1
                place = os.path.join(beside, str(moved))
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, place)
                waiting.append(place)
            else:
                os.unlink(entry.path)
        os.rmdir(path)
    os.rmdir(beside)


# ---- inside a process whose files cannot be removed


def remove_by_emptying() -> None:
    """Patch `os` so that removing or moving a file frees its space but leaves an empty file behind."""
    os.remove = os.unlink = _empty  # type: ignore[assignment]
    os.rename = os.replace = _copy  # type: ignore[assignment]


def _empty(path: str, *, dir_fd: int | None = None) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, dir_fd=dir_fd))


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new)
    _empty(source)
