"""What is said of a student's objects and exceptions, whatever they do when they are asked."""

from __future__ import annotations

import traceback
from typing import Any

from autograder import messages as m

MODULE = "submission"
FILE = "submission.py"


def kind_of(item: Any) -> str:
    """An object's class, as in "a numpy.ndarray"."""
    kind = type(item)
    module = getattr(kind, "__module__", "")
    name = getattr(kind, "__name__", "object")
    where = "" if module in ("builtins", MODULE) else f"{module}."
    return m.encodable(f"a {where}{name}"[:200])


def opaque(item: Any) -> m.Value:
    """A plain value of a class of its own as that value, and all else as what it is in words."""
    if isinstance(item, bool | int | float | str):
        plain = next(kind for kind in (bool, int, float, str) if isinstance(item, kind))
        return plain(item)
    return m.Opaque(kind_of(item))


def text_of(error: BaseException) -> str:
    """An exception's message, cut; also of one whose message raises."""
    try:
        text = str(error)
    except BaseException as second:
        return f"(its message could not be made: {name_of(type(second))})"
    text = m.encodable(text[: m.MAX_TEXT + 1])
    return text if len(text) <= m.MAX_TEXT else text[: m.MAX_TEXT - 1] + "…"


def name_of(kind: type) -> str:
    """The name of a class, cut."""
    return m.encodable(kind.__name__[:200])


def line_of(error: BaseException) -> int:
    """The last line of the student's source that an exception went through, or 0."""
    if isinstance(error, SyntaxError) and error.filename == FILE:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == FILE), 0)
