"""Faults of the autograder itself: each is contained to one submission, and its traceback is logged for the maintainers."""

from __future__ import annotations

import contextlib
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from autograder.course.state_folder import StoreError, course_folder
from autograder.marks.model import one_line

FILE = "errors.log"
LARGEST = 10 << 20  # bytes of the log, after which no more is written


def log(root: Path, doing: str, error: BaseException) -> str:
    """Append an exception with its traceback to the course's log; return a sentence for the TA."""
    what = f"{doing}: a fault of the autograder ({one_line(repr(error))[:200]})"
    with contextlib.suppress(OSError, StoreError):
        file = course_folder(root) / FILE
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
        head = f"{datetime.now(UTC).isoformat(timespec='seconds')} {one_line(doing)}\n".encode()
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as opened:
            if opened.tell() < LARGEST:
                opened.write(head + text + b"\n")  # at once, as other processes append as well
        return f"{what}; its traceback is in {file}"
    return what
