"""Copy marks into nbgrader's gradebook, and read the overrides that TAs enter in formgrader.

Entry points: `copy` and `read_overrides`.

`copy` runs nbgrader's autograding step with existing marks instead of executing notebooks. Only new or changed marks are
copied, so a run continues where an interrupted one stopped. Each autograded notebook contains a fingerprint of its marks.
The fingerprint is written last, so a notebook without a fingerprint is incomplete. This module never writes to the
gradebook columns that contain the TAs' own marks and comments.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from nbconvert.writers.files import FilesWriter
from nbformat import NotebookNode
from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.preprocessors import AssignLatePenalties, NbGraderPreprocessor
from rich.console import Console
from rich.progress import track
from sqlalchemy.exc import DatabaseError, SAWarning
from sqlalchemy.orm.attributes import flag_modified

from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import Day
from autograder.course.files import FileError
from autograder.marks.model import Override, SubmissionMarks
from autograder.marks.overrides import FORMGRADER, without_nbgrader
from autograder.nbgrader_plugin.pipeline import GradedExporter
from autograder.plain_text import printable
from autograder.release.gradebook import load_nbgrader, sqlite_file
from autograder.submissions import disk, origin
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import Submission, find_submissions

STAMP = "autograder"  # key in the metadata of an autograded notebook
STEP = "autograder.nbgrader_plugin.pipeline.Grade"


def _rows(gradebook: Gradebook, day: Day, kind: Any, *columns: Any) -> Any:
    """Query columns for each of a day's grades or comments (`kind`). The first two are the student and the cell's name."""
    return (
        gradebook.db.query(SubmittedAssignment.student_id, BaseCell.name, *columns)
        .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .join(kind, kind.notebook_id == SubmittedNotebook.id)
        .join(BaseCell, BaseCell.id == kind.cell_id)
        .filter(Assignment.name == day.name)
    )


def read_overrides(day: Day) -> Mapping[Path, Mapping[str, Override]]:
    """Return the points and comments that TAs entered in formgrader, keyed by the student's folder in submitted/.

    Raises:
        FileError: The gradebook or nbgrader's configuration cannot be read.
    """
    course = load_nbgrader(day).coursedir
    file = sqlite_file(course.db_url)
    if file and not file.exists():
        return {}
    grade = (Grade.manual_score, Grade.auto_score, Grade.extra_credit)
    points: dict[tuple[str, str], float] = {}
    comments: dict[tuple[str, str], str] = {}
    try:
        with Gradebook(course.db_url, course.course_id) as gradebook:
            for student, cell, manual, auto, extra in _rows(gradebook, day, Grade, *grade):
                name = cell.removeprefix(CHECK_PREFIX)
                if manual is not None or extra:
                    given = (auto or 0.0) if manual is None else manual
                    points[student, name] = given + (extra or 0.0)
            for student, name, text in _rows(gradebook, day, Comment, Comment.manual_comment):
                if text and name in day.names:
                    comments[student, name] = text
    except DatabaseError as error:
        raise FileError(f"gradebook.db cannot be read: {printable(str(error.orig))}") from None
    found: dict[Path, dict[str, Override]] = defaultdict(dict)
    for student, name in {**points, **comments}:
        key = student, name
        folder = Path(course.format_path(course.submitted_directory, student, day.name))
        comment = comments.get(key, "")
        found[folder][name] = Override(points.get(key), comment, FORMGRADER, "", is_login=True)
    return found


@dataclass
class CopyResult:
    """The result of copying a class's marks: how many were copied, how many were unchanged, and any problems."""

    copied: int = 0
    unchanged: int = 0
    problems: list[str] = field(default_factory=list)


def copy(
    day: Day,
    folders: Sequence[Path],
    marks: Sequence[SubmissionMarks],
    reader: Reader,
    force: bool = False,
) -> CopyResult:
    """Copy the marks of the submissions in `folders`, each of which is `submitted/STUDENT/DAY`.

    If `force` is true, copy marks even if they are up to date.
    """
    result = CopyResult()
    console = Console(stderr=True, markup=False, emoji=False)
    warnings.simplefilter("ignore", SAWarning)  # nbgrader's use of SQLAlchemy causes these warnings
    try:
        copier = MarksCopier(day, reader)
        entries = copier.entries()
        for graded in track(
            _graded_submissions(day, folders, marks, reader, result.problems),
            "copying into the gradebook",
            total=len(folders),
            console=console,
            disable=not console.is_terminal,
        ):
            _copy(copier, graded, None if force else entries.get(graded.student), result)
    except (NbGraderException, FileError) as error:
        result.problems.append(str(error))
    except DatabaseError as error:
        done = result.copied + result.unchanged
        result.problems.append(
            f"{_describe(error)}; {done} of {len(folders)} submissions are up to date in the gradebook. "
            "Run the command again to copy the rest."
        )
    return result


def _copy(
    copier: MarksCopier, graded: GradedSubmission, entry: GradebookEntry | None, result: CopyResult
) -> None:
    try:
        if entry and copier.is_up_to_date(graded, entry):
            if entry.is_late:
                copier.assign_penalty(graded.student)
            result.unchanged += 1
        else:
            copier.copy(graded)
            result.copied += 1
    except Exception as error:  # a failure for one student must not affect the others
        if database := _database_error(error):
            raise database from None
        result.problems.append(
            f"{printable(graded.student)} was not copied into nbgrader's gradebook: {_describe(error)}"
        )


def _graded_submissions(
    day: Day,
    folders: Sequence[Path],
    marks: Sequence[SubmissionMarks],
    reader: Reader,
    problems: list[str],
) -> Iterator[GradedSubmission]:
    """Yield the submission in each folder. Read each file again, to avoid keeping the whole class's cells in memory."""
    indices = {(one.path, one.sha256): index for index, one in enumerate(marks)}
    for folder in folders:
        time = origin.parse_timestamp(disk.read_small_file(folder / origin.TIMESTAMP))
        if time is None and os.path.lexists(folder / origin.TIMESTAMP):
            file = printable(str(folder / origin.TIMESTAMP))
            problems.append(f"{file} contains no valid time; the submission counts as on time")
        (submission,) = find_submissions([folder], day, reader)
        index = indices.get((submission.path, submission.sha256))
        if index is None:
            problems.append(
                f"{printable(str(folder))} changed after it was graded: run the command again"
            )
            continue
        yield GradedSubmission(folder.parent.name, submission, without_nbgrader(marks[index]), time)


def _database_error(error: BaseException | None) -> DatabaseError | None:
    """Return the database error behind an exception, or None. nbgrader may have wrapped the error in its own exception."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__context__
    return error


def _describe(error: Exception) -> str:
    if not isinstance(error, DatabaseError):
        return printable(str(error) or type(error).__name__)
    if "locked" in str(error.orig):
        return "gradebook.db is locked: another process, such as formgrader, is writing to it"
    return f"gradebook.db cannot be read or written: {printable(str(error.orig))}"


# ---- copying one submission


@dataclass(frozen=True)
class GradedSubmission:
    """A submission in a student's folder, with its marks and submission time."""

    student: str
    submission: Submission
    marks: SubmissionMarks
    time: datetime | None

    def fingerprint(self) -> str:
        """Return a hash of everything shown in an autograded notebook except grading times."""
        marks = self.marks
        exercises = [msgspec.structs.replace(e, seconds=0.0) for e in marks.exercises]
        shown = [marks.sha256, marks.course, marks.problems, exercises, self.time]
        return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()

    def scores(self, day: Day) -> dict[str, float]:
        """Return the points for each check cell, or 0 for every cell if the submission could not be graded.

        Optional exercises get 0 points because nbgrader adds up the points of all cells.
        """
        points = {exercise.name: exercise.credit for exercise in self.marks.exercises}
        return {CHECK_PREFIX + name: points.get(name, 0.0) for name in day.names}


@dataclass
class GradebookEntry:
    """A student's scores in the gradebook, and whether the submission is late. Any submission with a penalty counts as late."""

    scores: dict[str, float | None]
    is_late: bool


class Stamp(NbGraderPreprocessor):  # type: ignore[misc]
    """A preprocessor that adds the marks' fingerprint to the notebook. It runs last, so an incomplete copy has no fingerprint."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Add the fingerprint to the notebook's metadata."""
        nb.metadata[STAMP] = {"made_from": self.parent.parent.current.fingerprint()}
        return nb, resources


class MarksCopier(Autograde):  # type: ignore[misc]
    """A version of nbgrader's `Autograde` that copies existing marks, configured by the course's nbgrader_config.py.

    A submission's other files are not copied; see `copy_receipt` and `leave_out_files` in pipeline.py.
    """

    current: GradedSubmission
    autograde_preprocessors: list[Any]

    def __init__(self, day: Day, reader: Reader) -> None:
        """Read the configuration and the gradebook.

        Raises NbGraderException if the course and the gradebook do not match, or if nbgrader would run students' code.
        """
        app = load_nbgrader(day)
        app.coursedir.assignment_id = day.name
        super().__init__(coursedir=app.coursedir, parent=app)
        if STEP not in self.autograde_preprocessors:
            raise NbGraderException(
                f"nbgrader_config.py must replace nbgrader's Execute with {STEP}; "
                "otherwise nbgrader would run students' code"
            )
        file = sqlite_file(self.coursedir.db_url)
        if file and not file.exists():
            raise NbGraderException(f"there is no gradebook.db. Run `autograder build {day.name}`")
        self.day = day
        self.autograde_preprocessors = [*self.autograde_preprocessors, Stamp]
        self.writer = FilesWriter(parent=self, config=self.config)
        self.exporter = GradedExporter(parent=self, config=self.config)
        self.exporter.grade = lambda path: (self.current.submission, self.current.marks)
        self.exporter.reader = reader

    def entries(self) -> dict[str, GradebookEntry]:
        """Return each student's gradebook entry for the day."""
        entries: dict[str, GradebookEntry] = {}
        with self._gradebook() as gradebook:
            columns = (
                SubmittedAssignment.timestamp,
                SubmittedAssignment.extension,
                Assignment.duedate,
                SubmittedNotebook.late_submission_penalty,
                Grade.auto_score,
            )
            for student, name, time, extension, due, penalty, score in _rows(
                gradebook, self.day, Grade, *columns
            ):
                is_late = bool(time and due and time > due + (extension or timedelta()))
                is_late = is_late or bool(penalty)
                entries.setdefault(student, GradebookEntry({}, is_late)).scores[name] = score
        return entries

    def is_up_to_date(self, graded: GradedSubmission, entry: GradebookEntry) -> bool:
        """Return whether the gradebook and the autograded notebook already show these marks."""
        folder = Path(self.coursedir.format_path("autograded", graded.student, self.day.name))
        try:
            notebook = json.loads((folder / f"{self.day.name}.ipynb").read_bytes())
            stamp = notebook["metadata"][STAMP]["made_from"]
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return bool(stamp == graded.fingerprint() and entry.scores == graded.scores(self.day))

    def copy(self, graded: GradedSubmission) -> None:
        """Copy a student's marks, feedback and submission time to nbgrader. Delete feedback pages that show older marks."""
        self.current = graded
        name = self.day.name
        with self._gradebook() as gradebook:
            gradebook.update_or_create_student(graded.student)
            submission = gradebook.update_or_create_submission(name, graded.student)
            submission.timestamp = graded.time and graded.time.astimezone(UTC).replace(tzinfo=None)
            # Force a write so that a locked gradebook raises an error here.
            flag_modified(submission, "timestamp")
            gradebook.db.commit()
        submitted, autograded, feedback = (
            Path(self.coursedir.format_path(step, graded.student, name))
            for step in ("submitted", "autograded", "feedback")
        )
        for stale in (autograded, feedback):
            if stale.exists():
                shutil.rmtree(stale)
        self.convert_single_notebook(str(submitted / f"{name}.ipynb"))
        self.set_permissions(name, graded.student)

    def assign_penalty(self, student: str) -> None:
        """Reapply the late policy in case a TA has changed marks or dates since they were copied."""
        names = {"notebook": self.day.name, "assignment": self.day.name, "student": student}
        resources = {"nbgrader": {**names, "db_url": self.coursedir.db_url}}
        AssignLatePenalties(parent=self).preprocess(NotebookNode(cells=[]), resources)

    def _gradebook(self) -> Gradebook:
        return Gradebook(self.coursedir.db_url, self.coursedir.course_id)
