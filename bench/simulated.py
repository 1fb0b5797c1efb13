"""A class of simulated students, from the course's own solutions, styles and known mistakes."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder import naming
from autograder.course import Day
from autograder.notebook import solution_notebook


def make_class(day: Day, folder: Path, seed: int = 0) -> list[Path]:
    """Write twelve submissions: right, partly right, wrong, empty, mangled, hanging."""
    draw = random.Random(seed)
    solution = solution_notebook(day)
    release = nbformat.read(day.root / "assignments" / day.name / f"{day.name}.ipynb", as_version=4)
    mistakes = known_mistakes(day)
    styles = sorted((day.root / "tests" / "styles" / day.name).glob("*.py"))
    folder.mkdir(parents=True, exist_ok=True)

    def some(count: int) -> dict[str, str]:
        names = draw.sample(day.names, count)
        return {name: draw.choice(mistakes[name]) for name in names}

    made: dict[str, NotebookNode | bytes] = {
        "ada": solution,
        "bela": jupytext.read(styles[0]),
        "chen": jupytext.read(styles[-1]),
        "dana": changed(solution, some(2)),
        "emil": changed(solution, some(6)),
        "fatou": changed(solution, some(len(day.names))),
        "goran": release,
        "hana": half_done(release, solution, day),
        "ivo": mangled(solution, draw),
        "jun": changed(
            solution, {"causal_mask": "def causal_mask(n, device=None):\n    while True: pass"}
        ),
        "kaia": changed(
            solution, {"softmax": "import os\ndef softmax(x, dim=-1):\n    os._exit(0)"}
        ),
        "lin": json.dumps(solution).encode()[:40_000],
    }
    return [_write(folder, student, work) for student, work in made.items()]


def _write(folder: Path, student: str, work: NotebookNode | bytes) -> Path:
    data = work if isinstance(work, bytes) else nbformat.writes(work).encode()
    if student == "bela":  # one student hands in a zip
        path = folder / f"{student}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{student}/day1.ipynb", data)
        return path
    path = folder / f"{student}.ipynb"
    path.write_bytes(data)
    return path


def known_mistakes(day: Day) -> dict[str, list[str]]:
    """The source of each known mistake, by exercise, with what it imports."""
    known = naming.known_mistakes(day)
    return {name: [mistake.source for mistake in own] for name, own in known.items()}


def changed(notebook: NotebookNode, sources: Mapping[str, str]) -> NotebookNode:
    """A copy in which the cells of these ids have another source."""
    return _mapped(notebook, lambda cell: sources.get(cell.id, cell.source))


def half_done(release: NotebookNode, solution: NotebookNode, day: Day) -> NotebookNode:
    """The release with the first half of the exercises filled in."""
    done = set(day.names[: len(day.names) // 2])
    solved = {cell.id: cell.source for cell in solution.cells if cell.id in done}
    return changed(release, solved)


def mangled(notebook: NotebookNode, draw: random.Random) -> NotebookNode:
    """Shuffled, without metadata, with copies, and with a cell that does not parse."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.metadata = {}
    copy.cells += [nbformat.from_dict(cell) for cell in copy.cells[5:9]]
    copy.cells.append(nbformat.v4.new_code_cell("def unfinished(:\n    pass"))
    draw.shuffle(copy.cells)
    for number, cell in enumerate(copy.cells):
        cell.id = f"cell-{number}"
    return copy


def _mapped(notebook: NotebookNode, source: Callable[[NotebookNode], str]) -> NotebookNode:
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.source = source(cell)
    return copy
