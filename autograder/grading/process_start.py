"""Start a pool's processes. Entry points: `context` and `stop`.

On Linux, pool processes are forked from a process that has already imported the grader. They therefore start
quickly and share most of their memory. In a pool with only one process, there is nothing to share, so that process starts
directly. None of these processes runs student code.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

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


PRELOADED = ["autograder.grading.grader_imports"]


def context(jobs: int) -> BaseContext:
    """Return the multiprocessing context for a pool of at most `jobs` processes.

    If the pool will fork its processes, start importing their modules now, in the background.
    """
    if jobs > 1 and sys.platform.startswith("linux"):
        forkserver.set_forkserver_preload(PRELOADED)
        # Without a folder for its socket, the process cannot be started.
        with contextlib.suppress(OSError):
            with protected_start():
                forkserver.ensure_running()
            atexit.unregister(stop)
            atexit.register(stop)
            return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def stop() -> None:
    """Kill the process from which the pool's processes are forked. The pool's processes then exit as well.

    If it were not killed, that process would exit only after finishing its imports and a slow cleanup.
    """
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            # Leave the exit code for multiprocessing to collect.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
