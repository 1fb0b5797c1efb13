"""Define the messages between a grading run and a cluster's workers. They are sent as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Sandbox
from autograder.submissions.submission import Submission

MISSING = (
    "--cluster needs packages that are not installed. Run "
    "`pip install cryptography dask-jobqueue distributed`."
)


@dataclass(frozen=True)
class ClusterLocation:
    """Where the workers run: `local`, `slurm` or the address of a running scheduler, plus the scheduler's certificates."""

    name: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_running(self) -> bool:
        """Return whether this is the address of a running scheduler."""
        return self.name not in ("local", "slurm")


class CourseVersion(msgspec.Struct, frozen=True):
    """The course and autograder versions that a worker must have.

    `root` is the course folder on the client. `version` covers the day's files, and `autograder` covers the grading code.
    """

    root: str
    day: str
    version: str
    autograder: str
    sandbox: Sandbox


class Task(msgspec.Struct, frozen=True):
    """A request to grade a submission with the given seed, or to get ready to grade if `submission` is None.

    `is_alone` is set if no other submission of the run is being graded.
    """

    course: CourseVersion
    submission: Submission | None = None
    seed: str = ""
    is_alone: bool = False


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """A worker's report that it can grade, and the isolation layers that passed the probes on its machine."""

    isolation: list[str]


class Graded(msgspec.Struct, tag="graded", frozen=True):
    """A submission's marks."""

    marks: SubmissionMarks


class Postponed(msgspec.Struct, tag="postponed", frozen=True):
    """A worker's report that a submission must be graded while no other submission of the run is."""


class RefusedWorker(msgspec.Struct, tag="refused", frozen=True):
    """A worker's report that it cannot grade in this run, because of its machine's sandbox or its course version."""

    worker: str  # the worker's address
    machine: str
    cause: Literal["isolation", "course"]
    reason: str


Reply = Ready | Graded | Postponed | RefusedWorker
TASK = msgspec.json.Decoder(Task)
REPLY: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
