"""A file, folder or archive → cells, with what is wrong said in words.

Nothing that a student hands in stops the rest of the class: what cannot be read becomes a
submission that says so. Names are shown escaped, links are not followed, nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from autograder import lms, release
from autograder.archives import Entry, Refused, entries, is_archive
from autograder.cells import MAX_BYTES, Cell, Unreadable, read_cells
from autograder.whose import (
    NOTEBOOKS,
    chosen,
    is_of_the_day,
    is_readable,
    is_wanted,
    names_the_day,
    owner_of,
    stem,
    student_of,
    unread,
    without_online_text,
)

NO_NOTEBOOK = "it is no notebook, script or archive, and nothing else was handed in"
LONGEST = 300  # characters of a name that are shown


@dataclass(frozen=True)
class Submission:
    """What one student handed in; `sha256` is of the file's bytes, "" where they were not read."""

    path: str
    student: str
    sha256: str
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    readable: bool
    release: str = ""  # the stamp of the notebook's release


def submissions(paths: Sequence[Path], day: str) -> Iterator[Submission]:
    """Yields what is found under the paths, one at a time, sorted by name within each path."""
    for path in paths:
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError) as error:
            yield _unreadable(os.fspath(path), day, _said(error))
            continue
        if stat.S_ISDIR(mode):
            yield from _folder(path, day)
        else:
            yield from _file(path, day, ())


def printable(text: str) -> str:
    """The text for a terminal: control, bidi and undecodable characters escaped; cut if long."""
    shown = "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"  # a byte that was not UTF-8
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in text
    )
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 81]}…{shown[-80:]}"


# ---- on disk


def _folder(folder: Path, day: str, of_class: bool = True) -> Iterator[Submission]:
    found = False
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            names, folders, others = _inside(here, day)
        except OSError as error:
            found = True
            yield _unreadable(os.fspath(here), day, _said(error))
            continue
        # The class's own folder may hold a TA's copy of the notebook; it hides nobody's.
        flat = of_class and not names_the_day(os.path.basename(os.path.abspath(here)), day)
        for name, notes in chosen(names, day, flat):
            found = True
            yield from _file(here / name, day, notes)
        if flat:
            for name in unread(others, names):
                found = True
                yield _unreadable(os.fspath(here / name), day, NO_NOTEBOOK)
        if of_class and not names and len(folders) > 1 and day not in folders:
            # Each of these folders is a student's, and one without a notebook has to be named.
            for name in folders:
                yield from _folder(here / name, day, of_class=False)
            return
        of_class = False
        pending += [here / name for name in reversed(folders)]
    if not found:
        yield _unreadable(os.fspath(folder), day, "the folder has no notebook, script or archive")


def _inside(folder: Path, day: str) -> tuple[list[str], list[str], list[str]]:
    """The names of the files and of the folders to look at, and of all other files, sorted."""
    files, folders = [], []
    with os.scandir(folder) as scan:
        for entry in sorted(scan, key=lambda entry: os.fsencode(entry.name)):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                files.append(entry.name)
    wanted = [name for name in files if is_wanted(name, day)]
    if not wanted and lms.owner(folder.name):  # a student who handed in another day's
        wanted = [name for name in files if is_readable(name)]
    return (
        wanted,
        without_online_text([name for name in folders if is_of_the_day(name, day)]),
        [name for name in files if name not in wanted],
    )


def _file(path: Path, day: str, notes: tuple[str, ...]) -> Iterator[Submission]:
    label = os.fspath(path)
    student = student_of(os.path.abspath(label), day)
    try:
        with _opened(path) as file:
            beginning = file.read(8)
            file.seek(0)
            if is_archive(path.name, beginning):
                yield from _archive(label, student, file, day, nested=False)
            elif not path.name.lower().endswith(NOTEBOOKS) and not beginning.startswith(b"{"):
                problem = "it is not a notebook, a script, a zip or a tar"
                yield _unreadable(label, day, problem, path.stem)
            else:
                yield _read(label, student, file.read(MAX_BYTES + 1), notes)
    except (OSError, Refused) as error:
        yield _unreadable(label, day, _said(error))


def _opened(path: Path) -> BinaryIO:
    """Opens a regular file and nothing else: a FIFO would wait, a device may act, a link lies."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        raise Refused("it is a link, which is not followed" if is_link else "it is a special file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged in between
        file.close()
        raise Refused("it is a special file")
    return file


# ---- in archives


def _archive(
    label: str, student: str, file: BinaryIO, day: str, nested: bool
) -> Iterator[Submission]:
    wanted: list[Entry] = []
    others: dict[str, list[Entry]] = {}  # by student, where the platform's names tell it
    alone = False
    try:
        for entry in entries(file):
            *folders, name = entry.name.split("/")
            if is_wanted(name, day) and all(is_of_the_day(part, day) for part in folders):
                wanted.append(entry)
            elif not nested and (owner := owner_of(entry.name)):
                others.setdefault(owner, []).append(entry)
    except Refused as error:
        yield _unreadable(label, day, str(error), student)  # what came before is still read
    else:
        alone = len(wanted) == 1 and not others
        if not wanted and not others:
            yield _unreadable(label, day, "the archive has no notebook or script", student)
    for owner in others.keys() - {owner_of(entry.name) for entry in wanted}:
        readable = [e for e in others[owner] if is_readable(e.name.rsplit("/")[-1])]
        wanted += readable or [replace(others[owner][0], problem=NO_NOTEBOOK)]
    inside: dict[str, list[Entry]] = {}
    for entry in wanted:
        inside.setdefault(entry.name.rpartition("/")[0], []).append(entry)
    for folder in sorted(inside):
        here = {entry.name.rsplit("/")[-1]: entry for entry in inside[folder]}
        for name, notes in chosen(sorted(here), day):
            place = f"{label}/{here[name].name}"
            only = alone and not is_archive(name, b"") and not names_the_day(stem(name), day)
            only = only and not owner_of(here[name].name)
            whose = student if nested or only else student_of(os.path.abspath(place), day)
            yield from _member(place, whose, here[name], day, notes, nested)


def _member(
    label: str, student: str, entry: Entry, day: str, notes: tuple[str, ...], nested: bool
) -> Iterator[Submission]:
    try:
        if entry.problem:
            raise Refused(entry.problem)
        data = entry.read()
    except Refused as error:
        yield _unreadable(label, day, str(error), student)
        return
    except Exception:  # as many kinds as there are ways to be broken
        yield _unreadable(label, day, "it is damaged or packed in an unknown way", student)
        return
    if not is_archive(entry.name, data[:8]):
        yield _read(label, student, data, notes)
    elif nested:
        yield _unreadable(label, day, "archives are read only one within another", student)
    else:
        yield from _archive(label, student, io.BytesIO(data), day, nested=True)


# ---- what was read


def _read(label: str, student: str, data: bytes, notes: tuple[str, ...]) -> Submission:
    whole = len(data) <= MAX_BYTES
    digest = hashlib.sha256(data).hexdigest() if whole else ""
    cells: tuple[Cell, ...] = ()
    try:
        cells, problems = read_cells(data, label)
    except Unreadable as error:
        problems = (str(error),)
    shown = tuple(printable(problem) for problem in (*notes, *problems))
    stamp = release.of(data)
    return Submission(
        printable(label), printable(student), digest, cells, shown, bool(cells), stamp
    )


def _unreadable(label: str, day: str, problem: str, student: str | None = None) -> Submission:
    whose = student_of(os.path.abspath(label), day) if student is None else student
    return Submission(printable(label), printable(whose), "", (), (printable(problem),), False)


def _said(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file or folder"
        case PermissionError():
            return "it may not be read: permission denied"
        case OSError():
            return f"it cannot be read: {error.strerror}"
        case Refused():
            return str(error)
        case _:
            return "its name cannot be a path"
