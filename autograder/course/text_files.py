"""Read the course's own text files, such as graders. Entry point: `read_text`."""

from __future__ import annotations

from pathlib import Path

from autograder.course.tables import CourseError


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
        raise CourseError(f"{file} cannot be read: {error}") from None
