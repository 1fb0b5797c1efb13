"""Read submissions from files, folders and archives.

A file that cannot be read becomes an unreadable submission with a problem, so it never affects the rest of the class.
This process only walks folders and opens files; sandboxed processes parse the contents. Names are escaped, links are
not followed, and archives are not extracted. Entry points: `read_students` and `read_submissions`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from autograder.plain_text import escaped, printable, printable_problems
from autograder.submissions import reader_messages as m
from autograder.submissions.archives import is_archive
from autograder.submissions.cell import Cell
from autograder.submissions.disk import DiskFolder, owner_from_path
from autograder.submissions.filenames import is_day_name, stem
from autograder.submissions.origin import Origin, from_folder, labels
from autograder.submissions.places import (
    FoundFile,
    describe_os_error,
    find_for_student,
    find_in_class,
)
from autograder.submissions.reader_client import (
    FileReader,
    NotRegularFile,
    Reader,
    Task,
    open_regular,
    positional_reader,
)
from autograder.submissions.reader_process import ReadError, StudentBudget

# A student's file. If it is in a class archive, the second item identifies it there.
File = tuple[FoundFile, m.ListedFile | None]


@dataclass(frozen=True)
class Submission:
    """A notebook or script submitted by a student or group.

    `sha256` is the hash of the file's bytes, or "" if the file was not read. `student` contains the students' names on the
    roster or, if they are not on the roster, in the source. `handed_in` is None if only `student` is known.
    """

    path: str
    student: str
    sha256: str
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    readable: bool
    release: str = ""  # the notebook's release stamp; see course/release_stamp.py
    handed_in: Origin | None = None
    wrapper: str = ""  # the folder that contains the class, if different from the TA's path

    @property
    def origin(self) -> Origin:
        """Return who made the submission, and when."""
        return self.handed_in or from_folder(self.student)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a unique label for each student, for reading."""
        return labels(self.student, self.origin)


def read_students(
    paths: Sequence[Path], day: str, reader: Reader
) -> Iterator[tuple[Path, list[Submission]]]:
    """Lazily yield each student's or group's submissions, and the path under which they were found."""
    return reader.map(task for path in paths for task in _PathReader(path, day, reader).tasks())


def read_submissions(paths: Sequence[Path], day: str, reader: Reader) -> Iterator[Submission]:
    """Lazily yield the submissions under the paths. Within each path, files of the same student or group are consecutive."""
    for _, submissions in read_students(paths, day, reader):
        yield from submissions


class _PathReader:
    """A reader for the submissions under one of the TA's paths."""

    def __init__(self, path: Path, day: str, reader: Reader) -> None:
        self.path, self._day, self._reader = path, day, reader
        self._student = _student_from_path(path, day)

    def tasks(self) -> Iterator[Task[tuple[Path, list[Submission]]]]:
        """Yield a function for each student or group that reads the files."""
        for _, own in groupby(self._find(), key=lambda file: file[0].keys):
            yield partial(self._read, list(own))

    def _find(self) -> list[File]:
        """Return the files under the path. Files of the same student or group are consecutive."""
        student, owner = self._student, None
        try:
            mode = os.lstat(self.path).st_mode
            owner = owner_from_path(self.path, self._day, self._reader)
            student = owner.student if owner else student
            if stat.S_ISDIR(mode):
                folder = DiskFolder(self.path, self._reader)
                found = (
                    find_for_student(folder, self._day, student, owner)
                    if owner
                    else find_in_class(folder, self._day, student)
                )
                return [(file, None) for file in found]
            with open_regular(self.path) as file:
                is_class = owner is None and is_archive(self.path.name, file.read(8))
            if is_class:
                with self._reader.borrow() as reader:
                    members = reader.list_archive(self.path, self._day, student).members
                return [(_found_member(member), member) for member in members]
            problem = ""
        except OSError as error:
            problem = describe_os_error(error)
        except ValueError:
            problem = "the path is invalid"
        except (NotRegularFile, ReadError) as error:
            problem = str(error)
        return [(FoundFile("", student, owner, problem=problem), None)]

    def _read(
        self, files: Sequence[File], reader: FileReader, budget: StudentBudget
    ) -> tuple[Path, list[Submission]]:
        """Read one student's files."""
        return self.path, [one for file in files for one in self._read_file(file, reader, budget)]

    def _read_file(
        self, file: File, reader: FileReader, budget: StudentBudget
    ) -> Iterator[Submission]:
        """Yield a submission for each notebook or script in one of a student's files."""
        found, member = file
        if found.problem:
            yield self._unreadable(found)
            return
        name = printable(found.place.rpartition("/")[2] or self.path.name)
        try:
            if member:
                listing = reader.list_archive(self.path, self._day, self._student)
                size = listing.open_member(member, budget)
                data = listing.member_reader(member, budget)
                files = reader.read(name, data, size, self._day, False, budget)
            else:
                with open_regular(self.path, found.place) as opened:
                    data, size = positional_reader(opened)
                    files = reader.read(name, data, size, self._day, True, budget)
        except OSError as error:
            yield self._unreadable(found, describe_os_error(error))
            return
        except (NotRegularFile, ReadError) as error:
            yield self._unreadable(found, str(error))
            return
        for each in files:
            problems = [*found.notes, *([each.reason] if each.reason else each.problems)]
            yield self._submission(found, problems, each)

    def _unreadable(self, found: FoundFile, problem: str = "") -> Submission:
        return self._submission(found, [*found.notes, problem or found.problem], m.File(""))

    def _submission(self, found: FoundFile, problems: Iterable[str], file: m.File) -> Submission:
        path = os.path.join(os.fspath(self.path), *filter(None, [found.place.rstrip("/")]))
        path = f"{path}/{file.place}" if file.place else path
        return Submission(
            escaped(path),  # not truncated, so that the file can be found again
            printable(found.student),
            printable(file.sha256),
            file.cells,
            printable_problems(problems),
            bool(file.cells),
            printable(file.release),
            found.handed_in or from_folder(printable(found.student)),
            escaped(os.path.join(os.fspath(self.path), found.wrapper)) if found.wrapper else "",
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


def seed_of(day: str, secret: bytes, submission: Submission) -> str:
    """Return the seed for a submission: an HMAC of the day's name and the submission's code cells.

    Other cells, outputs and metadata do not affect the seed, so resaving a notebook does not change it.
    """
    sources = (cell.source for cell in submission.cells if cell.kind == "code")
    # Escape the separator. Otherwise, a student could split cells at NUL characters, which would change the code but not
    # its seed, and submit again with the expected values that the feedback has shown.
    code = "\0".join(source.replace("\1", "\1\1").replace("\0", "\1\0") for source in sources)
    digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
    return hmac.digest(secret, day.encode() + b"\0" + digest, "sha256").hex()
