"""Make the checks and their helpers work even if the notebook redefines a name that they use, such as `sum` or `results`.

Student code keeps its own definitions, for example the `float` that `from torch import *` defines.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

EXERCISES: dict[str, tuple[str, float, int]] = {}  # name → chapter, points, minutes
HELPERS: dict[str, Any] = {}  # the objects that the helpers use, by name
_hidden: list[dict[str, Any]] = []  # the hidden variables, or empty if none are hidden


@contextlib.contextmanager
def helper_names() -> Iterator[None]:
    """Hide notebook variables that shadow built-ins or helpers, but not exercises, until the end of the block."""
    if _hidden:
        yield
        return
    _hide()  # until then, even `bool` may be a variable
    try:
        yield
    finally:
        _show()


@contextlib.contextmanager
def student_names() -> Iterator[None]:
    """Restore the hidden variables while student code runs."""
    if not _hidden:
        yield
        return
    _show()
    try:
        yield
    finally:
        _hide()


def _hide() -> None:
    notebook = builtins.vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {}
    for name in {*builtins.dir(builtins), *HELPERS} - {*EXERCISES}:
        if name.startswith("__"):
            continue
        if name in notebook and (name not in HELPERS or notebook[name] is not HELPERS[name]):
            hidden[name] = notebook.pop(name)
        if name in HELPERS:
            notebook[name] = HELPERS[name]
    _hidden.append(hidden)


def _show() -> None:
    builtins.vars(sys.modules["__main__"]).update(_hidden.pop())


def loaded_torch() -> Any:
    """Return the module torch, or None if the notebook does not use it."""
    return sys.modules.get("torch")


@contextlib.contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Set torch's seed, if one is given, until the end of the block. Do nothing in a notebook without torch."""
    torch = loaded_torch()
    if torch is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield
