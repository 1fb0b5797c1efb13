"""Find students on the roster whose name several people have on a platform. Entry points: `contested` and `identity`."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable

from autograder.marks.model import SubmissionMarks
from autograder.submissions import platforms
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

# Where a number identifies a person ("" for ids, which identify a person everywhere), and the number.
Identity = tuple[str, str]
People = dict[Identity, str]  # a label for each person


def identity(marks: SubmissionMarks, source: HandedIn, person: Person) -> Identity | None:
    """Return what distinguishes a person from others with the same name, or None if nothing does.

    Moodle's participant numbers and Gradescope's folders are different in each assignment and download.
    """
    number = source.participant or (person.id if platforms.is_local_id(person.id) else "")
    if number:
        return _download(marks.path), number
    return ("", person.id) if person.id else None


def _download(path: str) -> str:
    """Return the path of the folder or archive that a platform created around the students' files."""
    parts = os.path.abspath(path).split("/")
    for number, part in enumerate(parts):
        if platforms.parse_moodle_name(part) or platforms.GRADESCOPE.fullmatch(part):
            return "/".join(parts[:number])
    return os.path.dirname(path)


def are_two_people(one: Identity | None, other: Identity | None) -> bool:
    """Return whether two identities are certain to belong to different people."""
    return one is not None and other is not None and one[0] == other[0] and one[1] != other[1]


def handed_in(marks: SubmissionMarks, roster: Roster) -> HandedIn:
    """Return who submitted the work according to the platform. The roster only decides between readings of a file name."""
    source = marks.handed_in or HandedIn((Person(marks.student),))
    return roster.read(source.without_roster())


def contested(class_: Iterable[SubmissionMarks], roster: Roster) -> dict[Entry, People]:
    """Return the students whose name several people have on a platform, with these people's labels and identities."""
    found: dict[Entry, People] = {}
    by_name: set[Entry] = set()
    for marks in class_:
        source = handed_in(marks, roster)
        for person, label, entry in zip(
            source.people, source.labels, roster.find_all(source), strict=True
        ):
            who = identity(marks, source, person)
            if entry and who:
                found.setdefault(entry, {}).setdefault(who, label)
                if not roster.find_by_key(person, bool(source.participant), label):
                    by_name.add(entry)
    return {
        entry: people
        for entry, people in found.items()
        if entry in by_name and max(Counter(place for place, _ in people).values()) > 1
    }


def note(entry: Entry, people: People, day: str) -> str:
    """Return a note about a contested student that says how to resolve the conflict."""
    labels = sorted(set(people.values()))
    note = (
        f"{' and '.join(labels)} have the name of {entry.label}, so only a submission with the id or email address "
        "on the roster counts. "
    )
    if all(not place for place, _ in people):
        return f"{note}Enter the student's id in the row"
    commands = " or ".join(f"`autograder forget {day} {shlex.quote(label)}`" for label in labels)
    return f"{note}Delete the other person's marks with {commands}"
