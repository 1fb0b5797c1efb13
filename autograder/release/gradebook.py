"""Update nbgrader's gradebook after a build in a single transaction. Entry points: `update` and `load_nbgrader`.

While nbgrader generates a release, it saves each cell in a separate transaction. It refuses to add or remove cells once
there are submissions. A build therefore lets nbgrader write to an empty gradebook and then copies the cells to the
course's gradebook.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from nbgrader.api import (
    Assignment,
    Comment,
    Grade,
    Gradebook,
    GradeCell,
    InvalidEntry,
    Notebook,
    SolutionCell,
    SourceCell,
)
from nbgrader.apps import NbGrader
from nbgrader.dbutil import ALEMBIC_DIR
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from autograder.course.config import CourseError, Day
from autograder.course.files import FileError
from autograder.plain_text import printable

GRADEBOOK_DB = "gradebook.db"
# The fields that nbgrader stores for each kind of cell.
FIELDS: Mapping[Any, tuple[str, ...]] = {
    GradeCell: ("max_score", "cell_type"),
    SolutionCell: (),
    SourceCell: ("cell_type", "locked", "source", "checksum"),
}
# The record that a submission has for each kind of cell.
MARKS: Mapping[Any, Any] = {GradeCell: Grade, SolutionCell: Comment}


def create(folder: Path) -> Path:
    """Create an empty gradebook in a folder and return its path.

    It contains only the version of nbgrader's schema. Without the version, nbgrader would start `alembic` to determine it,
    which takes longer than generating a release.
    """
    file = folder / GRADEBOOK_DB
    version = ScriptDirectory(ALEMBIC_DIR).get_current_head()
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        db.execute("INSERT INTO alembic_version VALUES (?)", [version])
    return file


def update(day: Day, staged: Path, new_version: bool) -> list[str]:
    """Copy a day's cells from the staged gradebook to the course's gradebook. Return notes for the instructor.

    If the gradebook has submissions, cells are added or removed only if `new_version` is true. In that case,
    the points and comments for all other cells are kept, and the old gradebook is backed up.

    Raises:
        CourseError: The gradebook cannot be written, or cells would be added or removed without `new_version`. The
            gradebook is unchanged.
    """
    directory = load_nbgrader(day).coursedir
    url, course = directory.db_url, directory.course_id
    file = sqlite_file(url)
    if file is not None and not file.exists():
        os.replace(staged, file)
        return []
    try:
        with Gradebook(f"sqlite:///{staged}", course) as new, Gradebook(url, course) as book:
            source = new.find_notebook(day.name, day.name)
            target = _find_notebook(book, day.name, course)
            notes = _check_submissions(day, source, target, new_version, file)
            target.kernelspec = source.kernelspec
            for kind in FIELDS:
                _copy_cells(book.db, kind, source, target)
            book.db.commit()
    except (SQLAlchemyError, InvalidEntry) as error:
        reason = str(getattr(error, "orig", error))
        raise CourseError(
            f"{day.name}: nbgrader's gradebook cannot be written: {reason}. The release and the gradebook are unchanged. "
            "If formgrader is running, wait a moment and build again."
        ) from None
    return notes


def load_nbgrader(day: Day) -> NbGrader:
    """Return nbgrader's application, configured by the course's nbgrader_config.py."""
    # Otherwise, nbgrader would log every exception that it raises, with a traceback.
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    app = NbGrader(log_level=logging.CRITICAL, raise_config_file_errors=True)
    try:
        app.initialize([], root=str(day.root))
    except Exception as error:  # the configuration is Python code
        problem = printable(f"{type(error).__name__}: {error}")
        raise FileError(f"nbgrader_config.py cannot be read: {problem}") from error
    return app


def sqlite_file(url: str) -> Path | None:
    """Return a SQLite gradebook's file, or None for any other database."""
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.drivername == "sqlite" else None


def _find_notebook(book: Gradebook, name: str, course: str) -> Notebook:
    """Return the day's notebook in the gradebook, adding it if necessary."""
    assignment = book.db.query(Assignment).filter_by(name=name).one_or_none()
    if assignment is None:
        assignment = Assignment(name=name, course_id=course)
        book.db.add(assignment)
    notebook = next((one for one in assignment.notebooks if one.name == name), None)
    if notebook is None:
        notebook = Notebook(name=name, assignment=assignment)
        book.db.add(notebook)
    return notebook


def _check_submissions(
    day: Day, source: Notebook, target: Notebook, new_version: bool, file: Path | None
) -> list[str]:
    """Raise CourseError if the build is not allowed to add or remove cells. Back up the gradebook if submissions are affected."""
    if not target.submissions:
        return []
    new, old = _cells(source, SolutionCell), _cells(target, SolutionCell)
    added, removed = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    if not added and not removed:
        return []
    changes = " and ".join(
        f"{verb} {', '.join(names)}"
        for verb, names in (("adds", added), ("removes", removed))
        if names
    )
    count = len(target.submissions)
    if not new_version:
        raise CourseError(
            f"{day.name}: nbgrader's gradebook contains {count} submission{'s' * (count > 1)}, and this build {changes}. "
            "The release and the gradebook are unchanged. "
            f"To publish a new version and keep the submissions, run `autograder build {day.name} --new-version`"
        )
    kept = f"; the previous gradebook is in {_copy_file(file, day.name)}" if file else ""
    return [
        f"{day.name}: the new version {changes}{kept}. "
        f"Run `autograder grade {day.name}` to grade the submissions again."
    ]


def _copy_file(file: Path, day: str) -> Path:
    """Copy a gradebook and return the copy's path."""
    number = 1
    while (copy := file.with_name(f"{file.name}.before-{day}-{number}")).exists():
        number += 1
    with (
        contextlib.closing(sqlite3.connect(file)) as original,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        original.backup(target)
    return copy


def _cells(notebook: Notebook, kind: Any) -> dict[str, Any]:
    """Return a notebook's cells of the given kind, keyed by name."""
    cells = notebook.source_cells if kind is SourceCell else notebook._base_cells
    return {cell.name: cell for cell in cells if isinstance(cell, kind)}


def _copy_cells(database: Any, kind: Any, source: Notebook, target: Notebook) -> None:
    """Update the cells of the given kind in `target` to match `source`. Add a record for each new cell to every
    submission."""
    new, old = _cells(source, kind), _cells(target, kind)
    for name in old.keys() - new.keys():
        for mark in () if kind is SourceCell else (*old[name].grades, *old[name].comments):
            database.delete(mark)
        database.delete(old[name])
    for name, cell in new.items():
        values = {field: getattr(cell, field) for field in FIELDS[kind]}
        if name in old:
            for field, value in values.items():
                setattr(old[name], field, value)
            continue
        added = kind(name=name, notebook=target, **values)
        database.add(added)
        for submission in target.submissions if kind in MARKS else ():
            database.add(MARKS[kind](cell=added, notebook=submission))
