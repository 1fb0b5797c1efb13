"""Test that nbgrader's own commands give the same marks as `autograder grade` in a small course."""

from __future__ import annotations

import ast
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps import GenerateFeedbackApp, ValidateApp
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.validator import Validator

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.state_folder import VARIABLE
from autograder.nbgrader_plugin.pipeline import SubmissionExporter, verbatim
from autograder.sandbox.errors import NoIsolation
from tests.conftest import ROOT, Run, with_cells
from tests.released_course import export, generate, nbgrader, run_app

pytestmark = pytest.mark.slow

CHAPTERS = {"attention", "positional_encoding"}  # two chapters, to keep the test fast
POINTS = {
    "softmax": 17.5,
    "attention_scores": 12.5,
    "attention": 20,
    "sinusoidal_encoding": 20,
    "shift_matrix": 15,
    "PositionalEncoding": 15,
}
HOSTILE = {
    "shift_matrix": "def shift_matrix(offset, d_model):\n    while True: pass",
    "attention_scores": "import os\ndef attention_scores(query, key):\n    os._exit(0)",
    "sinusoidal_encoding": (
        "def sinusoidal_encoding(length, d_model):\n"
        "    raise RuntimeError('<script>alert(1)</script>')"
    ),
}
NAIVE = "def softmax(x, dim=-1):\n    return x.exp() / x.exp().sum(dim, keepdim=True)"


# ---- submissions


def filled_in(release: NotebookNode, names: tuple[str, ...]) -> NotebookNode:
    """Fill in a release with the answers from tests/styles/day1/einsum.py, remove the demonstrations, and return the result."""
    answers: dict[str, str] = {}
    others = []
    for cell in jupytext.read(ROOT / "tests/styles/day1/einsum.py").cells:
        if cell.cell_type == "code":
            body = ast.parse(cell.source).body
            defined = {getattr(statement, "name", "") for statement in body} & set(names)
            assert len(defined) <= 1
            others += [] if defined else [cell]
            answers |= dict.fromkeys(defined, cell.source)
    notebook = with_cells(release, answers)
    notebook.cells = [*others, *without_demonstrations(notebook)]
    return notebook


def without_demonstrations(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if "with demonstration()" not in cell.source]


def role(cell: NotebookNode) -> str:
    metadata = cell.metadata.get("nbgrader", {})
    return "checks" if metadata.get("grade") else "answer" if metadata.get("solution") else "other"


def reversed_cells(notebook: NotebookNode) -> None:
    notebook.cells.reverse()


def copied(notebook: NotebookNode) -> None:
    """Duplicate each cell, including its id and metadata."""
    notebook.cells = [cell for cell in notebook.cells for _ in range(2)]


def bare(notebook: NotebookNode) -> None:
    """Remove all metadata and cell ids, as some notebook tools do."""
    notebook.nbformat_minor = 4
    notebook.metadata = {}
    for cell in notebook.cells:
        cell.metadata = {}
        del cell["id"]


def retyped(notebook: NotebookNode) -> None:
    """Turn check cells into markdown cells and markdown cells into raw cells, but keep the cells' metadata."""
    for cell in notebook.cells:
        if role(cell) == "checks":
            cell.cell_type = "markdown"
        elif cell.cell_type == "markdown":
            cell.cell_type = "raw"


def edited(notebook: NotebookNode) -> None:
    """Replace the checks with forged output that claims full points, and edit the metadata to claim even more points."""
    for cell in notebook.cells:
        if role(cell) == "checks":
            cell.source = "100.0"
            cell.metadata.nbgrader |= {"points": 1e9, "schema_version": 99, "locked": "no"}
            cell.outputs = [nbformat.v4.new_output("execute_result", data={"text/plain": "100.0"})]
        elif role(cell) == "answer":
            cell.metadata.nbgrader |= {"grade": True, "grade_id": "../softmax"}


def merged(notebook: NotebookNode) -> None:
    """Move all answers into the last check cell, and delete the answer cells and all other check cells."""
    answers = [cell for cell in notebook.cells if role(cell) == "answer"]
    whole = [cell for cell in notebook.cells if role(cell) == "checks"][-1]
    whole.source = "\n\n".join(cell.source for cell in [*answers, whole])
    notebook.cells = [cell for cell in notebook.cells if role(cell) == "other"] + [whole]


def split(notebook: NotebookNode) -> None:
    """Split two answers into two cells each. The second cell assigns `softmax`, or adds a method to `PositionalEncoding`."""
    at = [cell.id for cell in notebook.cells].index("softmax")
    notebook.cells[at].source = notebook.cells[at].source.replace("def softmax", "def my_softmax")
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("softmax = my_softmax"))
    at = [cell.id for cell in notebook.cells].index("PositionalEncoding")
    first, method = re.split(r"(?m)^(?=    def forward)", notebook.cells[at].source)
    notebook.cells[at].source = first
    method = re.sub(r"(?m)^    ", "", method).replace("def forward", "def add_positions", 1)
    notebook.cells.insert(
        at + 1, nbformat.v4.new_code_cell(f"{method}\n\nPositionalEncoding.forward = add_positions")
    )


MANGLED: dict[str, Callable[[NotebookNode], None]] = {
    f.__name__: f for f in (reversed_cells, copied, bare, retyped, edited, merged, split)
}


def hostile(notebook: NotebookNode) -> NotebookNode:
    changed = with_cells(notebook, HOSTILE)
    changed.cells += [
        nbformat.v4.new_markdown_cell("```\n<img src=x onerror=alert(2)>\n```\n<script>alert(3)"),
        nbformat.v4.new_raw_cell("<script>alert(4)</script>"),
        nbformat.v4.new_code_cell("'</pre></div><script>alert(5)</script>"),
    ]
    return changed


def submitted(release: NotebookNode, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each student's name and the content of the file that the student submits."""
    notebook = filled_in(release, names)
    yield "plain", nbformat.writes(notebook)
    yield "unfilled", nbformat.writes(release)
    for name, mangle in MANGLED.items():
        copy = nbformat.from_dict(notebook)
        mangle(copy)
        yield name, json.dumps(copy)
    old = nbformat.convert(nbformat.from_dict(notebook), 3)
    yield "version3", nbformat.writes(old, version=nbformat.NO_CONVERT)
    yield "script", (ROOT / "tests/styles/day1/loops.py").read_text(encoding="utf-8")
    yield "partial", nbformat.writes(with_cells(notebook, {"softmax": NAIVE}))
    yield "hostile", nbformat.writes(hostile(notebook))
    yield "deep", '{"nbformat": 4, "metadata": {}, "cells": ' + "[" * 100_000
    yield "cut", nbformat.writes(notebook)[:20]


FULL = {"plain", "version3", "script", *MANGLED}
UNREADABLE = {"deep", "cut"}


# ---- one course, graded by nbgrader and by autograder


class Graded:
    """A course folder in which `nbgrader autograde` and `autograder grade` have run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = ""
        self.marks: dict[str, dict[str, float]] = {}

    def gradebook(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.root}/gradebook.db", "transformers")

    def scores(self, student: str) -> dict[str, float]:
        """Return a student's points for each exercise, as stored in nbgrader's gradebook."""
        with self.gradebook() as gradebook:
            notebook = gradebook.find_submission_notebook("day1", "day1", student)
            assert not any(grade.needs_manual_grade for grade in notebook.grades)
            return {grade.name.removeprefix("check_"): grade.score for grade in notebook.grades}

    def cells(self, student: str) -> list[NotebookNode]:
        file = self.root / "autograded" / student / "day1" / "day1.ipynb"
        cells: list[NotebookNode] = nbformat.read(file, as_version=4).cells
        return cells

    def feedback(self, student: str, exercise: str) -> str:
        """Return the text output of an exercise's check cell."""
        cell = next(c for c in self.cells(student) if c.id == f"check_{exercise}")
        output = cell.outputs[0]
        return str(output.text if output.output_type == "stream" else output.data["text/plain"])


def small(day: Day) -> str:
    """Return the contents of grading.toml for the small course."""
    lines = ["[day1]", 'title = "Two chapters"']
    for exercise in day.exercises:
        if exercise.chapter in CHAPTERS:
            lines += [f"[day1.exercises.{exercise.name}]", f'chapter = "{exercise.chapter}"']
            lines += [
                f"points = {POINTS[exercise.name]}",
                f"not_allowed = {[*exercise.not_allowed]}",
            ]
            lines += ["cpu_seconds = 1"] if exercise.name == "shift_matrix" else []
    return "\n".join(lines)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Graded:
    course = Graded(tmp_path_factory.mktemp("course"))
    root = course.root
    shutil.copytree(ROOT / "solutions", root / "solutions")
    shutil.copy(ROOT / "nbgrader_config.py", root)
    shutil.copytree(ROOT / "graders", root / "graders")
    for file in (root / "graders/day1").glob("test_*.py"):
        if file.stem.removeprefix("test_") not in CHAPTERS:
            file.unlink()
    (root / "grading.toml").write_text(small(courses.load(ROOT).day("day1")), encoding="utf-8")

    (root / "source/day1").mkdir(parents=True)
    generate(root)
    day = courses.load(root).day("day1")
    release = nbformat.read(root / "assignments/day1/day1.ipynb", as_version=4)
    for student, text in submitted(release, day.names):
        folder = root / "submitted" / student / "day1"
        folder.mkdir(parents=True)
        (folder / "day1.ipynb").write_text(text, encoding="utf-8")
    with course.gradebook() as gradebook:
        # This student got full points for an earlier attempt.
        gradebook.update_or_create_student("cut")
        earlier = gradebook.add_submission("day1", "cut")
        for grade in earlier.notebooks[0].grades:
            grade.auto_score = grade.max_score
        gradebook.db.commit()

    binaries = Path(sys.executable).parent
    theirs = subprocess.Popen(
        [str(binaries / "nbgrader"), "autograde", "day1"],
        cwd=root,
        env={**os.environ, VARIABLE: "tests", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # `autograder grade` does not write to the gradebook if it is given a path, so only nbgrader does.
    ours = run(root, "grade", "day1", "submitted", "--json", "marks.json")
    course.log, _ = theirs.communicate()
    assert theirs.returncode == 0, course.log
    # The exit code is 1, because some submissions are unreadable.
    assert ours.returncode == 1, ours.stderr
    for marks in json.loads((root / "marks.json").read_text())["submissions"]:
        course.marks[marks["student"]] = {e["name"]: e["points"] for e in marks["exercises"]}
    return course


def test_nbgrader_and_autograder_give_the_same_marks(graded: Graded) -> None:
    assert set(graded.marks) == {*FULL, *UNREADABLE, "unfilled", "partial", "hostile"}
    for student, marks in graded.marks.items():
        if student not in UNREADABLE:
            assert graded.scores(student) == marks, student


@pytest.mark.parametrize("student", sorted(FULL))
def test_correct_answers_get_full_marks_in_any_notebook_state(student: str, graded: Graded) -> None:
    assert sum(graded.scores(student).values()) == pytest.approx(100)


def test_an_unchanged_notebook_gets_no_points(graded: Graded) -> None:
    assert set(graded.scores("unfilled").values()) == {0}
    assert "not attempted" in graded.feedback("unfilled", "softmax")


def test_partial_credit_is_a_float(graded: Graded) -> None:
    scores = graded.scores("partial")
    assert 0 < scores["softmax"] < 17.5
    assert sum(scores.values()) == pytest.approx(82.5 + scores["softmax"])
    feedback = graded.feedback("partial", "softmax")
    assert feedback.startswith(f"softmax: {scores['softmax']:g} of 17.5 points, partly correct.\n")
    assert "\nFailed hidden checks:\n" in feedback
    assert re.search(r"\n\d+ checks? passed:\n", feedback)


def test_a_hang_or_crash_affects_only_its_own_exercise(graded: Graded) -> None:
    scores = graded.scores("hostile")
    assert {name for name, score in scores.items() if score == 0} == set(HOSTILE)
    assert "No answer within 1 s" in graded.feedback("hostile", "shift_matrix")
    assert "The code ended its Python process" in graded.feedback("hostile", "attention_scores")


@pytest.mark.parametrize("student", sorted(UNREADABLE))
def test_an_unreadable_file_gets_no_points_and_a_reason(student: str, graded: Graded) -> None:
    assert graded.marks[student] == {}
    assert set(graded.scores(student).values()) == {0}
    feedback = graded.feedback(student, "softmax")
    assert re.search("not a notebook|the notebook could not be read", feedback)


def test_each_exercise_has_one_answer_and_one_check_cell(graded: Graded) -> None:
    for student in graded.marks:
        ids = [c.metadata.nbgrader.grade_id for c in graded.cells(student) if role(c) != "other"]
        expected = {name for e in graded.scores("plain") for name in (e, f"check_{e}")}
        assert sorted(ids) == sorted(expected), student


def test_the_answer_cell_is_the_one_with_the_definition(graded: Graded) -> None:
    for student in ("copied", "bare", "version3", "edited"):
        cells = {cell.id: cell for cell in graded.cells(student)}
        for exercise in graded.scores(student):
            assert re.search(rf"^(def|class) {exercise}\b", cells[exercise].source, re.M), student


def test_no_student_code_is_lost(graded: Graded) -> None:
    sources = "\n".join(cell.source for cell in graded.cells("merged"))
    for cell in graded.cells("plain"):
        if role(cell) == "answer":
            assert cell.source in sources


def test_nbgrader_does_not_report_changed_checks(graded: Graded) -> None:
    assert "has changed" not in graded.log


def test_export_has_the_same_points(graded: Graded) -> None:
    rows = export(graded.root)
    assert set(rows) == set(graded.marks)
    for student, row in rows.items():
        assert float(row["score"]) == pytest.approx(sum(graded.marks[student].values()))
        assert float(row["max_score"]) == 100


def test_feedback_shows_our_text_and_runs_nothing(graded: Graded) -> None:
    run_app(GenerateFeedbackApp, graded.root, "day1", "--student=hostile")
    page = (graded.root / "feedback/hostile/day1/day1.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub("<[^>]*>", "", page))
    assert "shift_matrix: 0 of 15 points, timed out." in text
    assert "RuntimeError: <script>alert(1)</script>" in text
    assert not re.search(r"<(script|img)[^>]*>\s*alert|<img src=x", page)
    for hidden in (graded.root / "graders/day1").glob("test_*.py"):
        for line in re.findall(r"^ +((?:assert|close|equal).{20,})", hidden.read_text(), re.M):
            assert line not in text


def test_validate_reports_the_failing_exercise(
    graded: Graded, monkeypatch: pytest.MonkeyPatch
) -> None:
    solution = nbformat.read(graded.root / "source/day1/day1.ipynb", as_version=4)
    release = nbformat.read(graded.root / "assignments/day1/day1.ipynb", as_version=4)
    right = with_cells(release, {c.id: c.source for c in solution.cells if role(c) == "answer"})
    right.cells = without_demonstrations(right)
    wrong = with_cells(
        right, {"shift_matrix": "def shift_matrix(offset, d_model):\n    return None"}
    )
    reports = {"right": io.StringIO(), "wrong": io.StringIO()}
    for name, notebook in (("right", right), ("wrong", wrong)):
        nbformat.write(notebook, graded.root / f"{name}.ipynb")
        monkeypatch.setattr(Validator, "stream", reports[name])
        run_app(ValidateApp, graded.root, f"{name}.ipynb")
    assert reports["right"].getvalue() == "Success! Your notebook passes all the tests.\n"
    report = reports["wrong"].getvalue()
    assert "VALIDATION FAILED" in report
    assert "check_shift_matrix" in report
    assert "check_softmax" not in report


def test_points_that_differ_from_the_gradebook_are_refused(graded: Graded) -> None:
    grading = graded.root / "grading.toml"
    text = grading.read_text(encoding="utf-8")
    swapped = text.replace("points = 17.5", "points = 7.5").replace(
        "points = 12.5", "points = 22.5"
    )
    grading.write_text(swapped, encoding="utf-8")
    app = nbgrader(graded.root)
    app.coursedir.student_id = "plain"
    with pytest.raises(NbGraderException, match=r"Run `autograder build day1`$"):
        Autograde(coursedir=app.coursedir, parent=app, force=True).start()
    grading.write_text(text, encoding="utf-8")
    assert sum(graded.scores("plain").values()) == pytest.approx(100)


def test_a_missing_sandbox_stops_the_run(graded: Graded, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NoIsolation("the sandbox is not available")

    monkeypatch.setattr("autograder.nbgrader_plugin.pipeline.start_server", refuse)
    directory = CourseDirectory(root=str(graded.root), assignment_id="day1")
    with pytest.raises(NbGraderException, match="the sandbox is not available"):
        SubmissionExporter(parent=Autograde(coursedir=directory))


# ---- unit tests


@pytest.mark.parametrize("text", ["a", "```\nb\n```", "`````", "<b>c</b>"])
def test_verbatim_text_cannot_leave_its_fence(text: str) -> None:
    first, *inside, last = verbatim(text).split("\n")
    assert "\n".join(inside) == text
    assert first == f"{last}text"
    assert last not in text
