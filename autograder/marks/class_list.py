"""Choose the submission that counts for each student, and determine how late it is.

Entry points: `results` and `lateness_of_each`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from autograder.course.config import CourseError, Day
from autograder.course.late_policy import ON_TIME, Lateness, lateness
from autograder.marks.model import SubmissionMarks
from autograder.plain_text import format_number
from autograder.submissions import origin
from autograder.submissions.origin import Origin
from autograder.submissions.roster import Entry, Roster

GroupRule = Literal["latest", "best"]


@dataclass(frozen=True)
class StudentResult:
    """A student, the submission that counts for them (or None), and how late that submission was.

    If the submission could not be graded, `unreadable` is its number of points, or None if it gets no grade.
    `keys` contains the keys under which the student submitted, and `others` the submissions that do not count. `hours` are
    the roster's `late_hours` for the submission, or None. `missing` is the number of points without a submission, or None.
    """

    entry: Entry
    marks: SubmissionMarks | None = None
    late: Lateness = ON_TIME
    time: datetime | None = None
    unreadable: float | None = None
    keys: Sequence[str] = ()
    others: Sequence[SubmissionMarks] = ()
    hours: float | None = None
    missing: float | None = None

    @property
    def id(self) -> str:
        """Return the student's id from the roster or the platform, or "" if it is valid only within one download."""
        return "" if origin.is_local_id(self.entry.id) else self.entry.id

    @cached_property
    def points(self) -> float | None:
        """Return the points that remain after late penalties, or None if the student has no grade."""
        if self.marks is None:
            return self.missing
        return self.unreadable if self.marks.points is None else self.late.reduce(self.marks.points)

    @property
    def is_late_unknown(self) -> bool:
        """Return whether the platform gives neither a time nor a late mark."""
        origin = self.marks.origin if self.marks else None
        return self.time is None and not (origin and (origin.late or origin.upload))

    def id_on(self, source: str, day: str) -> str:
        """Return the student's id in a source: from the submissions, or from the roster's column for this source."""
        own = dict(key.split(" ", 1) for key in self.keys)
        return own.get(source) or self.entry.id_on(source, day)


def results(
    class_: Iterable[SubmissionMarks],
    day: Day,
    roster: Roster,
    unreadable: float | None = None,
    group: GroupRule = "latest",
    missing: float | None = None,
) -> list[StudentResult]:
    """Return one result per student: students on the roster in roster order, then all others, sorted by label.

    One submission counts for each student, or for all members of a group on the roster. A student's newer submission replaces
    an older one, including that of a team. By default, a group's latest submission counts. If `group` is "best", or if the
    order of the submissions is unknown, the one with the most points counts. A submission that could not be graded gets
    `unreadable` points, and a student on the roster without a submission gets `missing` points. None means no grade.
    """
    members = {entry: roster.group(entry) if entry.group else (entry,) for entry in roster.entries}
    handed: dict[Entry, dict[int, SubmissionMarks]] = {entry: {} for entry in roster.entries}
    candidates: dict[Entry, dict[int, SubmissionMarks]] = {entry: {} for entry in roster.entries}
    keys: dict[Entry, dict[str, None]] = {}
    submissions = [(marks, roster.students(marks.origin, day.name)) for marks in class_]
    newest: dict[str, Origin] = {}
    for marks, students in submissions:
        for _, _, key in students:
            if key not in newest or newest[key].is_older(marks.origin):
                newest[key] = marks.origin
    for number, (marks, students) in enumerate(submissions):
        for entry, _, key in students:
            keys.setdefault(entry, {})[key] = None
            for member in members.get(entry, (entry,)):
                handed.setdefault(member, {})[number] = marks
                # As in the store, a student's own newer submission counts instead of an older one, whatever its points.
                if not marks.origin.is_older(newest[key]):
                    candidates.setdefault(member, {})[number] = marks
    others = sorted(handed.keys() - members.keys(), key=lambda entry: (entry.label, entry.key))
    chosen = {
        entry: counting([*candidates[entry].values()], group) for entry in [*members, *others]
    }
    hours = _hours_late(chosen, day)
    found = []
    for entry, counts in chosen.items():
        own = tuple(keys.get(entry, ()))
        if counts is None:
            found.append(StudentResult(entry, keys=own, missing=missing))
            continue
        origin = roster.read(counts.origin, day.name)
        own_hours = hours.get(counts.path)
        late = lateness_for(day, origin, entry, own_hours)
        not_counting = [one for one in handed[entry].values() if one.path != counts.path]
        found.append(
            StudentResult(
                entry, counts, late, origin.time, unreadable, own, not_counting, own_hours
            )
        )
    return found


def _hours_late(chosen: Mapping[Entry, SubmissionMarks | None], day: Day) -> dict[str, float]:
    """Map paths to the roster's `late_hours` for the submissions that count. A group's submission has one lateness.

    Raises:
        CourseError: The rows of a group's members differ.
    """
    rows: dict[str, dict[float, str]] = {}
    for entry, marks in chosen.items():
        hours = entry.hours_late(day.name)
        if marks and hours is not None:
            rows.setdefault(marks.path, {}).setdefault(hours, entry.label)
    for path, found in rows.items():
        if len(found) > 1:
            listed = ", ".join(f"{format_number(hours)} for {who}" for hours, who in found.items())
            raise CourseError(
                f"roster.csv sets different late_hours for one submission of a group, {path}: {listed}. "
                "Enter the same hours for all members"
            )
    return {path: hours for path, found in rows.items() for hours in found}


def counting(found: Sequence[SubmissionMarks], group: GroupRule) -> SubmissionMarks | None:
    """Return the submission that counts for a student or group, or None if there is none."""
    if len(found) < 2:
        return found[0] if found else None
    sources = [marks.origin for marks in found]
    orders: list[float] = [0.0] * len(found)
    if all(source.time for source in sources):
        orders = [source.time.timestamp() for source in sources if source.time]
    elif all(source.upload for source in sources):
        orders = [float(source.upload) for source in sources]

    def rank(number: int) -> tuple[float, ...]:
        marks = found[number]
        points = -1.0 if marks.points is None else marks.points
        return (points, orders[number]) if group == "best" else (orders[number], points)

    return found[max(range(len(found)), key=rank)]


def lateness_of_each(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[Lateness]:
    """Return how late each submission is. A group's submission gets its first student's extension."""
    class_ = list(class_)
    known = {(r.marks.path, r.entry): r.late for r in results(class_, day, roster) if r.marks}
    found = []
    for marks in class_:
        entry, *_ = roster.students(marks.origin, day.name)[0]
        late = lateness_for(day, roster.read(marks.origin, day.name), entry)
        found.append(known.get((marks.path, entry), late))
    return found


def lateness_for(day: Day, origin: Origin, entry: Entry, hours: float | None = None) -> Lateness:
    """Return how late a submission is. `entry` is the student's row on the roster.

    `hours` is the number of hours after the due date, if nbgrader has computed it. The roster's `late_hours` override it.
    """
    late_hours = entry.hours_late(day.name)
    return lateness(
        day.late,
        origin.time,
        origin.late,
        entry.extension_on(day.name),
        hours if late_hours is None else late_hours,
        entry.is_excused(day.name),
    )


def is_on_time(marks: SubmissionMarks) -> bool:
    """Return whether a submission is from Canvas and its file is not marked late."""
    return bool(marks.origin.upload and not marks.origin.late)
