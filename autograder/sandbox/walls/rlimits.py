"""Limit a process's memory, CPU time, files, descriptors and threads.

Entry points: `apply`, `limited_memory` and `limited_growth`.
"""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

THREADS = 64
# Without namespaces, the kernel counts all of a user's threads together. This limit is high enough that the fork server
# notices a process with too many threads before that process keeps others from starting threads.
SHARED_THREADS = 4096
DESCRIPTORS = 64
FILE_BYTES = 64 << 20
# Several threads may use `limited_memory` at once, and `with` blocks may be nested. The lowest limit in use applies.
_SOFT_MEMORY, _ = resource.getrlimit(resource.RLIMIT_AS)
_memory_limits: list[int] = []
_memory_lock = threading.Lock()


def address_space() -> int:
    """Return the size of this process's address space in bytes. Requires /proc."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextmanager
def limited_memory(memory: int) -> Iterator[None]:
    """Limit this process's total address space to `memory` bytes while the body of the `with` statement runs."""
    with _memory_lock:
        _memory_limits.append(memory)
        _apply_memory_limits()
    try:
        yield
    finally:
        with _memory_lock:
            _memory_limits.remove(memory)
            _apply_memory_limits()


def _apply_memory_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    finite = [each for each in (*_memory_limits, _SOFT_MEMORY, hard) if each >= 0]
    resource.setrlimit(resource.RLIMIT_AS, (min(finite, default=resource.RLIM_INFINITY), hard))


@contextmanager
def limited_growth(size: int) -> Iterator[None]:
    """Limit the growth of this process's address space, in bytes, while the body of the `with` statement runs.

    Without /proc, nothing is limited.
    """
    if not Path("/proc/self/statm").exists():
        yield
        return
    limit = address_space() + size
    try:
        with limited_memory(limit):
            yield
    finally:
        # An exception may be part of a reference cycle, which keeps its frames' memory alive.
        if address_space() > limit - size // 2:
            gc.collect()


def threads_of(uid: int) -> int:
    """Return a user's total number of threads. Requires /proc."""
    count = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:
            continue  # the process has ended
    return count


def threads_in(pid: int) -> int:
    """Return how many threads a process has, or 0 if it has ended. Requires /proc."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def raise_descriptors() -> None:
    """Raise this process's soft limit on file descriptors to its hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def apply(memory: int, cpu: int, file_bytes: int, threads: int) -> None:
    """Set permanent limits for this process.

    `memory` limits the total address space in bytes, and `cpu` limits the CPU time in seconds.

    RLIMIT_AS is used instead of RLIMIT_DATA because it includes shared mappings. The CPU time limit is hard, so the
    kernel kills the process. A process could ignore a soft limit.
    """
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))
