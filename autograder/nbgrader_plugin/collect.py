"""Collect submissions from nbgrader's exchange without trusting what students put there. Entry point: `Collect`."""

from __future__ import annotations

import errno
import glob
import os
import pwd
import re
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import ExchangeCollect, ExchangeReleaseFeedback

from autograder.plain_text import list_with_count, printable
from autograder.submissions.disk import read_small_file
from autograder.submissions.origin import TIMESTAMP, parse_timestamp

NO_TIME = datetime.min  # the time of a folder whose name contains no valid time
# Matches hidden names and paths, nbgrader's wildcards, and names that formgrader's pages would run as HTML or as a script,
# because the pages do not escape names.
NO_STUDENT = re.compile(r"""^$|^\.|[<>"&\\`*?[\]]""")
MAX_ENTRIES = 20_000  # files and folders in a submission
MAX_LEVELS = 20  # folders inside each other
CHUNK = 1 << 20  # bytes
# Students can replace a file at any time, but not the file behind a descriptor. Therefore, files are opened first and
# checked afterwards. O_NONBLOCK prevents waiting for the writer of a FIFO or the holder of a lease.
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NOT_OPENED = {errno.ELOOP: "is a link", errno.ENXIO: "is not a regular file"}


class Collect(ExchangeCollect):  # type: ignore[misc]
    """A version of nbgrader's `ExchangeCollect` that trusts neither the files nor the folder names in the exchange.

    Students create these folders themselves, and can change them at any time. nbgrader would follow a link to any file that
    the TA can read, such as a solution, and keep a program's setuid bit. It would also collect a folder with another
    student's name, even if that student has submitted as well. It would stop at the first folder that has an invalid
    name, is too large or cannot be copied.
    """

    def init_src(self) -> None:
        """Choose the folders to collect, excluding folders with invalid names.

        Folders of the students' own accounts come first, so that the others cannot use up the disk before.
        """
        super().init_src()
        self.src_records.sort(key=lambda record: self._owner(record) != record["username"])
        for record in [each for each in self.src_records if not _is_valid(each)]:
            self._report(record, "its name is invalid")
            self.src_records.remove(record)

    def copy_files(self) -> None:
        """Copy each chosen folder that has not been collected. If this fails, other submissions are still collected."""
        self.log.info("Processing %d submissions", len(self.src_records))
        for record in self.src_records:
            try:
                self._collect(record)
            except (NotCollected, NotCopied) as error:
                self._report(record, f"it {error}")
            except OSError as error:
                place = f"{error.filename}: " if isinstance(error.filename, str) else ""
                self._report(record, f"{place}{error.strerror or error}")
            except Exception as error:  # a failure for one student must not affect the others
                self._report(record, f"{type(error).__name__}: {error}")

    def _collect(self, record: dict[str, Any]) -> None:
        name, student = printable(record["filename"]), record["username"]
        target = Path(
            self.coursedir.format_path(
                self.coursedir.submitted_directory, student, self.coursedir.assignment_id
            )
        )
        with _opened(os.path.join(self.inbound_path, record["filename"])) as (source, status):
            if not stat.S_ISDIR(status.st_mode):
                raise NotCopied("is not a folder")
            owner = _account(status.st_uid)
            if self.check_owner and owner != student:
                self.log.warning(
                    "%s claims to be submitted by %s but is owned by %s; cheating attempt? "
                    "you may disable this warning by unsetting the option CollectApp.check_owner",
                    *(name, printable(student), printable(owner)),
                )
            if not self._is_wanted(record, target):
                self.log.info("%s is not newer than the collected submission", name)
                return
            self.log.info("Collecting %s", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = _Copy(self.coursedir, status.st_uid)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as aside:
                new = Path(aside, "new")
                copy.add_folder(source, new)
                # nbgrader writes the same time into the folder's name and into this file.
                with copy.create(new / TIMESTAMP) as file:
                    file.write(f"{record['timestamp']:%Y-%m-%d %H:%M:%S.%f} UTC".encode())
                if target.is_dir():
                    with suppress(PermissionError):  # another TA may own the folder
                        target.chmod(0o750)  # a read-only folder could not be moved
                    target.rename(Path(aside, "old"))
                new.rename(target)
        if copy.left_out:
            left_out = printable(list_with_count(copy.left_out))
            self.log.error("%s was collected without some files %s", name, left_out)

    def _is_wanted(self, record: dict[str, Any], target: Path) -> bool:
        if not target.is_dir():
            return True
        old = parse_timestamp(read_small_file(target / TIMESTAMP))
        new = record["timestamp"].replace(tzinfo=UTC)
        is_newer = old is None or new > old
        return bool((self.update and is_newer) or (self.before_duedate and new != old))

    def _report(self, record: dict[str, Any], reason: str) -> None:
        name = printable(record["filename"])
        self.log.error("%s was not collected: %s", name, printable(reason))

    def _path_to_record(self, path: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = super()._path_to_record(path)
        except Exception:  # a student chose the name, and dateutil parses it
            name = os.path.basename(path)
            return {"username": name.partition("+")[0], "filename": name, "timestamp": NO_TIME}
        return record

    def _sort_by_timestamp(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sort the valid folders named after a student, newest first, and leave out those of other accounts.

        If the student's account owns none, keep them all. nbgrader takes the first one that the options allow.
        """
        folders = [record for record in records if _is_valid(record) and self._owner(record)]
        own = [record for record in folders if self._owner(record) == record["username"]]
        chosen = own if own and self.check_owner else folders or records
        newest: list[dict[str, Any]] = super()._sort_by_timestamp(chosen)
        return newest

    def _owner(self, record: dict[str, Any]) -> str:
        """Return the account that owns a folder, or "" if the path is not a folder."""
        try:
            status = os.lstat(os.path.join(self.inbound_path, record["filename"]))
        except OSError:
            return ""
        return _account(status.st_uid) if stat.S_ISDIR(status.st_mode) else ""


class NotCollected(Exception):
    """Raised when a submission is not collected. The message is the rest of a sentence about the submission."""


class NotCopied(Exception):
    """Raised when a file or folder is left out. The message is the rest of a sentence about the file or folder."""


@contextmanager
def _opened(name: str, folder: int | None = None) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file or folder, without following links, and yield its descriptor and status."""
    try:
        descriptor = os.open(name, OPEN, dir_fd=folder)
    except OSError as error:
        if error.errno in NOT_OPENED:
            raise NotCopied(NOT_OPENED[error.errno]) from error
        raise
    try:
        yield descriptor, os.fstat(descriptor)
    finally:
        os.close(descriptor)


class _Copy:
    """A copy of one student's submission, with nbgrader's limits and options but without the student's modes.

    `left_out` contains the reasons why some files were not copied.
    """

    def __init__(self, course: CourseDirectory, owner: int) -> None:
        self.left_out: list[str] = []
        self._course = course
        self._owner = owner  # the student's uid
        self._entries_left = MAX_ENTRIES
        self._bytes_left = 1000 * course.max_dir_size

    def add_folder(self, source: int, target: Path, place: str = "") -> None:
        """Copy an open folder. `place` is its path in the submission, ending in a slash, or "" for the submission itself."""
        if place.count("/") > MAX_LEVELS:
            raise NotCollected(f"has more than {MAX_LEVELS} levels of folders")
        target.mkdir(0o750)
        if self._course.groupshared:
            target.chmod(0o2770)
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in islice(entries, self._entries_left + 1))
        self._entries_left -= len(names)
        if self._entries_left < 0:
            raise NotCollected(f"contains more than {MAX_ENTRIES:,} files and folders")
        for name in names:
            if place + name == TIMESTAMP or _matches(name, self._course.ignore):
                continue
            try:
                with _opened(name, source) as (descriptor, status):
                    self._add(descriptor, status, target / name, place + name)
            except NotCopied as error:
                self.left_out.append(f"{place}{name} {error}")

    def _add(self, source: int, status: os.stat_result, target: Path, place: str) -> None:
        if status.st_uid != self._owner and not status.st_mode & stat.S_IROTH:
            # This is a hard link. The TA may be able to read the file, but the student is not.
            raise NotCopied("belongs to a different account")
        if stat.S_ISDIR(status.st_mode):
            self.add_folder(source, target, f"{place}/")
        elif not stat.S_ISREG(status.st_mode):
            raise NotCopied("is not a regular file")
        elif _matches(target.name, self._course.include):
            self._add_file(source, target)

    def _add_file(self, source: int, target: Path) -> None:
        limit = 1000 * self._course.max_file_size or sys.maxsize
        size = 0
        with self.create(target) as file:
            while size <= limit and (chunk := os.read(source, CHUNK)):
                file.write(chunk)
                size += len(chunk)
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    raise NotCollected("is too large")
        if size > limit:
            target.unlink()
            raise NotCopied("is too large")

    def create(self, target: Path) -> BinaryIO:
        """Create a file that only the TA, or the TA's group, can read."""
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        if self._course.groupshared:
            os.fchmod(descriptor, 0o660)
        return os.fdopen(descriptor, "wb")


def _is_valid(record: dict[str, Any]) -> bool:
    name = record["username"]
    return record["timestamp"] != NO_TIME and name.isprintable() and not NO_STUDENT.search(name)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown id"


class ReleaseFeedback(ExchangeReleaseFeedback):  # type: ignore[misc]
    """A version of nbgrader's `ExchangeReleaseFeedback` that continues if it cannot release one student's feedback.

    nbgrader needs two files that it writes when students submit. Submissions from elsewhere lack them, and students can
    delete or change them.
    """

    src_path: str

    def copy_files(self) -> None:
        """Copy each student's feedback to the exchange."""
        for folder in sorted(glob.glob(self.src_path)):
            self.src_path = glob.escape(folder)
            try:
                super().copy_files()
            except (OSError, ValueError) as error:
                self.log.error(
                    "The feedback in %s was not released: %s",
                    printable(folder),
                    printable(str(error)),
                )
