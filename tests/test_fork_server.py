"""Test when a fork server starts workers, and what happens if the server or the grader is killed."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.command import READER
from autograder.sandbox.control import Start
from autograder.sandbox.errors import NoIsolation, WorkerDied
from autograder.sandbox.process import Process
from tests.fork_server import kill, process_of
from tests.sandboxed_code import PATIENT, loaded
from tests.timed_work import QUICK, SLEEPY, working

pytestmark = pytest.mark.slow


def test_no_process_starts_without_isolation() -> None:
    with Server(layers=["limits"], services=(READER,)) as server:
        with pytest.raises(NoIsolation) as caught:
            Process(server, PATIENT)
        text = str(caught.value)
        for word in ("files", "network", "processes", "doctor"):
            assert word in text
        assert "memory" not in text
        assert str(pickle.loads(pickle.dumps(caught.value))) == text


@pytest.mark.parametrize("sandbox", ["required", "none"])
def test_no_server_starts_on_a_system_other_than_linux(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(NoIsolation, match="student code can only run on Linux"):
        Server(sandbox, services=(READER,))


def test_a_dead_server_is_restarted(server: Server) -> None:
    with loaded(server, "def f(): return 1") as student:
        assert student.f() == 1
    kill(server)
    with loaded(server, "def f(): return 2") as student:
        assert student.f() == 2
    assert "seccomp" in server.isolation


def test_a_server_that_cannot_fork_is_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = server._request_child
    refused = iter(range(2))

    def first_impossible(kind: Start) -> Any:
        impossible = next(refused, None) is not None
        return request(msgspec.structs.replace(kind, memory=1 << 63) if impossible else kind)

    with loaded(server, "def f(): return 1") as student:  # the next process is forked in advance
        assert student.f() == 1
    before = process_of(server).pid
    monkeypatch.setattr(server, "_request_child", first_impossible)
    for value in (2, 3):
        with loaded(server, f"def f(): return {value}") as student:
            assert student.f() == value
    assert process_of(server).pid != before


def test_killing_the_grader_ends_its_processes() -> None:
    code = """
import os, signal, sys
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER
from autograder.submissions.reader_client import ReaderProcess
server = Server(services=(READER,))
process = ReaderProcess(server)
print(server._launched.process.pid, flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as grader:
        assert grader.stdin is not None
        assert grader.stdout is not None
        watched = os.pidfd_open(int(grader.stdout.readline()))
        grader.stdin.write(b"x")
        grader.stdin.flush()
        # The server's outer process exits only after its inner process and all workers have exited.
        assert select.select([watched], [], [], 10)[0], "the fork server is still running"
        os.close(watched)
        assert grader.wait() == -signal.SIGKILL


def test_a_server_serves_several_processes_at_once(server: Server) -> None:
    with working(server, QUICK) as first, working(server, QUICK) as second:
        assert first.f(0) == second.f(0) == 0
        with pytest.raises(WorkerDied, match="exit code 3"):
            first.die()
        with working(server, SLEEPY) as third:
            assert second.f(0) == third.f(0) == 0
        with pytest.raises(WorkerDied, match="exit code 3"):
            second.die()


def test_the_kernel_kills_student_code_first_when_memory_runs_out(server: Server) -> None:
    with working(server, QUICK) as student:
        pid = student.connection._process._meter._clock._pid  # type: ignore[attr-defined]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


THREADS = """
import threading, time
held = threading.Event()
def start(count, seconds):
    for _ in range(count): threading.Thread(target=held.wait, daemon=True).start()
    time.sleep(seconds)
    return count
"""


def test_threads_of_one_process_do_not_prevent_those_of_another_without_namespaces() -> None:
    layers = ["landlock", "seccomp", "limits"]
    with (
        Server(layers=layers) as server,
        loaded(server, THREADS) as honest,
        loaded(server, THREADS) as hostile,
    ):
        assert hostile.start(60, 0.1) == 60
        assert honest.start(8, 0) == 8
        with pytest.raises(WorkerDied, match="Killed"):
            hostile.start(60, 5)
        assert honest.start(8, 0) == 8
