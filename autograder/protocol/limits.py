"""Define the limits on CPU time, idle time and memory. Entry points: `Limits`, `Allowance`, `Budget` and `Excess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Ratio of an exercise's limit on idle time to that of one call, so that code that sleeps in one test can pass the others.
IDLE_CALLS = 3

Kind = Literal["processor", "idle"]
Scope = Literal["call", "exercise", "submission"]


@dataclass(frozen=True)
class Allowance:
    """The CPU time that a process may use and the time that it may spend sleeping or waiting, both in seconds."""

    cpu_seconds: float
    idle_seconds: float


@dataclass(frozen=True)
class Limits:
    """Limits for one process: CPU seconds per call and in total, bytes of memory, and idle seconds in total."""

    cpu_seconds: float
    total_cpu_seconds: float
    memory: int
    idle_seconds: float = 30.0

    @property
    def call_idle_seconds(self) -> float:
        """Return how many seconds one call may spend sleeping or waiting."""
        return self.idle_seconds / IDLE_CALLS

    @property
    def allowance(self) -> Allowance:
        """Return the combined allowance for all calls."""
        return Allowance(self.total_cpu_seconds, self.idle_seconds)


@dataclass(frozen=True)
class Excess:
    """A time limit that was reached: its kind, its value, and whether it applies to a call, an exercise or a submission."""

    kind: Kind
    scope: Scope
    seconds: float

    @property
    def amount(self) -> str:
        """Return a description of the time limit."""
        if self.kind == "processor":
            return f"{self.seconds:g} s of CPU time"
        return f"{self.seconds:g} s, although the code hardly used the CPU"

    def __str__(self) -> str:
        question = "is there an infinite loop?"
        if self.kind == "idle":
            question = "does the code sleep or wait for something?"
        if self.scope == "call":
            return f"no answer within {self.amount}: {question}"
        if self.scope == "exercise":
            return f"in total, the calls in this exercise took more than {self.amount}: {question}"
        return f"not run: the whole submission took more than {self.amount}: {question}"


class Budget:
    """The time budget for one exercise. `parent` is the budget for the whole submission."""

    def __init__(self, allowance: Allowance, scope: Scope, parent: Budget | None = None) -> None:
        self._allowance = allowance
        self._scope: Scope = scope
        self._parent = parent
        self.cpu = 0.0
        self.idle = 0.0

    def charge(self, cpu: float, idle: float) -> None:
        """Charge CPU time and idle time, in seconds, to this budget and its parents."""
        self.cpu += cpu
        self.idle += idle
        if self._parent is not None:
            self._parent.charge(cpu, idle)

    @property
    def excess(self) -> Excess | None:
        """Return the limit that was reached, or None. The parent's limits are checked first."""
        wider = self._parent.excess if self._parent is not None else None
        if wider is not None:
            return wider
        if self.cpu >= self._allowance.cpu_seconds:
            return Excess("processor", self._scope, self._allowance.cpu_seconds)
        if self.idle >= self._allowance.idle_seconds:
            return Excess("idle", self._scope, self._allowance.idle_seconds)
        return None

    def allows(self, cpu: float, idle: float) -> bool:
        """Return whether this much time can be charged without reaching a limit."""
        return (
            self.cpu + cpu < self._allowance.cpu_seconds
            and self.idle + idle < self._allowance.idle_seconds
            and (self._parent is None or self._parent.allows(cpu, idle))
        )

    def soonest(self, cores: int) -> float:
        """Return how many seconds must pass before a limit can be reached, assuming that all cores are used."""
        cpu = (self._allowance.cpu_seconds - self.cpu) / cores
        mine = min(cpu, self._allowance.idle_seconds - self.idle)
        return mine if self._parent is None else min(mine, self._parent.soonest(cores))
