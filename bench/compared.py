"""Grade twenty submissions with plain nbgrader, Otter and this autograder. Compare time, memory and marks.

python -m bench.compared day1
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.marks.model import ExerciseMarks, SubmissionMarks, decode
from autograder.release.notebook import solution_notebook
from autograder.slicing.statements import parse_units
from autograder.submissions.cell_reader import read_cells
from bench import others
from bench.others import SECONDS, Cost, Mark, run
from bench.simulated import damage, known_mistakes, replace_cells
from bench.thousand import fill_caches

ROOT = Path(__file__).parents[1]
STUDENTS = 20
PATCH = "import torch\n\ntorch.Tensor.all = lambda self, *_, **__: torch.tensor(True)"
STATUS = {"timed_out": "timed out", "crashed": "crashed", "error": "could not be run"}


def compare(day: Day, console: Console, students: Sequence[str] = ()) -> None:
    """Grade a class with all three tools, and print a table of costs and a table of differences.

    If `students` is not empty, grade only those students.
    """
    fill_caches(day)
    with tempfile.TemporaryDirectory() as folder:
        course, other = Path(folder) / "nbgrader", Path(folder) / "otter"
        source = others.nbgrader_source(solution_notebook(day), day)
        paths = {}
        for student, work in make_class(day, source).items():
            if not students or student in students:
                path = Path(folder) / f"{student}.ipynb"
                path.write_bytes(work if isinstance(work, bytes) else _bytes(work))
                paths[student] = path
        results = {"plain nbgrader": others.nbgrader(day, course, source, paths)}
        try:
            results["otter run"] = others.otter(day, other, paths)
        except OSError as error:
            console.print(str(error))
        cost, ours = grade_here(day, Path(folder), paths)
    console.print(_costs(len(paths), {n: c for n, (c, _) in results.items()}, cost))
    console.print(_differences({n: m for n, (_, m) in results.items()}, ours))


def make_class(day: Day, source: NotebookNode, seed: int = 0) -> dict[str, NotebookNode | bytes]:
    """Return twenty submissions, keyed by student name. Each name describes what is special about the submission."""
    draw, mistakes = random.Random(seed), known_mistakes(day)
    by_id = {cell.id: cell.source for cell in source.cells}
    stubs = {c.name: c.stub for p in day.chapters for c in p.cells if c.role == "exercise"}
    first, middle, last = day.names[0], day.names[len(day.names) // 2], day.names[-1]
    hidden = re.sub(rf"\b{first}\b", f"_{first}", by_id[first], count=1)
    call = f"def {first}(*args, **kwargs):\n    return _{first}(*args, **kwargs)"

    def wrong(count: int) -> dict[str, str]:
        return {name: draw.choice(mistakes[name]) for name in draw.sample(day.names, count)}

    made: dict[str, NotebookNode | bytes] = {
        "right": source,
        **{
            f"right-{style.stem}": _apply_style(source, style, day)
            for style in sorted((ROOT / "tests" / "styles" / day.name).glob("*.py"))
        },
        "empty": replace_cells(source, stubs),
        "half-done": replace_cells(source, dict(list(stubs.items())[len(stubs) // 2 :])),
        "helper-below": _add_cell(replace_cells(source, {first: call}), hidden),
        "name-used-again": _add_cell(source, f"{middle} = 0.5\nprint({middle})"),
        "hangs": replace_cells(
            source, {last: f"def {last}(*args, **kwargs):\n    while True: pass"}
        ),
        "exits": replace_cells(
            source, {first: f"import os\ndef {first}(*_, **__):\n    os._exit(0)"}
        ),
        "mangled": damage(source, draw),
        "cut": _bytes(source)[:20_000],
        "check-copied": _duplicate_cell(source, f"check_{middle}"),
        "tests-patched": _add_cell(replace_cells(source, wrong(6)), PATCH, 1),
    }
    for count in range(STUDENTS - len(made) - 1):
        made[f"wrong-{count + 1}"] = replace_cells(source, wrong(count + 1))
    made["wrong-all"] = replace_cells(source, wrong(len(day.names)))
    return made


def _bytes(notebook: NotebookNode) -> bytes:
    text: str = nbformat.writes(notebook)
    return text.encode()


def _add_cell(notebook: NotebookNode, source: str, place: int | None = None) -> NotebookNode:
    """Return a copy of the notebook with an additional cell, by default at the end."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    place = len(copy.cells) if place is None else place
    copy.cells.insert(place, nbformat.v4.new_code_cell(source, id="added"))
    return copy


def _duplicate_cell(notebook: NotebookNode, id_: str) -> NotebookNode:
    """Return a copy of the notebook in which a cell is duplicated along with its metadata, as editors do."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    place = next(n for n, cell in enumerate(copy.cells) if cell.id == id_)
    copy.cells.insert(place, nbformat.from_dict({**copy.cells[place], "id": "copied"}))
    return copy


def _apply_style(notebook: NotebookNode, style: Path, day: Day) -> NotebookNode:
    """Fill in exercise cells with answers from a script. The script's other code cells are added to the preceding answer."""
    sources, name = dict.fromkeys(day.names, "# See another cell."), day.names[0]
    for cell in read_cells(style.read_bytes(), style.name)[0]:
        if cell.kind == "code":
            bound = {bound for unit in parse_units([cell])[0] for bound in unit.binds}
            name = next((exercise for exercise in day.names if exercise in bound), name)
            sources[name] += f"\n\n{cell.source}"
    return replace_cells(notebook, sources)


# ---- this autograder


def grade_here(
    day: Day, folder: Path, paths: Mapping[str, Path]
) -> tuple[Cost, dict[str, SubmissionMarks]]:
    """Grade each file with `autograder grade` in one process, writing the marks to `folder`."""
    command: list[str | Path] = [
        Path(sys.executable).parent / "autograder",
        "grade",
        day.name,
        "--no-store",
    ]
    marks = folder / "marks.json"
    marks.unlink(missing_ok=True)
    # The command runs in ROOT, where the outputs of the known mistakes have already been recorded.
    command += ["--jobs", "1", "--json", marks, *paths.values()]
    ended = run(command, ROOT)
    if not marks.exists():
        raise SystemExit(f"autograder grade failed:\n{ended.output[-2000:]}")
    found = {Path(m.path): m for m in decode(marks.read_bytes(), day.name).submissions}
    return ended.cost, {student: found[path] for student, path in paths.items()}


# ---- tables


def _costs(count: int, other: Mapping[str, Cost], ours: Cost) -> Table:
    table = Table(
        f"{count} submissions, without demonstrations",
        "wall, s",
        "CPU, s",
        "memory, MB",
        "relative to ours",
        caption="CPU time and memory include all child processes. Memory is the peak of their "
        f"proportional set sizes, sampled every 0.2 s. nbgrader stops a cell after {SECONDS} s; "
        f"`otter run` has no limit and was stopped after {SECONDS} s.",
    )
    for name, cost in {**other, "autograder grade --jobs 1": ours}.items():
        numbers = (cost.wall, cost.processor, cost.memory / 1e6)
        times = zip(numbers, (ours.wall, ours.processor, ours.memory / 1e6), strict=True)
        table.add_row(
            name, *(f"{n:.1f}" for n in numbers), "  ".join(f"{n / o:.1f}" for n, o in times)
        )
    return table


def _differences(
    other: Mapping[str, Mapping[str, Mark]], ours: Mapping[str, SubmissionMarks]
) -> Table:
    table = Table("submission", *other, "ours", "reason", show_lines=True)
    same = 0
    for student, own in ours.items():
        marks = {tool: given[student] for tool, given in other.items()}
        reasons = list(_reasons(marks, own))
        same += not reasons
        if reasons:
            totals = (_total(mark) for mark in marks.values())
            text = "\n".join(reasons)
            table.add_row(student, *totals, f"{own.points:g}" if own.exercises else "none", text)
    table.caption = f"{same} of {len(ours)} submissions get the same marks for every exercise from all three tools."
    return table


def _total(mark: Mark) -> str:
    return "none" if mark.points is None else f"{sum(mark.points.values()):.4g}"


def _reasons(marks: Mapping[str, Mark], ours: SubmissionMarks) -> Iterator[str]:
    """Yield the reasons why the tools' marks differ, each with the affected tools and exercises."""
    found: dict[str, dict[str, list[str]]] = {}
    for tool, mark in marks.items():
        if mark.points is None:
            if ours.exercises:
                yield f"{tool}: {mark.reason}"
            continue
        if not ours.exercises:
            yield f"ours: {'; '.join(ours.problems)}"
        for exercise in ours.exercises:
            given = mark.points.get(exercise.name, 0.0)
            if abs(given - exercise.points) > 0.005:
                reason = _reason(exercise, given, mark.messages.get(exercise.name, ""))
                change = f"{exercise.name} ({given:g} instead of {exercise.points:g})"
                found.setdefault(reason, {}).setdefault(tool, []).append(change)
    for reason, where in found.items():
        tools: dict[str, list[str]] = {}
        for tool, changes in where.items():
            tools.setdefault(_listed(changes), []).append(tool)
        for change, names in tools.items():
            yield f"{' and '.join(names)}: {change}: {reason}"


def _listed(changes: Sequence[str]) -> str:
    more = [f"{len(changes) - 3} more"] if len(changes) > 4 else []
    return ", ".join([*changes[: 3 if more else 4], *more])


def _reason(ours: ExerciseMarks, given: float, message: str) -> str:
    """Return the reason why another tool gave different points for an exercise. `message` is that tool's own message."""
    own = ours.message.split("\n")[0]
    if given < ours.points:
        if ours.reference_for:
            return "we graded it with reference solutions of earlier exercises, so that a mistake costs points only once"
        return f"the exercise's tests failed in the other tool: {re.sub(r'^StudentError: `.*?`:? (raised )?', '', message)}"
    if ours.status == "not_allowed":
        return f"the other tool does not check for forbidden functions: {own}"
    if ours.status in STATUS:
        return f"in our grader, the exercise {STATUS[ours.status]}: {own}"
    if not ours.points and any(test.passed for test in ours.tests):
        return "we give no points for passing only those tests that trivial answers also pass"
    return f"tests that failed in our grader passed in the student's own process, where the other tool runs them: {own}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.compared", description=__doc__)
    parser.add_argument("day", nargs="?", default="day1")
    parser.add_argument("students", nargs="*", help="default: all")
    arguments = parser.parse_args()
    compare(courses.load(ROOT).day(arguments.day), plain_console(), arguments.students)


if __name__ == "__main__":
    main()
