"""What is said of a student's objects and exceptions, whatever they do when they are asked."""

from __future__ import annotations

import dis
import os
import traceback
from typing import Any

import torch

from autograder.protocol import messages as m

MODULE = "submission"
FILE = "submission.py"

# How torch refuses to read values on `meta`, with the types that it raises. Its other messages about
# devices, such as those about tensors on two of them, are about a mistake.
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
)
# Where torch raises them in Python. Elsewhere it raises in C++, below a frame that only made a call.
RAISERS = [
    os.path.join(os.path.dirname(torch.__file__), *file.split("/"))
    for file in ("_meta_registrations.py", "nn/modules/module.py", "storage.py")
]
# A frame that ends with one of these raised in Python: by itself or by `throw` into a generator.
RAISES = ("RAISE_VARARGS", "RERAISE", "YIELD_VALUE", "RESUME", "SEND", "CLEANUP_THROW")


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


def is_meta_read(error: BaseException) -> bool:
    """Whether torch itself raised this, because a tensor on `meta` has no values to read; a message alone does not count."""
    if type(error) not in (RuntimeError, NotImplementedError, TypeError):
        return False
    if not any(form in text_of(error) for form in REFUSALS):
        return False
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in RAISERS:
            return True
        trace, last = trace.tb_next, trace
    if last is None:
        return False
    code = last.tb_frame.f_code.co_code
    return dis.opname[code[last.tb_lasti]] not in RAISES
