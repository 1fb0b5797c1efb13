"""What the course keeps beside itself in `.autograder/`: the secret, and what is found once a course."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "AUTOGRADER_SECRET"


class StoreError(Exception):
    """What is kept in `.autograder/` can not be read or written; the text says what and why in a sentence."""


def unwritable(file: Path, error: OSError) -> StoreError:
    """The same as a `StoreError`."""
    return StoreError(f"{file} can not be written: {error.strerror}")


def course_folder(root: Path) -> Path:
    """The folder, made when it is first needed.

    Raises:
        StoreError: it can not be made.
    """
    folder = root / ".autograder"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


def secret(root: Path) -> bytes:
    """The secret that inputs are drawn by: `AUTOGRADER_SECRET`, or the file made by the first build or grade (0600).

    Raises:
        StoreError: it can not be read, or made.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    file = course_folder(root) / "secret"
    try:
        if not file.exists():
            with contextlib.suppress(FileExistsError):  # another one was first
                _write(file, secrets.token_hex(32).encode(), os.link)
        return file.read_bytes()
    except OSError as error:
        raise unwritable(file, error) from None


def keep(file: Path, data: bytes) -> None:
    """Keep what was found, where it can be kept: it is found again where it can not."""
    with contextlib.suppress(OSError):
        _write(file, data, os.replace)


def _write(file: Path, data: bytes, put: Callable[[str, Path], None]) -> None:
    """Whole or not at all, as this may be killed, and others may do the same at this moment."""
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix="part-")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(data)
        put(part, file)
    finally:
        Path(part).unlink(missing_ok=True)
