"""Find a student's marks by name, id or email address. Entry points: `find`, `find_stored` and `keys_of`.

This is the only place where students who submitted are matched by name, and only against a name that a TA types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple, TypeVar

from autograder.course.config import CourseError, Day
from autograder.marks import class_list
from autograder.marks.model import SubmissionMarks
from autograder.plain_text import list_with_count
from autograder.submissions.roster import Entry, Roster
from autograder.submissions.submission import Submission

MAX_WORDS = 5  # names with more words are not compared in every word order

T = TypeVar("T", SubmissionMarks, Submission)
Item = TypeVar("Item")


class _Person(NamedTuple):
    """A student's key, ids and names, casefolded. Students choose their names, but not their ids."""

    key: str
    ids: set[str]
    names: set[str]

    @property
    def joined(self) -> set[str]:
        return {re.sub(r"[\W_]", "", name) for name in self.names}


def _people(item: SubmissionMarks | Submission, day: Day, roster: Roster) -> list[_Person]:
    origin = roster.read(item.origin, day.name)
    found = []
    students = roster.students(origin, day.name)
    for own, label, (entry, person, key) in zip(origin.ids, origin.labels, students, strict=True):
        ids = {own, key, person.id, person.email} | {label} - {person.name}
        names = {person.name, entry.name} | (set() if entry.key else {entry.student})
        found.append(_Person(key, _ids(entry) | _casefolded(ids), _casefolded(names)))
    return found


def _casefolded(texts: set[str]) -> set[str]:
    return {text.casefold() for text in texts if text}


def find(text: str, class_: Sequence[T], day: Day, roster: Roster) -> list[T]:
    """Return a student's items, given a name, id or email address, or [] if no student matches.

    An id, an email address or a label with an id takes precedence over a name. If nothing matches exactly, ignore
    spaces and the order of words, because Canvas writes Ada Lovelace as `lovelaceada`. For a student without a submission,
    return those of the student's group.
    """
    found = _matching(text, [(item, _people(item, day, roster)) for item in class_])
    if len({item.origin.keys for item in found}) > 1 and len(_entries(found, day, roster)) > 1:
        labels = list_with_count(sorted({label(item) for item in found}))
        raise CourseError(f"several students match {text!r} {labels}. Use an id.")
    return found or _find_for_member(text, class_, day, roster)


def _matching(text: str, people: Sequence[tuple[Item, Sequence[_Person]]]) -> list[Item]:
    """Return the items of the people with this id or, failing that, name."""
    wanted, joined = text.casefold(), _joined_words(text)
    found = [item for item, own in people if any(wanted in one.ids for one in own)]
    found = found or [item for item, own in people if any(wanted in one.names for one in own)]
    return found or [item for item, own in people if any(joined & one.joined for one in own)]


def _find_for_member(text: str, class_: Sequence[T], day: Day, roster: Roster) -> list[T]:
    """Return what counts for a student on the roster without a submission: that of another member of the student's group."""
    rows = [
        (entry, [_Person("", _ids(entry) | _casefolded({entry.label}), _casefolded(names))])
        for entry in roster.entries
        if entry.group and (names := {entry.name, entry.student})
    ]
    found = _matching(text, rows)
    if len(found) > 1:
        labels = list_with_count([entry.label for entry in found])
        raise CourseError(f"several students match {text!r} {labels}. Use an id.")
    group = {member for entry in found for member in roster.group(entry)}
    items = [
        item for item in class_ if group & {e for e, _, _ in roster.students(item.origin, day.name)}
    ]
    marks: list[Any] = [item for item in items if isinstance(item, SubmissionMarks)]
    counts: object = class_list.counting(marks, "latest")
    return [item for item in items if counts in (None, item)]


def _ids(entry: Entry) -> set[str]:
    return _casefolded({entry.id, entry.email, *dict(entry.platform_ids).values()})


def _entries(found: Sequence[T], day: Day, roster: Roster) -> set[tuple[str, ...]]:
    return {
        tuple(entry.key or entry.student for entry, _, _ in roster.students(item.origin, day.name))
        for item in found
    }


def find_stored(text: str, stored: Sequence[T], day: Day, roster: Roster) -> T:
    """Return a student's item in the store, given a name, id or email address; see `find`."""
    found = find(text, stored, day, roster)
    if not found:
        near = closest(text, stored, day, roster)
        hint = f"; the closest name is {near}" if near else ""
        raise CourseError(f"the store has no marks for {text!r} in {day.name}{hint}")
    return found[0]


def keys_of(
    text: str, item: SubmissionMarks | Submission, day: Day, roster: Roster
) -> dict[str, str]:
    """Map the keys of the submission's students with this id, email address or name to their labels.

    If a name matches only in a different order of words, return all students of the submission.

    Raises:
        CourseError: The student has submitted nothing, and the submission is that of the student's group.
    """
    labels = dict(zip(item.origin.keys, item.labels, strict=False))
    people = _people(item, day, roster)
    by_id = [one.key for one in people if text.casefold() in one.ids]
    by_name = [one.key for one in people if text.casefold() in one.names]
    if not _matching(text, [(item, people)]):
        raise CourseError(
            f"{text} submitted nothing for {day.name}, and gets the marks of {label(item)}. "
            f'`autograder forget {day.name} "{label(item)}"` deletes them for the whole group'
        )
    return {key: labels.get(key, key) for key in by_id or by_name or item.origin.keys}


def label(item: SubmissionMarks | Submission) -> str:
    """Return the labels of a submission's students, separated by commas."""
    return ", ".join(item.labels)


def closest(text: str, class_: Sequence[T], day: Day, roster: Roster) -> str:
    """Return the student with the most similar name or, failing that, a student whose name contains every word of `text`.

    Return "" if no student matches. Numbers are not compared, because similar ids belong to unrelated students.
    """
    if text.isdigit():
        return ""
    names: dict[str, str] = {}
    for item in class_:
        for person in _people(item, day, roster):
            names |= dict.fromkeys(person.ids | person.names, item.student)
    near = difflib.get_close_matches(text.casefold(), names, 1)
    if not near:
        words = set(_words(text))
        near = [name for name in names if words and words <= set(_words(name))]
    return names[near[0]] if near else ""


def _joined_words(name: str) -> set[str]:
    """Return every string obtained by joining the words of a name, in any order, without spaces or punctuation."""
    words = _words(name)
    if not 0 < len(words) <= MAX_WORDS:
        return set()
    return {"".join(order) for order in permutations(words)}


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())
