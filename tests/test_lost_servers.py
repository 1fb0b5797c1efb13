"""Test that losing a fork server changes no marks."""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from autograder.course import config as courses
from autograder.grading.grader import Grader
from autograder.sandbox.client import Server
from autograder.sandbox.errors import (
    MustRunAlone,
    ServerLost,
    WorkerDied,
    retry_if_server_lost,
)
from tests.conftest import handed_in
from tests.fork_server import process_of
from tests.grading_runs import without_times
from tests.small_course import RIGHT, WRONG, make
from tests.timed_work import QUICK, Scripted, attempt_of, working

pytestmark = pytest.mark.slow

# How often fork servers are killed at random. `make attacks` does it more often.
KILLS = 10 if os.environ.get("ATTACKS") == "all" else 1


def kill(server: Server) -> None:
    """Kill the fork server and wait until it has exited."""
    os.kill(inner(server), signal.SIGKILL)
    poll = select.poll()
    poll.register(server._control, 0)
    assert poll.poll(10_000)


def inner(server: Server) -> int:
    """Return the id of the process that forks workers: either the fork server's outer process or its only child."""
    # Reading `isolation` waits until the server is up.
    has_inner = "namespaces" in server.isolation
    outer = process_of(server).pid
    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    return int(children[0]) if has_inner else outer


@pytest.mark.parametrize("moment", ["before the call", "during the call", "after a crash"])
def test_losing_a_server_affects_neither_the_code_nor_new_processes(
    moment: str, server: Server
) -> None:
    with working(server, QUICK) as old:
        if moment == "after a crash":
            # After the server has died, the exit status of its workers is unknown.
            with pytest.raises(ServerLost):
                _die_and_kill(old, server)
        elif moment == "before the call":
            kill(server)
        else:
            threading.Timer(0.3, kill, [server]).start()
        if moment != "after a crash":
            with pytest.raises(ServerLost):
                old.sleep(2)  # a short call could finish before the worker is killed
        with pytest.raises(ServerLost):
            old.f(0)
        with working(server, QUICK) as new:
            old.connection._process.stop()
            assert new.f(0) == 0
            with pytest.raises(WorkerDied, match="exit code 3"):
                new.die()


def _die_and_kill(student: Any, server: Server) -> None:
    end = server.end

    def later(number: int) -> Any:
        kill(server)
        return end(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "end", later)
        student.die()


def test_a_hidden_test_runs_again_after_its_server_was_lost(server: Server) -> None:
    def killed(student: Any, run: int) -> None:
        student.f(0)
        if run == 1:
            kill(server)
            while True:  # the worker may briefly outlive its server
                student.f(0)

    tests = Scripted(killed, lambda student, run: student.f(0))
    outcomes = tests.outcomes(attempt_of(server, QUICK))
    assert [outcome.passed for outcome in outcomes] == [True, True]
    assert tests.counts == [2, 1]


def test_a_killed_worker_counts_only_if_the_submission_is_alone(server: Server) -> None:
    def killed(student: Any, run: int) -> None:
        student.f(0)
        worker = student.connection._process._worker
        signal.pidfd_send_signal(server._running[worker], signal.SIGKILL)
        student.f(1)

    tests = Scripted(killed, lambda student, run: student.f(0))
    outcomes = tests.outcomes(attempt_of(server, QUICK))
    assert [outcome.status for outcome in outcomes if not outcome.passed] == ["crashed"]
    assert [outcome.passed for outcome in outcomes] == [False, True]
    with pytest.raises(MustRunAlone):
        tests.outcomes(attempt_of(server, QUICK, is_alone=False))


def test_losing_a_server_repeatedly_is_an_error() -> None:
    tried = []

    def lost() -> None:
        tried.append(1)
        raise ServerLost

    with pytest.raises(ServerLost):
        retry_if_server_lost(lost)
    assert len(tried) == 4


DYING = RIGHT.replace("b, n, d = x.shape", "import os; os._exit(3)")
ENDLESS = RIGHT.replace("b, n, d = x.shape", "while True: pass")


def test_killing_servers_at_random_changes_no_marks(tmp_path: Path, server: Server) -> None:
    make(tmp_path)
    toml = tmp_path / "grading.toml"
    toml.write_text(f"[defaults]\ncpu_seconds = 0.2\n{toml.read_text()}")
    works = [handed_in(work) for work in (RIGHT, WRONG, DYING, ENDLESS)]
    draw = random.Random(0)
    grader = Grader(courses.load(tmp_path).day("day1"), server, b"tests")

    def grade() -> list[Any]:
        return [without_times(grader.grade(work)) for work in works]

    uninterrupted = grade()
    started = time.monotonic()
    assert grade() == uninterrupted
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        # The second kill may happen while a new server is starting, or later.
        delays = [draw.uniform(0, seconds), draw.uniform(0, seconds + 4)]
        killers = [threading.Timer(delay, kill_any, [server, draw]) for delay in delays]
        for killer in killers:
            killer.start()
        try:
            assert grade() == uninterrupted, delays
        finally:
            for killer in killers:
                killer.cancel()
                killer.join()


def kill_any(server: Server, draw: random.Random) -> None:
    """Kill either the fork server's outer process or one of its child processes, chosen at random."""
    outer = process_of(server).pid
    with suppress(OSError):  # the process may already have exited
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        os.kill(draw.choice([outer, *map(int, children)]), signal.SIGKILL)
