"""Read submissions from files, folders and archives.

A file that cannot be read becomes an unreadable submission with a problem, so it never affects the rest of the class.
This process only walks folders and opens files; sandboxed processes parse the contents. Names are escaped, links are
not followed, and archives are not extracted. Entry point: `read_submissions`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.plain_text import bounded, escaped, printable
from autograder.submissions import reader_messages as m
from autograder.submissions.archives import is_archive
from autograder.submissions.cell import Cell
from autograder.submissions.disk import DiskFolder, NotRegularFile, open_regular, owner_from_path
from autograder.submissions.filenames import is_day_name, stem
from autograder.submissions.people import HandedIn, Person, labels
from autograder.submissions.places import (
    FoundFile,
    describe_os_error,
    find_for_student,
    find_in_class,
)
from autograder.submissions.reader_client import Reader, positional_reader
from autograder.submissions.reader_process import ReadAt, ReadError

Listed = Callable[[Sequence[HandedIn | None]], None]


@dataclass(frozen=True)
class Submission:
    """A notebook or script submitted by a student or group.

    `sha256` is the hash of the file's bytes, or "" if the file was not read. `handed_in` contains the people and time
    reported by a platform or nbgrader, or None if only `student` is known.
    """

    path: str
    student: str
    sha256: str
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    readable: bool
    release: str = ""  # the notebook's release stamp; see course/release_stamp.py
    handed_in: HandedIn | None = None
    wrapper: str = ""  # the folder that contains the class, if different from the TA's path

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a unique label for each student."""
        return labels(self.student, self.handed_in)


def read_submissions(
    paths: Sequence[Path], day: str, reader: Reader, on_listed: Listed = lambda sources: None
) -> Iterator[Submission]:
    """Lazily yield the submissions under the paths. Within each path, files of the same student or group are consecutive.

    Before the first submission in a folder or archive is read, `on_listed` is called with every submission's `handed_in`.
    """
    for path in paths:
        yield from _PathReader(path, day, reader, on_listed).submissions()


class _PathReader:
    """A reader for the submissions under one of the TA's paths."""

    def __init__(self, path: Path, day: str, reader: Reader, on_listed: Listed) -> None:
        self._path, self._day, self._reader = path, day, reader
        self._on_listed = on_listed

    def submissions(self) -> Iterator[Submission]:
        """Yield the submissions under the path."""
        student = _student_from_path(self._path, self._day)
        try:
            mode = os.lstat(self._path).st_mode
            owner = owner_from_path(self._path, self._day, self._reader)
        except OSError as error:
            yield self._unreadable(FoundFile("", student, problem=describe_os_error(error)))
            return
        except ValueError:
            yield self._unreadable(FoundFile("", student, problem="the path is invalid"))
            return
        student = owner.student if owner else student
        if stat.S_ISDIR(mode):
            folder = DiskFolder(self._path, self._reader)
            files = (
                find_for_student(folder, self._day, student, owner)
                if owner
                else find_in_class(folder, self._day, student)
            )
            self._on_listed([file.handed_in for file in files])
            for file in files:
                yield from self._read_file(file)
        else:
            file = FoundFile("", student, owner)
            yield from self._read_file(file, may_be_class=owner is None)

    def _read_file(self, found: FoundFile, may_be_class: bool = False) -> Iterator[Submission]:
        """Yield the submissions in a file on disk. If `may_be_class` is set, an archive is read as a class archive."""
        if found.problem:
            yield self._unreadable(found)
            return
        name = (self._path / found.place).name
        try:
            with open_regular(self._path, found.place) as file:
                is_class = may_be_class and is_archive(name, file.read(8))
                data, size = positional_reader(file)
                if is_class:
                    yield from self._read_class(found, name, data, size)
                else:
                    yield from self._parse(found, name, data, size, nested=True)
        except OSError as error:
            yield self._unreadable(found, describe_os_error(error))
        except NotRegularFile as error:
            yield self._unreadable(found, str(error))

    def _read_class(
        self, archive: FoundFile, name: str, data: ReadAt, size: int
    ) -> Iterator[Submission]:
        """Yield the submissions in a class archive."""
        try:
            with self._reader.list_archive(name, data, size, self._day, archive.student) as listing:
                files = [_found_member(member) for member in listing.members]
                self._on_listed([file.handed_in for file in files])
                for member, found in zip(listing.members, files, strict=True):
                    if found.problem:
                        yield self._unreadable(found)
                        continue
                    try:
                        length = listing.open_member(member)
                    except ReadError as error:
                        yield self._unreadable(found, str(error))
                        continue
                    last = found.place.rpartition("/")[2]
                    content = listing.member_reader(member)
                    yield from self._parse(found, last, content, length, nested=False)
        except ReadError as error:
            yield self._unreadable(archive, str(error))

    def _parse(
        self, found: FoundFile, name: str, data: ReadAt, size: int, nested: bool
    ) -> Iterator[Submission]:
        """Yield a submission for each notebook or script in one student's file."""
        try:
            files = self._reader.read(printable(name), data, size, self._day, nested)
        except ReadError as error:
            yield self._unreadable(found, str(error))
            return
        for file in files:
            problems = [*found.notes, *([file.reason] if file.reason else file.problems)]
            yield self._submission(found, problems, file)

    def _unreadable(self, found: FoundFile, problem: str = "") -> Submission:
        return self._submission(found, [*found.notes, problem or found.problem], m.File(""))

    def _submission(self, found: FoundFile, problems: Iterable[str], file: m.File) -> Submission:
        path = os.path.join(os.fspath(self._path), *filter(None, [found.place.rstrip("/")]))
        path = f"{path}/{file.place}" if file.place else path
        only_name = HandedIn((Person(printable(found.student)),))
        return Submission(
            escaped(path),  # not truncated, so that the file can be found again
            printable(found.student),
            printable(file.sha256),
            file.cells,
            tuple(bounded(map(printable, problems))),
            bool(file.cells),
            printable(file.release),
            None if found.handed_in == only_name else found.handed_in,
            escaped(os.path.join(os.fspath(self._path), found.wrapper)) if found.wrapper else "",
        )


def _found_member(member: m.ListedFile) -> FoundFile:
    handed_in = member.handed_in.sanitized() if member.handed_in else None
    problem = member.problem or ("" if member.number >= 0 else "the file is not in the archive")
    return FoundFile(
        member.place, member.student, handed_in, member.notes, problem, wrapper=member.wrapper
    )


def _student_from_path(path: Path, day: str) -> str:
    """Return the student's name: the last path component that is not the day's name, without suffixes."""
    *above, last = os.path.abspath(path).split("/")
    own = stem(last)
    if own == last and not os.path.isdir(path):
        own, _ = os.path.splitext(last)
    names = [own, *map(stem, reversed(above))]
    return next((name for name in names if name and not is_day_name(name, day)), day)
