"""Grade submissions in a Dask worker. Entry points: `GraderPlugin` and `grade`.

This module does not import torch, so that every worker can load the plugin. Graders start only when the first task arrives.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.course.fingerprint import course_version
from autograder.grading.cluster.messages import (
    TASK,
    CourseVersion,
    Graded,
    Postponed,
    Ready,
    RefusedWorker,
    Reply,
)
from autograder.marks.engine_version import engine_version
from autograder.sandbox.client import start_server
from autograder.sandbox.errors import MustRunAlone, NoIsolation

if TYPE_CHECKING:
    from autograder.grading.grader import Grader

PLUGIN = "autograder"
COURSE = "AUTOGRADER_COURSE"  # the course folder on this machine, if it differs from the client's


@dataclass(frozen=True)
class _Loaded:
    """A grader, with the course version for which it was created."""

    course: CourseVersion
    grader: Grader


class GraderPlugin(WorkerPlugin):
    """A Dask plugin that keeps a worker's graders, one per day, between tasks.

    Dask hides errors in the `setup` of workers that join later, so the first task creates the grader instead.
    """

    name = PLUGIN
    idempotent = True  # later runs reuse the graders of earlier ones

    def __init__(self) -> None:
        self._loaded: dict[str, _Loaded] = {}

    def grader(self, course: CourseVersion) -> Grader:
        """Return the grader for the given version of the course, creating it on first use.

        Raises CourseError if this machine has a different version, and NoIsolation.
        """
        loaded = self._loaded.get(course.day)
        if loaded is None or loaded.course != course:
            if loaded is not None:
                del self._loaded[course.day]
                loaded.grader.server.close()
            loaded = self._loaded[course.day] = _Loaded(course, _make_grader(course))
        return loaded.grader


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
            return Ready(grader.server.isolation)
        return Graded(grader.grade_or_log(task.submission, task.seed, is_alone=task.is_alone))
    except MustRunAlone:
        return Postponed()
    except NoIsolation as error:
        return RefusedWorker(worker.address, socket.gethostname(), "isolation", str(error))
    except CourseError as error:
        return RefusedWorker(worker.address, socket.gethostname(), "course", str(error))
