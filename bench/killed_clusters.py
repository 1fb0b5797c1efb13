"""Kill a cluster's processes while it grades a class. Entry point: `killed`."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks
from bench.cluster_runs import Run, course_with_class
from bench.thousand import stored_count
from tests.dask_cluster import DaskCluster


def killed(day: Day, count: int, kills: int, console: Console) -> bool:
    """Kill workers at random moments, and the client and the scheduler once each. The marks must not change."""
    draw = random.Random(0)
    with course_with_class(day, count) as folder:
        run = Run(folder, "--jobs", "2")
        run.finish()
        expected = run.marks(day)
    with course_with_class(day, count) as folder:
        run, done = Run(folder, "--cluster", "local", "--jobs", "2"), 0
        # Lost submissions are graded last, alone. A second kill would leave them without marks.
        for moment in sorted(draw.uniform(0, 0.5) * count for _ in range(kills)):
            run.wait_for(int(moment))
            time.sleep(draw.random())
            if workers := run.workers():
                os.kill(draw.choice(workers), signal.SIGKILL)
                done += 1
        errors = run.finish()
        workers_ok = _report(console, f"{done} workers", run, day, expected, errors)
    with course_with_class(day, count) as folder:
        run = Run(folder, "--cluster", "local", "--jobs", "2")
        run.wait_for(count // 3)
        run.process.kill()
        run.finish()
        run = Run(folder, "--cluster", "local", "--jobs", "2")
        client_ok = _report(console, "the client", run, day, expected, run.finish())
    with (
        course_with_class(day, count) as folder,
        tempfile.TemporaryDirectory() as place,
        ExitStack() as stack,
    ):
        cluster = DaskCluster(Path(place), stack)
        scheduler = cluster.last
        cluster.add_worker()
        run = Run(folder, "--cluster", cluster.place.name, *cluster.tls)
        run.wait_for(count // 3)
        scheduler.kill()
        lost = run.finish()
        run = Run(folder, "--cluster", "local", "--jobs", "2")
        errors = run.finish()
        scheduler_ok = _report(console, "the scheduler", run, day, expected, errors)
        scheduler_ok = scheduler_ok and "scheduler was lost" in lost
    return workers_ok and client_ok and scheduler_ok


def _report(
    console: Console, what: str, run: Run, day: Day, expected: list[SubmissionMarks], errors: str
) -> bool:
    same = run.marks(day) == expected and stored_count(run.store) == len(expected)
    console.print(
        f"{'✓' if same else '✗'} after killing {what}: the stored marks "
        f"{'match' if same else 'differ from'} those of an uninterrupted run"
    )
    if "Traceback" in errors:
        console.print(f"✗ {errors}")
    return same and "Traceback" not in errors
