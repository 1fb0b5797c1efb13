"""Keep variables with the names of built-ins, such as `sum = 0`, from the checks and their helpers.

Student code keeps such variables, because `from torch import *` binds `float` and others on purpose.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

EXERCISES: dict[str, tuple[str, float, int]] = {}  # name → chapter, points, minutes
_hidden: dict[str, Any] = {}


@contextlib.contextmanager
def only_builtins() -> Iterator[None]:
    """Hide the notebook's variables that have the names of built-ins, except exercises."""
    hide_variables()
    try:
        yield
    finally:
        show_variables()


def hide_variables() -> None:
    """Remove the variables from the notebook until `show_variables` is called."""
    notebook = builtins.vars(sys.modules["__main__"])
    for name in builtins.dir(builtins):
        if name in notebook and name not in EXERCISES and not name.startswith("__"):
            _hidden[name] = notebook.pop(name)


def show_variables() -> None:
    """Put the hidden variables back into the notebook."""
    builtins.vars(sys.modules["__main__"]).update(_hidden)
    _hidden.clear()
