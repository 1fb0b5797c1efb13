"""What the tests of the autograder share: the course, one grader of Day 1, and notebooks to hand in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder import course as courses
from autograder.cells import read_cells
from autograder.course import Day
from autograder.grading import Grader
from autograder.marks import ExerciseMarks, SubmissionMarks
from autograder.notebook import solution_notebook
from autograder.sandbox.client import Server
from autograder.submission import Submission

ROOT = Path(__file__).parents[1]
SECONDS = 2.0
SECRET = b"a secret of the tests"


@pytest.fixture(scope="session")
def day1() -> Day:
    """Day 1 with a deadline that a test can wait for."""
    day = courses.load(ROOT).day("day1")
    exercises = [replace(e, limits=replace(e.limits, seconds=SECONDS)) for e in day.exercises]
    return replace(day, exercises=tuple(exercises))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def grader(day1: Day, server: Server) -> Grader:
    return Grader(day1, server, SECRET)


@pytest.fixture(scope="session")
def solution(day1: Day) -> NotebookNode:
    return solution_notebook(day1)


@pytest.fixture(scope="session")
def grade(grader: Grader) -> Callable[..., SubmissionMarks]:
    """Grade a notebook or the text of a script; with `only`, one exercise."""

    def grade(handed_in: NotebookNode | str, only: str = "") -> SubmissionMarks:
        if isinstance(handed_in, str):
            data, name = handed_in.encode(), "script.py"
        else:
            data, name = nbformat.writes(handed_in).encode(), "notebook.ipynb"
        cells, problems = read_cells(data, name)
        return grader.grade(Submission(name, "ada", "", cells, problems, True), only=only)

    return grade


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
