"""Compare the cost of grading in two checkouts: the time for one notebook, and the CPU time per additional submission.

    python -m bench.side_by_side OTHER [DAY ...]

All submissions are correct. Both checkouts grade the additional submissions at the same time and take turns grading one
notebook, so a temporary slowdown of the machine affects both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.release.notebook import solution_notebook
from bench.processes import counter

ROOT = Path(__file__).parents[1]
COUNT = 20
ROUNDS = 5
STARTS = 9


def write_class(day: Day, folder: Path, count: int) -> None:
    """Write `count` submissions with correct answers. As in a real class, no two submissions share an answer cell."""
    solution = {cell.id: cell.source for cell in solution_notebook(day).cells}
    notebook = nbformat.read(
        day.root / "assignments" / day.name / f"{day.name}.ipynb", as_version=4
    )
    folder.mkdir()
    for number in range(count):
        for cell in notebook.cells:
            if cell.id in day.names:
                cell.source = f"{solution[cell.id]}\n# {number}"
        nbformat.write(notebook, folder / f"student{number:02}.ipynb")


def grade(checkout: Path, day: str, class_: Path, *options: str | Path) -> float:
    """Grade a class with the `autograder` command from a checkout, and return the CPU time of all its processes."""
    python = checkout / ".venv" / "bin" / "python"
    # Older checkouts lack `__main__.py`. Newer ones start the fork server earlier with `python -m autograder`.
    has_main = (checkout / "autograder" / "__main__.py").exists()
    start = ["-m", "autograder"] if has_main else ["-c", "from autograder.cli import main; main()"]
    command = [python, *start, "grade", day, class_, "--no-store", *options]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
        seconds = counter(process.pid, stack)
        if process.wait():
            sys.exit(f"{checkout} failed to grade the class")
        return seconds()


def processor_seconds(checkout: Path, day: str, class_: Path) -> float:
    """Grade a class with `--jobs 1`, and return the CPU time of all processes."""
    marks = class_.with_name(f"{class_.name}-{checkout.name}.json")
    return grade(checkout, day, class_, "--jobs", "1", "--json", marks)


def costs(checkouts: Sequence[Path], day: Day) -> Iterator[list[float]]:
    """Yield, for each round, the CPU seconds per additional submission in both checkouts."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(len(checkouts)) as pool:
        classes = [Path(place) / "one", Path(place) / "many"]
        for class_, count in zip(classes, (1, 1 + COUNT), strict=True):
            write_class(day, class_, count)
        for _ in range(ROUNDS):
            one, many = (
                pool.map(partial(processor_seconds, day=day.name, class_=class_), checkouts)
                for class_ in classes
            )
            yield [(last - first) / COUNT for first, last in zip(one, many, strict=True)]


def start_up(checkouts: Sequence[Path], day: Day) -> list[list[float]]:
    """Return each checkout's wall times for grading one notebook. Runs alternate between the checkouts."""
    seconds: list[list[float]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as place:
        write_class(day, Path(place) / "one", 1)
        for run in range(1 + STARTS):
            for checkout, times in zip(checkouts, seconds, strict=True):
                before = time.perf_counter()
                grade(checkout, day.name, Path(place) / "one")
                if run:  # the first run fills the caches
                    times.append(time.perf_counter() - before)
    return seconds


def compare(other: Path, day: Day) -> Iterator[str]:
    """Yield a line with the time for one notebook, and a line with the CPU time per additional submission."""
    checkouts = [other.resolve(), ROOT]
    there, here = start_up(checkouts, day)
    yield (
        f"{day.name}: one notebook takes {statistics.median(there):.2f} s in the other checkout and "
        f"{statistics.median(here):.2f} s here ({min(here):.2f} to {max(here):.2f}; medians of {STARTS} runs)"
    )
    rounds = list(costs(checkouts, day))
    before, own = (statistics.median(column) * 1000 for column in zip(*rounds, strict=True))
    ratios = [here / there for there, here in rounds]
    yield (
        f"{day.name}: each additional submission takes {before:.0f} ms of CPU time in the other checkout and {own:.0f} ms here, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds)"
    )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    parser.add_argument(
        "other", type=Path, help="path of another checkout in which `make setup` was run"
    )
    parser.add_argument("days", nargs="*", metavar="DAY")
    arguments = parser.parse_args()
    course = courses.load(ROOT)
    for name in arguments.days or course.days:
        for line in compare(arguments.other, course.day(name)):
            print(line)


if __name__ == "__main__":
    main()
