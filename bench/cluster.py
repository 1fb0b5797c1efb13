"""Grade a class on a Dask cluster, and compare marks and CPU time with those of the process pool.

The benchmark also kills processes and simulates many workers.

python -m bench.cluster --count 200 --kills 20
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.class_run import ClassRun
from autograder.grading.cluster.executor import Cluster
from autograder.marks.model import SubmissionMarks
from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission
from bench.cluster_runs import Run, course_with_class
from bench.course_copy import ROOT
from bench.killed_clusters import killed
from bench.processes import counter
from bench.thousand import stored_count
from tests.dask_cluster import DaskCluster

SECONDS = 0.8  # the time that a worker sleeps for each simulated submission
# A worker with this code sleeps instead of grading.
SLEEP = """
import time
import autograder.grading.cluster.worker as worker
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks

def sleep(submission, seed, is_alone):
    time.sleep({seconds})
    tests = [TestMarks(f"test_{{n}}", 1.0, 1.0, True, "") for n in range(6)]
    exercises = [ExerciseMarks(f"exercise_{{n}}", 5.0, 5.0, "passed", "", None, [], 0.1, tests) for n in range(20)]
    return SubmissionMarks("a.ipynb", "a", "", seed, "", ["limits"], 100.0, 100.0, 0.8, [], exercises)

class Asleep:
    grade_or_log = staticmethod(sleep)

    class server:
        isolation = ["limits"]
        close = staticmethod(lambda: None)

worker._make_grader = lambda course: Asleep
"""


def measured(folder: Path, count: int, *options: str) -> tuple[Run, float]:
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
    """Grade a class on local clusters and process pools of 2 and 4 workers, and compare marks and CPU time."""
    expected: list[SubmissionMarks] = []
    ok = True
    for workers in (2, 4):
        costs = []
        for place in ([], ["--cluster", "local"]):
            with course_with_class(day, count) as folder:
                run, cost = measured(folder, count, *place, "--jobs", str(workers))
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


def simulated(
    day: Day, workers: int, count: int, seconds: float
) -> tuple[float, float, float, float]:
    """Grade submissions on workers that only sleep.

    Returns:
        - the wall time in seconds,
        - the scheduler's CPU seconds per submission,
        - the client's CPU seconds per submission,
        - the growth in the client's memory, in MB, after the first tenth of the class has been graded.
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
        class_ = (submission for _ in range(count))
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
    """Measure the efficiency of 1 to 8 workers with tasks that only sleep, and the overhead of many no-op tasks."""
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
