"""Test that checks and demonstrations run even if earlier exercises are empty, and that stand-ins earn no points.

`make stand-ins` runs all demonstrations with each exercise empty, with random sets of five empty exercises, and with each half
of the exercises empty.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable

import nbformat
import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks
from autograder.release.visible_checks import Notebook
from solutions.day1 import stand_ins
from tests.conftest import ROOT, by_name, with_cells

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
ALL = os.environ.get("STAND_INS") == "all"


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
