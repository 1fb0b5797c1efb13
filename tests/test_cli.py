"""Test that `autograder` returns the right exit codes and reports each problem as one line on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.cli import main
from tests.conftest import ROOT

COMMAND = str(Path(sys.executable).parent / "autograder")
SOFTMAX = "import torch\ndef softmax(x, dim=-1):\n    e = (x - x.amax(dim, True)).exp()\n    return e / e.sum(dim, True)\n"


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AUTOGRADER_SECRET": "tests"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


WRONG = {
    "no such day": (["grade", "day7", "x"], "there is no day 'day7'"),
    "no such exercise": (["explain", "day1", "x", "nosuch"], "no exercise 'nosuch'"),
    "no such command": (["grad"], "No such command"),
    "no day": (["grade"], "Missing argument"),
    "no folder for the marks": (
        ["grade", "day1", "x", "--json", "/no/such/f"],
        "cannot be written",
    ),
    "no such sandbox": (["grade", "day1", "x", "--sandbox", "some"], "'some'"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_prints_a_message_and_exits_with_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["autograder", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert message in shown.err


@pytest.mark.slow
def test_running_outside_a_course_names_the_missing_file(tmp_path: Path) -> None:
    done = run("grade", "day1", "x", folder=tmp_path)
    assert done.returncode == 2
    assert "grading.toml" in done.stderr


@pytest.mark.slow
def test_a_class_is_graded_and_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text(SOFTMAX)
    (tmp_path / "class" / "bob.ipynb").write_text('{"cells": [')
    marks = tmp_path / "marks.json"
    done = run("grade", "day1", str(tmp_path / "class"), "--json", str(marks), "--no-store")
    assert done.returncode == 1
    assert "bob.ipynb" in done.stderr
    ada, bob = json.loads(marks.read_text())["submissions"]
    assert (ada["student"], ada["points"], len(ada["exercises"])) == ("ada", 4, 20)
    assert (bob["student"], bob["points"], bob["exercises"]) == ("bob", None, [])
    assert bob["problems"]


@pytest.mark.slow
def test_explain_shows_code_tests_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "ada.py"
    file.write_text(SOFTMAX.replace("x.amax(dim, True)", "x.amax()"))
    done = run("explain", "day1", str(file), "softmax")
    assert done.returncode == 0
    for part in ("x.amax()", "failed", "passed", "last call: softmax", "add --seed"):
        assert part in done.stdout


@pytest.mark.slow
def test_grading_without_isolation_prints_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "ada.py"
    file.write_text(SOFTMAX)
    marks = tmp_path / "marks.json"
    done = run("grade", "day1", str(file), "--sandbox", "none", "--no-store", "--json", str(marks))
    assert done.returncode == 0
    assert "WITHOUT ISOLATION" in done.stderr
    assert json.loads(marks.read_text())["submissions"][0]["isolation"] == ["limits"]


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
