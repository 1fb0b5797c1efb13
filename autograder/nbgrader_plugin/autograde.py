"""Run nbgrader's autograding step with existing marks instead of executing notebooks. Entry point: `MarksCopier`.

Each autograded notebook contains a fingerprint of its marks. The fingerprint is written last, so a notebook without a
fingerprint is incomplete. This module never writes to the gradebook columns that contain the TAs' own marks and comments.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from nbconvert.writers.files import FilesWriter
from nbformat import NotebookNode
from nbgrader.api import (
    Assignment,
    BaseCell,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.apps import NbGrader
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.preprocessors import AssignLatePenalties, NbGraderPreprocessor
from sqlalchemy.orm.attributes import flag_modified

from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import Day
from autograder.feedback import sentences
from autograder.marks.model import SubmissionMarks
from autograder.nbgrader_plugin.pipeline import GradedExporter
from autograder.plain_text import printable
from autograder.release.gradebook import sqlite_file
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import Submission

STAMP = "autograder"  # key in the metadata of an autograded notebook
STEP = "autograder.nbgrader_plugin.pipeline.Grade"


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


class StoredExporter(GradedExporter):
    """An exporter that takes the marks from its `MarksCopier` instead of grading."""

    def prepare(self) -> sentences.Sentences:
        """Return the day's feedback sentences."""
        return sentences.read(self.day)

    def grade(self, path: Path) -> tuple[Submission, SubmissionMarks]:
        """Return the submission whose marks are being copied, along with its marks."""
        assert isinstance(self.parent, MarksCopier)
        return self.parent.current.submission, self.parent.current.marks

    def reader(self) -> Reader:
        """Return the `Reader` that read the submission."""
        assert isinstance(self.parent, MarksCopier)
        return self.parent.reader


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

        Raises:
            NbGraderException: The configuration is faulty, the course and the gradebook do not match, or nbgrader would
                run students' code.
            DatabaseError: The gradebook cannot be read.
        """
        # nbgrader logs every exception that it raises, with a traceback. Report each exception in one sentence instead.
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
        app = NbGrader(log_level=logging.CRITICAL, raise_config_file_errors=True)
        try:
            app.initialize([], root=str(day.root))
        except Exception as error:  # the configuration is Python code
            problem = printable(f"{type(error).__name__}: {error}")
            raise NbGraderException(f"nbgrader_config.py cannot be read: {problem}") from error
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
        self.reader = reader
        self.autograde_preprocessors = [*self.autograde_preprocessors, Stamp]
        self.writer = FilesWriter(parent=self, config=self.config)
        self.exporter = StoredExporter(parent=self, config=self.config)

    def entries(self) -> dict[str, GradebookEntry]:
        """Return each student's gradebook entry for the day."""
        entries: dict[str, GradebookEntry] = {}
        with self._gradebook() as gradebook:
            rows = (
                gradebook.db.query(
                    SubmittedAssignment.student_id,
                    SubmittedAssignment.timestamp,
                    SubmittedAssignment.extension,
                    Assignment.duedate,
                    SubmittedNotebook.late_submission_penalty,
                    BaseCell.name,
                    Grade.auto_score,
                )
                .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
                .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
                .join(Grade, Grade.notebook_id == SubmittedNotebook.id)
                .join(BaseCell, BaseCell.id == Grade.cell_id)
                .filter(Assignment.name == self.day.name)
            )
            for student, time, extension, due, penalty, name, score in rows:
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
