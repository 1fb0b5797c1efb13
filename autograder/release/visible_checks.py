"""Run a day's visible checks in a separate process. Entry points: `recorded` and `messages`.

The results of known mistakes are stored in the notebook, which uses them to give hints. `autograder try` shows the messages
for any answers.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import CourseError, Day
from autograder.course.provided import module_source, modules, notebook_source
from autograder.execution.catalogue import Mistake, known_mistakes
from autograder.in_notebook.hints import are_alike
from autograder.release import helper_cells

SECONDS = 20  # per known mistake
PLAIN = [["bool"], ["int"], ["str"]]  # how summaries of bools, integers and strings begin


class TooSlow(BaseException):
    """Raised when a known mistake runs for too long."""


def released_cells(day: Day) -> list[NotebookNode]:
    """Return the cells of the current release, or [] if it is missing or damaged, for example by a merge conflict."""
    try:
        notebook = nbformat.read(day.release, as_version=4)
        nbformat.validate(notebook)  # `read` only logs these errors
    except Exception:  # nbformat raises an AttributeError or TypeError for some JSON
        return []
    return list(notebook.cells)


def recorded(day: Day) -> dict[str, Any]:
    """Return the results of a day's known mistakes. Reuse the results in the current release if they are up to date.

    Raises:
        CourseError: The day's code does not run.
    """
    for cell in released_cells(day):
        known = helper_cells.recorded_outputs(cell.source, day)
        if known is not None:
            return known
    return _run(day, None) if any(known_mistakes(day).values()) else {}


def messages(day: Day, answers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """For each answer, return the message shown if the visible checks fail, or "" if they pass.

    Args:
        day: The day.
        answers: The code of each exercise's answers. An empty string represents the solution.

    Raises:
        CourseError: The day's code does not run.
    """
    return _run(day, answers)


def _run(day: Day, answers: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
    """Return the messages for answers, or the results of known mistakes, from a process that runs `main`."""
    command = [sys.executable, "-m", __name__, str(day.root), day.name]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, env=environment, input=json.dumps(answers), capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CourseError(
            lines[-1] if lines else f"{day.name}: the process exited with code {done.returncode}"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Notebook:
    """The main module of this process, which contains a day's code with these roles."""

    def __init__(
        self, day: Day, roles: Sequence[str] = ("given", "support", "exercise", "checks")
    ) -> None:
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        for name in modules(day):
            self.run(module_source(name), name)
        for chapter in day.chapters:
            for cell in chapter.cells:
                if cell.role in roles:
                    self.run(notebook_source(cell), f"{chapter.name}, cell {cell.number}")

    def run(self, source: str, name: str) -> None:
        """Run a cell's code, making its source available to tracebacks and `inspect`."""
        file = f"<{name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec", dont_inherit=True), vars(self.module))

    def observe(self, exercise: str, methods: list[str]) -> list[list[Any]]:
        """Run an exercise's visible checks on its current code and return the results of each statement."""
        names = vars(self.module)
        seen: list[list[Any]] = names["observe"](
            exercise, names[CHECK_PREFIX + exercise].__wrapped__, methods
        )
        return seen


def record_exercise(notebook: Notebook, mistakes: list[Mistake], stub: str) -> dict[str, Any]:
    """Return the results of an exercise's known mistakes, excluding mistakes whose results are not unique."""
    exercise = mistakes[0].exercise
    methods = _methods(stub)
    own = vars(notebook.module)[exercise]
    correct = notebook.observe(exercise, methods)
    seen: list[tuple[str, list[list[Any]]]] = []
    for mistake in mistakes:
        with time_limit(), contextlib.suppress(TooSlow):
            notebook.run(mistake.source, f"{exercise}, {mistake.name}")
            seen.append((mistake.sentence, notebook.observe(exercise, methods)))
        vars(notebook.module)[exercise] = own
    calls: dict[str, int] = {}  # each call as JSON → its number
    listed = []
    for sentence, results in seen:
        others = [correct, *(other for name, other in seen if name != sentence)]
        # Many mistakes raise errors in every check, so errors alone do not identify a mistake.
        if _has_value(results) and not any(are_alike(results, other) for other in others):
            listed.append([sentence, _numbers(results, calls)])
    return {
        "methods": methods,
        "correct": _numbers(correct, calls),
        "mistakes": listed,
        "calls": [*map(json.loads, calls)],
    }


def _has_value(results: Any) -> bool:
    """Return whether the results contain at least one number or string."""
    if isinstance(results, list):
        return results[:1] in PLAIN or any(map(_has_value, results))
    return isinstance(results, float) or results == "random"


def _numbers(results: list[list[Any]], calls: dict[str, int]) -> list[list[int]]:
    """Return the results with each call replaced by its number in `calls`, adding the call if it is new."""
    return [
        [calls.setdefault(json.dumps(call), len(calls)) for call in statement]
        for statement in results
    ]


def _methods(stub: str) -> list[str]:
    """Return the public methods of a stub if it is a class, and otherwise an empty list."""
    definition = ast.parse(stub).body[0]
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return [name for name in names if not name.startswith("_")]


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise TooSlow if the body of the `with` statement runs for more than `SECONDS` seconds."""

    def stop(*_: object) -> None:
        raise TooSlow

    previous: Any = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def main(root: Path, name: str) -> None:
    """Read answers as JSON from stdin, or null for the known mistakes, and print the messages or results as JSON."""
    day = courses.load(root).day(name)
    answers: dict[str, list[str]] | None = json.load(sys.stdin)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            found = _record(day) if answers is None else _messages(day, answers)
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename[0] == "<"]
            where = f"{frames[-1].filename[1:-1]}, line {frames[-1].lineno}: " if frames else ""
            sys.exit(f"{where}{type(error).__name__}: {error}")
    sys.stdout.write(json.dumps(found))


def _record(day: Day) -> dict[str, Any]:
    """Return the results of a day's known mistakes, keyed by exercise, in the format read by `in_notebook.hints`.

    Constant answers are left out, because students could read the solution's result.
    """
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {
        cell.name: cell.stub for cell in cells if cell.role == "exercise" and not cell.is_constant
    }
    notebook = Notebook(day)
    return {
        exercise: record_exercise(notebook, mistakes, stubs[exercise])
        for exercise, mistakes in known_mistakes(day).items()
        if mistakes and exercise in stubs
    }


def _messages(day: Day, answers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    checks = {cell.name: notebook_source(cell) for cell in cells if cell.role == "checks"}
    notebook = Notebook(day, roles=("given", "support", "exercise"))
    return {
        exercise: [_message(notebook, checks[exercise], code) for code in codes]
        for exercise, codes in answers.items()
    }


def _message(notebook: Notebook, check: str, answer: str) -> str:
    """Run a check on an answer and return its message, then restore the notebook's state."""
    module = vars(notebook.module)
    before = dict(module)
    try:
        with time_limit():
            notebook.run(answer, "the answer")
            notebook.run(check, "the check")
    except TooSlow:
        return f"the check did not finish within {SECONDS} seconds"
    except AssertionError as error:
        return str(error) or "a check without a message failed"
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        module.clear()
        module.update(before)
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
