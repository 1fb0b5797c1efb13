"""What code may use: processor time, idle time and memory. Entry points: `Limits`, `Allowance`, `Budget` and `Excess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Sleeping and waiting may take this many times as long as the processor may be used.
BACKSTOP = 10

Kind = Literal["processor", "idle"]
Scope = Literal["call", "exercise", "submission"]


@dataclass(frozen=True)
class Allowance:
    """Seconds of processor time, and seconds in which a process neither uses nor waits for a processor."""

    cpu_seconds: float
    idle_seconds: float


@dataclass(frozen=True)
class Limits:
    """Of one process: processor seconds for a call and for all calls, bytes of memory, characters of output."""

    cpu_seconds: float
    total_cpu_seconds: float
    memory: int
    output: int

    @property
    def idle_seconds(self) -> float:
        """Seconds in which one call may sleep or wait."""
        return BACKSTOP * self.cpu_seconds

    @property
    def allowance(self) -> Allowance:
        """What all calls may use together."""
        return Allowance(self.total_cpu_seconds, BACKSTOP * self.total_cpu_seconds)


@dataclass(frozen=True)
class Excess:
    """A limit that was reached: `seconds` of `kind`, for one call, all calls of an exercise, or a whole submission."""

    kind: Kind
    scope: Scope
    seconds: float

    @property
    def amount(self) -> str:
        """The seconds in words."""
        if self.kind == "processor":
            return f"{self.seconds:g} s of processor time"
        return f"{self.seconds:g} s, though the code hardly used the processor"

    def __str__(self) -> str:
        question = "does a loop never end?"
        if self.kind == "idle":
            question = "does it sleep or wait for something?"
        if self.scope == "call":
            return f"there was no answer within {self.amount}: {question}"
        if self.scope == "exercise":
            return f"all calls of this exercise together took more than {self.amount}: {question}"
        return f"not run: the whole submission took more than {self.amount}; {question}"


class Budget:
    """What one exercise may use, or, as the `parent` of those, what a whole submission may use."""

    def __init__(self, allowance: Allowance, scope: Scope, parent: Budget | None = None) -> None:
        self._allowance = allowance
        self._scope: Scope = scope
        self._parent = parent
        self.cpu = 0.0
        self.idle = 0.0

    def charge(self, cpu: float, idle: float) -> None:
        """Take seconds from this budget and from those that it is part of."""
        self.cpu += cpu
        self.idle += idle
        if self._parent is not None:
            self._parent.charge(cpu, idle)

    @property
    def excess(self) -> Excess | None:
        """The limit that is reached, the widest first; None while something is left of all."""
        wider = self._parent.excess if self._parent is not None else None
        if wider is not None:
            return wider
        if self.cpu >= self._allowance.cpu_seconds:
            return Excess("processor", self._scope, self._allowance.cpu_seconds)
        if self.idle >= self._allowance.idle_seconds:
            return Excess("idle", self._scope, self._allowance.idle_seconds)
        return None

    def soonest(self, cores: int) -> float:
        """Return the seconds that pass at least before a limit is reached."""
        cpu = (self._allowance.cpu_seconds - self.cpu) / cores
        mine = min(cpu, self._allowance.idle_seconds - self.idle)
        return mine if self._parent is None else min(mine, self._parent.soonest(cores))
