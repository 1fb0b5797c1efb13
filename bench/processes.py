"""Measure the processor time of a command with all processes that it starts. Entry points: `counter` and `tree`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

# Processor time in control groups of version 1 and 2: folder, file, pattern of the number, and its units per second.
GROUPS = (
    (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", r"(\d+)", 1e9),
    (Path("/sys/fs/cgroup"), "cpu.stat", r"usage_usec (\d+)", 1e6),
)
TICK = os.sysconf("SC_CLK_TCK")


def counter(pid: int, stack: contextlib.ExitStack) -> Callable[[], float]:
    """Return a function that returns the processor seconds of a process and of all processes that it starts.

    The sandbox's processes end without being waited for, so only a control group counts their time. Creating one needs
    root. Without one, the function counts the processes that are alive.
    """
    for folder, file, pattern, unit in GROUPS:
        with contextlib.suppress(OSError):
            usage = stack.enter_context(_group(folder / f"bench-{pid}", pid)) / file
            return lambda: int(re.findall(pattern, usage.read_text())[0]) / unit
    return lambda: sum(map(_cpu, tree(pid)))


@contextlib.contextmanager
def _group(folder: Path, pid: int) -> Iterator[Path]:
    """Create a control group with a process in it, and remove it afterwards.

    Raises:
        OSError: The group cannot be created.
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
    """Yield a process and all its descendants that are alive."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def _cpu(pid: int) -> float:
    """Return the processor seconds of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICK
