"""Store the marks from every grading of each submission in `.autograder/marks.db`, and record which marks are current.

Each submission's marks are written in one transaction and flushed to disk. SQLite uses a rollback journal instead of a
write-ahead log, so that a store in a read-only folder remains readable. A killed run leaves only the database and a
journal, which the next connection rolls back. Entry points: `History` and `basis_of`.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from autograder.course.output_files import FileError
from autograder.course.state_folder import course_folder, store_errors
from autograder.marks import current_marks, schema
from autograder.marks.current_marks import DECODER, Current, Replacement
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks, rename_exercises
from autograder.marks.submission_times import SubmissionTimes
from autograder.plain_text import one_line
from autograder.submissions.cell import definitions
from autograder.submissions.submission import Submission

FILE = "marks.db"
WAIT = 30.0  # seconds to wait while another process writes
ADVICE = "Move the file elsewhere and run `autograder grade` again to grade the class from scratch."
NO_NAMES: Mapping[str, str] = {}
SAME_BASIS = "day = ? AND code = ? AND course = ? AND autograder = ? AND seed = ? AND isolation = ?"


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


class History:
    """A course's stored marks. One process can write at a time, and any number can read."""

    def __init__(self, root: Path, times: SubmissionTimes | None = None) -> None:
        """Open the store for the course in the folder `root`, creating the store if it does not exist.

        `times` contains the times from Moodle, which replace the times in the stored marks.

        Raises:
            FileError: The store cannot be opened or created, is damaged, or has a newer schema.
        """
        self.file, self._times = course_folder(root) / FILE, times
        self._newest = 0  # number of the last grading that an earlier run stored
        with self._errors("opened"):
            self._database = sqlite3.connect(self.file, timeout=WAIT, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            if not schema.version(self._database):
                with self._transaction() as database:
                    schema.create(database)
            version = schema.version(self._database)
        if version > schema.VERSION:
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

    def current(self, day: str, older_names: Mapping[str, str] = NO_NAMES) -> list[SubmissionMarks]:
        """Return the current marks of each student, sorted by path. A group's marks are returned once.

        `older_names` maps older exercise names, which may be in the store, to current names.

        Raises:
            FileError: The store cannot be read.
        """
        return [entry.marks for entry in self.current_with_paths(day, older_names)]

    def current_with_paths(
        self, day: str, older_names: Mapping[str, str] = NO_NAMES
    ) -> list[Current]:
        """Return the same marks as `current`, each with its submission's location.

        Raises:
            FileError: The store cannot be read.
        """
        with self._errors("read"):
            return [
                replace(one, marks=rename_exercises(one.marks, older_names))
                for one in current_marks.select(self._database, day)
            ]

    def codes(self, day: str) -> list[tuple[str, str]]:
        """Return each submission's students and code hash. The hash is "" if nothing was attempted.

        Raises:
            FileError: The store cannot be read.
        """
        with self._errors("read"):
            return current_marks.codes(self._database, day)

    def find(self, basis: Basis, submission: Submission) -> SubmissionMarks | None:
        """Return the latest stored marks with this `Basis`, or None if there are none.

        Their path, students and file hash are replaced with those of `submission`.

        Raises:
            FileError: The store cannot be read.
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
        """Return whether marks with this basis were stored before this run locked the day.

        Raises:
            FileError: The store cannot be read.
        """
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

        Raises:
            FileError: The marks could not be written. The store is unchanged.
        """
        path = os.path.abspath(marks.path)
        same = (*astuple(basis), path, marks.label, marks.sha256)
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
            return current_marks.put(database, basis.day, new, self._times)

    def relabel(
        self, day: str, labels: Callable[[Sequence[SubmissionMarks]], Sequence[Sequence[str]]]
    ) -> None:
        """Rename the students in the current marks, for example after a roster was added.

        Args:
            labels: A function that returns the labels of each submission's students.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        with self._errors("written"), self._transaction() as database:
            current_marks.relabel(database, day, labels, self._times)

    def forget(self, day: str, student: str) -> None:
        """Delete a student's marks for a day, including those of earlier submissions.

        A group submission's marks are kept if they still count for another student.

        Raises:
            FileError: The store cannot be written. It is unchanged.
        """
        with self._errors("written"), self._transaction() as database:
            found = "FROM current WHERE day = ? AND student = ?"
            # In a conflict, the label of the current marks differs from the student stored with the grading.
            row = database.execute(f"SELECT grading {found}", (day, student)).fetchone()
            database.execute(f"DELETE {found}", (day, student))
            kept = "SELECT grading FROM current"
            query = f"DELETE FROM grading WHERE day = ? AND (student = ? OR id = ?) AND id NOT IN ({kept})"
            database.execute(query, (day, student, row and row[0]))

    @contextlib.contextmanager
    def lock(self, day: str) -> Iterator[None]:
        """Lock a day, so that no other run can grade it. The kernel releases the lock if this process is killed.

        Raises:
            FileError: Another run holds the lock, the store is damaged, or its folder is read-only.
        """
        with self._errors("read"):
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            newest = self._database.execute("SELECT max(id) FROM grading").fetchone()
            self._newest = newest[0] or 0
        if found != "ok":
            raise FileError(f"{self.file} is damaged: {one_line(found)}. {ADVICE}")
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


def login() -> str:
    """Return the name of this process's user, or the user's id if there is no name, which is common in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _owner() -> str:
    """Return a description of this process for the lock file: the user, the current time and the process ID."""
    now = datetime.now().astimezone().strftime("%H:%M:%S on %Y-%m-%d")
    return f"by {login()} at {now} (process {os.getpid()})"
