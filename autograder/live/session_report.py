"""Write a page about a session, from its timeline. Entry point: `write`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from autograder.course.config import Day
from autograder.course.files import make_folder, write_output
from autograder.feedback.sentences import Sentences
from autograder.live import timeline
from autograder.live.pages import templates
from autograder.live.room import Event, Room
from autograder.release.texts import exercise_minutes


class ExerciseTime(NamedTuple):
    """How long an exercise took those who solved it, and the time that the notebook states (0 if none)."""

    name: str
    stated: int
    median: float | None
    people: int  # who worked on it
    solved: int


@dataclass
class MistakeTimes:
    """When a mistake was in the room, how many people made it, and how many had it at the same time."""

    exercise: str
    name: str
    first: float
    last: float = 0.0  # when the last person corrected it, or 0
    people: set[str] = field(default_factory=set)
    most: int = 0


class SessionReport(NamedTuple):
    """A session. `stopped` counts the exercises that students last worked on, without those who finished."""

    start: float
    end: float
    people: int
    exercises: list[ExerciseTime]
    mistakes: list[MistakeTimes]
    stopped: list[tuple[str, int]]


def summarize(day: Day, events: Iterable[Event]) -> SessionReport:
    """Replay a session's events."""
    room, start = Room(day), 0.0
    mistakes: dict[tuple[str, str], MistakeTimes] = {}
    for event in events:
        person = room.people.get(event.student)
        before = {*person.since} if person else set()
        room.apply(event)
        start = start or room.time
        now = room.people[event.student].since
        for key in now.keys() - before:
            one = mistakes.setdefault(key, MistakeTimes(*key, room.time))
            one.people.add(event.student)
            one.most = max(one.most, sum(key in p.since for p in room.people.values()))
            one.last = 0.0
        for key in before - now.keys():
            if not any(key in p.since for p in room.people.values()):
                mistakes[key].last = room.time
    minutes = exercise_minutes(day)
    people = room.people.values()
    times = []
    for name in day.names:
        solved = [p.spent[name] / 60 for p in people if p.state(name) == "passes"]
        begun = sum(p.state(name) != "not_begun" for p in people)
        median = statistics.median(solved) if solved else None
        times.append(ExerciseTime(name, minutes.get(name, 0), median, begun, len(solved)))
    stopped = Counter(filter(None, map(room.current, people)))
    common = sorted(mistakes.values(), key=lambda one: (-len(one.people), one.first))
    return SessionReport(start, room.time, len(people), times, common, stopped.most_common())


def write(day: Day, texts: Sentences, folder: Path) -> Path | None:
    """Write `session.html` to a folder and return its path, or None if the day has no timeline. Raises FileError."""
    found = summarize(day, timeline.read(timeline.timeline_file(day.root, day.name)))
    if not found.people:
        return None
    make_folder(folder)
    file = folder / "session.html"
    page = (
        templates()
        .get_template("session.html")
        .render(it=found, day=day, texts=texts.mistakes, language=day.language)
    )
    write_output(file, page.encode())
    return file
