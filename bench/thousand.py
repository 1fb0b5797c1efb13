"""Grade a thousand submissions on one machine, and compare the cost with that of running only the graders.

The cost per submission must remain constant.

python -m bench.thousand --count 200
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading.grader import Grader
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import start_server
from autograder.submissions.cell_reader import read_cells
from autograder.submissions.submission import Submission
from bench.alone import processor_seconds
from bench.course_copy import ROOT, link_caches, link_course
from bench.killed_runs import kill_at_random
from bench.processes import counter, tree
from bench.simulated import Work, hostile_works, known_mistakes, styles, works
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS

BLOCKS = 4  # number of blocks; all contain the same submissions, so the last should cost as much as the first
ALONE = 20  # correct submissions used to measure the cost of running only the hidden graders
WARM_UP = 20  # submissions
INTERVAL = 0.5  # seconds between two samples


@dataclass(frozen=True)
class Sample:
    """A snapshot of a run.

    `done` is the number of stored submissions, `cpu` the CPU seconds used so far, and `memory` the trusted processes'
    memory in bytes. `yardstick` is the CPU time of a small fixed computation, in seconds.
    """

    done: int
    cpu: float
    memory: int
    yardstick: float


@dataclass
class Measurement:
    """Measurements taken while a class was graded. Blocks of honest submissions come first, then hostile submissions."""

    honest: int
    block_size: int
    graders_alone: float  # CPU seconds to run only the hidden graders on one correct submission
    samples: list[Sample] = field(default_factory=list)
    marks: list[SubmissionMarks] = field(default_factory=list)
    exit_code: int = 0
    errors: str = ""
    side_effects: list[str] = field(default_factory=list)

    def sample_at(self, done: int) -> Sample:
        """Return the first sample taken after `done` submissions had been graded."""
        return next((s for s in self.samples if s.done >= done), self.samples[-1])

    @property
    def start(self) -> float:
        """Return the CPU seconds used before the first submission was graded."""
        return max(sample.cpu for sample in self.samples if sample.done == 0)

    @property
    def cost_ratio(self) -> float:
        """Return the CPU time of the honest submissions divided by the CPU time for running only the hidden graders."""
        cpu = self.sample_at(self.honest).cpu - self.start
        return cpu / (self.graders_alone * self.honest)

    @property
    def last_block_ratio(self) -> float:
        """Return the CPU time of the last block of submissions divided by that of the first block."""
        first = self.sample_at(self.block_size).cpu - self.start
        before_last = self.sample_at(self.honest - self.block_size)
        return (self.sample_at(self.honest).cpu - before_last.cpu) / first

    @property
    def machine_ratio(self) -> float:
        """Return the mean CPU time of `yardstick` in the last block of submissions divided by that in the first block."""
        last = self._yardstick(self.honest - self.block_size, self.honest)
        return last / self._yardstick(0, self.block_size)

    def _yardstick(self, before: int, until: int) -> float:
        return statistics.mean(s.yardstick for s in self.samples if before <= s.done <= until)

    @property
    def memory_growth(self) -> float:
        """Return the growth in the trusted processes' memory, in MB, after the first tenth of the class was graded.

        At least the first `WARM_UP` submissions are excluded, because the processes load known mistakes only when needed.
        """
        start = max((self.honest + 9) // 10, WARM_UP)
        later = [sample.memory for sample in self.samples if sample.done >= start]
        return (max(later) - later[0]) / 1e6


def measure(
    day: Day,
    count: int,
    jobs: int,
    folder: Path,
    blocks: int = BLOCKS,
    alone: int = ALONE,
    wrong: Collection[str] | None = None,
) -> Measurement:
    """Write a class to a copy of the course in `folder`, and grade the class while sampling the processes.

    `alone` is the number of correct submissions used to measure the cost of running only the hidden graders. Wrong submissions
    have mistakes in the exercises in `wrong`, by default in any exercise.
    """
    fill_caches(day, wrong)
    link_course(folder)
    link_caches(folder)
    with Outside("CANARY-of-the-bench") as outside:
        hostile = _attacks(outside)
        honest, block_size = _write_class(day, count, hostile, folder, blocks, wrong)
        own = courses.load(folder).day(day.name)
        right = sorted((folder / "class").glob("*-right.*"))[:alone]
        result = Measurement(honest, block_size, processor_seconds(own, right, jobs))
        command = [sys.executable, "-m", "autograder", "grade", day.name]
        command += ["class", "hostile", "--jobs", str(jobs)]
        with open(folder / "errors", "wb") as errors:
            run = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOGRADER_SECRET": "bench"},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            _watch(run, folder / ".autograder" / "marks.db", result.samples)
        result.side_effects = outside.seen()
    result.exit_code = run.returncode
    result.errors = (folder / "errors").read_text(encoding="utf-8")
    with History(folder) as history:
        result.marks = history.current(day.name)
    return result


def _attacks(outside: Outside) -> list[str]:
    prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text(encoding="utf-8")
    return [f"{prelude}\n{attack.source}" for attack in ATTACKS if attack.family != "cheat"]


def _write_class(
    day: Day,
    count: int,
    cells: Sequence[str],
    folder: Path,
    blocks: int,
    wrong: Collection[str] | None,
) -> tuple[int, int]:
    """Write honest and hostile submissions to two folders. Return the number of honest submissions in total and per block."""
    hostile = hostile_works(day, max(3, count // 40), cells)
    honest = count - len(hostile)
    block = works(day, honest // blocks, wrong=wrong)
    class_ = [*(block[n % len(block)] for n in range(honest)), *hostile]
    for name in ("class", "hostile"):
        (folder / name).mkdir()
    for number, work in enumerate(class_):
        kind = "class" if number < honest else "hostile"
        file = folder / kind / f"{number:04}-{work.kind}{work.ending}"
        file.write_bytes(work.data(number))
    return honest, len(block)


def fill_caches(day: Day, wrong: Collection[str] | None = None) -> None:
    """Fill the caches that a course fills only once, so that the cost of filling them is not attributed to a class.

    First, record the outputs of the known mistakes in the exercises in `wrong` (by default, in all exercises). Then grade a
    submission with these mistakes. This records which tests an exercise passes merely by forwarding its arguments to a
    reference solution.
    """
    wrong = day.names if wrong is None else wrong
    mistakes = [own[0] for name, own in known_mistakes(day).items() if name in wrong]
    work = Work("wrong", [*styles(day)[0], *mistakes])
    cells, problems = read_cells(work.data(0), "wrong.ipynb")
    with start_server() as server:
        grader = Grader(day, server, b"bench")
        for exercise in day.exercises:
            if exercise.name in wrong:
                grader.exercises.recognizer.signatures(exercise)
        grader.grade(Submission("wrong.ipynb", "wrong", "", cells, problems, True))


# ---- watching


def _watch(run: subprocess.Popen[bytes], store: Path, samples: list[Sample]) -> None:
    """Take samples until the run ends."""
    with contextlib.ExitStack() as stack:
        cpu = counter(run.pid, stack)
        while run.poll() is None:
            with contextlib.suppress(OSError):  # a process exited in the meantime
                trusted = [pid for pid in tree(run.pid) if not _is_walled(pid)]
                memory = sum(map(_memory, trusted))
                samples.append(Sample(stored_count(store), cpu(), memory, yardstick()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(INTERVAL)
        samples.append(Sample(stored_count(store), cpu(), samples[-1].memory, yardstick()))


def yardstick() -> float:
    """Return the CPU seconds that a small fixed computation takes, as a measure of the machine's current speed."""
    x, before = torch.ones(6, 6), time.process_time()
    for _ in range(1500):
        x = (x @ x).softmax(dim=-1)
    return time.process_time() - before


def stored_count(store: Path) -> int:
    """Return the number of grading results in a store, or 0 if the store does not exist yet."""
    with (
        contextlib.suppress(sqlite3.Error),
        sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db,
    ):
        found: tuple[int] = db.execute("SELECT count(*) FROM grading").fetchone()
        return found[0]
    return 0


def _is_walled(pid: int) -> bool:
    return b"autograder.sandbox.server" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


# ---- the benchmark


def report(result: Measurement, count: int, console: Console) -> bool:
    """Print each measured value with its limit in parentheses, and return whether all values are within their limits."""
    wrong = right_without_full_points(result.marks)
    last, machine = result.last_block_ratio, result.machine_ratio
    checks = [
        (
            result.cost_ratio <= 3.5,
            f"CPU time: {result.cost_ratio:.2f} times that of the graders alone (limit 3.5)",
        ),
        (
            last / machine <= 1.1,
            f"last block: {last / machine:.2f} times the CPU time of the first (limit 1.1), corrected from "
            f"{last:.2f} because the machine was then {machine:.2f} times as slow",
        ),
        (
            result.memory_growth <= 50,
            f"memory growth after the first tenth: {result.memory_growth:.0f} MB (limit 50)",
        ),
        (
            len(result.marks) == count,
            f"submissions with current marks: {len(result.marks)} (expected {count})",
        ),
        (not wrong, f"correct answers without full points: {wrong or 'none'} (expected none)"),
        (
            not result.side_effects,
            f"side effects of hostile submissions: {result.side_effects or 'none'} (expected none)",
        ),
    ]
    for passed, text in checks:
        console.print(f"{'✓' if passed else '✗'} {text}")
    return all(passed for passed, _ in checks)


def right_without_full_points(marks: Sequence[SubmissionMarks]) -> list[str]:
    """Return the names of correct submissions that did not get full points."""
    return [m.student for m in marks if m.student.endswith("-right") and m.earned < m.max_points]


def bench(console: Console, count: int = 1000, jobs: int = 2, kills: int = 20) -> bool:
    """Measure the grading of a Day 1 class, then kill and resume runs for a small class. Return whether all limits are met."""
    day = courses.load(ROOT).day("day1")
    with tempfile.TemporaryDirectory() as folder:
        ok = report(measure(day, count, jobs, Path(folder)), count, console)
    with tempfile.TemporaryDirectory() as folder:
        kill_at_random(Path(folder), kills, random.Random(0))
    console.print(
        f"✓ a run that was killed {kills} times gave the same marks as an uninterrupted run"
    )
    return ok


def main() -> int:
    """Run the benchmark and print the results. Return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.thousand", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="number of submissions")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--kills", type=int, default=20, help="number of times a run is killed")
    arguments = parser.parse_args()
    return 0 if bench(plain_console(), arguments.count, arguments.jobs, arguments.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
