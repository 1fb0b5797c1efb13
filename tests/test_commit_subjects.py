"""Test that the commit-msg hook refuses default merge subjects and long subjects."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        ("x" * 72 + "\n\n" + "A body may have longer lines. " * 5, ""),
        ("# a comment\n\nWrite “é” as one character: " + "é" * 41, ""),
        ("x" * 73, "has 73 characters"),
        ("Merge branch 'main' of /home/ada/course", "rebase your branch"),
    ],
)
def test_the_hook_refuses_merge_subjects_and_long_subjects(
    tmp_path: Path, message: str, refusal: str
) -> None:
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message, encoding="utf-8")
    done = subprocess.run(
        [ROOT / ".githooks" / "commit-msg", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == bool(refusal)
    assert refusal in done.stderr
