"""A file, folder or archive → submissions, with what is wrong said in words.

Nothing that a student hands in stops the rest of the class: what cannot be read becomes a submission that says so. Folders
are walked here; whatever is in a file is read behind the wall. Names are shown escaped, links are not followed, and nothing
is extracted. Entry point: `read_submissions`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.protocol.plain_text import bounded, printable
from autograder.submissions import messages as m
from autograder.submissions.archives import is_archive
from autograder.submissions.cell import Cell
from autograder.submissions.client import ReadAt, Reader, ReadError, positional_reader
from autograder.submissions.disk import DiskFolder, NotRegularFile, open_regular, owner_from_path
from autograder.submissions.filenames import is_day_name, stem
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.places import (
    FoundFile,
    describe_os_error,
    find_in_class,
    find_of_student,
)

__all__ = ["Submission", "printable", "read_submissions"]


@dataclass(frozen=True)
class Submission:
    """What one student handed in; `sha256` is of the file's bytes, "" where they were not read.

    `handed_in` is what a platform or nbgrader says of who that is and when; None where they say no more than `student`.
    """

    path: str
    student: str
    sha256: str
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    readable: bool
    release: str = ""  # the stamp of the notebook's release
    handed_in: HandedIn | None = None


def read_submissions(paths: Sequence[Path], day: str, reader: Reader) -> Iterator[Submission]:
    """Yields what is found under the paths, one at a time, sorted by name within each path."""
    for path in paths:
        yield from _Path(path, day, reader).submissions()


class _Path:
    """One path that a TA gave."""

    def __init__(self, path: Path, day: str, reader: Reader) -> None:
        self._path, self._day, self._reader = path, day, reader

    def submissions(self) -> Iterator[Submission]:
        """What is found there."""
        student = _named(self._path, self._day)
        try:
            mode = os.lstat(self._path).st_mode
            owner = owner_from_path(self._path, self._day, self._reader)
        except OSError as error:
            yield self._unreadable(FoundFile("", student, problem=describe_os_error(error)))
            return
        except ValueError:
            yield self._unreadable(FoundFile("", student, problem="its name cannot be a path"))
            return
        student = owner.student if owner else student
        if stat.S_ISDIR(mode):
            folder = DiskFolder(self._path, self._reader)
            offers = (
                find_of_student(folder, self._day, student, owner)
                if owner
                else find_in_class(folder, self._day, student)
            )
            for offer in offers:
                yield from self._file(offer, self._path / offer.place)
        else:
            yield from self._file(FoundFile("", student, owner), self._path, given=owner is None)

    def _file(self, offer: FoundFile, path: Path, given: bool = False) -> Iterator[Submission]:
        """What is in a file; if it was `given` itself and is an archive, that is a class's."""
        if offer.problem:
            yield self._unreadable(offer)
            return
        try:
            with open_regular(path) as file:
                of_class = given and is_archive(path.name, file.read(8))
                data, size = positional_reader(file)
                if of_class:
                    yield from self._class(offer, path.name, data, size)
                else:
                    yield from self._read(offer, path.name, data, size, nested=True)
        except OSError as error:
            yield self._unreadable(offer, describe_os_error(error))
        except NotRegularFile as error:
            yield self._unreadable(offer, str(error))

    def _class(self, whole: FoundFile, name: str, data: ReadAt, size: int) -> Iterator[Submission]:
        """The submissions in an archive of a class."""
        try:
            with self._reader.list_archive(name, data, size, self._day, whole.student) as listing:
                for member in listing.members:
                    offer = _checked(member)
                    if offer.problem:
                        yield self._unreadable(offer)
                        continue
                    try:
                        length = listing.open_member(member)
                    except ReadError as error:
                        yield self._unreadable(offer, str(error))
                        continue
                    last = offer.place.rpartition("/")[2]
                    content = listing.member_reader(member)
                    yield from self._read(offer, last, content, length, nested=False)
        except ReadError as error:
            yield self._unreadable(whole, str(error))

    def _read(
        self, offer: FoundFile, name: str, data: ReadAt, size: int, nested: bool
    ) -> Iterator[Submission]:
        """The notebooks in one student's file."""
        try:
            files = self._reader.read(printable(name), data, size, self._day, nested)
        except ReadError as error:
            yield self._unreadable(offer, str(error))
            return
        for file in files:
            problems = [*offer.notes, *([file.reason] if file.reason else file.problems)]
            yield self._submission(offer, problems, file)

    def _unreadable(self, offer: FoundFile, problem: str = "") -> Submission:
        return self._submission(offer, [*offer.notes, problem or offer.problem], m.File(""))

    def _submission(self, offer: FoundFile, problems: Iterable[str], file: m.File) -> Submission:
        path = os.path.join(os.fspath(self._path), *filter(None, [offer.place.rstrip("/")]))
        path = f"{path}/{file.place}" if file.place else path
        alone = HandedIn((Person(printable(offer.student)),))
        return Submission(
            printable(path),
            printable(offer.student),
            printable(file.sha256),
            file.cells,
            tuple(bounded(map(printable, problems))),
            bool(file.cells),
            printable(file.release),
            None if offer.handed_in == alone else offer.handed_in,
        )


def _checked(member: m.ListedFile) -> FoundFile:
    """A file of a class's archive, as the process that listed it says."""
    handed_in = member.handed_in.sanitized() if member.handed_in else None
    problem = member.problem or ("" if member.number >= 0 else "it is not in the archive")
    return FoundFile(member.place, member.student, handed_in, member.notes, problem)


def _named(path: Path, day: str) -> str:
    """The last name in the path, from its end upwards, that does not name the day."""
    *above, last = os.path.abspath(path).split("/")
    own = stem(last)
    if own == last and not os.path.isdir(path):
        own, _ = os.path.splitext(last)
    names = [own, *map(stem, reversed(above))]
    return next((name for name in names if name and not is_day_name(name, day)), day)
