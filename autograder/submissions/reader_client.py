"""Client for the reader service, which parses student files in the sandbox. Entry point: `Reader`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.command import READER
from autograder.submissions import reader_messages as m
from autograder.submissions.cell import MAX_CELLS
from autograder.submissions.people import HandedIn
from autograder.submissions.places import MAX_NOTEBOOKS
from autograder.submissions.reader_process import (
    SECONDS,
    ReadAt,
    ReaderProcess,
    ReadError,
    retry_reading,
)

CLASS_SECONDS = 300  # CPU seconds per class archive, which may contain gigabytes of data
T = TypeVar("T")


class Reader:
    """Client that reads each file in a separate sandboxed process.

    If no fork server is on standby, it launches one that does not import torch.
    """

    def __init__(self, sandbox: Sandbox = "required") -> None:
        self.server = Server(sandbox, services=(READER,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the fork server."""
        self.server.close()

    def read(self, name: str, file: ReadAt, size: int, day: str, nested: bool) -> list[m.File]:
        """Return up to `MAX_NOTEBOOKS` notebooks and scripts from a student's file.

        Args:
            name: The file's name.
            file: A function that reads the file's bytes.
            size: The file's length in bytes.
            day: The day being graded.
            nested: Whether to read archives within an archive.

        Raises:
            ReadError: The file cannot be read.
        """
        request = m.Read(name, size, day, nested)

        def ask(process: ReaderProcess) -> list[m.File]:
            files = process.decode(process.ask(request, file, size), m.FILES)
            if not 0 < len(files) <= MAX_NOTEBOOKS or not _are_inside(files):
                raise process.reject()
            if sum(len(each.cells) for each in files) > MAX_CELLS:
                raise ReadError(f"the submission has more than {MAX_CELLS:,} cells")
            return files

        return self._ask_new_process(ask)

    def read_metadata(self, file: ReadAt, size: int) -> dict[str, HandedIn]:
        """Return the people in Gradescope's metadata file, keyed by folder name. Raises ReadError if it cannot be read."""
        people = self._ask_new_process(
            lambda process: process.decode(process.ask(m.ReadMetadata(size), file, size), m.PEOPLE),
            CLASS_SECONDS,
        )
        return {name: handed_in.sanitized() for name, handed_in in people.items()}

    def _ask_new_process(self, ask: Callable[[ReaderProcess], T], seconds: int = SECONDS) -> T:
        def attempt() -> T:
            with ReaderProcess(self.server, seconds) as process:
                return ask(process)

        return retry_reading(attempt)

    @contextmanager
    def list_archive(
        self, name: str, file: ReadAt, size: int, day: str, student: str
    ) -> Iterator[ArchiveListing]:
        """List the files in a class archive. If there is only one file, attribute it to `student`.

        Raises ReadError if the archive cannot be read.
        """
        listing = ArchiveListing(self.server, m.List(name, size, day, student), file)
        try:
            yield listing
        finally:
            listing.close()


class ArchiveListing:
    """A class archive. One process lists and unpacks it; other processes parse the students' files."""

    def __init__(self, server: Server, request: m.List, file: ReadAt) -> None:
        self._server, self._request, self._file = server, request, file
        self._opened = -1
        self.members: list[m.ListedFile] = []
        retry_reading(self._list)

    def _list(self) -> None:
        self._process = ReaderProcess(self._server, CLASS_SECONDS)
        self._opened = -1
        try:
            answer = self._process.ask(self._request, self._file, self._request.size)
            self.members = self._process.decode(answer, m.LISTED)
            if not _are_inside(self.members):
                raise self._process.reject()
        except ReadError:
            self.close()
            raise

    def open_member(self, member: m.ListedFile) -> int:
        """Unpack a member of the archive and return its size in bytes. Raises ReadError if unpacking fails."""
        return retry_reading(lambda: self._open(member))

    def member_reader(self, member: m.ListedFile) -> ReadAt:
        """Return a function that reads bytes from an archive member. The function may raise ReadError or ServerLost."""

        def take(offset: int, count: int) -> bytes:
            if not self._process.is_running or self._opened != member.number:
                self._open(member)
            return bytes(self._ask(m.Take(offset, count)))[:count]

        return take

    def _open(self, member: m.ListedFile) -> int:
        # The process may have crashed while reading another member, or the fork server may have died.
        is_new = not self._process.is_running
        if is_new:
            self._list()
        try:
            answer = self._ask(m.Open(member.number))
        except ReadError:
            # Other members may have used up the process's time.
            if is_new or self._process.is_running:
                raise
            self._list()
            answer = self._ask(m.Open(member.number))
        size = self._process.decode(answer, m.SIZE)
        self._opened = member.number
        return size

    def _ask(self, request: m.FileRequest) -> bytearray:
        return self._process.ask(request, self._file, self._request.size)

    def close(self) -> None:
        """Stop the process."""
        self._process.stop()


def _are_inside(files: Sequence[m.File] | Sequence[m.ListedFile]) -> bool:
    """Return whether all paths are within the submission. A path outside it could lead to another student's file."""
    return not any(".." in each.place.split("/") for each in files)


def positional_reader(file: BinaryIO) -> tuple[ReadAt, int]:
    """Return a function that reads an open file at a given offset, and the file's size in bytes."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    return lambda offset, count: os.pread(descriptor, count, offset), size
