"""Grade a class on a Dask cluster, and compare marks and CPU time with those of the process pool.

The benchmark also kills processes and simulates many workers.

python -m bench.cluster --count 200 --kills 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.class_run import ClassRun
from autograder.grading.cluster.executor import Cluster
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from autograder.submissions.cell import Cell
from autograder.submissions.class_source import FoundSubmission
from autograder.submissions.submission import Submission
from bench.course_copy import ROOT, link_caches, link_course
from bench.processes import counter, tree
from bench.simulated import works
from bench.thousand import fill_caches, stored_count
from tests.dask_cluster import DaskCluster

SECONDS = 0.8  # the time that a worker sleeps for each simulated submission
# A worker with this code sleeps instead of grading.
SLEEP = """
import time
import autograder.grading.cluster.worker as worker
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks

class Asleep:
    class server:
        isolation = ["limits"]
        close = staticmethod(lambda: None)

def sleep(grader, submission, seed):
    time.sleep({seconds})
    tests = [TestMarks(f"test_{{n}}", 1.0, 1.0, True, "") for n in range(6)]
    exercises = [ExerciseMarks(f"exercise_{{n}}", 5.0, 5.0, "passed", "", None, [], 0.1, tests) for n in range(20)]
    return SubmissionMarks("a.ipynb", "a", "", seed, "", ["limits"], 100.0, 100.0, 0.8, [], exercises)

worker._make_grader = lambda course: Asleep
worker.grade_or_log = sleep
"""


class Run:
    """A run of `autograder grade` on the class in a copy of the course."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.store = folder / ".autograder" / "marks.db"
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder", "grade", "day1", "class", *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOGRADER_SECRET": "bench"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, done: int) -> None:
        """Wait until `done` submissions are stored or the run ends."""
        while stored_count(self.store) < done and self.process.poll() is None:
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """Return the process IDs of the Dask workers that the run started."""
        with contextlib.suppress(OSError):
            return [p for p in tree(self.process.pid) if p != self.process.pid and _is_worker(p)]
        return []

    def finish(self) -> str:
        """Wait until the run ends, and return what it wrote to stderr."""
        return self.process.communicate()[1]

    def marks(self, day: Day) -> list[SubmissionMarks]:
        """Return the stored marks, without times and without the name of the class folder."""
        with History(self.folder) as history:
            current = history.current(day.name)
        return [_without_times(marks) for marks in current]


def _is_worker(pid: int) -> bool:
    return b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _without_times(marks: SubmissionMarks) -> SubmissionMarks:
    exercises = [replace(exercise, seconds=0.0) for exercise in marks.exercises]
    return replace(marks, path=Path(marks.path).name, seconds=0.0, exercises=exercises)


@contextlib.contextmanager
def _course(day: Day, count: int) -> Iterator[Path]:
    """Yield a copy of the course that contains a class and the recorded outputs of the known mistakes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_course(folder)
        link_caches(folder)
        (folder / "class").mkdir()
        for number, work in enumerate(works(day, count)):
            file = folder / "class" / f"{number:04}-{work.kind}{work.ending}"
            file.write_bytes(work.data(number))
        fill_caches(courses.load(folder).day(day.name))
        yield folder


def _measured(folder: Path, count: int, *options: str) -> tuple[Run, float]:
    """Grade the whole class. Return the run, and the CPU seconds per submission, excluding the first tenth of the class."""
    with ExitStack() as stack:
        run = Run(folder, *options)
        cpu = counter(run.process.pid, stack)
        run.wait_for(count // 10)
        done, before, after = stored_count(run.store), cpu(), 0.0
        while run.process.poll() is None and stored_count(run.store) < count:
            after = cpu()
            time.sleep(0.1)
        after = max(after, cpu() if run.process.poll() is None else 0.0)
        run.finish()
        return run, (after - before) / (count - done)


def same_marks(day: Day, count: int, console: Console) -> bool:
    """Compare the marks and CPU time of local clusters with 2 and 4 workers with those of pools with as many processes."""
    expected: list[SubmissionMarks] = []
    ok = True
    for workers in (2, 4):
        costs = []
        for place in ([], ["--cluster", "local"]):
            with _course(day, count) as folder:
                run, cost = _measured(folder, count, *place, "--jobs", str(workers))
                marks = run.marks(day)
            costs.append(cost)
            if not expected:
                expected = marks
                continue
            same = marks == expected
            ok = ok and same
            console.print(
                f"{'✓' if same else '✗'} {count} submissions graded by {workers} {'workers' if place else 'processes'}: "
                f"their marks {'match' if same else 'differ from'} those of a pool with 2 processes"
            )
        pool, cluster = costs
        ratio = cluster / pool
        ok = ok and ratio <= 1.15
        console.print(
            f"{'✓' if ratio <= 1.15 else '✗'} CPU time per submission on {workers} workers, excluding start-up: "
            f"{ratio:.2f} times the {pool * 1000:.0f} ms of a pool with {workers} processes (limit 1.15)"
        )
    return ok


def killed(day: Day, count: int, kills: int, console: Console) -> bool:
    """Kill workers at random moments, and the client and the scheduler once each. The marks must not change."""
    draw = random.Random(0)
    with _course(day, count) as folder:
        run = Run(folder, "--jobs", "2")
        run.finish()
        expected = run.marks(day)
    with _course(day, count) as folder:
        run, done = Run(folder, "--cluster", "local", "--jobs", "2"), 0
        for moment in sorted(draw.uniform(0, 0.9) * count for _ in range(kills)):
            run.wait_for(int(moment))
            time.sleep(draw.random())
            if workers := run.workers():
                os.kill(draw.choice(workers), signal.SIGKILL)
                done += 1
        errors = run.finish()
        workers_ok = _report(console, f"{done} workers", run, day, expected, errors)
    with _course(day, count) as folder:
        run = Run(folder, "--cluster", "local", "--jobs", "2")
        run.wait_for(count // 3)
        run.process.kill()
        run.finish()
        run = Run(folder, "--cluster", "local", "--jobs", "2")
        client_ok = _report(console, "the client", run, day, expected, run.finish())
    with (
        _course(day, count) as folder,
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


def simulated(
    day: Day, workers: int, count: int, seconds: float
) -> tuple[float, float, float, float]:
    """Grade submissions on workers that only sleep.

    Returns:
        - the wall time in seconds,
        - the CPU seconds per submission of the scheduler,
        - the CPU seconds per submission of the client,
        - the megabytes by which the client's memory grows after the first tenth of the class.
    """
    cells = tuple(Cell(n, "code", "x = 1\n" * 40) for n in range(60))
    submission = Submission("a.ipynb", "a", "", cells, (), True)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        dask = DaskCluster(Path(place), stack)
        scheduler = dask.last.pid
        preload = Path(place) / "sleep.py"
        preload.write_text(SLEEP.format(seconds=seconds))
        for _ in range(workers):
            dask.add_worker("--preload", str(preload))
        cluster = stack.enter_context(
            closing(Cluster(day, workers, "none", dask.place, lambda error: None))
        )
        run = ClassRun(day, b"bench", cluster)
        cluster.isolation()
        class_ = (FoundSubmission(submission, Path("a.ipynb")) for _ in range(count))
        before, own, wall = _cpu(scheduler), time.process_time(), time.perf_counter()
        early = 0.0
        for number, _ in enumerate(run.grade(class_)):
            early = _memory() if number == count // 10 else early
        wall = time.perf_counter() - wall
        costs = (_cpu(scheduler) - before) / count, (time.process_time() - own) / count
        return wall, *costs, _memory() - early


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def _memory() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def scaling(day: Day, tasks: int, console: Console) -> bool:
    """Measure the efficiency of 1 to 8 workers that sleep, and the overhead of grading many submissions without sleeping."""
    ok = True
    for workers in (1, 2, 4, 8):
        count = 40 * workers
        wall, *_ = simulated(day, workers, count, SECONDS)
        efficiency = SECONDS * count / workers / wall
        passed = efficiency >= 0.95
        console.print(
            f"{'✓' if passed else '✗'} efficiency of {workers} workers: {efficiency:.3f} (minimum 0.95)"
        )
        ok = ok and passed
    wall, scheduler, client, growth = simulated(day, 2, tasks, 0.0)
    passed = scheduler < 0.002 and growth <= 50
    console.print(
        f"{'✓' if passed else '✗'} {tasks} submissions in {wall:.0f} s: per submission, the scheduler uses "
        f"{scheduler * 1000:.2f} ms of CPU time (limit 2) and the client {client * 1000:.2f} ms; "
        f"the client's memory grows by {growth:.0f} MB (limit 50)"
    )
    return ok and passed


def bench(console: Console, count: int = 200, kills: int = 20, tasks: int = 10_000) -> bool:
    """Run all measurements, and return whether all limits are met."""
    day = courses.load(ROOT).day("day1")
    results = [scaling(day, tasks, console), same_marks(day, count, console)]
    return all([*results, killed(day, min(count, 100), kills, console)])


def main() -> int:
    """Run the measurements and print the results. Return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="number of submissions")
    parser.add_argument("--kills", type=int, default=20, help="number of killed workers")
    parser.add_argument("--tasks", type=int, default=10_000, help="number of simulated submissions")
    parser.add_argument("--only", choices=["marks", "kills", "scaling"], help="one measurement")
    arguments = parser.parse_args()
    console, day = plain_console(), courses.load(ROOT).day("day1")
    match arguments.only:
        case "marks":
            ok = same_marks(day, arguments.count, console)
        case "kills":
            ok = killed(day, arguments.count, arguments.kills, console)
        case "scaling":
            ok = scaling(day, arguments.tasks, console)
        case _:
            ok = bench(console, arguments.count, arguments.kills, arguments.tasks)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
