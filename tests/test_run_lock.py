"""Check that a hidden test that must run alone waits for all other tests, and that the other tests wait for it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from autograder.execution.run_lock import RunLock

pytestmark = pytest.mark.slow

HOLDER = """
import sys
from pathlib import Path
from autograder.execution.run_lock import RunLock
print("ready", flush=True)
with getattr(RunLock(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(root: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder
        holder.kill()


def gets_lock(holder: subprocess.Popen[str], seconds: float) -> bool:
    """Wait up to `seconds` for a process to get its lock. Return whether it did."""
    stdout = holder.stdout
    assert stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.append(stdout.readline()))
    reading.start()
    reading.join(seconds)
    return lines == ["held\n"]


def wait_for_locks(count: int) -> None:
    """Wait until `count` requests for locks in this process are blocked."""
    own, end = str(os.getpid()), time.monotonic() + 10
    while time.monotonic() < end:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        # The kernel marks a blocked request with an arrow. Its process id is the sixth field.
        if sum(line[1] == "->" and line[5] == own for line in lines) == count:
            return
        os.sched_yield()
    raise AssertionError(f"there were never exactly {count} blocked requests")


def unsupported(*_: object) -> NoReturn:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("first", ["shared", "exclusive"])
@pytest.mark.parametrize("second", ["shared", "exclusive"])
def test_an_exclusive_turn_excludes_all_others(first: str, second: str, tmp_path: Path) -> None:
    with holding(tmp_path, first) as holder:
        assert gets_lock(holder, 10)
        with holding(tmp_path, second) as other:
            has_to_wait = "exclusive" in (first, second)
            assert gets_lock(other, 0.5 if has_to_wait else 10) != has_to_wait
            holder.kill()  # the kernel releases the lock when the process dies
            assert other.poll() is None
            with holding(tmp_path, "shared") as third:
                other.kill()
                assert gets_lock(third, 10)


def test_waiting_for_an_exclusive_turn_blocks_later_ones(tmp_path: Path) -> None:
    locks = [RunLock(tmp_path) for _ in range(3)]
    order = []

    def alone() -> None:
        with locks[1].exclusive():
            order.append("alone")

    def beside() -> None:
        with locks[2].shared():
            order.append("beside")

    with locks[0].shared():
        threads = [threading.Thread(target=work) for work in (alone, beside)]
        for number, thread in enumerate(threads, start=1):
            thread.start()
            wait_for_locks(number)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["alone", "beside"]


def test_without_support_for_locks_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", unsupported)
    with RunLock(tmp_path).shared(), RunLock(tmp_path).exclusive():
        pass


def test_without_a_writable_folder_there_are_no_locks(tmp_path: Path) -> None:
    for root in (None, tmp_path / "not there"):
        with RunLock(root).shared(), RunLock(root).exclusive():
            pass
