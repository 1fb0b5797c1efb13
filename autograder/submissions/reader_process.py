"""Client for one process of the reader service, which parses student files in the sandbox. It validates every response.

Entry points: `ReaderProcess`, `StudentBudget` and `retry_reading`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Self, TypeVar

import msgspec

from autograder.protocol import frames
from autograder.protocol.limits import Allowance, Budget, Excess, Limits
from autograder.protocol.messages import WireError
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER
from autograder.sandbox.errors import LimitExceeded, ServerLost, retry_if_server_lost
from autograder.sandbox.meter import Meter
from autograder.submissions import reader_messages as m

SECONDS = 20  # CPU seconds for slicing a submission
MEMORY = 2_000_000_000  # bytes
IDLE_FACTOR = 3  # a reader waits only if the machine is short of memory
# The limits on reading everything that one student submitted.
STUDENT_SECONDS = 10  # CPU seconds
STUDENT_BYTES = 1_000_000_000  # bytes of the files, which may contain many outputs
STUDENT_TEXT = 20_000_000  # bytes of the cells, without outputs
# A function that takes an offset and a count, and returns bytes from a file.
ReadAt = Callable[[int, int], bytes]
T = TypeVar("T")


class ReadError(Exception):
    """Raised when a file could not be read or a notebook could not be sliced. The message gives the reason."""


class StudentBudget(Budget):
    """What reading all of a student's files may cost: CPU time, waiting, bytes of the files, and bytes of their cells.

    `parent` is used up when the files are no longer needed.
    """

    def __init__(self, parent: Budget | None = None) -> None:
        seconds = Allowance(STUDENT_SECONDS, IDLE_FACTOR * STUDENT_SECONDS)
        super().__init__(seconds, "submission", parent)
        self.bytes, self.text = STUDENT_BYTES, STUDENT_TEXT

    @property
    def problem(self) -> str:
        """Return which limit was exceeded, or ""."""
        if self.excess is not None:
            return str(_limit_error(self.excess))
        if self.bytes < 0:
            return f"the student's files are too large (limit: {STUDENT_BYTES:,} bytes in total)"
        if self.text < 0:
            return f"the cells in the student's files contain too much text (limit: {STUDENT_TEXT:,} bytes in total)"
        return ""


class ReaderProcess:
    """One process of the reader service. It is stopped if it exceeds a limit or sends an invalid response."""

    def __init__(
        self, server: Server, seconds: float = SECONDS, budget: Budget | None = None
    ) -> None:
        limits = Limits(seconds, seconds, MEMORY, IDLE_FACTOR * seconds)
        self._server = server
        self._connection, self._number = server.start(limits, service=READER)
        self._meter = Meter(
            server.clock(self._number),
            limits.cpu_seconds,
            limits.idle_seconds,
            budget or Budget(limits.allowance, "call"),
        )

    def ask(
        self,
        request: msgspec.Struct,
        file: ReadAt | None = None,
        size: int = 0,
        body: bytes = b"",
        student: StudentBudget | None = None,
    ) -> bytearray:
        """Send a request and return the response body.

        Args:
            file: A function that reads the requested file, whose length is `size` bytes. The process requests only the
                bytes that it needs.
            body: Bytes to send after the request.
            student: The budget to charge, if the request concerns one student.

        Raises:
            ReadError: The process reported an error, exceeded a limit, crashed or sent an invalid response. It accepts
                further requests only if `is_running` is still true.
            ServerLost: The fork server died.
        """
        if not self._number:
            raise ReadError("the reader process has already ended")
        self._meter.begin(student)
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
                try:
                    if student is not None:
                        student.bytes -= response.size
                        check(student)
                    piece = m.body(file(response.offset, response.size))
                except BaseException:
                    self.stop()  # it expects these bytes
                    raise
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
            self._meter.close()
            number, self._number = self._number, 0
            self._connection.close()
            self._server.stop(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def check(student: StudentBudget) -> None:
    """Raise ReadError if a student's files exceed a limit."""
    if student.problem:
        raise ReadError(student.problem)


def _limit_error(excess: Excess) -> ReadError:
    if excess.scope == "submission":
        return ReadError(f"reading the student's files took more than {excess.amount} in total")
    return ReadError(f"reading the file took more than {excess.amount}")


def _is_within(pull: m.Pull, size: int) -> bool:
    return pull.offset >= 0 and 0 < pull.size <= m.PIECE and pull.offset + pull.size <= size


def retry_reading(ask: Callable[[], T]) -> T:
    """Call `ask` and retry if the fork server or the reader process is killed. Raises ReadError if that happens repeatedly."""
    try:
        return retry_if_server_lost(ask)
    except ServerLost:
        raise ReadError(
            "the reader process was killed repeatedly. Check whether this machine ran out of memory"
        ) from None
