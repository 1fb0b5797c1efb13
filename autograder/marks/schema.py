"""Define the store's tables. Entry points: `version` and `create`."""

from __future__ import annotations

import sqlite3

from autograder.marks import current_marks

VERSION = 2
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


def version(database: sqlite3.Connection) -> int:
    """Return the version of a store's tables, or 0 if they do not exist."""
    found: int
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return found


def create(database: sqlite3.Connection) -> None:
    """Create the tables in the current transaction, unless another process has created them in the meantime."""
    if version(database):
        return
    # `executescript` would commit the transaction.
    for statement in filter(str.strip, (GRADING + current_marks.TABLE).split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
