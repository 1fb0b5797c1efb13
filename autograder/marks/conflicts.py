"""Find roster rows that match several people on a platform. Entry points: `contested`, `id_mismatches` and `identity`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

from autograder.marks.model import SubmissionMarks
from autograder.submissions import platforms
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry, normalize, rotations

# A pair: the download in which a number identifies a person ("" for ids, which are valid everywhere), and the number.
Identity = tuple[str, str]
People = dict[Identity, str]  # a label for each person


def identity(marks: SubmissionMarks, source: HandedIn, person: Person) -> Identity | None:
    """Return an identity that distinguishes people with the same name, or None if the platform provides no id or number.

    Moodle's participant numbers differ between assignments, and Gradescope's folder names differ between downloads.
    """
    number = source.participant or (person.id if platforms.is_local_id(person.id) else "")
    if number:
        return _download(marks.path), number
    return ("", person.id) if person.id else None


def _download(path: str) -> str:
    """Return the path of the platform's folder or archive that contains the students' files."""
    parts = os.path.abspath(path).split("/")
    for number, part in enumerate(parts):
        if platforms.parse_moodle_name(part) or platforms.GRADESCOPE.fullmatch(part):
            return "/".join(parts[:number])
    return os.path.dirname(path)


def are_two_people(one: Identity | None, other: Identity | None) -> bool:
    """Return whether two identities definitely belong to different people."""
    return one is not None and other is not None and one[0] == other[0] and one[1] != other[1]


def handed_in(marks: SubmissionMarks, roster: Roster) -> HandedIn:
    """Return who made the submission, according to the platform. Use the roster only to resolve ambiguous file names."""
    source = marks.handed_in or HandedIn((Person(marks.student),))
    return roster.read(source.without_roster())


def contested(class_: Iterable[SubmissionMarks], roster: Roster) -> dict[Entry, People]:
    """Find roster rows whose name is shared by several people on a platform. Map each row to these people's identities
    and labels.

    If a row's id is a Moodle participant number, people with other numbers count as different people, even across downloads.
    """
    found: dict[Entry, People] = {}
    by_name: set[Entry] = set()
    numbered: set[Entry] = set()
    for marks in class_:
        source = handed_in(marks, roster)
        for person, label, entry in zip(
            source.people, source.labels, roster.find_all(source), strict=True
        ):
            who = identity(marks, source, person)
            if entry and who:
                found.setdefault(entry, {}).setdefault(who, label)
                if not roster.find_by_key(person, label, source.participant):
                    by_name.add(entry)
                elif entry.matches_participant(person, source.participant):
                    numbered.add(entry)
    return {
        entry: people
        for entry, people in found.items()
        if entry in by_name
        and (entry in numbered or max(Counter(place for place, _ in people).values()) > 1)
    }


def find_students(
    source: HandedIn, roster: Roster, contested: Container[Entry]
) -> list[tuple[Entry, Person]]:
    """Return the people who made a submission, each with a row on the roster or, if none matches, a new row.

    A student in `contested` is matched only by id or email address, because several people have the student's name.
    """
    found = []
    for person, label, entry in zip(
        source.people, source.labels, roster.find_all(source), strict=True
    ):
        by_name = entry and not roster.find_by_key(person, label, source.participant)
        if entry is None or (by_name and entry in contested):
            entry = Entry(person.id, label, person.name, person.email)
        found.append((entry, person))
    return found


def unsettled(contested: Mapping[Entry, People]) -> dict[Entry, People]:
    """Return the rows and the people that they match, omitting each row whose id identifies one person in every download."""

    def is_settled(entry: Entry, people: People) -> bool:
        places = {place for place, number in people if number == entry.id}
        return bool(places) and all(place in places for place, _ in people)

    return {entry: people for entry, people in contested.items() if not is_settled(entry, people)}


def note(entry: Entry, people: People) -> str:
    """Return a note about a roster row that several people match, with instructions for resolving the conflict."""
    labels = sorted(set(people.values()))
    if entry.id in (number for _, number in people):
        others = sorted({label for (_, number), label in people.items() if number != entry.id})
        return (
            f"{' and '.join(others)} {'have' if len(others) > 1 else 'has'} the same name as {entry.label}, but not "
            "the id on the roster, so the row does not apply to them. If it is the same student, delete the id from the "
            "row; otherwise, add a row"
        )
    return (
        f"{' and '.join(labels)} have the same name as {entry.label}, so the row applies only to a student with the "
        "row's id or email address. In the row, enter the id of the student you mean, as shown here in parentheses"
    )


def id_mismatches(class_: Iterable[SubmissionMarks], roster: Roster) -> Iterator[str]:
    """Yield a note about each row whose id and name belong to different people on the platform."""
    by_id: dict[str, str] = {}
    by_name: dict[str, set[str]] = {}
    for marks in class_:
        source = handed_in(marks, roster)
        for person, label in zip(source.people, source.labels, strict=True):
            by_id[source.participant or person.id] = label
            by_name.setdefault(normalize(person.name), set()).add(label)
    for entry in roster.entries:
        owner = by_id.get(entry.id) if entry.id else None
        names = rotations(entry.full_name or entry.student)
        named = {label for name in names for label in by_name.get(name, ())}
        if owner and named and owner not in named:
            yield (
                f"the roster row for {entry.label} has the id of {owner}, but the name of "
                f"{' and '.join(sorted(named))}. Correct the id or the name, unless the id is from another system"
            )
