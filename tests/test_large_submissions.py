"""Test that large submissions cost the grader's own process little time and memory."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from autograder.execution.source import join_units
from autograder.grading.grader import _problems_in_unread_cells
from autograder.slicing.messages import Piece
from autograder.submissions.cell import Cell


def absent(*names: str) -> list[Any]:
    return [SimpleNamespace(code=SimpleNamespace(exercise=n, state="absent")) for n in names]


def test_a_missing_exercise_has_one_problem_however_often_text_cells_define_it() -> None:
    text = "def f\nclass g\n" * 100_000
    cells = [Cell(number, "markdown", text) for number in (1, 2)]
    f, g = _problems_in_unread_cells(absent("f", "g"), cells, [])
    assert f.startswith("cell 1: this is not a code cell, so `f` was not graded.")
    assert g.startswith("cell 1: this is not a code cell, so `g` was not graded.")


def test_the_problem_names_the_code_cell_if_there_is_one() -> None:
    cells = [Cell(1, "markdown", "def f(): ..."), Cell(2, "code", "def f(:"), Cell(3, "code", "1")]
    (problem,) = _problems_in_unread_cells(absent("f"), cells, ["cell 2: SyntaxError"])
    assert problem.startswith("cell 2: Python 3")


def test_the_cells_of_many_errors_are_found_quickly() -> None:
    source = join_units([Piece("a = 1\nb = 2", n, 1, False) for n in range(1, 20_001)])
    last = source.pieces[-1][1]
    started = time.process_time()
    for _ in range(12_500):
        assert source.location(last) == "cell 20000, line 2"
    assert time.process_time() - started < 2


def test_lines_between_statements_and_of_the_course_have_no_location() -> None:
    source = join_units([Piece("import torch", 0, 1, True), Piece("a = 1\nb = 2", 4, 7, False)])
    found = [source.location(line) for line in (-1, 0, 1, 2, 3, 4, 5, 2**63)]
    assert found == ["", "", "", "", "cell 4, line 7", "cell 4, line 8", "", ""]
