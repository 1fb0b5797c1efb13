"""A file, folder or archive → cells, with what is wrong said in words.

Nothing that a student hands in stops the rest of the class: what cannot be read becomes a
submission that says so. Names are shown escaped, links are not followed, nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from autograder.archives import SUFFIXES, Entry, Refused, entries, is_archive
from autograder.cells import MAX_BYTES, Cell, Unreadable, read_cells

NOTEBOOKS = (".ipynb", ".py")
UNSUPPORTED = (".rar", ".7z")  # named as unreadable, so that their student is not overlooked
SKIPPED_FOLDERS = {"__MACOSX", "__pycache__"}
SKIPPED_FILES = {"setup.py", "conftest.py", "__init__.py", "nbgrader_config.py"}
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
            names, folders = _inside(here, day)
        except OSError as error:
            found = True
            yield _unreadable(os.fspath(here), day, _said(error))
            continue
        # The class's own folder may hold a TA's copy of the notebook; it hides nobody's.
        flat = of_class and not _names_the_day(os.path.basename(os.path.abspath(here)), day)
        for name, notes in [(n, ()) for n in names] if flat else _chosen(names, day):
            found = True
            yield from _file(here / name, day, notes)
        if of_class and not names and len(folders) > 1 and day not in folders:
            # Each of these folders is a student's, and one without a notebook has to be named.
            for name in folders:
                yield from _folder(here / name, day, of_class=False)
            return
        of_class = False
        pending += [here / name for name in reversed(folders)]
    if not found:
        yield _unreadable(os.fspath(folder), day, "the folder has no notebook, script or archive")


def _inside(folder: Path, day: str) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders to look at, sorted."""
    files, folders = [], []
    with os.scandir(folder) as scan:
        for entry in sorted(scan, key=lambda entry: os.fsencode(entry.name)):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                files.append(entry.name)
    return (
        [name for name in files if _is_wanted(name, day)],
        [name for name in folders if _is_of_the_day(name, day)],
    )


def _file(path: Path, day: str, notes: tuple[str, ...]) -> Iterator[Submission]:
    label = os.fspath(path)
    student = _student(os.path.abspath(label), day)
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
    inside: dict[str, list[Entry]] = {}
    alone = False
    try:
        for entry in entries(file):
            *folders, name = entry.name.split("/")
            if _is_wanted(name, day) and all(_is_of_the_day(part, day) for part in folders):
                inside.setdefault("/".join(folders), []).append(entry)
    except Refused as error:
        yield _unreadable(label, day, str(error), student)  # what came before is still read
    else:
        alone = sum(map(len, inside.values())) == 1
        if not inside:
            yield _unreadable(label, day, "the archive has no notebook or script", student)
    for folder in sorted(inside):
        here = {entry.name.rsplit("/")[-1]: entry for entry in inside[folder]}
        for name, notes in _chosen(sorted(here), day):
            place = f"{label}/{here[name].name}"
            only = alone and not is_archive(name, b"") and not _names_the_day(_stem(name), day)
            whose = student if nested or only else _student(os.path.abspath(place), day)
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


# ---- which files, and whose


def _is_of_the_day(folder: str, day: str) -> bool:
    is_hidden = folder.startswith(".") and folder not in (".", "..")
    return not (is_hidden or folder in SKIPPED_FOLDERS or _names_another_day(folder, day))


def _is_wanted(name: str, day: str) -> bool:
    return (
        name.lower().endswith(NOTEBOOKS + SUFFIXES + UNSUPPORTED)
        and not name.startswith(".")
        and name not in SKIPPED_FILES
        and not _names_another_day(_stem(name), day)
    )


def _chosen(names: Sequence[str], day: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The files of one folder that are read, each with what is to be said about the choice."""
    notebooks = [name for name in names if name.lower().endswith(NOTEBOOKS)]
    winner = next((name for name in notebooks if name.casefold() == f"{day}.ipynb"), None)
    for name in names:
        others = [other for other in notebooks if other != name]
        if name == winner and others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            yield name, (f"not read, for {winner} is beside: {', '.join(others[:3])}{more}",)
        elif winner is None or name == winner or name not in notebooks:
            yield name, ()


def _student(path: str, day: str) -> str:
    """The last name in the path, from the file upwards, that does not name the day."""
    names = [_stem(part) for part in path.split("/") if part not in ("", ".", "..")]
    return next((name for name in reversed(names) if not _names_the_day(name, day)), day)


def _stem(name: str) -> str:
    ending = next(
        (end for end in NOTEBOOKS + SUFFIXES + UNSUPPORTED if name.lower().endswith(end)), ""
    )
    return name[: len(name) - len(ending)] or name


def _names_the_day(name: str, day: str) -> bool:
    """Whether this is the day's name, also as "Day 1", "day1 (2)" (a browser) or "day1-Copy1"."""
    return re.sub(r" ?\(\d+\)$|-copy\d+$|[ _-]", "", name.casefold()) == day


def _names_another_day(name: str, day: str) -> bool:
    series = re.escape(day.rstrip("0123456789"))
    is_a_day = re.fullmatch(rf"{series}[ _-]?\d+", name.casefold()) is not None
    return is_a_day and not _names_the_day(name, day)


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
    return Submission(printable(label), printable(student), digest, cells, shown, bool(cells))


def _unreadable(label: str, day: str, problem: str, student: str | None = None) -> Submission:
    whose = _student(os.path.abspath(label), day) if student is None else student
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
