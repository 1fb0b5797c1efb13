"""Match submissions to the roster and apply the late policy. Entry points: `rows`, `lateness_of_each`, `roster_notes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from autograder.course.config import Day
from autograder.course.late_policy import ON_TIME, Lateness, lateness
from autograder.marks.model import SubmissionMarks
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Entry, Roster


@dataclass(frozen=True)
class Row:
    """A student, the submission that counts for them (or None), and how late that submission was.

    `unreadable` is the number of points for a submission that could not be graded, or None for a missing grade.
    """

    entry: Entry
    marks: SubmissionMarks | None = None
    late: Lateness = ON_TIME
    time: datetime | None = None
    unreadable: float | None = None

    @property
    def points(self) -> float | None:
        """Return the points that remain after late penalties, or None if the student has no grade."""
        if self.marks is None:
            return None
        return self.unreadable if self.marks.points is None else self.late.reduce(self.marks.points)


def rows(
    class_: Iterable[SubmissionMarks],
    day: Day,
    roster: Roster,
    unreadable: float | None = None,
) -> tuple[list[Row], list[str]]:
    """Return one row per student and notes for the TA. Students on the roster come first, in roster order.

    A submission counts for every member of its group. If a student has several submissions, the latest one counts.
    If the time of any submission is unknown, the one with the most points counts instead. A submission that could not be
    graded gets `unreadable` points, or no grade if that is None.
    """
    handed: dict[Entry, list[Row]] = {entry: [] for entry in roster.entries}
    strangers: dict[str, Person] = {}
    for marks in class_:
        source = _handed_in(marks)
        for entry, person in _students(marks, source, roster):
            if entry not in handed and roster.entries:
                strangers[entry.student] = person
            late = lateness(day.late, source.time, source.late, entry.extension)
            handed.setdefault(entry, []).append(Row(entry, marks, late, source.time, unreadable))
    chosen = [_counting(entry, found) for entry, found in handed.items()]
    notes = list(_notes(chosen, handed, strangers, roster))
    return chosen, notes


def lateness_of_each(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[Lateness]:
    """Return how late each submission is. A group's submission gets the extension of the group's first student."""
    result = []
    for marks in class_:
        source = _handed_in(marks)
        entry, _ = next(_students(marks, source, roster))
        result.append(lateness(day.late, source.time, source.late, entry.extension))
    return result


def roster_notes(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[str]:
    """Return notes for the TA on differences between the class and the roster, or [] if there is no roster."""
    # Drop the exercises: the notes do not use them, and those of a large class would take too much memory.
    without_exercises = (msgspec.structs.replace(marks, exercises=[]) for marks in class_)
    return rows(without_exercises, day, roster)[1] if roster.entries else []


def _handed_in(marks: SubmissionMarks) -> HandedIn:
    return marks.handed_in or HandedIn((Person(marks.student),))


def _students(
    marks: SubmissionMarks, source: HandedIn, roster: Roster
) -> Iterator[tuple[Entry, Person]]:
    """Yield each student of a submission exactly once: first those who submitted it, then the rest of their groups."""
    named = roster.students(marks.student)
    handed = [(entry, Person(entry.name, entry.id)) for entry in named]
    if not named:
        found = [(roster.find(person), person) for person in source.people]
        handed = [(entry or _stranger(person), person) for entry, person in found]
    seen: set[Entry] = set()
    for entry, person in [(e, p) for one, p in handed for e in roster.group(one)]:
        if entry not in seen:
            seen.add(entry)
            yield entry, person


def _stranger(person: Person) -> Entry:
    return Entry(person.id, person.name or person.id, person.name, person.email)


def _counting(entry: Entry, found: Sequence[Row]) -> Row:
    if not found:
        return Row(entry)
    times = [row.time for row in found if row.time]
    if len(times) == len(found):
        return found[times.index(max(times))]
    # Marks stored before the roster was added may use a different name for the student.
    return max(found, key=lambda row: (_is_own(row), row.points or 0.0))


def _is_own(row: Row) -> bool:
    return row.marks is not None and row.entry.student in row.marks.student.split(", ")


def _notes(
    chosen: Iterable[Row],
    handed: dict[Entry, list[Row]],
    strangers: dict[str, Person],
    roster: Roster,
) -> Iterator[str]:
    for name, person in strangers.items():
        near = roster.nearest(person)
        nearest = f"; the closest name is {near.label}" if near else ""
        yield f"{name} submitted work but is not on the roster{nearest}"
    absent = [row.entry.label for row in chosen if row.marks is None]
    if absent:
        yield f"students on the roster without a submission ({len(absent)}): {', '.join(absent)}"
    for row in chosen:
        others = {
            other.marks.path
            for other in handed[row.entry]
            if other.marks and row.marks and other.marks.path != row.marks.path
        }
        if others and row.marks:
            yield (
                f"{row.entry.student} has {len(others) + 1} submissions; {row.marks.path} counts "
                f"({row.points or 0:g} points), and these do not: {', '.join(sorted(others))}"
            )
        if row.marks and row.marks.points is None:
            grade = "no grade" if row.points is None else f"{row.points:g} points"
            yield f"{row.entry.label}: {grade}, because {'; '.join(row.marks.problems)}"
        if row.late.note:
            yield f"{row.entry.student}: {row.late.note}"
