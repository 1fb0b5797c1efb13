"""nbgrader's Autograde with the marks that are there already, in the place of an execution.

Each autograded notebook says what it was made from, and that is written last, so that whatever was stopped half-way is
seen. A TA's marks and comments stand in columns of the gradebook that nothing here writes.
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
from sqlalchemy import make_url
from sqlalchemy.orm.attributes import flag_modified

from autograder.course.config import Day
from autograder.feedback import sentences
from autograder.marks.model import SubmissionMarks
from autograder.nbgrader_plugin.pipeline import CHECK, HandedInExporter
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission

STAMP = "autograder"  # in the metadata of an autograded notebook
STEP = "autograder.nbgrader_plugin.pipeline.Grade"


@dataclass(frozen=True)
class HandedIn:
    """What a student's folder holds, with its marks and the time at which it was handed in."""

    student: str
    submission: Submission
    marks: SubmissionMarks
    time: datetime | None

    def made_from(self) -> str:
        """A hash of all that a copy shows; how long the grading took is no part of it."""
        marks = self.marks
        exercises = [msgspec.structs.replace(e, seconds=0.0) for e in marks.exercises]
        shown = [marks.sha256, marks.course, marks.problems, exercises, self.time]
        return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()

    def scores(self, day: Day) -> dict[str, float]:
        """The points of each check cell; what could not be read has none."""
        points = {exercise.name: exercise.points for exercise in self.marks.exercises}
        return {CHECK + name: points.get(name, 0.0) for name in day.names}


@dataclass
class Held:
    """What the gradebook holds of a student; late is, too, who once was and has a penalty from then."""

    scores: dict[str, float | None]
    is_late: bool


class StoredExporter(HandedInExporter):
    """Has the marks already."""

    def prepare(self) -> sentences.Texts:
        """Nothing has to be started."""
        return sentences.read(self.day)

    def graded(self, path: Path) -> tuple[Submission, SubmissionMarks]:
        """What is copied at this moment."""
        assert isinstance(self.parent, Copying)
        return self.parent.now.submission, self.parent.now.marks

    def reader(self) -> Reader:
        """The one that has read the submission."""
        assert isinstance(self.parent, Copying)
        return self.parent.reader


class Stamp(NbGraderPreprocessor):  # type: ignore[misc]
    """Writes into the notebook what it was made from; the last step, so that it stands only in what is whole."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Add to the notebook's metadata."""
        nb.metadata[STAMP] = {"made_from": self.parent.parent.now.made_from()}
        return nb, resources


class Copying(Autograde):  # type: ignore[misc]
    """nbgrader's Autograde for submissions that are graded already, with the course's own nbgrader_config.py.

    Files beside the notebook are not copied along: nothing runs that could read them, and links and pipes would stop it.
    """

    now: HandedIn
    autograde_preprocessors: list[Any]

    def __init__(self, day: Day, reader: Reader) -> None:
        """Read the configuration and the gradebook.

        Raises:
            NbGraderException: course and gradebook do not fit, or nbgrader would run what students wrote.
            DatabaseError: the gradebook can not be read.
        """
        # nbgrader logs what it raises, with tracebacks; here each is one sentence at the end.
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
        app = NbGrader(log_level=logging.CRITICAL, raise_config_file_errors=True)
        app.initialize([], root=str(day.root))
        app.coursedir.assignment_id = day.name
        super().__init__(coursedir=app.coursedir, parent=app)
        if STEP not in self.autograde_preprocessors:
            raise NbGraderException(
                f"nbgrader_config.py does not put {STEP} in the place of nbgrader's Execute"
            )
        database = make_url(self.coursedir.db_url)
        if database.drivername == "sqlite" and not Path(str(database.database)).exists():
            raise NbGraderException(f"there is no gradebook.db: run autograder build {day.name}")
        self.day = day
        self.reader = reader
        self.autograde_preprocessors = [*self.autograde_preprocessors, Stamp]
        self.writer = FilesWriter(parent=self, config=self.config)  # type: ignore[no-untyped-call]
        self.exporter = StoredExporter(parent=self, config=self.config)

    def held(self) -> dict[str, Held]:
        """What the gradebook holds of each student of the day."""
        held: dict[str, Held] = {}
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
                held.setdefault(student, Held({}, is_late)).scores[name] = score
        return held

    def is_there(self, one: HandedIn, held: Held) -> bool:
        """Whether gradebook and autograded notebook show these marks already."""
        folder = Path(self.coursedir.format_path("autograded", one.student, self.day.name))
        try:
            notebook = json.loads((folder / f"{self.day.name}.ipynb").read_bytes())
            stamp = notebook["metadata"][STAMP]["made_from"]
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return bool(stamp == one.made_from() and held.scores == one.scores(self.day))

    def copy(self, one: HandedIn) -> None:
        """Copy one student's marks, with feedback and lateness; feedback pages that show older ones are removed."""
        self.now = one
        name = self.day.name
        with self._gradebook() as gradebook:
            gradebook.update_or_create_student(one.student)
            submission = gradebook.update_or_create_submission(name, one.student)
            submission.timestamp = one.time and one.time.astimezone(UTC).replace(tzinfo=None)
            flag_modified(submission, "timestamp")  # written in any case: a lock shows here
            gradebook.db.commit()
        submitted, autograded, feedback = (
            Path(self.coursedir.format_path(step, one.student, name))
            for step in ("submitted", "autograded", "feedback")
        )
        for stale in (autograded, feedback):
            if stale.exists():
                shutil.rmtree(stale)
        self.convert_single_notebook(str(submitted / f"{name}.ipynb"))
        if one.time:  # nbgrader makes feedback anew where this is later
            text = f"{one.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
            (autograded / "timestamp.txt").write_text(text, encoding="utf-8")
        self.set_permissions(name, one.student)

    def assign_penalty(self, student: str) -> None:
        """Let the late policy see marks that a TA has changed since they were copied."""
        names = {"notebook": self.day.name, "assignment": self.day.name, "student": student}
        resources = {"nbgrader": {**names, "db_url": self.coursedir.db_url}}
        AssignLatePenalties(parent=self).preprocess(NotebookNode(cells=[]), resources)

    def _gradebook(self) -> Gradebook:
        return Gradebook(self.coursedir.db_url, self.coursedir.course_id)
