"""Keep the events of a session in `.autograder/live/DAY.jsonl`, one per line. Entry points: `Timeline` and `read`.

The file contains students' ids, states and mistakes, but no code and no marks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from autograder.course.files import FileError, make_folder, write_atomically, writing
from autograder.course.state_folder import course_folder
from autograder.live.room import Event

PAUSE = 12 * 3600  # seconds without an event after which a new session begins
DECODER = msgspec.json.Decoder(Event)


def timeline_file(root: Path, day: str) -> Path:
    """Return the file with the events of a day's last session."""
    return root / ".autograder" / "live" / f"{day}.jsonl"


def read(file: Path) -> Iterator[Event]:
    """Yield the events in a file. Skip damaged lines, which a killed process or a full disk may have left."""
    try:
        lines = file.read_bytes().splitlines() if file.exists() else []
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}") from None
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield DECODER.decode(line)


def forget(root: Path, day: str, key: str) -> None:
    """Delete a student's events from a day's files. Raises FileError, for example while the board is running."""
    last = timeline_file(root, day)
    for file in [*last.parent.glob(last.name), *last.parent.glob(f"{day}-*.jsonl")]:
        with _open_locked(file, day):
            kept = [_line(e) for e in read(file) if key not in e.student.split("\n")]
            with writing(file):
                write_atomically(file, b"".join(kept))


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _open_locked(file: Path, day: str) -> BinaryIO:
    with writing(file):
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        opened = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.close()
            raise FileError(f"`autograder live {day}` is already running") from None
    return opened


class Timeline:
    """A session's events. Only one process at a time can append to the file."""

    def __init__(self, root: Path, day: str) -> None:
        """Open and lock the file. Raises FileError if it cannot be written, or if the day's board is already running."""
        course_folder(root)
        self._path = timeline_file(root, day)
        make_folder(self._path.parent)
        self._file = _open_locked(self._path, day)
        self.earlier = [*read(self._path)]
        if self.earlier and time.time() - self.earlier[-1].time > PAUSE:
            date = time.strftime("%Y-%m-%d", time.localtime(self.earlier[-1].time))
            with writing(self._path):
                os.replace(self._path, self._path.with_name(f"{day}-{date}.jsonl"))
            self._file.close()
            self._file = _open_locked(self._path, day)
            self.earlier = []
        self._unwritten = b"\n"  # ends a line that a killed process has left

    def append(self, event: Event) -> None:
        """Write an event. Events that could not be written follow with the next one. Raises FileError."""
        self._unwritten += _line(event)
        with writing(self._path):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
