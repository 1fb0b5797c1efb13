"""Store the marks from every grading of each submission in `.autograder/marks.db`, and record which are current.

Each submission's marks are written in one transaction and flushed to disk. SQLite uses a rollback journal instead of a
write-ahead log: a killed run leaves only the database and a journal, which the next connection rolls back, and a store in
a read-only folder stays readable. Entry points: `History` and `basis_of`.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from autograder.course.state_folder import StoreError, course_folder, write_error
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks, one_line, without_zero
from autograder.submissions.submission import Submission

FILE = "marks.db"
VERSION = 1  # schema version
WAIT = 30.0  # seconds to wait while another process writes
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS grading (
    id INTEGER PRIMARY KEY,
    day TEXT NOT NULL, code TEXT NOT NULL, course TEXT NOT NULL, autograder TEXT NOT NULL,
    seed TEXT NOT NULL, isolation TEXT NOT NULL,
    path TEXT NOT NULL, student TEXT NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL,
    marks TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS grading_basis ON grading (day, code, course, autograder, seed, isolation);
CREATE TABLE IF NOT EXISTS current (
    day TEXT NOT NULL, student TEXT NOT NULL, path TEXT NOT NULL,
    grading INTEGER NOT NULL REFERENCES grading, found_under BLOB NOT NULL,
    PRIMARY KEY (day, student, path)
);
PRAGMA user_version = {VERSION};
COMMIT;
"""
ADVICE = "Move the file elsewhere and run `autograder grade` again to grade the class from scratch."
SAME_BASIS = "day = ? AND code = ? AND course = ? AND autograder = ? AND seed = ? AND isolation = ?"


class Busy(StoreError):
    """Raised when another run is grading the same day."""


@dataclass(frozen=True)
class Basis:
    """Everything that determines the marks of a submission. Marks with the same basis can be reused."""

    day: str
    code: str  # a hash of the code cells, their positions and the problems found in the file
    course: str
    autograder: str
    seed: str
    isolation: str


@dataclass(frozen=True)
class Current:
    """The current marks of a submission, the submission's path, and the command-line path under which it was found."""

    marks: SubmissionMarks
    path: str
    found_under: Path


def basis_of(
    day: str, submission: Submission, course: str, seed: str, isolation: list[str]
) -> Basis:
    """Return the basis of a submission's marks. `course` is the fingerprint of the day."""
    cells = [(c.number, c.source) for c in submission.cells if c.kind == "code"]
    file = submission.problems, submission.readable, submission.release
    code = hashlib.sha256(msgspec.json.encode([cells, *file])).hexdigest()
    return Basis(day, code, course, engine_version(), seed, " ".join(isolation))


class History:
    """The stored marks of a course. Only one process can write at a time, but any number can read."""

    def __init__(self, root: Path) -> None:
        """Open the store for the course in the folder `root`, creating the store if it does not exist.

        Raises:
            StoreError: The store cannot be opened or created, is damaged, or has a newer schema.
        """
        self.file = course_folder(root) / FILE
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._database.executescript(SCHEMA)
        if version > VERSION:
            raise StoreError(
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
        """Return the current marks of each student and path, sorted by path and student.

        Raises:
            StoreError: The store cannot be read.
        """
        return [entry.marks for entry in self.current_with_paths(day)]

    def current_with_paths(self, day: str) -> list[Current]:
        """Return the same marks as `current`, together with the location of each submission.

        Raises:
            StoreError: The store cannot be read.
        """
        query = (
            "SELECT marks, current.path, found_under FROM current"
            " JOIN grading ON grading.id = current.grading"
            " WHERE current.day = ? ORDER BY current.path, current.student"
        )
        with self._errors("read"):
            rows = self._database.execute(query, (day,))
            return [Current(_decode(m), p, Path(os.fsdecode(under))) for m, p, under in rows]

    def find(self, basis: Basis, submission: Submission) -> SubmissionMarks | None:
        """Return the stored marks with this basis, relabelled with the submission's path and student, or None if there are none.

        Raises:
            StoreError: The store cannot be read.
        """
        query = f"SELECT marks FROM grading WHERE {SAME_BASIS} ORDER BY id DESC LIMIT 1"
        with self._errors("read"):
            row = self._database.execute(query, astuple(basis)).fetchone()
            if row is None:
                return None
            return msgspec.structs.replace(
                _decode(row[0]),
                path=submission.path,
                student=submission.student,
                sha256=submission.sha256,
                handed_in=submission.handed_in,
            )

    # ---- writing

    def add(
        self, basis: Basis, marks: SubmissionMarks, found_under: Path, is_current: bool = True
    ) -> None:
        """Store marks in one transaction, unless the same marks are already stored.

        Args:
            found_under: The command-line path under which the submission was found.
            is_current: Whether these marks become current for their student and path.

        Raises:
            StoreError: The marks could not be written. The store is unchanged.
        """
        path = os.path.abspath(marks.path)
        same = (*astuple(basis), path, marks.student, marks.sha256)
        encoded = msgspec.json.encode(marks).decode()
        with self._errors("written"), self._transaction() as database:
            query = f"SELECT id FROM grading WHERE {SAME_BASIS} AND path = ? AND student = ? AND sha256 = ? AND marks = ?"
            row = database.execute(query, (*same, encoded)).fetchone()
            if row is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                insert = f"INSERT INTO grading VALUES (NULL{', ?' * 11})"
                row = (database.execute(insert, (*same, now, encoded)).lastrowid,)
            if is_current:
                place = os.fsencode(os.path.abspath(found_under))
                # The roster may have renamed the student since the last run.
                database.execute(
                    "DELETE FROM current WHERE day = ? AND path = ? AND student <> ?",
                    (basis.day, path, marks.student),
                )
                database.execute(
                    "INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)",
                    (basis.day, marks.student, path, row[0], place),
                )

    @contextlib.contextmanager
    def lock(self, day: str) -> Iterator[None]:
        """Lock a day, so that no other run can grade it. The kernel releases the lock if this process is killed.

        Raises:
            Busy: Another run holds the lock. The message says who started that run, and when.
            StoreError: The store is damaged, or its folder is read-only.
        """
        with self._errors("read"):
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreError(f"{self.file} is damaged: {one_line(found)}. {ADVICE}")
        file = self.file.with_name(f"{day}.lock")
        with contextlib.ExitStack() as stack:
            with self._errors("written"):
                lock = stack.enter_context(open(file, "a+", encoding="utf-8"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise Busy(
                    f"{day} is already being graded: that run was started {lock.read()}"
                ) from None
            with self._errors("written"):
                lock.truncate(0)
                lock.write(_owner())
                lock.flush()
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit when the block ends; roll back if it raises."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Turn SQLite and file-system errors into a StoreError with a one-sentence message."""
        try:
            yield
        except sqlite3.OperationalError as error:  # e.g. locked or read-only
            raise StoreError(f"{self.file} cannot be {action}: {error}") from None
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise StoreError(f"{self.file} is damaged: {error}. {ADVICE}") from None
        except OSError as error:
            raise write_error(self.file, error) from None


def _decode(marks: str) -> SubmissionMarks:
    return without_zero(msgspec.json.decode(marks, type=SubmissionMarks))


def _owner() -> str:
    """Return a description of this process for the lock file: the user, the current time and the process ID."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # e.g. in a container without a user database
        user = str(os.getuid())
    now = datetime.now().astimezone().strftime("%H:%M:%S on %Y-%m-%d")
    return f"by {user} at {now} (process {os.getpid()})"
