"""Read the course's own text files, such as graders. Entry points: `GRADING_TOML`, `CourseError` and `read_text`."""

from __future__ import annotations

from pathlib import Path

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
