"""What commands say on stderr, and the files that they read and write."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autograder.sandbox.client import Sandbox

if TYPE_CHECKING:
    from autograder.course.state_folder import StoreError
    from autograder.marks.model import Marks, SubmissionMarks


def saying_once() -> Callable[[StoreError], None]:
    """Says what the store refuses, each thing once."""
    said: set[str] = set()

    def tell(error: StoreError) -> None:
        if str(error) not in said:
            said.add(str(error))
            say(str(error))

    return tell


def warn(sandbox: Sandbox) -> None:
    """Be loud where student code runs without isolation."""
    if sandbox == "none":
        user = "root" if os.geteuid() == 0 else "you"
        say(f"WITHOUT ISOLATION: what students wrote can read, change and send whatever {user} can")


def read_marks(file: Path, day: str) -> Marks:
    """The marks of a day from what `--json` wrote.

    Raises:
        CourseError: it can not be read, or holds none of this day.
    """
    from autograder.course.config import CourseError
    from autograder.marks import model

    try:
        return model.decode(file.read_bytes(), day)
    except OSError as error:
        raise CourseError(f"{file} can not be read: {error.strerror}") from None
    except model.InvalidMarks as error:
        raise CourseError(f"{file} {error}") from None


def write_marks(file: Path, day: str, submissions: Sequence[SubmissionMarks]) -> None:
    """Write the marks as JSON.

    Raises:
        StoreError: the file can not be written.
    """
    from autograder.course.state_folder import unwritable
    from autograder.marks import model

    try:
        with open(file, "wb") as new:
            new.writelines(model.encode(day, submissions))
    except OSError as error:
        raise unwritable(file, error) from None


def check_file(file: Path) -> None:
    """Check that a file can be written, before the work rather than after it."""
    if file.is_dir() or not file.parent.is_dir():
        raise typer.BadParameter(
            f"{file} can not be written: there is no such folder, or it is one"
        )


def check_folder(folder: Path | None) -> None:
    """Check that a folder is there or can be made, before the work rather than after it."""
    if folder and (folder.is_file() or not folder.parent.is_dir()):
        raise typer.BadParameter(f"{folder} can not be made: it is a file, or stands in no folder")


def say(text: str) -> None:
    """One line on stderr."""
    print(f"autograder: {text}", file=sys.stderr)
