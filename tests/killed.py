"""Kill a process with SIGKILL at a chosen moment: just before it executes its n-th line of code in the given files."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


def count_lines(action: Callable[[], object], files: Collection[str]) -> int:
    """Run an action in a separate process. Return how many lines of code in these files it executes."""
    lines, _ = _run(action, files, 0)
    return lines


def kill_at(line: int, action: Callable[[], object], files: Collection[str]) -> None:
    """Run an action in a separate process. Kill it just before it executes the `line`-th line of code from these files."""
    _, status = _run(action, files, line)
    assert os.WIFSIGNALED(status), "the process ended before it was killed"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _run(action: Callable[[], object], files: Collection[str], line: int) -> tuple[int, int]:
    """Run an action in a forked process. Return the number of lines executed (0 if killed) and the exit status."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reading)
            os.write(writing, str(_traced(action, files, line)).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        lines = int(pipe.read() or 0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the action failed; its traceback is above"
    return lines, status


def _traced(action: Callable[[], object], files: Collection[str], line: int) -> int:
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Trace | None:
        return count if frame.f_code.co_filename in files else None

    def count(frame: FrameType, event: str, argument: Any) -> Trace:
        nonlocal lines
        lines += event == "line"
        if event == "line" and lines == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return lines
