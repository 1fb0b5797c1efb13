"""Simulate a room of students who save while `autograder live` follows them, and compare its states with `autograder grade`.

    python -m bench.live_room [MINUTES [STUDENTS]]

Each student fills in one exercise after the other, first with a known mistake, then correctly.
"""

from __future__ import annotations

import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.live import timeline
from autograder.live.room import Event, progress
from autograder.marks import model
from autograder.release.notebook import solution_notebook
from bench.course_copy import link_caches, link_course
from bench.simulated import known_mistakes, replace_cells

PAUSES = (20.0, 120.0)  # seconds between two saves of a student
CORES = 2
QUIET = 15.0  # seconds without an event after which the board has caught up
PATIENCE = 120.0  # seconds in which the board must catch up at the end
States = dict[str, list[str]]


@dataclass(frozen=True)
class Result:
    """What the board needed, and the states of all students according to the board and to `grade`."""

    delays: Sequence[float]  # seconds from a save to the event
    cpu: float  # share of `CORES`
    memory: float  # bytes, at most
    board: States
    graded: States

    def __str__(self) -> str:
        late = sorted(self.delays)[int(0.95 * len(self.delays))]
        same = "equal" if self.board == self.graded else "DIFFERENT"
        return (
            f"{len(self.delays)} saves; delay: median {statistics.median(self.delays):.1f} s, 95 % {late:.1f} s; "
            f"CPU {self.cpu:.0%} of {CORES} cores; memory {self.memory / 1e6:.0f} MB; states: {same}"
        )


def versions(day: Day, wrong: Mapping[str, Sequence[str]], draw: random.Random) -> Iterator[bytes]:
    """Yield the versions of a student's notebook, from the first mistake to the whole solution."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in cells if cell.role == "exercise" and cell.name}
    solution = solution_notebook(day)
    for name in day.names:
        for mistake in draw.sample([*wrong[name]], min(draw.randrange(3), len(wrong[name]))):
            yield nbformat.writes(replace_cells(solution, {**stubs, name: mistake})).encode()
        del stubs[name]
        yield nbformat.writes(replace_cells(solution, stubs)).encode()


def simulate(
    day: Day,
    homes: Path,
    command: Sequence[str],
    wrong: Mapping[str, Sequence[str]],
    students: int,
    seconds: float,
    pauses: tuple[float, float],
    patience: float,
) -> Result:
    """Run a board and the students for so many seconds, and then `grade`. `command` starts the autograder."""
    draw = random.Random(0)
    work = {f"student{n:02}": versions(day, wrong, random.Random(n)) for n in range(students)}
    due = {student: draw.uniform(0, pauses[1] / 2) for student in work}
    saved: dict[str, list[float]] = {student: [] for student in work}
    pattern = f"{homes}/*/{day.name}/{day.name}.ipynb"
    board = subprocess.Popen(
        [*command, "live", day.name, pattern, "--port", "8932"], cwd=day.root,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert board.stdout
    board.stdout.readline()  # the address
    tree = _Tree(board.pid)
    start = time.monotonic()
    events: list[Event] = []
    while (now := time.monotonic() - start) < seconds + patience:
        is_late = math.inf in _delays(saved, events)
        if now > seconds and not is_late and time.time() > events[-1].time + QUIET:
            break
        for student, at in due.items():
            if at <= now < seconds and (data := next(work[student], b"")):
                file = homes / student / day.name / f"{day.name}.ipynb"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                saved[student].append(time.time())
                due[student] = now + draw.uniform(*pauses)
        tree.measure()
        time.sleep(0.5)
        events = [*timeline.read(timeline.timeline_file(day.root, day.name))]
    cpu = tree.cpu / now / CORES
    board.terminate()
    board.wait(60)
    states: States = {}
    for event in events:
        of_student = states.setdefault(event.student, ["not_begun"] * len(day.names))
        for name, one in event.changes.items():
            of_student[day.names.index(name)] = one.state
    return Result(
        _delays(saved, events), cpu, tree.most,
        states, _graded(day, homes, command),
    )  # fmt: skip


def _delays(saved: Mapping[str, Sequence[float]], events: Sequence[Event]) -> list[float]:
    """Return how many seconds after each save the board showed it, or infinity for those that it has not shown."""
    seen: dict[str, list[float]] = {}
    for event in events:
        seen.setdefault(event.student.removeprefix("folder "), []).append(event.time)
    return [
        min((time - at for time in seen.get(student, ()) if time >= at), default=math.inf)
        for student, times in saved.items()
        for at in times
    ]


def _graded(day: Day, homes: Path, command: Sequence[str]) -> States:
    """Return the states that follow from the marks of `autograder grade`."""
    marks = homes.parent / "marks.json"
    files = sorted(map(str, homes.glob(f"*/{day.name}/{day.name}.ipynb")))
    subprocess.run(
        [*command, "grade", day.name, *files, "--no-store", "--json", str(marks)],
        cwd=day.root, check=True, capture_output=True,
    )  # fmt: skip
    class_ = model.decode(marks.read_bytes(), day.name).submissions
    return {one.origin.keys[0]: [p.state for p in progress(one).values()] for one in class_}


class _Tree:
    """Measures a process and all that it starts."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[int, float] = {}
        self.most = 0.0

    @property
    def cpu(self) -> float:
        return sum(self._seconds.values())

    def measure(self) -> None:
        memory = 0.0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                times: Any = process.cpu_times()
                self._seconds[process.pid] = sum(times[:4])  # with those of children that ended
                memory += process.memory_full_info().pss
            except psutil.Error:
                continue
        self.most = max(self.most, memory)


def main(arguments: Sequence[str]) -> int:
    """Simulate Day 1 and print what the board needed. Return 1 if its states are wrong or late."""
    minutes = float(arguments[0]) if arguments else 30.0
    students = int(arguments[1]) if len(arguments) > 1 else 40
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "course").mkdir()
        link_course(folder / "course")
        link_caches(folder / "course")
        day = courses.load(folder / "course").day("day1")
        command = [sys.executable, "-m", "autograder"]
        result = simulate(
            day, folder / "homes", command, known_mistakes(day), students, minutes * 60,
            PAUSES, PATIENCE,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    print(result)
    return int(result.board != result.graded or result.cpu > 0.6)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
