"""Run `autograder` commands in the tests' own process, where a command takes a fraction of a second. Entry point: `run_command`.

The pool of processes and the fork servers are replaced, because commands spend most of their time starting them.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from autograder.cli import main
from autograder.course.config import Day
from autograder.course.fingerprint import course_version
from autograder.course.state_folder import VARIABLE
from autograder.grading import explain, open_session
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.release import build
from autograder.sandbox.client import Server
from autograder.submissions import reader_client
from autograder.submissions.submission import Submission
from tests.conftest import SECRET, reader

_graders: dict[tuple[Server, str, str], Grader] = {}


def shared_grader(day: Day, server: Server) -> Grader:
    """Return a grader for a day. Copies of the same course in different folders share one grader."""
    key = server, day.name, course_version(day)
    if key not in _graders:
        _graders[key] = Grader(day, server, SECRET)
    return _graders[key]


class LocalPool:
    """An executor that grades submissions in this process, one at a time."""

    jobs = 1

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    def isolation(self) -> list[list[str]]:
        """Return the fork server's isolation layers."""
        return [self._grader.server.isolation]

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = True
    ) -> Future[SubmissionMarks]:
        """Grade a submission and return a completed future."""
        future: Future[SubmissionMarks] = Future()
        future.set_result(self._grader.grade_or_log(submission, seed))
        return future

    def close(self) -> None:
        """Do nothing, because the fork server is shared."""


def run_command(server: Server, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an `autograder` command in a course folder, grading with this fork server. Return the exit code and the output."""

    def pool(day: Day, *_: Any) -> LocalPool:
        return LocalPool(shared_grader(day, server))

    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv(VARIABLE, "tests")
        patch.setattr(sys, "argv", ["autograder", *arguments])
        patch.setattr(open_session, "Pool", pool)
        for module in (reader_client, explain):
            patch.setattr(module, "Reader", lambda *_: contextlib.nullcontext(reader()))
        for module in (explain, build):
            patch.setattr(module, "start_server", lambda: contextlib.nullcontext(server))
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())
