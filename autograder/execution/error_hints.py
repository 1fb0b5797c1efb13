"""Add possible causes to the messages of exceptions that student code raises. Entry point: `with_hint`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autograder.course.tables import UNITS
from autograder.execution.connection import StudentError
from autograder.in_notebook.error_advice import advice

# torch raises this error only if the tensor requires gradients.
CHANGED_LEAF = re.compile(r"leaf Variable that requires grad .{0,40}in-place operation")
CHANGES_ARGUMENT = "the code changes an argument or a parameter in place"
MODIFIED = "modified by an inplace operation"
NEW_TENSOR = "compute a new tensor, for example with `x = x / y` instead of `x /= y`"
# torch's messages about a failed allocation, most of which are not a MemoryError
ALLOCATION = re.compile(
    r"enforce fail at alloc_cpu|an't allocate memory|Cannot allocate memory|bad_alloc"
)
NOTEBOOK_VARIABLE = (
    "if this name is a notebook variable, pass it as an argument or store it in an attribute"
)
EXIT_NAME = re.compile(
    r"name '(exit|quit)' is not defined"
)  # only interactive Python defines these
NO_EXIT = "to leave a function, use `return` or raise an exception"


def without_allocation(text: str, bases: Sequence[str], memory: int) -> str:
    """Return an exception's message, or one that names the exercise's limit of `memory` bytes if memory ran out."""
    if "MemoryError" not in bases and not ALLOCATION.search(text):
        return text
    unit = next(unit for unit in reversed(UNITS) if memory >= UNITS[unit])
    return f"the exercise used more than {memory / UNITS[unit]:g} {unit} of memory"


def with_hint(error: StudentError, failed_import: str, memory: int) -> str:
    """Return the error's message, followed by a possible cause if one is known.

    `failed_import` is the message of the last import that failed, or "". `memory` is the exercise's limit in bytes.
    """
    reason = without_allocation(error.text, error.bases, memory)
    if reason != error.text:
        return f"{str(error).removesuffix(error.text).rstrip(': ')}: {reason}"
    if error.type == "NameError" and failed_import:
        return f"{error}; an import failed: {failed_import}"
    if error.type == "SystemExit" or EXIT_NAME.search(error.text):
        return f"{error}; this call ends Python; {NO_EXIT}"
    text = advice(error.type, error.text)
    if error.type == "NameError":
        return f"{error}; {text}; {NOTEBOOK_VARIABLE}"
    if CHANGED_LEAF.search(error.text):
        return f"{str(error).rstrip('.')}; {CHANGES_ARGUMENT}"
    if MODIFIED in error.text:  # The rest of the message is about torch's internals.
        return f"{str(error).partition(MODIFIED)[0]}{MODIFIED}; {NEW_TENSOR}"
    return f"{str(error).rstrip('.')}; {text}" if text else str(error)
