"""Find each student's files in a folder or an archive, based on file and folder names.

Each file or folder directly under the TA's path belongs to one student. If one of the folders contains a whole class instead, the
same applies to the files and folders in it. The student is identified by the platform's metadata or by the name of that file or
folder. Its contents cannot change the owner or the submission time. A platform's metadata file counts only at the top level.
Entry points: `find_in_class` and `find_for_student`.
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

MAX_NOTEBOOKS = 50  # files per student
NO_NOTEBOOK = "the student submitted no notebook, script or archive"
TOO_MANY = f"there are more than {MAX_NOTEBOOKS} notebooks, scripts or archives; submit only one"


@dataclass(frozen=True)
class Metadata:
    """The people who submitted each folder in a download, or the reason why the metadata file could not be read."""

    people: Mapping[str, HandedIn] = field(default_factory=dict)
    problem: str = ""


class Folder(Protocol):
    """A folder on disk or in an archive."""

    kind: str  # "folder" or "archive"
    name: str

    @property
    def place(self) -> str:
        """Return the path relative to the folder where the search began, ending in a slash, or "" for that folder itself."""
        ...

    def entries(self) -> tuple[list[str], Sequence[Folder]]:
        """Return the sorted names of the files in this folder, and the sorted subfolders. Raises OSError."""
        ...

    def nbgrader_owner(self, day: str) -> HandedIn | None:
        """If nbgrader created this folder, return the student and the submission time; otherwise, return None."""
        ...

    def read_metadata(self) -> Metadata:
        """Read Gradescope's metadata file in this folder."""
        ...


@dataclass(frozen=True)
class FoundFile:
    """A student's file to read, or the problem that prevents reading it. `notes` explain how the file was chosen."""

    place: str
    student: str
    handed_in: HandedIn | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


def find_in_class(top: Folder, day: str, student: str) -> Iterator[FoundFile]:
    """Yield the files of a whole class. Files and folders that are named only after the day belong to `student`."""
    is_empty = True
    for file in _find_in_class(top, day, student):
        is_empty = False
        yield file
    if is_empty:
        yield FoundFile(top.place, student, problem=_empty_message(top))


def _find_in_class(top: Folder, day: str, student: str) -> Iterator[FoundFile]:
    """Search one folder, and then the subfolder that also contains a class, if there is one."""
    here, is_top = top, True
    while True:
        if owner := here.nbgrader_owner(day):
            yield from find_for_student(here, day, owner.student, owner)
            return
        try:
            files, folders = here.entries()
        except OSError as error:
            yield FoundFile(here.place, student, problem=describe_os_error(error))
            return
        wanted = [name for name in files if is_for_day(name, day)]
        others = files_left_out(sorted(set(files) - set(wanted)), wanted)
        folders = _student_folders(folders, day)
        inner = _class_folder(folders, day, is_alone=not wanted and not others)
        flat = here is top and not is_day_name(here.name, day)
        for name, notes in select_files(wanted, day, flat, downloaded=True):
            own = stem(name)
            handed_in = platforms.parse_canvas_name(name)
            owner_name = _name(handed_in, student if is_day_name(own, day) else own)
            yield FoundFile(here.place + name, owner_name, handed_in, notes)
        for name in others:
            handed_in = platforms.parse_canvas_name(name)
            yield FoundFile(here.place + name, _name(handed_in, name), handed_in, (), NO_NOTEBOOK)
        metadata = here.read_metadata() if is_top and platforms.METADATA in files else Metadata()
        for folder in folders:
            if folder is not inner:
                is_only_content = not wanted and inner is None
                yield from _find_in_folder(folder, day, student, metadata, is_only_content)
        if inner is None:
            return
        is_top = is_top and platforms.EXPORT.fullmatch(inner.name) is not None
        student = student if is_day_name(inner.name, day) else inner.name
        here = inner


def _student_folders(folders: Sequence[Folder], day: str) -> list[Folder]:
    folders = [folder for folder in folders if may_hold_day(folder.name, day)]
    kept = set(without_online_texts([folder.name for folder in folders]))
    return [folder for folder in folders if folder.name in kept]


def _class_folder(folders: Sequence[Folder], day: str, is_alone: bool) -> Folder | None:
    """Return the subfolder that contains a class: the only entry, or the folder named after the day. Otherwise, return None."""
    if is_alone and len(folders) == 1:
        return None if platforms.owner_key(folders[0].name) else folders[0]
    return next((folder for folder in folders if folder.name == day), None)


def _find_in_folder(
    folder: Folder, day: str, student: str, metadata: Metadata, is_only_content: bool
) -> Iterator[FoundFile]:
    """Yield the files in one student's folder in a class. Skip an empty folder that might not belong to a student."""
    has_platform_name = bool(platforms.owner_key(folder.name))
    handed_in = platforms.parse_moodle_name(folder.name) or metadata.people.get(folder.name)
    name = _name(handed_in, student if is_day_name(folder.name, day) else folder.name)
    files = list(find_for_student(folder, day, name, handed_in, has_platform_name))
    is_empty = all(file.problem for file in files)
    if is_empty and not has_platform_name and not is_only_content:
        return
    notes = (metadata.problem,) if metadata.problem and has_platform_name else ()
    yield from (replace(file, notes=(*notes, *file.notes)) for file in files)


def _name(handed_in: HandedIn | None, otherwise: str) -> str:
    return handed_in.student if handed_in else otherwise


def find_for_student(
    top: Folder,
    day: str,
    student: str,
    handed_in: HandedIn | None = None,
    of_any_day: bool = False,
) -> Iterator[FoundFile]:
    """Yield one student's files for the day. Names inside the folder cannot assign a file to a different student.

    If `of_any_day` is set and there are no files for this day, yield the student's files for other days.
    """
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
        if (
            here is top and handed_in is None
        ):  # the folder STUDENT, which may contain nbgrader's STUDENT/DAY
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
    yield from found or [FoundFile(top.place, student, handed_in, problem=_empty_message(top))]


def describe_os_error(error: OSError) -> str:
    """Return a sentence that explains why a file or folder cannot be read."""
    match error:
        case FileNotFoundError():
            return "the file or folder does not exist"
        case PermissionError():
            return "the file or folder cannot be read: permission denied"
    return f"the file or folder cannot be read: {error.strerror}"


def _empty_message(folder: Folder) -> str:
    if folder.kind == "archive":
        return "the archive contains no notebook or script"
    return "the folder contains no notebook, script or archive"
