"""Write output files. If writing fails, the existing file is kept. Entry point: `open_output`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from autograder.course.state_folder import atomic_file, write_error


@contextlib.contextmanager
def open_output(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing. An existing file is replaced when the block ends, and is left unchanged if the block
    fails.

    Links and special files, such as `/dev/stdout`, are written directly. This also applies to files in a folder in which the
    user cannot create new files.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        with _open_new(file) as new:
            yield new
    except OSError as error:
        raise write_error(file, error) from None


def write_output(file: Path, data: bytes) -> None:
    """Write data to a file in the same way as `open_output`.

    Raises:
        StoreError: The file cannot be written.
    """
    with open_output(file) as new:
        new.write(data)


def make_folder(folder: Path, parents: bool = False) -> None:
    """Create a folder unless it exists.

    Raises:
        StoreError: The folder cannot be created.
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
