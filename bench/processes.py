"""Measure the CPU time of a command, including all processes it starts. Entry points: `counter` and `tree`."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# CPU time in cgroups v1 and v2: the folder, the file, a pattern for the number, and its units per second.
GROUPS = (
    (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", r"(\d+)", 1e9),
    (Path("/sys/fs/cgroup"), "cpu.stat", r"usage_usec (\d+)", 1e6),
)
TICK = os.sysconf("SC_CLK_TCK")


def counter(pid: int, stack: contextlib.ExitStack) -> Callable[[], float]:
    """Return a function that returns the CPU seconds used by a process and all processes it starts.

    No process waits for the sandbox's processes, so only a cgroup counts their CPU time after they exit. Creating a cgroup
    requires root. Without a cgroup, the function counts only processes that are still running.
    """
    for folder, file, pattern, unit in GROUPS:
        with contextlib.suppress(OSError):
            # The time keeps the name unique: a cgroup of an earlier process with this ID may still exist.
            group = folder / f"bench-{pid}-{time.monotonic_ns()}"
            usage = stack.enter_context(_group(group, pid)) / file
            return lambda: int(re.findall(pattern, usage.read_text())[0]) / unit
    return lambda: sum(map(_cpu, tree(pid)))


@contextlib.contextmanager
def _group(folder: Path, pid: int) -> Iterator[Path]:
    """Create a cgroup that contains the process, and remove the cgroup afterwards.

    Raises:
        OSError: The cgroup cannot be created.
    """
    folder.mkdir()
    try:
        with open(folder / "cgroup.procs", "r+") as members:  # the kernel created this file
            members.write(str(pid))
        yield folder
    finally:
        with contextlib.suppress(OSError):  # the last process has not exited yet
            folder.rmdir()


def tree(pid: int) -> Iterator[int]:
    """Yield the IDs of a process and all its running descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def _cpu(pid: int) -> float:
    """Return the CPU seconds used by a process and by the children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has exited
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / TICK
