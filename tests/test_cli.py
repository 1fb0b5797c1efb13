"""The commands: exit codes, and one sentence on stderr for what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMAND = str(Path(sys.executable).parent / "autograder")
SOFTMAX = "import torch\ndef softmax(x, dim=-1):\n    e = (x - x.amax(dim, True)).exp()\n    return e / e.sum(dim, True)\n"


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AUTOGRADER_SECRET": "tests"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


WRONG = {
    "no such day": (["grade", "day7", "x"], "there is no 'day7'"),
    "no such exercise": (["explain", "day1", "x", "nosuch"], "no exercise 'nosuch'"),
    "no such command": (["grad"], "No such command"),
    "no day": (["grade"], "Missing argument"),
    "no folder for the marks": (
        ["grade", "day1", "x", "--json", "/no/such/f"],
        "cannot be written",
    ),
    "no such sandbox": (["grade", "day1", "x", "--sandbox", "some"], "'some'"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_said_and_ends_with_2(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_of_a_course_it_says_so(tmp_path: Path) -> None:
    done = run("grade", "day1", "x", folder=tmp_path)
    assert done.returncode == 2
    assert "grading.toml" in done.stderr


def test_a_class_is_graded_and_what_could_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text(SOFTMAX)
    (tmp_path / "class" / "bob.ipynb").write_text('{"cells": [')
    marks = tmp_path / "marks.json"
    done = run("grade", "day1", str(tmp_path / "class"), "--json", str(marks), "--no-store")
    assert done.returncode == 1
    assert "bob.ipynb" in done.stderr
    ada, bob = json.loads(marks.read_text())["submissions"]
    assert (ada["student"], ada["points"], len(ada["exercises"])) == ("ada", 4, 20)
    assert (bob["student"], bob["points"], bob["exercises"]) == ("bob", 0, [])
    assert bob["problems"]


def test_explain_shows_code_tests_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "ada.py"
    file.write_text(SOFTMAX.replace("x.amax(dim, True)", "x.amax()"))
    done = run("explain", "day1", str(file), "softmax")
    assert done.returncode == 0
    for part in ("x.amax()", "lost", "held", "the last call: softmax", "replay with --seed"):
        assert part in done.stdout


def test_without_isolation_it_is_loud(tmp_path: Path) -> None:
    file = tmp_path / "ada.py"
    file.write_text(SOFTMAX)
    marks = tmp_path / "marks.json"
    done = run("grade", "day1", str(file), "--sandbox", "none", "--no-store", "--json", str(marks))
    assert done.returncode == 0
    assert "WITHOUT ISOLATION" in done.stderr
    assert json.loads(marks.read_text())["submissions"][0]["isolation"] == ["limits"]
