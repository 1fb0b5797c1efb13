"""Private folders for processes that can have no tmpfs of their own: watched, and emptied whatever lies in them.

A file that is open or mapped while no name leads to it would not be seen. The filter of system calls therefore removes and
moves nothing in these folders (see `seccomp.LASTING`), and `remove_by_emptying` makes that bearable for honest code.
Entry point: `Folders`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

# Half of the 64 MB that a process may have at most, as it writes on until somebody looks.
BYTES = 32 << 20
ENTRIES = 4096
FILE_BYTES = 8 << 20
WATCH_SECONDS = 0.01


class Folders:
    """Gives each process a folder, and says which processes have put too much into theirs."""

    def __init__(self, uid: int, gid: int) -> None:
        self.root = tempfile.mkdtemp(prefix="autograder-")
        os.chown(self.root, uid, gid)
        self._count = 0
        self._of: dict[int, str] = {}

    def new(self) -> str:
        """An empty folder for the next process."""
        self._count += 1
        folder = os.path.join(self.root, str(self._count))
        os.mkdir(folder, 0o700)
        return folder

    def belongs(self, folder: str, pid: int) -> None:
        """The folder is that of this process."""
        self._of[pid] = folder

    def overfull(self) -> list[int]:
        """Processes whose folders are beyond the limits."""
        return [pid for pid, folder in self._of.items() if not _fits(folder)]

    def remove(self, pid: int) -> None:
        """Remove the folder of a process that has ended."""
        folder = self._of.pop(pid, None)
        if folder is not None:
            with contextlib.suppress(OSError):  # `close` tries again
                remove(folder)

    def close(self) -> None:
        """Remove all."""
        for pid in list(self._of):
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
        return True  # it is being changed; the next look counts
    except OSError:
        return False  # a folder closed to us, or nested too deeply: no honest program does that
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
    """Remove a folder, however deep what lies in it and whatever its modes and names.

    Folders in folders are moved out first: paths stay short and nothing recurses.
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


# ---- inside a process whose files last


def remove_by_emptying() -> None:
    """Let Python's own functions give back the space of what is removed or moved; the empty files keep their names."""
    os.remove = os.unlink = _empty  # type: ignore[assignment]
    os.rename = os.replace = _copy  # type: ignore[assignment]


def _empty(path: str, *, dir_fd: int | None = None) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, dir_fd=dir_fd))


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new)
    _empty(source)
