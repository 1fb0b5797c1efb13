"""Run code in a fork server's worker or in this process. Entry points: `loaded` and `loaded_in`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process
from autograder.sandbox.worker.in_process import LocalProcess

PATIENT = Limits(cpu_seconds=10, total_cpu_seconds=30, memory=1 << 30)


@contextmanager
def loaded(server: Server, source: str) -> Iterator[Student]:
    """Run code that defines `f` in one of this server's workers."""
    process = Process(server, PATIENT)
    student = Student(process)
    student.load(m.Load(source, [(1, source.count("\n") + 1)], "f", 1))
    yield student
    process.stop()


@contextmanager
def loaded_in(place: str, server: Server, source: str, name: str) -> Iterator[Student]:
    """Run code that defines `name`. `place` is "sandboxed" or "in process"."""
    sandboxed = place == "sandboxed"
    process: Any = Process(server, Limits(5, 30, 2 << 30)) if sandboxed else LocalProcess()
    student = Student(process)
    student.load(m.Load(source, [(1, source.count("\n"))], name, 1))
    yield student
    process.stop()
