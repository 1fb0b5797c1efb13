"""Submissions and the roster: whose each one is, what each student gets for it, and what does not match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from autograder.course.config import Day
from autograder.course.late_policy import IN_TIME, Lateness, lateness
from autograder.marks.model import SubmissionMarks
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Entry, Roster


@dataclass(frozen=True)
class Row:
    """One student: the submission that counts, or None, and how late it was for them."""

    entry: Entry
    marks: SubmissionMarks | None = None
    late: Lateness = IN_TIME
    time: datetime | None = None

    @property
    def points(self) -> float:
        """After the late policy."""
        return self.late.after(self.marks.points) if self.marks else 0.0


def rows(
    class_: Iterable[SubmissionMarks], day: Day, roster: Roster
) -> tuple[list[Row], list[str]]:
    """A row a student, first those of the roster in its order; and what somebody should look at, in sentences.

    A submission is that of everybody in the group. Of several that a student has, the last counts where all times are
    known, else the one with most points.
    """
    handed: dict[Entry, list[Row]] = {entry: [] for entry in roster.entries}
    strangers: dict[str, Person] = {}
    for marks in class_:
        source = _handed_in(marks)
        for entry, person in _students(marks, source, roster):
            if entry not in handed and roster.entries:
                strangers[entry.student] = person
            late = lateness(day.late, source.time, source.late, entry.extension)
            handed.setdefault(entry, []).append(Row(entry, marks, late, source.time))
    chosen = [_counting(entry, found) for entry, found in handed.items()]
    notes = list(_notes(chosen, handed, strangers, roster))
    return chosen, notes


def late_of(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[Lateness]:
    """How late each submission is, for the first of its students."""
    found = []
    for marks in class_:
        source = _handed_in(marks)
        entry, _ = next(_students(marks, source, roster))
        found.append(lateness(day.late, source.time, source.late, entry.extension))
    return found


def unmatched(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[str]:
    """Who handed in and is not on the roster, and who is on it and handed nothing in."""
    names = (msgspec.structs.replace(marks, exercises=[]) for marks in class_)
    return rows(names, day, roster)[1] if roster.entries else []


def _handed_in(marks: SubmissionMarks) -> HandedIn:
    return marks.handed_in or HandedIn((Person(marks.student),))


def _students(
    marks: SubmissionMarks, source: HandedIn, roster: Roster
) -> Iterator[tuple[Entry, Person]]:
    """Each student of a submission once: those who handed it in, and the rest of their groups."""
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
    # A file that was graded before there was a roster has old marks under another name.
    return max(found, key=lambda row: (_is_own(row), row.points))


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
        nearest = f"; the nearest is {near.label}" if near else ""
        yield f"{name} handed in and is not on the roster{nearest}"
    absent = [row.entry.label for row in chosen if row.marks is None]
    if absent:
        yield f"{len(absent)} on the roster handed nothing in: {', '.join(absent)}"
    for row in chosen:
        others = {
            other.marks.path
            for other in handed[row.entry]
            if other.marks and row.marks and other.marks.path != row.marks.path
        }
        if others and row.marks:
            yield (
                f"{row.entry.student} has {len(others) + 1} submissions: {row.marks.path} counts "
                f"({row.points:g} points), not {', '.join(sorted(others))}"
            )
        if row.late.note:
            yield f"{row.entry.student}: {row.late.note}"
