"""Test that a fork server on standby is used by the first process that needs one, and by no other."""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from autograder import __main__ as command_line
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.grading import pool, pool_process
from autograder.sandbox import launch
from autograder.sandbox.client import Server
from autograder.sandbox.command import LAYERS, READER
from autograder.sandbox.launch import STANDBY, Standby
from tests.small_course import make

SERVICES = (READER,)  # a server for this service starts faster than one for grading
_server: Server


@pytest.fixture
def small_day(tmp_path: Path) -> Day:
    return courses.load(make(tmp_path)).day("day1")


@pytest.fixture
def standby(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standby]:
    """A server on standby. It is killed at the end unless it was taken or moved."""
    monkeypatch.setattr(launch, "GRADING", SERVICES)
    made = Standby()
    made.launch()
    yield made
    made.discard()
    made.forget_moved()


def pid_of(standby: Standby) -> int:
    assert standby._launched is not None
    return standby._launched.process.pid


def start(standby: Standby) -> None:
    """Start a server in a new process, as the processes of a pool do."""
    global _server
    STANDBY.receive(standby)
    _server = Server(services=SERVICES)


def seen() -> tuple[int, list[str]]:
    isolation = _server.isolation
    return _server._process.pid, isolation


def test_the_first_server_of_its_kind_takes_the_one_on_standby(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = pid_of(standby)
    monkeypatch.setattr("autograder.sandbox.client.STANDBY", standby)
    with (
        Server("none", services=SERVICES) as other,
        Server(services=SERVICES) as first,
        Server(services=SERVICES) as second,
    ):
        assert first._process.pid == pid
        assert pid not in (other._process.pid, second._process.pid)
        assert other.isolation == ["limits"]
        assert first.isolation == second.isolation == list(LAYERS)


def test_a_server_moves_to_the_first_new_process_and_exits_with_it(standby: Standby) -> None:
    pid = pid_of(standby)
    with ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), start, (standby,)
    ) as processes:
        assert processes.submit(seen).result() == (pid, list(LAYERS))
        standby.forget_moved()
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), start, (standby,)
    ) as processes:
        assert processes.submit(seen).result()[0] != pid
    assert standby._moved is not None
    assert standby._moved.process.wait(30) == 0


def test_a_moved_server_that_was_killed_is_replaced(standby: Standby) -> None:
    standby_process = standby._launched.process if standby._launched else None
    assert isinstance(standby_process, subprocess.Popen)
    standby_process.kill()

    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), start, (standby,)
    ) as processes:
        pid, isolation = processes.submit(seen).result()
    assert (pid != standby_process.pid, isolation) == (True, list(LAYERS))


def start_in_pool(root: Path, day: str, sandbox: str, standby: Standby) -> None:
    start(standby)


def test_the_first_process_of_a_pool_uses_the_server_and_takes_it_along(
    standby: Standby, small_day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = pid_of(standby)
    monkeypatch.setattr(pool, "STANDBY", standby)
    monkeypatch.setattr(pool_process, "start", start_in_pool)
    monkeypatch.setattr(pool_process, "isolation", seen)
    with pool.Pool(small_day, 1, "required") as running:
        found: Any = running.isolation()
        assert found == [(pid, list(LAYERS))]
        for child in multiprocessing.active_children():
            child.kill()
        assert standby._moved is not None
        assert standby._moved.process.wait(30) == 0


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
    found: list[Standby] = []
    monkeypatch.setattr(Standby, "launch", lambda self: found.append(self))
    monkeypatch.setattr("autograder.cli.main", lambda: None)
    monkeypatch.setattr("sys.argv", ["autograder", *arguments])
    command_line.main()
    assert found == [STANDBY] * is_launched


def test_other_platforms_report_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("sys.argv", ["autograder", "grade", "no-such-day"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "no-such-day" in capsys.readouterr().err
    assert STANDBY._launched is None


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
    assert standby._launched is not None
    process = standby._launched.process

    def fail() -> None:
        raise SystemExit(2)

    monkeypatch.setattr(launch, "STANDBY", standby)
    monkeypatch.setattr("autograder.cli.main", fail)
    monkeypatch.setattr("sys.argv", ["autograder", "grade"])
    monkeypatch.setattr(Standby, "launch", lambda self: None)
    with pytest.raises(SystemExit):
        command_line.main()
    assert process.poll() is not None
