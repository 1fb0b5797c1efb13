"""Grade attacks, and observe their effects in the marks and outside the sandbox. Entry point: `Lab`."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from rich.console import Console

from autograder.course import config as courses
from autograder.execution.answer_key import AnswerKey
from autograder.feedback import student_page
from autograder.feedback.exercise_feedback import as_text, to_feedback, unattempted_in
from autograder.feedback.sentences import Sentences
from autograder.feedback.sentences import read as read_texts
from autograder.feedback.terminal_table import table
from autograder.grading import exercise_grader
from autograder.grading.grader import Grader
from autograder.marks.class_list import StudentResult
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Server
from autograder.slicing.slicer import NotebookSlices, Slicer, SlicingCourse, prepare
from autograder.submissions.cell import Cell
from autograder.submissions.roster import Entry
from autograder.submissions.submission import Submission
from tests.attacks.outside import Outside
from tests.attacks.suite import CELLS, Attack
from tests.conftest import grade_one
from tests.material import recipient


@dataclass
class Seen:
    """The result of one attack. `after` is the number of points for the next honest submission."""

    points: float
    status: str
    messages: list[str]
    effects: list[str]
    after: float
    seconds: float


class Lab:
    """A grader for a course that contains canaries, plus targets outside the sandbox for attacks to hit."""

    # The longest limit on a call's CPU time, in seconds. With its defence disabled, an attack might never end.
    longest = 60.0

    def __init__(self, outside: Outside, server: Server, trivial: Any) -> None:
        self.outside = outside
        day = courses.load(outside.root).day("day1")
        known = outside.root / ".autograder" / exercise_grader.cache_name(AnswerKey.read(day))
        known.write_text(json.dumps(trivial))
        self.grader = Grader(day, server, outside.secret)
        self.descriptors = 0
        self._day = day
        self._prepared: dict[tuple[Server, str], SlicingCourse] = {}
        self._texts = read_texts(day)
        self.prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text()
        self.finder = (CELLS / "finder.py").read_text()
        outside.seen()  # the grader itself has written its caches

    def grade(self, attack: Attack, not_allowed: bool = True) -> SubmissionMarks:
        """Submit an attack, and grade only the exercise that it targets."""
        self.grader.exercises.day = self._day_for(attack, not_allowed)
        self._prepare("" if not_allowed else attack.exercise)
        return grade_one(self.grader, self._handed_in(attack.source), attack.exercise)

    def _prepare(self, allowing: str = "") -> None:
        """Prepare the server to slice the day's submissions. The exercise named by `allowing` may call any function."""
        key = self.grader.server, allowing
        if key not in self._prepared:
            self._prepared[key] = prepare(self.grader.server, self.grader.day)
        self.grader.slicing_course = self._prepared[key]

    def honest_after(self) -> float:
        """Grade an honest submission that looks for traces of earlier submissions, and return its points.

        Also store the number of open file descriptors in this process.
        """
        self.grader.exercises.day = self._day
        self._prepare()
        marks = grade_one(self.grader, self._handed_in(self.finder), "causal_mask")
        self.descriptors = len(os.listdir("/proc/self/fd"))
        return marks.earned

    def slice(self, source: str) -> tuple[tuple[Cell, ...], NotebookSlices]:
        """Slice a submission without grading it. Return its cells and their slices."""
        self._prepare()
        cells = self._handed_in(source).cells
        with Slicer(self.grader.server, self.grader.slicing_course, cells) as slicer:
            return tuple(cells), slicer.slice_all()

    def _handed_in(self, source: str) -> Submission:
        cells = (Cell(1, "code", self.prelude), Cell(2, "code", source))
        return Submission("submitted.py", "eve", "", cells, (), True)

    def _day_for(self, attack: Attack, not_allowed: bool) -> courses.Day:
        """Return the day with the attack's own time limit, so that an endless attack takes less than five seconds."""
        exercises = []
        for one in self._day.exercises:
            if one.name == attack.exercise:
                seconds = min(attack.seconds, self.longest)
                limits = replace(
                    one.limits,
                    cpu_seconds=seconds,
                    total_cpu_seconds=2.5 * seconds,
                    idle_seconds=30 * seconds,
                )
                one = replace(
                    one, limits=limits, not_allowed=one.not_allowed if not_allowed else ()
                )
            exercises.append(one)
        day = replace(self._day, exercises=tuple(exercises))
        vars(day)["chapters"] = self._day.chapters  # avoids reading the chapters again
        return day

    def observe(
        self, attack: Attack, work: Callable[[], SubmissionMarks], then_honest: bool
    ) -> Seen:
        """Run an attack, grade an honest submission if `then_honest` is true, and return the attack's result and effects."""
        started = time.monotonic()
        marks = work()
        seconds = time.monotonic() - started
        before = self.descriptors
        after = self.honest_after() if then_honest else 3.0
        effects = self.outside.seen()
        if self.descriptors > before:
            effects.append("grows")
        if after < 3:
            effects.append("marker")
        effects += self._shown(attack, marks)
        graded = marks.exercises[0]
        messages = dict.fromkeys(text[:300] for text in texts_of(marks) if text)
        return Seen(graded.points, graded.status, list(messages), effects, after, round(seconds, 3))

    def _shown(self, attack: Attack, marks: SubmissionMarks) -> Iterator[str]:
        """Yield the effects that are visible in the marks."""
        graded = marks.exercises[0]
        if attack.effect == "costs" and graded.points < graded.max_points:
            yield "costs"
        if attack.effect == "marks" and graded.points:
            yield "marks"
        if self.outside.leaks("\n".join(texts_of(marks))):
            yield "leaks"
        if any(acts(text) for text in displayed(marks, self._texts)):
            yield "shows"


def texts_of(marks: SubmissionMarks) -> list[str]:
    """Return all messages in the marks, for both the student and the TA."""
    graded = marks.exercises[0]
    return [*marks.problems, graded.message, *(test.message for test in graded.tests)]


def displayed(marks: SubmissionMarks, texts: Sentences) -> Iterator[str]:
    """Yield every form in which marks are displayed: JSON, the table, the student page and nbgrader's feedback."""
    yield from _texts(msgspec.to_builtins(marks))
    yield from (problem.replace("\n", "\x1b") for problem in marks.problems)  # one line each
    console = Console(file=io.StringIO(), width=200)
    console.print(table([StudentResult(Entry("", marks.label, marks.student), marks)]))
    yield console.file.getvalue()  # type: ignore[attr-defined]
    yield student_page.page(recipient(marks), texts)
    unattempted = unattempted_in(marks.exercises)
    yield from (as_text(to_feedback(one, texts, unattempted)) for one in marks.exercises)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def acts(text: str) -> bool:
    """Return whether a string contains control characters, bidirectional formatting characters or surrogates."""
    return any(not (c.isprintable() or c == "\n") for c in text)
