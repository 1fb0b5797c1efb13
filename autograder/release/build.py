"""Build a day's release after checking that it works and does not leak solutions. Entry point: `build`.

The chapters are combined into nbgrader's source notebook, from which nbgrader generates `assignments/DAY`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import itertools
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.apps import NbGrader
from nbgrader.converters import GenerateAssignment

from autograder.course import config as courses
from autograder.course import state_folder
from autograder.course.chapters import BEGIN, END
from autograder.course.config import GRADING_TOML, Course, CourseError, Day, Include
from autograder.course.files import atomic_file, read_text
from autograder.execution.catalogue import known_mistakes
from autograder.grading.grader import Grader
from autograder.release import (
    answers,
    gradebook,
    helper_cells,
    publication,
    texts,
    visible_checks,
)
from autograder.release.notebook import day_texts, readme, requirements, solution_notebook
from autograder.sandbox.client import start_server
from autograder.submissions.cell_reader import read_cells
from autograder.submissions.submission import Submission

# Minimum number of characters, excluding whitespace, in a line that counts as a leak. Shorter lines are too common.
MIN_SECRET = 24
MARKED = re.compile(rf"{BEGIN}\n(.*?){END}", re.DOTALL)
EXECUTION_SECONDS = 300  # per cell
STEPS = 20  # training steps per loop when the notebook is run as a check
# On a busy machine, OpenMP threads would otherwise spend most of their time waiting for each other. Disable downloads.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


def build(
    day: Day, solutions: bool = False, new_version: bool = False, public_url: str = ""
) -> Iterator[Path | str]:
    """Build a day's release and, if `solutions` is true, the notebook with solutions.

    Yields the notebooks' paths, and notes for the instructor. `new_version` allows the build to add or remove
    exercises even if nbgrader's gradebook contains submissions. `public_url` is the address where the release will be
    published. It is needed for the Colab badge and the link for nbgitpuller.

    Raises:
        CourseError: A check failed. The message names the cell, and the current release is unchanged.
    """
    yield from vanished_names(day)
    notebook = solution_notebook(day, visible_checks.recorded(day))
    if public_url:
        add_badge(notebook, day, public_url)
    _check_given_names(notebook, day)
    nbformat.validate(notebook)
    _check_full_marks(notebook, day)
    _check_execution(notebook, day)
    with publication.staging(day) as staged:
        _write_source(notebook, day, staged / "source" / day.name)
        _generate_assignment(day, staged)
        release = day.release.relative_to(day.root)
        released = nbformat.read(staged / release, as_version=4)
        _check_release(released, notebook, day)
        answers.check(released, day)
        yield from publication.publish(day, staged, new_version)
    yield day.release
    if public_url:
        yield f"link for a JupyterHub with nbgitpuller, where HUB is its address: {pull_link(day, public_url)}"
    if solutions:
        yield _write_solutions(notebook, day)


def vanished_names(day: Day) -> Iterator[str]:
    """Yield a note about each exercise in the current release that the day no longer contains."""
    known = {exercise.name for exercise in (*day.exercises, *day.unassigned)}
    for cell in visible_checks.released_cells(day):
        metadata = cell.metadata.get("nbgrader", {})
        name = metadata.get("grade_id")
        if metadata.get("solution") and name not in known:
            yield (
                f"{day.name}: the release contains exercise {name}, but {GRADING_TOML} does not, "
                "so submissions no longer earn points for it"
            )


def _write_source(notebook: NotebookNode, day: Day, folder: Path) -> None:
    """Write the files from which nbgrader generates the release."""
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{day.name}.ipynb")
    text = day_texts(day).fill(readme(day), "README.md")
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(day), encoding="utf-8")
    (folder / "AGENTS.md").write_text(texts.agents(day), encoding="utf-8")
    (folder / "CLAUDE.md").write_text("See AGENTS.md in this folder.\n", encoding="utf-8")


def _generate_assignment(day: Day, staged: Path) -> None:
    """Run nbgrader's GenerateAssignment in a staging folder with a separate gradebook."""
    errors = io.StringIO()
    try:
        app = NbGrader(log_level=logging.ERROR, raise_config_file_errors=True)
        app.initialize([], root=str(day.root))
        app.log.handlers = [logging.StreamHandler(errors)]
        app.coursedir.root = str(staged)
        app.coursedir.source_directory = "source"
        app.coursedir.release_directory = "assignments"
        app.coursedir.db_url = f"sqlite:///{gradebook.create(staged)}"
        app.coursedir.assignment_id = day.name
        GenerateAssignment(coursedir=app.coursedir, parent=app).start()
    except (Exception, SystemExit) as error:  # nbgrader_config.py may raise any exception
        reason = errors.getvalue()[-2000:] or f"{type(error).__name__}: {error}"
        raise CourseError(
            f"{day.name}: nbgrader failed to generate the assignment, and the release is unchanged:\n{reason}"
        ) from None


def _write_solutions(notebook: NotebookNode, day: Day) -> Path:
    """Write the notebook with solutions but without nbgrader's markers, for publication after the deadline."""
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


# ---- checks


def _check_given_names(notebook: NotebookNode, day: Day) -> None:
    """Raise CourseError if two cells of provided code define the same name."""
    seen: dict[str, str] = {}
    code = [c for c in notebook.cells if c.cell_type == "code" and "nbgrader" not in c.metadata]
    cells = [(f"cell {cell.id}", cell.source) for cell in code]
    given = [(place, source) for place, source in cells if _is_given(source)]
    packed = [item for _, source in cells for item in helper_cells.unpacked(source)[0].items()]
    for place, source in (*packed, *given):
        for node in ast.parse(source).body:
            for name in _bound(node):
                if seen.setdefault(name, place) != place:
                    raise CourseError(
                        f"{day.name}, {place}: {name!r} is already defined in {seen[name]}"
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
    """Raise CourseError if the release contains a line from a solution or a hidden test, or a known mistake's explanation.

    This check also searches the packed code. Explanations of known mistakes are allowed only among their packed results.
    """
    texts = [(cell.id, cell.source) for cell in release.cells]
    for cell in release.cells:
        code, material = helper_cells.unpacked(cell.source)
        texts += [(cell.id, text) for text in (*code.values(), material.get("stand_ins", ""))]
    lines = {_without_spaces(line): cell_id for cell_id, text in texts for line in text.split("\n")}
    for line, origin in _secrets(source, day):
        text = _without_spaces(line)
        if len(text) >= MIN_SECRET and text in lines:
            raise CourseError(
                f"{day.name}, cell {lines[text]}: the release contains a line from {origin}: {line.strip()}"
            )
    if any(BEGIN in cell.source or "BEGIN HIDDEN" in cell.source for cell in release.cells):
        raise CourseError(f"{day.name}: the release contains a solution or hidden tests")
    texts = [(cell_id, _without_spaces(text)) for cell_id, text in texts]
    for mistake in itertools.chain.from_iterable(known_mistakes(day).values()):
        for cell_id, text in texts:
            if _without_spaces(mistake.sentence) in text:
                raise CourseError(
                    f"{day.name}, cell {cell_id}: the release contains the explanation for a known mistake in"
                    f" {mistake.exercise}: {mistake.sentence}"
                )


def _secrets(source: NotebookNode, day: Day) -> Iterator[tuple[str, str]]:
    """Yield lines that would reveal a solution or a hidden test, and where each of them comes from."""
    given = {
        _without_spaces(line)
        for chapter in day.chapters
        for cell in chapter.cells
        if cell.role in ("given", "support")
        for line in cell.source.split("\n")
    }
    for cell in source.cells:
        for line in "\n".join(MARKED.findall(cell.source)).split("\n"):
            is_usual = line.strip().startswith(("#", "def", '"""', "super()"))
            if not is_usual and _without_spaces(line) not in given:
                yield line, f"the solution in {cell.id}"
    for file in sorted(day.graders.glob("*.py")):
        for line in read_text(file).split("\n"):
            if line.strip().startswith(("assert ", '"""', "close(", "equal(", "def test_")):
                yield line, str(file)


def _without_spaces(line: str) -> str:
    return re.sub(r"\s+", "", line)


def _check_full_marks(notebook: NotebookNode, day: Day) -> None:
    """Raise CourseError if the solutions do not get full marks."""
    data = nbformat.writes(notebook).encode()
    cells, problems = read_cells(data, f"{day.name}.ipynb")
    solutions = Submission("the solution notebook", "solution", "", cells, problems, True)
    with start_server() as server:
        marks = Grader(day, server, state_folder.secret(day.root)).grade(solutions)
    lost = [f"{e.name} ({e.status}: {e.message})" for e in marks.exercises if e.status != "passed"]
    if lost or marks.problems:
        raise CourseError(
            f"{day.name}: the solutions do not get full marks: {'; '.join(lost or marks.problems)}"
        )


def _check_execution(notebook: NotebookNode, day: Day) -> None:
    """Run the solution notebook with short training loops, unless its code has already run successfully."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    digest = hashlib.sha256("\0".join(code).encode()).hexdigest()
    ran = f"ran-{day.name}"
    if state_folder.read_cache(day.root, ran) == digest.encode():
        return
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            is_provided = bool(helper_cells.unpacked(cell.source)[0])
            short = with_short_training(cell.source, STEPS)
            # Run the code that shows results, although the notebook contains no predictions.
            cell.source = f"{short}\npredict.skip()" if is_provided else short
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            copy,
            timeout=EXECUTION_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
        except (DeadKernelError, CellTimeoutError) as error:
            problem = " ".join(str(error).split())[:200]
            raise CourseError(
                f"{day.name}: the notebook with solutions did not finish: {problem}. "
                "The machine may be low on memory or too busy."
            ) from None
        except CellExecutionError as error:
            failed = (
                c.id for c in copy.cells for o in c.get("outputs", []) if o.output_type == "error"
            )
            raise CourseError(
                f"{day.name}: cell {next(failed, '?')} raised {error.ename}: {error.evalue}"
            ) from None
    state_folder.write_cache(day.root, ran, digest.encode())


COLAB = "https://colab.research.google.com"
FOLDER = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:tree|blob)/([^\s?#()]+?)/*")


def add_badge(notebook: NotebookNode, day: Day, public_url: str) -> None:
    """Add the badge to the notebook's title cell. `public_url` is the GitHub address of the folder with the release."""
    repository, folder = _repository_and_folder(public_url)
    page = f"{COLAB}/github/{repository}/blob/{folder}/{day.name}/{day.name}.ipynb"
    image = f"{COLAB}/assets/colab-badge.svg"
    notebook.cells[0].source += f"\n\n[![Open in Colab]({image})]({page})"


def pull_link(day: Day, public_url: str) -> str:
    """Return the link with which nbgitpuller copies the release to a student's server and opens the notebook."""
    repository, folder = _repository_and_folder(public_url)
    branch, _, path = folder.partition("/")
    notebook = Path(repository.rpartition("/")[2], path, day.name, f"{day.name}.ipynb")
    query = {"repo": f"https://github.com/{repository}", "branch": branch}
    query["urlpath"] = f"lab/tree/{notebook}"
    return f"https://HUB/hub/user-redirect/git-pull?{urlencode(query)}"


def _repository_and_folder(public_url: str) -> tuple[str, str]:
    """Split the address of a folder on GitHub into OWNER/REPOSITORY and BRANCH/FOLDER."""
    found = FOLDER.fullmatch(public_url.strip())
    if not found:
        raise CourseError(
            f"--public-url: {public_url} is not the address of a folder on GitHub, such as "
            "https://github.com/OWNER/REPOSITORY/tree/main/assignments"
        )
    return found[1], found[2]


@contextlib.contextmanager
def including(root: Path, day: str, include: Include) -> Iterator[Course]:
    """Set a day's `include` setting and yield the course. If the block raises an exception, restore the file.

    Grading also reads `include`, so only the released exercises are graded.

    Raises:
        CourseError: The day is unknown, has no table in the file, or has no exercises left.
    """
    file = root / GRADING_TOML
    before = file.read_bytes()
    courses.load(root).day(day)
    text = _with_include(before.decode("utf-8-sig"), day, include)
    try:
        _rewrite(file, text.encode())
        yield courses.load(root)
    except BaseException:
        _rewrite(file, before)
        raise


def _rewrite(file: Path, data: bytes) -> None:
    if file.read_bytes() != data:
        with atomic_file(file, file.stat().st_mode) as new:
            new.write(data)


def _with_include(text: str, day: str, include: str) -> str:
    """Return the text of `grading.toml` with `include` set in the day's table. Add an `include` line if there is none."""
    line = f'include = "{include}"'
    header = re.search(rf"^[ \t]*\[[ \t]*{re.escape(day)}[ \t]*\].*$", text, re.MULTILINE)
    if not header:
        raise CourseError(
            f"{GRADING_TOML} has no line [{day}]. Add {line} to the settings for this day manually."
        )
    rest = text[header.end() :]
    end = re.search(r"^[ \t]*\[", rest, re.MULTILINE)
    table = rest[: end.start()] if end else rest
    key = re.compile(r'^([ \t]*)include[ \t]*=[ \t]*("[^"\n]*"|\'[^\'\n]*\')', re.MULTILINE)
    changed, count = key.subn(rf"\g<1>{line}", table, count=1)
    changed = changed if count else f"\n{line}{table}"
    return text[: header.end()] + changed + rest[len(table) :]


def with_short_training(source: str, steps: int) -> str:
    """Return the code with every constant whose name ends in `STEPS` set to `steps`, also in a provided cell."""
    code, material = helper_cells.unpacked(source)
    if code:
        short = {name: with_short_training(text, steps) for name, text in code.items()}
        return helper_cells.packed_cell(short, material)
    tree = ast.parse(source)
    found = False
    for node in (node for node in tree.body if isinstance(node, ast.Assign)):
        target, value = node.targets[0], node.value
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = value.elts if isinstance(value, ast.Tuple) else [value]
        for name, constant in zip(names, values, strict=False):
            is_steps = isinstance(name, ast.Name) and name.id.endswith("STEPS")
            if is_steps and isinstance(constant, ast.Constant):
                constant.value = steps
                found = True
    return ast.unparse(tree) if found else source
