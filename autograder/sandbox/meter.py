"""Measure a worker's time from outside its process and enforce time limits. Entry point: `Meter`."""

from __future__ import annotations

import time

from autograder.protocol.limits import Budget, Excess
from autograder.sandbox.clock import Clock, cpu_count, own_queue_seconds
from autograder.sandbox.errors import LimitExceeded

# Seconds between measurements. A call that finishes sooner is charged to the budget but not checked against the limits
# for one call.
SLICE = 0.05
# Maximum number of seconds between the grader's measurements. If the grader wakes up this much later than planned, it was
# itself stopped, for example with Ctrl-Z or because the machine was suspended.
STOPPED = 1.0


class Meter:
    """The CPU time and idle time used by one worker, in its current call and in total.

    Idle time is the time that the grader spends waiting for a response. It excludes the worker's CPU time, time that
    either process waits for a free core, and time while the grader itself was stopped. Background work between calls
    counts as CPU time but not as idle time.
    """

    def __init__(
        self, clock: Clock, cpu_seconds: float, idle_seconds: float, budget: Budget
    ) -> None:
        self._clock = clock
        self._own_wait = own_queue_seconds()
        self._call = cpu_seconds, idle_seconds
        self._budget = budget
        self._cores = cpu_count()
        self._cpu = self._idle = 0.0  # seconds charged to the budget so far
        self._queued = self._own_wait  # the grader's run-queue time as of the last measurement
        self._waited = 0.0  # seconds that the grader had waited before `_since`
        self._since: float | None = None
        # The CPU time and idle time as of the first measurement of the current call.
        self._first: tuple[float, float] | None = None
        self._next_check = 0.0
        self._budget_lasts = time.monotonic() + budget.soonest(self._cores)

    def begin(self, budget: Budget | None = None) -> None:
        """Start measuring a call. If `budget` is given, charge this call to it."""
        self._first = None
        now = self._since = time.monotonic()
        if budget is not None:
            self._charge(*self._measure(now))  # to the budget of the previous call
            self._budget = budget
            self._budget_lasts = now + budget.soonest(self._cores)
        self._next_check = min(now + SLICE, self._budget_lasts)

    def pause(self) -> None:
        """Stop measuring idle time while the grader is working."""
        if self._since is not None:
            now = time.monotonic()
            self._exclude_stop(now)
            self._waited += now - self._since
            self._since = None

    def resume(self) -> None:
        """Resume measuring the idle time of the current call."""
        self._since = time.monotonic()

    def seconds_to_wait(self) -> float:
        """Return how many seconds to wait for the worker before the next call to this method.

        Raises:
            LimitExceeded: The worker reached a limit.
        """
        now = time.monotonic()
        if now >= self._next_check:
            self._exclude_stop(now)
            self._next_check = now + min(max(self._check(now), SLICE), STOPPED)
        return self._next_check - now

    def _exclude_stop(self, now: float) -> None:
        """Exclude time during which the grader was suspended while waiting. Time in the run queue is excluded separately."""
        if self._since is None:
            return
        late = now - max(self._next_check, self._since)
        if late > STOPPED:
            late -= own_queue_seconds() - self._queued
            self._since += max(late, 0.0)

    def _check(self, now: float) -> float:
        """Measure the time used so far and return how many seconds must pass before a limit can be reached."""
        cpu, idle = self._measure(now)
        self._charge(cpu, idle)
        if self._budget.excess is not None:
            raise LimitExceeded(self._budget.excess)
        lasts = self._budget.soonest(self._cores)
        self._budget_lasts = now + lasts
        if self._first is None:
            self._first = cpu, idle
        cpu, idle = cpu - self._first[0], idle - self._first[1]
        cpu_limit, idle_limit = self._call
        if cpu >= cpu_limit:
            raise LimitExceeded(Excess("processor", "call", cpu_limit))
        if idle >= idle_limit:
            raise LimitExceeded(Excess("idle", "call", idle_limit))
        return min(lasts, (cpu_limit - cpu) / self._cores, idle_limit - max(idle, 0.0))

    def _measure(self, now: float) -> tuple[float, float]:
        """Return the CPU time and idle time since the process started. Idle time can be negative."""
        reading = self._clock.read()
        waited = self._waited + (now - self._since if self._since is not None else 0.0)
        self._queued = own_queue_seconds()
        return reading.cpu, waited - reading.cpu - reading.queued - (self._queued - self._own_wait)

    def _charge(self, cpu: float, idle: float) -> None:
        more_cpu, more_idle = max(cpu - self._cpu, 0.0), max(idle - self._idle, 0.0)
        self._cpu += more_cpu
        self._idle += more_idle
        self._budget.charge(more_cpu, more_idle)

    def charge_grader(self, cpu: float) -> None:
        """Charge the budget for the CPU seconds that the grader spent answering the worker's requests.

        Raises:
            LimitExceeded: The budget is used up.
        """
        self._budget.charge(cpu, 0.0)
        self._budget_lasts -= cpu
        self._next_check = min(self._next_check, self._budget_lasts)
        if self._budget.excess is not None:
            raise LimitExceeded(self._budget.excess)

    def close(self) -> None:
        """Charge the budget for any time that has not been charged yet. Call this method before stopping the process."""
        self.pause()
        self._charge(*self._measure(time.monotonic()))

    def ended(self, cpu: float) -> Excess | None:
        """Charge a finished process's total CPU time to the budget. Return the limit that was reached, if any."""
        self.pause()
        self._charge(cpu, 0.0)
        return self._budget.excess
