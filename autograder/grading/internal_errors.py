"""Log unexpected exceptions in the autograder with their tracebacks. Each exception affects only one submission."""

from __future__ import annotations

import contextlib
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from autograder.course.files import FileError
from autograder.course.state_folder import course_folder
from autograder.plain_text import escaped, printable

FILE = "errors.log"
MAX_SIZE = 10 << 20  # maximum size in bytes; a larger log gets no new entries


def log(root: Path, activity: str, error: BaseException) -> str:
    """Append an exception with its traceback to the course's log, and return a message.

    Students may read the message, so it contains neither the exception's text nor the course's path. It mentions the
    log only if the log could be written.
    """
    message = f"{activity}: internal error in the autograder ({type(error).__name__})"
    with contextlib.suppress(OSError, FileError):
        file = course_folder(root) / FILE
        # The exception's message may contain a student's text, which must not control the terminal that shows the log.
        text = escaped("".join(traceback.format_exception(error)), keep="\n").encode()
        head = f"{datetime.now(UTC).isoformat(timespec='seconds')} {printable(activity)}\n".encode()
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as opened:
            if opened.tell() < MAX_SIZE:
                # Use a single write, because several processes append to the same file.
                opened.write(head + text + b"\n")
        return f"{message}; the traceback is in {file.relative_to(root)}"
    return message


class WorkerKilled(Exception):
    """Raised when worker processes are killed before they start grading. Marks in the store remain there."""


class ClusterError(Exception):
    """Raised when a cluster cannot be used. The message explains what to do."""
