"""Kill grading runs at random moments. Entry point: `kill_at_random`."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from pathlib import Path

from tests import small_course
from tests.grading_runs import STUDENTS, check_all_stored, kill_run, untimed


def kill_at_random(root: Path, kills: int, draw: random.Random) -> None:
    """Repeatedly kill and resume a grading run, and compare the marks with those from an uninterrupted run."""
    small_course.make(root)
    small_course.hand_in(root / "in", STUDENTS)
    grade = ("grade", "day1", "in", "--jobs", "1", "--json")
    started = time.monotonic()
    assert small_course.command(root, *grade, "alone.json").returncode == 0
    seconds = time.monotonic() - started
    uninterrupted = untimed(root / "alone.json")["submissions"]
    for file in (root / ".autograder").iterdir():
        file.unlink()

    def wait(run: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Most of a short run is spent on starting up.
            run.wait(draw.uniform(0.3, 1.0) * seconds)

    stored = [kill_run(root, wait) for _ in range(kills)]
    assert stored == sorted(stored), "stored marks were lost"
    assert small_course.command(root, *grade, "on.json").returncode == 0
    check_all_stored(root, root / "on.json", uninterrupted)
