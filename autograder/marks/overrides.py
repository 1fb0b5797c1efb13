"""Store manual points and comments, and submission times from Moodle. Entry points: `OverrideStore` and `read_times`.

This data is stored separately from marks, so regrading never changes it. `adjustments` applies it to marks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

from autograder.course.config import Day
from autograder.course.state_folder import course_folder, store_errors
from autograder.marks import submission_times
from autograder.marks.model import ExerciseMarks, Override, SubmissionMarks
from autograder.marks.submission_times import SubmissionTimes
from autograder.submissions.people import HandedIn

OVERRIDES_DB = "overrides.db"
WAIT = 30.0  # seconds to wait while another process writes
TABLE = """
CREATE TABLE IF NOT EXISTS override (
    day TEXT NOT NULL, key TEXT NOT NULL, student TEXT NOT NULL, exercise TEXT NOT NULL,
    points REAL, comment TEXT NOT NULL, by TEXT NOT NULL, time TEXT NOT NULL,
    is_login INTEGER NOT NULL, earned REAL,
    PRIMARY KEY (day, key, exercise)
)
"""
PUT = "INSERT OR REPLACE INTO override VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class StudentOverride:
    """One student's override for one exercise.

    `earned` is the number of points that the code had earned when the TA set the points, or None if unknown.
    """

    key: str
    student: str
    exercise: str
    override: Override
    earned: float | None = None

    def is_outdone_by(self, exercise: ExerciseMarks) -> bool:
        """Return whether the override raised the points, but the current submission earns even more without it."""
        points = self.override.points
        is_raise = points is not None and self.earned is not None and points > self.earned
        return is_raise and exercise.points > (points or 0.0)


def keys(marks: SubmissionMarks) -> tuple[str, ...]:
    """Return an identifier for each of a submission's students: the id from the platform or, if there is none, the name.

    Students with the same name have different ids, and adding a roster does not change an id.
    """
    source = marks.handed_in
    if source is None:
        return (marks.student,)
    return tuple(p.id or source.participant or p.email or p.name for p in source.people)


class OverrideStore:
    """A course's overrides, in `.autograder/overrides.db`."""

    def __init__(self, root: Path) -> None:
        """Open the store, creating it if it does not exist.

        Raises:
            FileError: The store cannot be opened or created, or is damaged.
        """
        self.file = course_folder(root) / OVERRIDES_DB
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT)
            for table in (TABLE, *submission_times.TABLES):
                self._database.execute(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def read(self, day: str) -> list[StudentOverride]:
        """Return all overrides for a day, sorted by student and exercise.

        Raises:
            FileError: The store cannot be read.
        """
        query = (
            "SELECT key, student, exercise, points, comment, by, time, is_login, earned FROM override"
            " WHERE day = ? ORDER BY student, key, exercise"
        )
        with self._errors("read"):
            rows = self._database.execute(query, (day,)).fetchall()
        return [
            StudentOverride(
                key,
                student,
                exercise,
                Override(points, comment, by, time, is_login=bool(is_login)),
                earned,
            )
            for key, student, exercise, points, comment, by, time, is_login, earned in rows
        ]

    def add(self, day: str, new: Sequence[StudentOverride]) -> None:
        """Store overrides in one transaction. Each replaces any earlier override for the same student and exercise.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        rows = [
            (
                day,
                n.key,
                n.student,
                n.exercise,
                o.points,
                o.comment,
                o.by,
                o.time,
                o.is_login,
                n.earned,
            )
            for n in new
            for o in (n.override,)
        ]
        with self._errors("written"), self._database:
            self._database.executemany(PUT, rows)

    def times(self, day: str, zone: tzinfo) -> SubmissionTimes:
        """Return a day's submission times. `zone` is Moodle's time zone.

        Raises:
            FileError: The store cannot be read.
        """
        with self._errors("read"):
            return submission_times.read(self._database, day, zone)

    def add_times(self, day: str, times: Mapping[str, datetime]) -> None:
        """Store local submission times from Moodle's worksheet, by participant number.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        with self._errors("written"), self._database:
            submission_times.put(self._database, day, times)

    def add_file_times(
        self, day: str, files: Iterable[tuple[HandedIn | None, str]], corrects: bool = False
    ) -> None:
        """Store the submission times of graded files.

        Each item of `files` is a pair: who submitted the file and when, and the file's hash. Times that are already stored
        change only if `corrects` is true.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        with self._errors("written"), self._database:
            submission_times.put_files(self._database, day, files, corrects)

    def shift_file_times(self, day: str, shifts: Mapping[str, timedelta]) -> None:
        """Shift the submission times of graded files. `shifts` maps participant numbers to the time to add.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        with self._errors("written"), self._database:
            submission_times.shift_files(self._database, day, shifts)

    def remove(self, day: str, keys: Iterable[str], exercise: str) -> int:
        """Remove the overrides for the students with these keys, and return how many were removed.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        query = "DELETE FROM override WHERE day = ? AND key = ? AND exercise = ?"
        with self._errors("written"), self._database:
            return sum(self._database.execute(query, (day, key, exercise)).rowcount for key in keys)

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return store_errors(self.file, action)


def now() -> str:
    """Return the current time in the format used in stored overrides."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_times(day: Day) -> SubmissionTimes:
    """Return the submission times in the course's store, in the time zone that `grading.toml` sets.

    Raises:
        FileError: The store cannot be read.
    """
    zone = day.late.moodle_zone
    if not (day.root / ".autograder" / OVERRIDES_DB).exists():
        return SubmissionTimes(zone=zone)
    with OverrideStore(day.root) as store:
        return store.times(day.name, zone)
