"""The grader's end of the reader: has files of students read behind the wall, and believes nothing that comes back.

Entry points: `Reader` for files, `ReaderProcess` for one process of the reader, which slicing/client.py uses, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec

from autograder.protocol import frames
from autograder.protocol.limits import Budget, Excess, Limits
from autograder.protocol.messages import WireError
from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.errors import LimitExceeded, ServerLost, retry_if_server_lost
from autograder.sandbox.meter import Meter
from autograder.submissions import messages as m
from autograder.submissions.cell import MAX_CELLS
from autograder.submissions.people import HandedIn
from autograder.submissions.places import MAX_NOTEBOOKS

READER = "autograder.slicing.reader"
SECONDS = 20  # of processor time, for one submission
CLASS_SECONDS = 300  # for the archive of a class, which holds gigabytes
MEMORY = 2_000_000_000  # bytes
ReadAt = Callable[[int, int], bytes]  # of a file: from an offset, so many
T = TypeVar("T")


class ReadError(Exception):
    """It could not be read; the message says why in one sentence."""


class ReaderProcess:
    """One process of the reader; what goes wrong in it ends it."""

    def __init__(self, server: Server, seconds: float = SECONDS) -> None:
        limits = Limits(seconds, seconds, MEMORY)
        self._server = server
        self._connection, self._number = server.start(limits, service=READER)
        self._meter = Meter(
            server.clock(self._number),
            limits.cpu_seconds,
            limits.idle_seconds,
            Budget(limits.allowance, "submission"),
        )

    def ask(
        self, request: m.Request, file: ReadAt | None = None, size: int = 0, body: bytes = b""
    ) -> bytearray:
        """The bytes of the answer; `file` is what the request is about.

        Raises:
            ReadError: the process says so, or passed a limit, or sent what is no answer. It can be asked again only if
                `is_running`.
            ServerLost: the fork server ended meanwhile.
        """
        if not self._number:
            raise ReadError("the process that reads it has ended")
        self._meter.begin()
        patience = self._meter.patience
        try:
            frames.send(self._connection, request, m.body(body), patience)
            while True:
                response, data = frames.receive(self._connection, m.RESPONSES, patience)
                if isinstance(response, m.Done):
                    return data
                if isinstance(response, m.Failed):
                    raise ReadError(response.reason)
                if file is None or not _is_within(response, size):
                    raise WireError("a question that has no answer")
                self._meter.pause()
                piece = m.body(file(response.offset, response.size))
                self._meter.resume()
                frames.send(self._connection, m.Pulled(), piece, patience)
        except LimitExceeded as error:
            self.stop()
            raise _too_much(error.excess) from None
        except WireError:
            raise self.nonsense() from None
        except ConnectionError:
            raise self._ended() from None
        finally:
            self._meter.pause()

    def decode(self, answer: bytearray, decoder: msgspec.msgpack.Decoder[T]) -> T:
        """An answer as what it should be. Raises ReadError."""
        try:
            found: T = decoder.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
            raise self.nonsense() from None
        return found

    def nonsense(self) -> ReadError:
        """End the process because of what it answered; the exception to raise."""
        self.stop()
        return ReadError("what the process that reads it answers makes no sense")

    @property
    def is_running(self) -> bool:
        """Whether it can be asked again."""
        return bool(self._number)

    def _ended(self) -> ReadError:
        """Why the process has ended. Raises ServerLost."""
        number, self._number = self._number, 0
        self._connection.close()
        ended = self._server.end(number)
        excess = self._meter.ended(ended.cpu)
        if excess is not None:
            return _too_much(excess)
        if ended.code == -signal.SIGKILL:
            return ReadError(f"reading it takes more than {MEMORY // 10**9} GB of memory")
        return ReadError(f"it ends the process that reads it (exit code {ended.code})")

    def stop(self) -> None:
        """End the process; stopping again does nothing."""
        if self._number:
            number, self._number = self._number, 0
            self._connection.close()
            self._server.stop(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _too_much(excess: Excess) -> ReadError:
    return ReadError(f"reading it takes more than {excess.amount}")


def _is_within(pull: m.Pull, size: int) -> bool:
    return pull.offset >= 0 and 0 < pull.size <= m.PIECE and pull.offset + pull.size <= size


class Reader:
    """Has files read, each in a process of its own behind the wall; owns a fork server without torch."""

    def __init__(self, sandbox: Sandbox = "required") -> None:
        self.server = Server(sandbox, services=(READER,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the fork server."""
        self.server.close()

    def read(self, name: str, file: ReadAt, size: int, day: str, nested: bool) -> list[m.File]:
        """The notebooks and scripts in what one student handed in, at most `MAX_NOTEBOOKS`. Raises ReadError."""
        request = m.Read(name, size, day, nested)

        def ask(process: ReaderProcess) -> list[m.File]:
            found = process.decode(process.ask(request, file, size), m.FILES)
            if not 0 < len(found) <= MAX_NOTEBOOKS:
                raise process.nonsense()
            if sum(len(one.cells) for one in found) > MAX_CELLS:
                raise ReadError(f"it has more than {MAX_CELLS:,} cells")
            return found

        return self._asked(ask)

    def read_metadata(self, file: ReadAt, size: int) -> dict[str, HandedIn]:
        """The people in Gradescope's metadata, by their folders. Raises ReadError."""
        people = self._asked(
            lambda process: process.decode(process.ask(m.ReadMetadata(size), file, size), m.PEOPLE),
            CLASS_SECONDS,
        )
        return {name: handed_in.sanitized() for name, handed_in in people.items()}

    def _asked(self, ask: Callable[[ReaderProcess], T], seconds: int = SECONDS) -> T:
        """Ask a process of its own."""

        def attempt() -> T:
            with ReaderProcess(self.server, seconds) as process:
                return ask(process)

        return retry_server_loss(attempt)

    @contextmanager
    def list_archive(
        self, name: str, file: ReadAt, size: int, day: str, student: str
    ) -> Iterator[ArchiveListing]:
        """What is in the archive of a class. Raises ReadError."""
        listing = ArchiveListing(self.server, m.List(name, size, day, student), file)
        try:
            yield listing
        finally:
            listing.close()


class ArchiveListing:
    """The archive of a class: one process lists and unpacks it, and looks into no file of a student."""

    def __init__(self, server: Server, request: m.List, file: ReadAt) -> None:
        self._server, self._request, self._file = server, request, file
        self._opened = -1
        self.members: list[m.ListedFile] = []
        retry_server_loss(self._list)

    def _list(self) -> None:
        self._process = ReaderProcess(self._server, CLASS_SECONDS)
        self._opened = -1
        try:
            answer = self._process.ask(self._request, self._file, self._request.size)
            self.members = self._process.decode(answer, m.LISTED)
        except ReadError:
            self.close()
            raise

    def open_member(self, member: m.ListedFile) -> int:
        """How long a member is. Raises ReadError if it cannot be unpacked."""
        return retry_server_loss(lambda: self._open(member))

    def member_reader(self, member: m.ListedFile) -> ReadAt:
        """Its bytes; asking for them raises ReadError, or ServerLost."""

        def take(offset: int, count: int) -> bytes:
            if not self._process.is_running or self._opened != member.number:
                self._open(member)
            return bytes(self._ask(m.Take(offset, count)))[:count]

        return take

    def _open(self, member: m.ListedFile) -> int:
        if not self._process.is_running:  # another member, or the fork server, ended it
            self._list()
        size = self._process.decode(self._ask(m.Open(member.number)), m.SIZE)
        self._opened = member.number
        return size

    def _ask(self, request: m.Request) -> bytearray:
        return self._process.ask(request, self._file, self._request.size)

    def close(self) -> None:
        """End the process."""
        self._process.stop()


def retry_server_loss(ask: Callable[[], T]) -> T:
    """Ask, and again if the fork server ended meanwhile. Raises ReadError."""
    try:
        return retry_if_server_lost(ask)
    except ServerLost:
        raise ReadError("the process that starts readers ended several times") from None


def positional_reader(file: BinaryIO) -> tuple[ReadAt, int]:
    """The bytes of an open file, and its size."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    return lambda offset, count: os.pread(descriptor, count, offset), size
