"""Keep the results of code in `.autograder/results.sqlite`, so that equal code is not run again. Entry point: `ResultStore`.

A result belongs to a key, a hash of everything that determines it. The store only saves time: if it is missing, locked or
damaged, code is run. Each row contains a hash of its key and its value, so that a damaged row is never used.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from autograder.course.files import FileError
from autograder.course.state_folder import course_folder
from autograder.execution.attempt import Outcome

FILE = "results.sqlite"
MAX_SIZE = 500_000_000  # bytes
WAIT = 2.0  # seconds to wait while another process writes
TABLES = """
CREATE TABLE IF NOT EXISTS result (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS use (
    key BLOB NOT NULL, day TEXT NOT NULL, student TEXT NOT NULL, PRIMARY KEY (key, day, student)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS result_used ON result (used);
"""


class Result(msgspec.Struct, frozen=True):
    """What a run of code led to: the tests' outcomes and loading errors, or the name of a mistake.

    `cpu` and `idle` are the seconds that the run was charged. If the texts mention places in the notebook, `places` is a hash
    of these places; otherwise, it is "".
    """

    outcomes: list[Outcome] = []
    problems: list[str] = []
    mistake: str | None = None
    cpu: float = 0.0
    idle: float = 0.0
    places: str = ""


DECODER = msgspec.msgpack.Decoder(Result)


class ResultStore:
    """A course's stored results. Any number of processes can use it. Errors never end a run."""

    def __init__(self, root: Path) -> None:
        self._added: dict[bytes, bytes] = {}
        self._used: set[bytes] = set()
        self._database: sqlite3.Connection | None = None
        with suppress(FileError, OSError, sqlite3.Error):
            file = course_folder(root) / FILE
            try:
                self._database = _open(file)
            except sqlite3.OperationalError:  # locked or read-only
                raise
            except sqlite3.DatabaseError:
                file.unlink(missing_ok=True)
                file.with_name(f"{FILE}-journal").unlink(missing_ok=True)
                self._database = _open(file)

    def find(self, key: bytes, places: str) -> Result | None:
        """Return the result for a key, or None. A result that mentions places is returned only for these places."""
        if self._database is None:
            return None
        try:
            query = "SELECT value, digest FROM result WHERE key = ?"
            row = self._database.execute(query, (key,)).fetchone()
            if row is None or _digest(key, row[0]) != row[1]:
                return None
            result = DECODER.decode(row[0])
        except (sqlite3.Error, msgspec.MsgspecError, TypeError):
            return None
        return result if result.places in ("", places) else None

    def use(self, key: bytes) -> None:
        """Note that the submission being graded used a stored result."""
        self._used.add(key)

    def add(self, key: bytes, result: Result) -> None:
        """Keep a new result of the submission being graded. `commit` writes it."""
        with suppress(UnicodeEncodeError):  # a message may contain lone surrogates
            self._added[key] = msgspec.msgpack.encode(result)

    def discard(self) -> None:
        """Forget what `use` and `add` noted since the last `commit`."""
        self._added, self._used = {}, set()

    def commit(self, day: str, students: Collection[str]) -> None:
        """Write the results that a submission led to and used, in one transaction."""
        added, used = self._added, self._used
        self.discard()
        if self._database is None or not (added or used):
            return
        now = time.time()
        with suppress(sqlite3.Error), self._database as database:
            database.execute("BEGIN IMMEDIATE")
            rows = [(key, value, _digest(key, value), now) for key, value in added.items()]
            database.executemany("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", rows)
            database.executemany(
                "UPDATE result SET used = ? WHERE key = ?", [(now, key) for key in used]
            )
            uses = [(key, day, student) for key in (*added, *used) for student in students]
            database.executemany("INSERT OR IGNORE INTO use VALUES (?, ?, ?)", uses)
            while _size(database) > MAX_SIZE:
                database.execute(
                    "DELETE FROM result WHERE key IN (SELECT key FROM result ORDER BY used LIMIT"
                    " (SELECT 1 + count(*) / 10 FROM result))"
                )
                database.execute("DELETE FROM use WHERE key NOT IN (SELECT key FROM result)")

    def forget(self, day: str, student: str) -> None:
        """Delete the results that only this student's submissions for the day used."""
        if self._database is None:
            return
        with suppress(sqlite3.DatabaseError), self._database as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM use WHERE day = ? AND student = ?", (day, student))
            database.execute("DELETE FROM result WHERE key NOT IN (SELECT key FROM use)")


def _open(file: Path) -> sqlite3.Connection:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(file, timeout=WAIT, isolation_level=None)
    try:
        # A killed process loses nothing; after a power failure, the rows' hashes reveal damage.
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA secure_delete = ON")
        database.executescript(TABLES)
    except sqlite3.Error:
        with closing(database):
            raise
    return database


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()


def _size(database: sqlite3.Connection) -> int:
    """Return how many bytes of the file are in use."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    used: int = (pages - free) * size
    return used
