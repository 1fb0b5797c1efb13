"""Store when students submitted according to Moodle's worksheets, because a download from Moodle contains no times.

A worksheet has one time per participant: that of the newest file. The time of each graded file is therefore stored as
well, so that a file never gets the time of another one. Entry point: `SubmissionTimes`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from autograder.submissions.people import HandedIn

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS submission_time (
        day TEXT NOT NULL, participant TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (day, participant)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS file_time (
        day TEXT NOT NULL, participant TEXT NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (day, participant, sha256)
    )
    """,
)


@dataclass(frozen=True)
class SubmissionTimes:
    """A day's submission times: those in the last worksheet, by participant number, and those of graded files.

    The keys of `of_files` consist of the participant number and the hash of the file.
    """

    in_worksheet: Mapping[str, datetime] = field(default_factory=dict)
    of_files: Mapping[tuple[str, str], datetime] = field(default_factory=dict)

    def of(self, participant: str, sha256: str) -> datetime | None:
        """Return when a file was submitted, or None if the worksheet was downloaded before that or is missing."""
        time = self.in_worksheet.get(participant)
        is_of_another = any(
            who == participant and file != sha256 and when == time
            for (who, file), when in self.of_files.items()
        )
        if time is None or is_of_another:
            return self.of_files.get((participant, sha256))
        return time

    def added_to(self, source: HandedIn | None, sha256: str) -> HandedIn | None:
        """Return `source` with the submission time of the file with this hash, if the platform's download contains none."""
        if source is None or source.time or not source.participant:
            return source
        return replace(source, time=self.of(source.participant, sha256))


def read(database: sqlite3.Connection, day: str) -> SubmissionTimes:
    """Return the stored times of a day."""
    query = "SELECT participant, time FROM submission_time WHERE day = ?"
    rows = database.execute(query, (day,)).fetchall()
    query = "SELECT participant, sha256, time FROM file_time WHERE day = ?"
    files = database.execute(query, (day,)).fetchall()
    return SubmissionTimes(
        {participant: datetime.fromisoformat(time) for participant, time in rows},
        {(participant, file): datetime.fromisoformat(time) for participant, file, time in files},
    )


def put(database: sqlite3.Connection, day: str, times: Mapping[str, datetime]) -> None:
    """Store the times from a worksheet, by participant number."""
    rows = [(day, participant, time.isoformat()) for participant, time in times.items()]
    database.executemany("INSERT OR REPLACE INTO submission_time VALUES (?, ?, ?)", rows)


def put_files(
    database: sqlite3.Connection, day: str, files: Iterable[tuple[HandedIn | None, str]]
) -> None:
    """Store the times of graded files, given as pairs of a submission's people and time and the file's hash."""
    rows = [
        (day, source.participant, file, source.time.isoformat())
        for source, file in files
        if source and source.participant and source.time and file
    ]
    database.executemany("INSERT OR REPLACE INTO file_time VALUES (?, ?, ?, ?)", rows)
