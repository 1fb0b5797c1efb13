"""Read and write files in the course's `.autograder/` folder. Entry points: `secret`, `read_cache` and `write_cache`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

T = TypeVar("T")
VARIABLE = "AUTOGRADER_SECRET"
VERSION = re.compile(r"-[0-9a-f]{16}\b")  # in the names of caches
KEPT_VERSIONS = 3


class StoreError(Exception):
    """Raised when a file in `.autograder/` cannot be read or written. The message gives the reason."""


def write_error(file: Path, error: OSError) -> StoreError:
    """Convert an OSError to a `StoreError`."""
    return StoreError(f"{file} cannot be written: {error.strerror}")


@contextlib.contextmanager
def store_errors(file: Path, action: str, advice: str = "") -> Iterator[None]:
    """Convert SQLite and file-system errors to a StoreError with a one-sentence message, plus advice if `file` is damaged."""
    try:
        yield
    except sqlite3.OperationalError as error:  # e.g. the database is locked or read-only
        raise StoreError(f"{file} cannot be {action}: {error}") from None
    # In a damaged database, text and even SQLite's own messages may not be UTF-8, and times may not be dates.
    except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError) as error:
        raise StoreError(f"{file} is damaged: {error}. {advice}".rstrip()) from None
    except OSError as error:
        raise write_error(file, error) from None


def course_folder(root: Path) -> Path:
    """Return the course's `.autograder/` folder, and create it if it does not exist.

    Raises:
        StoreError: The folder cannot be created.
    """
    folder = root / ".autograder"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from None
    return folder


def secret(root: Path) -> bytes:
    """Return the secret from which each submission's random seed is derived.

    The secret is the value of `AUTOGRADER_SECRET`, or else the content of a file (mode 0600) that is created on first use.

    Raises:
        StoreError: The file is empty, or it cannot be read or created.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    file = course_folder(root) / "secret"
    try:
        if not file.exists():
            with contextlib.suppress(FileExistsError):  # Another process created the file first.
                write_atomically(file, secrets.token_hex(32).encode(), os.link)
    except OSError as error:
        raise write_error(file, error) from None
    try:
        found = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from None
    if not found.strip():
        raise StoreError(
            f"{file} is empty, so students could predict test inputs. Restore it from a backup to keep the inputs "
            "of earlier runs, or delete it to create a new one"
        )
    return found


def read_cache(root: Path, name: str) -> bytes | None:
    """Return the data cached under this name, or None if the cache file is missing or unreadable."""
    try:
        return (course_folder(root) / name).read_bytes()
    except (StoreError, OSError):
        return None


def open_cache(root: Path, name: str) -> BinaryIO | None:
    """Open the file cached under this name for reading, or return None if it is missing or unreadable."""
    try:
        return (course_folder(root) / name).open("rb")
    except (StoreError, OSError):
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

    If the name contains a version, keep only the `KEPT_VERSIONS` newest files of its kind. Each change to a course creates
    a new version.
    """
    with contextlib.suppress(StoreError, OSError):
        folder = course_folder(root)
        write_atomically(folder / name, data)
        kind, *version = VERSION.split(name, 1)
        if version:
            versions = [f for f in folder.glob(f"{kind}-*") if VERSION.split(f.name, 1)[0] == kind]
            versions.sort(key=lambda file: file.stat().st_mtime_ns)
            for file in versions[:-KEPT_VERSIONS]:
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def computation_lock(root: Path, name: str) -> Iterator[None]:
    """Lock a name, so that only one process at a time computes the data cached under it. Other names are not locked.

    Callers should read the cache again after acquiring the lock, because another process may have written it in the
    meantime. If the folder is not writable, nothing is locked.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StoreError, OSError):
            file = stack.enter_context((course_folder(root) / "computing.lock").open("wb"))
            # The lock for each name is one byte of this file, so that one file is enough for all names.
            fcntl.lockf(file, fcntl.LOCK_EX, 1, zlib.crc32(name.encode()))
        yield


def write_atomically(
    file: Path, data: bytes, publish: Callable[[str, Path], None] = os.replace
) -> None:
    """Write a file (mode 0600) atomically; see `atomic_file`."""
    with atomic_file(file, 0o600, publish) as new:
        new.write(data)


@contextlib.contextmanager
def atomic_file(
    file: Path, mode: int, publish: Callable[[str, Path], None] = os.replace
) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when it is complete. If the block fails, nothing is changed.

    `publish` moves the complete file into place: `os.replace` overwrites an existing file, whereas `os.link` raises
    FileExistsError.
    """
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix="part-")
    try:
        with os.fdopen(descriptor, "wb") as new:
            os.fchmod(descriptor, mode)
            yield new
        publish(part, file)
    finally:
        Path(part).unlink(missing_ok=True)
