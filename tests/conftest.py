"""Shared test fixtures and helpers: the course, a grader for each day, and submissions."""

from __future__ import annotations

import atexit
import gc
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from unittest import mock

import nbformat
import pytest
import torch
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.follow_up import FollowUp
from autograder.grading.grader import Grader
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.protocol.limits import Limits
from autograder.recognition.recognizer import Recognizer
from autograder.release.notebook import solution_notebook
from autograder.sandbox.client import Server, start_server
from autograder.submissions.cell_reader import read_cells
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import Submission

ROOT = Path(__file__).parents[1]
SECONDS = 2.0
SECRET = b"a secret of the tests"
collect_ignore = ["numpy_course"]
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_finish() -> None:
    """Exclude all modules from garbage collections, because each hidden test ends with one.

    Also use one thread for torch, because several processes run tests, and threads that wait for a core keep another one busy.
    """
    gc.freeze()
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _without_safe_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset PYTHONSAFEPATH, which a Dask test may have set, because other tests import modules from the course's folder."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


@pytest.fixture
def without_recognition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognise no known mistakes, because learning those of all exercises would take minutes."""
    monkeypatch.setattr(Recognizer, "recognize", lambda *_: None)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with start_server() as running:
        yield running


@pytest.fixture(scope="session")
def graders(server: Server) -> Callable[[str], Grader]:
    """Return a function that takes a day's name and returns its grader, with a short CPU time limit."""

    return cache(lambda name: grader_for(_short_day(name), server))


@cache
def _short_day(name: str) -> Day:
    """Return a day of this course with a short CPU time limit."""
    day = courses.load(ROOT).day(name)
    exercises = tuple(replace(e, limits=_shorten(e.limits)) for e in day.exercises)
    return replace(day, exercises=exercises)


def grader_for(day: Day, server: Server) -> Grader:
    """Return a grader for a day of this course with changed limits.

    The limits are part of the course's fingerprint. A grader that starts with the changed day would therefore record trivial
    answers and known mistakes again, which takes minutes.
    """
    grader = Grader(courses.load(ROOT).day(day.name), server, SECRET)
    grader.exercises.day = day
    return grader


def _shorten(limits: Limits) -> Limits:
    return replace(limits, cpu_seconds=SECONDS, total_cpu_seconds=4 * SECONDS)


@pytest.fixture(scope="session")
def grader(graders: Callable[[str], Grader]) -> Grader:
    return graders("day1")


@pytest.fixture(scope="session")
def day1() -> Day:
    return _short_day("day1")


@pytest.fixture(scope="session")
def solution(day1: Day) -> NotebookNode:
    return solution_notebook(day1)


@pytest.fixture(scope="session")
def grade(grader: Grader) -> Callable[..., SubmissionMarks]:
    """Return a function that grades a notebook or a script. If `only` is set, it grades only that exercise."""

    def grade(work: NotebookNode | str, only: str = "") -> SubmissionMarks:
        submission = handed_in(work)
        return grade_one(grader, submission, only) if only else grader.grade(submission)

    return grade


def grade_one(grader: Grader, submission: Submission, name: str) -> SubmissionMarks:
    """Grade only one exercise of a submission, and run its tests only once, without reference solutions or wider code."""
    day = grader.day
    grader.exercises.day = replace(day, exercises=tuple(e for e in day.exercises if e.name == name))
    try:
        with mock.patch.object(FollowUp, "grade_again", lambda _, graded: list(graded)):
            return grader.grade(submission)
    finally:
        grader.exercises.day = day


@pytest.fixture(scope="session")
def run(server: Server) -> Run:
    """Return a function that runs an `autograder` command in this process: `run(root, "grade", "day1")`."""
    from tests.in_process import run_command

    return partial(run_command, server)


@cache
def reader() -> Reader:
    """Return the submission reader that all tests share."""
    running = Reader()
    atexit.register(running.close)
    return running


def handed_in(work: NotebookNode | str) -> Submission:
    """Return a submission by the student ada that consists of a notebook or a script."""
    if isinstance(work, str):
        data, name = work.encode(), "script.py"
    else:
        data, name = nbformat.writes(work).encode(), "notebook.ipynb"
    cells, problems = read_cells(data, name)
    return Submission(name, "ada", "", cells, problems, True)


def with_cells(notebook: NotebookNode, changes: Mapping[str, str]) -> NotebookNode:
    """Return a copy of a notebook with some cell sources replaced. `changes` maps cell ids to new sources."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    missing = set(changes) - {cell.id for cell in copy.cells}
    assert not missing, f"the notebook has no cells with these ids: {missing}"
    for cell in copy.cells:
        cell.source = changes.get(cell.id, cell.source)
    return copy


def with_exercises(notebook: NotebookNode, day: Day, names: Collection[str]) -> NotebookNode:
    """Return a copy of a notebook that contains only these exercises of the day. All other exercises count as not attempted."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    others = set(day.names) - set(names)
    copy.cells = [cell for cell in copy.cells if cell.id not in others]
    return copy


def by_name(marks: SubmissionMarks) -> dict[str, ExerciseMarks]:
    """Return a dict that maps each exercise's name to its marks."""
    return {exercise.name: exercise for exercise in marks.exercises}
