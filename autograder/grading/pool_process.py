"""Grade submissions in a pool process. Entry points: `start`, `isolation` and `grade`.

Unless this process was forked from a process that had already imported the grader, starting the fork server is the slowest
step. This module therefore imports as little as possible until the fork server has started.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.sandbox.client import Sandbox, Server, start_server
from autograder.sandbox.errors import NoIsolation
from autograder.sandbox.launch import STANDBY

if TYPE_CHECKING:
    from autograder.grading.grader import Grader
    from autograder.marks.model import SubmissionMarks
    from autograder.protocol.limits import Allowance
    from autograder.submissions.submission import Submission

_server: Server | NoIsolation
_grader: Grader | None = None
_course: tuple[Path, str]
_use_results = False
_budget: Allowance


def start(
    root: Path, day: str, sandbox: Sandbox, standby: str, use_results: bool, budget: Allowance
) -> None:
    """Start a fork server, or connect to the one at the address `standby`. If neither works, `isolation` raises NoIsolation.

    `budget` limits all code run for one submission.
    """
    global _course, _server, _use_results, _budget
    _exit_with_parents()
    _course = root, day
    _use_results = use_results
    _budget = budget
    STANDBY.address = standby
    try:
        _server = start_server(sandbox)
    except NoIsolation as error:
        _server = error


def _exit_with_parents() -> None:
    """Exit when the process that runs the pool exits.

    If this process was forked from a different process, also exit when that process exits.
    """
    owner = multiprocessing.parent_process()
    assert owner is not None
    threading.Thread(target=_exit_after, args=(owner,), daemon=True).start()
    if owner.pid != os.getppid():
        from autograder.sandbox.walls import privileges

        privileges.die_with_parent()


def _exit_after(owner: BaseProcess) -> None:
    owner.join()
    os._exit(1)


def isolation() -> list[str]:
    """Load the grader, wait for the fork server, and return the isolation layers that it uses. See `Executor.isolation`."""
    if isinstance(_server, NoIsolation):
        raise _server
    _load_grader()
    return _server.isolation


def _load_grader() -> Grader:
    """Load and return this process's grader. The fork server starts while the grader loads."""
    global _grader
    if _grader is None:
        assert isinstance(_server, Server)
        from autograder.grading.grader_imports import without_garbage_collection

        with without_garbage_collection():
            from autograder.course import config as courses
            from autograder.grading.grader import Grader
            from autograder.grading.results import ResultStore

            root, day = _course
            results = ResultStore(root) if _use_results else None
            _grader = Grader(courses.load(root).day(day), _server, results=results)
            # This comes last, because the caches of trivial answers and known mistakes belong to the course's own budget.
            _grader.exercises.day = replace(_grader.day, budget=_budget)
    return _grader


def grade(submission: Submission, seed: str, is_alone: bool) -> SubmissionMarks:
    """Grade a submission. Raises MustRunAlone if its code must run while no other submission is being graded."""
    return _load_grader().grade_or_log(submission, seed, is_alone=is_alone)
