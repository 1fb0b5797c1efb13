"""Limit a process's memory, CPU time, files, descriptors and threads. Entry points: `apply` and `limited_memory`."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = 64
# Without namespaces, the kernel counts the threads of all the user's processes together. This limit is high
# enough that the fork server notices a process with too many threads before that process keeps others from starting threads.
SHARED_THREADS = 4096
DESCRIPTORS = 64
FILE_BYTES = 64 << 20
# Read once, because threads may use `limited_memory` at the same time.
_SOFT_MEMORY, _ = resource.getrlimit(resource.RLIMIT_AS)


def address_space() -> int:
    """Return the size of this process's address space in bytes. Requires /proc."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextmanager
def limited_memory(memory: int) -> Iterator[None]:
    """Limit this process's total address space to `memory` bytes while the body of the `with` statement runs."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (_SOFT_MEMORY, hard))


def threads_of(uid: int) -> int:
    """Return how many threads a user has across all processes. Requires /proc."""
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
