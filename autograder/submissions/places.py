"""Find each student's files in a folder or an archive, based on file and folder names.

Each file or folder directly under the TA's path belongs to one student. The platform's metadata or the name of the file
or folder identifies the student. Everything in a student's folder belongs to that student, regardless of file and
archive names. The exceptions are a few wrapper folders that cannot belong to a student; see `_is_wrapper`. A platform's
metadata file is used only at the top level. Entry points: `find_in_class` and `find_for_student`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from autograder.plain_text import list_names, printable, printable_problems
from autograder.submissions import origin
from autograder.submissions.file_types import (
    is_day_name,
    is_document,
    is_gradable,
    is_hidden,
    is_notebook,
    is_other_day,
    stem,
)
from autograder.submissions.origin import Name, Origin, Sentences, from_folder

MAX_NOTEBOOKS = 50  # files per student
SUBMITTED = "submitted"  # nbgrader's folder, which contains STUDENT/DAY
NO_NOTEBOOK = "no notebook, script or archive was submitted"
TOO_MANY = f"there are more than {MAX_NOTEBOOKS} notebooks, scripts or archives; submit only one"


@dataclass(frozen=True)
class Metadata:
    """The people who submitted each folder in a download, or the reason why the metadata file is unreadable."""

    people: Mapping[str, Origin] = field(default_factory=dict)
    problem: str = ""


class Folder(Protocol):
    """A folder on disk or in an archive."""

    kind: str  # "folder" or "archive"
    name: str

    @property
    def place(self) -> str:
        """Return the path relative to the folder where the search started, ending in a slash, or "" for that folder itself."""
        ...

    def entries(self) -> tuple[list[str], Sequence[Folder]]:
        """Return the sorted names of the files in this folder, and the sorted subfolders. Raises OSError."""
        ...

    def nbgrader_owner(self, day: str) -> Origin | None:
        """If nbgrader created this folder, return the student and the submission time; otherwise, return None."""
        ...

    def read_metadata(self) -> Metadata:
        """Read Gradescope's metadata file in this folder."""
        ...


class FoundFile(msgspec.Struct, frozen=True):
    """A student's file to read, or the problem that prevents reading it.

    `notes` explain how the file was chosen. `left_out` contains the names of the student's other files, which cannot be
    graded. `wrapper` is the path of the wrapper folder around the students' files, if there is one. `member` is the file's
    number in a class archive, or -1 if the file is not in a class archive or cannot be read. Reader processes list class
    archives, so the type annotations contain bounds.
    """

    place: Name
    student: Name
    handed_in: Origin | None = None
    notes: Sentences = ()
    problem: Name = ""
    left_out: Sentences = ()
    wrapper: Name = ""
    member: Annotated[int, Meta(ge=-1)] = -1

    def sanitized(self, member: int = -1) -> FoundFile:
        """Return a copy with bounded, printable text and this member number."""
        return FoundFile(
            printable(self.place),
            printable(self.student),
            self.handed_in.sanitized() if self.handed_in else None,
            printable_problems(self.notes),
            printable(self.problem),
            wrapper=printable(self.wrapper),
            member=member,
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the students to whom the file belongs."""
        return (self.handed_in or from_folder(self.student)).keys


def find_in_class(top: Folder, day: str, student: str) -> list[FoundFile]:
    """Return a whole class's files, grouped by student.

    Files and folders whose names consist only of the day's name belong to `student`.
    """
    by_student: dict[tuple[str, ...], list[FoundFile]] = {}
    for file in _find_in_class(top, day, student):
        by_student.setdefault(file.keys, []).append(file)
    found = [file for files in by_student.values() for file in _gradable(_in_one_class(files))]
    return found or [FoundFile(top.place, student, problem=_empty_message(top))]


def _in_one_class(files: Sequence[FoundFile]) -> Sequence[FoundFile]:
    """Return a student's files in the outermost folder that contains gradable files, or all files if they are from a platform.

    Files in inner folders are left out, because another student may have created them under this student's name.
    """
    if files[0].handed_in is not None or len({file.wrapper for file in files}) == 1:
        return files
    chosen = next((file for file in files if not file.problem), files[0]).wrapper
    others = list_names(file.place for file in files if file.wrapper != chosen)
    note = f"not graded, because the name also occurs in an outer folder: {others}"
    kept = [file for file in files if file.wrapper == chosen]
    return [replace(kept[0], notes=(*kept[0].notes, note)), *kept[1:]]


def _gradable(files: Sequence[FoundFile]) -> list[FoundFile]:
    """Return the student's files that can be graded, or a single entry that explains why there are none."""
    gradable = [file for file in files if not file.problem]
    if gradable:
        return gradable
    left_out = tuple(name for file in files for name in file.left_out)
    problem = files[0].problem
    return [
        replace(
            files[0],
            problem=f"{problem}, only {list_names(left_out)}" if left_out else problem,
        )
    ]


def _find_in_class(top: Folder, day: str, student: str) -> Iterator[FoundFile]:
    """Yield the students' files in a folder, and then those in a subfolder that contains a class, if there is one."""
    here, is_top = top, True
    while True:
        if owner := here.nbgrader_owner(day):
            yield from find_for_student(here, day, owner.student, owner)
            return
        try:
            files, folders = _entries(here)
            inner = _class_folder(files, folders, day)
        except OSError as error:
            yield FoundFile(here.place, student, problem=describe_os_error(error))
            return
        found = list(_loose_files(here, files, day, student, is_of_one=here is not top))
        metadata = here.read_metadata() if is_top and origin.METADATA in files else Metadata()
        for folder in folders:
            if folder is not inner and not is_other_day(folder.name, day):
                is_optional = inner is not None
                if here.name != SUBMITTED or _has_day(folder, day):
                    found += _find_in_folder(folder, day, student, metadata, is_optional)
        wrapper = here.place if here is not top else ""
        yield from (replace(file, wrapper=wrapper) for file in found)
        if inner is None:
            return
        is_top = is_top and origin.EXPORT.fullmatch(inner.name) is not None
        student = student if is_day_name(inner.name, day) else inner.name
        here = inner


def _entries(folder: Folder) -> tuple[list[str], list[Folder]]:
    """Return a folder's files and subfolders, excluding hidden ones. Raises OSError."""
    files, folders = folder.entries()
    return (
        [name for name in files if not is_hidden(name)],
        [inner for inner in folders if not is_hidden(inner.name)],
    )


def _class_folder(files: Sequence[str], folders: Sequence[Folder], day: str) -> Folder | None:
    """Return the subfolder that contains one entry per student, or None if no subfolder does. Raises OSError."""
    of_day = next((folder for folder in folders if folder.name == day), None)
    if of_day or len(folders) != 1 or any(is_gradable(n) or origin.owner_key(n) for n in files):
        return of_day
    return folders[0] if _is_wrapper(folders[0], day) else None


def _is_wrapper(folder: Folder, day: str) -> bool:
    """Return whether a folder that has no siblings contains a class rather than one student's work. Raises OSError.

    It contains a class if a platform named the folder or its entries, if the folder is named after the day, or if the
    folder has several entries and no notebook.
    """
    if origin.owner_key(folder.name):
        return False
    if folder.name == SUBMITTED or origin.EXPORT.fullmatch(folder.name):
        return True
    files, folders = _entries(folder)
    names = [*files, *(inner.name for inner in folders)]
    if is_day_name(folder.name, day) or any(origin.owner_key(name) for name in names):
        return True
    work = [name for name in files if is_gradable(name) or is_document(name)]
    return len(work) + len(folders) > 1 and not any(map(is_notebook, files))


def _loose_files(
    here: Folder, files: Sequence[str], day: str, student: str, is_of_one: bool
) -> Iterator[FoundFile]:
    """Yield the files that are directly in a class folder. Each file belongs to one student.

    `is_of_one` is set if the folder may belong to a single student. Then, if its only notebook (or its only script, if there
    are no notebooks) is named after the day, all files whose names are not in a platform's format belong to `student`.
    If there are several notebooks, the folder may contain a class's work, and any student may have named a file
    after the day.
    """
    work = [name for name in files if is_gradable(name)]
    notebooks = [name for name in work if ".ipynb" in name.lower()] or work
    is_of_one &= len(notebooks) == 1 and is_day_name(stem(notebooks[0]), day)
    owners = origin.parse_file_names(files)
    for name in files:
        handed_in = owners.get(name)
        own = stem(name)
        if handed_in is None and (
            is_other_day(own, day) or not (is_gradable(name) or is_document(name))
        ):
            continue
        owner = student if is_of_one or is_day_name(own, day) else own
        found = FoundFile(here.place + name, handed_in.student if handed_in else owner, handed_in)
        if is_gradable(name):
            yield found
        else:
            yield replace(found, problem=NO_NOTEBOOK, left_out=(origin.original_name(name),))


def _has_day(folder: Folder, day: str) -> bool:
    """Return whether nbgrader's folder for a student may contain a submission for the day."""
    try:
        files, folders = _entries(folder)
    except OSError:
        return True
    return bool(files) or any(is_day_name(inner.name, day) for inner in folders)


def _find_in_folder(
    folder: Folder, day: str, student: str, metadata: Metadata, is_optional: bool
) -> Iterator[FoundFile]:
    """Yield the files in one student's folder. If `is_optional` is set, skip a folder without files for the day."""
    has_platform_name = bool(origin.owner_key(folder.name))
    handed_in = origin.parse_moodle_name(folder.name) or metadata.people.get(folder.name)
    name = student if is_day_name(folder.name, day) else folder.name
    found = list(_walk(folder, day, handed_in.student if handed_in else name, handed_in))
    if is_optional and not has_platform_name and all(file.problem for file in found):
        return
    notes = (metadata.problem,) if metadata.problem and has_platform_name else ()
    yield from (replace(file, notes=(*notes, *file.notes)) for file in found)


def find_for_student(
    top: Folder, day: str, student: str, handed_in: Origin | None = None
) -> list[FoundFile]:
    """Return one student's files for the day, or for other days if there are none.

    File and folder names do not affect which student owns the files.
    """
    return _gradable(list(_walk(top, day, student, handed_in)))


def _walk(top: Folder, day: str, student: str, handed_in: Origin | None) -> Iterator[FoundFile]:
    """Yield a student's files for the day. If there are none, yield the student's files for other days.

    If there are no files for any day, yield one entry with the names of any files that cannot be graded.
    """
    found: list[FoundFile] = []
    of_other_days: list[FoundFile] = []
    left_out: list[str] = []
    pending: list[tuple[Folder, bool]] = [(top, False)]
    while pending and len(found) <= MAX_NOTEBOOKS:
        here, is_other = pending.pop()
        try:
            files, folders = _entries(here)
        except OSError as error:
            problem = describe_os_error(error)
            found.append(FoundFile(here.place, student, handed_in, problem=problem))
            continue
        if here is top and handed_in is None:  # `top` may contain nbgrader's DAY folder
            of_day = (folder.nbgrader_owner(day) for folder in folders if folder.name == day)
            handed_in = next(of_day, None)
        for name in files:
            file = FoundFile(here.place + name, student, handed_in)
            if not is_gradable(name):
                left_out.append(name)
            elif is_other or is_other_day(stem(origin.original_name(name)), day):
                of_other_days.append(file)
            else:
                found.append(file)
        inside = [(folder, is_other or is_other_day(folder.name, day)) for folder in folders]
        pending += reversed(inside)
    found = found or of_other_days
    if len(found) > MAX_NOTEBOOKS:
        found = [FoundFile(top.place, student, handed_in, problem=TOO_MANY)]
    empty = FoundFile(top.place, student, handed_in, (), _empty_message(top), tuple(left_out))
    yield from found or [empty]


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
