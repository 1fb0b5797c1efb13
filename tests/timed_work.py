"""Provide time-consuming student code, limits for running it, and hidden tests that call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from autograder.course.config import Exercise
from autograder.execution.attempt import Attempt, Outcome, RunSettings
from autograder.execution.collect import Test as Asked
from autograder.execution.source import Source, join_units
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.limits import Budget, Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell

QUICK = Limits(cpu_seconds=0.5, total_cpu_seconds=30, memory=1 << 30)
SLEEPY = Limits(cpu_seconds=0.05, total_cpu_seconds=30, memory=1 << 30, idle_seconds=1.2)
WORK = """
import threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
    return seconds
def sleep(seconds):
    time.sleep(seconds)
    return seconds
def burn_in_threads(seconds):
    import numpy as np
    def work():
        x = np.ones((400, 400)); end = time.thread_time() + seconds
        while time.thread_time() < end: x @ x  # without the lock of the interpreter
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def leave_burning():
    threading.Thread(target=burn, args=(100,), daemon=True).start()
def crowd(seconds):
    import hashlib
    end = time.monotonic() + seconds
    def work():
        while time.monotonic() < end: hashlib.pbkdf2_hmac("sha256", b"", b"", 500)  # without the lock of the interpreter
        threading.Event().wait()
    for _ in range(60): threading.Thread(target=work, daemon=True).start()
    time.sleep(seconds)
def used():
    return time.process_time()
def die():
    import os
    os._exit(3)
def f(seconds):
    return sleep(seconds)
"""


@contextmanager
def working(server: Server, limits: Limits, budget: Budget | None = None) -> Iterator[Student]:
    process = Process(server, limits, budget)
    student = Student(process)
    try:
        student.load(m.Load(WORK, [(1, WORK.count("\n"))], "f", 1))
        yield student
    finally:
        process.stop()


class Scripted:
    """Hidden tests for `f`, each of which runs one of the given functions. `counts` holds how often each test has
    run."""

    def __init__(self, *runs: Callable[[Any, int], None]) -> None:
        self.counts = [0] * len(runs)
        self._runs = runs

    def hidden_test(self, number: int) -> Asked:
        def run(owner: object, student: Any) -> None:
            self.counts[number] += 1
            self._runs[number](student, self.counts[number])

        return Asked("f", f"test_{number}", "It answers.", 1.0, object, run)

    def outcomes(self, attempt: Attempt) -> list[Outcome]:
        try:
            return [attempt.run_test(self.hidden_test(number)) for number in range(len(self._runs))]
        finally:
            attempt.stop()


def attempt_of(server: Server, limits: Limits, code: str = WORK, **more: Any) -> Attempt:
    return Attempt(
        server, Exercise("f", "chapter", 1, (), limits), source_of(code), RunSettings("0", **more)
    )


def source_of(code: str) -> Source:
    return join_units(parse_units([Cell(1, "code", code)])[0])
