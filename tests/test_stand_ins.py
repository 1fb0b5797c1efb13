"""Test that checks and demonstrations run even if earlier exercises are empty, and that stand-ins earn no points.

`make stand-ins` runs all demonstrations with each exercise empty, with random sets of five empty exercises, and with each half
of the exercises empty. `make hints` runs the checks of all known mistakes with further exercises missing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator

import nbformat
import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution.catalogue import known_mistakes
from autograder.marks.model import SubmissionMarks
from autograder.release import helper_cells
from autograder.release.visible_checks import Notebook
from solutions.day1 import stand_ins
from tests.conftest import ROOT, by_name, with_cells

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
ALL = os.environ.get("STAND_INS") == "all"
HINTS = os.environ.get("HINTS") == "all"


def halves(day: Day) -> list[list[str]]:
    """Return two sets of exercises to leave empty. Together, they contain every exercise once."""
    return [list(day.names[::2]), list(day.names[1::2])]


def problems(day: Day, sets: list[list[str]], *options: str) -> dict[str, list[str]]:
    """Run a day's notebook once for each set of empty exercises, and return the failures in each run."""
    command = [sys.executable, "-m", "tests.notebook_runs", day.name, *options]
    done = subprocess.run(
        [*command, *map(",".join, sets)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, list[str]] = json.loads(done.stdout)
    assert len(results) == len(sets)
    return {case: failed for case, failed in results.items() if failed}


@pytest.mark.parametrize("name", COURSE.days)
def test_later_cells_run_when_exercises_are_empty(name: str) -> None:
    day = COURSE.day(name)
    if ALL:
        draw = random.Random(0)
        sets = [[name] for name in day.names] + [draw.sample(day.names, 5) for _ in range(10)]
        assert problems(day, [*sets, *halves(day)]) == {}
    else:
        assert problems(day, halves(day), "--quick") == {}


def test_a_stand_in_raises_the_errors_that_a_later_exercise_relies_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = COURSE.day("day1")
    source = next(
        cell.source
        for chapter in day.chapters
        for cell in chapter.cells
        if cell.role == "exercise" and cell.name == "Transformer"
    )
    assert source.count(".shape[1] > self.max_length") == 2
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    notebook = Notebook(day)
    notebook.run(source.replace(".shape[1] > self.max_length", ".shape[1] < 0"), "Transformer")
    names = vars(notebook.module)
    names["PositionalEncoding"] = stand_ins.PositionalEncoding
    names["check_Transformer"]()


@pytest.mark.parametrize(
    "answer",
    ['STAND_INS["attention_scores"](query, key)', "attention_scores(query, key)"],
)
def test_a_stand_in_is_not_there_when_grading(
    answer: str, grade: Callable[..., SubmissionMarks]
) -> None:
    release = nbformat.read(ROOT / "assignments" / "day1" / "day1.ipynb", as_version=4)
    cell = f"def attention_scores(query, key):\n    return {answer}\n"
    marks = grade(with_cells(release, {"attention_scores": cell}), only="attention_scores")
    assert by_name(marks)["attention_scores"].points == 0


def without(day: Day, missing: frozenset[str]) -> Notebook:
    """Return a notebook with stand-ins in which these exercises are not filled in."""
    with contextlib.redirect_stdout(io.StringIO()):
        notebook = Notebook(day)
        notebook.run(helper_cells.provided_cell(day, {}), "provided code")
    for name in missing:
        del vars(notebook.module)[name]
    return notebook


def failure(notebook: Notebook, exercise: str, source: str) -> AssertionError | None:
    """Run the check of an exercise on wrong code, and return its error. Return None if the check passes."""
    names = vars(notebook.module)
    own = names[exercise]
    try:
        notebook.run(source, exercise)
        with contextlib.redirect_stdout(io.StringIO()):
            names[f"check_{exercise}"]()
    except AssertionError as error:
        return error
    except NotImplementedError:
        return None
    finally:
        names[exercise] = own
    return None


@pytest.fixture
def main_module() -> Iterator[None]:
    """Restore the main module after a test."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def missing_sets(name: str) -> list[frozenset[str]]:
    """Return the sets of a day's further exercises that many students skip."""
    further = frozenset(e.name for e in COURSE.day(name).exercises if not e.core)
    skipped = [{"LayerNorm"}, {"PositionalEncoding"}, {"LayerNorm", "PositionalEncoding"}]
    return [*map(frozenset, skipped), further] if name == "day1" else [further]


SKIPPED = [(name, missing) for name in COURSE.days for missing in missing_sets(name)]
SOME = {
    "day1": ("EncoderLayer", "DecoderLayer", "Transformer"),
    "day2": ("GPTBlock", "GPT", "RelativeSelfAttention"),
}


@pytest.mark.parametrize(("name", "missing"), SKIPPED)
def test_no_hint_blames_a_stand_in_that_did_not_raise(
    name: str, missing: frozenset[str], main_module: None
) -> None:
    day = COURSE.day(name)
    notebook = without(day, missing)
    wrong, n_failed = [], 0
    for exercise in day.names if HINTS else SOME[name]:
        for mistake in known_mistakes(day)[exercise] if exercise not in missing else ():
            error = failure(notebook, exercise, mistake.source)
            n_failed += error is not None
            if "used a stand-in" in str(error) and error and error.__cause__:
                frames = traceback.extract_tb(error.__cause__.__traceback__)
                last = [frame for frame in frames if frame.filename.startswith("<")][-1]
                # `noted` calls the stand-in, which may reject the arguments.
                if last.filename != "<stand-ins>" and last.name != "noted":
                    wrong.append((exercise, mistake.name))
    assert n_failed > 20
    assert wrong == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("attended, _ = ", "attended = ", "One of the values is a tuple"),
        ("attended, _ = ", "attended, _, _ = ", "a different number of parts"),
        ("(x, x, x, mask)", "(x, x, mask)", "value: None"),
        ("(x, x, x, mask)", "(x, mask, x)", "key: None"),
        ("(d_model, n_heads)", "(d_model, n_heads, dropout)", "Its third argument is `bias`"),
        ("(d_model, d_ff, dropout)", "(dropout, d_model, d_ff)", "received d_model: 0.0, d_ff: 4"),
    ],
)
def test_a_wrong_call_is_explained_and_not_blamed_on_layer_norm(
    old: str, new: str, message: str, main_module: None
) -> None:
    day = COURSE.day("day1")
    solution = known_mistakes(day)["EncoderLayer"][0].reference
    assert solution.count(old) == 1
    notebook = without(day, frozenset({"LayerNorm"}))
    shown = str(failure(notebook, "EncoderLayer", solution.replace(old, new)))
    assert message in shown
    assert "stand-in" not in shown
