"""Measure CPU time and run-queue time. Entry points: `Clock`, `own_queue_seconds` and `cpu_count`."""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
# At each reading, the waits of at most this many threads count. Otherwise, a process could start dozens of threads that
# keep each other waiting, and then sleep for as long as they waited in total.
COUNTED_THREADS = 4


@dataclass(frozen=True)
class Reading:
    """The total time that a process's threads have spent running (`cpu`) and waiting for a CPU (`queued`), in seconds."""

    cpu: float = 0.0
    queued: float = 0.0


class Clock:
    """A clock for the process that a pidfd refers to. After the process ends, the clock keeps its last reading.

    `is_kept` returns True until the process has been reaped. After that, the kernel may reuse its pid.
    """

    def __init__(self, pidfd: int, is_kept: Callable[[], bool]) -> None:
        self._pid = _pid_of(pidfd)
        self._is_kept = is_kept
        self._last = Reading()
        self._queued: dict[str, float] = {}  # seconds per thread, including threads that have ended
        self._counted = 0.0  # seconds in the run queue that count
        self._counted_until = time.monotonic()

    def read(self) -> Reading:
        """Return the CPU time and run-queue time that the process has accumulated so far."""
        if self._pid > 0:
            with contextlib.suppress(OSError, ValueError, IndexError):
                reading = Reading(self._cpu(), self._queue_seconds())
                self._last = reading if self._is_kept() else self._last
        return self._last

    def _cpu(self) -> float:
        # The id of a process's CPU clock combines the inverted pid and the constant CPUCLOCK_SCHED.
        try:
            return time.clock_gettime(~self._pid << 3 | 2)
        except OSError:
            with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS

    def _queue_seconds(self) -> float:
        folder = f"/proc/{self._pid}/task"
        waits = []
        with contextlib.suppress(OSError):  # no schedstat in this kernel, or /proc is hidden
            for thread in os.listdir(folder):
                with contextlib.suppress(OSError), open(f"{folder}/{thread}/schedstat") as file:
                    queued = int(file.read().split()[1]) / 1e9
                    waits.append(queued - self._queued.get(thread, 0.0))
                    self._queued[thread] = queued
        # The kernel reports a wait only after it ends. A newly reported wait may have begun before the previous reading,
        # but not before the last reading that included a new wait.
        now = time.monotonic()
        new = min(sum(heapq.nlargest(COUNTED_THREADS, waits)), now - self._counted_until)
        if new > 0:
            self._counted += new
            self._counted_until = now
        return self._counted


def own_queue_seconds() -> float:
    """Return how many seconds this thread has spent waiting for a free core."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pid_of(pidfd: int) -> int:
    """Return a process's pid in this PID namespace, or -1 if the process has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value)
    return -1
