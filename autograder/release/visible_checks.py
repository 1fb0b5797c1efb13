"""Run the visible checks on given answers, as a student's notebook does. Entry point: `messages`.

Each day runs in a separate process: `python -m autograder.release.visible_checks ROOT DAY`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.release.mistake_results import SECONDS, Notebook, TooSlow, time_limit
from autograder.release.notebook import notebook_source


def messages(day: Day, answers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """For each answer, return the message shown if the visible checks fail, or "" if they pass.

    Args:
        day: The day.
        answers: The code of each exercise's answers. An empty string represents the solution.

    Raises:
        CourseError: The day's code does not run.
    """
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
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


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


def main(root: Path, name: str) -> None:
    """Read answers as JSON from stdin and print the messages as JSON."""
    day = courses.load(root).day(name)
    answers: dict[str, list[str]] = json.load(sys.stdin)
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    checks = {cell.name: notebook_source(cell) for cell in cells if cell.role == "checks"}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            notebook = Notebook(day, roles=("given", "exercise"))
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename[0] == "<"]
            where = f"{frames[-1].filename[1:-1]}, line {frames[-1].lineno}: " if frames else ""
            sys.exit(f"{where}{type(error).__name__}: {error}")
        found = {
            exercise: [_message(notebook, checks[exercise], code) for code in codes]
            for exercise, codes in answers.items()
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
