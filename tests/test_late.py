"""Test the late policy: the number of late days, the grace period, the maximum penalty and extensions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from autograder.course.late_policy import Lateness, Policy, lateness
from autograder.sandbox.client import Server
from tests.released_course import Class, release
from tests.small_course import WRONG

DUE = datetime(2026, 12, 1, 22, 59, tzinfo=UTC)
POLICY = Policy(DUE, grace_minutes=15, percent_per_day=10, max_percent=25)


@pytest.mark.parametrize(
    ("minutes", "extension", "days", "percent"),
    [
        (-1000, 0, 0, 0),
        (0, 0, 0, 0),
        (15, 0, 0, 0),
        (15.1, 0, 1, 10),
        (24 * 60, 0, 1, 10),
        (24 * 60 + 1, 0, 2, 20),
        (10 * 24 * 60, 0, 10, 25),
        (24 * 60 + 15, 24, 0, 0),
        (24 * 60 + 16, 24, 1, 10),
        (25 * 60, 0.5, 2, 20),
    ],
)
def test_each_started_day_is_penalised(
    minutes: float, extension: float, days: int, percent: float
) -> None:
    time = DUE + timedelta(minutes=minutes)
    assert lateness(POLICY, time, False, extension) == Lateness(days, percent)


def test_without_a_time_only_a_submission_marked_late_is_penalised() -> None:
    assert lateness(POLICY, None, False) == Lateness()
    assert lateness(Policy(percent_per_day=10), DUE, False) == Lateness()
    marked = lateness(POLICY, None, True)
    assert (marked.days, marked.percent) == (1, 10)
    assert "counted as one day late" in marked.note
    assert lateness(Policy(), None, True) == Lateness(days=1)
    extended = lateness(POLICY, None, True, extension=1)
    assert extended.percent == 0
    assert "has an extension" in extended.note


@pytest.mark.parametrize(("hours", "days"), [(20, 0), (24, 0), (30, 1), (49, 2)])
def test_an_extension_also_postpones_the_due_date_of_late_hours(hours: float, days: int) -> None:
    assert lateness(POLICY, None, True, extension=24, hours=hours).days == days
    assert lateness(POLICY, DUE, True, extension=24, hours=hours).days == days


def test_moodles_time_zone_is_by_default_that_of_the_due_date() -> None:
    local = datetime(2026, 11, 20, 23)
    due = datetime.fromisoformat("2026-11-20T23:00:00-05:00")
    for policy, hour in (
        (Policy(due), 28),
        (Policy(), 23),
        (Policy(due, moodle_time_zone=ZoneInfo("Europe/Berlin")), 22),
        (Policy(moodle_time_zone=ZoneInfo("Europe/Berlin")), 22),
    ):
        time = local.replace(tzinfo=policy.moodle_zone)
        assert time - datetime(2026, 11, 20, tzinfo=UTC) == timedelta(hours=hour)


def test_a_known_time_overrides_a_mark() -> None:
    assert lateness(POLICY, DUE, True) == Lateness()


@pytest.mark.parametrize(
    ("points", "percent", "left"),
    [
        (93.5, 10, 84.15),
        (100, 0, 100),
        (0, 50, 0),
        (0.1, 10, 0.09),
        (33.33, 12.5, 29.16),
        (8, 100, 0),
    ],
)
def test_the_penalty_is_a_share_of_the_earned_points(
    points: float, percent: float, left: float
) -> None:
    late = Lateness(1, percent)
    assert late.reduce(points) == left
    assert round(late.penalty(points) + left, 9) == points


@pytest.mark.slow
def test_nbgrader_applies_the_policy(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nbgrader deducts points for late submissions, based on the due date in grading.toml and the extensions in the roster."""
    course = Class(release(tmp_path), server)
    monkeypatch.chdir(tmp_path)

    def penalties() -> list[float]:
        with course.gradebook() as book:
            found = [book.find_submission("day1", student) for student in ("ada", "bob")]
            return [float(submission.late_submission_penalty) for submission in found]

    for student in ("ada", "bob"):
        course.hand_in(student, WRONG, time="2026-12-02 14:00:00 UTC")
    course.copy()
    assert penalties() == [0, 0]
    toml = tmp_path / "grading.toml"
    late = "[late]\npercent_per_day = 10\n[day1.late]\ndue = 2026-12-01T12:00:00+01:00\n"
    toml.write_text(toml.read_text() + late)
    text = "id,student,name,extension\n1,ada,Ada,\n2,bob,Bob,26\n"
    (tmp_path / "roster.csv").write_text(text)
    course.copy(force=True)
    # ada loses 10% of her 60 points for each of two days. bob has an extension, so he is one day late.
    assert penalties() == [12, 6]
    text = "id,student,name,extension,late_hours\n1,ada,Ada,24,20\n2,bob,Bob,24,30\n"
    (tmp_path / "roster.csv").write_text(text)
    course.copy(force=True)
    assert penalties() == [0, 6]
