"""Protect grading processes from Ctrl-C and from files in the current folder.

Entry points: `protected_start` and `blocked_interrupts`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

# With `python -c` and `python -m`, Python first looks for modules in the current folder, which may be a student's, unless
# this variable is set.
SAFE_PATH = "PYTHONSAFEPATH"
_lock = threading.RLock()  # protects the variable


@contextlib.contextmanager
def protected_start() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block.

    Processes started within the block never receive Ctrl-C and do not import modules from the current folder.
    """
    with _lock:
        given = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1"
        try:
            # The first process starts the resource tracker, which unblocks Ctrl-C. Start it before blocking Ctrl-C.
            resource_tracker.ensure_running()
            with blocked_interrupts():
                yield
        finally:
            if given is None:
                os.environ.pop(SAFE_PATH, None)


@contextlib.contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block. Threads started within the block never receive Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
