"""Test that large submissions cost the grader's own process little time and memory."""

from __future__ import annotations

import time

import pytest

from autograder.course import config as courses
from autograder.execution.source import join_units
from autograder.grading.grader import Grader
from autograder.sandbox.client import Server
from autograder.submissions.cell import Cell
from autograder.submissions.reader_messages import Statement
from autograder.submissions.submission import Submission
from tests import small_course


@pytest.fixture(scope="module")
def grader(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grader:
    day = courses.load(small_course.make(tmp_path_factory.mktemp("course"))).day("day1")
    return Grader(day, server, b"tests")


def problems(grader: Grader, *cells: Cell) -> list[str]:
    return grader.grade(Submission("ada.ipynb", "ada", "", cells, (), True)).problems


def test_a_missing_exercise_has_one_problem_however_often_text_cells_define_it(
    grader: Grader,
) -> None:
    text = "def padding_mask\nasync def  split_heads\n" * 100_000
    mask, heads, _ = problems(grader, *(Cell(number, "markdown", text) for number in (1, 2)))
    assert mask.startswith("cell 1: this is not a code cell, so `padding_mask` was not graded.")
    assert heads.startswith("cell 1: this is not a code cell, so `split_heads` was not graded.")


def test_the_problem_names_the_code_cell_if_there_is_one(grader: Grader) -> None:
    text, code = (
        Cell(1, "markdown", "def padding_mask(): ..."),
        Cell(2, "code", "def padding_mask(:"),
    )
    found = problems(grader, text, code, Cell(3, "code", "1"))
    (problem,) = (one for one in found if "`padding_mask` was not graded" in one)
    assert problem.startswith("cell 2: Python 3")


def test_the_cells_of_many_errors_are_found_quickly() -> None:
    source = join_units([Statement("a = 1\nb = 2", n, 1, False) for n in range(1, 20_001)])
    last = source.pieces[-1][1]
    started = time.process_time()
    for _ in range(12_500):
        assert source.location(last) == "cell 20000, line 2"
    assert time.process_time() - started < 2


def test_lines_between_statements_and_of_the_course_have_no_location() -> None:
    source = join_units(
        [Statement("import torch", 0, 1, True), Statement("a = 1\nb = 2", 4, 7, False)]
    )
    found = [source.location(line) for line in (-1, 0, 1, 2, 3, 4, 5, 2**63)]
    assert found == ["", "", "", "", "cell 4, line 7", "cell 4, line 8", "", ""]
