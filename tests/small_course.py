"""Define a course with two chapters of one exercise each, small enough for every command to finish in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
COMMAND = str(SCRIPTS / "autograder")
TOML = """
[day1]
title = "A small day"
[day1.exercises.padding_mask]
chapter = "masking"
points = 60
[day1.exercises.split_heads]
chapter = "heads"
points = 40
"""
EXERCISES = ("padding_mask", "split_heads")
CHAPTERS = {
    "masking": """
# %%
import torch
# %%
def padding_mask(tokens, pad_id):
    ### BEGIN SOLUTION
    return (tokens != pad_id).unsqueeze(1)
    ### END SOLUTION
""",
    "heads": """
# %%
def split_heads(x, n_heads):
    ### BEGIN SOLUTION
    b, n, d = x.shape
    return x.view(b, n, n_heads, d // n_heads).transpose(1, 2)
    ### END SOLUTION
""",
}
GRADERS = {
    "masking": """
from autograder.execution.checks import Draw, equal, weight


class TestPaddingMask:
    exercise = "padding_mask"

    def test_zero(self, student, seed):
        \"\"\"The mask is True at real tokens.\"\"\"
        tokens = Draw(seed).integers(0, 3, 4, 5)
        equal(student.padding_mask(tokens, 0), (tokens != 0)[:, None])

    @weight(2)
    def test_any_id(self, student, seed):
        \"\"\"The padding id can be any integer.\"\"\"
        tokens = Draw(seed).integers(0, 3, 4, 5)
        equal(student.padding_mask(tokens, 2), (tokens != 2)[:, None])
""",
    "heads": """
from autograder.execution.checks import Draw, close


class TestSplitHeads:
    exercise = "split_heads"

    def test_order(self, student, seed):
        \"\"\"Each head gets a contiguous block of features.\"\"\"
        x = Draw(seed).normal(2, 3, 8)
        close(student.split_heads(x, 2)[:, 1], x[:, :, 4:])
""",
}
RIGHT = "".join(CHAPTERS.values())
# WRONG earns a third of the points for padding_mask and all points for split_heads: 60 of 100.
WRONG = RIGHT.replace("tokens != pad_id", "tokens != 0")


def make(root: Path, configuration: str = "") -> Path:
    """Write the course to a folder and return the folder. `configuration` is added to its grading.toml."""
    mistakes = root / "mistakes" / "day1"
    mistakes.mkdir(parents=True)
    for exercise in EXERCISES:
        (mistakes / f"{exercise}.md").write_text(f"# {exercise}\n")
    folders = {"solutions": CHAPTERS, "graders": GRADERS}
    for folder, files in folders.items():
        place = root / folder / "day1"
        place.mkdir(parents=True)
        for name, text in files.items():
            prefix = "test_" if folder.endswith("graders") else ""
            (place / f"{prefix}{name}.py").write_text(text)
    (root / "grading.toml").write_text(TOML + configuration)
    return root


def hand_in(folder: Path, count: int) -> None:
    """Write submissions for a whole class. No two are identical, and every third one has a mistake in one exercise."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        text = WRONG if number % 3 == 1 else RIGHT
        (folder / f"student{number:02}.py").write_text(f"{text}\n# {number}\n")


def command(
    root: Path, *arguments: str, program: str = "autograder", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `autograder`, or another program from the same virtual environment, in the course folder."""
    return subprocess.run(
        [SCRIPTS / program, *arguments],
        cwd=root,
        env={**os.environ, "AUTOGRADER_SECRET": "tests", **variables},
        capture_output=True,
        text=True,
    )
