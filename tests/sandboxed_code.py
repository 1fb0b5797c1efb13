"""Run code in a fork server's worker. Entry point: `loaded`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process

PATIENT = Limits(cpu_seconds=10, total_cpu_seconds=30, memory=1 << 30)


@contextmanager
def loaded(server: Server, source: str) -> Iterator[Student]:
    """Run code that defines `f` in one of this server's workers."""
    process = Process(server, PATIENT)
    student = Student(process)
    student.load(m.Load(source, [(1, source.count("\n") + 1)], "f", 1))
    yield student
    process.stop()
