"""Test that `autograder` returns the right exit codes and reports each problem as one line on stderr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.cli import main
from autograder.nbgrader_plugin import gradebook
from autograder.nbgrader_plugin.gradebook import CopyResult
from tests import small_course
from tests.conftest import ROOT, Run

MASK = "def padding_mask(tokens, pad_id):\n    return (tokens != pad_id).unsqueeze(1)\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small course's folder, in which commands start much faster than in this repository."""
    return small_course.make(tmp_path_factory.mktemp("course"))


def call(
    arguments: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[object, str, str]:
    """Call the command in this process. Return the exit code, the output and the errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["autograder", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


WRONG = {
    "no such day": (["grade", "day7", "x"], "there is no day 'day7'"),
    "no such exercise": (["explain", "day1", "x", "nosuch"], "no exercise 'nosuch'"),
    "no such command": (["grad"], "No such command"),
    "no day": (["grade"], "Missing argument"),
    "no folder for the marks": (
        ["grade", "day1", "x", "--json", "/no/such/f"],
        "cannot be written",
    ),
    "points to remove": (
        ["override", "day1", "x", "softmax", "--remove", "--points", "2"],
        "--remove cannot be combined with --points",
    ),
    "points for no student": (["override", "day1", "--points", "2"], "STUDENT is missing"),
    "points beside a file of overrides": (
        ["override", "day1", "--csv", "x", "--points", "2"],
        "either --csv, or STUDENT",
    ),
    "a certificate without a cluster": (
        ["grade", "day1", "x", "--tls-cert", "c.pem"],
        "work only with --cluster",
    ),
    "no such notebook to follow": (
        ["live", "day1", "/no/such.ipynb"],
        "there is no file or folder",
    ),
    "the course as a class": (["grade", "day1", ""], "the folder '.' contains a course"),
    "no such sandbox": (["grade", "day1", "x", "--sandbox", "some"], "'some'"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_prints_a_message_and_exits_with_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, errors = call(arguments, ROOT, monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert message in errors


def test_running_outside_a_course_names_the_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = call(["grade", "day1", "x"], tmp_path, monkeypatch, capsys)
    assert code == 2
    assert "grading.toml" in errors


@pytest.mark.slow
def test_a_class_is_graded_and_unreadable_files_are_named(course: Path) -> None:
    (course / "class").mkdir()
    (course / "class" / "ada.py").write_text(MASK)
    (course / "class" / "bob.ipynb").write_text('{"cells": [')
    done = small_course.command(
        course, "grade", "day1", "class", "--json", "marks.json", "--no-store"
    )
    assert done.returncode == 1
    assert "bob.ipynb" in done.stderr
    ada, bob = json.loads((course / "marks.json").read_text())["submissions"]
    assert (ada["student"], ada["points"], len(ada["exercises"])) == ("ada", 60, 2)
    assert (bob["student"], bob["points"], bob["exercises"]) == ("bob", None, [])
    assert bob["problems"]


@pytest.mark.slow
def test_explain_shows_code_tests_and_marks(course: Path) -> None:
    (course / "eve.py").write_text(MASK.replace("!= pad_id", "!= 0"))
    done = small_course.command(course, "explain", "day1", "eve.py", "padding_mask")
    assert done.returncode == 0
    for part in ("tokens != 0", "failed", "passed", "add --seed"):
        assert part in done.stdout
    assert re.search(r"last call: padding_mask\(int64 \(4, 5\) .*, 2\)$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_grading_without_isolation_prints_a_warning(course: Path) -> None:
    (course / "ada.py").write_text(MASK)
    options = ("--sandbox", "none", "--no-store", "--json", "alone.json")
    done = small_course.command(course, "grade", "day1", "ada.py", *options)
    assert done.returncode == 0
    assert "WITHOUT ISOLATION" in done.stderr
    marks = json.loads((course / "alone.json").read_text())
    assert marks["submissions"][0]["isolation"] == ["limits"]


@pytest.fixture
def graded(tmp_path: Path, run: Run) -> Path:
    """Return the folder of a small course that contains one graded submission and a broken link named `broken`."""
    root = small_course.make(tmp_path / "course")
    (root / "ada.py").write_text(MASK)
    (root / "broken").symlink_to("nowhere")
    assert run(root, "grade", "day1", "ada.py").returncode == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "feedback"])
def test_a_folder_that_cannot_be_created_is_one_line_on_stderr(
    command: str, graded: Path, run: Run
) -> None:
    done = run(graded, command, "day1", "--out", "broken")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["autograder: error: broken cannot be written: File exists"]


@pytest.mark.slow
def test_marks_are_kept_if_feedback_cannot_be_written(graded: Path, run: Run) -> None:
    (graded / "bob.py").write_text(MASK)
    options = ("--feedback", "broken", "--json", "marks.json")
    done = run(graded, "grade", "day1", "bob.py", *options)
    assert done.returncode == 2
    assert "1 submission graded" in done.stdout
    assert (
        done.stderr.splitlines()[-1] == "autograder: error: broken cannot be written: File exists"
    )
    assert "bob" in (graded / "marks.json").read_text()
    assert "bob" in run(graded, "list", "day1").stdout


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--seed", "1f"], ["--no-store"], []])
def test_only_marks_that_become_current_enter_the_gradebook(
    option: list[str], course: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = course / "submitted" / "ada" / "day1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "day1.py").write_text(small_course.RIGHT)
    copied = []

    def copy(*_: object) -> CopyResult:
        copied.append(True)
        return CopyResult()

    monkeypatch.setattr(gradebook, "copy", copy)
    done = run(course, "grade", "day1", *option)
    assert "100 / 100" in done.stdout
    assert bool(copied) == (not option)


@pytest.mark.slow
def test_the_feedback_command_says_that_there_is_no_page(graded: Path, run: Run) -> None:
    done = run(graded, "feedback", "day1", "--for", "moodle")
    assert (done.returncode, done.stdout) == (1, "")
    problem = "there are no feedback pages to write, so feedback-day1.zip was not written"
    assert done.stderr.splitlines()[-1] == f"autograder: error: {problem}"
    assert not (graded / "feedback-day1.zip").exists()


@pytest.mark.slow
def test_the_feedback_command_says_where_the_pages_are(graded: Path, run: Run) -> None:
    done = run(graded, "feedback", "day1", "--for", "folder")
    assert [page.suffix for page in (graded / "feedback-day1").iterdir()] == [".html"]
    assert "wrote 1 feedback page to feedback-day1. Each file is named" in done.stdout


def test_the_main_process_does_not_import_torch() -> None:
    """Importing torch would take longer than everything else that the main process does before it starts other processes."""
    modules = (
        "autograder.grading.session",
        "autograder.feedback.student_page",
        "autograder.feedback.class_page",
        "autograder.export.write",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
