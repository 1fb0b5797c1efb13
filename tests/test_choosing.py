"""Test that a course whose `grading.toml` selects a subset of exercises can be built, graded and exported with correct totals."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, get_args

import nbformat
import pytest

from autograder.export import Format
from tests import chosen_course
from tests.conftest import Run

pytestmark = pytest.mark.slow

FILLED_IN = {
    "day1": {"spread": 11.11, "halve": 88.89},
    "day2": {"spread": 2.66, "count": 5.31, "flip": 10.62, "halve": 21.24, "mirror": 42.48},
}
TOTALS = {"day1": 100, "day2": 77}
DAYS = list(FILLED_IN)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Build all days with one command, and grade a notebook of reference solutions for each day."""
    root = chosen_course.make(tmp_path_factory.mktemp("chosen"))
    built = run(root, "build")
    assert built.returncode == 0, built.stderr
    for day in DAYS:
        (root / "in" / day).mkdir(parents=True)
        nbformat.write(_filled_in(root, day), root / "in" / day / "ada.ipynb")
        graded = run(root, "grade", day, f"in/{day}", "--json", f"{day}.json")
        assert graded.returncode == 0, graded.stderr
    return root


def _released(root: Path, day: str) -> Any:
    return nbformat.read(root / "assignments" / day / f"{day}.ipynb", as_version=4)


def _filled_in(root: Path, day: str) -> Any:
    """Return the released notebook with each stub replaced by its reference solution."""
    notebook = _released(root, day)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in chosen_course.SOLUTIONS:
            stub = f'raise NotImplementedError("{name}")'
            assert stub in cell.source
            cell.source = cell.source.replace(stub, f"return {chosen_course.SOLUTIONS[name]}")
    return notebook


def _marks(root: Path, day: str) -> Any:
    (submission,) = json.loads((root / f"{day}.json").read_bytes())["submissions"]
    return submission


@pytest.mark.parametrize("day", DAYS)
def test_reference_answers_earn_the_total(day: str, course: Path) -> None:
    marks = _marks(course, day)
    assert (marks["points"], marks["max_points"]) == (TOTALS[day], TOTALS[day])
    assert {e["name"]: e["points"] for e in marks["exercises"]} == FILLED_IN[day]
    optional = [e["name"] for e in marks["exercises"] if e.get("optional")]
    assert optional == (["count"] if day == "day2" else [])


@pytest.mark.parametrize("day", DAYS)
def test_the_notebook_agrees_with_the_configuration(day: str, course: Path) -> None:
    notebook = _released(course, day)
    ids = [
        cell.metadata["nbgrader"]["grade_id"]
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    ]
    assert [id_ for id_ in ids if not id_.startswith("check_")] == list(FILLED_IN[day])
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for name, (_, _, is_core) in chosen_course.EXERCISES.items():
        line = re.search(rf"^## `{name}`\n(.*)$", text, re.MULTILINE)
        assert (f"hint about {name}" in text) == (name in FILLED_IN[day])
        assert (f"a loop in {name}" in text) == (name in FILLED_IN[day])
        if name not in FILLED_IN[day]:
            assert line is None or line[1] == "given · nothing to fill in"
        elif name == "count":
            assert line
            assert line[1] == "★★☆☆☆ · optional · 10 minutes"
        else:
            track = "" if day != "day2" else " · core" if is_core else " · further"
            points = f"{FILLED_IN[day][name]:g} points"
            assert line
            assert line[1] == f"★★☆☆☆{track} · 10 minutes · {points}"
    assert "uses the given\n`shift`" in text
    count = len(FILLED_IN[day])
    assert f"{count} exercises in {text.count('*Chapter ')} chapters, {TOTALS[day]} points." in text
    assert (course / "assignments" / day / "README.md").read_text(encoding="utf-8") == (
        f"{count} exercises, {TOTALS[day]} points\n"
    )


def test_minutes_are_added_up_by_track(course: Path) -> None:
    texts = {d: "\n".join(c.source for c in _released(course, d).cells) for d in DAYS}
    assert (
        "| chapter | time |\n|---|---|\n| Introduction | 5 min |\n| 1 Numbers | 10 min |"
        in texts["day1"]
    )
    assert "*Chapter 2 of 2 · 10 minutes*" in texts["day1"]
    assert "mirror" not in texts["day1"]
    assert "| chapter | core | further | optional |" in texts["day2"]
    assert "| **Total** | **25 min** | **20 min** | **10 min** |" in texts["day2"]
    assert "*Chapter 1 of 3 · core: 10 minutes · optional: 10 minutes*" in texts["day2"]
    assert "more depth. Their exercises are worth 53.1 of the 77 points." in texts["day2"]
    assert "Their exercises" not in texts["day1"]


@pytest.mark.parametrize("to", get_args(Format))
def test_every_export_contains_the_total(to: str, course: Path, run: Run) -> None:
    out = course / f"export-{to}"
    done = run(course, "export", "day2", "--to", to, "--out", str(out))
    assert done.returncode == 0, done.stderr
    if to == "gradescope":
        (file,) = out.rglob("*.json")
        results = json.loads(file.read_bytes())
        assert results["score"] == 77
        assert sum(test.get("max_score", 0) for test in results["tests"]) == pytest.approx(77)
        assert [test["name"] for test in results["tests"]][1] == "count (optional)"
        return
    rows = list(csv.reader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert 77 in [float(cell) for cell in rows[-1] if re.fullmatch(r"[\d.]+", cell)]


@pytest.fixture(scope="module")
def table(course: Path, run: Run) -> str:
    """Return the printed table for two submissions. Bob gets the optional exercise wrong; Cyd redefines a provided function."""
    folder = course / "edited"
    folder.mkdir()
    wrong = _filled_in(course, "day2")
    for cell in wrong.cells:
        cell.source = cell.source.replace("return x.cumsum(-1)", "return x")
    nbformat.write(wrong, folder / "bob.ipynb")
    edited = _filled_in(course, "day2")
    edited.cells.append(nbformat.v4.new_code_cell("def shift(x):\n    return x"))
    nbformat.write(edited, folder / "cyd.ipynb")
    graded = run(course, "grade", "day2", "edited", "--feedback", "pages")
    assert graded.returncode == 0, graded.stderr
    return graded.stdout


def test_an_optional_exercise_is_marked_everywhere_and_costs_nothing(
    table: str, course: Path, run: Run
) -> None:
    assert re.search(r"^bob +77 / 77 +✓✓✓✓ \+ ✗", table, re.MULTILINE)
    page = (course / "pages" / "bob.html").read_text(encoding="utf-8")
    assert "77 of 77 points" in page
    assert "0 of 5.31 (optional)" in page
    assert "The values of count are right." in page
    explained = run(course, "explain", "day2", "bob").stdout
    assert "0 of 5.31 (optional)" in explained
    assert "77 of 77 points" in explained
    given = run(course, "override", "day2", "bob", "count", "--points", "5")
    assert "77 of 77 points in total" in given.stdout, given.stderr
    report = run(course, "report", "day2")
    assert report.returncode == 0, report.stderr
    (html,) = course.rglob("report.html")
    assert "<code>count</code> (optional)" in html.read_text(encoding="utf-8")


def test_a_given_exercise_always_comes_from_the_course(table: str) -> None:
    assert re.search(r"^cyd +77 / 77", table, re.MULTILINE)
    assert "`shift` is provided by the course" in table
