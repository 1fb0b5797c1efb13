"""The class, in one file: what the learning platform, nbgrader and the course call each student.

`roster.csv` beside `grading.toml` has a row a student and the columns id (of the platform), student (nbgrader's), name,
and, where they are needed, email, group and extension (hours). It is no file of the course: it names people, and git ignores it.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from autograder.course.config import CourseError
from autograder.submissions.people import Person

FILE = "roster.csv"
NEEDED = ("id", "student", "name")
NEAR = 0.6  # of difflib's 1.0: below it two names have nothing to do with each other
MISSPELT = 0.75


@dataclass(frozen=True)
class Entry:
    """A row of the roster."""

    id: str
    student: str
    name: str
    email: str = ""
    group: str = ""
    extension: float = 0.0  # hours

    @property
    def label(self) -> str:
        """How it is named in a sentence."""
        more = [text for text in (self.name, self.id) if text and text != self.student]
        return f"{self.student} ({', '.join(more)})" if more else self.student


@dataclass(frozen=True)
class Roster:
    """The students of a course; without a file, none."""

    entries: tuple[Entry, ...]

    def find(self, person: Person) -> Entry | None:
        """The student that this is: by id, student or e-mail, else by name; None where these say nothing, or not the same."""
        keys = (self._by_key.get(key.casefold()) for key in (person.id, person.email, person.name))
        by_key = next(filter(None, keys), None)
        by_name = self._by_name.get(_plain(person.name), ())
        if by_key is None:
            return by_name[0] if len(by_name) == 1 else None
        # A number may be one student's id here and another's there; then the name says so.
        return by_key if not by_name or by_key in by_name else None

    def students(self, names: str) -> tuple[Entry, ...]:
        """Those whom marks name: one student, or several with commas between them; empty unless all are known."""
        known = {entry.student: entry for entry in self.entries}
        parts = [names] if names in known else names.split(", ")
        return tuple(known[part] for part in parts) if all(p in known for p in parts) else ()

    def group(self, entry: Entry) -> tuple[Entry, ...]:
        """The student, and all others of the same group."""
        together = [e for e in self.entries if e.group and e.group == entry.group and e != entry]
        return (entry, *together)

    def nearest(self, person: Person) -> Entry | None:
        """Who is most like somebody that `find` does not find, by id, student or name."""
        texts = {_plain(text): entry for entry in self.entries for text in _texts(entry)}
        for text in filter(None, (_plain(person.name), _plain(person.id), _plain(person.email))):
            for close in difflib.get_close_matches(text, texts, 1, NEAR):
                return texts[close]
        return None

    @cached_property
    def _by_key(self) -> Mapping[str, Entry]:
        """Each student by e-mail, by nbgrader's name and by id, the surest last, as it replaces the others."""
        found: dict[str, Entry] = {}
        for column in ("email", "student", "id"):
            found |= {getattr(e, column).casefold(): e for e in self.entries if getattr(e, column)}
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for key in _turned(entry.name):
                found.setdefault(key, []).append(entry)
        return found


NO_ROSTER = Roster(())


def load(file: Path) -> Roster:
    """The roster in a file: CSV with commas, semicolons or tabs, UTF-8 with or without a byte order mark.

    Raises:
        CourseError: what is wrong, with the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CourseError(f"{file} can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CourseError(f"{file} is not UTF-8; save it as “CSV UTF-8”") from None
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=guess_delimiter(text), strict=True)
    try:
        head = [cell.strip().casefold() for cell in next(rows, [])]
        _check_columns(file, head)
        entries: list[Entry] = []
        for cells in rows:
            if any(cell.strip() for cell in cells):
                entries.append(_entry(f"{file}, line {rows.line_num}", head, cells, entries))
    except csv.Error as error:
        raise CourseError(f"{file}, line {rows.line_num}: no CSV: {error}") from None
    return Roster(tuple(entries))


def for_course(root: Path, file: Path | None = None) -> Roster:
    """The roster that was named, or the course's own, or an empty one.

    Raises:
        CourseError: it is wrong, with the line.
    """
    own = root / FILE
    if file is None and not own.is_file():
        return NO_ROSTER
    return load(file or own)


def guess_delimiter(text: str) -> str:
    """What stands between the cells of a CSV file, by its first line."""
    first = text.lstrip("\ufeff\r\n").split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _check_columns(file: Path, head: Sequence[str]) -> None:
    known = [field.name for field in fields(Entry)]
    where = f"{file}, line 1"
    for column in NEEDED:
        if column not in head:
            raise CourseError(
                f"{where}: there is no column {column!r}; needed are {', '.join(NEEDED)}, "
                f"and it has {', '.join(filter(None, head)) or 'none'}"
            )
    for column in head:
        close = difflib.get_close_matches(column, known, 1, MISSPELT)
        if close and (column not in known or head.count(column) > 1):
            told = "stands there twice" if column in known else f"should it be {close[0]!r}?"
            raise CourseError(f"{where}: column {column!r}: {told}")


def _entry(where: str, head: Sequence[str], cells: Sequence[str], before: Iterable[Entry]) -> Entry:
    if len(cells) != len(head):
        raise CourseError(f"{where}: it has {len(cells)} cells, and the first line {len(head)}")
    row = {column: cell.strip() for column, cell in zip(head, cells, strict=True)}
    if not row["student"]:
        raise CourseError(f"{where}: there is no student")
    if ", " in row["student"] or "/" in row["student"]:
        raise CourseError(f"{where}: a student's name in nbgrader is a folder: {row['student']!r}")
    for entry in before:
        for column in ("id", "student"):
            if row[column] and row[column].casefold() == getattr(entry, column).casefold():
                raise CourseError(f"{where}: {column} {row[column]!r} stands there twice")
    hours = row.get("extension", "") or "0"
    if not re.fullmatch(r"\d+([.,]\d+)?", hours):
        raise CourseError(f"{where}: extension {hours!r} should be a number of hours")
    texts = {column: row.get(column, "") for column in (*NEEDED, "email", "group")}
    return Entry(**texts, extension=float(hours.replace(",", ".")))


# ---- names


def _plain(text: str) -> str:
    """Letters and digits alone, small and without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def _turned(name: str) -> set[str]:
    """A name's words in every order that turns it: first names first, or family name first."""
    words = [word for word in map(_plain, re.split(r"[\W_]+", name)) if word]
    return {"".join(words[at:] + words[:at]) for at in range(len(words))}


def _texts(entry: Entry) -> list[str]:
    return [text for text in (entry.student, entry.id, *_turned(entry.name)) if text]
