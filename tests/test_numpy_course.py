"""Test a course on numerical methods whose exercises return arrays, objects, numbers and strings, draw, call and print."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution.catalogue import known_mistakes
from autograder.grading.grader import Grader
from autograder.release import build, helper_cells
from autograder.release.notebook import requirements
from autograder.sandbox.client import Server
from tests.conftest import ROOT, SECRET, by_name, handed_in

pytestmark = pytest.mark.slow

COURSE = ROOT / "tests" / "numpy_course"
STYLES = sorted((COURSE / "tests/styles/day1").glob("*.py"))
MISTAKES = [
    (file.stem, name)
    for file in sorted((COURSE / "mistakes/day1").glob("*.md"))
    for name in re.findall(r"^## (.+)$", file.read_text(), re.MULTILINE)
]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    root = tmp_path_factory.mktemp("course")
    shutil.copytree(COURSE, root, dirs_exist_ok=True)
    return courses.load(root).day("day1")


@pytest.fixture(scope="module")
def grader(day: Day, server: Server) -> Grader:
    return Grader(day, server, SECRET)


def solutions(day: Day, **changed: str) -> str:
    """Return the solutions as a script, with some exercises replaced."""
    cells = (cell for chapter in day.chapters for cell in chapter.cells)
    return "\n# %%\n".join(
        changed.get(cell.name, cell.solution) if cell.role == "exercise" else cell.source
        for cell in cells
        if cell.role in ("given", "exercise")
    )


def test_the_course_has_at_most_forty_lines_per_exercise() -> None:
    files = [*COURSE.glob("*/day1/test_*.py"), *COURSE.glob("mistakes/day1/*")]
    count = sum(len(file.read_text().splitlines()) for file in files)
    assert count <= 40 * 8


@pytest.mark.parametrize("style", STYLES, ids=lambda path: path.stem)
def test_correct_answers_in_other_styles_get_full_marks(style: Path, grader: Grader) -> None:
    marks = grader.grade(handed_in(style.read_text()))
    assert marks.points == 100, [(e.name, e.message) for e in marks.exercises if e.message]


@pytest.mark.parametrize(("exercise", "name"), MISTAKES)
def test_known_mistakes_are_named(exercise: str, name: str, day: Day, grader: Grader) -> None:
    (mistake,) = (one for one in known_mistakes(day)[exercise] if one.name == name)
    marks = by_name(grader.grade(handed_in(solutions(day, **{exercise: mistake.source}))))
    assert marks[exercise].mistake == name, marks[exercise].message
    assert {e.status for e in marks.values() if e.name != exercise} == {"passed"}


MESSAGES = {
    "return np.zeros((3, 4))": "should be a pair of the eigenvalue and the eigenvector, but it is an array of shape (3, 4)",
    "return 1.0, [1.0, 2.0]": "the eigenvalue: 1 instead of -7",
    "return a[0, 0] * 0 - 7, start.tolist()": "the eigenvector should be an array, but it is a list",
    "return np.array([None]), start": "the eigenvalue should be a number, but it is an array of dtype object",
    "return np.matrix(a), start": "the eigenvalue should be a number, but it is a numpy.matrix",
}


@pytest.mark.parametrize("body", MESSAGES)
def test_unusual_results_are_described(body: str, day: Day, grader: Grader) -> None:
    answer = f"def dominant_eigenpair(a, start, steps=100):\n    {body}\n"
    marks = by_name(grader.grade(handed_in(solutions(day, dominant_eigenpair=answer))))
    assert MESSAGES[body] in marks["dominant_eigenpair"].message
    assert marks["dominant_eigenpair"].points == 0


def test_a_grader_reports_a_missing_attribute(day: Day, grader: Grader) -> None:
    (mistake,) = (
        c.solution
        for ch in day.chapters
        for c in ch.cells
        if c.name == "KMeans" and c.role == "exercise"
    )
    marks = by_name(
        grader.grade(handed_in(solutions(day, KMeans=mistake.replace("centers_", "means"))))
    )
    assert "there is no attribute `centers_`" in marks["KMeans"].message


def test_the_release_runs_without_torch_and_contains_no_answers(day: Day) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_check_full_marks", lambda *_: None)
        patch.setattr(build, "_check_execution", lambda *_: None)
        assert [*build.build(day)] == [day.release]
    assert requirements(day) == "numpy\n"
    release = nbformat.read(day.release, as_version=4)
    (provided,) = (c.source for c in release.cells if helper_cells.unpacked(c.source)[0])
    outputs = helper_cells.unpacked(provided)[1]["outputs"]
    assert "KMeans" in outputs
    assert not {"condition_number", "stable_method"} & {*outputs}
    wrong = next(m for m in known_mistakes(day)["dominant_eigenpair"])
    cells = [provided, "import numpy as np\n" + wrong.source, "check_dominant_eigenpair()"]
    program = "import sys\nsys.modules['torch'] = None\n" + "\n".join(cells)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "yours is 3.0." in done.stderr
    assert f"Hint: {wrong.sentence}" in done.stderr
