"""Read the points and comments entered by TAs in formgrader. Entry point: `read`."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.apps import NbGrader
from sqlalchemy.exc import DatabaseError

from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import Day, older_names
from autograder.course.files import FileError
from autograder.marks.model import Override
from autograder.marks.overrides import FORMGRADER, Overrides
from autograder.plain_text import printable
from autograder.release.gradebook import sqlite_file


def read(day: Day) -> dict[Path, Overrides]:
    """Return the points and comments in nbgrader's gradebook, keyed by the student's folder in submitted/.

    Raises:
        FileError: The gradebook cannot be read.
    """
    app = NbGrader(log_level=logging.CRITICAL)
    app.initialize([], root=str(day.root))
    file = sqlite_file(app.coursedir.db_url)
    if file and not file.exists():
        return {}
    found: dict[str, dict[str, Override]] = defaultdict(dict)
    current = older_names(day)
    try:
        with Gradebook(app.coursedir.db_url, app.coursedir.course_id) as gradebook:
            comments = _comments(gradebook, day)
            for student, cell, points, auto, extra in _grades(gradebook, day):
                name = cell.removeprefix(CHECK_PREFIX)
                name = current.get(name, name)
                comment = comments.pop((student, name), "")
                given = (auto if points is None else points) + (extra or 0.0)
                found[student][name] = Override(given, comment, FORMGRADER, "", is_login=True)
            for (student, name), comment in comments.items():
                found[student][name] = Override(None, comment, FORMGRADER, "", is_login=True)
    except DatabaseError as error:
        raise FileError(f"gradebook.db cannot be read: {printable(str(error.orig))}") from None
    format_path = app.coursedir.format_path
    return {
        Path(format_path(app.coursedir.submitted_directory, student, day.name)): own
        for student, own in found.items()
    }


def _grades(
    gradebook: Gradebook, day: Day
) -> list[tuple[str, str, float | None, float, float | None]]:
    rows = (
        gradebook.db.query(
            SubmittedAssignment.student_id,
            BaseCell.name,
            Grade.manual_score,
            Grade.auto_score,
            Grade.extra_credit,
        )
        .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .join(Grade, Grade.notebook_id == SubmittedNotebook.id)
        .join(BaseCell, BaseCell.id == Grade.cell_id)
        .filter(Assignment.name == day.name)
    )
    return [
        (student, cell, points, auto or 0.0, extra)
        for student, cell, points, auto, extra in rows
        if points is not None or extra
    ]


def _comments(gradebook: Gradebook, day: Day) -> dict[tuple[str, str], str]:
    rows = (
        gradebook.db.query(SubmittedAssignment.student_id, BaseCell.name, Comment.manual_comment)
        .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .join(Comment, Comment.notebook_id == SubmittedNotebook.id)
        .join(BaseCell, BaseCell.id == Comment.cell_id)
        .filter(Assignment.name == day.name)
    )
    current = older_names(day)
    return {
        (student, current.get(name, name)): text
        for student, name, text in rows
        if text and current.get(name, name) in day.names
    }
