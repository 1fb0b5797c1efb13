"""Give the checks and their helpers their own names, even if the notebook uses these names, as in `sum = 0` or `results = []`.

Student code keeps its variables, because `from torch import *`, for example, binds `float` on purpose.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

EXERCISES: dict[str, tuple[str, float, int]] = {}  # name → chapter, points, minutes
HELPERS: dict[str, Any] = {}  # what the helpers use, by name
_hidden: dict[str, Any] = {}


@contextlib.contextmanager
def helper_names() -> Iterator[None]:
    """Hide the notebook's variables that have the names of built-ins or helpers, except exercises."""
    hide_variables()
    try:
        yield
    finally:
        show_variables()


def hide_variables() -> None:
    """Replace the variables with the built-ins and helpers until `show_variables` is called."""
    notebook = builtins.vars(sys.modules["__main__"])
    for name in {*builtins.dir(builtins), *HELPERS} - {*EXERCISES}:
        if name.startswith("__"):
            continue
        if name in notebook and (name not in HELPERS or notebook[name] is not HELPERS[name]):
            _hidden[name] = notebook.pop(name)
        if name in HELPERS:
            notebook[name] = HELPERS[name]


def show_variables() -> None:
    """Put the hidden variables back into the notebook."""
    builtins.vars(sys.modules["__main__"]).update(_hidden)
    _hidden.clear()
