"""Parse students' files in the sandbox, in a separate process for each submission.

The reader unpacks archives, parses notebooks, scripts and platform metadata, and slices code. It cannot access files or
the network, so it requests file contents over its connection. Its clients are submissions/reader_client.py and
slicing/slicer.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import socket
import warnings
from typing import Any, BinaryIO

import msgspec

from autograder.course import fingerprint
from autograder.plain_text import printable, printable_problems
from autograder.protocol import frames
from autograder.slicing import notebook_slicer
from autograder.submissions import reader_messages
from autograder.submissions.archives import (
    OF_CLASS,
    ArchiveEntry,
    Damaged,
    RefusedFile,
    list_class,
    read_entry,
    read_tree,
)
from autograder.submissions.cell import Cell
from autograder.submissions.cell_reader import MAX_BYTES, Unreadable, read_cells
from autograder.submissions.file_types import has_notebook_suffix, is_archive
from autograder.submissions.gradescope_metadata import MAX_METADATA, MetadataError, parse_metadata
from autograder.submissions.places import MAX_NOTEBOOKS, TOO_MANY, FoundFile, find_for_student

UNSUPPORTED = "the file is not a notebook, a script, a zip archive or a tar archive"
DOWNLOAD_AGAIN = "if this is a class download, download it again"
BUFFER = 1 << 16  # minimum number of bytes that the reader requests from an archive at a time


class Remote(io.RawIOBase):
    """A read-only file that only the grader has open. Each read requests bytes over the connection."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._connection = connection
        self.length = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.length}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), reader_messages.PIECE, self.length - self._position)
        if size <= 0:
            return 0
        _send(self._connection, reader_messages.Pull(self._position, size))
        _, data = frames.receive(self._connection, reader_messages.REQUESTS, math.inf)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def buffered(self) -> BinaryIO:
        """Return a file that requests larger parts of this one, because archives are read in small parts."""
        return io.BufferedReader(self, BUFFER)

    def read_whole(self) -> bytearray:
        """Return the file's entire contents."""
        data = bytearray(self.length)
        view = memoryview(data)
        self.seek(0)
        read = 0
        while size := self.readinto(view[read:]):
            read += size
        view.release()
        del data[read:]
        return data


class Handler:
    """Answers requests about one submission or one class archive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._members: list[ArchiveEntry] = []
        self._member = b""
        self._slicer: notebook_slicer.NotebookSlicer | None = None

    def answer(self, request: reader_messages.ReaderRequest, body: bytearray) -> Any:
        """Return the response: bytes for `Take`, and messages for all other requests. Raises RefusedFile."""
        match request:
            case reader_messages.ReadFile():
                return self._read(request)
            case reader_messages.List():
                return self._list(request)
            case reader_messages.Open():
                self._member = read_entry(self._members[request.number])
                return len(self._member)
            case reader_messages.Take():
                return self._member[request.offset : request.offset + request.size]
            case reader_messages.ReadMetadata():
                return self._metadata(request.size)
            case reader_messages.SliceAll():
                cells = msgspec.msgpack.decode(body, type=list[Cell])
                self._slicer = notebook_slicer.NotebookSlicer(
                    notebook_slicer.COURSES[request.course], cells
                )
                return self._slicer.slice_all()
            case reader_messages.SliceAgain():
                assert self._slicer is not None
                return self._slicer.slice_again(request.exercise, request.replaced, request.wide)
            case reader_messages.Pulled():
                raise RefusedFile("the grader sent bytes that were not requested")

    def _read(self, request: reader_messages.ReadFile) -> list[reader_messages.File]:
        remote = Remote(self._connection, request.size)
        beginning = bytearray(8)
        beginning = beginning[: remote.readinto(beginning)]
        if is_archive(request.name, bytes(beginning)):
            return _read_archive(remote.buffered(), request.name, request.day)
        is_named = has_notebook_suffix(request.name)
        if not is_named and not beginning.startswith(b"{"):
            raise RefusedFile(UNSUPPORTED)
        if request.size > MAX_BYTES:
            raise RefusedFile(f"the file is too large (limit: {MAX_BYTES:,} bytes)")
        return [_read_notebook("", remote.read_whole(), request.name)]

    def _list(self, request: reader_messages.List) -> list[FoundFile]:
        file = Remote(self._connection, request.size).buffered()
        try:
            root, by_place = read_tree(file, request.name, OF_CLASS)
        except Damaged as error:
            raise RefusedFile(f"{error} ({DOWNLOAD_AGAIN})") from None
        listed = []
        for found in list_class(root, request.day, request.student):
            entry = by_place.get(found.place)
            member = -1
            if entry and not found.problem:
                member = len(self._members)
                self._members.append(entry)
            listed.append(found.sanitized(member))
        return listed

    def _metadata(self, size: int) -> dict[str, Any]:
        if size > MAX_METADATA:
            raise RefusedFile(f"the file is larger than {MAX_METADATA:,} bytes")
        try:
            return parse_metadata(bytes(Remote(self._connection, size).read_whole()))
        except MetadataError as error:
            raise RefusedFile(str(error)) from None


# ---- one student's files


def _read_archive(
    file: BinaryIO, name: str, day: str, is_inner: bool = False
) -> list[reader_messages.File]:
    root, by_place = read_tree(file, name)
    files: list[reader_messages.File] = []
    for found in find_for_student(root, day, ""):
        if found.problem:
            raise RefusedFile(found.problem)
        files += _read_member(found.place, by_place[found.place], day, found.notes, is_inner)
        if len(files) > MAX_NOTEBOOKS:
            raise RefusedFile(TOO_MANY)
    if root.problem:
        files.append(reader_messages.File("", reason=printable(root.problem)))
    return files


def _read_member(
    place: str, entry: ArchiveEntry, day: str, notes: tuple[str, ...], is_inner: bool
) -> list[reader_messages.File]:
    try:
        data = read_entry(entry)
        if not is_archive(place, data[:8]):
            return [_read_notebook(place, data, place, notes)]
        if is_inner:
            raise RefusedFile(
                "archives are nested too deeply; submit a notebook or a single archive"
            )
        inner = _read_archive(io.BytesIO(data), place, day, is_inner=True)
    except RefusedFile as error:
        return [reader_messages.File(printable(place), reason=printable(str(error)))]
    return [
        msgspec.structs.replace(file, place=printable(f"{place}/{file.place}")) for file in inner
    ]


def _read_notebook(
    place: str, data: bytes | bytearray, name: str, notes: tuple[str, ...] = ()
) -> reader_messages.File:
    digest = hashlib.sha256(data).hexdigest()
    where = printable(place)
    try:
        cells, problems = read_cells(data, name)
    except Unreadable as error:
        return reader_messages.File(where, digest, reason=printable(str(error)))
    shown = printable_problems((*notes, *problems))
    return reader_messages.File(where, digest, cells, shown, fingerprint.find_stamp(data))


def _send(connection: socket.socket, message: reader_messages.Response, body: bytes = b"") -> None:
    frames.send(connection, message, reader_messages.body(body), math.inf)


# ---- the service


def warm_up() -> None:
    """Read a small notebook before forking so that every process starts with warm caches."""
    read_cells(b'{"cells": [{"cell_type": "code", "source": "x = 1"}]}', "a.ipynb")


def prepare(data: bytes) -> None:
    """Receive part of a course from `slicing.slicer.prepare`."""
    notebook_slicer.prepare(data)


def serve(connection: socket.socket) -> None:
    """Answer requests until the grader closes the connection."""
    warnings.simplefilter("ignore")
    handler = Handler(connection)
    with contextlib.suppress(ConnectionError):
        while True:
            request, body = frames.receive(connection, reader_messages.REQUESTS, math.inf)
            _respond(connection, handler, request, body)


def _respond(
    connection: socket.socket,
    handler: Handler,
    request: reader_messages.ReaderRequest,
    body: bytearray,
) -> None:
    try:
        answer = handler.answer(request, body)
        data = answer if isinstance(answer, bytes) else msgspec.msgpack.encode(answer)
        if len(data) > frames.MAX_PAYLOAD:
            raise RefusedFile(
                f"the cells contain too much text (limit: {frames.MAX_PAYLOAD:,} bytes)"
            )
    except RefusedFile as error:
        _send(connection, reader_messages.Failed(printable(str(error))))
    except MemoryError:
        _send(connection, reader_messages.Failed("reading the file takes too much memory"))
    except ConnectionError:
        raise
    except Exception as error:  # a parser failure on hostile input must not affect other students
        _send(connection, reader_messages.Failed(printable(f"{type(error).__name__}: {error}")))
    else:
        _send(connection, reader_messages.Done(), data)
