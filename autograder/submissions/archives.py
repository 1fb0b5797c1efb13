"""Read zip and tar archives in memory, without extracting them, as trees of folders in which places.py finds the submissions.

Enforce limits on sizes and the number of entries. Only the sandboxed reader process runs this module; see
slicing/reader_service.py. Entry points: `read_tree`, `list_class` and `read_entry`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from autograder.submissions import origin
from autograder.submissions.file_types import is_archive, is_day_name, stem
from autograder.submissions.gradescope_metadata import MetadataError, parse_metadata
from autograder.submissions.origin import Origin
from autograder.submissions.places import FoundFile, Metadata, find_in_class
from autograder.submissions.reader_messages import MAX_ENTRIES

MAX_CLASS_ENTRIES = 300_000
ENTRY_BYTES = 200  # expected size of an entry in a zip file's central directory
MAX_MEMBER = 300_000_000  # maximum bytes per member; a member may itself be a student's archive
MAX_TOTAL = 5_000_000_000  # maximum bytes in all members; only one member is in memory at a time
MAX_TAR = 500_000_000  # maximum bytes in a tar file after decompression, which happens in memory
MAX_RATIO = 200  # maximum ratio of uncompressed to compressed size; notebooks with repetitive output can reach 30
MIN_CHECKED = 1_000_000  # minimum bytes for the ratio check; smaller files may have any ratio

DECOMPRESSORS: list[tuple[bytes, Callable[[BinaryIO], io.BufferedIOBase]]] = [
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
]
ZIP_END = struct.Struct("<4s4H2LH")  # the end-of-central-directory record of a zip file
# In an archive with more than 65,535 entries or 4 GB, this record and a locator precede `ZIP_END`.
ZIP64_END = struct.Struct("<4sQ2H2L4Q")
ZIP64_LOCATOR_BYTES = 20


class RefusedFile(Exception):
    """Raised for a file, archive or archive member that must not be read. The message gives the reason."""


class Damaged(RefusedFile):
    """Raised for an archive that is empty or incomplete, for example because a download was interrupted."""


@dataclass(frozen=True)
class ArchiveEntry:
    """A file in an archive."""

    name: str
    read: Callable[[], bytes]
    problem: str = ""  # why the file must not be read, or ""


@dataclass(frozen=True)
class ArchiveLimits:
    """An archive's limits: the number of entries, the total size of all members in bytes, and the compression ratio."""

    entries: int
    total: float
    ratio: float

    def check(self, count: int, total: int, size: int) -> None:
        """Raise RefusedFile if an archive of `size` bytes has too many entries or its members are too large."""
        if count > self.entries:
            raise RefusedFile(f"the archive has more than {self.entries:,} entries")
        if total > self.total:
            raise RefusedFile(f"the archive would unpack to more than {self.total:,} bytes")
        if total > max(MIN_CHECKED, self.ratio * size):
            raise RefusedFile(f"the archive would unpack to more than {self.ratio} times its size")


OF_STUDENT = ArchiveLimits(MAX_ENTRIES, MAX_TOTAL, MAX_RATIO)
# One student's files must not make a whole class's download unreadable, so only the size of each member is limited. A
# compressed tar archive is not a platform's download, and is always subject to the limits above.
OF_CLASS = ArchiveLimits(MAX_CLASS_ENTRIES, math.inf, math.inf)


def iter_entries(file: BinaryIO, limits: ArchiveLimits = OF_STUDENT) -> Iterator[ArchiveEntry]:
    """Yield the files in a zip archive or an optionally compressed tar archive, in archive order.

    Raises RefusedFile if the archive is damaged or exceeds a limit.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise Damaged("the file is empty")
        file.seek(0)
        beginning = file.read(8)
        file.seek(0)
        if beginning.startswith(b"PK"):
            yield from _zip_entries(file, size, limits)
        else:
            yield from _tar_entries(_decompress(file, beginning, size), limits)
    except RefusedFile:
        raise
    except Exception as error:  # zipfile and tarfile raise many exception types for damaged data
        raise Damaged("the archive is damaged, truncated or in an unsupported format") from error


def _zip_entries(file: BinaryIO, size: int, limits: ArchiveLimits) -> Iterator[ArchiveEntry]:
    # zipfile reads the whole central directory at once, so check its size first.
    if _directory_bytes(file, size) > limits.entries * ENTRY_BYTES:
        raise RefusedFile(f"the archive has more than {limits.entries:,} entries")
    archive = zipfile.ZipFile(file)
    infos = archive.infolist()
    files = [(info, _zip_problem(info)) for info in infos if not info.is_dir()]
    limits.check(len(infos), sum(info.file_size for info, problem in files if not problem), size)
    for info, problem in files:
        name = info.filename.replace("\\", "/")  # some Windows tools write paths with backslashes
        yield ArchiveEntry(name, partial(archive.read, info), problem)


def _directory_bytes(file: BinaryIO, size: int) -> int:
    """Return the size of a zip file's central directory."""
    file.seek(max(0, size - ZIP_END.size - 65_535))
    tail = file.read()
    end = len(tail) - ZIP_END.size
    if not tail.startswith(b"PK\x05\x06", end):
        end = tail.rfind(b"PK\x05\x06")
    if not 0 <= end <= len(tail) - ZIP_END.size:
        raise Damaged("the archive is damaged: it is truncated")
    directory: int = ZIP_END.unpack_from(tail, end)[5]
    start = size - len(tail) + end - ZIP64_LOCATOR_BYTES - ZIP64_END.size
    if start >= 0:  # zipfile also expects the zip64 record here
        file.seek(start)
        record = file.read(ZIP64_END.size + 4)
        if record.startswith(b"PK\x06\x06") and record.endswith(b"PK\x06\x07"):
            # If the size does not fit into the main record, that record contains 0xFFFFFFFF instead.
            directory = max(
                0 if directory == 0xFFFFFFFF else directory, ZIP64_END.unpack_from(record)[8]
            )
    return directory


def _zip_problem(info: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "links and special files in archives are not read"
    if info.flag_bits & 1:
        return "the file is encrypted"
    if info.file_size > max(MIN_CHECKED, MAX_RATIO * info.compress_size):
        return f"the file would unpack to more than {MAX_RATIO} times its compressed size"
    return _too_large(info.file_size)


def _tar_entries(file: BinaryIO, limits: ArchiveLimits) -> Iterator[ArchiveEntry]:
    archive = tarfile.TarFile(fileobj=file)
    count = total = 0
    while (member := archive.next()) is not None:
        problem = _tar_problem(member)
        count += 1
        total += 0 if problem else member.size
        limits.check(count, total, total)
        if not member.isdir():
            yield ArchiveEntry(member.name, partial(_tar_read, archive, member), problem)
    # tarfile treats any damaged header except the first as the end of the archive.
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if end and end != bytes(tarfile.BLOCKSIZE):
        raise RefusedFile(
            "the archive is damaged or truncated; only the files before the damage were read"
        )


def _tar_problem(member: tarfile.TarInfo) -> str:
    if member.islnk() or member.issym():
        return "links in archives are not followed"
    if not member.isreg():
        return "special files in archives are not read"
    return _too_large(member.size)


def _tar_read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise RefusedFile("the archive ends in the middle of this file")
    return data


def _decompress(file: BinaryIO, beginning: bytes, size: int) -> BinaryIO:
    """Return a seekable tar file, decompressing it in memory if necessary."""
    for magic, decompressor in DECOMPRESSORS:
        if beginning.startswith(magic):
            unpacked = io.BytesIO()
            packed = decompressor(file)
            while chunk := packed.read(MIN_CHECKED):
                unpacked.write(chunk)
                OF_STUDENT.check(0, unpacked.tell(), size)
                if unpacked.tell() > MAX_TAR:
                    raise RefusedFile(f"the archive would unpack to more than {MAX_TAR:,} bytes")
            unpacked.seek(0)
            return unpacked
    return file


def _too_large(size: int) -> str:
    if size <= MAX_MEMBER:
        return ""
    return f"the file is too large: {size:,} bytes (limit: {MAX_MEMBER:,})"


DAMAGED = "the file is damaged or compressed with an unsupported method"
MAX_DEPTH = 8  # maximum number of folder levels; deeper levels are merged into one
MAX_NAME = 1_000  # maximum number of characters in a file or folder name


@dataclass
class ArchiveFolder:
    """A folder in an archive."""

    name: str
    above: ArchiveFolder | None = None
    files: dict[str, ArchiveEntry] = field(default_factory=dict)
    folders: dict[str, ArchiveFolder] = field(default_factory=dict)
    kind: str = "folder"
    problem: str = ""  # why the rest of the archive could not be read; set only for the root

    @property
    def place(self) -> str:
        """Return the folder's path in the archive, ending in a slash, or "" for the root."""
        return f"{self.above.place}{self.name}/" if self.above else ""

    def entries(self) -> tuple[list[str], Sequence[ArchiveFolder]]:
        """Return the sorted names of the files in this folder, and the sorted subfolders."""
        return sorted(self.files), [self.folders[name] for name in sorted(self.folders)]

    def nbgrader_owner(self, _day: str) -> Origin | None:
        """Return None, because nbgrader does not create folders in archives."""
        return None

    def read_metadata(self) -> Metadata:
        """Read Gradescope's metadata file in this folder."""
        try:
            return Metadata(parse_metadata(read_entry(self.files[origin.METADATA])))
        except (RefusedFile, MetadataError) as error:
            return Metadata(problem=f"{origin.METADATA} could not be read: {error}")


def read_tree(
    file: BinaryIO, name: str, limits: ArchiveLimits = OF_STUDENT
) -> tuple[ArchiveFolder, dict[str, ArchiveEntry]]:
    """Return an archive's root folder and its files by path. Raises RefusedFile if none of them can be read."""
    root = ArchiveFolder(name, kind="archive")
    by_place: dict[str, ArchiveEntry] = {}
    try:
        for entry in iter_entries(file, limits):
            *folders, last = _parts(entry.name)
            here = root
            for part in folders:
                if part not in here.folders:
                    here.folders[part] = ArchiveFolder(part, here)
                here = here.folders[part]
            here.files[last] = entry
            by_place[here.place + last] = entry
    except RefusedFile as error:
        if not by_place:
            raise
        root.problem = str(error)
    return root, by_place


def _parts(name: str) -> list[str]:
    """Split an archive member's path into folder and file names. Drop parts such as `..`, and limit the depth and length."""
    *folders, last = [part for part in name.split("/") if part not in ("", ".", "..")] or ["?"]
    if len(folders) > MAX_DEPTH:
        folders = [*folders[:MAX_DEPTH], "_".join(folders[MAX_DEPTH:])]
    return [*(folder[:MAX_NAME] for folder in folders), last[-MAX_NAME:]]


def list_class(root: ArchiveFolder, day: str, student: str) -> Iterator[FoundFile]:
    """Yield the submissions in a class archive. If the only submission is a top-level file, it belongs to `student`."""
    if root.problem:
        yield FoundFile("", student, problem=root.problem)
    files = find_in_class(root, day, student)
    if len(files) == 1 and not root.problem and not files[0].handed_in:
        name = files[0].place
        if "/" not in name and not is_archive(name, b"") and not is_day_name(stem(name), day):
            files = [replace(files[0], student=student)]
    yield from files


def read_entry(entry: ArchiveEntry) -> bytes:
    """Return the bytes of a file in an archive. Raises RefusedFile if the file is damaged or must not be read."""
    if entry.problem:
        raise RefusedFile(entry.problem)
    try:
        return entry.read()
    except (RefusedFile, MemoryError):
        raise
    except Exception as error:  # zipfile and tarfile raise many exception types for damaged data
        raise RefusedFile(DAMAGED) from error
