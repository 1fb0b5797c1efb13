"""Client for the reader service, which parses student files in the sandbox. It validates every response.

Entry points: `Reader`, `StudentBudget`, and `ReaderProcess` for one process of the service.
"""

from __future__ import annotations

import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from typing import BinaryIO, NamedTuple, Self, TypeVar

import msgspec

from autograder.protocol import frames
from autograder.protocol.limits import Allowance, Budget, Excess, Limits
from autograder.protocol.messages import WireError
from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.command import READER
from autograder.sandbox.errors import LimitExceeded, ServerLost, retry_if_server_lost
from autograder.sandbox.meter import Meter
from autograder.submissions import reader_messages
from autograder.submissions.cell import MAX_CELLS
from autograder.submissions.origin import Origin
from autograder.submissions.places import MAX_NOTEBOOKS, FoundFile

CLASS_SECONDS = 300  # CPU seconds per class archive, which may contain gigabytes of data
AHEAD = 2  # number of students to read ahead, per job
FOREVER = 1e9  # seconds
SECONDS = 20  # CPU seconds for slicing a submission
MEMORY = 2_000_000_000  # bytes
IDLE_FACTOR = 3  # a reader waits only if the machine is short of memory
# The limits on reading everything that one student submitted.
STUDENT_SECONDS = 10  # CPU seconds
STUDENT_BYTES = 1_000_000_000  # bytes of the files, which may contain many outputs
STUDENT_TEXT = 20_000_000  # bytes of the cells, without outputs
T = TypeVar("T")


class OpenFile(NamedTuple):
    """A file that a reader process may read: a function that takes an offset and a count, and the size in bytes."""

    read: Callable[[int, int], bytes]
    size: int


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
        file: OpenFile | None = None,
        body: bytes = b"",
        student: StudentBudget | None = None,
    ) -> bytearray:
        """Send a request, followed by `body`, and return the response body. Charge `student` if the request concerns one student.

        The process requests only the bytes of `file` that it needs. Raises ServerLost if the fork server died. Raises
        ReadError for all other problems; the process accepts further requests only if `is_running` is still true.
        """
        if not self._number:
            raise ReadError("the reader process has already ended")
        self._meter.begin(student)
        patience = self._meter.seconds_to_wait
        try:
            frames.send(self._connection, request, reader_messages.body(body), patience)
            while True:
                response, data = frames.receive(
                    self._connection, reader_messages.RESPONSES, patience
                )
                if isinstance(response, reader_messages.Done):
                    return data
                if isinstance(response, reader_messages.Failed):
                    raise ReadError(response.reason)
                if file is None or not _is_within(response, file.size):
                    raise WireError("the reader requested an invalid byte range")
                self._meter.pause()
                try:
                    if student is not None:
                        student.bytes -= response.size
                        check(student)
                    piece = reader_messages.body(file.read(response.offset, response.size))
                except BaseException:
                    self.stop()  # it expects these bytes
                    raise
                self._meter.resume()
                frames.send(self._connection, reader_messages.Pulled(), piece, patience)
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


def _is_within(pull: reader_messages.Pull, size: int) -> bool:
    return (
        pull.offset >= 0
        and 0 < pull.size <= reader_messages.PIECE
        and pull.offset + pull.size <= size
    )


def retry_reading(ask: Callable[[], T]) -> T:
    """Call `ask` and retry if the fork server or the reader process is killed. Raises ReadError if that happens repeatedly."""
    try:
        return retry_if_server_lost(ask)
    except ServerLost:
        raise ReadError(
            "the reader process was killed repeatedly. Check whether this machine ran out of memory"
        ) from None


# ---- files and archives


class Reader:
    """Reads several students' files at the same time, in up to `jobs` threads. Each thread has its own fork server.

    If no fork server is on standby, launch servers that do not import torch.
    """

    def __init__(self, sandbox: Sandbox = "required", jobs: int = 1) -> None:
        self._sandbox: Sandbox = sandbox
        self._jobs = jobs
        self._all: list[FileReader] = []
        self._free: LifoQueue[FileReader] = LifoQueue()
        self._add()

    def _add(self) -> None:
        self._all.append(FileReader(self._sandbox))
        self._free.put(self._all[-1])

    @property
    def server(self) -> Server:
        """Return one of the fork servers."""
        return self._all[0].server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the fork servers."""
        for reader in self._all:
            reader.close()

    @contextmanager
    def borrow(self) -> Iterator[FileReader]:
        """Wait for a reader that no other thread uses."""
        reader = self._free.get()
        try:
            yield reader
        finally:
            self._free.put(reader)

    def map(self, tasks: Iterable[ReadingTask[T]]) -> Iterator[T]:
        """Run tasks, each of which reads one student's files, and yield their results in order.

        `tasks` is advanced in this thread. With one job, the tasks also run in this thread, when their results are needed.
        """
        needed = Budget(Allowance(FOREVER, FOREVER), "submission")

        def run(task: ReadingTask[T]) -> T:
            with self.borrow() as reader:
                return task(reader, StudentBudget(needed))

        threads = ThreadPoolExecutor(self._jobs)  # starts threads on demand
        results: deque[Future[T]] = deque()
        try:
            if self._jobs == 1:
                yield from map(run, tasks)
                return
            for task in tasks:
                # The kernel kills a fork server when the thread that launched it ends.
                if self._free.empty() and len(self._all) < self._jobs:
                    self._add()
                results.append(threads.submit(run, task))
                if len(results) >= AHEAD * self._jobs:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            needed.charge(FOREVER, 0.0)  # ends the tasks that are still running
            threads.shutdown(cancel_futures=True)
            for reader in self._all:
                reader.close_archive()


class FileReader:
    """Reads files one after the other, each in a separate sandboxed process."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.server = Server(sandbox, services=(READER,))
        self._archive: tuple[Path, ArchiveListing] | None = None

    def close(self) -> None:
        """Stop the fork server."""
        self.close_archive()
        self.server.close()

    def read(
        self, name: str, file: OpenFile, day: str, budget: StudentBudget
    ) -> list[reader_messages.File]:
        """Return up to `MAX_NOTEBOOKS` notebooks and scripts from a student's file. Raises ReadError.

        `budget` applies to all of the student's files.
        """
        request = reader_messages.ReadFile(name, file.size, day)
        check(budget)

        def ask(process: ReaderProcess) -> list[reader_messages.File]:
            answer = process.ask(request, file, student=budget)
            budget.text -= len(answer)
            check(budget)
            files = process.decode(answer, reader_messages.FILES)
            if not 0 < len(files) <= MAX_NOTEBOOKS or not _are_inside(files):
                raise process.reject()
            if sum(len(each.cells) for each in files) > MAX_CELLS:
                raise ReadError(f"the submission has more than {MAX_CELLS:,} cells")
            return files

        return self._ask_new_process(ask, STUDENT_SECONDS, budget)

    def read_metadata(self, file: OpenFile) -> dict[str, Origin]:
        """Return the people in Gradescope's metadata file, keyed by folder name. Raises ReadError if it cannot be read."""
        people = self._ask_new_process(
            lambda process: process.decode(
                process.ask(reader_messages.ReadMetadata(file.size), file), reader_messages.PEOPLE
            ),
            CLASS_SECONDS,
        )
        return {name: handed_in.sanitized() for name, handed_in in people.items()}

    def _ask_new_process(
        self, ask: Callable[[ReaderProcess], T], seconds: int, budget: Budget | None = None
    ) -> T:
        def attempt() -> T:
            with ReaderProcess(self.server, seconds, budget) as process:
                return ask(process)

        return retry_reading(attempt)

    def list_archive(self, path: Path, day: str, student: str) -> ArchiveListing:
        """List the files in a class archive, which stays open until another one is listed.

        If there is only one file, attribute it to `student`. Raises ReadError, OSError or NotRegularFile.
        """
        if self._archive is None or self._archive[0] != path:
            self.close_archive()
            self._archive = (
                path,
                ArchiveListing(self.server, open_regular(path), path.name, day, student),
            )
        return self._archive[1]

    def close_archive(self) -> None:
        """Close the class archive that was listed last."""
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None


ReadingTask = Callable[[FileReader, StudentBudget], T]


class ArchiveListing:
    """A class archive. One process lists and unpacks it; other processes parse the students' files."""

    def __init__(self, server: Server, file: BinaryIO, name: str, day: str, student: str) -> None:
        self._server, self._open_file = server, file
        self._file = positional_reader(file)
        self._request = reader_messages.List(name, self._file.size, day, student)
        self._opened = -1
        self.members: list[FoundFile] = []
        try:
            retry_reading(self._list)
        except ReadError:
            self.close()
            raise

    def _list(self) -> None:
        self._process = ReaderProcess(self._server, CLASS_SECONDS)
        self._opened = -1
        try:
            answer = self._process.ask(self._request, self._file)
            found = self._process.decode(answer, reader_messages.LISTED)
            if not _are_inside(found) or any(f.member < 0 and not f.problem for f in found):
                raise self._process.reject()
            self.members = [each.sanitized(each.member) for each in found]
        except ReadError:
            self._process.stop()
            raise

    def open_member(self, member: FoundFile, budget: StudentBudget) -> OpenFile:
        """Unpack a member of the archive. Raises ReadError if that fails. Reading bytes may raise ReadError or ServerLost."""

        def take(offset: int, count: int) -> bytes:
            if not self._process.is_running or self._opened != member.member:
                self._open(member, budget)
            return bytes(self._ask(reader_messages.Take(offset, count), budget))[:count]

        return OpenFile(take, retry_reading(lambda: self._open(member, budget)))

    def _open(self, member: FoundFile, budget: StudentBudget) -> int:
        # The process may have crashed while reading another member, or the fork server may have died.
        is_new = not self._process.is_running
        if is_new:
            self._list()
        try:
            answer = self._ask(reader_messages.Open(member.member), budget)
        except ReadError:
            # Other members may have used up the process's time.
            if is_new or self._process.is_running or budget.problem:
                raise
            self._list()
            answer = self._ask(reader_messages.Open(member.member), budget)
        size = self._process.decode(answer, reader_messages.SIZE)
        self._opened = member.member
        return size

    def _ask(self, request: reader_messages.ReaderRequest, budget: StudentBudget) -> bytearray:
        return self._process.ask(request, self._file, student=budget)

    def close(self) -> None:
        """Stop the process."""
        self._process.stop()
        self._open_file.close()


def _are_inside(files: Sequence[reader_messages.File] | Sequence[FoundFile]) -> bool:
    """Return whether all paths are within the submission. A path outside it could lead to another student's file."""
    return not any(".." in each.place.split("/") for each in files)


# ---- opening files

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegularFile(Exception):
    """Raised when a path is not a regular file. The message gives the reason."""


@contextmanager
def open_folder(top: Path, place: str) -> Iterator[int]:
    """Open the folder at `place` in `top` without following links, even if students replace folders with links meanwhile."""
    folder = os.open(top, OPEN | os.O_DIRECTORY)
    try:
        for name in filter(None, place.split("/")):
            inner = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def open_regular(path: Path, place: str = "") -> BinaryIO:
    """Open a regular file for reading: `path`, or the file at `place` in the folder `path`.

    Raises NotRegularFile for links, FIFOs and devices, and OSError for other problems.
    """
    if not place:
        return _open_regular(os.fspath(path), None)
    folders, _, name = place.rpartition("/")
    with open_folder(path, folders) as folder:
        return _open_regular(name, folder)


def _open_regular(name: str, folder: int | None) -> BinaryIO:
    mode = os.lstat(name, dir_fd=folder).st_mode
    if not stat.S_ISREG(mode):
        is_link = stat.S_ISLNK(mode)
        raise NotRegularFile("links are not followed" if is_link else "this is not a regular file")
    descriptor = os.open(name, OPEN, dir_fd=folder)
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # the file has since been replaced
        file.close()
        raise NotRegularFile("this is not a regular file")
    return file


def positional_reader(file: BinaryIO) -> OpenFile:
    """Let a reader process read an open file."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    return OpenFile(lambda offset, count: os.pread(descriptor, count, offset), size)
