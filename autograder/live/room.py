"""Follow a room of students through a day's exercises. Entry point: `Room`, which turns events into a view.

A room contains no files, processes or clocks: the same events always give the same view. The timeline stores them, and a
restarted board replays them.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from autograder.course.config import Day
from autograder.marks.model import SubmissionMarks
from autograder.submissions.cell import hash_code

State = Literal["not_begun", "working", "passes", "too_long"]
OVER_BUDGET = (
    "not run: the whole submission took more than"  # begins `str(Excess)` for a submission
)
# The room's page begins with a problem that at least so many people, and this share of the room, have.
FEWEST, SHARE = 3, 0.15
STALLED = (10, 20, 30)  # minutes without progress that the room's page counts
LONGEST_GAP = 30 * 60  # seconds between two changes that count as time spent on an exercise
TRY = 2  # how many minutes a try at one exercise counts when students are sorted


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A student's state in one exercise. `code` is a hash of the student's code, or "" if the exercise is correct."""

    state: State
    points: float = 0.0
    mistakes: tuple[str, ...] = ()
    code: str = ""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """The exercises whose state changed when a student's file was graded. `time` is in seconds since 1970."""

    time: float
    student: str
    changes: dict[str, Progress]


NOT_BEGUN = Progress("not_begun")


def progress(marks: SubmissionMarks) -> dict[str, Progress]:
    """Return the student's state in each exercise. Exercises that did not run, because the time was used up, are left out."""
    found: dict[str, Progress] = {}
    is_over = False
    for one in marks.exercises:
        if OVER_BUDGET in one.message:
            if not is_over:
                found[one.name] = Progress("too_long")
            is_over = True
        elif one.status == "passed":
            found[one.name] = Progress("passes", one.points)
        elif one.status == "not_attempted":
            found[one.name] = NOT_BEGUN
        else:
            state: State = "too_long" if one.status == "timed_out" else "working"
            own = hash_code(s.source for s in one.statements if not s.given)[:12]
            found[one.name] = Progress(state, one.points, tuple(one.mistakes), own)
    return found


@dataclass
class Person:
    """A student in the room. Times are in seconds since 1970."""

    number: int  # identifies the student on the board, instead of a name
    seen: float  # the time of the last event
    progressed: float  # the time of the last progress
    exercises: dict[str, Progress] = field(default_factory=dict)
    solved: int = 0
    at: str = ""  # the exercise that the student edited last
    tries: Counter[str] = field(default_factory=Counter)  # wrong versions of each exercise
    spent: Counter[str] = field(default_factory=Counter)  # seconds on each exercise
    since: dict[tuple[str, str], float] = field(default_factory=dict)  # the current mistakes

    def state(self, exercise: str) -> State:
        """Return the student's state in an exercise."""
        return self.exercises.get(exercise, NOT_BEGUN).state


class SharedMistake(NamedTuple):
    """A mistake that students have at the moment, and the time since which one of them has had it."""

    exercise: str
    name: str
    people: int
    since: float


class Row(NamedTuple):
    """A student, the exercise that the student works on ("" after the last one), and minutes since the last progress."""

    student: str
    person: Person
    exercise: str
    minutes: int


@dataclass(frozen=True)
class RoomView:
    """What the projector shows. `median` is the exercise of the median student, or "" if that student has finished."""

    rows: Sequence[Row]
    counts: Mapping[str, Counter[State]]  # how many students are in each state of each exercise
    median: str
    mistakes: Sequence[SharedMistake]
    stalled: Mapping[int, int]  # how many students have made no progress for so many minutes
    places: Sequence[tuple[str, int]]  # the exercises of those who have made no progress

    @property
    def problem(self) -> str:
        """Return a sentence, in Markdown, about the problem that most people have, or "" if few have the same."""
        most = max(FEWEST, SHARE * len(self.rows))
        slow = sum(
            any(one.state == "too_long" for one in row.person.exercises.values())
            for row in self.rows
        )
        if self.mistakes and self.mistakes[0].people >= most:
            mistake = self.mistakes[0]
            return f"{mistake.people} people have the same mistake in `{mistake.exercise}`."
        if slow >= most:
            return f"The code of {slow} people takes too long."
        if self.places and self.places[0][1] >= most:
            name, people = self.places[0]
            return f"{people} people at `{name}` have made no progress for {STALLED[0]} minutes."
        return ""


class Room:
    """The students who have opened a day's notebook."""

    def __init__(self, day: Day) -> None:
        self.names = day.names
        self._required = [e.name for e in day.exercises if not e.optional] or [*day.names]
        self.people: dict[str, Person] = {}
        self.history: list[tuple[float, float]] = []
        self.time = 0.0  # of the last event

    def event(self, time: float, student: str, found: Mapping[str, Progress]) -> Event | None:
        """Return an event with the exercises that changed, or None if the room already knows everything."""
        person = self.people.get(student)
        known = person.exercises if person else {}
        changes = {n: p for n, p in found.items() if p != known.get(n, NOT_BEGUN)}
        return Event(time, student, changes) if changes or not person else None

    def apply(self, event: Event) -> None:
        """Update the room. Times never run backwards, whatever the machine's clock does."""
        self.time = now = max(self.time, event.time)
        person = self.people.get(event.student)
        if person is None:
            person = self.people[event.student] = Person(len(self.people) + 1, now, now)
        elif exercise := self.current(person):
            person.spent[exercise] += int(min(now - person.seen, LONGEST_GAP))
        person.seen = now
        edited: list[str] = []
        for name, new in event.changes.items():
            old = person.exercises.get(name, NOT_BEGUN)
            begins = old.state == "not_begun" and new.state != "not_begun"
            if begins or new.points > old.points or new.state == "passes":
                person.progressed = now
            if begins or new.code != old.code:
                edited.append(name)
                person.tries[name] += new.state in ("working", "too_long")
            for mistake in {*old.mistakes} - {*new.mistakes}:
                del person.since[name, mistake]
            for mistake in {*new.mistakes} - {*old.mistakes}:
                person.since[name, mistake] = now
            person.exercises[name] = new
        if edited:
            person.at = max(edited, key=self._place)
        person.solved = sum(person.state(name) == "passes" for name in self.names)
        median = statistics.median(other.solved for other in self.people.values())
        if not self.history or self.history[-1][1] != median:
            self.history.append((now, median))

    def current(self, person: Person) -> str:
        """Return the exercise that a student works on: the last one edited or, if it is correct, the next one that is not."""
        if person.at and person.state(person.at) != "passes":
            return person.at
        left = [name for name in self._required if person.state(name) != "passes"]
        after = [n for n in left if not person.at or self._place(n) > self._place(person.at)]
        return next(iter(after or left), "")

    def view(self, now: float) -> RoomView:
        """Return what the projector shows. The rows begin with the students who need help most."""
        rows = []
        since: dict[tuple[str, str], list[float]] = {}
        for student, person in self.people.items():
            minutes = int(max(0.0, now - person.progressed) // 60)
            rows.append(Row(student, person, self.current(person), minutes))
            for key, time in person.since.items():
                since.setdefault(key, []).append(time)
        rows.sort(key=lambda r: (not r.exercise, -r.minutes - r.person.tries[r.exercise] * TRY))
        working = [row for row in rows if row.exercise]
        at = sorted((row.exercise for row in rows), key=self._place)
        shared = [SharedMistake(*key, len(times), min(times)) for key, times in since.items()]
        shared.sort(key=lambda one: (-one.people, one.since, one.exercise, one.name))
        return RoomView(
            rows,
            {name: Counter(p.state(name) for p in self.people.values()) for name in self.names},
            at[(len(at) - 1) // 2] if at else "",
            shared,
            {most: sum(row.minutes >= most for row in working) for most in STALLED},
            Counter(r.exercise for r in working if r.minutes >= STALLED[0]).most_common(),
        )

    def _place(self, name: str) -> int:
        return self.names.index(name) if name in self.names else len(self.names)
