"""Change files immediately before the code under test opens them, as a student could. Entry point: `changes`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

changes: dict[str, Callable[[], object]] = {}  # by the name of the file or folder; made once


def as_student(change: Callable[[], object]) -> None:
    """Make a change with this process's own privileges, even if it runs a TA's command without them."""
    ta = os.geteuid()
    os.seteuid(os.getuid())
    change()
    os.seteuid(ta)


def _before_opening(event: str, arguments: tuple[object, ...]) -> None:
    if changes and event in ("open", "os.scandir") and isinstance(path := arguments[0], str):
        change = changes.pop(path.rpartition("/")[2], None)
        if change:
            as_student(change)


sys.addaudithook(_before_opening)
