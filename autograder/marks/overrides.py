"""Store, apply and validate overrides: points and comments by a TA.

Also store submission times and teams from Moodle, and hashes of the feedback pages that students received.

This data is stored separately from marks, so regrading never changes it. Entry points: `OverrideStore`, `Overrides`,
`read_stored`, `resolve` and `read_times`.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from autograder.course.config import CourseError, Day
from autograder.course.state_folder import course_folder, login, store_errors
from autograder.marks import lookup
from autograder.marks.model import ExerciseMarks, Override, SubmissionMarks, total_points
from autograder.marks.submission_times import FileTimes, SubmissionTimes
from autograder.plain_text import Decision, counted, format_number
from autograder.submissions.origin import Person
from autograder.submissions.roster import Roster

OVERRIDES_DB = "overrides.db"
WAIT = 30.0  # seconds to wait while another process writes
TABLES = """
CREATE TABLE IF NOT EXISTS override (
    day TEXT NOT NULL, key TEXT NOT NULL, student TEXT NOT NULL, exercise TEXT NOT NULL,
    points REAL, comment TEXT NOT NULL, by TEXT NOT NULL, time TEXT NOT NULL,
    is_login INTEGER NOT NULL, earned REAL,
    PRIMARY KEY (day, key, exercise)
);
CREATE TABLE IF NOT EXISTS submission_time (
    day TEXT NOT NULL, participant TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (day, participant)
);
CREATE TABLE IF NOT EXISTS file_time (
    day TEXT NOT NULL, participant TEXT NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL,
    PRIMARY KEY (day, participant, sha256)
);
CREATE TABLE IF NOT EXISTS team_member (
    day TEXT NOT NULL, team TEXT NOT NULL, participant TEXT NOT NULL, name TEXT NOT NULL, email TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS page (
    day TEXT NOT NULL, target TEXT NOT NULL, student TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (day, target, student)
);
"""


@dataclass(frozen=True)
class StudentOverride:
    """One student's override for one exercise.

    `key` identifies the student (see `submissions/origin.py`). `earned` is the number of points that the code had earned
    when the TA set the points, or None if unknown.
    """

    key: str
    student: str
    exercise: str
    override: Override
    earned: float | None = None

    def is_surpassed_by(self, exercise: ExerciseMarks) -> bool:
        """Return whether the override raised the points, but the current submission earns even more without it."""
        points = self.override.points
        is_raise = points is not None and self.earned is not None and points > self.earned
        return is_raise and exercise.points > (points or 0.0)


class OverrideStore:
    """A course's overrides and Moodle's submission times, in `.autograder/overrides.db`. Each method is one transaction.

    All methods raise FileError if the store is damaged, or cannot be opened, read or written.
    """

    def __init__(self, root: Path) -> None:
        """Open the store, creating it if it does not exist."""
        self.file = course_folder(root) / OVERRIDES_DB
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT)
            self._database.executescript(TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def read(self, day: str) -> list[StudentOverride]:
        """Return all overrides for a day, sorted by student and exercise."""
        query = (
            "SELECT key, student, exercise, points, comment, by, time, is_login, earned FROM override"
            " WHERE day = ? ORDER BY student, key, exercise"
        )
        with self._errors("read"):
            rows = self._database.execute(query, (day,)).fetchall()
        found = []
        for key, student, exercise, points, comment, by, time, is_login, earned in rows:
            override = Override(points, comment, by, time, is_login=bool(is_login))
            found.append(StudentOverride(key, student, exercise, override, earned))
        return found

    def add(self, day: str, new: Sequence[StudentOverride]) -> None:
        """Store overrides. Each replaces any earlier override for the same student and exercise."""
        rows = []
        for one in new:
            o = one.override
            who = (day, one.key, one.student, one.exercise)
            rows.append((*who, o.points, o.comment, o.by, o.time, o.is_login, one.earned))
        with self._errors("written"), self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO override {_values(10)}", rows)

    def remove(self, day: str, keys: Iterable[str], exercise: str) -> int:
        """Remove the overrides for the students with these keys, and return how many were removed."""
        query = "DELETE FROM override WHERE day = ? AND key = ? AND exercise = ?"
        with self._errors("written"), self._database:
            return sum(self._database.execute(query, (day, key, exercise)).rowcount for key in keys)

    def times(self, day: str, zone: tzinfo) -> SubmissionTimes:
        """Return a day's submission times and teams. `zone` is Moodle's time zone."""
        sheet = "SELECT participant, time FROM submission_time WHERE day = ?"
        files = "SELECT participant, sha256, time FROM file_time WHERE day = ?"
        members = (
            "SELECT team, participant, name, email FROM team_member WHERE day = ? ORDER BY rowid"
        )
        parse = datetime.fromisoformat
        teams: dict[str, tuple[Person, ...]] = {}
        with self._errors("read"):
            for team, participant, name, email in self._database.execute(members, (day,)):
                teams[team] = (*teams.get(team, ()), Person(name, participant, email))
            return SubmissionTimes(
                {who: parse(time) for who, time in self._database.execute(sheet, (day,))},
                {
                    (who, file): parse(time)
                    for who, file, time in self._database.execute(files, (day,))
                },
                zone,
                teams,
            )

    def set_teams(self, day: str, teams: Mapping[str, Iterable[Person]]) -> None:
        """Replace a day's teams with those in a new worksheet."""
        rows = [(day, t, p.id, p.name, p.email) for t, members in teams.items() for p in members]
        with self._errors("written"), self._database:
            self._database.execute("DELETE FROM team_member WHERE day = ?", (day,))
            self._database.executemany(f"INSERT INTO team_member {_values(5)}", rows)

    def add_times(
        self,
        day: str,
        in_worksheet: Mapping[str, datetime],
        of_files: FileTimes,
        replaces: bool = True,
    ) -> None:
        """Store local submission times. The stored times of files change only if `replaces` is true."""
        sheet = [(day, who, time.isoformat()) for who, time in in_worksheet.items()]
        files = [(day, who, file, time.isoformat()) for (who, file), time in of_files.items()]
        conflict = "REPLACE" if replaces else "IGNORE"
        with self._errors("written"), self._database:
            self._database.executemany(
                f"INSERT OR REPLACE INTO submission_time {_values(3)}", sheet
            )
            self._database.executemany(f"INSERT OR {conflict} INTO file_time {_values(4)}", files)

    def pages(self, day: str, target: str) -> dict[str, str]:
        """Return the hash of the last page written for each student and a platform."""
        query = "SELECT student, hash FROM page WHERE day = ? AND target = ?"
        with self._errors("read"):
            return dict(self._database.execute(query, (day, target)).fetchall())

    def add_pages(self, day: str, target: str, pages: Mapping[str, str]) -> None:
        """Store the hashes of pages written for a platform."""
        rows = [(day, target, student, hash_) for student, hash_ in pages.items()]
        with self._errors("written"), self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO page {_values(4)}", rows)

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return store_errors(self.file, action)


def _values(count: int) -> str:
    return f"VALUES ({', '.join('?' * count)})"


def read_times(day: Day) -> SubmissionTimes:
    """Return the submission times in the course's store, in the time zone that `grading.toml` sets."""
    zone = day.late.moodle_zone
    if not (day.root / ".autograder" / OVERRIDES_DB).exists():
        return SubmissionTimes(zone=zone)
    with OverrideStore(day.root) as store:
        return store.times(day.name, zone)


FORMGRADER = "formgrader"  # value of `by` for overrides from nbgrader's gradebook


@dataclass(frozen=True)
class Overrides:
    """All overrides for a day.

    `from_nbgrader` maps folders in submitted/ to the points and comments in nbgrader's gradebook, by exercise. They take
    precedence over those in the store.
    """

    stored: Sequence[StudentOverride] = ()
    from_nbgrader: Mapping[Path, Mapping[str, Override]] = field(default_factory=dict)

    def apply(self, marks: SubmissionMarks) -> SubmissionMarks:
        """Return marks with their students' overrides applied.

        If an override raised the points, but the code now earns more without it, for example after a resubmission, the
        override is ignored.
        """
        own = self.of(marks)
        exercises = {exercise.name: exercise for exercise in marks.exercises}
        chosen = {
            name: one.override
            for name, one in own.items()
            if name in exercises and not one.is_surpassed_by(exercises[name])
        }
        for folder in Path(os.path.abspath(marks.path)).parents if self.from_nbgrader else ():
            chosen |= self.from_nbgrader.get(folder, {})
        new = [_override(e, chosen[e.name]) if e.name in chosen else e for e in marks.exercises]
        return _with_exercises(marks, new)

    def of(self, marks: SubmissionMarks) -> dict[str, StudentOverride]:
        """Map exercises to the latest override stored for a submission. One student's override applies to the whole group."""
        keys = marks.origin.keys if self.stored else ()
        own = sorted((o for o in self.stored if o.key in keys), key=lambda o: o.override.time)
        return {one.exercise: one for one in own}

    def unmatched(self, class_: Iterable[SubmissionMarks]) -> list[str]:
        """Return notes about overrides for students or exercises without marks. `class_` contains all students' marks."""
        graded = {
            key: {e.name for e in marks.exercises} for marks in class_ for key in marks.origin.keys
        }
        return [
            Decision(
                f"the override of {one.exercise} for {one.student} has no effect: "
                + ("the submission has no such exercise" if one.key in graded else _no_marks(one))
            )
            for one in self.stored
            if one.exercise not in graded.get(one.key, ())
        ]

    def surpassed(self, class_: Iterable[SubmissionMarks]) -> list[str]:
        """Return notes about overrides that have no effect because the current submission earned more points without them."""
        return [
            Decision(
                f"{marks.label}: the override of {one.exercise} to {format_number(one.override.points or 0)} has no effect, "
                f"because the submission earned {counted(exercise.points, 'point')} without it. To apply it, enter it again"
            )
            for marks in class_
            for one in self.of(marks).values()
            for exercise in marks.exercises
            if exercise.name == one.exercise and exercise.override is None
            if one.is_surpassed_by(exercise)
        ]


def _no_marks(one: StudentOverride) -> str:
    """Return a note about an override that matches no marks. Add advice if the student may have marks under a different id."""
    if one.key.endswith(f" {one.student}"):
        return f"there is no submission from {one.student}"
    return (
        f"there is no submission with the id {one.key.partition(' ')[2]}. If the student has marks under a different id, "
        "enter the override again"
    )


def read_stored(day: Day) -> Overrides:
    """Return the overrides in the course's store."""
    if not (day.root / ".autograder" / OVERRIDES_DB).exists():
        return Overrides()
    with OverrideStore(day.root) as store:
        return Overrides(store.read(day.name))


def _override(exercise: ExerciseMarks, override: Override) -> ExerciseMarks:
    points = exercise.points if override.points is None else override.points
    return replace(exercise, points=points, override=replace(override, graded=exercise.points))


def without_nbgrader(marks: SubmissionMarks) -> SubmissionMarks:
    """Remove points and comments that came from nbgrader's gradebook, so that the marks can be copied back into it."""
    exercises = [
        replace(e, points=e.override.graded, override=None)
        if e.override and e.override.by == FORMGRADER
        else e
        for e in marks.exercises
    ]
    return _with_exercises(marks, exercises)


def _with_exercises(marks: SubmissionMarks, exercises: list[ExerciseMarks]) -> SubmissionMarks:
    if exercises == marks.exercises:
        return marks
    return replace(marks, exercises=exercises, points=total_points(exercises))


def describe(exercise: ExerciseMarks) -> str:
    """Return a description of an exercise's override for the TA, beginning with the exercise's name, or "" if there is none."""
    override = exercise.override
    return f"{exercise.name} {describe_override(override)}" if override else ""


def describe_override(override: Override) -> str:
    """Return the points, the author, the date and the comment of an override."""
    by = " ".join(filter(None, [override.by, override.time[:10]]))
    comment = f": {override.comment}" if override.comment else ""
    return f"{override.change()} ({by}){comment}".lstrip()


MAX_COMMENT = 2000  # characters
NUMBER = re.compile(r"\d+[.,]?\d*|[.,]\d+")  # `float` also accepts 1_0 and 1e1
SIGNS = ("+", "-", "−")


@dataclass(frozen=True)
class Request:
    """A TA's override. `student` is a name, id or email address. An empty `points` or `comment` keeps the stored value."""

    student: str
    exercise: str
    points: str
    comment: str
    where: str = ""  # the file and row of the request, for error messages, or ""


def resolve(
    requests: Sequence[Request],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
    by: str = "",
    stored: Sequence[StudentOverride] = (),
) -> list[StudentOverride]:
    """Return the overrides to store. A request for a group submission becomes one override per student.

    If `by` is empty, the overrides are stored under the login name. If a request omits the points or the comment,
    the value is taken from the `stored` overrides or from earlier requests.

    Raises:
        CourseError: A student or exercise is unknown, or the points are invalid. The message lists all problems.
    """
    known = {(one.key, one.exercise): one for one in stored}
    found: dict[tuple[str, str], StudentOverride] = {}
    problems: list[str] = []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    for request in requests:
        try:
            marks = lookup.find_stored(request.student, class_, day, roster)
            points, comment = _points(request, marks, day), _comment(request)
        except CourseError as error:
            problems.append(f"{request.where}{error}")
            continue
        exercise = next((e for e in marks.exercises if e.name == request.exercise), None)
        earned = exercise.points if exercise else None
        if earlier := Overrides([*known.values()]).of(marks).get(request.exercise):
            if points is None and not (exercise and earlier.is_surpassed_by(exercise)):
                points, earned = earlier.override.points, earlier.earned
            comment = comment or earlier.override.comment
        who = by or login()
        override = Override(points, comment, who, time, is_login=not by)
        for key in marks.origin.keys:
            one = StudentOverride(key, marks.student, request.exercise, override, earned)
            found[key, request.exercise] = known[key, request.exercise] = one
    if problems:
        raise CourseError("; ".join(problems))
    return list(found.values())


def find_keys(
    student: str,
    stored: Sequence[StudentOverride],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
) -> set[str]:
    """Return the keys of the student with this name, id or email address, and of the other members of their group.

    If the student no longer has marks, match only the keys and names in the `stored` overrides.
    """
    by_name = {
        one.key for one in stored if student in (one.key, one.key.partition(" ")[2], one.student)
    }
    if by_name and not lookup.find(student, class_, day, roster):
        return by_name
    own = set(lookup.find_stored(student, class_, day, roster).origin.keys)
    return own if any(one.key in own for one in stored) else by_name


def _points(request: Request, marks: SubmissionMarks, day: Day) -> float | None:
    day.check_exercise(request.exercise)
    if not marks.exercises:
        raise CourseError(
            f"the submission of {marks.student} could not be graded, so it has no exercises"
        )
    text = request.points.strip()
    if not text:
        return None
    most = next(e.points for e in day.exercises if e.name == request.exercise)
    if text.startswith(SIGNS):
        raise CourseError(
            f"{request.points!r} has a sign. Enter the new points for {request.exercise}, from 0 to {format_number(most)}, "
            "not the change in points. The late penalty is deducted afterwards"
        )
    points = round(float(text.replace(",", ".")), 2) if NUMBER.fullmatch(text) else math.nan
    if not 0 <= points <= most:
        raise CourseError(
            f"{request.exercise} is worth {counted(most, 'point')}; {request.points!r} is not a number from 0 to "
            f"{format_number(most)}"
        )
    return points


def _comment(request: Request) -> str:
    comment = request.comment.strip()
    if not comment and not request.points.strip():
        raise CourseError(f"{request.student}, {request.exercise}: enter points, a comment or both")
    if len(comment) > MAX_COMMENT:
        raise CourseError(f"the comment is longer than {MAX_COMMENT} characters")
    return comment
