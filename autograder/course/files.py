"""Read the course's own text files, such as graders. Entry points: `GRADING_TOML`, `CourseError` and `read_text`."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

GRADING_TOML = "grading.toml"


class CourseError(Exception):
    """Raised when the course's own files are invalid. The message fits on one line."""


def read_text(file: Path) -> str:
    """Return the text of a course file, which must be encoded in UTF-8.

    Raises:
        CourseError: The file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{file} cannot be read: it is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None


class FileError(Exception):
    """Raised when a file cannot be read or written. The message gives the reason."""


def write_error(file: Path, error: OSError) -> FileError:
    """Convert an OSError to a `FileError`."""
    return FileError(f"{file} cannot be written: {error.strerror}")


@contextlib.contextmanager
def open_output(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing. An existing file is replaced when the block ends, and is left unchanged if the block
    fails.

    Links and special files, such as `/dev/stdout`, are written directly. This also applies to files in a folder in which the
    user cannot create new files.

    Raises:
        FileError: The file cannot be written.
    """
    try:
        with _open_new(file) as new:
            yield new
    except OSError as error:
        raise write_error(file, error) from None


def write_output(file: Path, data: bytes) -> None:
    """Write data to a file. See `open_output` about links, special files and failures.

    Raises:
        FileError: The file cannot be written.
    """
    with open_output(file) as new:
        new.write(data)


def make_folder(folder: Path, parents: bool = False) -> None:
    """Create a folder unless it exists.

    Raises:
        FileError: The folder cannot be created.
    """
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from None


def _open_new(file: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return atomic_file(file, 0o666 & ~_umask())
    if not stat.S_ISREG(mode) or not os.access(file.parent, os.W_OK):
        return file.open("wb")
    # Fail if the user made the file read-only, because `os.replace` would replace it anyway.
    os.close(os.open(file, os.O_WRONLY))
    return atomic_file(file, stat.S_IMODE(mode))


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


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
