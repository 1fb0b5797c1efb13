"""Every grading of a submission, and which one counts, in `.autograder/marks.db`.

A submission is done when its marks are on the disk: each is a transaction of its own, written through. SQLite keeps its
rollback journal rather than a write-ahead log: a run that is killed leaves one file (and a journal that the next opening
undoes), and a store in a folder that may only be read can be read.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import getpass
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Self

import msgspec
import torch

from autograder.course.state_folder import StoreError, course_folder, unwritable
from autograder.marks.model import SubmissionMarks, one_line
from autograder.submissions.client import READER
from autograder.submissions.submission import Submission

FILE = "marks.db"
VERSION = 1  # of the tables
WAIT = 30.0  # seconds for another process that writes at this moment
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
ADVICE = "Move it away and grade again: whatever was handed in is graded anew."
BASIS = "day = ? AND code = ? AND course = ? AND autograder = ? AND seed = ? AND isolation = ?"


class Busy(StoreError):
    """Another run grades the same day."""


@dataclass(frozen=True)
class Basis:
    """All that the marks of a submission follow from; where it is the same, they are not made again."""

    day: str
    code: str  # a hash of the code cells, their places, and what was odd about the file
    course: str
    autograder: str
    seed: str
    isolation: str


@dataclass(frozen=True)
class Current:
    """Marks that count, the absolute path of their submission as it is shown, and the path that was given when it was found."""

    marks: SubmissionMarks
    path: str
    under: Path


def basis(day: str, submission: Submission, course: str, seed: str, isolation: list[str]) -> Basis:
    """What the marks of a submission follow from."""
    cells = [(c.number, c.source) for c in submission.cells if c.kind == "code"]
    file = submission.problems, submission.readable, submission.release
    seen = msgspec.json.encode([cells, *file])
    code = hashlib.sha256(seen).hexdigest()
    return Basis(day, code, course, autograder_version(), seed, " ".join(isolation))


@cache
def autograder_version() -> str:
    """A hash of what turns code into marks beside the course: torch's version, and all that grading imports of this package."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256(torch.__version__.encode())
    # What runs in the sandbox is started by name, so no import leads to it.
    sandbox = (package / "autograder" / "sandbox").rglob("*.py")
    for file in sorted(
        {*modules_behind("autograder.grading.grader"), *modules_behind(READER), *sandbox}
    ):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def modules_behind(module: str) -> list[Path]:
    """The files of this package that a module imports, and those import; sorted."""
    package = Path(__file__).parents[2]
    found: set[Path] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        file = _file(package, name) or _file(package, name.rpartition(".")[0])  # or what it defines
        if file is None:
            raise FileNotFoundError(f"{name} is no module: the marks' version would miss its code")
        if file not in found:
            found.add(file)
            pending += _imported(file)
            pending += [".".join(file.parent.relative_to(package).parts)]  # packages run as well
    return sorted(found)


def _file(package: Path, module: str) -> Path | None:
    place = package / module.replace(".", "/")
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imported(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autograder"):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("autograder")]
    return names


class History:
    """The marks of a course; one process writes to it at a time, any number may read."""

    def __init__(self, root: Path) -> None:
        """Open the store of the course at `root`, or make it.

        Raises:
            StoreError: it can not be opened or made, is damaged, or a newer autograder made it.
        """
        self.file = course_folder(root) / FILE
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._database.executescript(SCHEMA)
        if version > VERSION:
            raise StoreError(f"{self.file} was made by a newer autograder; use that one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    # ---- reading

    def current(self, day: str) -> list[SubmissionMarks]:
        """The marks that count, one of each student and path, sorted by path and student.

        Raises:
            StoreError: the store can not be read.
        """
        return [counts.marks for counts in self.places(day)]

    def places(self, day: str) -> list[Current]:
        """`current`, with where each submission was found."""
        query = (
            "SELECT marks, current.path, found_under FROM current"
            " JOIN grading ON grading.id = current.grading"
            " WHERE current.day = ? ORDER BY current.path, current.student"
        )
        with self._errors("read"):
            rows = self._database.execute(query, (day,))
            return [Current(_decoded(m), p, Path(os.fsdecode(under))) for m, p, under in rows]

    def find(self, basis: Basis, submission: Submission) -> SubmissionMarks | None:
        """The marks that grading this submission again would give, as of its path, student and file; None if it never was graded.

        Raises:
            StoreError: the store can not be read.
        """
        query = f"SELECT marks FROM grading WHERE {BASIS} ORDER BY id DESC LIMIT 1"
        with self._errors("read"):
            row = self._database.execute(query, astuple(basis)).fetchone()
            if row is None:
                return None
            return msgspec.structs.replace(
                _decoded(row[0]),
                path=submission.path,
                student=submission.student,
                sha256=submission.sha256,
                handed_in=submission.handed_in,
            )

    # ---- writing

    def add(
        self, basis: Basis, marks: SubmissionMarks, under: Path, is_current: bool = True
    ) -> None:
        """Put marks on the disk, and let them count from now on in place of what counted for their student and path.

        `under` is the path that was given when the submission was found. What is there already is not stored twice. All
        of it is done, or nothing.

        Raises:
            StoreError: they could not be written; what was there before is there still.
        """
        path = os.path.abspath(marks.path)
        same = (*astuple(basis), path, marks.student, marks.sha256)
        encoded = msgspec.json.encode(marks).decode()
        with self._errors("written"), self._transaction() as database:
            query = f"SELECT id FROM grading WHERE {BASIS} AND path = ? AND student = ? AND sha256 = ? AND marks = ?"
            row = database.execute(query, (*same, encoded)).fetchone()
            if row is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                insert = f"INSERT INTO grading VALUES (NULL{', ?' * 11})"
                row = (database.execute(insert, (*same, now, encoded)).lastrowid,)
            if is_current:
                place = os.fsencode(os.path.abspath(under))
                # The roster may have another name for the student than it had before.
                database.execute(
                    "DELETE FROM current WHERE day = ? AND path = ? AND student <> ?",
                    (basis.day, path, marks.student),
                )
                database.execute(
                    "INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)",
                    (basis.day, marks.student, path, row[0], place),
                )

    @contextlib.contextmanager
    def running(self, day: str) -> Iterator[None]:
        """Keep other runs of the day away; the kernel gives the lock back however this one ends.

        Raises:
            Busy: there is one; the text says whose, and since when.
            StoreError: the store is damaged, or its folder can not be written.
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
                raise Busy(f"{day} is being graded already, {lock.read()}") from None
            with self._errors("written"):
                lock.truncate(0)
                lock.write(_who())
                lock.flush()
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; an error inside undoes it."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """One sentence for what the disk or SQLite refuses."""
        try:
            yield
        except sqlite3.OperationalError as error:  # locked, full, read-only
            raise StoreError(f"{self.file} can not be {what}: {error}") from None
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise StoreError(f"{self.file} is damaged: {error}. {ADVICE}") from None
        except OSError as error:
            raise unwritable(self.file, error) from None


def _decoded(marks: str) -> SubmissionMarks:
    return msgspec.json.decode(marks, type=SubmissionMarks)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a list of users
        user = str(os.getuid())
    now = datetime.now().astimezone().strftime("%H:%M:%S on %Y-%m-%d")
    return f"by {user} since {now} (process {os.getpid()})"
