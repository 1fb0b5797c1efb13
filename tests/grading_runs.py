"""Start and kill runs of `autograder grade` in the small course, and compare marks apart from their times."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from autograder.course.state_folder import VARIABLE
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from tests.small_course import COMMAND

STUDENTS = 12


def start_run(root: Path, jobs: str, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, "grade", "day1", "in", "--jobs", jobs],
        cwd=root,
        env={**os.environ, VARIABLE: "tests", **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_run(root: Path, wait: Callable[[subprocess.Popen[bytes]], object]) -> int:
    """Start a grading run, kill it when `wait` returns, and return how many submissions have marks in the store."""
    run = start_run(root, "1")
    wait(run)
    run.kill()
    # This call returns only once no process holds stderr open.
    run.communicate(timeout=60)
    return stored_count(root)


def stored_count(root: Path) -> int:
    with History(root) as history:
        return len(history.current("day1"))


def until_stored(root: Path, count: int) -> Callable[[subprocess.Popen[bytes]], None]:
    """Return a function that waits until a run has locked the day and stored this many submissions."""
    lock = root / ".autograder" / "day1.lock"

    def wait(run: subprocess.Popen[bytes]) -> None:
        while not (lock.exists() and stored_count(root) >= count):
            assert run.poll() is None, "the run ended before it was killed"
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(0.02)

    return wait


def check_all_stored(root: Path, file: Path, uninterrupted: Any) -> None:
    """Check that a file and the store contain the same marks as an uninterrupted run."""
    assert untimed(file)["submissions"] == uninterrupted
    with History(root) as history:
        current = history.current("day1")
    assert [(m.student, m.points) for m in current] == [
        (one["student"], one["points"]) for one in uninterrupted
    ]


def without_times(marks: SubmissionMarks) -> SubmissionMarks:
    """Return marks without the measured times."""
    exercises = [replace(exercise, seconds=0.0) for exercise in marks.exercises]
    return replace(marks, seconds=0.0, exercises=exercises)


def untimed(file: Path) -> Any:
    """Load a JSON file of marks, and remove the measured times."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(v) for key, v in value.items() if key != "seconds"}
        return [without(v) for v in value] if isinstance(value, list) else value

    return without(json.loads(file.read_bytes()))
