"""A large class on one machine: what it costs beside the graders alone, whether that stays so, and whether memory does."""

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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.state_folder import course_folder
from autograder.grading.grader import Grader, start_server
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from bench.alone import processor_seconds
from bench.processes import counter, tree
from bench.simulated import hostile_works, works
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS
from tests.test_history import killed_at_random

ROOT = Path(__file__).parents[1]
PARTS = ("autograder", "solutions", "graders", "mistakes", "grading.toml")
BLOCKS = 4  # of a class, each of the same works, so that the last should cost what the first did
RIGHT = 20  # right submissions that tell what the graders alone take
SECONDS = 0.5  # between two looks at the processes


@dataclass(frozen=True)
class Look:
    """How many were done at a moment, the processor seconds until then, the bytes of the trusted processes, and a yard."""

    done: int
    cpu: float
    memory: int
    yard: float


@dataclass
class Measured:
    """What a run over a class took."""

    honest: int
    block: int  # submissions after which the same works come again
    alone: float  # processor seconds of the graders alone, a right submission
    looks: list[Look] = field(default_factory=list)
    marks: list[SubmissionMarks] = field(default_factory=list)
    code: int = 0
    errors: str = ""
    harm: list[str] = field(default_factory=list)

    def at(self, done: int) -> Look:
        """The first look after so many were done."""
        return next((look for look in self.looks if look.done >= done), self.looks[-1])

    @property
    def start(self) -> float:
        """Processor seconds before the first submission was done."""
        return max(look.cpu for look in self.looks if look.done == 0)

    @property
    def times(self) -> float:
        """Processor time beside the graders' own, of the submissions that end by themselves."""
        return (self.at(self.honest).cpu - self.start) / (self.alone * self.honest)

    @property
    def last_beside_first(self) -> float:
        """What the last block of them took beside the first."""
        first = self.at(self.block).cpu - self.start
        return (self.at(self.honest).cpu - self.at(self.honest - self.block).cpu) / first

    @property
    def pace(self) -> float:
        """What a yard took during the last block beside the first: a machine has its slow minutes."""
        return self._yard(self.honest - self.block, self.honest) / self._yard(0, self.block)

    def _yard(self, before: int, until: int) -> float:
        return statistics.mean(look.yard for look in self.looks if before <= look.done <= until)

    @property
    def grown(self) -> float:
        """By how many megabytes the trusted processes grew after the first tenth."""
        early = self.at((self.honest + 9) // 10).memory
        return (max(look.memory for look in self.looks if look.done) - early) / 1e6


def measure(day: Day, count: int, jobs: int, folder: Path, blocks: int = BLOCKS) -> Measured:
    """Make a class and grade it in a course of its own, in `folder`; watch the processes meanwhile."""
    for part in PARTS:
        (folder / part).symlink_to(ROOT / part)
    for file in course_folder(ROOT).glob("mistakes-*.pt"):  # what is learnt already
        (course_folder(folder) / file.name).symlink_to(file)
    with Outside("CANARY-of-the-bench") as outside:
        hostile = _attacks(outside)
        honest, block = _write_class(day, count, hostile, folder, blocks)
        own = courses.load(folder).day(day.name)
        learn(own)
        right = sorted((folder / "class").glob("*-right.*"))[:RIGHT]
        result = Measured(honest, block, processor_seconds(own, right, jobs))
        command = [sys.executable, "-m", "autograder.cli", "grade", day.name]
        command += ["class", "hostile", "--jobs", str(jobs)]
        with open(folder / "errors", "wb") as errors:
            run = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOGRADER_SECRET": "bench"},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            _watch(run, folder / ".autograder" / "marks.db", result.looks)
        result.harm = outside.seen()
    result.code = run.returncode
    result.errors = (folder / "errors").read_text(encoding="utf-8")
    with History(folder) as history:
        result.marks = history.current(day.name)
    return result


def _attacks(outside: Outside) -> list[str]:
    prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text(encoding="utf-8")
    return [f"{prelude}\n{attack.source}" for attack in ATTACKS if attack.family != "cheat"]


def _write_class(
    day: Day, count: int, cells: Sequence[str], folder: Path, blocks: int
) -> tuple[int, int]:
    """The class in two folders, the hostile apart from the rest; how many the rest are, and a block of them."""
    hostile = hostile_works(day, max(3, count // 40), cells)
    honest = count - len(hostile)
    block = works(day, honest // blocks)
    class_ = [*(block[n % len(block)] for n in range(honest)), *hostile]
    for name in ("class", "hostile"):
        (folder / name).mkdir()
    for number, work in enumerate(class_):
        kind = "class" if number < honest else "hostile"
        file = folder / kind / f"{number:04}-{work.kind}{work.ending}"
        file.write_bytes(work.data(number))
    return honest, len(block)


def learn(day: Day) -> None:
    """Learn what is learnt once a course."""
    with start_server() as server:
        grader = Grader(day, server, b"bench")
        for exercise in day.exercises:
            grader.recognizer.signatures(exercise)


# ---- watching


def _watch(run: subprocess.Popen[bytes], store: Path, looks: list[Look]) -> None:
    """A look at the run every so often, until it ends."""
    with contextlib.ExitStack() as stack:
        cpu = counter(run.pid, stack)
        while run.poll() is None:
            with contextlib.suppress(OSError):  # a process ended between two readings
                trusted = [pid for pid in tree(run.pid) if not _is_of_the_wall(pid)]
                memory = sum(map(_memory, trusted))
                looks.append(Look(_done(store), cpu(), memory, yardstick()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(SECONDS)
        looks.append(Look(_done(store), cpu(), looks[-1].memory, yardstick()))


def yardstick() -> float:
    """Processor seconds of small work that is always the same: how fast the machine is at this moment."""
    x, before = torch.ones(6, 6), time.process_time()
    for _ in range(1500):
        x = (x @ x).softmax(dim=-1)
    return time.process_time() - before


def _done(store: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db,
    ):
        found: tuple[int] = db.execute("SELECT count(*) FROM grading").fetchone()
        return found[0]
    return 0


def _is_of_the_wall(pid: int) -> bool:
    return b"autograder.sandbox.server" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


# ---- the bench


def report(result: Measured, count: int, console: Console) -> bool:
    """Print what was measured, each with its bound; whether all are within."""
    wrong, last, pace = not_right(result.marks), result.last_beside_first, result.pace
    claims = [
        (result.times <= 2.5, f"{result.times:.2f} times the graders' own processor time (2.5)"),
        (
            last / pace <= 1.1,
            f"the last block took {last / pace:.2f} times the first (1.1): {last:.2f}, while the "
            f"machine itself took {pace:.2f} times as long",
        ),
        (result.grown <= 50, f"memory grew by {result.grown:.0f} MB after the first tenth (50)"),
        (len(result.marks) == count, f"{len(result.marks)} of {count} have current marks (all)"),
        (not wrong, f"right answers without all points: {wrong or 'none'} (none)"),
        (not result.harm, f"what the hostile left outside: {result.harm or 'nothing'} (nothing)"),
    ]
    for holds, text in claims:
        console.print(f"{'✓' if holds else '✗'} {text}")
    return all(holds for holds, _ in claims)


def not_right(marks: Sequence[SubmissionMarks]) -> list[str]:
    """The right answers that did not get all points."""
    return [m.student for m in marks if m.student.endswith("-right") and m.points < m.max_points]


def bench(console: Console, count: int = 1000, jobs: int = 2, kills: int = 20) -> bool:
    """Measure a class of Day 1, kill runs of a small one, and print what was found; whether all bounds hold."""
    day = courses.load(ROOT).day("day1")
    with tempfile.TemporaryDirectory() as folder:
        ok = report(measure(day, count, jobs, Path(folder)), count, console)
    with tempfile.TemporaryDirectory() as folder:
        killed_at_random(Path(folder), kills, random.Random(0))
    console.print(f"✓ killed {kills} times and continued: the marks of an undisturbed run")
    return ok


def main() -> int:
    """Measure and print; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.thousand", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    return 0 if bench(Console(), arguments.count, arguments.jobs, arguments.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
