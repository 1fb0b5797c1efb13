"""What an archive holds, read in memory and never extracted; limits against bombs come first.

The grader runs this behind the wall alone; see slicing/reader.py.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

MAX_ENTRIES = 50_000
MAX_MEMBER = 300_000_000  # bytes of one member, which may be a student's own archive
MAX_TOTAL = 5_000_000_000  # bytes of all members, of which one at a time is in memory
MAX_TAR = 500_000_000  # bytes of a compressed tar, unpacked in memory as a whole
MAX_RATIO = 200  # unpacked to packed; notebooks full of repeated output reach 30
SMALL = 1_000_000  # below this a ratio says nothing

ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".zip", ".tar")
UNPACKED: list[tuple[bytes, Callable[[BinaryIO], io.BufferedIOBase]]] = [
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
]
ZIP_END = struct.Struct("<4s4H2LH")


class Refused(Exception):
    """The archive or member is not read; the message says why in words."""


@dataclass(frozen=True)
class Entry:
    """One file: its name, how it is read, and why it is not (or "")."""

    name: str
    read: Callable[[], bytes]
    problem: str = ""


def is_archive(name: str, beginning: bytes) -> bool:
    """Whether a file is an archive, by its name or, since names lie, by its first bytes."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) or beginning.startswith(
        (b"PK\x03\x04", b"PK\x05\x06")
    )


def iter_entries(file: BinaryIO) -> Iterator[Entry]:
    """Yields the files of a zip or tar archive, compressed or not, in the order of the archive.

    Raises Refused when it is broken or passes a limit.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise Refused("it is empty")
        file.seek(0)
        beginning = file.read(8)
        file.seek(0)
        if beginning.startswith(b"PK"):
            yield from _zip_entries(file, size)
        else:
            yield from _tar_entries(_decompressed(file, beginning, size))
    except Refused:
        raise
    except Exception as error:  # zipfile and tarfile raise a dozen kinds on broken input
        raise Refused("the archive is broken, cut off or of an unknown kind") from error


def _zip_entries(file: BinaryIO, size: int) -> Iterator[Entry]:
    file.seek(max(0, size - ZIP_END.size - 65_535))
    tail = file.read()
    end = len(tail) - ZIP_END.size
    if not tail.startswith(b"PK\x05\x06", end):
        end = tail.rfind(b"PK\x05\x06")
    if not 0 <= end <= len(tail) - ZIP_END.size:
        raise Refused("the archive is broken: its end is missing")
    # zipfile reads the whole directory at once, so its size is looked at before.
    directory = ZIP_END.unpack_from(tail, end)[5]
    if directory > MAX_ENTRIES * 200 or b"PK\x06\x07" in tail[max(0, end - 20) : end]:
        raise Refused(f"the archive has more than {MAX_ENTRIES:,} entries or 4 GB")
    archive = zipfile.ZipFile(file)
    infos = archive.infolist()
    files = [(info, _zip_problem(info)) for info in infos if not info.is_dir()]
    _check(len(infos), sum(info.file_size for info, problem in files if not problem), size)
    for info, problem in files:
        name = info.filename.replace("\\", "/")  # as some Windows tools write it
        yield Entry(name, partial(archive.read, info), problem)


def _zip_problem(info: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link or a special file, which is not followed"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
        return f"it would unpack to more than {MAX_RATIO} times its size"
    return _too_large(info.file_size)


def _tar_entries(file: BinaryIO) -> Iterator[Entry]:
    archive = tarfile.TarFile(fileobj=file)
    count = total = 0
    while (member := archive.next()) is not None:
        problem = _tar_problem(member)
        count += 1
        total += 0 if problem else member.size
        _check(count, total, total)
        if not member.isdir():
            yield Entry(member.name, partial(_tar_read, archive, member), problem)
    file.seek(archive.offset)  # tarfile takes a damaged header after the first for the end
    end = file.read(tarfile.BLOCKSIZE)
    if end and end != bytes(tarfile.BLOCKSIZE):
        raise Refused("the archive is damaged or cut off; what comes before is read")


def _tar_problem(member: tarfile.TarInfo) -> str:
    if member.islnk() or member.issym():
        return "it is a link, which is not followed"
    if not member.isreg():
        return "it is a special file"
    return _too_large(member.size)


def _tar_read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise Refused("the archive ends in the middle of it")
    return data


def _decompressed(file: BinaryIO, beginning: bytes, size: int) -> BinaryIO:
    """The tar file itself, unpacked in memory where it is compressed, for tarfile to seek in."""
    for magic, unpack in UNPACKED:
        if beginning.startswith(magic):
            unpacked = io.BytesIO()
            packed = unpack(file)
            while chunk := packed.read(SMALL):
                unpacked.write(chunk)
                _check(0, unpacked.tell(), size)
                if unpacked.tell() > MAX_TAR:
                    raise Refused(f"the archive would unpack to more than {MAX_TAR:,} bytes")
            unpacked.seek(0)
            return unpacked
    return file


def _too_large(size: int) -> str:
    return f"it is too large: {size:,} bytes" if size > MAX_MEMBER else ""


def _check(count: int, total: int, size: int) -> None:
    if count > MAX_ENTRIES:
        raise Refused(f"the archive has more than {MAX_ENTRIES:,} entries")
    if total > MAX_TOTAL:
        raise Refused(f"the archive would unpack to more than {MAX_TOTAL:,} bytes")
    if total > max(SMALL, MAX_RATIO * size):
        raise Refused(f"the archive would unpack to more than {MAX_RATIO} times its size")
