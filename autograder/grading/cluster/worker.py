"""Grade submissions in a Dask worker, and define the messages that it exchanges with a run, as JSON.

Entry points: `GraderPlugin` and `grade`.

This module does not import torch, so that every worker can load the plugin. Graders start only when the first task arrives.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.course.fingerprint import course_version
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Sandbox, start_server
from autograder.sandbox.errors import MustRunAlone, NoIsolation
from autograder.submissions.submission import Submission

if TYPE_CHECKING:
    from autograder.grading.grader import Grader

PLUGIN = "autograder"
COURSE = "AUTOGRADER_COURSE"  # the course folder on this machine, if it differs from the client's


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


class WorkerReady(msgspec.Struct, tag="ready", frozen=True):
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


Reply = WorkerReady | Graded | Postponed | RefusedWorker
TASK = msgspec.json.Decoder(Task)
REPLY: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


class GraderPlugin(WorkerPlugin):
    """A Dask plugin that keeps a worker's graders, one per day, between tasks.

    Dask hides errors in the `setup` of workers that join later, so the first task creates the grader instead.
    """

    name = PLUGIN
    idempotent = True  # later runs reuse the graders of earlier ones

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[CourseVersion, Grader]] = {}

    def grader(self, course: CourseVersion) -> Grader:
        """Return the grader for the given version of the course, creating it on first use.

        Raises CourseError if this machine has a different version, and NoIsolation.
        """
        version, grader = self._loaded.get(course.day, (None, None))
        if grader is None or version != course:
            if grader is not None:
                del self._loaded[course.day]
                grader.server.close()
            grader = _make_grader(course)
            self._loaded[course.day] = course, grader
        return grader


def _make_grader(course: CourseVersion) -> Grader:
    if engine_version() != course.autograder:
        raise CourseError("the worker has a different version of the autograder, Python or torch")
    root = Path(os.environ.get(COURSE, course.root))
    day = courses.load(root).day(course.day)
    if course_version(day) != course.version:
        raise CourseError(f"{root} contains a different version of the course")
    server = start_server(course.sandbox)
    try:
        from autograder.grading.grader_imports import without_garbage_collection

        # Otherwise, the garbage collector would examine the grader's objects over and over.
        with without_garbage_collection():
            from autograder.grading.grader import Grader

            return Grader(day, server)
    except BaseException:
        server.close()
        raise


def grade(data: bytes) -> bytes:
    """Carry out a task and return the reply. The task and the reply are JSON."""
    return msgspec.json.encode(_reply(data))


def _reply(data: bytes) -> Reply:
    task, worker = TASK.decode(data), get_worker()
    plugin: GraderPlugin = worker.plugins[PLUGIN]
    try:
        grader = plugin.grader(task.course)
        if task.submission is None:
            return WorkerReady(grader.server.isolation)
        return Graded(grader.grade_or_log(task.submission, task.seed, is_alone=task.is_alone))
    except MustRunAlone:
        return Postponed()
    except NoIsolation as error:
        return RefusedWorker(worker.address, socket.gethostname(), "isolation", str(error))
    except CourseError as error:
        return RefusedWorker(worker.address, socket.gethostname(), "course", str(error))
