"""Represent an archive as a tree of folders in which places.py finds the submissions.

Only the sandboxed reader process runs this module; see slicing/reader_service.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from autograder.submissions import origin
from autograder.submissions.archives import (
    OF_STUDENT,
    ArchiveEntry,
    ArchiveLimits,
    Refused,
    is_archive,
    iter_entries,
)
from autograder.submissions.filenames import is_day_name, stem
from autograder.submissions.gradescope_metadata import MetadataError, parse_metadata
from autograder.submissions.origin import Origin
from autograder.submissions.places import FoundFile, Metadata, find_in_class

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
        except (Refused, MetadataError) as error:
            return Metadata(problem=f"{origin.METADATA} could not be read: {error}")


def read_tree(
    file: BinaryIO, name: str, limits: ArchiveLimits = OF_STUDENT
) -> tuple[ArchiveFolder, dict[str, ArchiveEntry]]:
    """Return an archive's root folder and a dict of its files by path. Raises Refused if no file in the archive can be read."""
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
    except Refused as error:
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
    """Return the bytes of a file in an archive. Raises Refused if the file is damaged or must not be read."""
    if entry.problem:
        raise Refused(entry.problem)
    try:
        return entry.read()
    except (Refused, MemoryError):
        raise
    except Exception as error:  # zipfile and tarfile raise many exception types for damaged data
        raise Refused(DAMAGED) from error
