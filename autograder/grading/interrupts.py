"""Protect the processes that grade from Ctrl-C and from files in the current folder. Entry point: `protected_start`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

# With `python -c`, Python first looks for modules in the current folder, which may be a student's, unless this is set.
SAFE_PATH = "PYTHONSAFEPATH"


@contextlib.contextmanager
def protected_start() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block.

    Threads and processes started inside it never receive Ctrl-C. The processes do not import modules from the current
    folder.
    """
    given = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    # The first process starts the resource tracker, which unblocks the signal. Start the tracker before blocking it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if given is None:
            os.environ.pop(SAFE_PATH, None)
