"""Define the store's tables, and upgrade stores written by earlier versions. Entry point: `prepare`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec

from autograder.marks import current_marks
from autograder.marks.current_marks import Current, decode
from autograder.marks.model import SubmissionMarks
from autograder.submissions.platforms import parse_canvas_name

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
MISSING = "the file or folder does not exist"  # earlier versions stored marks for missing files


def prepare(database: sqlite3.Connection) -> sqlite3.Connection:
    """Create the tables in a new database, or upgrade them. Return the database to use.

    A read-only store is upgraded in memory, so that it can still be read. Raises sqlite3.Error if this fails.
    """
    if _version(database) >= VERSION:
        return database
    try:
        _upgrade(database)
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
        copy = sqlite3.connect(":memory:", isolation_level=None)
        database.backup(copy)
        database.close()
        _upgrade(copy)
        copy.execute("PRAGMA query_only = ON")
        return copy
    return database


def _version(database: sqlite3.Connection) -> int:
    version: int
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return version


def _upgrade(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        version = _version(database)  # Another process may have upgraded the store in the meantime.
        if version == 0:
            _run(database, GRADING + current_marks.TABLE)
        elif version == 1:
            _upgrade_from_1(database)
        database.execute(f"PRAGMA user_version = {max(version, VERSION)}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _upgrade_from_1(database: sqlite3.Connection) -> None:
    """Keep only each student's newest submission. Version 1 kept one submission per student and path."""
    query = (
        "SELECT current.day, marks, current.path, grading, found_under FROM current"
        " JOIN grading ON grading.id = current.grading ORDER BY grading"
    )
    rows = database.execute(query).fetchall()
    _run(database, f"DROP TABLE current; {current_marks.TABLE}")
    for day, text, path, grading, under in rows:
        marks = _with_upload(decode(text))
        if MISSING not in marks.problems:
            encoded = msgspec.json.encode(marks).decode()
            database.execute("UPDATE grading SET marks = ? WHERE id = ?", (encoded, grading))
            found_under = Path(os.fsdecode(under))
            current_marks.put(database, day, Current(marks, path, found_under, grading))


def _with_upload(marks: SubmissionMarks) -> SubmissionMarks:
    """Return marks with Canvas's upload number, extracted from the path because version 1 did not store it."""
    handed_in = marks.handed_in
    for name in marks.path.split("/"):
        found = parse_canvas_name(name)
        if handed_in and found and found.people == handed_in.people:
            handed_in = msgspec.structs.replace(handed_in, upload=found.upload)
            return msgspec.structs.replace(marks, handed_in=handed_in)
    return marks


def _run(database: sqlite3.Connection, script: str) -> None:
    """Run statements in the current transaction; `executescript` would commit it."""
    for statement in filter(str.strip, script.split(";")):
        database.execute(statement)
