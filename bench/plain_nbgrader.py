"""The same ten submissions graded by us and by plain nbgrader, with the tests in the notebook."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

from autograder.course import Day
from autograder.notebook import solution_notebook
from bench.simulated import changed, known_mistakes

ROOT = Path(__file__).parents[1]
STUDENTS = 10
CONFIG = """c = get_config()
c.CourseDirectory.course_id = "plain"
c.ExecutePreprocessor.timeout = 60
"""


def compare(day: Day, console: Console) -> None:
    """Print both, with the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        paths = make_course(day, course)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        bin_ = Path(sys.executable).parent
        environment["PATH"] = f"{bin_}{os.pathsep}{environment['PATH']}"
        _run([str(bin_ / "nbgrader"), "generate_assignment", day.name], course, environment)
        plain = _run([str(bin_ / "nbgrader"), "autograde", day.name], course, environment)
        ours = _run(
            [
                str(bin_ / "autograder"),
                "grade",
                day.name,
                "--no-store",
                "--jobs",
                "1",
                *map(str, paths),
            ],
            ROOT,
            environment,
        )
    table = Table("ten submissions, without demonstrations", "wall, s", "processor, s")
    table.add_row("plain nbgrader, tests in the notebook", *(f"{t:.1f}" for t in plain))
    table.add_row("autograder grade --jobs 1", *(f"{t:.1f}" for t in ours))
    table.add_row("plain / ours", *(f"{p / o:.1f}" for p, o in zip(plain, ours, strict=True)))
    console.print(table)


def make_course(day: Day, course: Path) -> list[Path]:
    """A plain nbgrader course with the hidden tests in the notebook; what was handed in."""
    source = _without_demonstrations(solution_notebook(day))
    for cell in source.cells:
        if cell.id.startswith("check_"):
            exercise = cell.id.removeprefix("check_")
            call = f'from bench.in_notebook import points\npoints("{day.name}", "{exercise}")'
            cell.source = f"### BEGIN HIDDEN TESTS\n{call}\n### END HIDDEN TESTS"
    (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    _write(source, course / "source" / day.name / f"{day.name}.ipynb")
    draw, mistakes, paths = random.Random(0), known_mistakes(day), []
    for number in range(STUDENTS):
        names = draw.sample(day.names, number)
        work = changed(source, {name: draw.choice(mistakes[name]) for name in names})
        path = course / "submitted" / f"student{number}" / day.name / f"{day.name}.ipynb"
        _write(work, path)
        paths.append(path)
    return paths


def _without_demonstrations(notebook: NotebookNode) -> NotebookNode:
    copy = nbformat.from_dict(notebook)
    copy.cells = [
        c for c in copy.cells if "with demonstration():" not in c.source and c.id != "closing"
    ]
    return copy


def _write(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; its wall and processor seconds with those of its children."""
    time_command = [sys.executable, "-c", TIMED, *command]
    done = subprocess.run(time_command, cwd=folder, env=environment, capture_output=True, text=True)
    try:
        wall, cpu = done.stdout.strip().split("\n")[-1].split()
    except ValueError:
        raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}") from None
    return float(wall), float(cpu)


TIMED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)
"""
