"""What being late costs, by the `late` tables of `grading.toml` and the extensions of the roster; marks are never changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Policy:
    """Each day begun after `due` costs a part of the points that were earned; whoever is in time by the grace is in time."""

    due: datetime | None = None
    grace_minutes: float = 0.0
    per_cent_a_day: float = 0.0
    at_most_per_cent: float = 100.0

    def days(self, late: timedelta) -> int:
        """How many days something counts as late that came so much after it was due."""
        return math.ceil(late / DAY) if late > timedelta(minutes=self.grace_minutes) else 0

    def lateness(self, late: timedelta) -> Lateness:
        """The same, with what it costs."""
        days = self.days(late)
        return Lateness(days, self.per_cent(days))

    def per_cent(self, days: int) -> float:
        """What so many days cost."""
        return min(self.per_cent_a_day * days, self.at_most_per_cent)


NO_POLICY = Policy()


@dataclass(frozen=True)
class Lateness:
    """Of one student: days begun, what they cost, and what a person should know about it."""

    days: int = 0
    per_cent: float = 0.0
    note: str = ""

    def penalty(self, points: float) -> float:
        """The points that it costs, to 0.01."""
        return float(round(Fraction(str(points)) * Fraction(str(self.per_cent)) / 100, 2))

    def after(self, points: float) -> float:
        """The points that are left."""
        return float(Fraction(str(points)) - Fraction(str(self.penalty(points))))


IN_TIME = Lateness()


def lateness(
    policy: Policy, time: datetime | None, is_marked: bool, extension: float = 0.0
) -> Lateness:
    """How late something is whose student has an extension of so many hours; in time where no time is known.

    Canvas marks what is late by its own date and does not say by how much: that is one day, and none with an extension.
    """
    if time and policy.due:
        return policy.lateness(time - policy.due - timedelta(hours=extension))
    if not is_marked:
        return IN_TIME
    if extension:
        return Lateness(note="marked late, but has an extension: taken to be in time")
    return Lateness(1, policy.per_cent(1), "marked late, not by how much: taken to be one day")
