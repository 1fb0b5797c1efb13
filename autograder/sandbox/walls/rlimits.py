"""Bounds of one process: memory, processor time, files, descriptors and threads."""

from __future__ import annotations

import os
import resource

THREADS = 64
DESCRIPTORS = 64
FILE_BYTES = 64 << 20


def address_space() -> int:
    """Bytes of address space that this process has; needs /proc."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def threads_of(uid: int) -> int:
    """How many threads the user runs, in all processes; needs /proc."""
    count = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:
            continue  # it has ended meanwhile
    return count


def raise_descriptors() -> None:
    """Let this process hold as many descriptors as it may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def apply(memory: int, cpu: int, file_bytes: int, threads: int) -> None:
    """Bound this process; `memory` is its whole address space in bytes, `cpu` seconds.

    Address space and not data, as shared mappings count too. The hard limit of processor time kills, a soft one
    alone could be ignored.
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
