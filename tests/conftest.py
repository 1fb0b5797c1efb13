"""What the tests of the autograder share: the course, one grader of Day 1, and notebooks to hand in."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.grader import Grader, start_server
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.release.notebook import solution_notebook
from autograder.sandbox.client import Server
from autograder.submissions.cells import read_cells
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission

ROOT = Path(__file__).parents[1]
SECONDS = 2.0
SECRET = b"a secret of the tests"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with start_server() as running:
        yield running


@pytest.fixture(scope="session")
def graders(server: Server) -> Callable[[str], Grader]:
    """The grader of a day, with a deadline that a test can wait for."""

    @cache
    def grader(name: str) -> Grader:
        day = courses.load(ROOT).day(name)
        exercises = [
            replace(e, limits=replace(e.limits, cpu_seconds=SECONDS)) for e in day.exercises
        ]
        return Grader(replace(day, exercises=tuple(exercises)), server, SECRET)

    return grader


@pytest.fixture(scope="session")
def grader(graders: Callable[[str], Grader]) -> Grader:
    return graders("day1")


@pytest.fixture(scope="session")
def day1(grader: Grader) -> Day:
    return grader.day


@pytest.fixture(scope="session")
def solution(day1: Day) -> NotebookNode:
    return solution_notebook(day1)


@pytest.fixture(scope="session")
def grade(grader: Grader) -> Callable[..., SubmissionMarks]:
    """Grade a notebook or the text of a script; with `only`, one exercise."""

    def grade(work: NotebookNode | str, only: str = "") -> SubmissionMarks:
        return grader.grade(handed_in(work), only=only)

    return grade


@cache
def reader() -> Reader:
    """One reader for all tests."""
    running = Reader()
    atexit.register(running.close)
    return running


def handed_in(work: NotebookNode | str) -> Submission:
    """A notebook, or the text of a script, as something handed in."""
    if isinstance(work, str):
        data, name = work.encode(), "script.py"
    else:
        data, name = nbformat.writes(work).encode(), "notebook.ipynb"
    cells, problems = read_cells(data, name)
    return Submission(name, "ada", "", cells, problems, True)


def with_cells(notebook: NotebookNode, changes: Mapping[str, str]) -> NotebookNode:
    """A copy in which the cells of these ids have another source."""
    copy = nbformat.from_dict(notebook)
    missing = set(changes) - {cell.id for cell in copy.cells}
    assert not missing, f"no cell {missing}"
    for cell in copy.cells:
        cell.source = changes.get(cell.id, cell.source)
    return copy


def by_name(marks: SubmissionMarks) -> dict[str, ExerciseMarks]:
    return {exercise.name: exercise for exercise in marks.exercises}
