"""Grade classes without running code, so that tests can grade hundreds of submissions in seconds.

Only the pool of graders is replaced. Files are still read in the sandbox, and marks are still kept in the store. The points come
from a comment in the submission: `work(37)` gets 37 points.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.fingerprint import course_version
from autograder.export import Format, write
from autograder.grading.session import GradedClass, Session
from autograder.marks import class_list, class_notes
from autograder.marks.class_list import StudentResult
from autograder.marks.history import History
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks
from autograder.marks.overrides import read_times
from autograder.submissions import roster as rosters
from autograder.submissions.cell import hash_code
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.submission import Submission
from tests.conftest import reader
from tests.test_submission import notebook

POINTS = re.compile(r"# points: ([\d.]+)")


def work(points: float, extra: str = "") -> str:
    """Return code that earns `points` (at most 60) for padding_mask, and none of the 40 points for split_heads."""
    return f"# points: {points}\ndef padding_mask(tokens, pad_id):\n    return {points}\n{extra}"


def book(points: float, extra: str = "") -> bytes:
    """Return a notebook that contains the code from `work`, which earns this many points."""
    return notebook(work(points, extra))


class FakePool:
    """A pool that reads the points from each submission. It raises KeyboardInterrupt after `limit` submissions."""

    jobs = 1

    def __init__(self, day: Day, limit: int = 1_000_000) -> None:
        self.day, self.limit, self.count = day, limit, 0
        self.course = course_version(day)

    def close(self) -> None:
        pass

    def isolation(self) -> list[list[str]]:
        return [["fake"]]

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = False
    ) -> Future[SubmissionMarks]:
        self.count += 1
        if self.count > self.limit:
            raise KeyboardInterrupt
        future: Future[SubmissionMarks] = Future()
        future.set_result(self.grade(submission, seed))
        return future

    def grade(self, submission: Submission, seed: str) -> SubmissionMarks:
        text = "".join(cell.source for cell in submission.cells)
        found = POINTS.search(text) if submission.readable else None
        points = float(found[1]) if found else 0.0
        exercises = []
        for exercise, earned in zip(self.day.exercises, (points, 0.0), strict=True):
            most = exercise.points
            status: Any = "passed" if earned == most else "partial" if earned else "not_attempted"
            test = TestMarks("test_zero", earned, most, earned == most, "")
            exercises.append(
                ExerciseMarks(exercise.name, earned, most, status, "", None, [], 0.0, [test])
            )
        return SubmissionMarks(
            submission.path,
            submission.student,
            submission.sha256,
            seed,
            self.course,
            ["fake"],
            points if submission.readable else None,
            100.0,
            0.0,
            list(submission.problems),
            exercises if submission.readable else [],
            submission.handed_in,
            hash_code(cell.source for cell in submission.cells) if points else "",
        )


def use_fake_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `autograder grade` use a fake pool."""
    monkeypatch.setattr(
        "autograder.grading.open_session._start_executor", lambda day, *_: FakePool(day)
    )


@contextlib.contextmanager
def session(root: Path, limit: int = 1_000_000) -> Iterator[Session]:
    """Open a session for the small course. It is like a session from `open_session`, but has a fake pool."""
    day = courses.load(root).day("day1")

    def fail(error: Exception) -> None:
        raise error

    with History(root, read_times(day)) as history, history.lock("day1"):
        known = rosters.for_course(root)
        pool: Any = FakePool(day, limit)
        yield Session(day, b"secret", pool, reader(), history, known, fail)


def grade(root: Path, *paths: Path, **options: Any) -> GradedClass:
    """Grade the submissions at these paths in a course, and return the result."""
    with session(root) as opened:
        return opened.grade(
            paths, options.pop("seed", None), options.pop("force", False), **options
        )


def current(root: Path) -> dict[str, float | None]:
    """Return each student's current points in the store."""
    with History(root) as history:
        return {label: marks.points for marks in history.current("day1") for label in marks.labels}


def by_student(graded: GradedClass) -> dict[str, float | None]:
    """Return each student's points in a graded class."""
    return {row.entry.student: row.points for row in graded.rows}


def results_and_notes(
    class_: Sequence[SubmissionMarks], day: Day, roster: Roster = NO_ROSTER
) -> tuple[list[StudentResult], list[str]]:
    """Return the results of a class's students, and the notes for the TA."""
    results = class_list.results(class_, day, roster)
    return results, list(class_notes.notes(results, day, roster))


def paths_of(marks: Sequence[SubmissionMarks]) -> list[str]:
    """Return the file name of each graded submission."""
    return [Path(one.path).name for one in marks]


def export(
    day: Day,
    to: Format,
    class_: Sequence[SubmissionMarks],
    out: Path,
    into: Path | None = None,
    column: str = "",
    unreadable: float | None = None,
) -> list[str]:
    """Export a class as `autograder export` does, and return the notes."""
    is_from_canvas = any(one.origin.source == "canvas" for one in class_)
    gradebook = into if to == "canvas" and is_from_canvas else None
    roster = write.choose_roster(day, None, gradebook)
    results = class_list.results(class_, day, roster, unreadable)
    notes = [*class_notes.export_notes(results, day, roster)]
    return notes + write.export(results, day, to, out, into, column)
