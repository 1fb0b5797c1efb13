"""The late policy of `grading.toml` in nbgrader's gradebook; nbgrader_config.py puts it there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.utils import parse_utc

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.submissions import roster


class LatePenalty(LateSubmissionPlugin):  # type: ignore[misc]
    """Takes off what the policy says; without one, what nbgrader's own plugin does."""

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float | None:
        """The points that are lost; the time is counted from nbgrader's due date, the roster's extension from there."""
        root = courses.find_root(Path.cwd())
        policy = courses.load(root).day(self.parent.assignment_id).late
        if not policy.per_cent_a_day:
            penalty: float | None = super().late_submission_penalty(
                student_id, score, total_seconds_late
            )
            return penalty
        found = roster.for_course(root).students(student_id)
        extension = timedelta(hours=found[0].extension if found else 0.0)
        return policy.lateness(timedelta(seconds=total_seconds_late) - extension).penalty(score)


def set_due(day: Day, gradebook_url: str) -> None:
    """Let nbgrader know when the day is due, where `grading.toml` says it."""
    if day.late.due is None:
        return
    due = parse_utc(day.late.due)
    with Gradebook(gradebook_url) as gradebook:
        if gradebook.find_assignment(day.name).duedate != due:
            gradebook.update_or_create_assignment(day.name, duedate=due)
