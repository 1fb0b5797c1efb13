"""Stage a build of a day's folders, then swap them with the current folders. Entry points: `staging` and `publish`.

The staging folder is in `.autograder/builds/DAY/`. The release, nbgrader's source and the gradebook do not change until
the build is published. If the build is killed during publication, each of these is either entirely old or entirely new.
The next build replaces all of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.state_folder import course_folder
from autograder.release import gradebook

# A day's folders, in the order in which they are replaced.
FOLDERS = ("source", "assignments")
# Old folders are moved to this subfolder of the staging folder if they cannot be exchanged atomically.
REPLACED = "replaced"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # from <fcntl.h> and <linux/fs.h>


@contextlib.contextmanager
def staging(day: Day) -> Iterator[Path]:
    """Create an empty folder for a build and delete it afterwards. Also clean up after killed builds."""
    builds = course_folder(day.root) / "builds" / day.name
    try:
        builds.mkdir(parents=True, exist_ok=True)
        with (builds / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in filter(Path.is_dir, builds.iterdir()):
                _delete(folder, day)
            folder = Path(tempfile.mkdtemp(dir=builds))
            try:
                yield folder
            finally:
                _delete(folder, day)
    except BlockingIOError:
        raise CourseError(f"{day.name} is already being built by another process") from None
    except OSError as error:
        where = error.filename or builds
        raise CourseError(
            f"{day.name} was not built, and the release is unchanged: {where}: {error.strerror}"
        ) from None


def publish(day: Day, staged: Path, new_version: bool = False) -> list[str]:
    """Update the gradebook from a finished build, replace the day's folders, and return notes for the instructor."""
    notes = gradebook.update(day, staged / gradebook.GRADEBOOK_DB, new_version)
    for name in FOLDERS:
        target = day.root / name / day.name
        target.parent.mkdir(exist_ok=True)
        try:
            _replace(target, staged / name / day.name, staged / REPLACED / name)
        except OSError as error:
            raise CourseError(
                f"{target} could not be replaced and is unchanged: {error.strerror}. "
                "It must be on the same file system as .autograder/."
            ) from None
    return notes


def _replace(target: Path, new: Path, kept: Path) -> None:
    """Replace the folder `target` with `new`, atomically if possible.

    On file systems that cannot exchange two folders, such as NFS, `target` is briefly missing. If the process is killed
    at that moment, `_delete` restores `target`.
    """
    if not target.exists():
        new.rename(target)
        return
    try:
        _exchange(new, target)
    except OSError:
        kept.parent.mkdir(exist_ok=True)
        target.rename(kept)
        new.rename(target)


def _exchange(first: Path, second: Path) -> None:
    """Exchange two folders atomically. Raises OSError if that fails or is not supported."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError("the renameat2 system call is not available")
    paths = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _delete(folder: Path, day: Day) -> None:
    """Delete a staging folder after restoring any folder that was moved away but not replaced."""
    for name in FOLDERS:
        kept, target = folder / REPLACED / name, day.root / name / day.name
        if kept.exists() and not target.exists():
            kept.rename(target)
    shutil.rmtree(folder, ignore_errors=True)
