"""Run all cells of both days in JupyterLab and Notebook 7, in a real browser. `make run-all` runs this check.

Both days are run as released, as the solution, and with a random mix of right, wrong and empty exercises. Every cell must
run, only the checks of wrong and empty exercises may report anything, and the course's own content must pass axe's
accessibility checks. Training is cut to a few steps. With a FOLDER argument, screenshots are saved there.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from axe_playwright_python.sync_playwright import Axe
from nbformat import NotebookNode
from playwright.sync_api import Page, sync_playwright

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.release.build import with_short_training
from autograder.release.notebook import solution_notebook
from bench.simulated import known_mistakes, replace_cells
from tests.browser.check import browser_and_folder
from tests.browser.formgrader import SECONDS, jupyter
from tests.browser.notebooks import OPTIONS
from tests.conftest import ROOT

STEPS = 4  # per training loop
MIXED = 5
FRONT_ENDS = {"lab": "/lab/tree/", "notebook": "/notebooks/"}
OWN = ".jp-RenderedHTMLCommon, .jp-RenderedHTML, .jp-RenderedImage"  # what the course writes
HAS_APP = "window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')"
# The command ends at the first check that reports something, although later cells still run. The kernel answers requests in
# order, so it answers the last one when it has run everything.
RUN = """async () => {
    const app = window.jupyterapp
    await app.restored
    const context = app.shell.currentWidget.sessionContext
    await context.ready
    await app.commands.execute("notebook:run-all-cells")
    await context.session.kernel.requestKernelInfo()
    await app.commands.execute("docmanager:save")
    await context.shutdown()
}"""


def variants(day: Day) -> Iterator[tuple[str, NotebookNode, set[str]]]:
    """Yield a name for each notebook, the notebook, and the exercises whose checks should report something."""
    place = ROOT / "assignments" / day.name / f"{day.name}.ipynb"
    release, solution = nbformat.read(place, as_version=4), solution_notebook(day)
    yield "release", release, set(day.names)
    yield "solution", solution, set()
    right = {cell.id: cell.source for cell in solution.cells if cell.id in day.names}
    wrong = known_mistakes(day)
    for number in range(MIXED):
        draw = random.Random(number)
        kinds = {name: draw.choice(["right", "wrong", "empty"]) for name in day.names}
        answers = {n: right[n] for n, kind in kinds.items() if kind == "right"}
        answers |= {n: draw.choice(wrong[n]) for n, kind in kinds.items() if kind == "wrong"}
        yield (
            f"mixed{number}",
            replace_cells(release, answers),
            {*day.names} - {name for name, kind in kinds.items() if kind == "right"},
        )


def shortened(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of the notebook that trains for a few steps only."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.source = with_short_training(cell.source, STEPS)
    return copy


def axe(page: Page) -> list[str]:
    result = Axe().run(page, context=OWN, options=OPTIONS)
    return [result.generate_report()] if result.violations_count else []


def problems_of(file: Path, reporting: set[str]) -> list[str]:
    """Return what a notebook that was run and saved should not contain. Only checks of `reporting` may report anything."""
    problems = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None and cell.source.strip():
            problems.append(f"{cell.id} did not run")
        errors = [output for output in cell.outputs if output.output_type == "error"]
        may_report = cell.id.removeprefix("check_") in reporting and cell.id.startswith("check_")
        problems += [f"{cell.id}: {e.ename}: {e.evalue}" for e in errors if not may_report]
    return problems


def run(page: Page, url: str, file: Path, reporting: set[str], shot: Path | None) -> list[str]:
    """Open a notebook, run all its cells, save it, and return the problems found."""
    page.goto(url, wait_until="load")
    page.wait_for_function(HAS_APP)
    page.wait_for_selector(".jp-Notebook .jp-Cell", state="attached")
    problems = axe(page)
    page.evaluate(RUN)
    if shot:
        page.screenshot(path=shot)
    return problems + problems_of(file, reporting)


def main(arguments: Sequence[str]) -> int:
    """Run all notebooks. Return 1 if any of them has a problem."""
    program, shots = browser_and_folder(arguments)
    found = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for front_end, path in FRONT_ENDS.items():
            with jupyter(Path(folder), front_end, "--expose-app-in-browser") as url:
                for day in courses.load(ROOT).days.values():
                    for name, notebook, reporting in variants(day):
                        file = Path(folder) / f"{front_end}-{day.name}-{name}.ipynb"
                        nbformat.write(shortened(notebook), file)
                        page = browser.new_page(viewport={"width": 1200, "height": 900})
                        page.set_default_timeout(SECONDS * 1000)
                        shot = shots / f"{file.stem}.png" if shots else None
                        problems = run(page, f"{url}{path}{file.name}?reset", file, reporting, shot)
                        page.close()
                        found += len(problems)
                        print(f"{file.stem}: {len(problems)} problems", *problems, sep="\n  ")
        browser.close()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
