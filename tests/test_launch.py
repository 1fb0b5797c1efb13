"""Test that all graders in a command use the standby fork server or duplicates of it."""

from __future__ import annotations

import io
import json
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from autograder import __main__ as command_line
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading import pool, pool_process, process_start
from autograder.protocol.limits import Allowance
from autograder.sandbox import command as command_module
from autograder.sandbox import launch
from autograder.sandbox.client import Server
from autograder.sandbox.command import LAYERS, READER
from autograder.sandbox.launch import STANDBY, Standby
from tests.fork_server import SandboxedProcess
from tests.small_course import RIGHT, command, make

SERVICES = (READER,)  # a server for this service starts faster than one for grading
WITHOUT_NAMESPACES = ("landlock", "seccomp", "limits")
_server: Server


@pytest.fixture
def small_day(tmp_path: Path) -> Day:
    return courses.load(make(tmp_path)).day("day1")


@pytest.fixture
def standby(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standby]:
    """Yield a standby fork server for the clients in this process."""
    made = Standby()
    monkeypatch.setattr(launch, "GRADING", SERVICES)
    monkeypatch.setattr("autograder.sandbox.client.STANDBY", made)
    made.launch()
    yield made
    made.discard()


def standby_process(standby: Standby) -> subprocess.Popen[bytes]:
    assert standby._server is not None
    assert standby._server.process is not None
    return standby._server.process


def is_duplicate(server: Server) -> bool:
    return server._launched.process is None


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.mark.parametrize("closes_first", [0, 1])
def test_servers_of_the_same_kind_are_duplicates_that_end_separately(
    standby: Standby, closes_first: int
) -> None:
    servers = [Server(services=SERVICES), Server(services=SERVICES)]
    processes = [SandboxedProcess(server) for server in servers]
    assert all(map(is_duplicate, servers))
    assert servers[0].isolation == servers[1].isolation == list(LAYERS)
    servers[closes_first].close()
    assert processes[closes_first].has_ended(30)
    assert not processes[1 - closes_first].has_ended(0)
    servers[1 - closes_first].close()
    assert processes[1 - closes_first].has_ended(30)
    assert standby_process(standby).poll() is None


def test_a_killed_duplicate_ends_only_its_own_processes(standby: Standby) -> None:
    with Server(services=SERVICES) as killed, Server(services=SERVICES) as other:
        first, second = SandboxedProcess(killed), SandboxedProcess(other)
        (inner,) = children(standby_process(standby).pid)
        os.kill(children(inner)[0], signal.SIGKILL)
        assert first.has_ended(30)
        assert not second.has_ended(0)
        assert not SandboxedProcess(killed).has_ended(0)


def test_servers_of_another_kind_are_launched(standby: Standby) -> None:
    with Server("none", services=SERVICES) as other:
        assert not is_duplicate(other)
        assert other.isolation == ["limits"]


def test_without_namespaces_duplicates_have_separate_private_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "GRADING", SERVICES)
    monkeypatch.setattr(launch, "LAYERS", WITHOUT_NAMESPACES)
    # Other tests, which run at the same time, check that nothing is left in the usual folder.
    folders = tempfile.mkdtemp()
    os.chmod(folders, 0o777)
    monkeypatch.setitem(command_module.ENVIRONMENT, "TMPDIR", folders)
    made = Standby()
    monkeypatch.setattr("autograder.sandbox.client.STANDBY", made)
    made.launch()
    try:
        with (
            Server(layers=WITHOUT_NAMESPACES, services=SERVICES) as first,
            Server(layers=WITHOUT_NAMESPACES, services=SERVICES) as second,
        ):
            # Each server's first process gets a folder with the number 1.
            processes = [SandboxedProcess(first), SandboxedProcess(second)]
            assert is_duplicate(first)
            assert is_duplicate(second)
    finally:
        made.discard()
    assert all(process.has_ended(0) for process in processes)
    os.rmdir(folders)  # it is empty


def test_a_killed_server_ends_its_duplicates_and_is_replaced(standby: Standby) -> None:
    with Server(services=SERVICES) as server:
        before = SandboxedProcess(server)
        standby_process(standby).kill()
        assert before.has_ended(30)
        after = SandboxedProcess(server)
        assert not is_duplicate(server)
        assert not after.has_ended(0)


def receive(address: str) -> None:
    """Start a fork server in this new process, as a pool process does."""
    global _server
    STANDBY.address = address
    _server = Server(services=SERVICES)


def seen() -> tuple[bool, bool, list[str]]:
    return is_duplicate(_server), "torch" in sys.modules, _server.isolation


@pytest.mark.parametrize("is_killed", [False, True])
def test_each_new_process_gets_a_duplicate_or_launches_a_server(
    standby: Standby, is_killed: bool
) -> None:
    if is_killed:
        standby_process(standby).kill()
        standby_process(standby).wait()
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        with ProcessPoolExecutor(1, context, receive, (standby.address,)) as processes:
            assert processes.submit(seen).result() == (not is_killed, False, list(LAYERS))


def receive_in_pool(
    root: Path, day: str, sandbox: str, address: str, use_results: bool, budget: Allowance
) -> None:
    receive(address)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_processes_of_a_pool_share_a_server_and_the_imports(
    jobs: int, standby: Standby, small_day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one job, the pool is a single process, so there are no imports to share."""
    monkeypatch.setattr(pool, "STANDBY", standby)
    monkeypatch.setattr(pool_process, "start", receive_in_pool)
    monkeypatch.setattr(pool_process, "isolation", seen)
    process_start.stop()  # an earlier test may have started it with different imports
    with pool.Pool(small_day, jobs, "required") as running:
        found: Any = running.isolation()
        assert found == [(True, jobs > 1, list(LAYERS))]
    assert standby_process(standby).poll() is None


@pytest.mark.slow
def test_closing_a_pool_ends_a_process_that_has_just_started(small_day: Day) -> None:
    before = multiprocessing.active_children()
    with pool.Pool(small_day, 1, "required") as running:
        running._one_by_one.submit(int).result()  # the process has been started
        (started,) = (p for p in multiprocessing.active_children() if p not in before)
        assert started.pid is not None
        pidfd = os.pidfd_open(started.pid)
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)


def test_a_pool_kills_only_its_own_processes(small_day: Day) -> None:
    """The process that uses a pool may have other child processes, such as the workers of a local cluster."""
    other = multiprocessing.get_context("spawn").Process(target=signal.pause)
    other.start()
    try:
        with pool.Pool(small_day, 1, "required"):
            pass
        assert not multiprocessing.connection.wait([other.sentinel], 0.5)
    finally:
        other.kill()
        other.join()


@pytest.mark.slow
def test_a_pool_that_is_still_starting_can_be_closed(small_day: Day) -> None:
    process_start.stop()
    with pool.Pool(small_day, 2, "required") as running:
        pass
    with pytest.raises(BrokenExecutor):
        running.isolation()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_no_process_imports_a_students_files(jobs: str, small_day: Day) -> None:
    """The student's folder contains modules with the names of modules that the processes import at startup."""
    folder = small_day.root / "class"
    folder.mkdir()
    ran = small_day.root / "ran"
    for name in (
        "autograder",
        "multiprocessing",
        "msgspec",
        "numpy",
        "selectors",
        "signal",
        "torch",
    ):
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()")
    cells = [{"cell_type": "code", "source": RIGHT}]
    (folder / "ada.ipynb").write_text(json.dumps({"cells": cells}))
    done = command(folder, "grade", "day1", "ada.ipynb", "--jobs", jobs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "100 / 100" in done.stdout
    assert not ran.exists()


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["grade", "day1", "ada.py"], 8),
        (["grade", "day1", "--jobs", "1", "ada.py"], 1),
        (["regrade", "day1", "--jobs=12"], 12),
        (["grade", "day1", "--sandbox", "required"], 8),
        (["grade", "day1", "--sandbox", "none"], 0),
        (["grade", "day1", "--cluster=local"], 0),
        (["report", "day1"], 0),
        ([], 0),
    ],
)
def test_only_commands_that_grade_launch_a_server(
    arguments: list[str], jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Standby, "launch", lambda self: started.append("server"))
    monkeypatch.setattr(process_start, "context", lambda jobs: started.append(f"{jobs} processes"))
    monkeypatch.setattr("autograder.sandbox.clock.cpu_count", lambda: 8)
    monkeypatch.setattr("autograder.cli.main", lambda: None)
    monkeypatch.setattr("sys.argv", ["autograder", *arguments])
    command_line.main()
    assert started == ["server", f"{jobs} processes"] * (jobs > 0)


def test_other_platforms_report_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("sys.argv", ["autograder", "grade", "no-such-day"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "no-such-day" in capsys.readouterr().err
    assert STANDBY.address == ""
    assert process_start.context(2).get_start_method() == "spawn"


def test_output_in_any_encoding_gives_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding="latin-1"))
    monkeypatch.setattr("autograder.cli.main", lambda: print("✓ größer", flush=True))
    monkeypatch.setattr("sys.argv", ["autograder", "doctor"])
    command_line.main()
    assert output.getvalue().decode("latin-1") == "\\u2713 größer\n"


def test_a_server_that_cannot_be_launched_is_left_to_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("too many open files")

    ran: list[bool] = []
    monkeypatch.setattr(launch, "launch", fail)
    monkeypatch.setattr("autograder.cli.main", lambda: ran.append(True))
    monkeypatch.setattr("sys.argv", ["autograder", "grade", "day1"])
    command_line.main()
    assert ran == [True]


def test_a_command_that_fails_kills_the_server_on_standby(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = standby_process(standby)
    folder = os.path.dirname(standby.address)
    assert os.stat(folder).st_mode & 0o777 == 0o700, "other users can use the server"

    def fail() -> None:
        raise SystemExit(2)

    monkeypatch.setattr(launch, "STANDBY", standby)
    monkeypatch.setattr("autograder.cli.main", fail)
    monkeypatch.setattr("sys.argv", ["autograder", "report"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert process.poll() is not None
    assert not Path(folder).exists()
