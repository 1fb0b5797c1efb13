"""Grade a simulated class with `autograder grade`, in a copy of the course. Entry points: `Run` and `course_with_class`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from bench.course_copy import ROOT, link_caches, link_course
from bench.processes import tree
from bench.simulated import works
from bench.thousand import fill_caches, stored_count
from tests.grading_runs import without_times


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
        return [replace(without_times(m), path=Path(m.path).name) for m in current]


def _is_worker(pid: int) -> bool:
    return b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()


@contextlib.contextmanager
def course_with_class(day: Day, count: int) -> Iterator[Path]:
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
