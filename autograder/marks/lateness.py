"""Apply the late policy to a class. Entry points: `lateness_of_each`, `lateness_for` and `notes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from autograder.course.config import Day
from autograder.course.late_policy import Lateness, lateness
from autograder.marks import conflicts
from autograder.marks.conflicts import handed_in
from autograder.marks.model import SubmissionMarks
from autograder.marks.row import Row
from autograder.plain_text import list_with_count
from autograder.submissions.people import HandedIn
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry


def lateness_of_each(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[Lateness]:
    """Return how late each submission is. A group's submission gets its first student's extension."""
    class_, result = list(class_), []
    contested = conflicts.contested(class_, roster)
    for marks in class_:
        source = handed_in(marks, roster)
        entry, _ = conflicts.find_students(source, roster, contested)[0]
        result.append(lateness_for(day, source, entry))
    return result


def lateness_for(day: Day, source: HandedIn, entry: Entry) -> Lateness:
    """Return how late a submission is. `entry` is the student's row on the roster."""
    hours, is_excused = entry.hours_late(day.name), entry.is_excused(day.name)
    extension = entry.extension_on(day.name)
    return lateness(day.late, source.time, source.late, extension, hours, is_excused)


def is_on_time(marks: SubmissionMarks) -> bool:
    """Return whether a submission is from Canvas and its file is not marked late."""
    source = marks.handed_in
    return bool(source and source.upload and not source.late)


def notes(rows: Sequence[Row], day: Day) -> Iterator[str]:
    """Yield a note if late submissions lose no points, and a note about submissions whose times are unknown."""
    is_any_late = any(row.late.days and row.points is not None for row in rows)
    if is_any_late and not day.late.per_cent_a_day:
        yield f"late submissions lose no points, because grading.toml sets no late policy for {day.name}"
    if unknown := _without_time(rows, day):
        names = list_with_count([row.entry.student for row in unknown])
        yield (
            f"the late policy was not applied to submissions whose times are unknown {names}. "
            f"{_source_of_times(unknown, day)}"
        )


def _without_time(rows: Iterable[Row], day: Day) -> list[Row]:
    """Return the students to whom the late policy was not applied, because their submission times are unknown."""
    if day.late.due is None or not day.late.per_cent_a_day:
        return []
    return [
        row
        for row in rows
        if row.marks
        and row.marks.points is not None
        and row.time is None
        and not (row.marks.handed_in and (row.marks.handed_in.late or row.marks.handed_in.upload))
        and row.entry.hours_late(day.name) is None
        and not row.entry.is_excused(day.name)
    ]


def _source_of_times(rows: Iterable[Row], day: Day) -> str:
    """Return advice on how a TA can add the missing submission times."""
    class_ = [row.marks for row in rows if row.marks]
    if any(marks.handed_in and marks.handed_in.participant for marks in class_):
        return (
            "Download Moodle's worksheet after downloading the submissions, and pass it with --worksheet, "
            f"or enter late_hours_{day.name} in roster.csv"
        )
    if any(day.name in marks.path.split("/")[1:-1] for marks in class_):
        return (
            f"In nbgrader's folders, the times are in submitted/STUDENT/{day.name}/timestamp.txt, and the top folder must be "
            f"named `submitted`. Otherwise, enter late_hours_{day.name} in roster.csv"
        )
    return f"Enter late_hours_{day.name} in roster.csv"
