"""Marks → nbgrader's gradebook, from where formgrader, feedback, export and the exchange go on.

Only what has changed is copied again; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from nbgrader.converters import NbGraderException
from rich.console import Console
from rich.progress import track
from sqlalchemy.exc import DatabaseError, SAWarning

from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks, one_line
from autograder.nbgrader_plugin.autograde import Copying, HandedIn, Held
from autograder.submissions import disk, platforms
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission, printable, read_submissions


@dataclass
class Copied:
    """What became of a class: how many were copied, how many were there as they are, and what went wrong."""

    new: int = 0
    known: int = 0
    problems: list[str] = field(default_factory=list)


def copy(
    day: Day,
    folders: Sequence[Path],
    marks: Sequence[SubmissionMarks],
    reader: Reader,
    force: bool = False,
) -> Copied:
    """Copy what was found in folders `submitted/STUDENT/DAY`, and graded; with `force`, what is there already too."""
    copied = Copied()
    console = Console(stderr=True)
    warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy
    try:
        copying = Copying(day, reader)
        held = copying.held()
        for one in track(
            _class(day, folders, marks, reader, copied.problems),
            "into the gradebook",
            total=len(folders),
            console=console,
            disable=not console.is_terminal,
        ):
            _copy(copying, one, None if force else held.get(one.student), copied)
    except NbGraderException as error:
        copied.problems.append(str(error))
    except DatabaseError as error:
        done = copied.new + copied.known
        copied.problems.append(
            f"{_said(error)}; {done} of {len(folders)} submissions are in it. "
            "The same command, run again, goes on from there."
        )
    return copied


def _copy(copying: Copying, one: HandedIn, held: Held | None, copied: Copied) -> None:
    try:
        if held and copying.is_there(one, held):
            if held.is_late:
                copying.assign_penalty(one.student)
            copied.known += 1
        else:
            copying.copy(one)
            copied.new += 1
    except Exception as error:  # one student's copy costs nobody else theirs
        if database := _of_database(error):
            raise database from None
        copied.problems.append(
            f"{printable(one.student)} is not in nbgrader's gradebook: {_said(error)}"
        )


# ---- what was handed in


def _class(
    day: Day,
    folders: Sequence[Path],
    marks: Sequence[SubmissionMarks],
    reader: Reader,
    problems: list[str],
) -> Iterator[HandedIn]:
    """One of each folder; read again, for the cells of a whole class would fill the memory."""
    places = {(one.path, one.sha256): place for place, one in enumerate(marks)}
    for folder in folders:
        time = platforms.parse_timestamp(disk.read_small_file(folder / platforms.TIMESTAMP))
        if time is None and os.path.lexists(folder / platforms.TIMESTAMP):
            file = printable(str(folder / platforms.TIMESTAMP))
            problems.append(f"{file} holds no time, so nothing counts as late")
        found = list(read_submissions([folder], day.name, reader))
        if any((one.path, one.sha256) not in places for one in found):
            problems.append(f"{printable(str(folder))} has changed since it was graded; run again")
            continue
        own = [marks[places[one.path, one.sha256]] for one in found]
        submission, counts = _counting(day, folder, list(zip(found, own, strict=True)))
        if counts not in own:
            problems += [f"{counts.path}: {problem}" for problem in counts.problems]
        yield HandedIn(folder.parent.name, submission, counts, time)


def _counting(
    day: Day, folder: Path, graded: Sequence[tuple[Submission, SubmissionMarks]]
) -> tuple[Submission, SubmissionMarks]:
    """The gradebook holds one notebook a student: the only one, or that of the day's name; none where that is open."""
    name = f"{day.name}.ipynb"
    named = [pair for pair in graded if Path(pair[0].path).name.casefold() == name]
    for some in (graded, named, [pair for pair in named if Path(pair[0].path).parent == folder]):
        if len(some) == 1:
            return some[0]
    path = printable(str(folder))
    names = ", ".join(os.path.relpath(one.path, path) for one, _ in graded)
    said = f"which of these counts is open, for not one alone is called {name}: {names}"
    none = Submission(path, graded[0][0].student, "", (), (said,), False)
    marks = msgspec.structs.replace(
        graded[0][1], path=path, sha256="", points=0.0, problems=[said], exercises=[]
    )
    return none, marks


# ---- in words


def _of_database(error: BaseException | None) -> DatabaseError | None:
    """What the database said, also where nbgrader has raised something of its own on top of it."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__context__
    return error


def _said(error: Exception) -> str:
    if not isinstance(error, DatabaseError):
        return one_line(str(error) or type(error).__name__)
    if "locked" in str(error.orig):
        return "gradebook.db is locked: another process, such as formgrader, is writing to it"
    return f"gradebook.db can not be read or written: {one_line(str(error.orig))}"
