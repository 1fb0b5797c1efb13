"""Find forbidden functions in the student's code for an exercise. Entry point: `not_allowed`."""

from __future__ import annotations

import dis
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

from autograder.in_notebook.helper_names import EXERCISES, HELPERS
from autograder.in_notebook.hints import ignoring_errors

NOT_ALLOWED: dict[str, frozenset[str]] = {}  # exercise → names of functions and classes


def not_allowed(exercise: str) -> list[str]:
    """Return the forbidden names that the student's code for an exercise mentions, directly or in helper functions."""
    with ignoring_errors():  # errors here must not affect the check
        return sorted(NOT_ALLOWED.get(exercise, frozenset()) & _names_read(exercise))
    return []


def _names_read(exercise: str) -> set[str]:
    """Return the names of functions, base classes and attributes that an exercise's code reads.

    Names that the student defined are omitted.
    """
    notebook = vars(sys.modules["__main__"])
    read: set[str] = set()
    own: set[str] = set()  # the student's attributes and methods, such as `self.layer_norm`
    functions = [exercise]
    for function in functions:
        definition = notebook.get(function)
        if isinstance(definition, type):
            own.update(dir(definition))
            read |= {c.__name__ for c in definition.__mro__ if c.__module__ != "__main__"}
        for step in _instructions(definition):
            name = step.argval
            if step.opname == "STORE_ATTR":
                own.add(name)
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                read.add(name)
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name not in EXERCISES:
                value = notebook.get(name)
                if getattr(value, "__module__", "") != "__main__":
                    read.add(getattr(value, "__name__", name))
                elif name not in functions and name not in HELPERS:
                    functions.append(name)
    return read - own


def _instructions(value: Any) -> Iterator[dis.Instruction]:
    """Yield the instructions of a function or of a class's methods, including nested functions."""
    members = vars(value).values() if isinstance(value, type) else [value]
    functions = [getattr(member, "fget", member) for member in members]
    codes = [getattr(inspect.unwrap(function), "__code__", None) for function in functions]
    for code in codes:
        if isinstance(code, types.CodeType):
            codes += code.co_consts
            yield from dis.get_instructions(code)
