"""Run a day's demonstrations, save the figures and print the measurements: `python -m bench.demonstrations DAY`.

Each chapter runs in a separate process, forked from one that has already imported torch and matplotlib.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import sys
import time
import traceback
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autograder.course import config as courses
from autograder.course.chapters import Chapter
from autograder.course.config import CourseError, Day
from autograder.course.files import FileError, make_folder
from autograder.plain_text import counted
from autograder.release.build import with_short_training
from autograder.sandbox.clock import cpu_count

DEFAULT_OPENING = "autograder.in_notebook.opening"
# Creating a process's first optimizer imports torch._dynamo.
PRELOADED = ["torch", "torch._dynamo", "matplotlib.pyplot"]


@dataclass(frozen=True)
class ChapterRun:
    """One run of a chapter's demonstrations: measurements by name, figure files, and CPU and wall time in seconds."""

    chapter: str
    numbers: dict[str, float]
    pictures: list[str]
    cpu_seconds: float
    elapsed: float


def demonstrate(day: Day, folder: Path, steps: int | None) -> Iterator[ChapterRun]:
    """Run a day's chapters in parallel and yield each run. If `steps` is given, each training loop runs for that many steps.

    Raises:
        CourseError: A demonstration raised an exception.
        FileError: The folder or a file cannot be written.
    """
    make_folder(folder, parents=True)
    # Let idle OpenMP threads sleep, because other chapters run at the same time. Disable downloads.
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", MPLBACKEND="Agg")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    run = partial(_run, root=day.root.resolve(), folder=folder.resolve(), steps=steps)
    with ProcessPoolExecutor(cpu_count(), context, max_tasks_per_child=1) as pool:
        try:
            yield from pool.map(run, day.chapters)
        except BrokenExecutor:
            raise CourseError(
                f"{day.name}: a demonstration's process was killed; the machine may be low on memory"
            ) from None
        except OSError as error:
            raise FileError(
                f"{error.filename or folder} cannot be written: {error.strerror}"
            ) from None


def table(runs: Iterable[ChapterRun]) -> Table:
    """Return a table with one row per measurement, plus one row per chapter that shows how long the chapter took."""
    result = Table("chapter", "measured", "", box=None, pad_edge=False, header_style="bold")
    for run in runs:
        for name, value in run.numbers.items():
            result.add_row(run.chapter, name, f"{value:.4g}")
        time_taken = f"{run.elapsed:.0f} s ({run.cpu_seconds:.0f} s of CPU time)"
        result.add_row(run.chapter, counted(len(run.pictures), "picture"), time_taken)
    return result


def _run(chapter: Chapter, root: Path, folder: Path, steps: int | None) -> ChapterRun:
    """Run a chapter in this process and redirect its printed output to a file."""
    import matplotlib.pyplot as plt

    from autograder.in_notebook import look

    started, cpu = time.monotonic(), time.process_time()
    sys.path.insert(0, str(root))
    own = (root / "solutions" / "opening.py").is_file()
    opening = importlib.import_module("solutions.opening" if own else DEFAULT_OPENING)
    pictures: list[str] = []

    def show(*_: object, **__: object) -> None:
        for number in plt.get_fignums():
            pictures.append(f"{chapter.name}-{len(pictures) + 1:02}.png")
            plt.figure(number).savefig(folder / pictures[-1], dpi=110, bbox_inches="tight")
        plt.close("all")

    def save_page(page: Any) -> None:
        pictures.append(f"{chapter.name}-{len(pictures) + 1:02}.html")
        (folder / pictures[-1]).write_text(page._repr_html_(), encoding="utf-8")

    plt.show = show
    vars(look)["display"] = save_page
    source = chapter.path.read_text(encoding="utf-8")
    if steps is not None:
        source = with_short_training(source, steps)
    module = types.ModuleType("__main__")
    module.__file__ = str(chapter.path)
    sys.modules["__main__"] = module
    with (
        contextlib.chdir(folder),
        (folder / f"{chapter.name}.txt").open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        try:
            exec(compile(source, str(chapter.path), "exec"), module.__dict__)
        except Exception:
            raise CourseError(
                f"{chapter.path}: a demonstration failed:\n{traceback.format_exc()[-2000:]}"
            ) from None
    _keep_final_lines(folder / f"{chapter.name}.txt")
    numbers = getattr(opening, "MEASURED", {})
    used, elapsed = time.process_time() - cpu, time.monotonic() - started
    return ChapterRun(chapter.name, numbers, pictures, used, elapsed)


def _keep_final_lines(file: Path) -> None:
    """Remove what a terminal would have overwritten, such as earlier states of a progress bar."""
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines))


def main() -> None:
    """Run the demonstrations of one day."""
    parser = argparse.ArgumentParser(prog="python -m bench.demonstrations", description=__doc__)
    parser.add_argument("day", metavar="DAY")
    parser.add_argument("--out", type=Path, help="output folder (default: demo/DAY in the course)")
    parser.add_argument("--steps", type=int, help="limit each training loop to this many steps")
    options = parser.parse_args()
    day = courses.load(courses.find_root(Path.cwd())).day(options.day)
    folder = options.out or day.root / "demo" / day.name
    Console().print(table(list(demonstrate(day, folder, options.steps))))
    print(f"figures and output were saved to {folder}")


if __name__ == "__main__":
    main()
