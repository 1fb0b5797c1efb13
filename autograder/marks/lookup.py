"""Find a student's marks by name, id or email address. Entry points: `find` and `names_of`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import permutations
from typing import Protocol, TypeVar

from autograder.course.config import CourseError, Day
from autograder.submissions.people import HandedIn, Person, labels
from autograder.submissions.roster import Roster

MAX_LISTED = 20  # maximum number of students in an error message
MAX_WORDS = 5  # names with more words are not compared in every word order


class HasStudent(Protocol):
    """An object with students, such as marks or a submission."""

    @property
    def student(self) -> str: ...
    @property
    def handed_in(self) -> HandedIn | None: ...


T = TypeVar("T", bound=HasStudent)


def names_of(item: HasStudent, roster: Roster) -> set[str]:
    """Return the casefolded names, ids and email addresses of a submission's students."""
    names = {item.student, *labels(item.student, item.handed_in)}
    if item.handed_in:
        names |= {item.handed_in.participant, *item.handed_in.without_roster().labels}
    for person in item.handed_in.people if item.handed_in else ():
        names |= {person.name, person.id, person.email}
    source = item.handed_in or HandedIn((Person(item.student),))
    for entry in filter(None, roster.find_all(source)):
        names |= {entry.student, entry.id, entry.name, entry.email}
    return {name.casefold() for name in names if name}


def find(text: str, class_: Sequence[T], roster: Roster) -> list[T]:
    """Return a student's items, given a name, id or email address, or [] if no student matches.

    An id, an email address or a label with an id takes precedence over a name. If nothing matches exactly,
    ignore spaces and the order of words, because Canvas writes Ada Lovelace as `lovelaceada`.

    Raises:
        CourseError: Several students match.
    """
    found = [item for item in class_ if text.casefold() in names_of(item, roster)]
    if not found:
        wanted = _joined_words(text)
        found = [
            item
            for item in class_
            if not wanted.isdisjoint(re.sub(r"[\W_]", "", name) for name in names_of(item, roster))
        ]
    # Students can choose a name on a platform, even one that is another student's id, email address or label.
    if by_id := [item for item in found if text.casefold() in _all_ids(item, roster)]:
        found = _with_own_id(text.casefold(), by_id, roster) or by_id
    else:
        found = [item for item in found if item.student == text] or found
    if len({_identity(item) for item in found}) > 1:
        raise CourseError(f"several students match {text!r}: {list_students(found)}. Use an id.")
    return found


def find_stored(text: str, stored: Sequence[T], day: Day, roster: Roster) -> T:
    """Return a student's item in the store, given a name, id or email address; see `find`.

    Raises:
        CourseError: No student matches, or several students do.
    """
    found = find(text, stored, roster)
    if not found:
        near = closest(text, stored, roster)
        hint = f"; the closest name is {near}" if near else ""
        raise CourseError(f"the store has no marks for {text!r} in {day.name}{hint}")
    return found[0]


def labels_of(text: str, item: HasStudent, roster: Roster) -> tuple[str, ...]:
    """Return the labels of the submission's students who have this id or email address.

    If there are none, return the labels of its students with this name or, if no student matches, all labels.
    """
    found = labels(item.student, item.handed_in)
    people = item.handed_in.people if item.handed_in and len(item.handed_in.people) > 1 else ()
    if len(people) != len(found):
        return found
    plain = item.handed_in.without_roster().labels if item.handed_in else found
    by_id: list[str] = []
    by_name: list[str] = []
    for label, person, own in zip(found, people, plain, strict=True):
        ids, names = {person.id, person.email}, {label, own, person.name}
        participant = item.handed_in.participant if item.handed_in else ""
        if entry := roster.find(person, own, participant):
            ids |= {entry.id, entry.email}
            names |= {entry.student, entry.name}
        for keys, matching in ((ids, by_id), (names, by_name)):
            if text.casefold() in {key.casefold() for key in keys if key}:
                matching.append(label)
    return tuple(by_id or by_name) or found


def list_students(class_: Sequence[HasStudent]) -> str:
    """Return the students' labels, separated by commas. A long list ends in "and 3 others"."""
    found = list(dict.fromkeys(map(label, class_)))
    more = f" and {len(found) - MAX_LISTED} others" if len(found) > MAX_LISTED else ""
    return ", ".join(found[:MAX_LISTED]) + more


def label(item: HasStudent) -> str:
    """Return the labels of a submission's students, separated by commas."""
    return ", ".join(labels(item.student, item.handed_in))


def closest(text: str, class_: Sequence[HasStudent], roster: Roster) -> str:
    """Return the student with the most similar name or, failing that, a student whose name contains every word of `text`.

    Return "" if no student matches. Numbers are not compared, because similar ids belong to unrelated students.
    """
    if text.isdigit():
        return ""
    names = {name: item.student for item in class_ for name in names_of(item, roster)}
    near = difflib.get_close_matches(text.casefold(), names, 1)
    if not near:
        words = set(_words(text))
        near = [name for name in names if words and words <= set(_words(name))]
    return names[near[0]] if near else ""


def _with_own_id(text: str, found: Sequence[T], roster: Roster) -> list[T]:
    """Return the items whose students have this id or email address on the platform.

    Return [] if the roster assigns this id to the student of a different item.
    """

    def rows(items: Sequence[T]) -> set[str]:
        sources = [item.handed_in or HandedIn((Person(item.student),)) for item in items]
        entries = (entry for source in sources for entry in roster.find_all(source) if entry)
        return {entry.id for entry in entries if entry.id.casefold() == text}

    own = [item for item in found if text in _ids(item)]
    return own if rows(found) == rows(own) else []


def _ids(item: HasStudent) -> set[str]:
    """Return the casefolded ids and email addresses that the platform gives for a submission's students."""
    if item.handed_in is None:
        return set()
    ids = {item.handed_in.participant}.union(*({p.id, p.email} for p in item.handed_in.people))
    return {one.casefold() for one in ids}


def _all_ids(item: HasStudent, roster: Roster) -> set[str]:
    """Return the casefolded ids and email addresses of a submission's students, both from the platform and from the roster.

    Also include the students' labels that contain an id.
    """
    source = item.handed_in or HandedIn((Person(item.student),))
    entries = filter(None, roster.find_all(source))
    own = {key for entry in entries for key in (entry.id, entry.email)}
    with_ids = {*labels(item.student, item.handed_in), *source.without_roster().labels}
    own |= with_ids - {item.student, *(person.name for person in source.people)}
    return ({key.casefold() for key in own} | _ids(item)) - {""}


def _joined_words(name: str) -> set[str]:
    """Return every string obtained by joining the words of a name, in any order, without spaces or punctuation."""
    words = _words(name)
    if not 0 < len(words) <= MAX_WORDS:
        return set()
    return {"".join(order) for order in permutations(words)}


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


def _identity(item: HasStudent) -> tuple[str, ...]:
    return labels(item.student, item.handed_in)
