"""Test that a fork server on standby, and duplicates of it, serve all graders of a command."""

from __future__ import annotations

import glob
import multiprocessing
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from autograder import __main__ as command_line
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading import pool, pool_process, pool_start
from autograder.protocol.limits import Limits
from autograder.sandbox import launch
from autograder.sandbox.client import Server
from autograder.sandbox.command import LAYERS, READER
from autograder.sandbox.launch import STANDBY, Standby
from tests.small_course import make

SERVICES = (READER,)  # a server for this service starts faster than one for grading
WITHOUT_NAMESPACES = ("landlock", "seccomp", "limits")
LIMITS = Limits(5.0, 5.0, 1 << 30)
_server: Server


@pytest.fixture
def small_day(tmp_path: Path) -> Day:
    return courses.load(make(tmp_path)).day("day1")


@pytest.fixture
def standby(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standby]:
    """A server on standby, which this process's clients use."""
    made = Standby()
    monkeypatch.setattr(launch, "GRADING", SERVICES)
    monkeypatch.setattr("autograder.sandbox.client.STANDBY", made)
    made.launch()
    yield made
    made.discard()


def process_of(standby: Standby) -> subprocess.Popen[bytes]:
    assert standby._held is not None
    assert standby._held.process is not None
    return standby._held.process


def is_duplicate(server: Server) -> bool:
    return server._launched.process is None


def start_process(server: Server) -> int:
    """Start a sandboxed process and return a pidfd, which becomes readable when the process has ended."""
    wire, number = server.start(LIMITS, service=READER)
    wire.detach()  # the process ends when the wire is closed
    return os.dup(server._running[number])


def has_ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def test_servers_of_the_same_kind_are_duplicates_that_end_separately(standby: Standby) -> None:
    with Server(services=SERVICES) as first:
        one = start_process(first)
        with Server(services=SERVICES) as second:
            other = start_process(second)
            assert is_duplicate(first)
            assert is_duplicate(second)
            assert first.isolation == second.isolation == list(LAYERS)
        assert has_ended(other, 30)
        assert not has_ended(one, 0)
    assert has_ended(one, 30)
    assert process_of(standby).poll() is None


def test_servers_of_another_kind_are_launched(standby: Standby) -> None:
    with Server("none", services=SERVICES) as other:
        assert not is_duplicate(other)
        assert other.isolation == ["limits"]


def test_without_namespaces_duplicates_have_private_folders_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "GRADING", SERVICES)
    monkeypatch.setattr(launch, "LAYERS", WITHOUT_NAMESPACES)
    made = Standby()
    monkeypatch.setattr("autograder.sandbox.client.STANDBY", made)
    pattern = f"{tempfile.gettempdir()}/autograder-*/1"
    before = {*glob.glob(pattern)}
    made.launch()
    with (
        Server(layers=WITHOUT_NAMESPACES, services=SERVICES) as first,
        Server(layers=WITHOUT_NAMESPACES, services=SERVICES) as second,
    ):
        ends = [start_process(first), start_process(second)]
        assert is_duplicate(first)
        assert is_duplicate(second)
        assert len({*glob.glob(pattern)} - before) == 2
    made.discard()
    assert all(has_ended(end, 0) for end in ends)
    assert not {*glob.glob(pattern)} - before


def test_a_killed_server_ends_its_duplicates_and_is_replaced(standby: Standby) -> None:
    with Server(services=SERVICES) as server:
        before = start_process(server)
        process_of(standby).kill()
        process_of(standby).wait()
        assert has_ended(before, 30)
        after = start_process(server)
        assert not is_duplicate(server)
        assert not has_ended(after, 0)


def receive(standby: Standby) -> None:
    """Start a server in a new process, as the processes of a pool do."""
    global _server
    STANDBY.receive(standby)
    _server = Server(services=SERVICES)


def seen(_: object = None) -> tuple[bool, list[str]]:
    return is_duplicate(_server), _server.isolation


@pytest.mark.parametrize("is_killed", [False, True])
def test_each_new_process_gets_a_duplicate_or_launches_a_server(
    standby: Standby, is_killed: bool
) -> None:
    if is_killed:
        process_of(standby).kill()
        process_of(standby).wait()
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        with ProcessPoolExecutor(1, context, receive, (standby,)) as processes:
            assert processes.submit(seen).result() == (not is_killed, list(LAYERS))
            standby.close_sent()


def receive_in_pool(root: Path, day: str, sandbox: str, standby: Standby) -> None:
    receive(standby)


def test_the_processes_of_a_pool_use_duplicates(
    standby: Standby, small_day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "STANDBY", standby)
    monkeypatch.setattr(pool_process, "start", receive_in_pool)
    monkeypatch.setattr(pool_process, "isolation", seen)
    with pool.Pool(small_day, 1, "required") as running:
        found: Any = running.isolation()
        assert found == [(True, list(LAYERS))]
    assert process_of(standby).poll() is None


@pytest.mark.parametrize(
    ("arguments", "is_launched"),
    [
        (["grade", "day1", "ada.py"], True),
        (["regrade", "day1"], True),
        (["grade", "day1", "--sandbox", "none"], False),
        (["grade", "day1", "--cluster=local"], False),
        (["report", "day1"], False),
        ([], False),
    ],
)
def test_only_commands_that_grade_launch_a_server(
    arguments: list[str], is_launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Standby, "launch", lambda self: started.append("server"))
    monkeypatch.setattr(pool_start, "start_importing", lambda: started.append("imports"))
    monkeypatch.setattr("autograder.cli.main", lambda: None)
    monkeypatch.setattr("sys.argv", ["autograder", *arguments])
    command_line.main()
    assert started == ["server", "imports"] * is_launched


def test_other_platforms_report_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("sys.argv", ["autograder", "grade", "no-such-day"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "no-such-day" in capsys.readouterr().err
    assert STANDBY._held is None
    assert pool_start.context().get_start_method() == "spawn"


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
    process = process_of(standby)

    def fail() -> None:
        raise SystemExit(2)

    monkeypatch.setattr(launch, "STANDBY", standby)
    monkeypatch.setattr("autograder.cli.main", fail)
    monkeypatch.setattr("sys.argv", ["autograder", "report"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert process.poll() is not None
