"""Change a day's `include` setting in `grading.toml`, leaving the rest of the file unchanged. Entry point: `including`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import GRADING_TOML, Course, CourseError, Include
from autograder.course.output_files import write_atomically


@contextlib.contextmanager
def including(root: Path, day: str, include: Include) -> Iterator[Course]:
    """Set a day's `include` setting and yield the course. If the block raises an exception, restore the file.

    Grading also reads `include`, so only the released exercises are graded.

    Raises:
        CourseError: The day is unknown, has no table in the file, or has no exercises left.
    """
    file = root / GRADING_TOML
    before = file.read_bytes()
    courses.load(root).day(day)
    text = _with_include(before.decode("utf-8-sig"), day, include)
    mode = file.stat().st_mode
    try:
        _write(file, text.encode(), mode)
        yield courses.load(root)
    except BaseException:
        _write(file, before, mode)
        raise


def _write(file: Path, data: bytes, mode: int) -> None:
    if file.read_bytes() != data:
        write_atomically(file, data)
        file.chmod(mode)


def _with_include(text: str, day: str, include: str) -> str:
    """Return the text of `grading.toml` with `include` set in the day's table. Add an `include` line if there is none."""
    line = f'include = "{include}"'
    header = re.search(rf"^[ \t]*\[[ \t]*{re.escape(day)}[ \t]*\].*$", text, re.MULTILINE)
    if not header:
        raise CourseError(
            f"{GRADING_TOML} has no line [{day}]. Add {line} to the settings for this day manually."
        )
    rest = text[header.end() :]
    end = re.search(r"^[ \t]*\[", rest, re.MULTILINE)
    table = rest[: end.start()] if end else rest
    key = re.compile(r'^([ \t]*)include[ \t]*=[ \t]*("[^"\n]*"|\'[^\'\n]*\')', re.MULTILINE)
    changed, count = key.subn(rf"\g<1>{line}", table, count=1)
    changed = changed if count else f"\n{line}{table}"
    return text[: header.end()] + changed + rest[len(table) :]
