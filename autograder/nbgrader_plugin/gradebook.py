"""Copy marks into nbgrader's gradebook for formgrader, feedback, export and the exchange. Entry point: `copy`.

Only new or changed marks are copied, so a run continues where an interrupted one stopped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbgrader.converters import NbGraderException
from rich.console import Console
from rich.progress import track
from sqlalchemy.exc import DatabaseError, SAWarning

from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import without_manual
from autograder.nbgrader_plugin.autograde import GradebookEntry, GradedSubmission, MarksCopier
from autograder.plain_text import one_line, printable
from autograder.submissions import disk, origin
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import find_submissions


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
    except NbGraderException as error:
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


# ---- the submissions


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
        yield GradedSubmission(folder.parent.name, submission, without_manual(marks[index]), time)


# ---- errors


def _database_error(error: BaseException | None) -> DatabaseError | None:
    """Return the database error behind an exception, or None. nbgrader may have wrapped the error in its own exception."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__context__
    return error


def _describe(error: Exception) -> str:
    if not isinstance(error, DatabaseError):
        return one_line(str(error) or type(error).__name__)
    if "locked" in str(error.orig):
        return "gradebook.db is locked: another process, such as formgrader, is writing to it"
    return f"gradebook.db cannot be read or written: {one_line(str(error.orig))}"
