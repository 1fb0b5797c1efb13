"""Test that a damaged file in a class archive does not affect the other files and leaves no process running."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from autograder.submissions import client
from autograder.submissions.client import Reader
from autograder.submissions.submission import read_submissions
from tests.test_submission import found, notebook, write, zipped


@pytest.mark.slow
def test_member_that_crashes_its_process_affects_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the process that reads one file has crashed, the reader lists the class archive again and reads the other files."""
    monkeypatch.setattr(client, "MEMORY", 60_000_000)
    files = {f"{who}.ipynb": notebook() for who in ("ada", "zoe")}
    plots = json.dumps({"cells": [{"source": "x", "outputs": [os.urandom(30_000_000).hex()]}]})
    write(tmp_path, {"class.zip": zipped(files | {"eve.ipynb": plots.encode()})})
    ada, eve, zoe = found(tmp_path / "class.zip")
    assert (ada.readable, eve.readable, zoe.readable) == (True, False, True)


@pytest.mark.parametrize("data", [b"PK\x05\x06", b"x" * 1024, b""])
def test_processes_of_broken_archives_are_stopped(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, {"class.tar": data})
    with Reader() as own:
        running: set[int] = set()
        start, stop = own.server.start, own.server.stop

        def started(*arguments: Any, **named: Any) -> Any:
            wire, number = start(*arguments, **named)
            running.add(number)
            return wire, number

        def stopped(number: int, *arguments: Any, **named: Any) -> int:
            running.remove(number)
            return stop(number, *arguments, **named)

        own.server.start, own.server.stop = started, stopped  # type: ignore[method-assign]
        (one,) = read_submissions([tmp_path / "class.tar"], "day1", own)
        assert not one.readable
        assert not running
