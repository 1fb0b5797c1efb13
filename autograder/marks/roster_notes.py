"""Tell the TA about mismatches between the roster and the submissions. Entry points: `problems` and `differences`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.plain_text import list_with_count
from autograder.submissions.people import Person
from autograder.submissions.roster import Roster
from autograder.submissions.roster_entry import Entry

MAX_COMPARISONS = (
    100_000  # maximum number of pairs of names to compare, which takes about two seconds
)


@dataclass(frozen=True)
class Unmatched:
    """Students on the roster without a submission, and submitters who are not on the roster, keyed by label."""

    absent: Sequence[Entry]
    strangers: Mapping[str, Person]

    def with_other_ids(self) -> dict[Entry, list[str]]:
        """Map absent students to the ids of submitters with the same name but a different id. Omit students without a match."""
        found: dict[Entry, list[str]] = {}
        roster = Roster(tuple(self.absent))
        for person in self.strangers.values():
            if entry := roster.find_with_other_id(person):
                found.setdefault(entry, []).append(person.id)
        return found


def problems(unmatched: Unmatched, day: Day) -> Iterator[str]:
    """Yield notes about roster rows that do not affect marks, although the TA may expect them to."""
    ids = unmatched.with_other_ids()
    if ids:
        names = [
            f"{entry.student} ({entry.id}, on the platform {' or '.join(found)})"
            for entry, found in ids.items()
        ]
        yield (
            "these roster rows match no submission, because students with these names have different ids on the platform "
            f"{list_with_count(names)}. "
            "If these are the same students, enter the platform's ids or leave the cells empty"
        )
    if late := _late(unmatched.absent, day, ids):
        near = _nearest(late, unmatched.strangers)
        names = [e.label + (f" [closest: {near[e]}]" if e in near else "") for e in late]
        yield (
            "these roster rows set extension, late_hours or excused, but match no submission "
            f"{list_with_count(names)}. If one of these students submitted work, enter the id or name from "
            f"`autograder list {day.name}`"
        )


def differences(unmatched: Unmatched, roster: Roster, day: Day) -> Iterator[str]:
    """Yield notes about submitters who are not on the roster, and about students on the roster who did not submit.

    If most submitters are not on the roster, it does not cover the whole class. In that case, list only submitters
    whose names are similar to names on the roster.
    """
    ids = unmatched.with_other_ids()
    late = _late(unmatched.absent, day, ids)
    rest = [entry for entry in unmatched.absent if entry not in ids and entry not in late]
    near = {label: entry for entry, label in _nearest(rest, unmatched.strangers).items()}
    is_partial = len(unmatched.strangers) > len(roster.entries)
    labels = [*near, *(one for one in unmatched.strangers if not is_partial and one not in near)]
    if labels:
        names = [f"{one} [closest: {near[one].label}]" if one in near else one for one in labels]
        yield f"these students are not on the roster {list_with_count(names)}"
    if rest:
        yield f"these students on the roster have no submission {list_with_count([e.label for e in rest])}"


def _late(absent: Sequence[Entry], day: Day, ids: Mapping[Entry, Sequence[str]]) -> list[Entry]:
    """Return the absent students whose roster rows would affect their late penalty."""
    if not day.late.per_cent_a_day:
        return []
    return [entry for entry in absent if entry not in ids and entry.affects_lateness(day.name)]


def _nearest(absent: Sequence[Entry], strangers: Mapping[str, Person]) -> dict[Entry, str]:
    """Map each absent student to the label of the first unknown submitter with a similar name. Omit students without a match."""
    roster = Roster(tuple(absent))
    found: dict[Entry, str] = {}
    if not 0 < len(absent) * len(strangers) <= MAX_COMPARISONS:
        return found
    for label, person in strangers.items():
        if entry := roster.nearest(person):
            found.setdefault(entry, label)
    return found
