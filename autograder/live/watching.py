"""Find the notebooks that students save, and wait until they are complete. Entry point: `Watcher`."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autograder.course.config import Day
from autograder.plain_text import printable
from autograder.submissions.file_types import is_hidden, is_other_day, stem
from autograder.submissions.places import FoundFile, describe_os_error
from autograder.submissions.reader_client import Reader, open_folder
from autograder.submissions.submission import PathReader, student_from_path

STABLE = 1.0  # seconds without a change after which a file counts as complete
RESTLESS = 10.0  # seconds after which a file that keeps changing is read nevertheless
WILDCARD = re.compile(r"[*?\[]")
# A submission in the inbound folder of nbgrader's exchange: STUDENT+ASSIGNMENT+TIMESTAMP.
INBOUND = re.compile(r"(?P<student>.+)\+(?P<day>[^+]+)\+\d{4}-\d\d-\d\d .*")
Version = tuple[str, int, int, int]  # place, modification time, size and inode


@dataclass(frozen=True)
class StudentFile:
    """A student's newest file. `key` identifies the student, as in the store of marks."""

    key: str
    path: PathReader
    file: FoundFile
    version: Version


class Watcher:
    """Finds the files that have changed under the given paths, which may contain wildcards. Links are not followed."""

    def __init__(self, paths: Sequence[str], day: Day, reader: Reader) -> None:
        self._day, self._reader = day.name, reader
        self._folders: list[Path] = []
        patterns: list[tuple[str, str]] = []
        files: list[str] = []
        for path in map(os.path.abspath, paths):
            if os.path.isdir(path):
                self._folders.append(Path(path))
            elif os.path.lexists(path) or not (found := WILDCARD.search(path)):
                files.append(path)
            else:
                top = os.path.dirname(path[: found.start() + 1])
                patterns.append((top, os.path.relpath(path, top)))
        if files:
            # A shell may have expanded a pattern, so what follows the common folder may be the students'.
            top = os.path.commonpath([os.path.dirname(file) for file in files])
            patterns += [(top, os.path.relpath(file, top)) for file in files]
        self._patterns = [(Path(os.path.realpath(top)), rest.split("/")) for top, rest in patterns]
        self._graded: dict[str, Version] = {}
        # When a change was noticed, when the file was last seen to change, and the file's version then.
        self._changes: dict[str, tuple[float, float, Version]] = {}
        self.problems: dict[str, str] = {}  # why a path cannot be read

    @property
    def is_settling(self) -> bool:
        """Return whether a file is about to be complete, or waits to be graded."""
        return bool(self._changes)

    def poll(self, now: float) -> list[StudentFile]:
        """Return the files that are complete and were not passed to `take`. `now` is the time of a clock that never jumps."""
        newest: dict[str, StudentFile] = {}
        self.problems = {}
        for found in self._find():
            other = newest.get(found.key)
            if other is None or found.version[1] > other.version[1]:
                newest[found.key] = found
        ready = []
        for key, found in newest.items():
            if self._graded.get(key) == found.version:
                self._changes.pop(key, None)
                continue
            first, since, version = self._changes.get(key, (now, now, found.version))
            since = since if version == found.version else now
            self._changes[key] = first, since, found.version
            if now - since >= STABLE or now - first >= RESTLESS:
                ready.append(found)
        return ready

    def take(self, found: StudentFile) -> None:
        """Note that a version of a file is graded, so that `poll` returns only later ones."""
        self._graded[found.key] = found.version
        self._changes.pop(found.key, None)

    def _find(self) -> Iterator[StudentFile]:
        for folder in self._folders:
            path = PathReader(folder, self._day, self._reader)
            yield from filter(None, (self._student_file(path, file) for file in path.find()))
        for top, parts in self._patterns:
            path = PathReader(top, self._day, self._reader)
            for place in self._expand(top, parts):
                file = FoundFile(place, student_from_path(top / place, self._day))
                if found := self._student_file(path, file):
                    yield found

    def _expand(self, top: Path, parts: Sequence[str], place: str = "") -> Iterator[str]:
        """Yield the places in the folder `top` that match a pattern."""
        if not parts:
            yield place.removesuffix("/")
            return
        names = [parts[0]]
        if WILDCARD.search(parts[0]):
            names = []
            with self._noting(top / place), open_folder(top, place) as folder:
                names = [
                    n for n in fnmatch.filter(os.listdir(folder), parts[0]) if not is_hidden(n)
                ]
        for name in sorted(names):
            yield from self._expand(top, parts[1:], f"{place}{name}/")

    @contextmanager
    def _noting(self, path: Path) -> Iterator[None]:
        """Note why a path cannot be read, unless it does not exist."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self.problems[str(path)] = describe_os_error(error)

    def _student_file(self, path: PathReader, file: FoundFile) -> StudentFile | None:
        """Return a file and its version, or None if it is missing, unreadable or of a different day."""
        full = path.path / file.place
        if inbound := INBOUND.fullmatch(file.student):
            if inbound["day"] != self._day:
                return None
            file = FoundFile(file.place, inbound["student"])
        if file.problem:
            self.problems[str(full)] = file.problem
        if file.problem or is_other_day(stem(full.name), self._day):
            return None
        with self._noting(full), open_folder(path.path, os.path.dirname(file.place)) as folder:
            found = os.stat(full.name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                version = str(full), found.st_mtime_ns, found.st_size, found.st_ino
                return StudentFile("\n".join(map(printable, file.keys)), path, file, version)
            self.problems[str(full)] = "this is not a regular file; links are not followed"
        return None
