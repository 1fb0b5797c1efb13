"""Match submissions to the roster, and choose the submission that counts for each student. Entry points: `rows` and `labels`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from autograder.course.config import Day
from autograder.marks import class_notes, conflicts, lateness, roster_notes
from autograder.marks.conflicts import handed_in
from autograder.marks.model import SubmissionMarks
from autograder.marks.roster_notes import Unmatched
from autograder.marks.row import Row
from autograder.plain_text import format_number
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

GroupRule = Literal["latest", "best"]


def rows(
    class_: Iterable[SubmissionMarks],
    day: Day,
    roster: Roster,
    unreadable: float | None = None,
    group: GroupRule = "latest",
    stored: Collection[str] = (),
) -> tuple[list[Row], list[str]]:
    """Return one row per student, and notes for the TA.

    Students on the roster come first, in roster order. All other students follow, sorted by name.

    One submission counts for each student, or for all members of a group on the roster. By default, the latest submission
    counts. If `group` is "best", or if the order of the submissions is unknown, the one with the most points counts. A
    submission that could not be graded gets `unreadable` points, or no grade if `unreadable` is None. `stored` contains the
    labels of students whose marks are in the store, even if these students are missing from `class_`.
    """
    members = {entry: roster.group(entry) for entry in roster.entries}
    handed: dict[Entry, list[SubmissionMarks]] = {entry: [] for entry in roster.entries}
    people: dict[Entry, Person] = {}
    class_ = list(class_)
    contested = conflicts.contested(class_, roster)
    for marks in class_:
        students = conflicts.find_students(handed_in(marks, roster), roster, contested)
        people.update(students)
        for entry in dict.fromkeys(m for e, _ in students for m in members.get(e, (e,))):
            handed.setdefault(entry, []).append(marks)
    chosen = []
    others = sorted(handed.keys() - members.keys(), key=lambda entry: entry.label)
    for entry in [*members, *others]:
        found = handed[entry]
        marks_that_count = counting(found, [m.student for m in members.get(entry, ())], group)
        source = handed_in(marks_that_count, roster) if marks_that_count else HandedIn(())
        late = lateness.lateness_for(day, source, entry)
        person = people.get(entry)
        chosen.append(Row(entry, marks_that_count, late, source.time, unreadable, person))
    notes = roster_problems(chosen, class_, day, roster, stored)
    notes += roster_notes.differences(_unmatched(chosen, roster, contested, stored), roster, day)
    notes += class_notes.choice_notes(chosen, handed)
    notes += lateness.notes(chosen, day)
    return chosen, notes


def roster_problems(
    rows: Sequence[Row],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
    stored: Collection[str] = (),
) -> list[str]:
    """Return notes about roster rows that may not affect marks in the way that the TA expects. See also `rows`."""
    contested = conflicts.contested(class_, roster)
    notes = [conflicts.note(*one) for one in conflicts.unsettled(contested).items()]
    unmatched = _unmatched(rows, roster, contested, stored)
    notes += conflicts.id_mismatches(class_, roster)
    notes += roster_notes.problems(unmatched, day)
    return notes + [
        f"{row.entry.student}: late_hours is {format_number(hours)} in roster.csv, but Canvas did not mark this "
        "submission late. Check whether the hours are for a different submission"
        for row in rows
        if (hours := row.entry.hours_late(day.name))
        and row.marks
        and lateness.is_on_time(row.marks)
    ]


def _unmatched(
    rows: Iterable[Row],
    roster: Roster,
    contested: Mapping[Entry, conflicts.People],
    stored: Collection[str],
) -> Unmatched:
    conflicting = conflicts.unsettled(contested).values()
    in_conflict = {label for people in conflicting for label in people.values()}
    known = set(roster.entries)
    absent: list[Entry] = []
    strangers: dict[str, Person] = {}
    for row in rows:
        if row.marks is None:
            in_store = any(member.student in stored for member in roster.group(row.entry))
            absent += [row.entry] if not in_store and row.entry not in contested else []
        elif row.person and row.entry not in known and row.entry.student not in in_conflict:
            strangers[row.entry.student] = row.person
    return Unmatched(absent, strangers if roster.entries else {})


def labels(class_: Sequence[SubmissionMarks], roster: Roster) -> list[list[str]]:
    """Return a unique label for each student of each submission.

    The label is the roster's name for the student or, for students who are not on the roster, the name and id from the
    platform.

    A label is the student's name on the roster. For students who are not on the roster, it is the name and id from the
    platform. If several people have the same name as a student on the roster, only the person with that student's id is
    labelled with the name.
    """
    contested = conflicts.contested(class_, roster)
    return [
        [e.student for e, _ in conflicts.find_students(handed_in(one, roster), roster, contested)]
        for one in class_
    ]


def counting(
    found: Sequence[SubmissionMarks], names: Sequence[str], group: GroupRule
) -> SubmissionMarks | None:
    """Return the submission that counts for a student or group with these names on the roster, or None if there is none."""
    if not found:
        return None
    sources = [marks.handed_in or HandedIn(()) for marks in found]
    orders: list[float] = [0.0] * len(found)
    if all(source.time for source in sources):
        orders = [source.time.timestamp() for source in sources if source.time]
    elif all(source.upload for source in sources):
        orders = [float(source.upload) for source in sources]

    def rank(number: int) -> tuple[float, ...]:
        marks = found[number]
        points = -1.0 if marks.points is None else marks.points
        # Marks stored before the roster was added may use a different name for the student.
        is_own = float(any(name in names for name in marks.labels))
        best_first = group == "best"
        return (points, orders[number]) if best_first else (orders[number], is_own, points)

    return found[max(range(len(found)), key=rank)]
