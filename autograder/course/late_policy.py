"""Compute how late a submission is and how many points to deduct. Entry points: `Policy` and `lateness`.

The policy comes from the `late` tables in `grading.toml`, and extensions come from the roster. Stored marks never include
penalties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from autograder.plain_text import counted

DAY = timedelta(days=1)
Time = Annotated[datetime, Meta(tz=True)]
DUE = "a date and time with a UTC offset, such as 2026-12-01T23:59:00+01:00"
Minutes = Annotated[float, Meta(ge=0, le=100_000, description="a number between 0 and 100,000")]
Percentage = Annotated[float, Meta(ge=0, le=100, description="a number between 0 and 100")]


class Policy(msgspec.Struct, frozen=True):
    """A late policy, which deducts a percentage of the earned points for each day or part of a day after `due`.

    A submission within the grace period is on time. The lateness of any later submission is measured from `due`.
    `moodle_time_zone` is the zone in which Moodle shows times, or None if Moodle uses the offset of `due`.
    """

    due: Annotated[Time | None, Meta(description=DUE)] = None
    grace_minutes: Minutes = 0.0
    percent_per_day: Percentage = 0.0
    max_percent: Percentage = 100.0
    moodle_time_zone: Annotated[
        ZoneInfo | None, Meta(description='an IANA time zone such as "America/New_York"')
    ] = None

    @property
    def moodle_zone(self) -> tzinfo:
        """Return the time zone of Moodle's worksheet, which contains times without offsets. The default is UTC."""
        return self.moodle_time_zone or (self.due.tzinfo if self.due else None) or UTC

    def after(self, delay: timedelta) -> Lateness:
        """Return the lateness of a submission that was made `delay` after the due date."""
        is_late = delay > timedelta(minutes=self.grace_minutes)
        return self.days_late(math.ceil(delay / DAY) if is_late else 0)

    def days_late(self, days: int, note: str = "") -> Lateness:
        """Return the lateness of a submission that is this many days late."""
        return Lateness(days, float(min(self.percent_per_day * days, self.max_percent)), note)


@dataclass(frozen=True)
class Lateness:
    """How many days late a submission is, the percentage to deduct, and a note for the TA."""

    days: int = 0
    percent: float = 0.0
    note: str = ""

    def penalty(self, points: float) -> float:
        """Return the points to deduct, rounded to two decimal places."""
        return float(round(Fraction(str(points)) * Fraction(str(self.percent)) / 100, 2))

    def reduce(self, points: float) -> float:
        """Return the points that remain after the late penalty."""
        if not self.percent:
            return points
        return float(Fraction(str(points)) - Fraction(str(self.penalty(points))))


ON_TIME = Lateness()


def lateness(
    policy: Policy,
    time: datetime | None,
    marked_late: bool,
    extension: float = 0.0,
    hours: float | None = None,
    is_excused: bool = False,
) -> Lateness:
    """Return how late a submission is. If the time is unknown, a submission counts as on time unless the platform marked it late.

    Canvas marks a submission as late without showing how late it is. Such a submission counts as one day late, or
    as on time if the student has an extension. An extension of some hours postpones the student's due date. `hours` after the
    course's due date, as entered by a TA, override `time`. If a TA excused the lateness, it costs no points.
    """
    if is_excused:
        days = lateness(policy, time, marked_late, extension, hours).days
        return Lateness(note=f"{counted(days, 'day')} late, but excused" if days else "")
    if hours is not None:
        return policy.after(timedelta(hours=hours - extension))
    if time and policy.due:
        return policy.after(time - policy.due - timedelta(hours=extension))
    if not marked_late:
        return ON_TIME
    if extension:
        return Lateness(
            note="marked late, but the student has an extension; counted as on time. "
            "If it arrived after the extended deadline, set late_hours in roster.csv to the number of hours after the due date"
        )
    note = (
        "marked late, but the time is unknown; counted as one day late. "
        "If it arrived later, set late_hours in roster.csv to the number of hours after the due date"
    )
    return policy.days_late(1, note if policy.percent_per_day else "")
