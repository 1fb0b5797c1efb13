"""Apply the late policy in `grading.toml` to nbgrader's gradebook. `nbgrader_config.py` enables this plugin."""

from __future__ import annotations

from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.utils import parse_utc

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.late_policy import lateness
from autograder.submissions import roster as rosters
from autograder.submissions.origin import from_folder


class LatePenalty(LateSubmissionPlugin):  # type: ignore[misc]
    """A plugin that deducts late penalties. It falls back to nbgrader's own plugin if the course has no late policy."""

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float | None:
        """Return the points to deduct. The deadline is nbgrader's due date plus the student's extension from the roster."""
        root = courses.find_root(Path.cwd())
        day = courses.load(root).day(self.parent.assignment_id)
        if not day.late.percent_per_day:
            penalty: float | None = super().late_submission_penalty(
                student_id, score, total_seconds_late
            )
            return penalty
        roster = rosters.for_course(root)
        entry, _, _ = roster.students(from_folder(student_id), day.name)[0]
        hours = entry.hours_late(day.name)
        late = lateness(
            day.late,
            time=None,  # nbgrader has already compared it with its own due date
            marked_late=True,
            extension=entry.extension_on(day.name),
            hours=total_seconds_late / 3600 if hours is None else hours,
            is_excused=entry.is_excused(day.name),
        )
        return late.penalty(score)


def set_due_date(day: Day, gradebook_url: str) -> None:
    """Copy the due date, if any, from `grading.toml` to nbgrader's gradebook."""
    if day.late.due is None:
        return
    due = parse_utc(day.late.due)
    with Gradebook(gradebook_url) as gradebook:
        if gradebook.find_assignment(day.name).duedate != due:
            gradebook.update_or_create_assignment(day.name, duedate=due)
