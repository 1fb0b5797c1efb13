"""Compare the CPU time for grading a correct submission in this checkout and in another one.

    python -m bench.side_by_side OTHER [DAY ...]

Both checkouts grade the same submissions at the same time, so a temporary slowdown of the machine affects both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
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


def processor_seconds(checkout: Path, day: str, class_: Path) -> float:
    """Grade a class with the `autograder` command from a checkout, and return the CPU time of all its processes."""
    marks = class_.with_name(f"{class_.name}-{checkout.name}.json")
    python = checkout / ".venv" / "bin" / "python"
    command: list[str | Path] = [python, "-c", "from autograder.cli import main; main()"]
    command += ["grade", day, class_, "--no-store", "--jobs", "1", "--json", marks]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
        seconds = counter(process.pid, stack)
        if process.wait():
            sys.exit(f"{checkout} failed to grade the class")
        return seconds()


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


def main() -> None:
    """Print the CPU times in both checkouts, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    parser.add_argument("other", type=Path, help="another checkout, after make setup")
    parser.add_argument("days", nargs="*", metavar="DAY")
    arguments = parser.parse_args()
    course = courses.load(ROOT)
    for name in arguments.days or course.days:
        rounds = list(costs([arguments.other.resolve(), ROOT], course.day(name)))
        other, own = (statistics.median(column) * 1000 for column in zip(*rounds, strict=True))
        ratios = [here / there for there, here in rounds]
        print(
            f"{name}: {other:.0f} ms in the other checkout, {own:.0f} ms here, ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds)"
        )


if __name__ == "__main__":
    main()
