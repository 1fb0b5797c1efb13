"""Load the roster for a day, together with the known Moodle participant numbers. Entry point: `roster_for`."""

from __future__ import annotations

from pathlib import Path

from autograder.course.config import Day
from autograder.marks import overrides
from autograder.submissions import roster_file
from autograder.submissions.roster import Roster


def roster_for(day: Day, file: Path | None = None) -> Roster:
    """Load a roster file (default: the course's own), and add the participant numbers from Moodle's worksheet.

    Raises:
        CourseError: The file cannot be read or has an invalid line.
        FileError: The store cannot be read.
    """
    roster = roster_file.for_course(day.root, file)
    if roster.entries:
        roster.add_numbers(overrides.read_times(day).in_worksheet)
    return roster
