"""Generate classes of simulated students from reference solutions, `tests/styles/` and known mistakes.

Entry points: `make_class` for twelve students, and `works` and `hostile_works` for any number.
"""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder.course.config import Day
from autograder.execution import catalogue
from autograder.release.notebook import solution_notebook
from autograder.submissions.cell_reader import read_cells
from bench.variants import VARIANTS, Variant

ROLES = ("given", "exercise")  # the roles of the chapter cells that a submission needs


def make_class(day: Day, folder: Path, seed: int = 0) -> list[Path]:
    """Write twelve submissions: correct, partly correct, wrong, empty, damaged, hanging and crashing."""
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
        "dana": replace_cells(solution, some(2)),
        "emil": replace_cells(solution, some(6)),
        "fatou": replace_cells(solution, some(len(day.names))),
        "goran": release,
        "hana": fill_half(release, solution, day),
        "ivo": damage(solution, draw),
        "jun": replace_cells(
            solution, {"causal_mask": "def causal_mask(n, device=None):\n    while True: pass"}
        ),
        "kaia": replace_cells(
            solution, {"softmax": "import os\ndef softmax(x, dim=-1):\n    os._exit(0)"}
        ),
        "lin": json.dumps(solution).encode()[:40_000],
    }
    return [_write(folder, student, work) for student, work in made.items()]


def _write(folder: Path, student: str, work: NotebookNode | bytes) -> Path:
    data = work if isinstance(work, bytes) else nbformat.writes(work).encode()
    if student == "bela":  # one student submits a zip
        path = folder / f"{student}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{student}/day1.ipynb", data)
        return path
    path = folder / f"{student}.ipynb"
    path.write_bytes(data)
    return path


def known_mistakes(day: Day) -> dict[str, list[str]]:
    """Return the source code of all known mistakes, grouped by exercise."""
    known = catalogue.known_mistakes(day)
    return {name: [mistake.source for mistake in own] for name, own in known.items()}


def replace_cells(notebook: NotebookNode, sources: Mapping[str, str]) -> NotebookNode:
    """Return a copy of the notebook with new source code in the cells with these IDs."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.source = sources.get(cell.id, cell.source)
    return copy


def fill_half(release: NotebookNode, solution: NotebookNode, day: Day) -> NotebookNode:
    """Return the release with the first half of the exercises filled in."""
    done = set(day.names[: len(day.names) // 2])
    solved = {cell.id: cell.source for cell in solution.cells if cell.id in done}
    return replace_cells(release, solved)


def damage(notebook: NotebookNode, draw: random.Random) -> NotebookNode:
    """Return a shuffled copy of the notebook without metadata, with duplicated cells and a cell that is not valid Python."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.metadata = {}
    copy.cells += [nbformat.from_dict(cell) for cell in copy.cells[5:9]]
    copy.cells.append(nbformat.v4.new_code_cell("def unfinished(:\n    pass"))
    draw.shuffle(copy.cells)
    for number, cell in enumerate(copy.cells):
        cell.id = f"cell-{number}"
    return copy


# ---- classes of any size

HANGING = {"causal_mask": "def causal_mask(n, device=None):\n    while True: pass"}
DYING = {"softmax": "import os\ndef softmax(x, dim=-1):\n    os._exit(0)"}


@dataclass(frozen=True)
class Work:
    """The code cells of one student's submission. `cut` is the length in characters to which a file is truncated."""

    kind: str
    cells: Sequence[str]
    ending: str = ".ipynb"
    cut: int | None = None

    def data(self, number: int) -> bytes:
        """Return the content of the submission's file. A comment with the student's number makes it unique."""
        cells = [f"# Student {number}", *self.cells]
        if self.ending == ".py":
            return "\n\n# %%\n".join(cells).encode()
        notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
        for place, cell in enumerate(notebook.cells):
            cell.id = f"cell-{place}"
        text: str = nbformat.writes(notebook)
        return text[: self.cut].encode()


def works(day: Day, count: int, seed: int = 0, wrong: Collection[str] | None = None) -> list[Work]:
    """Return distinct submissions, none of which hangs. Of every 19, 9 are correct, 7 are wrong, and 3 are unfinished or damaged.

    Correct submissions are the course's solution and the solutions in `tests/styles/`. Each is rewritten by every function in
    `variants.py`, and saved both as a notebook and as a script. Wrong submissions have known mistakes in the exercises in
    `wrong`, by default in any exercise.
    """
    draw = random.Random(seed)
    own = styles(day)
    ways = [(style, variant) for variant in VARIANTS for style in own]
    draw.shuffle(ways)
    mistakes = known_mistakes(day)
    if wrong is not None:
        mistakes = {name: mistakes[name] for name in wrong}
    return [
        _work(number, *ways[number % len(ways)], own[0], mistakes, draw) for number in range(count)
    ]


def hostile_works(day: Day, count: int, cells: Sequence[str]) -> list[Work]:
    """Return submissions that hang, kill their own process, or contain one of the given cells."""
    # A hanging submission takes 45 seconds, so it comes late in the list, and a small class does not include it.
    odd = [*DYING.values(), *cells[:2], *HANGING.values(), *cells[2:]]
    solution = styles(day)[0]
    return [Work("hostile", [*solution, odd[n % len(odd)]]) for n in range(count)]


def _work(
    number: int,
    style: list[str],
    variant: Variant,
    solution: list[str],
    mistakes: Mapping[str, list[str]],
    draw: random.Random,
) -> Work:
    place = number % 19
    ending = ".py" if number % 5 == 2 else ".ipynb"
    if place < 9:
        return Work("right", variant(style, draw), ending)
    if place < 16:
        known = sum(map(bool, mistakes.values()))
        most = min(6, known) if place < 14 else known
        names = draw.sample([name for name in mistakes if mistakes[name]], 1 + number % most)
        last = [draw.choice(mistakes[name]) for name in names]
        return Work("wrong", [*style, *last], ending)
    if place == 16:
        return Work("unfinished", solution[: draw.randrange(len(solution))], ending)
    if place == 17:
        broken = [*solution, "def unfinished(:\n    pass", *solution[3:6]]
        return Work("mangled", draw.sample(broken, len(broken)))
    return Work("mangled", solution, cut=draw.randrange(3_000, 20_000))


def styles(day: Day) -> list[list[str]]:
    """Return the code cells of the course's solution and of each solution in `tests/styles/`."""
    own = [c.source for chapter in day.chapters for c in chapter.cells if c.role in ROLES]
    # A day's notebook does not contain the imports between its chapters.
    solution = [re.sub(r"^from solutions\..*\n?", "", source, flags=re.MULTILINE) for source in own]
    files = sorted((day.root / "tests" / "styles" / day.name).glob("*.py"))
    cells = [read_cells(file.read_bytes(), file.name)[0] for file in files]
    return [solution, *([cell.source for cell in of if cell.kind == "code"] for of in cells)]
