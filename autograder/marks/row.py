"""Define `Row`: a student and the submission that counts for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from autograder.course.late_policy import ON_TIME, Lateness
from autograder.marks.model import SubmissionMarks
from autograder.submissions.people import Person
from autograder.submissions.roster_entry import Entry, platform_id


@dataclass(frozen=True)
class Row:
    """A student, the submission that counts for them (or None), and how late that submission was.

    If the submission could not be graded, `unreadable` is its number of points, or None if it gets no grade. `person` is
    the student as identified by the platform, or None if the student did not submit (another group member may have).
    """

    entry: Entry
    marks: SubmissionMarks | None = None
    late: Lateness = ON_TIME
    time: datetime | None = None
    unreadable: float | None = None
    person: Person | None = None

    @property
    def id(self) -> str:
        """Return the student's id from the roster, or the platform's id if the roster has none."""
        return self.entry.id or (platform_id(self.person) if self.person else "")

    @property
    def points(self) -> float | None:
        """Return the points that remain after late penalties, or None if the student has no grade."""
        if self.marks is None:
            return None
        return self.unreadable if self.marks.points is None else self.late.reduce(self.marks.points)
