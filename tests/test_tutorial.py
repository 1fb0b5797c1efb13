"""Test that the commands of the tutorials print what the page shows under them, and that the worked example builds."""

from __future__ import annotations

import html
import os
import re
import subprocess
from pathlib import Path

import pytest

from autograder.course import new_course
from bench import recording
from bench.course_copy import link_course
from tests.conftest import ROOT
from tests.small_course import SCRIPTS, command

PAGE = ROOT / "docs" / "ta-tutorial.md"
# Cell numbers change with every edit of the course, how many results are known depends on the order of the work, and a slow
# machine reports its progress.
VARIABLE = {
    r"\d{4}-\d\d-\d\d": "DATE",
    r"\d+ cells|cell \d+": "CELLS",
    r"\d+ of \d+ exercises were known": "KNOWN",
    r"^autograder: \d+ submissions? graded so far\n": "",
    r" +$": "",
}


def runs(page: str) -> list[tuple[str, str]]:
    """Return each command in the page's `console` blocks, and the output under it."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^\$ (.*)\n", "".join(blocks), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def normal(output: str) -> str:
    """Return an output without what may differ between two runs."""
    for pattern, replacement in VARIABLE.items():
        output = re.sub(pattern, replacement, output, flags=re.MULTILINE)
    return output


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(tmp_path: Path) -> None:
    link_course(tmp_path)
    for name in ("assignments", "bench"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    variables = {"PATH": path, "AUTOGRADER_SECRET": "tests", "PYTHONUNBUFFERED": "1"}
    commands = runs(PAGE.read_text(encoding="utf-8"))
    assert len(commands) >= 8
    for line, shown in commands:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        # A line with only an ellipsis matches any number of lines.
        pattern = re.escape(normal(shown)).replace("…\\\n", "(?:.*\n)*")
        assert re.fullmatch(pattern, normal(done.stdout)), (
            f"`{line}` prints this, but {PAGE.name} does not show it:\n{done.stdout}"
        )


def test_the_picture_in_the_readme_shows_the_same_output() -> None:
    texts = re.findall(r"<text.*?</text>", recording.FILE.read_text(encoding="utf-8"))
    shown = normal(html.unescape(" ".join(re.sub(r"<.*?>", "", text) for text in texts))).split()
    found = {
        line: output
        for line, output in runs(PAGE.read_text(encoding="utf-8"))
        if line in recording.COMMANDS
    }
    assert len(found) == 2
    for line, output in found.items():
        words = normal(f"$ {line}\n{output}").split()
        assert " ".join(words) in " ".join(shown), "run `python -m bench.recording`"


@pytest.mark.slow
def test_the_worked_example_applies_to_a_new_course_and_builds(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "add-an-exercise.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"^`````diff\n(.*?)^`````$", page, re.MULTILINE | re.DOTALL)
    new_course.create(tmp_path)
    subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, text=True, check=True)
    tried = command(tmp_path, "try", "day1", "clip")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "✓ mistake: the bounds swapped" in tried.stdout
    built = command(tmp_path, "build")
    assert built.returncode == 0, built.stderr
    released = (tmp_path / "assignments" / "day1" / "day1.ipynb").read_text(encoding="utf-8")
    assert 'alt=\\"The result equals x between low and high' in released
