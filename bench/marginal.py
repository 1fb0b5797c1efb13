"""Measure how long each additional correct submission takes with plain nbgrader, Otter and this autograder.

python -m bench.marginal day1
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.release.notebook import solution_notebook
from bench import others
from bench.compared import ROOT, grade_here
from bench.others import Cost
from bench.thousand import fill_caches

FEW, MANY = 10, 60  # numbers of correct submissions for the other tools and for ours


def compare(day: Day, console: Console) -> None:
    """Print the wall time that each additional correct submission takes in each of the three tools, with one process.

    The other tools grade fewer submissions, because their time per submission is constant.
    """
    fill_caches(day)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = others.nbgrader_source(solution_notebook(day), day)
        one, few, many = (_correct(source, day, Path(folder), n) for n in (1, 1 + FEW, 1 + MANY))

        def difference(
            grade: Callable[[Mapping[str, Path], str], Cost], more: Mapping[str, Path]
        ) -> float:
            first, last = grade(one, "one"), grade(more, "more")
            return (last.wall - first.wall) / (len(more) - 1)

        def nbgrader(paths: Mapping[str, Path], name: str) -> Cost:
            return others.nbgrader(day, Path(folder) / f"nbgrader-{name}", source, paths)[0]

        def otter(paths: Mapping[str, Path], name: str) -> Cost:
            return others.otter(day, Path(folder) / f"otter-{name}", paths)[0]

        def ours(paths: Mapping[str, Path], name: str) -> Cost:
            return grade_here(day, Path(folder), paths)[0]

        seconds["plain nbgrader"] = difference(nbgrader, few)
        try:
            seconds["otter run"] = difference(otter, few)
        except OSError as error:
            console.print(str(error))
        own = difference(ours, many)
    listed = ", ".join(f"{name} {s:.2f} s ({s / own:.1f} times)" for name, s in seconds.items())
    console.print(
        f"Each additional correct submission takes {own:.2f} s with `autograder grade --jobs 1` "
        f"({MANY} submissions); with other tools ({FEW} submissions): {listed}"
    )


def _correct(source: NotebookNode, day: Day, folder: Path, count: int) -> dict[str, Path]:
    """Write correct submissions. As in a real class, no two of them contain identical answers."""
    paths = {}
    for number in range(count):
        copy: NotebookNode = nbformat.from_dict(source)
        for cell in copy.cells:
            if cell.id in day.names:
                cell.source += f"\n# {number}"
        paths[f"student-{number}"] = folder / f"student-{number}-of-{count}.ipynb"
        paths[f"student-{number}"].write_bytes(nbformat.writes(copy).encode())
    return paths


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(prog="python -m bench.marginal", description=__doc__)
    parser.add_argument("day", nargs="?", default="day1")
    compare(courses.load(ROOT).day(parser.parse_args().day), plain_console())


if __name__ == "__main__":
    main()
