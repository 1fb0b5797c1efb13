"""A day's chapters → source notebook → nbgrader → `assignments/`. Refuses, naming the cell, what must not be released."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from autograder.course import state_folder
from autograder.course.chapters import BEGIN, END
from autograder.course.config import CourseError, Day
from autograder.grading.grader import Grader, start_server
from autograder.release.demonstrations import with_short_trainings
from autograder.release.notebook import solution_notebook
from autograder.submissions.cells import read_cells
from autograder.submissions.submission import Submission

TRIVIAL = 24  # a shorter line says too little to be a secret
MARKED = re.compile(rf"{BEGIN}\n(.*?){END}", re.DOTALL)
EXECUTION_SECONDS = 300
STEPS = 20  # of each training, where the notebook is only run to see that it does


def build(day: Day, solutions: bool = False) -> Iterator[Path]:
    """Make the release of a day, and with `solutions` the worked notebook; what was made.

    Raises:
        CourseError: what is wrong, with the cell.
    """
    notebook = solution_notebook(day)
    _check_given_names(notebook, day)
    source = day.root / "source" / day.name
    source.mkdir(parents=True, exist_ok=True)
    nbformat.validate(notebook)
    nbformat.write(notebook, source / f"{day.name}.ipynb")
    for name in ("README.md", "requirements.txt"):
        shutil.copyfile(day.root / "solutions" / day.name / name, source / name)
    _grades_to_full(notebook, day)
    _runs(notebook, day)
    release = _generate(day)
    _check_release(nbformat.read(release, as_version=4), notebook, day)
    yield release
    if solutions:
        yield _worked(notebook, day)


def _generate(day: Day) -> Path:
    """nbgrader's own `generate_assignment`."""
    command = [
        sys.executable,
        "-m",
        "nbgrader",
        "generate_assignment",
        day.name,
        "--force",
        "--create",
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=day.root, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    release = day.root / "assignments" / day.name / f"{day.name}.ipynb"
    if done.returncode or not release.is_file():
        raise CourseError(f"nbgrader generate_assignment {day.name} failed:\n{done.stderr[-2000:]}")
    return release


def _worked(notebook: NotebookNode, day: Day) -> Path:
    """The notebook with solutions and without markers, for after the deadline."""
    for cell in notebook.cells:
        cell.metadata.pop("nbgrader", None)
        cell.source = re.sub(
            r"^[ \t]*### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE
        )
        cell.source = re.sub(
            r"\n### BEGIN HIDDEN TESTS.*", "", cell.source, flags=re.DOTALL
        ).rstrip()
    file = day.root / "source" / f"{day.name}-solutions.ipynb"
    nbformat.write(notebook, file)
    return file


# ---- what is refused


def _check_given_names(notebook: NotebookNode, day: Day) -> None:
    """A given name is bound in one cell of the day only."""
    seen: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "nbgrader" in cell.metadata or not _is_given(cell.source):
            continue
        for node in ast.parse(cell.source).body:
            for name in _bound(node):
                if seen.setdefault(name, cell.id) != cell.id:
                    raise CourseError(
                        f"{day.name}, cell {cell.id}: {name!r} is given in cell {seen[name]} already"
                    )


def _is_given(source: str) -> bool:
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return all(isinstance(node, kinds) for node in ast.parse(source).body)


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        inside = [name for target in targets for name in ast.walk(target)]
        return [n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return []


def _check_release(release: NotebookNode, source: NotebookNode, day: Day) -> None:
    """Nothing of a solution, of a hidden grader or of a known mistake stands in the release."""
    stubs = "\n".join(cell.source for cell in release.cells)
    lines = {_squeezed(line): cell.id for cell in release.cells for line in cell.source.split("\n")}
    for cell in source.cells:
        for solution in MARKED.findall(cell.source):
            for line in filter(_is_secret, solution.split("\n")):
                if _squeezed(line) in lines:
                    raise CourseError(
                        f"{day.name}, cell {lines[_squeezed(line)]}: a line of {cell.id}'s solution "
                        f"stands in the release: {line.strip()}"
                    )
    if BEGIN in stubs or "BEGIN HIDDEN" in stubs:
        raise CourseError(f"{day.name}: a solution or hidden part was left in the release")
    for hidden in sorted({day.graders, day.mistakes}):
        for file in sorted(hidden.glob("*.py")):
            for line in _sentences(file):
                if _squeezed(line) in lines:
                    raise CourseError(
                        f"{day.name}, cell {lines[_squeezed(line)]}: a line of {file} stands in the "
                        f"release: {line.strip()}"
                    )


def _sentences(file: Path) -> Iterator[str]:
    """The lines of a hidden file by which it could be told: what it asserts and says."""
    for line in file.read_text(encoding="utf-8").split("\n"):
        telling = line.strip().startswith(("assert ", '"""', "close(", "equal(", "def test_"))
        if telling and len(_squeezed(line)) >= TRIVIAL:
            yield line


def _is_secret(line: str) -> bool:
    text = _squeezed(line)
    return len(text) >= TRIVIAL and not text.startswith(("#", "def", '"""', "super()"))


def _squeezed(line: str) -> str:
    return re.sub(r"\s+", "", line)


def _grades_to_full(notebook: NotebookNode, day: Day) -> None:
    data = nbformat.writes(notebook).encode()
    cells, problems = read_cells(data, f"{day.name}.ipynb")
    handed_in = Submission("the solution notebook", "solution", "", cells, problems, True)
    with start_server() as server:
        marks = Grader(day, server, state_folder.secret(day.root)).grade(handed_in)
    lost = [f"{e.name} ({e.status}: {e.message})" for e in marks.exercises if e.status != "passed"]
    if lost or marks.problems:
        raise CourseError(
            f"{day.name}: the solutions do not grade to {day.points:g}: {'; '.join([*lost, *marks.problems])}"
        )


def _runs(notebook: NotebookNode, day: Day) -> None:
    """Run the solution notebook top to bottom, with short trainings; what ran once is not run again until it changes."""
    digest = hashlib.sha256(nbformat.writes(notebook).encode()).hexdigest()
    ran = state_folder.course_folder(day.root) / f"ran-{day.name}"
    if ran.is_file() and ran.read_text(encoding="utf-8") == digest:
        return
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.source = with_short_trainings(cell.source, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            copy,
            timeout=EXECUTION_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            where = _failed(copy)
            raise CourseError(
                f"{day.name}, cell {where}: does not run: {error.ename}: {error.evalue}"
            ) from None
    ran.write_text(digest, encoding="utf-8")


def _failed(notebook: NotebookNode) -> str:
    for cell in notebook.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return str(cell.id)
    return "?"
