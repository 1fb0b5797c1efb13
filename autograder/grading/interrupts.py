"""Block Ctrl-C in the processes that grade. Entry point: `blocked_interrupts`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block. Threads and processes started inside it never receive Ctrl-C."""
    # The first process starts the resource tracker, which unblocks the signal. Start the tracker before blocking it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
