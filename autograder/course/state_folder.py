"""Read and write files in the course's `.autograder/` folder. Entry points: `secret`, `read_cache` and `write_cache`."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import re
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from autograder.course.files import FileError, write_atomically, writing

T = TypeVar("T")
VARIABLE = "AUTOGRADER_SECRET"
VERSION = re.compile(r"-[0-9a-f]{16}\b")  # in the names of caches
KEPT_VERSIONS = 3


@contextlib.contextmanager
def store_errors(file: Path, action: str, advice: str = "") -> Iterator[None]:
    """Convert SQLite and file-system errors to a FileError with a one-sentence message, plus advice if `file` is damaged."""
    try:
        with writing(file):
            yield
    except sqlite3.OperationalError as error:  # e.g. the database is locked or read-only
        raise FileError(f"{file} cannot be {action}: {error}") from None
    # In a damaged database, text and even SQLite's own messages may not be UTF-8, and times may not be dates.
    except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError) as error:
        raise FileError(f"{file} is damaged: {error}. {advice}".rstrip()) from None


def course_folder(root: Path) -> Path:
    """Return the course's `.autograder/` folder, and create it if it does not exist. Raises FileError if this fails."""
    folder = root / ".autograder"
    with writing(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def secret(root: Path) -> bytes:
    """Return the secret from which each submission's random seed is derived.

    The secret is the value of `AUTOGRADER_SECRET`. If this is not set, it is the content of a file (mode 0600) that is created
    on first use. Raises FileError if the file is empty, or cannot be read or created.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    file = course_folder(root) / "secret"
    with writing(file), contextlib.suppress(FileExistsError):  # another process created it first
        if not file.exists():
            write_atomically(file, secrets.token_hex(32).encode(), os.link)
    try:
        found = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}") from None
    if not found.strip():
        raise FileError(
            f"{file} is empty, so students could predict test inputs. Restore it from a backup to keep the inputs "
            "of earlier runs, or delete it to create a new one"
        )
    return found


def read_cache(root: Path, name: str) -> bytes | None:
    """Return the data cached under this name, or None if the cache file is missing or unreadable."""
    try:
        return (course_folder(root) / name).read_bytes()
    except (FileError, OSError):
        return None


def read_json_cache(root: Path, name: str, kind: type[T]) -> T | None:
    """Return the JSON value cached under this name, or None if the cache file is missing, unreadable or damaged."""
    data = read_cache(root, name)
    try:
        return None if data is None else msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None


def write_cache(root: Path, name: str, data: bytes) -> None:
    """Cache data that can be recomputed. Do nothing if the folder is not writable.

    If the name contains a version, keep only the `KEPT_VERSIONS` newest versions of the file. Each change to a course
    creates a new version.
    """
    with contextlib.suppress(FileError, OSError):
        folder = course_folder(root)
        write_atomically(folder / name, data)
        kind, *version = VERSION.split(name, 1)
        if version:
            versions = [f for f in folder.glob(f"{kind}-*") if VERSION.split(f.name, 1)[0] == kind]
            versions.sort(key=lambda file: file.stat().st_mtime_ns)
            for file in versions[:-KEPT_VERSIONS]:
                file.unlink(missing_ok=True)


def compute_once(
    root: Path, name: str, read: Callable[[], T | None], compute: Callable[[], T]
) -> T:
    """Return the data cached under this name. If it is missing, only one process at a time computes it.

    Other processes wait for the result. If the folder is not writable, all of them compute it. `compute` also caches the
    data. It must not call `compute_once`, because closing the lock's file releases all of this process's locks on it.
    """
    found = read()
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileError, OSError):
            file = stack.enter_context((course_folder(root) / "computing.lock").open("wb"))
            # The lock for each name is one byte of this file, so that one file is enough for all names.
            fcntl.lockf(file, fcntl.LOCK_EX, 1, zlib.crc32(name.encode()))
        found = read()  # another process may have computed it in the meantime
        return compute() if found is None else found


def login() -> str:
    """Return the name of this process's user, or the user's id if there is no name, which is common in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
