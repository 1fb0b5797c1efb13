"""Describe a student's objects and exceptions, even those that misbehave when inspected."""

from __future__ import annotations

import dis
import os
import traceback
from typing import Any

import numpy as np
import torch

from autograder.plain_text import escape_surrogates
from autograder.protocol import messages as m

MODULE = "submission"
SUBMISSION_FILE = "submission.py"

# If code reads the values of a `meta` tensor, torch's error message contains one of these strings. Other errors about
# devices, such as tensors on different devices, indicate a mistake in the code. The last string is a special case:
# `masked_fill` reads the value of a 0-dimensional CPU tensor, which works for tensors on a GPU but not on `meta`.
REFUSALS = (
    "Tensor.item() cannot be called on meta tensors",
    "Cannot copy out of meta tensor; no data!",
    "with Meta tensors, but there was no fake impl or Meta kernel registered",
    "The register_meta function for torch.nonzero() raises unimplemented",
    "can't convert meta device type tensor to numpy",
    "cannot repeat_interleave a meta tensor without output_size",
    "Not available for 'meta' device type",
    "to be on cpu, but it's on meta",
    "from the 'Meta' backend",
    "Expected `value` to be on same device as `a`",
)
# torch raises some of these errors in the following Python files. The others come from C++ code called by a Python
# frame.
RAISING_FILES = [
    os.path.join(os.path.dirname(torch.__file__), *file.split("/"))
    for file in (
        "_meta_registrations.py",
        "_refs/__init__.py",
        "nn/modules/module.py",
        "storage.py",
    )
]
# If a frame's last instruction is one of these, Python code raised the exception, directly or through a generator's
# `throw`.
RAISING_INSTRUCTIONS = (
    "RAISE_VARARGS",
    "RERAISE",
    "YIELD_VALUE",
    "RESUME",
    "SEND",
    "CLEANUP_THROW",
)


def kind_of(item: Any) -> str:
    """Return a description of an object's class, such as "a numpy.ndarray"."""
    kind = type(item)
    module = getattr(kind, "__module__", "")
    name = getattr(kind, "__name__", "object")
    where = "" if module in ("builtins", MODULE) else f"{module}."
    return escape_surrogates(f"a {where}{name}"[:200])


def opaque(item: Any) -> m.Value:
    """Convert a NumPy number, or an instance of a plain type's subclass, to a plain value. Describe any other object."""
    if isinstance(item, str):
        return str.__str__(
            item
        )  # unlike `str(item)`, returns the value of a member of a string enum
    for plain in (int, float):
        if isinstance(item, plain):
            return plain(item)
    if isinstance(item, np.complexfloating | complex):
        return m.Complex(float(item.real), float(item.imag))
    for numpy_kind, kind in ((np.bool_, bool), (np.integer, int), (np.floating, float)):
        if isinstance(item, numpy_kind):
            return kind(item)
    return m.Opaque(kind_of(item))


def text_of(error: BaseException) -> str:
    """Return an exception's message, truncated. Works even if `str(error)` raises an exception."""
    try:
        text = str(error)
    except BaseException as second:
        return f"(no message, because str() raised {name_of(type(second))})"
    text = escape_surrogates(text[: m.MAX_TEXT + 1])
    return text if len(text) <= m.MAX_TEXT else text[: m.MAX_TEXT - 1] + "…"


def name_of(kind: type) -> str:
    """Return a class's name, truncated."""
    return escape_surrogates(kind.__name__[:200])


def line_of(error: BaseException) -> int:
    """Return the last line number of student code in an exception's traceback, or 0."""
    if isinstance(error, SyntaxError) and error.filename == SUBMISSION_FILE:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == SUBMISSION_FILE), 0)


def is_meta_read(error: BaseException) -> bool:
    """Return whether torch itself raised this error because a `meta` tensor has no values.

    The message alone is not enough, because student code can fake it.
    """
    if type(error) not in (RuntimeError, NotImplementedError, TypeError):
        return False
    if not any(part in text_of(error) for part in REFUSALS):
        return False
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in RAISING_FILES:
            return True
        trace, last = trace.tb_next, trace
    if last is None:
        return False
    code = last.tb_frame.f_code.co_code
    return dis.opname[code[last.tb_lasti]] not in RAISING_INSTRUCTIONS
