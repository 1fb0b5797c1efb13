"""Read from the kernel how long another process ran and waited for a free core. Entry points: `Clock`, `own_wait`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """Seconds since a process started, of all its threads: on a processor, and runnable without one."""

    cpu: float = 0.0
    queued: float = 0.0


class Clock:
    """The clock of the process that a pidfd refers to. A process that has ended keeps its last reading.

    `is_kept` tells whether the process, ended or not, still has its number, which the kernel may give to another one later.
    """

    def __init__(self, pidfd: int, is_kept: Callable[[], bool]) -> None:
        self._pid = _pid_of(pidfd)
        self._is_kept = is_kept
        self._last = Reading()
        self._queued: dict[str, float] = {}  # by thread; threads that have ended still count

    def read(self) -> Reading:
        """Return the current reading."""
        if self._pid > 0:
            with contextlib.suppress(OSError, ValueError, IndexError):
                reading = Reading(self._cpu(), self._waited())
                self._last = reading if self._is_kept() else self._last
        return self._last

    def _cpu(self) -> float:
        # The kernel's number of the clock of a whole process: CPUCLOCK_SCHED of its thread group.
        try:
            return time.clock_gettime(~self._pid << 3 | 2)
        except OSError:
            with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS

    def _waited(self) -> float:
        folder = f"/proc/{self._pid}/task"
        with contextlib.suppress(OSError):  # kernels without schedstat, or a hidden /proc
            for thread in os.listdir(folder):
                with contextlib.suppress(OSError), open(f"{folder}/{thread}/schedstat") as file:
                    self._queued[thread] = int(file.read().split()[1]) / 1e9
        return sum(self._queued.values())


def own_wait() -> float:
    """Return the seconds that this thread has waited for a free core so far."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def _pid_of(pidfd: int) -> int:
    """Return the number that the process has here, whatever its own namespace calls it; -1 if it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value)
    return -1
