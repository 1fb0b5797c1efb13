"""Run a board without a browser, a clock or student code, for the tests of `autograder live`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.feedback import sentences
from autograder.grading.class_run import Executor
from autograder.live.board import Board
from autograder.live.pages import Pages
from autograder.live.room import Room, progress
from autograder.live.timeline import Timeline
from autograder.live.watching import Watcher
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.submissions.reader_messages import Statement
from autograder.submissions.roster import NO_ROSTER
from tests.conftest import reader
from tests.fake_grading import FakePool

MINUTE = 60.0
START_CODE = """def padding_mask(x):
    '''Written by Ada.'''
    # Lovelace
    y = "secret" + f"secret {x}"
    return x + 1
"""


def marks(
    day: Day, *states: str, mistake: str | None = None, code: str = "x = 1", message: str = ""
) -> SubmissionMarks:
    """Return marks with these statuses. Exercises that are not correct have the mistake and the code."""
    exercises = []
    for exercise, status in zip(day.exercises, states, strict=True):
        is_wrong = status in ("failed", "partial", "timed_out")
        text: Any = status
        exercises.append(
            ExerciseMarks(
                exercise.name, exercise.points if status == "passed" else 0.0, exercise.points,
                text, message if is_wrong else "", mistake if is_wrong else None, [], 0.0, [],
                statements=[Statement(code, 1, 1)] if is_wrong else [],
            )
        )  # fmt: skip
    return SubmissionMarks("p", "ada", "0", "1", "c", [], 0.0, 100.0, 0.0, [], exercises)


def update(room: Room, time: float, student: str, found: SubmissionMarks) -> None:
    """Let a student save a file with these marks."""
    if event := room.event(time, student, progress(found)):
        room.apply(event)


class FakeRoom:
    """A board for the small course, whose students save into `homes/STUDENT/day1/`, and its pages."""

    def __init__(self, root: Path, timeline: Timeline, executor: Executor | None = None) -> None:
        self.day = courses.load(root).day("day1")
        self.homes = root.parent / "homes"
        self.homes.mkdir(exist_ok=True)
        self.pool = FakePool(self.day)
        self.warnings: list[str] = []
        pattern = f"{self.homes}/*/day1/day1.ipynb"
        self.watcher = Watcher([pattern], self.day, reader())
        self.board = Board(
            self.day, NO_ROSTER, b"secret", self.watcher, reader(), executor or self.pool,
            timeline, self.warnings.append,
        )  # fmt: skip
        self.pages = Pages(self.day, sentences.read(self.day), self.board)

    def save(self, student: str, data: bytes) -> Path:
        """Save a student's notebook."""
        file = self.homes / student / "day1" / "day1.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    async def step(self) -> None:
        """Notice and grade what was saved."""
        await self.board.step()
        await self.board.finish()

    def grade(self) -> dict[str, list[str]]:
        """Grade what was saved, and return each student's states."""
        asyncio.run(self.step())
        people = self.board.room.people
        return {key: [p.state(name) for name in self.day.names] for key, p in people.items()}
