"""Test that a damaged file in a class archive does not affect the other files and leaves no process running."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autograder.submissions import reader_client
from autograder.submissions.reader_client import Reader
from autograder.submissions.submission import read_submissions
from tests.test_submission import found, notebook, write, zipped


@pytest.mark.slow
def test_member_that_crashes_its_process_affects_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the process that reads one file has crashed, the reader lists the class archive again and reads the other files."""
    monkeypatch.setattr(reader_client, "MEMORY", 60_000_000)
    files = {f"{who}.ipynb": notebook() for who in ("ada", "zoe")}
    plots = json.dumps({"cells": [{"source": "x", "outputs": [os.urandom(30_000_000).hex()]}]})
    write(tmp_path, {"class.zip": zipped(files | {"eve.ipynb": plots.encode()})})
    ada, eve, zoe = found(tmp_path / "class.zip")
    assert (ada.readable, eve.readable, zoe.readable) == (True, False, True)


def _of_zeros(archive: zipfile.ZipFile) -> None:
    for number in range(300):
        archive.writestr(f"eve/{number}.txt", bytes(1_000_000))


def _of_many_bytes(archive: zipfile.ZipFile) -> None:
    for number in range(20):
        archive.writestr(f"eve/{number}.txt", b"x")
        archive.infolist()[-1].file_size, archive.infolist()[-1].compress_size = 280 << 20, 2 << 20


def _of_many_files(archive: zipfile.ZipFile) -> None:
    for number in range(70_000):  # zip files with more than 65,535 entries have a different format
        archive.writestr(f"eve/{number}.txt", b"")


@pytest.mark.slow
@pytest.mark.parametrize("add", [_of_zeros, _of_many_bytes, _of_many_files])
def test_one_students_files_do_not_make_a_class_archive_unreadable(
    add: Callable[[zipfile.ZipFile], None], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "class.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ada/day1.ipynb", notebook())
        add(archive)
        archive.writestr("zoe/day1.ipynb", notebook())
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

        def stopped(number: int) -> None:
            running.remove(number)
            stop(number)

        own.server.start, own.server.stop = started, stopped  # type: ignore[method-assign]
        (one,) = read_submissions([tmp_path / "class.tar"], "day1", own)
        assert not one.readable
        assert not running
