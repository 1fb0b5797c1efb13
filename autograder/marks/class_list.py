"""Match submissions to the roster and apply the late policy. Entry points: `rows` and `lateness_of_each`."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from autograder.course.config import Day
from autograder.course.late_policy import ON_TIME, Lateness, lateness
from autograder.marks import conflicts, roster_notes
from autograder.marks.conflicts import handed_in
from autograder.marks.model import SubmissionMarks
from autograder.marks.roster_notes import Unmatched
from autograder.plain_text import counted, format_number, list_with_count
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry, platform_id

GroupRule = Literal["latest", "best"]


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


def rows(
    class_: Iterable[SubmissionMarks],
    day: Day,
    roster: Roster,
    unreadable: float | None = None,
    group: GroupRule = "latest",
    stored: Collection[str] = (),
) -> tuple[list[Row], list[str]]:
    """Return one row per student and notes for the TA. Students on the roster come first, in roster order, followed by
    the others, sorted by name.

    One submission counts for each student, or for all members of a group on the roster. By default, the latest submission
    counts. If `group` is "best", or if it is unknown which submission is the latest, the one with the most points counts. A
    submission that could not be graded gets `unreadable` points, or no grade if `unreadable` is None. `stored` contains the
    labels of students whose marks are in the store, who may be missing from `class_`.
    """
    members = {entry: roster.group(entry) for entry in roster.entries}
    handed: dict[Entry, list[SubmissionMarks]] = {entry: [] for entry in roster.entries}
    people: dict[Entry, Person] = {}
    class_ = list(class_)
    contested = conflicts.contested(class_, roster)
    for marks in class_:
        students = _students(handed_in(marks, roster), roster, contested)
        people.update(students)
        for entry in dict.fromkeys(m for e, _ in students for m in members.get(e, (e,))):
            handed.setdefault(entry, []).append(marks)
    chosen = []
    others = sorted(handed.keys() - members.keys(), key=lambda entry: entry.label)
    for entry in [*members, *others]:
        found = handed[entry]
        marks_that_count = counting(found, [m.student for m in members.get(entry, ())], group)
        source = handed_in(marks_that_count, roster) if marks_that_count else HandedIn(())
        late = lateness_for(day, source, entry)
        person = people.get(entry)
        chosen.append(Row(entry, marks_that_count, late, source.time, unreadable, person))
    notes = roster_problems(chosen, class_, day, roster, stored)
    notes += roster_notes.differences(_unmatched(chosen, roster, contested, stored), roster, day)
    notes += _notes(chosen, handed)
    is_any_late = any(row.late.days and row.points is not None for row in chosen)
    if is_any_late and not day.late.per_cent_a_day:
        notes.append(
            f"lateness costs nothing, because grading.toml sets no late policy for {day.name}"
        )
    if unknown := _without_time(chosen, day):
        names = list_with_count([row.entry.student for row in unknown])
        notes.append(
            f"the late policy was not applied to submissions whose times are unknown {names}. "
            f"{_source_of_times(unknown, day)}"
        )
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
        if (hours := row.entry.hours_late(day.name)) and row.marks and is_on_time(row.marks)
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


def is_on_time(marks: SubmissionMarks) -> bool:
    """Return whether a submission is from Canvas and its file is not marked late."""
    source = marks.handed_in
    return bool(source and source.upload and not source.late)


def lateness_of_each(class_: Iterable[SubmissionMarks], day: Day, roster: Roster) -> list[Lateness]:
    """Return how late each submission is. A group's submission gets its first student's extension."""
    class_, result = list(class_), []
    contested = conflicts.contested(class_, roster)
    for marks in class_:
        source = handed_in(marks, roster)
        entry, _ = _students(source, roster, contested)[0]
        result.append(lateness_for(day, source, entry))
    return result


def lateness_for(day: Day, source: HandedIn, entry: Entry) -> Lateness:
    """Return how late a submission is. `entry` is the student's row on the roster."""
    hours, is_excused = entry.hours_late(day.name), entry.is_excused(day.name)
    extension = entry.extension_on(day.name)
    return lateness(day.late, source.time, source.late, extension, hours, is_excused)


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


def identical(codes: Iterable[tuple[str, str]], roster: Roster) -> list[list[str]]:
    """Return groups of students who submitted the same code, unless they form a group on the roster.

    `codes` contains each student's label and the hash of the code, or "" if nothing was attempted.
    """
    by_code: dict[str, set[str]] = {}
    for label, code in codes:
        if code:
            by_code.setdefault(code, set()).add(label)
    groups = {entry.student: entry.group for entry in roster.entries if entry.group}
    found = [
        sorted(same)
        for same in by_code.values()
        if len({groups.get(label, label) for label in same}) > 1
    ]
    return sorted(found)


def _students(
    source: HandedIn, roster: Roster, contested: Container[Entry]
) -> list[tuple[Entry, Person]]:
    """Return a submission's students, excluding the other members of their groups on the roster.

    A student in `contested` is matched only by id or email address, because several people have the student's name.
    """
    found = []
    for person, label, entry in zip(
        source.people, source.labels, roster.find_all(source), strict=True
    ):
        by_name = entry and not roster.find_by_key(person, label, source.participant)
        if entry is None or (by_name and entry in contested):
            entry = Entry(person.id, label, person.name, person.email)
        found.append((entry, person))
    return found


def labels(class_: Sequence[SubmissionMarks], roster: Roster) -> list[list[str]]:
    """Return a unique label for each student of each submission: the roster name, or else the platform's name and id.

    If several people have the same name as a student on the roster, only the person with that student's id is labelled
    with the name.
    """
    contested = conflicts.contested(class_, roster)
    return [
        [e.student for e, _ in _students(handed_in(one, roster), roster, contested)]
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


def note_of_others(student: str, row: Row, others: Iterable[SubmissionMarks]) -> Iterator[str]:
    """Yield a note if the student has other submissions besides the one that counts, which is in `row`."""
    assert row.marks is not None
    others = list(others)
    paths = {marks.path for marks in others} - {row.marks.path}
    if paths:
        points = "no points" if row.points is None else counted(row.points, "point")
        yield (
            f"{student} has {len(paths) + 1} submissions; {row.marks.path} counts "
            f"({points}), and these do not: {', '.join(sorted(paths))}"
            f"{_differing_names([row.marks, *others])}"
        )


def _differing_names(class_: Iterable[SubmissionMarks]) -> str:
    """Return a warning if these submissions from Canvas have the same student id, but different names."""
    sources = [marks.handed_in for marks in class_ if marks.handed_in]
    # The name is not certain if the file name is ambiguous.
    readings = [[reading.name for reading in source.readings] for source in sources]
    names = [found for found in readings if found]
    names += [[person.name for person in source.people] for source in sources if source.upload]
    if not names or set.intersection(*map(set, names)):
        return ""
    listed = ", ".join(sorted({found[0] for found in names}))
    return f". Their names in Canvas differ: {listed}. Check whether they are from the same student"


def _notes(
    chosen: Iterable[Row], handed: Mapping[Entry, Sequence[SubmissionMarks]]
) -> Iterator[str]:
    for row in chosen:
        if row.marks is None:
            continue
        yield from note_of_others(row.entry.student, row, handed[row.entry])
        if row.late.note and row.marks.points is not None:
            yield f"{row.entry.student}: {row.late.note}"
