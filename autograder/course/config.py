"""Read `grading.toml` into typed values, and report each error with its line, its key and the expected value.

Entry points: `find_root`, `load`, `fingerprint`; `Course`, `Day` and `Exercise`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from autograder.course import chapters
from autograder.course.chapters import Chapter
from autograder.course.forbidden import MEANING
from autograder.course.late_policy import NO_POLICY, Policy
from autograder.protocol.limits import Allowance, Limits

FILE = "grading.toml"
POINTS_A_DAY = 100
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
LIMIT_KEYS = {"cpu_seconds", "total_cpu_seconds", "memory"}
EXERCISE_KEYS = {"chapter", "points", "not_allowed", *LIMIT_KEYS}
SUBMISSION_KEYS = ("submission_cpu_seconds", "submission_idle_seconds")
# Earlier versions used these keys to limit wall-clock time.
RENAMED = {"seconds": "cpu_seconds", "total_seconds": "total_cpu_seconds"}
REMOVED = {"output"}
# For a failed test, students see the test's description and the observed values ("values"), or only the description ("words").
Feedback = Literal["values", "words"]
SUBMISSION = Allowance(cpu_seconds=300, idle_seconds=500)
DEFAULTS = {
    "cpu_seconds": 5,
    "total_cpu_seconds": 30,
    "memory": "2 GB",
    "submission_cpu_seconds": SUBMISSION.cpu_seconds,
    "submission_idle_seconds": SUBMISSION.idle_seconds,
}


class CourseError(Exception):
    """Raised when the course's own files are invalid. The message is one line."""


@dataclass(frozen=True)
class Exercise:
    """An exercise: a function or class in a chapter."""

    name: str
    chapter: str
    points: float
    not_allowed: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, eq=False)
class Day:
    """An assignment: its exercises in order, and the folders that contain its files."""

    root: Path
    name: str
    title: str
    exercises: tuple[Exercise, ...]
    feedback: Feedback = "values"
    late: Policy = NO_POLICY
    budget: Allowance = SUBMISSION  # limits on all code that is run to grade one submission

    @property
    def points(self) -> float:
        """Return the total points of all exercises."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the exercises."""
        return tuple(exercise.name for exercise in self.exercises)

    @cached_property
    def chapters(self) -> tuple[Chapter, ...]:
        """Read the chapters from `solutions/`, in the order of `grading.toml`."""
        order = dict.fromkeys(exercise.chapter for exercise in self.exercises)
        folder = self.root / "solutions" / self.name
        return tuple(chapters.read(folder / f"{name}.py", self.names) for name in order)

    @property
    def graders(self) -> Path:
        """Return the folder of the hidden graders."""
        return self.root / "graders" / self.name

    @property
    def mistakes(self) -> Path:
        """Return the folder of the known mistakes."""
        return self.root / "mistakes" / self.name


@dataclass(frozen=True)
class Course:
    """A course: its folder and its days, in order."""

    root: Path
    days: Mapping[str, Day]

    def day(self, name: str) -> Day:
        """Return the day with this name.

        Raises:
            CourseError: There is no such day.
        """
        if name not in self.days:
            raise CourseError(f"there is no day {name!r}; the course has {', '.join(self.days)}")
        return self.days[name]


def find_root(start: Path) -> Path:
    """Return the folder that contains `grading.toml`: either `start` or its nearest parent folder that has the file.

    Raises:
        CourseError: There is no such folder.
    """
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise CourseError(
        f"{FILE} was not found in {start} or its parents. Run the command in the course's folder."
    )


def load(root: Path) -> Course:
    """Read and check `grading.toml`.

    Raises:
        CourseError: The file cannot be read or is invalid. The message names the key and, if possible, the line.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path} is not valid TOML: {error}") from None
    return _Reader(text).course(root, tables)


def fingerprint(day: Day) -> str:
    """Return a hash of everything in the course that affects the marks of a day.

    The hash covers the day's exercises and budget in `grading.toml`, its chapters, its graders and its known mistakes.
    Raises CourseError if the day has no grader or a file cannot be read.
    """
    graders = sorted(day.graders.glob("*.py"))
    if not graders:
        raise CourseError(f"{day.graders} contains no grader")
    mistakes = [day.mistakes / f"{name}.md" for name in day.names]
    mistakes = [file for file in mistakes if file.exists()]
    digest = hashlib.sha256(repr((day.exercises, day.budget)).encode())
    try:
        for file in (*(chapter.path for chapter in day.chapters), *graders, *mistakes):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    except OSError as error:
        raise CourseError(f"{error.filename} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


class _Reader:
    """Reads the tables of `grading.toml`. Keeps the file's text so that error messages can include line numbers."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def course(self, root: Path, tables: dict[str, Any]) -> Course:
        defaults = tables.pop("defaults", {})
        self._check_keys("defaults", defaults, set(DEFAULTS))
        defaults = {**DEFAULTS, **defaults}
        self._limits("defaults", defaults)
        budget = Allowance(*(self._seconds("defaults", defaults, key) for key in SUBMISSION_KEYS))
        late = tables.pop("late", {})
        self._late("late", late)
        days = {
            name: replace(self._day(root, name, table, defaults, late), budget=budget)
            for name, table in tables.items()
        }
        if not days:
            raise CourseError(f"{FILE} defines no days. Add one, such as [day1].")
        return Course(root, days)

    def _day(
        self, root: Path, name: str, table: Any, defaults: dict[str, Any], late: dict[str, Any]
    ) -> Day:
        if not isinstance(table, dict):
            raise self._error(name, "", f"unknown key. To define a day, add a table: [{name}]")
        self._check_keys(name, table, {"title", "feedback", "late", "exercises"})
        title = self._value(name, table, "title", str, "a string")
        exercises = self._value(name, table, "exercises", dict, "a table")
        listed = tuple(self._exercise(name, e, t, defaults) for e, t in exercises.items())
        total = sum(exercise.points for exercise in listed)
        if abs(total - POINTS_A_DAY) > 1e-9:
            raise self._error(name, "", f"the points add up to {total:g} instead of {POINTS_A_DAY}")
        feedback = table.get("feedback", "values")
        if feedback not in get_args(Feedback):
            raise self._error(name, "feedback", f'{feedback!r} should be "values" or "words"')
        policy = self._late(f"{name}.late", table.get("late", {}), late)
        return Day(root, name, title, listed, feedback, policy)

    def _late(self, where: str, table: Any, course: Mapping[str, Any] | None = None) -> Policy:
        """Read a late policy. Missing keys default to the course's policy."""
        self._check_keys(where, table, {field.name for field in fields(Policy)})
        values: dict[str, Any] = {}
        for key in table:
            if key == "due":
                due = self._value(where, table, key, datetime, "a date and time")
                if due.tzinfo is None:
                    raise self._error(where, key, "needs a UTC offset, such as +01:00")
                values[key] = due
            else:
                number = float(self._value(where, table, key, (int, float), "a number"))
                most = 100 if "per_cent" in key else 100_000
                if not 0 <= number <= most:
                    raise self._error(where, key, f"{number:g} is not between 0 and {most}")
                values[key] = number
        return Policy(**{**(course or {}), **values})

    def _exercise(self, day: str, name: str, table: Any, defaults: dict[str, Any]) -> Exercise:
        where = f"{day}.exercises.{name}"
        if not isinstance(table, dict) or not name.isidentifier():
            raise self._error(where, "", "should be a table named after a function or class")
        self._check_keys(where, table, EXERCISE_KEYS)
        points = self._value(where, table, "points", (int, float), "a number")
        if not points > 0:
            raise self._error(where, "points", f"{points} is not greater than 0")
        names = table.get("not_allowed", [])
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise self._error(where, "not_allowed", "should be a list of names in quotes")
        for unknown in set(names) - set(MEANING):
            known = ", ".join(sorted(MEANING))
            raise self._error(where, "not_allowed", f"unknown name {unknown!r}; known: {known}")
        chapter = self._value(where, table, "chapter", str, "the name of a chapter, in quotes")
        limits = self._limits(where, {**defaults, **table})
        return Exercise(name, chapter, float(points), tuple(names), limits)

    def _limits(self, where: str, table: dict[str, Any]) -> Limits:
        seconds = self._seconds(where, table, "cpu_seconds")
        total = self._seconds(where, table, "total_cpu_seconds")
        return Limits(seconds, total, self._size(where, table, "memory"))

    # ---- single values

    def _seconds(self, where: str, table: dict[str, Any], key: str) -> float:
        value = float(self._value(where, table, key, (int, float), "a number of seconds"))
        if not 0 < value < 86400:
            raise self._error(where, key, f"{value:g} seconds is outside the range 0 to 86,400")
        return value

    def _size(self, where: str, table: dict[str, Any], key: str) -> int:
        text = self._value(where, table, key, str, 'a size such as "2 GB"')
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB)", text)
        if not match:
            raise self._error(where, key, f'{text!r} should be a size such as "2 GB" or "64 kB"')
        return int(float(match[1]) * UNITS[match[2]])

    def _value(self, where: str, table: dict[str, Any], key: str, kind: Any, expected: str) -> Any:
        if key not in table:
            raise self._error(where, "", f"{key} is missing; it should be {expected}")
        value = table[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._error(where, key, f"{value!r} should be {expected}")
        return value

    def _check_keys(self, where: str, table: Any, known: set[str]) -> None:
        if not isinstance(table, dict):
            raise self._error(where, "", "should be a table")
        for key in table:
            if key in RENAMED and RENAMED[key] in known:
                new = f"{key} is now {RENAMED[key]}, in seconds of CPU time"
                raise self._error(where, key, new)
            if key in REMOVED:
                raise self._error(where, key, "this limit no longer exists. Delete the line.")
            if key not in known:
                raise self._error(where, key, f"unknown key; known: {', '.join(sorted(known))}")

    # ---- errors

    def _error(self, table: str, key: str, problem: str) -> CourseError:
        where = f"{FILE}, line {line}" if (line := self._line(table, key)) else FILE
        return CourseError(f"{where}: {table}{'.' if key else ''}{key}: {problem}")

    def _line(self, table: str, key: str) -> int:
        """Return the line number of a key, or of the table's header if the key is not found. Return 0 if neither is found."""
        in_table, header = False, 0
        for number, line in enumerate(self._lines, 1):
            if line.lstrip().startswith("["):
                in_table = line.strip().split("]")[0] == f"[{table}"
                header = number if in_table else header
            elif in_table and key and re.match(rf"\s*{re.escape(key)}\s*=", line):
                return number
        return header
