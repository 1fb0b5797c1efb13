"""Store submission times from Moodle's worksheets, because the submissions that Moodle exports contain no times.

A worksheet has only one time per participant, the time of the newest file. The time of each graded file is therefore also
stored, so that a file never gets the time of a different file. Times are stored as Moodle writes them: as local times
without an offset. The time zone is applied when a time is used, so that a correction in `grading.toml` affects all
times. Entry point: `SubmissionTimes`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from msgspec.structs import replace

from autograder.marks.model import SubmissionMarks
from autograder.submissions.origin import Origin

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
ZONE_STEP = timedelta(minutes=15)  # offsets from UTC are multiples of this
SUMMER = timedelta(hours=1)  # the amount by which daylight saving time changes an offset


@dataclass(frozen=True)
class SubmissionTimes:
    """A day's submission times: each participant's time in the last worksheet, and the time of each graded file.

    `in_worksheet` maps participant numbers to times, and `of_files` maps pairs of a participant number and a file's hash to
    times. The times are Moodle's local times, without an offset, and `zone` is their time zone.
    """

    in_worksheet: Mapping[str, datetime] = field(default_factory=dict)
    of_files: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    zone: tzinfo = UTC

    @property
    def without_worksheet(self) -> SubmissionTimes:
        """Return only the times stored for graded files."""
        return SubmissionTimes({}, self.of_files, self.zone)

    def of(self, marks: SubmissionMarks) -> SubmissionMarks:
        """Return marks with the submission time of their file."""
        if not marks.origin.participant:
            return marks
        return replace(marks, handed_in=self.added_to(marks.origin, marks.sha256))

    def added_to(self, source: Origin, sha256: str, corrects: bool = False) -> Origin:
        """If `source` has a participant number, return `source` with the submission time of the file with this hash.

        If the file's time is already known, the worksheet's time is used only if `corrects` is true.
        Times in stored marks may have outdated UTC offsets, so these offsets are ignored.
        """
        if not source.participant:
            return source
        known = self.of_files.get((source.participant, sha256)) or source.time
        worksheet = self._worksheet_time(source.participant, sha256)
        local = worksheet or known if corrects else known or worksheet
        return replace(source, time=local and _with_offset(local, self.zone))

    def _worksheet_time(self, participant: str, sha256: str) -> datetime | None:
        """Return a participant's local time in the worksheet, or None if it is missing or belongs to a different file."""
        time = self.in_worksheet.get(participant)
        is_of_another = any(
            who == participant and file != sha256 and when == time
            for (who, file), when in self.of_files.items()
        )
        return None if is_of_another else time


def _with_offset(local: datetime, zone: tzinfo) -> datetime:
    """Attach a time zone's UTC offset to a local time. If the time occurs twice because clocks go back, use the first."""
    time = local.replace(tzinfo=zone, fold=0)
    return time.replace(tzinfo=timezone(time.utcoffset() or timedelta()))


def corrections(known: Mapping[str, datetime], new: Mapping[str, datetime]) -> dict[str, timedelta]:
    """Map participants to the time shift that makes the known time of their graded file match the new worksheet.

    If the times of most participants differ by the same amount, the new worksheet was written in a different time zone, so
    these times are shifted. A time that differs by any other amount may belong to a newer file, which was not graded.
    """
    shifts = {who: new[who] - known[who] for who in known.keys() & new.keys()}
    (usual, _), *_ = Counter(shifts.values()).most_common(1) or [(timedelta(), 0)]
    if not usual or usual % ZONE_STEP:
        return {}
    found = {
        who: shift
        for who, shift in shifts.items()
        if shift and abs(shift - usual) in (timedelta(), SUMMER)
    }
    return found if len(found) > max(1, len(shifts) / 2) else {}


def read(database: sqlite3.Connection, day: str, zone: tzinfo) -> SubmissionTimes:
    """Return a day's stored times. `zone` is Moodle's time zone."""
    query = "SELECT participant, time FROM submission_time WHERE day = ?"
    rows = database.execute(query, (day,)).fetchall()
    query = "SELECT participant, sha256, time FROM file_time WHERE day = ?"
    files = database.execute(query, (day,)).fetchall()
    return SubmissionTimes(
        {participant: datetime.fromisoformat(time) for participant, time in rows},
        {(participant, file): datetime.fromisoformat(time) for participant, file, time in files},
        zone,
    )


def put(database: sqlite3.Connection, day: str, times: Mapping[str, datetime]) -> None:
    """Store the local times from a worksheet, keyed by participant number."""
    rows = [(day, participant, _text(time)) for participant, time in times.items()]
    database.executemany("INSERT OR REPLACE INTO submission_time VALUES (?, ?, ?)", rows)


def put_files(
    database: sqlite3.Connection,
    day: str,
    files: Iterable[tuple[Origin, str]],
    corrects: bool,
) -> None:
    """Store the submission times of graded files.

    Each item of `files` is a pair: who submitted the file and when, and the file's hash. Times that are already stored
    change only if `corrects` is true.
    """
    rows = [
        (day, source.participant, file, _text(source.time))
        for source, file in files
        if source.participant and source.time and file
    ]
    conflict = "REPLACE" if corrects else "IGNORE"
    database.executemany(f"INSERT OR {conflict} INTO file_time VALUES (?, ?, ?, ?)", rows)


def shift_files(database: sqlite3.Connection, day: str, shifts: Mapping[str, timedelta]) -> None:
    """Shift graded files' times. `shifts` maps participant numbers to the time to add."""
    query = "SELECT participant, sha256, time FROM file_time WHERE day = ?"
    rows = [
        (_text(datetime.fromisoformat(time) + shifts[participant]), day, participant, file)
        for participant, file, time in database.execute(query, (day,)).fetchall()
        if participant in shifts
    ]
    update = "UPDATE file_time SET time = ? WHERE day = ? AND participant = ? AND sha256 = ?"
    database.executemany(update, rows)


def _text(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat()
