"""Test that damage anywhere in a file produces a one-sentence error message, not a traceback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from autograder.course.files import FileError
from autograder.course.state_folder import course_folder
from autograder.marks import overrides
from autograder.marks.overrides import OverrideStore


def damaged(data: bytes, start: int = 0) -> Iterator[bytes]:
    """Yield copies of the data with a few bytes replaced, all of them at or after position `start`."""
    draw = random.Random(0)
    for count in range(300):
        copy = bytearray(data)
        for _ in range(1 + count % 5):
            copy[draw.randrange(start, len(data))] = draw.randrange(256)
        yield bytes(copy)


def test_damaged_overrides(tmp_path: Path) -> None:
    file = course_folder(tmp_path) / overrides.OVERRIDES_DB
    with OverrideStore(tmp_path) as store:
        store.add_times("day1", {}, {("51", "f00"): datetime(2026, 12, 1)})
    whole = file.read_bytes()
    cases = [
        whole.replace(b"CREATE TABLE override", b"CREATE TABLE ov\xd0rride"),
        whole.replace(b"2026-12-01T", b"2026-99-01T"),
    ]
    assert whole not in cases
    for data in (*cases, *damaged(whole)):
        file.write_bytes(data)
        try:
            with OverrideStore(tmp_path) as store:
                store.read("day1")
                store.times("day1", UTC)
        except FileError:
            continue
        assert data not in cases, "the damage was not noticed"
