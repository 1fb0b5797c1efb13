"""Record which marks are current: for each day, the marks of each student's newest submission. `History` uses this module.

A group submission has one row per student. If one member submits again, the others' marks are unchanged.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import msgspec

from autograder.marks.conflicts import Identity, are_two_people, identity
from autograder.marks.model import SubmissionMarks, without_tests
from autograder.marks.submission_times import SubmissionTimes

TABLE = """
CREATE TABLE current (
    day TEXT NOT NULL, student TEXT NOT NULL, path TEXT NOT NULL,
    grading INTEGER NOT NULL REFERENCES grading, found_under BLOB NOT NULL,
    PRIMARY KEY (day, student)
);
"""
DECODER = msgspec.json.Decoder(SubmissionMarks)


@dataclass(frozen=True)
class Current:
    """The current marks of a submission, the submission's path, and the command-line path under which it was found."""

    marks: SubmissionMarks
    path: str
    found_under: Path
    grading: int  # the marks' number in the store; later marks have higher numbers


@dataclass(frozen=True)
class Replacement:
    """A student's earlier marks and new marks. The new marks do not count if their submission is older (`is_older`)."""

    student: str
    before: SubmissionMarks
    after: SubmissionMarks
    is_older: bool


def put(
    database: sqlite3.Connection, day: str, new: Current, times: SubmissionTimes | None = None
) -> list[Replacement]:
    """Make marks current for their students, except for students whose current submission is newer.

    `times` contains the times from Moodle. They replace the times in the stored marks; the new marks already contain them.
    Return a `Replacement` for each student whose current marks were for a different submission.
    """
    students = new.marks.labels
    # The roster may have renamed the students since the last run.
    names = ", ".join("?" * len(students))
    database.execute(
        f"DELETE FROM current WHERE day = ? AND path = ? AND student NOT IN ({names})",
        (day, new.path, *students),
    )
    return [found for student in students for found in _put_for(database, day, student, new, times)]


def _put_for(
    database: sqlite3.Connection,
    day: str,
    student: str,
    new: Current,
    times: SubmissionTimes | None,
) -> list[Replacement]:
    query = (
        "SELECT marks FROM current JOIN grading ON grading.id = current.grading"
        " WHERE current.day = ? AND current.student = ?"
    )
    row = database.execute(query, (day, student)).fetchone()
    before = DECODER.decode(row[0]) if row else None
    if before and (label := _other_label(new.marks, before, student)):
        # One student on the roster matches two people.
        return _put_for(database, day, label, new, times)
    is_older = before is not None and is_superseded(new.marks, _timed(before, times))
    if not is_older:
        under = os.fsencode(new.found_under)
        values = day, student, new.path, new.grading, under
        database.execute("INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)", values)
    if before is None or before.sha256 == new.marks.sha256:
        return []
    if times:
        # The worksheet may contain only the time of the new file.
        source = times.known_of(before.handed_in, before.sha256)
        before = msgspec.structs.replace(before, handed_in=source)
    return [Replacement(student, before, new.marks, is_older)]


def _other_label(marks: SubmissionMarks, other: SubmissionMarks, student: str) -> str:
    """Return the platform's label for the student with these marks, or "" if `other` may be the same person's marks."""
    mine, theirs = _person(marks, student), _person(other, student)
    if not mine or not theirs or mine[1] == student:
        return ""
    return mine[1] if are_two_people(mine[0], theirs[0]) else ""


def _person(marks: SubmissionMarks, student: str) -> tuple[Identity | None, str] | None:
    """Return the identity and the platform's label of the person with this name on the roster."""
    source = marks.handed_in
    if source is None:
        return None
    pairs = list(zip(source.people, source.without_roster().labels, strict=True))
    for person, label in pairs:
        if student in (person.student, label) or len(pairs) == 1:
            return identity(marks, source, person), label
    return None


def _timed(marks: SubmissionMarks, times: SubmissionTimes | None) -> SubmissionMarks:
    if times is None:
        return marks
    source = times.added_to(marks.handed_in, marks.sha256)
    return msgspec.structs.replace(marks, handed_in=source)


def is_superseded(marks: SubmissionMarks, other: SubmissionMarks) -> bool:
    """Return whether a submission was made before another one, according to the platform."""
    if marks.handed_in is None or other.handed_in is None:
        return False
    participant = marks.handed_in.participant
    if participant and (participant, marks.sha256) == (other.handed_in.participant, other.sha256):
        return False  # It is the same file, whose time was corrected.
    return marks.handed_in.is_older(other.handed_in)


def select(database: sqlite3.Connection, day: str) -> Iterator[Current]:
    """Yield a day's current marks, sorted by path. The marks of a submission list only the students for whom it is current."""
    query = (
        "SELECT current.path, grading, found_under, marks, current.student FROM current"
        " JOIN grading ON grading.id = current.grading"
        " WHERE current.day = ? ORDER BY current.path, grading, current.rowid"
    )
    rows = database.execute(query, (day,))
    for (path, grading, under, marks), same in groupby(rows, key=lambda row: row[:4]):
        students = tuple(row[4] for row in same)
        counting = _for_students(DECODER.decode(marks), students)
        yield Current(counting, path, Path(os.fsdecode(under)), grading)


def _for_students(marks: SubmissionMarks, students: tuple[str, ...]) -> SubmissionMarks:
    """Return marks for only these students, whose names may have changed since the marks were stored."""
    if set(students) == set(marks.labels):
        return marks
    if handed_in := marks.handed_in:
        plain = handed_in.without_roster()
        labelled = zip(handed_in.people, handed_in.labels, plain.people, plain.labels, strict=True)
        people = tuple(
            person if label in students else without_name
            for person, label, without_name, own in labelled
            if label in students or own in students
        )
        if len(people) == len(students):
            handed_in = msgspec.structs.replace(handed_in, people=people)
            return msgspec.structs.replace(marks, student=handed_in.student, handed_in=handed_in)
    return msgspec.structs.replace(marks, student=", ".join(students))


def relabel(
    database: sqlite3.Connection,
    day: str,
    labels: Callable[[Sequence[SubmissionMarks]], Sequence[Sequence[str]]],
    times: SubmissionTimes | None,
) -> None:
    """Rename the students in the current marks, for example after a roster was added. Each student keeps the newest marks."""
    stored = [replace(one, marks=without_tests(one.marks)) for one in select(database, day)]
    marks = [entry.marks for entry in stored]
    renamed = [(entry, tuple(names)) for entry, names in zip(stored, labels(marks), strict=True)]
    if all(set(names) == set(entry.marks.labels) for entry, names in renamed):
        return
    database.execute("DELETE FROM current WHERE day = ?", (day,))
    for entry, names in sorted(renamed, key=lambda pair: pair[0].grading):
        timed = replace(entry, marks=_timed(entry.marks, times))
        for name in names:
            _put_for(database, day, name, timed, times)


def codes(database: sqlite3.Connection, day: str) -> list[tuple[str, str]]:
    """Return the students (separated by commas) and the code hash of each current submission."""
    query = (
        "SELECT group_concat(current.student, ', '), coalesce(json_extract(marks, '$.code'), '')"
        " FROM current JOIN grading ON grading.id = current.grading"
        " WHERE current.day = ? GROUP BY current.grading"
    )
    return database.execute(query, (day,)).fetchall()
