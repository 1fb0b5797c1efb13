"""What a right submission costs in this checkout and in another one, in processor time.

    python -m bench.side_by_side OTHER [DAY ...]

Both grade the same submissions at the same time with their own command, so that a slow minute of the machine slows both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat

from autograder import course as courses
from autograder.course import Day
from autograder.notebook import solution_notebook

ROOT = Path(__file__).parents[1]
COUNT = 20
ROUNDS = 5


def write_class(day: Day, folder: Path, count: int) -> None:
    """Write so many releases with right answers; no two have an exercise's cell in common, as in a class."""
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


def processor_seconds(checkouts: list[Path], day: str, class_: Path) -> list[float]:
    """Grade a class in all checkouts at once; the processor time of each command and all its children."""
    running = {}
    for number, root in enumerate(checkouts):
        python = root / ".venv" / "bin" / "python"
        marks = class_.with_name(f"{class_.name}-{number}.json")
        command = [python, "-m", "autograder.cli", "grade", day, class_, "--no-store"]
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'cd "$0" && exec "$@" >/dev/null', root, *map(str, command), "--jobs", "1", "--json", marks],
            os.environ,
        )  # fmt: skip
        running[pid] = number
    seconds = [0.0] * len(checkouts)
    while running:
        pid, status, usage = os.wait3(0)
        if status:
            sys.exit(f"{checkouts[running[pid]]} could not grade the class")
        seconds[running.pop(pid)] = usage.ru_utime + usage.ru_stime
    return seconds


def main() -> None:
    """Print the processor time of both, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout whose .venv is set up")
    parser.add_argument("days", nargs="*", metavar="DAY")
    arguments = parser.parse_args()
    course = courses.load(ROOT)
    checkouts = [arguments.other.resolve(), ROOT]
    for name in arguments.days or course.days:
        folder = Path(tempfile.mkdtemp())
        write_class(course.day(name), folder / "one", 1)
        write_class(course.day(name), folder / "many", 1 + COUNT)
        costs: list[list[float]] = []
        for _ in range(ROUNDS):
            one = processor_seconds(checkouts, name, folder / "one")
            many = processor_seconds(checkouts, name, folder / "many")
            costs.append([(m - o) / COUNT for m, o in zip(many, one, strict=True)])
        shutil.rmtree(folder)
        other, own = (statistics.median(column) for column in zip(*costs, strict=True))
        ratios = [b / a for a, b in costs]
        print(
            f"{name}: {other * 1000:.0f} ms there, {own * 1000:.0f} ms here; "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds)"
        )


if __name__ == "__main__":
    main()
