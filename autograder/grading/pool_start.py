"""Start the processes of a pool. Entry points: `context` and `start_importing`.

On Linux, the processes are forked from one that has already imported what grading needs, so that each additional process starts
quickly and shares its memory. They run no student code.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext

from autograder.grading.interrupts import blocked_interrupts

PRELOADED = ["autograder.grading.grader_imports", "autograder.grading.pool_exit"]


def context() -> BaseContext:
    """Return the context in which to start the processes."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def start_importing() -> None:
    """Start the process from which all others are forked, without waiting for it. It never receives Ctrl-C."""
    if context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        with blocked_interrupts():
            forkserver.ensure_running()
