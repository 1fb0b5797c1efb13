"""Test that files in `.autograder/` are written atomically, and that grading works if the folder is not writable."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import pytest

from autograder.course import state_folder
from autograder.course.files import write_atomically
from tests import small_course


def refuse(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_cached_data_can_be_read_and_replaced(tmp_path: Path) -> None:
    assert state_folder.read_cache(tmp_path, "x") is None
    for data in (b"first", b"second"):
        state_folder.write_cache(tmp_path, "x", data)
        assert state_folder.read_cache(tmp_path, "x") == data
    assert [file.name for file in state_folder.course_folder(tmp_path).iterdir()] == ["x"]


def test_a_damaged_cache_counts_as_missing(tmp_path: Path) -> None:
    for data in (b'{"a": [1]}', b'{"a": [1', b"\0\0", b'["a"]'):
        state_folder.write_cache(tmp_path, "x", data)
        value = state_folder.read_json_cache(tmp_path, "x", dict[str, list[int]])
        assert value == ({"a": [1]} if data.endswith(b"}") else None)


def test_only_the_newest_versions_of_a_cache_are_kept(tmp_path: Path) -> None:
    others = ["secret", "part-abc", f"mistakes-day1-attention_scores-{0:016x}.pt"]
    for name in others:
        state_folder.write_cache(tmp_path, name, b"kept")
    names = [f"mistakes-day1-attention-{number:016x}.pt" for number in (9, 1, 5, 2, 3)]
    for time, name in enumerate(names):
        state_folder.write_cache(tmp_path, name, b"data")
        os.utime(state_folder.course_folder(tmp_path) / name, (time, time))
    state_folder.write_cache(tmp_path, names[2], b"newer")
    left = {file.name for file in state_folder.course_folder(tmp_path).iterdir()}
    assert left == {*others, *names[2:]}
    assert state_folder.read_cache(tmp_path, names[2]) == b"newer"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    with pytest.raises(PermissionError):
        write_atomically(file, b"new", refuse)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    state_folder.write_cache(tmp_path, "x", b"data")
    assert state_folder.read_cache(tmp_path, "x") is None


def report_data(root: Path, name: str, report: Connection) -> None:
    report.send("ready")
    read = partial(state_folder.read_cache, root, name)
    report.send(state_folder.compute_once(root, name, read, lambda: b"own data"))


@pytest.mark.parametrize(("name", "seen"), [("x", b"data"), ("y", b"own data")])
def test_a_process_waits_for_another_that_computes_the_same_data(
    tmp_path: Path, name: str, seen: bytes | None
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=report_data, args=(tmp_path, name, theirs))

    def compute() -> bytes:
        other.start()
        assert ours.recv() == "ready"
        assert ours.poll(0.5 if name == "x" else 60) == (name != "x")
        state_folder.write_cache(tmp_path, "x", b"data")
        return b"data"

    read = partial(state_folder.read_cache, tmp_path, "x")
    assert state_folder.compute_once(tmp_path, "x", read, compute) == b"data"
    assert ours.recv() == seen
    other.join()


def test_nothing_is_locked_if_the_folder_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / ".autograder").write_text("")
    assert state_folder.compute_once(tmp_path, "x", lambda: None, lambda: b"data") == b"data"


@pytest.mark.slow
def test_grading_needs_no_course_folder(tmp_path: Path) -> None:
    """Create a file named `.autograder`, so that the folder cannot be created. This simulates a read-only file system."""
    root = small_course.make(tmp_path / "course")
    (root / ".autograder").write_text("")
    small_course.hand_in(tmp_path / "class", 2)
    marks = tmp_path / "marks.json"
    arguments = ("grade", "day1", str(tmp_path / "class"), "--json", str(marks), "--no-store")
    done = small_course.command(root, *arguments)
    assert done.returncode == 0, done.stderr
    submissions = json.loads(marks.read_text())["submissions"]
    assert [submission["points"] for submission in submissions] == [100, 60]
    assert "Traceback" not in done.stderr
