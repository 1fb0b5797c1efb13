"""Grade notebooks as students save them. Entry point: `Board`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.course.files import FileError
from autograder.grading import internal_errors
from autograder.grading.class_run import Executor
from autograder.live.room import Room, progress
from autograder.live.timeline import Timeline
from autograder.live.watching import StudentFile, Watcher
from autograder.marks.model import SubmissionMarks
from autograder.plain_text import counted
from autograder.protocol.limits import Allowance, Budget
from autograder.submissions.reader_client import Reader, StudentBudget
from autograder.submissions.roster import Roster
from autograder.submissions.submission import Submission, choose_for_day, exercises_by_day, seed_of

# The limits on one student's file while others wait. `grade` allows far more.
CODE = Allowance(cpu_seconds=20, idle_seconds=5)
READING = Allowance(cpu_seconds=3, idle_seconds=9)
SLOW = 3.0  # seconds; of the files that took longer, at least one process grades none
REST = 4  # a file is graded again only after this many times the last duration, but
LONGEST_REST = 60.0  # after at most so many seconds
AHEAD = 2  # files per process that are read before they can be graded
NAMED = 3  # unreadable paths that a message names


@dataclass(eq=False)
class Student:
    """What the board knows about a student's file. Times are in seconds of a clock that never jumps."""

    label: str = ""
    code: str = ""  # a hash of the code that was graded last
    marks: SubmissionMarks | None = None
    problem: str = ""
    started: float = 0.0
    seconds: float = 0.0  # how long the last grading took


def _hash(sources: Sequence[str]) -> str:
    """Return a hash of code cells. Unlike that of `hash_code`, it depends on their order and indentation."""
    return hashlib.sha256(repr(sources).encode("utf-8", "surrogatepass")).hexdigest()


class Board:
    """Grades the files that a watcher finds. Marks are never stored, and a file that cannot be read keeps its last state."""

    def __init__(
        self,
        day: Day,
        roster: Roster,
        secret: bytes,
        watcher: Watcher,
        reader: Reader,
        executor: Executor,
        timeline: Timeline,
        warn: Callable[[str], None],
    ) -> None:
        self._day, self._roster, self._seed = day, roster, seed_of(day.name, secret)
        self._watcher, self._reader, self._executor = watcher, reader, executor
        self._timeline, self._warn = timeline, warn
        self._exercises: Mapping[str, Collection[str]] = exercises_by_day(day)
        self.students: dict[str, Student] = {}
        self._running: dict[asyncio.Future[None], Student] = {}
        self._warned: set[str] = set()
        self.changed = asyncio.Event()  # set, and replaced, when the pages change
        self.room = Room(day)
        for event in timeline.earlier:
            self.room.apply(event)
        self._offset = max(time.time(), self.room.time) - time.monotonic()

    def now(self) -> float:
        """Return the time since 1970, without the jumps of the machine's clock, and never before the last event."""
        return self._offset + time.monotonic()

    async def run(self, every: float) -> None:
        """Grade until cancelled. Look for new files every so many seconds, and every second while some change."""
        while True:
            await self.step()
            is_busy = self._watcher.is_settling or self._running
            await asyncio.sleep(min(every, 1.0) if is_busy else every)

    async def step(self) -> None:
        """Start to grade what has changed. Slow files come last."""
        ready = await asyncio.to_thread(self._watcher.poll, time.monotonic())
        self._warn_about_paths()
        if not (self._watcher.is_settling or self._watcher.problems or self.students):
            self._warn_once("no notebook was found yet. The board waits until one is saved")
        for found in sorted(ready, key=lambda found: self._student(found.key).seconds):
            if self._may_start(self._student(found.key)):
                await self._start(found)

    async def finish(self) -> None:
        """Wait until everything that was started is graded."""
        while self._running:
            await asyncio.wait([*self._running])

    def _student(self, key: str) -> Student:
        return self.students.setdefault(key, Student())

    def _may_start(self, student: Student) -> bool:
        """Return whether a student's file may be graded now. Slow files wait for fast ones."""
        running = self._running.values()
        if len(running) >= AHEAD * self._executor.jobs or student in running:
            return False
        if time.monotonic() < student.started + min(REST * student.seconds, LONGEST_REST):
            return False
        slow = sum(other.seconds > SLOW for other in running)
        return student.seconds <= SLOW or slow < max(1, self._executor.jobs - 1)

    async def _start(self, found: StudentFile) -> None:
        """Read a file, and grade it if its code has changed."""
        student = self._student(found.key)
        student.started = time.monotonic()
        self._watcher.take(found)
        submission = await asyncio.to_thread(self._read, found)
        student.seconds = time.monotonic() - student.started
        student.label = ", ".join(submission.labels)
        code = [cell.source for cell in submission.cells if cell.kind == "code"]
        if not submission.readable:
            self._show_problem(student, "; ".join(submission.problems))
        elif (digest := _hash(code)) == student.code:
            self._show_problem(student, "")
        else:
            student.code = digest
            marks = self._executor.submit(submission, self._seed, is_alone=True)
            task = asyncio.ensure_future(self._receive(found.key, asyncio.wrap_future(marks)))
            self._running[task] = student
            task.add_done_callback(self._running.pop)

    def _show_problem(self, student: Student, problem: str) -> None:
        if student.problem != problem:
            student.problem = problem
            self.notify()

    def notify(self) -> None:
        """Wake those who wait until the pages change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _read(self, found: StudentFile) -> Submission:
        with self._reader.borrow() as reader:
            budget = StudentBudget(Budget(READING, "submission"))
            read = found.path.read([found.file], reader, budget)
        return choose_for_day(read, self._day, self._exercises, self._roster)

    async def _receive(self, key: str, future: asyncio.Future[SubmissionMarks]) -> None:
        """Wait for a file's marks. If they cannot be computed, the student's state does not change."""
        student = self._student(key)
        try:
            marks = await future
        except Exception as error:
            student.code = ""  # so that saving the file grades it again
            activity = f"grading the file of {student.label}"
            self._show_problem(student, internal_errors.log(self._day.root, activity, error))
            return
        student.seconds += marks.seconds
        self._show_problem(student, "" if marks.exercises else "; ".join(marks.problems))
        student.marks = marks if marks.exercises else student.marks
        event = self.room.event(self.now(), key, progress(marks))
        if event is None or not marks.exercises:
            return
        self.room.apply(event)
        self.notify()
        try:
            self._timeline.append(event)
        except FileError as error:
            self._warn_once(f"{error}. The board goes on, and writes what is missing later")

    def _warn_about_paths(self) -> None:
        problems = self._watcher.problems
        if new := problems.keys() - self._warned:
            self._warned |= new
            first = "; ".join(f"{path}: {problems[path]}" for path in sorted(problems)[:NAMED])
            more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            self._warn(f"{counted(len(problems), 'path')} cannot be read: {first}{more}")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self._warn(message)
