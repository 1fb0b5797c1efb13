"""Store the marks from every grading of each submission in `.autograder/marks.db`, and record which marks are current.

Each submission's marks are written in one transaction and flushed to disk. SQLite uses a rollback journal instead of a
write-ahead log, so that a store in a read-only folder remains readable. A killed run leaves only the database and a
journal, which the next connection rolls back. Entry points: `History` and `basis_of`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Self

import msgspec

from autograder.course.files import FileError
from autograder.course.state_folder import course_folder, login, store_errors
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import OVERRIDES_DB
from autograder.marks.submission_times import SubmissionTimes
from autograder.plain_text import printable
from autograder.submissions.cell import definitions
from autograder.submissions.submission import Submission

FILE = "marks.db"
WAIT = 30.0  # seconds to wait while another process writes
ADVICE = "Move the file elsewhere and run `autograder grade` again to grade the class from scratch."
NO_TIMES = SubmissionTimes()
SAME_BASIS = "day = ? AND code = ? AND course = ? AND autograder = ? AND seed = ? AND isolation = ?"
DECODER = msgspec.json.Decoder(SubmissionMarks)
VERSION = 3
GRADING = """
CREATE TABLE grading (
    id INTEGER PRIMARY KEY,
    day TEXT NOT NULL, code TEXT NOT NULL, course TEXT NOT NULL, autograder TEXT NOT NULL,
    seed TEXT NOT NULL, isolation TEXT NOT NULL,
    path TEXT NOT NULL, student TEXT NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL,
    marks TEXT NOT NULL
);
CREATE INDEX grading_basis ON grading (day, code, course, autograder, seed, isolation);
"""
CURRENT = """
CREATE TABLE current (
    day TEXT NOT NULL, student TEXT NOT NULL, path TEXT NOT NULL,
    grading INTEGER NOT NULL REFERENCES grading, found_under BLOB NOT NULL,
    PRIMARY KEY (day, student)
);
"""


@dataclass(frozen=True)
class Basis:
    """Everything that determines a submission's marks. Marks with the same basis can be reused."""

    day: str
    code: str  # a hash of the code cells, definitions in other cells, their positions and the problems found in the file
    course: str
    autograder: str
    seed: str
    isolation: str


def basis_of(
    day: str, submission: Submission, course: str, seed: str, isolation: list[str]
) -> Basis:
    """Return everything that determines a submission's marks. `course` is the version of the course."""
    cells = [(c.number, c.source) for c in submission.cells if c.kind == "code"]
    file = submission.problems, submission.readable, submission.release
    # Marks contain a problem for each exercise that only a text cell defines.
    texts = [
        (c.number, sorted(names))
        for c in submission.cells
        if c.kind != "code" and (names := {found[1] for found in definitions(c.source)})
    ]
    hashed = [cells, *file, texts] if texts else [cells, *file]
    code = hashlib.sha256(msgspec.json.encode(hashed)).hexdigest()
    return Basis(day, code, course, engine_version(), seed, " ".join(isolation))


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

    key: str
    before: SubmissionMarks
    after: SubmissionMarks
    is_older: bool


class History:
    """A course's stored marks. One process can write at a time, and any number can read.

    All methods raise FileError if the store is damaged, or cannot be opened, read or written. A method that fails does not
    change it.
    """

    def __init__(self, root: Path, times: SubmissionTimes = NO_TIMES) -> None:
        """Open the store for the course in the folder `root`, creating the store if it does not exist.

        `times` contains the times from Moodle, which replace the times in the stored marks. A store that an older version
        wrote is upgraded.
        """
        self.file, self._times = course_folder(root) / FILE, times
        self._newest = 0  # number of the last grading that an earlier run stored
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            if _version(self._database) < VERSION:
                with self._transaction() as database:
                    _upgrade(database, self.file.with_name(OVERRIDES_DB))
            version = _version(self._database)
        if version > VERSION:
            raise FileError(
                f"{self.file} was written by a newer version of the autograder. Use that version."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # ---- reading

    def current(self, day: str) -> list[SubmissionMarks]:
        """Return the current marks of each student, sorted by path. A group's marks are returned once."""
        return [entry.marks for entry in self.current_with_paths(day)]

    def current_with_paths(self, day: str) -> list[Current]:
        """Return the same marks as `current`, each with its submission's location."""
        with self._errors("read"):
            return [
                replace(one, marks=self._times.of(one.marks))
                for one in _select(self._database, day)
            ]

    def codes(self, day: str) -> list[tuple[str, str, str]]:
        """Return each current submission's students (their keys, separated by newlines), their names, and the hash of its code.

        The hash is "" if nothing was attempted.
        """
        query = (
            "SELECT group_concat(current.student, char(10)), json_extract(marks, '$.student'),"
            " coalesce(json_extract(marks, '$.code'), '')"
            " FROM current JOIN grading ON grading.id = current.grading"
            " WHERE current.day = ? GROUP BY current.grading"
        )
        with self._errors("read"):
            return self._database.execute(query, (day,)).fetchall()

    def keys(self, day: str) -> set[str]:
        """Return the keys of all students with current marks."""
        with self._errors("read"):
            rows = self._database.execute("SELECT student FROM current WHERE day = ?", (day,))
            return {key for (key,) in rows}

    def find(self, basis: Basis, submission: Submission) -> SubmissionMarks | None:
        """Return the latest stored marks with this `Basis`, or None if there are none.

        Their path, students and file hash are replaced with those of `submission`.
        """
        query = f"SELECT marks FROM grading WHERE {SAME_BASIS} ORDER BY id DESC LIMIT 1"
        with self._errors("read"):
            row = self._database.execute(query, astuple(basis)).fetchone()
            if row is None:
                return None
            return msgspec.structs.replace(
                DECODER.decode(row[0]),
                path=submission.path,
                student=submission.student,
                sha256=submission.sha256,
                handed_in=submission.handed_in,
            )

    def is_from_earlier_run(self, basis: Basis) -> bool:
        """Return whether marks with this basis were stored before this run locked the day."""
        query = f"SELECT 1 FROM grading WHERE {SAME_BASIS} AND id <= ?"
        with self._errors("read"):
            found = self._database.execute(query, (*astuple(basis), self._newest)).fetchone()
        return found is not None

    # ---- writing

    def add(
        self, basis: Basis, marks: SubmissionMarks, found_under: Path, is_current: bool = True
    ) -> list[Replacement]:
        """Store marks in one transaction, unless the same marks are already stored.

        Args:
            found_under: The command-line path under which the submission was found.
            is_current: Whether these marks become current, except for students whose current submission is newer.

        Returns:
            A `Replacement` for each student whose current marks were for a different submission.
        """
        path = os.path.abspath(marks.path)
        same = (*astuple(basis), path, "\n".join(marks.origin.keys), marks.sha256)
        encoded = msgspec.json.encode(marks).decode()
        with self._errors("written"), self._transaction() as database:
            query = f"SELECT id FROM grading WHERE {SAME_BASIS} AND path = ? AND student = ? AND sha256 = ? AND marks = ?"
            row = database.execute(query, (*same, encoded)).fetchone()
            if row is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                insert = f"INSERT INTO grading VALUES (NULL{', ?' * 11})"
                row = (database.execute(insert, (*same, now, encoded)).lastrowid,)
            if not is_current:
                return []
            under = Path(os.path.abspath(found_under))
            new = Current(marks, path, under, row[0])
            return _put(database, basis.day, new, self._times)

    def forget(self, day: str, key: str) -> None:
        """Delete a student's marks for a day, including those of earlier submissions.

        A group submission's marks are kept if they still count for another student.
        """
        with self._errors("written"), self._transaction() as database:
            row = database.execute(
                "DELETE FROM current WHERE day = ? AND student = ? RETURNING grading", (day, key)
            ).fetchone()
            kept = "SELECT grading FROM current"
            query = f"DELETE FROM grading WHERE day = ? AND (student = ? OR id = ?) AND id NOT IN ({kept})"
            database.execute(query, (day, key, row and row[0]))

    @contextlib.contextmanager
    def lock(self, day: str) -> Iterator[None]:
        """Lock a day, so that no other run can grade it. The kernel releases the lock if this process is killed."""
        with self._errors("read"):
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            newest = self._database.execute("SELECT max(id) FROM grading").fetchone()
            self._newest = newest[0] or 0
        if found != "ok":
            raise FileError(f"{self.file} is damaged: {printable(found)}. {ADVICE}")
        file = self.file.with_name(f"{day}.lock")
        with contextlib.ExitStack() as stack:
            with self._errors("written"):
                lock = stack.enter_context(open(file, "a+", encoding="utf-8"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise FileError(
                    f"{day} is already being graded. The other run was started {lock.read()}"
                ) from None
            except OSError as error:  # some network file systems
                raise FileError(f"{file} cannot be locked: {error.strerror}") from None
            with self._errors("written"):
                lock.truncate(0)
                lock.write(_owner())
                lock.flush()
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit when the block ends; roll back if it raises an exception."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return store_errors(self.file, action, ADVICE)


def _owner() -> str:
    """Return a description of this process for the lock file: the user, the current time and the process ID."""
    now = datetime.now().astimezone().strftime("%H:%M:%S on %Y-%m-%d")
    return f"by {login()} at {now} (process {os.getpid()})"


# ---- the tables


def _version(database: sqlite3.Connection) -> int:
    """Return the version of a store's tables, or 0 if they do not exist."""
    found: int
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return found


def _upgrade(database: sqlite3.Connection, overrides: Path) -> None:
    """Create the tables in the current transaction or, in version 2, replace names with keys.

    `overrides` is the file with the overrides, which may not exist. Another process may have upgraded the store already.
    """
    found = _version(database)
    if found == 0:
        # `executescript` would commit the transaction.
        for statement in filter(str.strip, (GRADING + CURRENT).split(";")):
            database.execute(statement)
    elif found == 2:
        _replace_names(database, overrides)
    if found < VERSION:
        database.execute(f"PRAGMA user_version = {VERSION}")


def _replace_names(database: sqlite3.Connection, overrides: Path) -> None:
    """Identify students by their keys instead of their names, in the store and in the overrides."""
    keys: list[tuple[str, str, str]] = []
    rows = database.execute("SELECT id, day, marks FROM grading").fetchall()
    for number, day, marks in rows:
        origin = DECODER.decode(marks).origin
        database.execute(
            "UPDATE grading SET student = ? WHERE id = ?", ("\n".join(origin.keys), number)
        )
        keys += [(key, day, id_) for key, id_ in zip(origin.keys, origin.ids, strict=True)]
    current = database.execute(
        "SELECT current.day, current.student, current.path, grading, found_under, marks FROM current"
        " JOIN grading ON grading.id = current.grading ORDER BY grading"
    ).fetchall()
    database.execute("DELETE FROM current")
    for day, student, path, grading, under, marks in current:
        found = DECODER.decode(marks)
        pairs = zip(found.origin.keys, found.labels, found.origin.labels, strict=True)
        own = [key for key, *names in pairs if student in names]
        for key in own or found.origin.keys:
            database.execute(
                "INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)",
                (day, key, path, grading, under),
            )
    if overrides.exists():
        with contextlib.closing(sqlite3.connect(overrides)) as stored, stored:
            query = "UPDATE OR REPLACE override SET key = ? WHERE day = ? AND key = ?"
            stored.executemany(query, set(keys))


# ---- the current marks: for each student (see `submissions/origin.py`), the marks of the newest submission


def _put(
    database: sqlite3.Connection, day: str, new: Current, times: SubmissionTimes
) -> list[Replacement]:
    """Make marks current for their students, except for students whose current submission is newer.

    Return a `Replacement` for each student whose current marks were for a different submission.
    """
    keys = new.marks.origin.keys
    # The team's members may have been unknown in an earlier run.
    for key in new.marks.origin.team_keys:
        before = _current(database, day, key)
        if before and before.origin.labels == (new.marks.origin.team,):
            if _is_superseded(new.marks, times.of(before)):
                return []
            if key not in keys:
                database.execute("DELETE FROM current WHERE day = ? AND student = ?", (day, key))
    # The file may have had a different owner in an earlier run.
    places = ", ".join("?" * len(keys))
    database.execute(
        f"DELETE FROM current WHERE day = ? AND path = ? AND student NOT IN ({places})",
        (day, new.path, *keys),
    )
    found = (_put_for(database, day, key, new, times) for key in keys)
    return [replacement for replacement in found if replacement]


def _current(database: sqlite3.Connection, day: str, key: str) -> SubmissionMarks | None:
    query = (
        "SELECT marks FROM current JOIN grading ON grading.id = current.grading"
        " WHERE current.day = ? AND current.student = ?"
    )
    row = database.execute(query, (day, key)).fetchone()
    return DECODER.decode(row[0]) if row else None


def _put_for(
    database: sqlite3.Connection, day: str, key: str, new: Current, times: SubmissionTimes
) -> Replacement | None:
    before = _current(database, day, key)
    if before and key not in (owner := times.of(before).origin).keys:
        # The number is both the student's and that of a team whose members were unknown in an earlier run.
        query = "UPDATE OR REPLACE current SET student = ? WHERE day = ? AND student = ?"
        database.execute(query, (f"moodle {owner.team}", day, key))
        before = None
    is_older = before is not None and _is_superseded(new.marks, times.of(before))
    if not is_older:
        values = day, key, new.path, new.grading, os.fsencode(new.found_under)
        database.execute("INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)", values)
    if before is None or before.sha256 == new.marks.sha256:
        return None
    # The worksheet may contain only the time of the new file.
    of_files = SubmissionTimes(of_files=times.of_files, zone=times.zone)
    return Replacement(key, of_files.of(before), new.marks, is_older)


def _is_superseded(marks: SubmissionMarks, other: SubmissionMarks) -> bool:
    """Return whether a submission was made before another one, according to the platform."""
    is_same_file = marks.origin.source == "moodle" and marks.sha256 == other.sha256
    return not is_same_file and marks.origin.is_older(
        other.origin
    )  # the same file's time was corrected


def _select(database: sqlite3.Connection, day: str) -> Iterator[Current]:
    """Yield a day's current marks, sorted by path. The marks of a submission list only the students for whom it is current."""
    query = (
        "SELECT current.path, grading, current.rowid, found_under, current.student, CAST(marks AS BLOB) FROM current"
        " JOIN grading ON grading.id = current.grading WHERE current.day = ?"
    )
    # SQLite is slow at sorting long texts.
    rows = sorted(database.execute(query, (day,)), key=lambda row: row[:3])
    for (path, grading), same in groupby(rows, key=lambda row: row[:2]):
        group = [*same]
        _, _, _, under, _, encoded = group[0]
        counting = _for_students(DECODER.decode(encoded), {row[4] for row in group})
        yield Current(counting, path, Path(os.fsdecode(under)), grading)


def _for_students(marks: SubmissionMarks, keys: set[str]) -> SubmissionMarks:
    """Return marks for only the students with these keys."""
    origin = marks.origin
    chosen = [n for n, key in enumerate(origin.keys) if key in keys]
    if len(chosen) in (0, len(origin.keys)):  # 0: see `_put_for`
        return marks
    own = msgspec.structs.replace(origin, people=tuple(origin.people[n] for n in chosen))
    labels = marks.labels
    are_named = labels != origin.labels and len(labels) == len(origin.people)  # by the roster
    student = ", ".join(labels[n] for n in chosen) if are_named else own.student
    return msgspec.structs.replace(marks, student=student, handed_in=own)
