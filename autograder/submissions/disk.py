"""List folders on disk, without following links."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from autograder.plain_text import printable
from autograder.submissions import origin
from autograder.submissions.origin import Origin, Person
from autograder.submissions.places import SUBMITTED, Metadata
from autograder.submissions.reader_client import (
    NotRegularFile,
    Reader,
    ReadError,
    open_folder,
    open_regular,
    positional_reader,
)

CONFIG = "nbgrader_config.py"
CONFIGURED = re.compile(
    r"^\s*c\.CourseDirectory\.submitted_directory\s*=\s*([\"'])(?P<name>[^\"'/\n]+)\1", re.MULTILINE
)


class DiskFolder:
    """A folder on disk. `place` is its path relative to `top`, the folder where the search started."""

    kind = "folder"

    def __init__(self, top: Path, reader: Reader, place: str = "") -> None:
        self.path = top / place
        self.name = os.path.basename(os.path.abspath(self.path))
        self.place = place
        self._top = top
        self._reader = reader

    def entries(self) -> tuple[list[str], Sequence[DiskFolder]]:
        """Return the sorted names of the files in this folder, and the sorted subfolders. Raises OSError on failure."""
        files, folders = [], []
        with open_folder(self._top, self.place) as folder, os.scandir(folder) as scan:
            for entry in sorted(scan, key=lambda entry: os.fsencode(entry.name)):
                if entry.is_dir(follow_symlinks=False):
                    inner = f"{self.place}{entry.name}/"
                    folders.append(DiskFolder(self._top, self._reader, inner))
                else:
                    files.append(entry.name)
        return files, folders

    def nbgrader_owner(self, day: str) -> Origin | None:
        """If nbgrader created this folder, return the student and the submission time; otherwise, return None.

        nbgrader collects submissions into `submitted/STUDENT/DAY`, but `nbgrader_config.py` may rename `submitted`. In any
        other folder, students may have created DAY and its timestamp file themselves.
        """
        above = os.path.dirname(os.path.abspath(self.path))
        submitted = os.path.dirname(above)
        if self.name != day or os.path.basename(submitted) not in (
            SUBMITTED,
            _configured(os.path.dirname(submitted)),
        ):
            return None
        person = Person(printable(os.path.basename(above)))
        time = origin.parse_timestamp(read_small_file(self.path / origin.TIMESTAMP))
        return Origin((person,), time=time)

    def read_metadata(self) -> Metadata:
        """Read Gradescope's metadata file in this folder."""
        file = self.path / origin.METADATA
        try:
            with open_regular(file) as open_file, self._reader.borrow() as reader:
                return Metadata(reader.read_metadata(positional_reader(open_file)))
        except (OSError, NotRegularFile, ReadError) as error:
            return Metadata(problem=f"{origin.METADATA} could not be read: {error}")


@cache
def _configured(course: str) -> str | None:
    """Return the name that a course's `nbgrader_config.py` sets for the submitted folder, or None if it does not set one."""
    with suppress(OSError, ValueError, NotRegularFile), open_regular(Path(course, CONFIG)) as file:
        found = list(CONFIGURED.finditer(file.read().decode()))
        return found[-1]["name"] if found else None
    return None


def read_small_file(path: Path, limit: int = origin.MAX_TIMESTAMP) -> str:
    """Return a file's ASCII text, or "" if the file is unreadable or longer than `limit` bytes."""
    with suppress(OSError, ValueError, NotRegularFile), open_regular(path) as file:
        data = file.read(limit + 1)
        return data.decode("ascii") if len(data) <= limit else ""
    return ""


def owner_from_path(path: Path, day: str, reader: Reader) -> Origin | None:
    """Return the student who owns all files under a path, or None if the path's folder names do not identify one."""
    absolute = Path(os.path.abspath(path))
    for folder in [*reversed(absolute.parents), absolute]:
        if owner := origin.parse_moodle_name(folder.name) or DiskFolder(
            folder, reader
        ).nbgrader_owner(day):
            return owner
        if origin.GRADESCOPE.fullmatch(folder.name) and (folder.parent / origin.METADATA).is_file():
            people = DiskFolder(folder.parent, reader).read_metadata().people
            if folder.name in people:
                return people[folder.name]
    return origin.parse_canvas_name(absolute.name)
