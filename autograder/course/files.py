"""Read and write files, and turn their errors into messages. Entry points: `CourseError`, `FileError`, `read_text`, `writing`,
`open_output` and `write_output`.
"""

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


class FileError(Exception):
    """Raised when a file cannot be read or written. The message gives the reason."""


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Convert errors while a file is read to a CourseError."""
    try:
        yield
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{file} cannot be read: it is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Convert errors while a file or folder is written to a FileError."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{file} cannot be written: {error.strerror}") from None


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file of the course. Raises CourseError if the file cannot be read."""
    with reading(file):
        return file.read_text(encoding="utf-8")


@contextlib.contextmanager
def open_output(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing. An existing file is replaced when the block ends, and is left unchanged if the block fails.

    Links and special files, such as `/dev/stdout`, are written directly. This also applies to files in a folder in which the
    user cannot create new files. Raises FileError if the file cannot be written.
    """
    with writing(file), _open_new(file) as new:
        yield new


def write_output(file: Path, data: bytes) -> None:
    """Write data to a file; see `open_output`."""
    with open_output(file) as new:
        new.write(data)


def make_folder(folder: Path, parents: bool = False) -> None:
    """Create a folder unless it exists. Raises FileError if this fails."""
    with writing(folder):
        folder.mkdir(parents=parents, exist_ok=True)


def _open_new(file: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        return atomic_file(file, 0o666 & ~umask)
    if not stat.S_ISREG(mode) or not os.access(file.parent, os.W_OK):
        return file.open("wb")
    # Fail if the user made the file read-only, because `os.replace` would replace it anyway.
    os.close(os.open(file, os.O_WRONLY))
    return atomic_file(file, stat.S_IMODE(mode))


def write_atomically(
    file: Path, data: bytes, publish: Callable[[str, Path], None] = os.replace
) -> None:
    """Write a file (mode 0600) that appears under its name only when it is complete.

    `publish` moves the complete file into place: `os.replace` overwrites an existing file, whereas `os.link` raises
    FileExistsError.
    """
    with atomic_file(file, 0o600, publish) as new:
        new.write(data)


@contextlib.contextmanager
def atomic_file(
    file: Path, mode: int, publish: Callable[[str, Path], None] = os.replace
) -> Iterator[BinaryIO]:
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix="part-")
    try:
        with os.fdopen(descriptor, "wb") as new:
            os.fchmod(descriptor, mode)
            yield new
        publish(part, file)
    finally:
        Path(part).unlink(missing_ok=True)
