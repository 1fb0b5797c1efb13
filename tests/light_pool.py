"""Start a pool's processes without a sandbox or torch, so that tests of the pool itself are fast.

The last word of a submission determines its result: `# 60` gets 60 points, `# kill` kills the grading process, `# sleep` gets 10
points if it is alone, and `# wait` is never graded.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from autograder.grading import pool_process
from autograder.marks.model import SubmissionMarks
from autograder.protocol.limits import Allowance
from autograder.sandbox.client import Sandbox
from autograder.sandbox.errors import MustRunAlone
from autograder.submissions.submission import Submission

ISOLATION = ["light"]


class LightServer:
    """A fork server that starts no processes."""

    isolation = ISOLATION


class LightGrader:
    """A fake grader whose result depends on the last word of the submission."""

    def grade_or_log(self, submission: Submission, seed: str, is_alone: bool) -> SubmissionMarks:
        word = submission.cells[0].source.split()[-1]
        if word == "sleep" and not is_alone:
            raise MustRunAlone
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while word == "wait":
            signal.pause()
        if word == "sleep":
            word = "10"
        return SubmissionMarks(
            submission.path,
            submission.student,
            submission.sha256,
            seed,
            "course",
            ISOLATION,
            float(word),
            100.0,
            0.0,
            [],
            [],
        )


def start(
    root: Path, day: str, sandbox: Sandbox, standby: str, use_results: bool, budget: Allowance
) -> None:
    """Initialise a pool process. Replaces `pool_process.start`."""
    fakes: dict[str, Any] = {"start_server": lambda _: LightServer(), "_grader": LightGrader()}
    vars(pool_process).update(fakes)
    pool_process.start(root, day, sandbox, standby, use_results, budget)
