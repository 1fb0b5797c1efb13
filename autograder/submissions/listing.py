"""The archive of a class, or of one student, as a tree of folders in which places.py finds what was handed in.

The grader runs this behind the wall alone; see slicing/reader.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from autograder.submissions import platforms
from autograder.submissions.archives import Entry, Refused, is_archive, iter_entries
from autograder.submissions.filenames import is_day_name, stem
from autograder.submissions.people import HandedIn
from autograder.submissions.places import FoundFile, Metadata, find_in_class

DAMAGED = "it is damaged or packed in an unknown way"
MAX_DEPTH = 8  # folders in one another; what is deeper is taken for one
LONGEST = 1_000  # characters of one name


@dataclass
class ArchiveFolder:
    """A folder of an archive, and all files in it by their places."""

    name: str
    above: ArchiveFolder | None = None
    files: dict[str, Entry] = field(default_factory=dict)
    folders: dict[str, ArchiveFolder] = field(default_factory=dict)
    kind: str = "folder"
    problem: str = ""  # of the archive, what comes before it in the archive is there

    @property
    def place(self) -> str:
        """The path within the archive, with / behind it, or nothing."""
        return f"{self.above.place}{self.name}/" if self.above else ""

    def entries(self) -> tuple[list[str], Sequence[ArchiveFolder]]:
        """The names of its files, and its folders, sorted."""
        return sorted(self.files), [self.folders[name] for name in sorted(self.folders)]

    def nbgrader_owner(self, _day: str) -> HandedIn | None:
        """Nothing in an archive was made by nbgrader."""
        return None

    def read_metadata(self) -> Metadata:
        """What Gradescope's file in this folder says."""
        try:
            return Metadata(
                platforms.parse_gradescope_metadata(read_entry(self.files[platforms.METADATA]))
            )
        except (Refused, platforms.MetadataError) as error:
            return Metadata(problem=f"{platforms.METADATA} could not be read: {error}")


def read_tree(file: BinaryIO, name: str) -> tuple[ArchiveFolder, dict[str, Entry]]:
    """The folders of an archive, and its files by their places. Raises Refused if nothing of it can be read."""
    root = ArchiveFolder(name, kind="archive")
    by_place: dict[str, Entry] = {}
    try:
        for entry in iter_entries(file):
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
    """The parts of a member's name that lead nowhere else; bounded, and what is outermost stays."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")] or ["?"]
    deep = "_".join(parts[MAX_DEPTH:-1])
    parts = [*parts[:-1][:MAX_DEPTH], *([deep] if deep else []), parts[-1]]
    return [part if len(part) <= LONGEST else part[:LONGEST] for part in parts[:-1]] + [
        parts[-1][-LONGEST:]
    ]


def list_class(root: ArchiveFolder, day: str, student: str) -> Iterator[FoundFile]:
    """What is in the archive of a class; `student` is whose it is if it holds one file alone."""
    if root.problem:
        yield FoundFile("", student, problem=root.problem)
    offers = list(find_in_class(root, day, student))
    if len(offers) == 1 and not root.problem and not offers[0].handed_in and not offers[0].problem:
        last = offers[0].place.rpartition("/")[2]
        if not is_archive(last, b"") and not is_day_name(stem(last), day):
            offers = [replace(offers[0], student=student)]
    yield from offers


def read_entry(entry: Entry) -> bytes:
    """The bytes of a member. Raises Refused."""
    if entry.problem:
        raise Refused(entry.problem)
    return _mended(entry.read)


def _mended(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (Refused, MemoryError):
        raise
    except Exception as error:  # as many kinds as there are ways to be broken
        raise Refused(DAMAGED) from error
