"""Client for the reader service, which parses student files in the sandbox. Validates every response.

Entry points: `Reader`, which reads files, and `ReaderProcess`, which represents one process of the service.
slicing/client.py also uses `ReaderProcess`.
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
from autograder.sandbox.command import READER
from autograder.sandbox.errors import LimitExceeded, ServerLost, retry_if_server_lost
from autograder.sandbox.meter import Meter
from autograder.submissions import messages as m
from autograder.submissions.cell import MAX_CELLS
from autograder.submissions.people import HandedIn
from autograder.submissions.places import MAX_NOTEBOOKS

SECONDS = 20  # CPU seconds per submission
CLASS_SECONDS = 300  # CPU seconds per class archive, which may contain gigabytes of data
MEMORY = 2_000_000_000  # bytes
# A function that takes an offset and a count, and returns bytes from a file.
ReadAt = Callable[[int, int], bytes]
T = TypeVar("T")


class ReadError(Exception):
    """Raised when a file could not be read or a notebook could not be sliced. The message gives the reason."""


class ReaderProcess:
    """One process of the reader service. It is stopped if it exceeds a limit or sends an invalid response."""

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
        """Send a request and return the body of the response.

        Args:
            file: A function that reads the requested file, whose length is `size` bytes. The process requests only the
                bytes that it needs.
            body: Bytes to send after the request.

        Raises:
            ReadError: The process reported an error, exceeded a limit, crashed or sent an invalid response. It accepts
                further requests only if `is_running` is still true.
            ServerLost: The fork server died.
        """
        if not self._number:
            raise ReadError("the reader process has already ended")
        self._meter.begin()
        patience = self._meter.seconds_to_wait
        try:
            frames.send(self._connection, request, m.body(body), patience)
            while True:
                response, data = frames.receive(self._connection, m.RESPONSES, patience)
                if isinstance(response, m.Done):
                    return data
                if isinstance(response, m.Failed):
                    raise ReadError(response.reason)
                if file is None or not _is_within(response, size):
                    raise WireError("the reader requested an invalid byte range")
                self._meter.pause()
                piece = m.body(file(response.offset, response.size))
                self._meter.resume()
                frames.send(self._connection, m.Pulled(), piece, patience)
        except LimitExceeded as error:
            self.stop()
            raise _limit_error(error.excess) from None
        except WireError:
            raise self.reject() from None
        except ConnectionError:
            raise self._exit_error() from None
        finally:
            self._meter.pause()

    def decode(self, answer: bytearray, decoder: msgspec.msgpack.Decoder[T]) -> T:
        """Decode a response body. Stop the process and raise ReadError if the body is invalid."""
        try:
            decoded: T = decoder.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
            raise self.reject() from None
        return decoded

    def reject(self) -> ReadError:
        """Stop the process because of an invalid response and return the exception to raise."""
        self.stop()
        return ReadError("the reader process sent an invalid response")

    @property
    def is_running(self) -> bool:
        """Return whether the process accepts requests."""
        return bool(self._number)

    def _exit_error(self) -> ReadError:
        """Return an exception that explains why the process exited.

        Raises ServerLost if the fork server has died, or if the process was killed, for example because memory ran out.
        """
        number, self._number = self._number, 0
        self._connection.close()
        ended = self._server.end(number)
        excess = self._meter.ended(ended.cpu)
        if excess is not None:
            return _limit_error(excess)
        if ended.code == -signal.SIGKILL:
            raise ServerLost
        return ReadError(
            f"the reader process crashed while reading the file (exit code {ended.code})"
        )

    def stop(self) -> None:
        """Stop the process. Further calls have no effect."""
        if self._number:
            number, self._number = self._number, 0
            self._connection.close()
            self._server.stop(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _limit_error(excess: Excess) -> ReadError:
    return ReadError(f"reading the file took more than {excess.amount}")


def _is_within(pull: m.Pull, size: int) -> bool:
    return pull.offset >= 0 and 0 < pull.size <= m.PIECE and pull.offset + pull.size <= size


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
            if not 0 < len(files) <= MAX_NOTEBOOKS:
                raise process.reject()
            if sum(len(each.cells) for each in files) > MAX_CELLS:
                raise ReadError(f"the submission has more than {MAX_CELLS:,} cells")
            return files

        return self._ask_new_process(ask)

    def read_metadata(self, file: ReadAt, size: int) -> dict[str, HandedIn]:
        """Return the people in Gradescope's metadata file, keyed by folder name. Raises ReadError."""
        people = self._ask_new_process(
            lambda process: process.decode(process.ask(m.ReadMetadata(size), file, size), m.PEOPLE),
            CLASS_SECONDS,
        )
        return {name: handed_in.sanitized() for name, handed_in in people.items()}

    def _ask_new_process(self, ask: Callable[[ReaderProcess], T], seconds: int = SECONDS) -> T:
        def attempt() -> T:
            with ReaderProcess(self.server, seconds) as process:
                return ask(process)

        return retry_server_loss(attempt)

    @contextmanager
    def list_archive(
        self, name: str, file: ReadAt, size: int, day: str, student: str
    ) -> Iterator[ArchiveListing]:
        """List the files in a class archive. If there is only one file, it belongs to `student`. Raises ReadError."""
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
        """Unpack a member of the archive and return its size in bytes. Raises ReadError if unpacking fails."""
        return retry_server_loss(lambda: self._open(member))

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

    def _ask(self, request: m.Request) -> bytearray:
        return self._process.ask(request, self._file, self._request.size)

    def close(self) -> None:
        """Stop the process."""
        self._process.stop()


def retry_server_loss(ask: Callable[[], T]) -> T:
    """Call `ask` and retry if the fork server or the reader process is killed. Raises ReadError if that happens repeatedly."""
    try:
        return retry_if_server_lost(ask)
    except ServerLost:
        raise ReadError(
            "the reader process was killed repeatedly. Check whether this machine ran out of memory"
        ) from None


def positional_reader(file: BinaryIO) -> tuple[ReadAt, int]:
    """Return a function that reads from an open file at a given offset, and the size of that file in bytes."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    return lambda offset, count: os.pread(descriptor, count, offset), size
