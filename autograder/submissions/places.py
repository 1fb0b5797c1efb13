"""Find what each student handed in, in a folder or in an archive, by names alone: whose it is comes from outside.

What lies directly under the path that a TA gave, or in its only folder, is the class's: each file or folder is a student's,
by a platform's name or its own. Nothing within a student's file or folder says who that is, or when. A platform's metadata
count at the top alone.
Entry points: `of_class` and `of_one`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from autograder.submissions import platforms
from autograder.submissions.filenames import (
    chosen,
    is_of_the_day,
    is_readable,
    is_wanted,
    names_the_day,
    stem,
    unread,
    without_online_text,
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

    def nbgrader(self, day: str) -> HandedIn | None:
        """Whom nbgrader made this folder for: it is `submitted/STUDENT/DAY`, or has nbgrader's own time."""
        ...

    def metadata(self) -> Metadata:
        """What Gradescope's file in this folder says."""
        ...


@dataclass(frozen=True)
class Offer:
    """One file of a student to be read, or why there is none; `notes` are about how it was chosen."""

    place: str
    student: str
    handed_in: HandedIn | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


def of_class(top: Folder, day: str, student: str) -> Iterator[Offer]:
    """What many students handed in; `student` is whose a file is that has the day's name alone."""
    found = False
    for offer in _of_class(top, day, student):
        found = True
        yield offer
    if not found:
        yield Offer(top.place, student, problem=_nothing_in(top))


def _of_class(top: Folder, day: str, student: str) -> Iterator[Offer]:
    here, is_top = top, True
    while True:
        if owner := here.nbgrader(day):
            yield from of_one(here, day, owner.student, owner)
            return
        try:
            files, folders = here.entries()
        except OSError as error:
            yield Offer(here.place, student, problem=said(error))
            return
        wanted = [name for name in files if is_wanted(name, day)]
        folders = [folder for folder in folders if is_of_the_day(folder.name, day)]
        kept = set(without_online_text([folder.name for folder in folders]))
        folders = [folder for folder in folders if folder.name in kept]
        others = unread(sorted(set(files) - set(wanted)), wanted)
        metadata = here.metadata() if is_top and platforms.METADATA in files else Metadata()
        step = next((folder for folder in folders if folder.name == day), None)
        if not wanted and not others and len(folders) == 1:
            step = None if platforms.owner(folders[0].name) else folders[0]
        flat = here is top and not names_the_day(here.name, day)
        for name, notes in chosen(wanted, day, flat, downloaded=True):
            own = stem(name)
            handed_in = platforms.canvas(name)
            whose = student if names_the_day(own, day) else own
            yield Offer(here.place + name, _name(handed_in, whose), handed_in, notes)
        for name in others:
            handed_in = platforms.canvas(name)
            yield Offer(here.place + name, _name(handed_in, name), handed_in, (), NO_NOTEBOOK)
        for folder in (folder for folder in folders if folder is not step):
            known = bool(platforms.owner(folder.name))
            handed_in = platforms.moodle(folder.name) or metadata.people.get(folder.name)
            whose = student if names_the_day(folder.name, day) else folder.name
            found = list(of_one(folder, day, _name(handed_in, whose), handed_in, known))
            is_empty = all(offer.problem for offer in found)
            if not is_empty or known or not (wanted or step):
                notes = (metadata.problem,) if metadata.problem and known else ()
                yield from (replace(offer, notes=(*notes, *offer.notes)) for offer in found)
        if step is None:
            return
        is_top = is_top and platforms.EXPORT.fullmatch(step.name) is not None
        student = student if names_the_day(step.name, day) else step.name
        here = step


def _name(handed_in: HandedIn | None, otherwise: str) -> str:
    return handed_in.student if handed_in else otherwise


def of_one(
    top: Folder,
    day: str,
    student: str,
    handed_in: HandedIn | None = None,
    of_any_day: bool = False,
) -> Iterator[Offer]:
    """What one student handed in, whatever the names in it say; `of_any_day`, where there is nothing of the day."""
    found: list[Offer] = []
    pending = [top]
    while pending and len(found) <= MAX_NOTEBOOKS:
        here = pending.pop()
        try:
            files, folders = here.entries()
        except OSError as error:
            found.append(Offer(here.place, student, handed_in, problem=said(error)))
            continue
        if here is top and handed_in is None:  # STUDENT, with nbgrader's STUDENT/DAY in it
            of_day = (folder.nbgrader(day) for folder in folders if folder.name == day)
            handed_in = next(of_day, None)
        wanted = [name for name in files if is_wanted(name, day)]
        found += [
            Offer(here.place + name, student, handed_in, notes)
            for name, notes in chosen(wanted, day)
        ]
        pending += reversed([folder for folder in folders if is_of_the_day(folder.name, day)])
    if not found and of_any_day:
        readable = [name for name in top.entries()[0] if is_readable(name)]
        found = [Offer(top.place + name, student, handed_in) for name in readable]
    if len(found) > MAX_NOTEBOOKS:
        found = [Offer(top.place, student, handed_in, problem=TOO_MANY)]
    yield from found or [Offer(top.place, student, handed_in, problem=_nothing_in(top))]


def said(error: OSError) -> str:
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
