"""Test predictions: what they record and show, and how the chapters use them."""

from __future__ import annotations

import ast
import symtable
import sys
import types
from collections.abc import Sequence
from typing import Any

import IPython
import numpy as np
import pytest
import torch
from nbformat import v4

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.in_notebook import predictions, progress
from autograder.in_notebook.checks import demonstration
from autograder.in_notebook.predictions import Predictions
from autograder.release import helper_cells
from autograder.release.notebook import solution_notebook
from tests.conftest import ROOT
from tests.test_provided_cell import slices

COURSE = courses.load(ROOT)
DAYS = list(COURSE.days)
CHAPTERS = [(day.name, chapter.name) for day in COURSE.days.values() for chapter in day.chapters]
HOW_MANY = "How many?"
WHICH = "Which?"
ORDER = ["a", "b", "c"]

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the variables of an empty notebook."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(predictions, "get_ipython", object)
    monkeypatch.setattr(IPython, "get_ipython", object)  # the provided cell imports it
    return vars(module)


@pytest.fixture
def predict(main: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Predictions:
    fresh = Predictions()
    monkeypatch.setattr(progress, "predict", fresh)
    return fresh


def result_cell(predict: Predictions, question: str, result: Any) -> None:
    with demonstration():
        predict.reveal(question, result)
        print("the figure")


# ---- answers


@pytest.mark.parametrize(
    ("kind", "answer", "result", "shown"),
    [
        ({}, 900, 2000, "Your prediction: 900  |  Result: 2,000\n"),
        ({}, 1234.5, 0.123456, "Your prediction: 1,234.5  |  Result: 0.1235\n"),
        ({}, np.float64(0.5), 1.0, "Your prediction: 0.5  |  Result: 1.0\n"),
        ({"one_of": ORDER}, "b", "a", "Your prediction: b  |  Result: a\n"),
        ({"order": ORDER}, ["c", "a", "b"], ORDER, "Your prediction: c, a, b  |  Result: a, b, c"),
    ],
)
def test_an_answer_is_shown_beside_the_result(
    predict: Predictions, capsys: Captured, kind: Any, answer: Any, result: Any, shown: str
) -> None:
    predict(HOW_MANY, answer, **kind)
    assert capsys.readouterr().out == shown.partition("  |")[0].replace("Y", "✓ Y") + "\n"
    result_cell(predict, HOW_MANY, result)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{HOW_MANY}\n  {shown}")
    assert printed.endswith("\nthe figure\n")


def test_certainty_is_shown_if_it_was_given(predict: Predictions, capsys: Captured) -> None:
    predict(HOW_MANY, 900, sure=3)
    result_cell(predict, HOW_MANY, 2000)
    assert "Your prediction: 900 (sure: 3 of 5)  |  Result: 2,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({}, "a number"),
        ({"one_of": ORDER}, "'a' or 'b' or 'c'"),
        ({"order": ORDER}, "the list ['a', 'b', 'c'] in your order"),
    ],
)
def test_an_open_question_asks_for_an_answer_and_hides_the_result(
    predict: Predictions, capsys: Captured, kind: Any, expected: str
) -> None:
    predict(HOW_MANY, ..., **kind)
    asked = f"✎ Your prediction? Replace `...` with {expected}, then run this cell again.\n"
    assert capsys.readouterr().out == asked
    result_cell(predict, HOW_MANY, 2000)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"You have not predicted yet: {HOW_MANY} ")
    assert "predict.skip()" in line


def test_a_result_waits_even_if_the_question_was_not_run(
    predict: Predictions, capsys: Captured
) -> None:
    result_cell(predict, HOW_MANY, 2000)
    assert "2,000" not in capsys.readouterr().out
    predict(HOW_MANY, 900)
    result_cell(predict, HOW_MANY, 2000)
    assert "2,000" in capsys.readouterr().out


def test_skipping_shows_all_results(predict: Predictions, capsys: Captured) -> None:
    predict.skip()
    capsys.readouterr()
    predict(HOW_MANY, ...)
    assert capsys.readouterr().out == ""
    result_cell(predict, HOW_MANY, 2000)
    assert "Your prediction: none  |  Result: 2,000\nthe figure" in capsys.readouterr().out
    predict(WHICH, "a", one_of=ORDER)
    result_cell(predict, WHICH, "b")
    assert "Your prediction: a  |  Result: b" in capsys.readouterr().out


def test_outside_ipython_results_do_not_wait(
    predict: Predictions, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "get_ipython", lambda: None)
    result_cell(predict, HOW_MANY, 2000)
    assert "Result: 2,000" in capsys.readouterr().out


def test_another_answer_counts_only_before_the_result(
    predict: Predictions, capsys: Captured
) -> None:
    predict(HOW_MANY, 900, sure=5)
    predict(HOW_MANY, 1000)
    result_cell(predict, HOW_MANY, 2000)
    assert "Your prediction: 1,000  |" in capsys.readouterr().out
    predict(HOW_MANY, 1000)
    assert capsys.readouterr().out == "✓ Your prediction: 1,000\n"
    for later in (2000, ...):
        predict(HOW_MANY, later)
        stays = "The result has been shown, so your prediction stays: 1,000.\n"
        assert capsys.readouterr().out == stays
    result_cell(predict, HOW_MANY, 2000)
    assert "Your prediction: 1,000  |" in capsys.readouterr().out


def test_an_answer_after_a_skipped_question_is_not_recorded(
    predict: Predictions, capsys: Captured
) -> None:
    predict.skip()
    result_cell(predict, HOW_MANY, 2000)
    capsys.readouterr()
    predict(HOW_MANY, 2000)
    assert "your prediction stays: none" in capsys.readouterr().out
    assert predict.count() == (0, 1)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ({}, "900"),
        ({}, True),
        ({}, None),
        ({}, 1j),
        ({}, float("nan")),
        ({}, 10**400),
        ({}, torch.ones(3)),
        ({}, np.ones(3)),
        ({"one_of": ORDER}, "d"),
        ({"one_of": ORDER}, ["a"]),
        ({"one_of": ORDER}, 1),
        ({"one_of": ORDER}, np.array(ORDER)),
        ({"order": ORDER}, "abc"),
        ({"order": ORDER}, ["a", "b"]),
        ({"order": ORDER}, ["a", "b", "b"]),
        ({"order": ORDER}, ["a", "b", 3]),
        ({"order": ORDER}, [["a"], "b", "c"]),
    ],
)
def test_an_invalid_answer_gets_one_sentence(
    predict: Predictions, capsys: Captured, kind: Any, answer: Any
) -> None:
    predict(HOW_MANY, answer, **kind)
    printed = capsys.readouterr().out
    assert printed.startswith("✗ Not recorded: the answer should be ")
    assert ("a number" in printed) == (not kind)
    assert predict.count() == (0, 1)


@pytest.mark.parametrize("sure", [0, 6, 9, 2.5, True, "3", np.ones(2)])
def test_an_invalid_certainty_gets_one_sentence(
    predict: Predictions, capsys: Captured, sure: Any
) -> None:
    predict(HOW_MANY, 900, sure=sure)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("✗ Not recorded: `sure` should be a whole number from 1 (a guess) to 5")
    assert predict.count() == (0, 1)


def test_an_invalid_answer_does_not_replace_a_valid_one(predict: Predictions) -> None:
    predict(HOW_MANY, 900)
    predict(HOW_MANY, "many")
    assert predict.by_question[HOW_MANY].answer == 900


def test_variables_with_the_names_of_built_ins_do_not_disturb_predictions(
    main: dict[str, Any], capsys: Captured
) -> None:
    exec(helper_cells.provided_cell(COURSE.day("day1"), {}), main)
    exec("list = print = isinstance = len = Prediction = 3", main)
    exec(f"predict({HOW_MANY!r}, 900)", main)
    exec(f"with demonstration():\n    predict.reveal({HOW_MANY!r}, 2000)", main)
    assert "Your prediction: 900  |  Result: 2,000" in capsys.readouterr().out
    assert main["print"] == 3


def test_progress_counts_predictions(predict: Predictions) -> None:
    table = progress.ProgressTable([])
    assert "Predictions" not in repr(table) + table._repr_html_()
    predict(HOW_MANY, 900)
    predict(WHICH, ..., one_of=ORDER)
    assert repr(table).endswith("\n\nPredictions so far: 1 of 2")
    assert "<p>Predictions so far: 1 of 2</p>" in table._repr_html_()


# ---- chapters


def code_cells(day: Day) -> list[str]:
    return [cell.source for cell in solution_notebook(day).cells if cell.cell_type == "code"]


def questions(source: str, function: str) -> list[str]:
    """Return the questions in calls to `predict` or `predict.reveal`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.literal_eval(c.args[0]) for c in calls if ast.unparse(c.func) == function]


@pytest.mark.parametrize(("day", "chapter"), CHAPTERS)
def test_each_chapter_asks_for_one_to_three_predictions(day: str, chapter: str) -> None:
    source = next(c for c in COURSE.day(day).chapters if c.name == chapter).path.read_text("utf-8")
    asked = questions(source, "predict")
    assert 1 <= len(asked) <= 3
    assert questions(source, "predict.reveal") == asked


@pytest.mark.parametrize("name", DAYS)
def test_each_question_is_a_cell_of_its_own_and_open(name: str) -> None:
    for source in (s for s in code_cells(COURSE.day(name)) if questions(s, "predict")):
        (statement,) = ast.parse(source).body
        assert isinstance(statement, ast.Expr)
        assert isinstance(statement.value, ast.Call)
        assert ast.unparse(statement.value.args[1]) == "..."
        assert len(statement.value.args) == 2


@pytest.mark.parametrize("name", DAYS)
def test_run_all_asks_for_each_prediction_and_raises_nothing(
    name: str, main: dict[str, Any], capsys: Captured
) -> None:
    cells = code_cells(COURSE.day(name))
    exec(helper_cells.provided_cell(COURSE.day(name), {}), main)
    for source in cells:
        for _ in questions(source, "predict"):
            exec(source, main)
            assert capsys.readouterr().out.startswith("✎ Your prediction? ")
        for question in questions(source, "predict.reveal"):
            exec(f"with demonstration():\n    predict.reveal({question!r}, 1)", main)
            assert capsys.readouterr().out.startswith(f"You have not predicted yet: {question} ")
    assert main["predict"].count() == (0, len(main["predict"].by_question))


@pytest.mark.parametrize("name", DAYS)
def test_answers_do_not_affect_grading(name: str) -> None:
    cells = list(solution_notebook(COURSE.day(name)).cells)
    before = slices(COURSE.day(name), cells)
    for cell in cells:
        if cell.cell_type == "code" and questions(cell.source, "predict"):
            cell.source = cell.source.replace("...", "'softmax'", 1)
    cells.append(v4.new_code_cell("predict.skip()"))
    assert slices(COURSE.day(name), cells) == before


def variables(statements: Sequence[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the notebook's variables that statements bind, and those that they only read."""
    source = ast.unparse(ast.Module([*statements], []))
    tables = [symtable.symtable(source, "<cell>", "exec")]
    bound = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned()}
    read = set[str]()
    for table in tables:
        tables += table.get_children()
        symbols = [s for s in table.get_symbols() if s.is_global() or table is tables[0]]
        read |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    return bound, read - bound


@pytest.mark.parametrize("name", DAYS)
def test_a_result_cell_may_stop_early_and_run_again_later(name: str) -> None:
    """Later cells neither need what follows the result nor change what the cell reads."""
    cells = [ast.parse(source).body for source in code_cells(COURSE.day(name))]
    revealing = 0
    for number, body in enumerate(cells):
        if not questions(ast.unparse(ast.Module(body, [])), "predict.reveal"):
            continue
        revealing += 1
        *before, demonstrated = body
        assert isinstance(demonstrated, ast.With)
        assert ast.unparse(demonstrated.items[0]) == "demonstration()"
        inside = demonstrated.body
        last = max(n for n, s in enumerate(inside) if "predict.reveal" in ast.unparse(s))
        late = variables(inside[last + 1 :])[0] - variables([*before, *inside[: last + 1]])[0]
        for other in cells[number + 1 :]:
            bound, read = variables(other)
            assert not late & read
            assert not variables(body)[1] & bound
    assert revealing
