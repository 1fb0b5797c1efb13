"""Measure one worker against its limits, from outside and without looking more often than needed. Entry point: `Meter`."""

from __future__ import annotations

import os
import time

from autograder.protocol.limits import Budget, Excess
from autograder.sandbox.clock import Clock, own_wait

# A call that is answered within this time is not looked at, and what it took counts for its budget alone.
SLICE = 0.05


class Late(Exception):
    """The process reached a limit; `line` is the line of its code that it was loading, or 0."""

    def __init__(self, excess: Excess, line: int = 0) -> None:
        super().__init__(str(excess))
        self.excess = excess
        self.line = line


class Meter:
    """The processor time and the idle time of one worker: of its present call, and of all its calls.

    Idle is the time that the grader waits for an answer, less the worker's processor time, less what either of them waits for
    a free core. Background work between calls uses processor time and is never idle.
    """

    def __init__(
        self, clock: Clock, cpu_seconds: float, idle_seconds: float, budget: Budget
    ) -> None:
        self._clock = clock
        self._own_wait = own_wait()
        self._call = cpu_seconds, idle_seconds
        self._budget = budget
        self._cores = os.cpu_count() or 1
        self._cpu = self._idle = 0.0  # as charged
        self._asked = 0.0  # seconds that the grader waited until `_since`
        self._since: float | None = None
        self._first: tuple[float, float] | None = (
            None  # processor and idle time when the call was first looked at
        )
        self._next_look = 0.0
        self._budget_lasts = time.monotonic() + budget.soonest(self._cores)

    def begin(self) -> None:
        """Start the time of a call."""
        self._first = None
        now = self._since = time.monotonic()
        self._next_look = min(now + SLICE, self._budget_lasts)

    def pause(self) -> None:
        """Stop the time while the grader is at work."""
        if self._since is not None:
            self._asked += time.monotonic() - self._since
            self._since = None

    def resume(self) -> None:
        """Let the time of the call go on."""
        self._since = time.monotonic()

    def patience(self) -> float:
        """Return how many seconds to wait for the worker before asking here again.

        Raises:
            Late: it reached a limit.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + max(self._look(now), SLICE)
        return self._next_look - now

    def _look(self, now: float) -> float:
        """Measure; return the seconds that pass at least before a limit is reached."""
        cpu, idle = self._measure(now)
        self._charge(cpu, idle)
        if self._budget.excess is not None:
            raise Late(self._budget.excess)
        lasts = self._budget.soonest(self._cores)
        self._budget_lasts = now + lasts
        if self._first is None:
            self._first = cpu, idle
        cpu, idle = cpu - self._first[0], idle - self._first[1]
        cpu_limit, idle_limit = self._call
        if cpu >= cpu_limit:
            raise Late(Excess("processor", "call", cpu_limit))
        if idle >= idle_limit:
            raise Late(Excess("idle", "call", idle_limit))
        return min(lasts, (cpu_limit - cpu) / self._cores, idle_limit - max(idle, 0.0))

    def _measure(self, now: float) -> tuple[float, float]:
        """Processor time and idle time since the process started; the latter may be less than nothing."""
        reading = self._clock.read()
        asked = self._asked + (now - self._since if self._since is not None else 0.0)
        return reading.cpu, asked - reading.cpu - reading.queued - (own_wait() - self._own_wait)

    def _charge(self, cpu: float, idle: float) -> None:
        more_cpu, more_idle = max(cpu - self._cpu, 0.0), max(idle - self._idle, 0.0)
        self._cpu += more_cpu
        self._idle += more_idle
        self._budget.charge(more_cpu, more_idle)

    def close(self) -> None:
        """Charge the budget with what is not yet charged; to be called before the process is stopped."""
        self.pause()
        self._charge(*self._measure(time.monotonic()))

    def ended(self, cpu: float) -> Excess | None:
        """Charge the processor time that an ended process had used; the limit that it reached, if any."""
        self.pause()
        self._charge(cpu, 0.0)
        return self._budget.excess
