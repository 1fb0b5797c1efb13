"""Build variants of this course, release them in formgrader, and grade the solutions. `make variants` runs this test.

Each variant is a copy of the committed course with one edit to grading.toml. It is built with one command, released by
clicking formgrader's button in a real browser, opened in JupyterLab, filled in, graded and exported. With a FOLDER
argument, screenshots are saved there.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, sync_playwright

from autograder.course import config as courses
from autograder.release.notebook import solution_notebook
from tests.browser.check import browser_and_folder
from tests.browser.formgrader import MATHJAX, SECONDS, jupyter
from tests.conftest import ROOT

GIVEN = ("softmax", "padding_mask", "shift_matrix", "LayerNorm", "sequence_loss")
OPTIONAL = ("Transformer", "masked_attention", "LayerNorm")  # the other weights sum to 77
TEMPLATE = ROOT / "autograder" / "course" / "template"


def with_lines(toml: str, table: str, lines: str) -> str:
    """Insert lines into grading.toml, directly below the header of a table."""
    assert toml.count(f"[{table}]\n") == 1, table
    return toml.replace(f"[{table}]\n", f"[{table}]\n{lines}\n")


def with_each(toml: str, names: Sequence[str], line: str) -> str:
    """Insert a line into grading.toml, below the table header of each of these Day 1 exercises."""
    for name in names:
        toml = with_lines(toml, f"day1.exercises.{name}", line)
    return toml


def with_third_day(toml: str) -> str:
    """Append day1 from the new-course template, renamed to day3, to grading.toml."""
    template = (TEMPLATE / "grading.toml").read_text(encoding="utf-8")
    return toml + "\n" + template[template.index("[day1]") :].replace("[day1", "[day3")


# Each variant's name, day, number of exercises and total, and its edit to grading.toml.
VARIANTS: dict[str, tuple[str, int, float, Callable[[str], str]]] = {
    "core": ("day1", 15, 100, lambda toml: with_lines(toml, "day1", 'include = "core"')),
    "given": ("day1", 15, 100, lambda toml: with_each(toml, GIVEN, "given = true")),
    "77 points": ("day1", 20, 77, lambda toml: with_lines(toml, "day1", "total_points = 77")),
    "weights of 77": ("day1", 20, 100, lambda toml: with_each(toml, OPTIONAL, "optional = true")),
    "third day": ("day3", 2, 100, with_third_day),
    "core of Day 2": ("day2", 11, 100, lambda toml: with_lines(toml, "day2", 'include = "core"')),
}


class Failure(Exception):
    """Raised when a variant does not behave as expected."""


def expect(condition: object, problem: str) -> None:
    if not condition:
        raise Failure(problem)


def copy_course(folder: Path, day: str, edit: Callable[[str], str]) -> None:
    """Copy the committed files, apply the edit, and add the template's chapter as `day` if the course has no day of that name."""
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    file = folder / courses.GRADING_TOML
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
    for part in ("solutions", "graders", "mistakes"):
        if not (folder / part / day).exists():
            shutil.copytree(TEMPLATE / part / "day1", folder / part / day)


def autograder(folder: Path, *arguments: str) -> str:
    """Run an `autograder` command of this checkout in a course, and return its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "autograder", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    expect(done.returncode == 0, f"autograder {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout


@contextlib.contextmanager
def exchange(folder: Path) -> Iterator[Path]:
    """Create an empty exchange folder, configure nbgrader to use it, and yield it."""
    place, settings = folder / "exchange", folder / "jupyter"
    place.mkdir()
    place.chmod(0o777)
    settings.mkdir()
    (settings / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.Exchange.root = {str(place)!r}\n"
    )
    before = os.environ.get("JUPYTER_CONFIG_DIR")
    os.environ["JUPYTER_CONFIG_DIR"] = str(settings)
    try:
        yield place
    finally:
        os.environ.pop("JUPYTER_CONFIG_DIR")
        if before is not None:
            os.environ["JUPYTER_CONFIG_DIR"] = before


def release(folder: Path, day: str, browser: Browser, shot: Callable[[Page, str], None]) -> None:
    """Click formgrader's release button, and open the released notebook in JupyterLab."""
    with exchange(folder) as place, jupyter(folder, "server") as url:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(SECONDS * 1000)
        page.route(re.compile(r"https://"), lambda route: route.fulfill(body=MATHJAX))
        page.goto(f"{url}/formgrader/manage_assignments")
        row = page.locator("tr", has=page.locator("td", has_text=re.compile(f"^{day}$")))
        row.locator(".release a").click()
        page.get_by_text(re.compile("Successfully released")).wait_for()
        shot(page, "released")
        released = list(place.glob(f"*/outbound/{day}/{day}.ipynb"))
        expect(released, "nothing was released to the exchange")
        page.goto(f"{url}/lab/tree/assignments/{day}/{day}.ipynb?reset")
        page.locator(".jp-MarkdownOutput h1").first.wait_for()
        shot(page, "in JupyterLab")
        page.close()


def fill_in(folder: Path, day: str) -> None:
    """Hand in the released notebook with all stubs replaced by the solutions."""
    loaded = courses.load(folder).day(day)
    solutions = {cell.id: cell.source for cell in solution_notebook(loaded).cells}
    notebook = nbformat.read(folder / "assignments" / day / f"{day}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = solutions[cell.id]
    (folder / "in").mkdir()
    nbformat.write(notebook, folder / "in" / "ada.ipynb")


def contradictions(folder: Path, day: str, count: int, total: float) -> list[str]:
    """Find statements like “5 exercises, 20 points” in a day's texts that contradict the configuration."""
    notebook = nbformat.read(folder / "assignments" / day / f"{day}.ipynb", as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts.append((folder / "assignments" / day / "README.md").read_text(encoding="utf-8"))
    stated = re.findall(r"(\d+) exercises[^.\n]*?([\d.]+) points", "\n".join(texts))
    return [str(pair) for pair in stated if (int(pair[0]), float(pair[1])) != (count, total)]


def check(name: str, folder: Path, browser: Browser, shots: Path | None) -> None:
    """Check one variant: edit, build and release the course, fill in the notebook, grade it and export the marks.

    Raises:
        Failure: Something did not behave as expected.
    """
    day, count, total, edit = VARIANTS[name]

    def shot(page: Page, moment: str) -> None:
        if shots:
            page.screenshot(path=shots / f"{name} {moment}.png")

    copy_course(folder, day, edit)
    autograder(folder, "build", day)
    release(folder, day, browser, shot)
    fill_in(folder, day)
    autograder(folder, "grade", day, "in", "--json", "marks.json")
    (marks,) = json.loads((folder / "marks.json").read_bytes())["submissions"]
    earned = marks["points"], marks["max_points"], len(marks["exercises"])
    expect(earned == (total, total, count), f"points, total and exercises are {earned}")
    wrong = contradictions(folder, day, count, total)
    expect(not wrong, f"texts that contradict the configuration: {wrong}")
    autograder(folder, "export", day, "--to", "csv", "--out", "marks.csv")
    (row,) = csv.DictReader((folder / "marks.csv").read_text(encoding="utf-8-sig").splitlines())
    numbers = [float(value) for value in row.values() if re.fullmatch(r"[\d.]+", value)]
    expect(total in numbers, f"the export contains {row}")


def main(arguments: Sequence[str]) -> int:
    """Check all variants. Return 1 if any variant fails."""
    program, shots = browser_and_folder(arguments)
    failed = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name in VARIANTS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    check(name, Path(folder), browser, shots)
                except Failure as failure:
                    failed = True
                    print(f"✗ {name}: {failure}", flush=True)
                else:
                    print(f"✓ {name}: built, released, graded and exported", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
