"""grading.toml → typed values; a file that does not fit is refused with the key, the line and what would be right."""

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
# Keys of earlier versions, which were limits by the clock on the wall.
RENAMED = {"seconds": "cpu_seconds", "total_seconds": "total_cpu_seconds"}
# What students read of a test that did not hold: "values" is its sentence and what was seen, "words" its sentence alone.
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
    """The course's own files do not fit together; one sentence each."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: a function or class of a chapter."""

    name: str
    chapter: str
    points: float
    not_allowed: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, eq=False)
class Day:
    """One assignment: its exercises in order, and the chapters that hold them."""

    root: Path
    name: str
    title: str
    exercises: tuple[Exercise, ...]
    feedback: Feedback = "values"
    late: Policy = NO_POLICY
    budget: Allowance = SUBMISSION  # of one submission, for everything that is run of it

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(exercise.name for exercise in self.exercises)

    @cached_property
    def chapters(self) -> tuple[Chapter, ...]:
        """The chapters in the order of `grading.toml`, read from `solutions/`."""
        order = dict.fromkeys(exercise.chapter for exercise in self.exercises)
        folder = self.root / "solutions" / self.name
        return tuple(chapters.read(folder / f"{name}.py", self.names) for name in order)

    @property
    def graders(self) -> Path:
        """The folder of the hidden graders."""
        return self.root / "graders" / self.name

    @property
    def mistakes(self) -> Path:
        """The folder of the known mistakes."""
        return self.root / "mistakes" / self.name


@dataclass(frozen=True)
class Course:
    """All days of the course, in order."""

    root: Path
    days: Mapping[str, Day]

    def day(self, name: str) -> Day:
        """The day of this name.

        Raises:
            CourseError: there is none.
        """
        if name not in self.days:
            raise CourseError(f"there is no {name!r}; the course has {', '.join(self.days)}")
        return self.days[name]


def find_root(start: Path) -> Path:
    """The folder at or above `start` that holds `grading.toml`.

    Raises:
        CourseError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise CourseError(f"{FILE} is neither in {start} nor above it; run this inside the course")


def load(root: Path) -> Course:
    """Read and check `grading.toml`.

    Raises:
        CourseError: what is wrong, with the key and where possible the line.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path}: not TOML: {error}") from None
    return _Reader(text).course(root, tables)


def fingerprint(day: Day) -> str:
    """A hash of all that decides about marks: the day's exercises in `grading.toml`, its chapters and its hidden files."""
    hidden = [day.graders, day.mistakes]
    files = [chapter.path for chapter in day.chapters]
    files += [file for folder in hidden for file in sorted(folder.glob("*.py"))]
    digest = hashlib.sha256(repr((day.exercises, day.budget)).encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


class _Reader:
    """Reads tables and says where in the text a key stands."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def _wrong(self, table: str, key: str, what: str) -> CourseError:
        line = self._line(table, key)
        where = f"{FILE}, line {line}" if line else FILE
        return CourseError(f"{where}: {table}{'.' if key else ''}{key}: {what}")

    def _line(self, table: str, key: str) -> int:
        inside = False
        header = 0
        for number, line in enumerate(self._lines, 1):
            if line.lstrip().startswith("["):
                inside = line.strip().split("]")[0] == f"[{table}"
                header = number if inside else header
            elif inside and key and re.match(rf"\s*{re.escape(key)}\s*=", line):
                return number
        return header

    def course(self, root: Path, tables: dict[str, Any]) -> Course:
        defaults = tables.pop("defaults", {})
        self._known("defaults", defaults, set(DEFAULTS))
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
            raise CourseError(f"{FILE}: there is no day; begin one with [day1]")
        return Course(root, days)

    def _day(
        self, root: Path, name: str, table: Any, defaults: dict[str, Any], late: dict[str, Any]
    ) -> Day:
        if not isinstance(table, dict):
            raise self._wrong(name, "", f"unknown key; a day is a table, [{name}]")
        self._known(name, table, {"title", "feedback", "late", "exercises"})
        title = self._typed(name, table, "title", str, "a text")
        exercises = self._typed(name, table, "exercises", dict, "a table")
        listed = tuple(self._exercise(name, e, t, defaults) for e, t in exercises.items())
        total = sum(exercise.points for exercise in listed)
        if abs(total - POINTS_A_DAY) > 1e-9:
            raise self._wrong(
                name, "", f"the points add up to {total:g}; they should be {POINTS_A_DAY}"
            )
        feedback = table.get("feedback", "values")
        if feedback not in get_args(Feedback):
            raise self._wrong(name, "feedback", f'{feedback!r} should be "values" or "words"')
        return Day(
            root,
            name,
            title,
            listed,
            feedback,
            self._late(f"{name}.late", table.get("late", {}), late),
        )

    def _late(self, where: str, table: Any, course: Mapping[str, Any] | None = None) -> Policy:
        self._known(where, table, {field.name for field in fields(Policy)})
        values = {}
        for key in table:
            if key == "due":
                values[key] = self._typed(where, table, key, datetime, "a date and time")
                if values[key].tzinfo is None:
                    raise self._wrong(where, key, "needs its offset from UTC, such as +01:00")
                continue
            values[key] = float(self._typed(where, table, key, (int, float), "a number"))
            if not 0 <= values[key] <= (100 if "per_cent" in key else 100_000):
                raise self._wrong(where, key, f"{values[key]:g} is too little or too much")
        return Policy(**{**(course or {}), **values})

    def _exercise(self, day: str, name: str, table: Any, defaults: dict[str, Any]) -> Exercise:
        where = f"{day}.exercises.{name}"
        if not isinstance(table, dict) or not name.isidentifier():
            raise self._wrong(where, "", "an exercise is a table named like its function or class")
        self._known(where, table, EXERCISE_KEYS)
        points = self._typed(where, table, "points", (int, float), "a number")
        if not points > 0:
            raise self._wrong(where, "points", f"{points} is not more than 0")
        names = table.get("not_allowed", [])
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise self._wrong(where, "not_allowed", "should be a list of names in quotes")
        for unknown in set(names) - set(MEANING):
            known = ", ".join(sorted(MEANING))
            raise self._wrong(
                where, "not_allowed", f"{unknown!r} has no meaning; known are {known}"
            )
        chapter = self._typed(where, table, "chapter", str, "a chapter's name in quotes")
        limits = self._limits(where, {**defaults, **table})
        return Exercise(name, chapter, float(points), tuple(names), limits)

    def _limits(self, where: str, table: dict[str, Any]) -> Limits:
        seconds, total = (
            self._seconds(where, table, key) for key in ("cpu_seconds", "total_cpu_seconds")
        )
        return Limits(seconds, total, self._size(where, table, "memory"))

    def _seconds(self, where: str, table: dict[str, Any], key: str) -> float:
        value = float(self._typed(where, table, key, (int, float), "a number of seconds"))
        if not 0 < value < 86400:
            raise self._wrong(where, key, f"{value:g} seconds is not between 0 and a day")
        return value

    def _size(self, where: str, table: dict[str, Any], key: str) -> int:
        text = self._typed(where, table, key, str, 'a size such as "2 GB"')
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB)", text)
        if not match:
            raise self._wrong(where, key, f'{text!r} should be a size such as "2 GB" or "64 kB"')
        return int(float(match[1]) * UNITS[match[2]])

    def _typed(self, where: str, table: dict[str, Any], key: str, kind: Any, words: str) -> Any:
        if key not in table:
            raise self._wrong(where, "", f"{key} is missing; it should be {words}")
        value = table[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(where, key, f"{value!r} should be {words}")
        return value

    def _known(self, where: str, table: Any, known: set[str]) -> None:
        if not isinstance(table, dict):
            raise self._wrong(where, "", "should be a table")
        for key in table:
            if key in RENAMED and RENAMED[key] in known:
                new = f"{key} is now {RENAMED[key]}, in seconds of processor time"
                raise self._wrong(where, key, new)
            if key not in known:
                raise self._wrong(where, key, f"unknown key; known are {', '.join(sorted(known))}")
