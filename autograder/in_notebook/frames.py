"""Hide the notebook's provided code in tracebacks. Entry points: `is_provided` and `hide_provided_code`."""

from __future__ import annotations

import sys
from types import CodeType, TracebackType

PROVIDED = "<provided: "  # how the names of the provided code's files begin


def is_provided(code: CodeType) -> bool:
    """Return whether code comes from the notebook's provided cell."""
    return code.co_filename.startswith(PROVIDED)


def hide_provided_code(error: BaseException) -> None:
    """Remove the provided code that called the student's code from an error's traceback."""
    notebook = vars(sys.modules["__main__"])
    shown: list[TracebackType] = []
    pending: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        pending.append(entry)
        frame = entry.tb_frame
        if frame.f_globals is notebook and not is_provided(frame.f_code):
            shown += [each for each in pending if not is_provided(each.tb_frame.f_code)]
            pending = []
        entry = entry.tb_next
    shown += pending  # the provided code raised the error, directly or in a library
    for entry, following in zip(shown, [*shown[1:], None], strict=True):
        entry.tb_next = following
