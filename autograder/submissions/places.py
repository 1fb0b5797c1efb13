"""Find what each student handed in, in a folder or in an archive, by names alone: whose it is comes from outside.

What lies directly under the path that a TA gave, or in its only folder, is the class's: each file or folder is a student's,
by a platform's name or its own. Nothing within a student's file or folder says who that is, or when. A platform's metadata
count at the top alone.
Entry points: `find_in_class` and `find_of_student`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from autograder.submissions import platforms
from autograder.submissions.filenames import (
    files_left_out,
    is_day_name,
    is_for_day,
    is_readable,
    may_hold_day,
    select_files,
    stem,
    without_online_texts,
)
from autograder.submissions.people import HandedIn

MAX_NOTEBOOKS = 50  # of one student
NO_NOTEBOOK = "it is no notebook, script or archive, and nothing else was handed in"
TOO_MANY = f"it has more than {MAX_NOTEBOOKS} notebooks, scripts or archives; one is enough"


@dataclass(frozen=True)
class Metadata:
    """Of a platform's download: who handed in each folder; or why that can not be read."""

    people: Mapping[str, HandedIn] = field(default_factory=dict)
    problem: str = ""


class Folder(Protocol):
    """A folder on the disk or in an archive."""

    kind: str  # "folder" or "archive", in sentences
    name: str

    @property
    def place(self) -> str:
        """The path from where the search began, with / behind it, or nothing."""
        ...

    def entries(self) -> tuple[list[str], Sequence[Folder]]:
        """The names of its files, and its folders, sorted. Raises OSError."""
        ...

    def nbgrader_owner(self, day: str) -> HandedIn | None:
        """Whom nbgrader made this folder for: it is `submitted/STUDENT/DAY`, or has nbgrader's own time."""
        ...

    def read_metadata(self) -> Metadata:
        """What Gradescope's file in this folder says."""
        ...


@dataclass(frozen=True)
class FoundFile:
    """One file of a student to be read, or why there is none; `notes` are about how it was chosen."""

    place: str
    student: str
    handed_in: HandedIn | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


def find_in_class(top: Folder, day: str, student: str) -> Iterator[FoundFile]:
    """What many students handed in; `student` is whose a file is that has the day's name alone."""
    found = False
    for offer in _of_class(top, day, student):
        found = True
        yield offer
    if not found:
        yield FoundFile(top.place, student, problem=_nothing_in(top))


def _of_class(top: Folder, day: str, student: str) -> Iterator[FoundFile]:
    here, is_top = top, True
    while True:
        if owner := here.nbgrader_owner(day):
            yield from find_of_student(here, day, owner.student, owner)
            return
        try:
            files, folders = here.entries()
        except OSError as error:
            yield FoundFile(here.place, student, problem=describe_os_error(error))
            return
        wanted = [name for name in files if is_for_day(name, day)]
        folders = [folder for folder in folders if may_hold_day(folder.name, day)]
        kept = set(without_online_texts([folder.name for folder in folders]))
        folders = [folder for folder in folders if folder.name in kept]
        others = files_left_out(sorted(set(files) - set(wanted)), wanted)
        metadata = here.read_metadata() if is_top and platforms.METADATA in files else Metadata()
        step = next((folder for folder in folders if folder.name == day), None)
        if not wanted and not others and len(folders) == 1:
            step = None if platforms.owner_key(folders[0].name) else folders[0]
        flat = here is top and not is_day_name(here.name, day)
        for name, notes in select_files(wanted, day, flat, downloaded=True):
            own = stem(name)
            handed_in = platforms.parse_canvas_name(name)
            whose = student if is_day_name(own, day) else own
            yield FoundFile(here.place + name, _name(handed_in, whose), handed_in, notes)
        for name in others:
            handed_in = platforms.parse_canvas_name(name)
            yield FoundFile(here.place + name, _name(handed_in, name), handed_in, (), NO_NOTEBOOK)
        for folder in (folder for folder in folders if folder is not step):
            known = bool(platforms.owner_key(folder.name))
            handed_in = platforms.parse_moodle_name(folder.name) or metadata.people.get(folder.name)
            whose = student if is_day_name(folder.name, day) else folder.name
            found = list(find_of_student(folder, day, _name(handed_in, whose), handed_in, known))
            is_empty = all(offer.problem for offer in found)
            if not is_empty or known or not (wanted or step):
                notes = (metadata.problem,) if metadata.problem and known else ()
                yield from (replace(offer, notes=(*notes, *offer.notes)) for offer in found)
        if step is None:
            return
        is_top = is_top and platforms.EXPORT.fullmatch(step.name) is not None
        student = student if is_day_name(step.name, day) else step.name
        here = step


def _name(handed_in: HandedIn | None, otherwise: str) -> str:
    return handed_in.student if handed_in else otherwise


def find_of_student(
    top: Folder,
    day: str,
    student: str,
    handed_in: HandedIn | None = None,
    of_any_day: bool = False,
) -> Iterator[FoundFile]:
    """What one student handed in, whatever the names in it say; `of_any_day`, where there is nothing of the day."""
    found: list[FoundFile] = []
    pending = [top]
    while pending and len(found) <= MAX_NOTEBOOKS:
        here = pending.pop()
        try:
            files, folders = here.entries()
        except OSError as error:
            found.append(
                FoundFile(here.place, student, handed_in, problem=describe_os_error(error))
            )
            continue
        if here is top and handed_in is None:  # STUDENT, with nbgrader's STUDENT/DAY in it
            of_day = (folder.nbgrader_owner(day) for folder in folders if folder.name == day)
            handed_in = next(of_day, None)
        wanted = [name for name in files if is_for_day(name, day)]
        found += [
            FoundFile(here.place + name, student, handed_in, notes)
            for name, notes in select_files(wanted, day)
        ]
        pending += reversed([folder for folder in folders if may_hold_day(folder.name, day)])
    if not found and of_any_day:
        readable = [name for name in top.entries()[0] if is_readable(name)]
        found = [FoundFile(top.place + name, student, handed_in) for name in readable]
    if len(found) > MAX_NOTEBOOKS:
        found = [FoundFile(top.place, student, handed_in, problem=TOO_MANY)]
    yield from found or [FoundFile(top.place, student, handed_in, problem=_nothing_in(top))]


def describe_os_error(error: OSError) -> str:
    """Why something on the disk cannot be read."""
    match error:
        case FileNotFoundError():
            return "there is no such file or folder"
        case PermissionError():
            return "it may not be read: permission denied"
    return f"it cannot be read: {error.strerror}"


def _nothing_in(folder: Folder) -> str:
    if folder.kind == "archive":
        return "the archive has no notebook or script"
    return "the folder has no notebook, script or archive"
