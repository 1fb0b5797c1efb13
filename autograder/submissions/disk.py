"""Folders and regular files on the disk, for places.py; opens what is given and nothing that a name leads to elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from autograder.protocol.plain_text import printable
from autograder.submissions import platforms
from autograder.submissions.client import Reader, ReadError, positional_reader
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.places import Metadata

SUBMITTED = "submitted"  # nbgrader's folder, in which are STUDENT/DAY


class NotRegularFile(Exception):
    """Not a regular file; the message says what it is."""


class DiskFolder:
    """A folder; `place` is its path from the one where the search began."""

    kind = "folder"

    def __init__(self, path: Path, reader: Reader, place: str = "") -> None:
        self.path = path
        self.name = os.path.basename(os.path.abspath(path))
        self.place = place
        self._reader = reader

    def entries(self) -> tuple[list[str], Sequence[DiskFolder]]:
        """The names of its files, and its folders, sorted. Raises OSError."""
        files, folders = [], []
        with os.scandir(self.path) as scan:
            for entry in sorted(scan, key=lambda entry: os.fsencode(entry.name)):
                if entry.is_dir(follow_symlinks=False):
                    inner = self.path / entry.name
                    folders.append(DiskFolder(inner, self._reader, f"{self.place}{entry.name}/"))
                else:
                    files.append(entry.name)
        return files, folders

    def nbgrader_owner(self, day: str) -> HandedIn | None:
        """Whom nbgrader made this folder for: it is `submitted/STUDENT/DAY`, or has nbgrader's own time."""
        above = os.path.dirname(os.path.abspath(self.path))
        if self.name != day or not os.path.basename(above):
            return None
        person = Person(printable(os.path.basename(above)))
        time = platforms.parse_timestamp(read_small_file(self.path / platforms.TIMESTAMP))
        is_nbgraders = os.path.basename(os.path.dirname(above)) == SUBMITTED
        return HandedIn((person,), time=time) if time or is_nbgraders else None

    def read_metadata(self) -> Metadata:
        """What Gradescope's file in this folder says."""
        file = self.path / platforms.METADATA
        try:
            with open_regular(file) as open_file:
                return Metadata(self._reader.read_metadata(*positional_reader(open_file)))
        except (OSError, NotRegularFile, ReadError) as error:
            return Metadata(problem=f"{platforms.METADATA} could not be read: {error}")


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file and nothing else: a FIFO would wait, a device may act, a link lies. Raises NotRegularFile."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        raise NotRegularFile(
            "it is a link, which is not followed" if is_link else "it is a special file"
        )
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged in between
        file.close()
        raise NotRegularFile("it is a special file")
    return file


def read_small_file(path: Path) -> str:
    """The text of a file of nbgrader's own, which is small; nothing where it is not."""
    with suppress(OSError, ValueError, NotRegularFile), open_regular(path) as file:
        data = file.read(platforms.MAX_TIMESTAMP + 1)
        return data.decode("ascii") if len(data) <= platforms.MAX_TIMESTAMP else ""
    return ""


def owner_from_path(path: Path, day: str, reader: Reader) -> HandedIn | None:
    """Whose all of this path is, as the names on it say that the TA gave; None where they say nothing."""
    absolute = Path(os.path.abspath(path))
    for folder in [*reversed(absolute.parents), absolute]:
        if owner := platforms.parse_moodle_name(folder.name) or DiskFolder(
            folder, reader
        ).nbgrader_owner(day):
            return owner
        if (
            platforms.GRADESCOPE.fullmatch(folder.name)
            and (folder.parent / platforms.METADATA).is_file()
        ):
            people = DiskFolder(folder.parent, reader).read_metadata().people
            if folder.name in people:
                return people[folder.name]
    return platforms.parse_canvas_name(absolute.name)
