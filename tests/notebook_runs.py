"""Run a day's notebook with some exercises left empty, and print the failures: `python -m tests.notebook_runs DAY CASE…`.

A case is a list of exercises separated by commas. Each case runs in its own process, which is forked just before the cell of
its first exercise, so earlier cells run only once. `--quick` skips demonstrations that train a model.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import sys
import types
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import matplotlib
import torch
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.release.build import with_short_training
from autograder.release.notebook import solution_notebook
from autograder.sandbox.clock import cpu_count
from tests.conftest import ROOT

STEPS = 2  # per training loop


def run_cell(cell: NotebookNode, source: str) -> str:
    """Run a cell's code in the main module and return what it prints. Make its source available to tracebacks and `inspect`."""
    file = f"<{cell.id}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        exec(compile(source, file, "exec", dont_inherit=True), vars(sys.modules["__main__"]))
    return printed.getvalue()


def run_rest(cells: Sequence[NotebookNode], stubs: dict[str, str]) -> list[str]:
    """Run cells, replacing exercises with `stubs`. Return all failures except those in checks that report an empty
    exercise."""
    problems = []
    for cell in cells:
        try:
            printed = run_cell(cell, stubs.get(cell.id, cell.source))
        except Exception as error:
            name = cell.id.removeprefix("check_")
            if not (name in stubs and isinstance(error, NotImplementedError)):
                problems.append(f"{cell.id}: {type(error).__name__}: {error}")
        else:
            if "This demonstration needs" in printed:
                problems.append(f"{cell.id}: {printed}")
    return problems


class ForkedRun:
    """A forked process that runs the rest of a notebook's cells, with some exercises replaced by their stubs."""

    def __init__(self, cells: Sequence[NotebookNode], stubs: dict[str, str]) -> None:
        read, write = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            with open(write, "w", encoding="utf-8") as pipe:
                json.dump(run_rest(cells, stubs), pipe)
            os._exit(0)
        os.close(write)
        self._pipe = read

    def problems(self) -> list[str]:
        """Wait until the run ends, and return its failures."""
        with open(self._pipe, encoding="utf-8") as pipe:
            problems: list[str] = json.load(pipe)
        os.waitpid(self._process, 0)
        return problems


def run_cases(name: str, cases: Sequence[Collection[str]], quick: bool) -> dict[str, list[str]]:
    """Run all cases, as many at once as there are cores, and return each case's failures."""
    day = courses.load(ROOT).day(name)
    every = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in every if cell.role == "exercise"}
    cells = [c for c in solution_notebook(day).cells if c.cell_type == "code"]
    for cell in cells:
        cell.source = with_short_training(cell.source, STEPS)
    cells = [cell for cell in cells if not cell.id.startswith("install")]
    cells = _without_training(cells) if quick else cells
    sys.modules["__main__"] = types.ModuleType("__main__")
    results: dict[str, list[str]] = {}
    running: deque[tuple[str, ForkedRun]] = deque()
    started = 0
    for number, cell in enumerate(cells):
        for case in cases:
            if cell.id == next(name for name in day.names if name in case):
                if len(running) == cpu_count():
                    done, run = running.popleft()
                    results[done] = run.problems()
                run = ForkedRun(cells[number:], {n: stubs[n] for n in case})
                running.append((",".join(case), run))
                started += 1
        if started == len(cases):
            break
        run_cell(cell, cell.source)
    return results | {case: run.problems() for case, run in running}


def _without_training(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Leave out demonstrations that train a model, and demonstrations that use their results."""
    kept: list[NotebookNode] = []
    missing: set[str] = set()
    for cell in cells:
        nodes = [*ast.walk(ast.parse(cell.source))]
        names = [node for node in nodes if isinstance(node, ast.Name)]
        uses = "train" in cell.source or any(name.id in missing for name in names)
        if "with demonstration()" in cell.source and uses:
            missing |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
            missing |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        else:
            kept.append(cell)
            missing -= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return kept


if __name__ == "__main__":
    matplotlib.use("Agg")
    # OpenMP's threads do not survive a fork, so a forked process would wait for them forever.
    torch.set_num_threads(1)
    torch.set_num_threads = lambda nthreads: None
    quick = "--quick" in sys.argv
    name, *cases = (argument for argument in sys.argv[1:] if argument != "--quick")
    results: Any = run_cases(name, [case.split(",") for case in cases], quick)
    sys.stdout.write(json.dumps(results))
