"""Grade submissions with plain nbgrader and Otter, and measure the cost. Both run the hidden tests in the student's process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook

from autograder.course.config import Day
from bench.in_notebook import FAILED, test_points, tests
from bench.processes import counter, tree

ROOT = Path(__file__).parents[1]
OTTER = ROOT / ".autograder" / "otter"
# The time limit per cell in nbgrader, and per submission in Otter, which has no time limit of its own.
SECONDS = 60
CONFIG = f"""c = get_config()
c.CourseDirectory.course_id = "plain"
c.Execute.timeout = {SECONDS}
"""
TEST_CASE = """

@test_case(points={points})
def test_{number}(env):
    run_test("{day}", "{exercise}", {number})
"""
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Cost:
    """The time and memory used by commands and all their child processes. `memory` is their peak total memory."""

    wall: float = 0.0
    processor: float = 0.0
    memory: int = 0

    def add(self, other: Cost) -> None:
        """Add the cost of a command that ran later: times are added, and `memory` becomes the larger of the two peaks."""
        self.wall += other.wall
        self.processor += other.processor
        self.memory = max(self.memory, other.memory)


@dataclass(frozen=True)
class Completed:
    """A finished command's result: its cost, exit code (None after a timeout) and output."""

    cost: Cost
    code: int | None
    output: str


@dataclass(frozen=True)
class Mark:
    """The points and messages that a tool gave for each exercise. If `points` is None, `reason` explains why."""

    points: Mapping[str, float] | None
    reason: str = ""
    messages: Mapping[str, str] = field(default_factory=dict)


def run(command: Sequence[str | Path], folder: Path, seconds: float = float("inf")) -> Completed:
    """Run a command, and interrupt it if it takes longer than `seconds`."""
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "NO_COLOR": "1"}
    started, memory, stopped = time.perf_counter(), 0, False
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        processor = counter(process.pid, stack)
        while process.poll() is None:
            memory = max(memory, sum(_memory(process.pid)))
            elapsed = time.perf_counter() - started
            if elapsed > seconds + 10:
                process.kill()
            elif elapsed > seconds and not stopped:
                process.send_signal(signal.SIGINT)
                stopped = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        cost = Cost(time.perf_counter() - started, processor(), memory)
        log.seek(0)
        return Completed(cost, None if stopped else process.returncode, ANSI.sub("", log.read()))


def _memory(pid: int) -> Iterator[int]:
    """Yield the proportional set sizes of a process and its descendants, in bytes."""
    with contextlib.suppress(OSError):  # a process exited in the meantime
        for each in tree(pid):
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
                yield 1024 * sum(map(int, re.findall(r"^Pss: +(\d+)", rollup, re.MULTILINE)))


# ---- nbgrader


def nbgrader_source(notebook: NotebookNode, day: Day) -> NotebookNode:
    """Return the day's notebook without demonstrations, and with the hidden tests in place of the visible checks."""
    copy: NotebookNode = nbformat.from_dict(notebook)
    copy.cells = [
        c for c in copy.cells if "with demonstration():" not in c.source and c.id != "closing"
    ]
    for cell in copy.cells:
        if cell.id.startswith("check_"):
            exercise = cell.id.removeprefix("check_")
            call = f'from bench.in_notebook import points\npoints("{day.name}", "{exercise}")'
            cell.source = f"### BEGIN HIDDEN TESTS\n{call}\n### END HIDDEN TESTS"
    return copy


def nbgrader(
    day: Day, course: Path, source: NotebookNode, paths: Mapping[str, Path]
) -> tuple[Cost, dict[str, Mark]]:
    """Grade each file with nbgrader. If a submission makes nbgrader itself exit, remove that submission and restart nbgrader."""
    notebook = course / "source" / day.name / f"{day.name}.ipynb"
    notebook.parent.mkdir(parents=True)
    (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    nbformat.write(source, notebook)
    command = Path(sys.executable).parent / "nbgrader"
    made = run([command, "generate_assignment", day.name], course)
    if made.code:
        raise SystemExit(f"nbgrader generate_assignment failed:\n{made.output[-2000:]}")
    total = Cost()
    marks: dict[str, Mark] = {}
    for student, path in paths.items():
        folder = course / "submitted" / student / day.name
        folder.mkdir(parents=True)
        shutil.copy(path, folder / notebook.name)
    while left := paths.keys() - marks.keys():
        ended = run([command, "autograde", day.name], course)
        total.add(ended.cost)
        parts = re.split(r"Creating/updating student with ID '(.+)'", ended.output)
        for student, output in zip(parts[1::2], parts[2::2], strict=True):
            marks[student] = _nbgrader_mark(day, course, student, output)
            if marks[student].points is None:
                shutil.rmtree(course / "submitted" / student)
        if not left & marks.keys():
            raise SystemExit(f"nbgrader autograde failed:\n{ended.output[-2000:]}")
        if paths.keys() - marks.keys():
            reason = f"{marks[student].reason} (nbgrader exited and was restarted without this submission)"
            marks[student] = Mark(None, reason)
    return total, marks


def _nbgrader_mark(day: Day, course: Path, student: str, output: str) -> Mark:
    file = course / "autograded" / student / day.name / f"{day.name}.ipynb"
    if not file.exists():
        return Mark(None, _error(output))
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        grades = book.find_submission_notebook(day.name, day.name, student).grades
        points = {g.name.removeprefix("check_"): float(g.auto_score or 0) for g in grades}
    messages = dict.fromkeys(day.names, "the cell with the exercise's tests was not found")
    for cell in nbformat.read(file, as_version=4).cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "").removeprefix("check_")
        if cell.cell_type == "code":
            messages[name] = _message(cell.outputs)
    return Mark(points, messages=messages)


def _message(outputs: Sequence[NotebookNode]) -> str:
    """Return the reason why a test cell did not get full points, based on its outputs."""
    for output in outputs:
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
    for output in outputs:
        if output.get("name") == "stderr":
            line = output.text.strip().split("\n")[0]
            return f"nbgrader gives 0 points if something is written to stderr: {line}"
    text = "".join(output.get("text", "") for output in outputs)
    failed: list[str] = re.findall(f"^{FAILED}(.*)", text, re.MULTILINE)
    return failed[0] if failed else ""


def _error(output: str) -> str:
    """Return the last line that names an exception, or else the first warning, or else the last line."""
    exceptions: list[str] = re.findall(
        r"^ *(?:[\w.]*\.)?(\w*(?:Error|Exception): .*)$", output, re.MULTILINE
    )
    warnings: list[str] = re.findall(r"^\[\w+ \| (?:WARNING|ERROR)\] (.*)$", output, re.MULTILINE)
    return [*exceptions[-1:], *warnings, output.strip().split("\n")[-1]][0]


# ---- Otter


def install_otter() -> Path:
    """Install Otter in a virtual environment that shares the current one's packages; return the path of the `otter`
    command.

    Raises:
        OSError: The installation failed.
    """
    command = OTTER / "bin" / "otter"
    if not command.exists():
        venv.create(OTTER, clear=True, with_pip=True)
        packages = next(OTTER.glob("lib/python*/site-packages"))
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        (packages / "shared.pth").write_text(ours, encoding="utf-8")
        pip: list[str | Path] = [OTTER / "bin" / "pip", "install", "--quiet"]
        done = subprocess.run([*pip, "otter-grader"], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"Otter could not be installed: {done.stderr.strip()[-300:]}")
    return command


def otter(day: Day, folder: Path, paths: Mapping[str, Path]) -> tuple[Cost, dict[str, Mark]]:
    """Grade each file with `otter run`, which does not need a container."""
    command = install_otter()
    (folder / "tests").mkdir(parents=True)
    for exercise, own in tests(day.name).items():
        head = "from bench.in_notebook import run_test\nfrom otter.test_files import test_case\n"
        text = f'{head}\nOK_FORMAT = False\nname = "{exercise}"\n'
        for number, points in zip(range(len(own)), test_points(day.name, exercise), strict=True):
            text += TEST_CASE.format(points=points, number=number, day=day.name, exercise=exercise)
        (folder / "tests" / f"{exercise}.py").write_text(text, encoding="utf-8")
    made = run([command, "generate", "-t", "tests", "-o", "autograder.zip"], folder)
    if made.code:
        raise SystemExit(f"otter generate failed:\n{made.output[-2000:]}")
    total, marks = Cost(), {}
    for student, path in paths.items():
        results = folder / "results.json"
        results.unlink(missing_ok=True)
        ended = run([command, "run", "-a", "autograder.zip", "--no-logo", path], folder, SECONDS)
        total.add(ended.cost)
        marks[student] = _otter_mark(day, ended, results)
    return total, marks


def _otter_mark(day: Day, ended: Completed, results: Path) -> Mark:
    if ended.code is None:
        return Mark(
            None, f"it did not finish within {SECONDS} s, and `otter run` has no time limit"
        )
    if not results.exists():
        return Mark(None, _error(ended.output))
    found = {t["name"]: t for t in json.loads(results.read_text(encoding="utf-8"))["tests"]}
    if not set(day.names) <= found.keys():
        return Mark(None, _error(found.get("Autograder Exception", {}).get("output", "")))
    return Mark(
        {name: float(found[name]["score"]) for name in day.names},
        messages={name: _failed(found[name]["output"]) for name in day.names},
    )


def _failed(output: str) -> str:
    """Return the error from the first failed test. Otter prints the location, the failing line, and then the error."""
    failed: list[str] = re.findall(r"Error at line \d+ in test .*\n.*\n *(.+)", output)
    return failed[0] if failed else ""
