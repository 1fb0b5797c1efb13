"""Parse `grading.toml` into `Course`, `Day` and `Exercise` objects.

Entry points: `find_root`, `load` and `check_day`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from autograder.course import chapters, forbidden
from autograder.course.chapters import Chapter
from autograder.course.files import GRADING_TOML, CourseError, read_text
from autograder.course.forbidden import BUILT_IN_ENTRIES, ForbiddenNames, Names
from autograder.course.late_policy import Policy
from autograder.plain_text import format_number
from autograder.protocol.limits import Allowance, Limits

__all__ = [
    "GRADING_TOML",
    "Course",
    "CourseError",
    "Day",
    "Exercise",
    "check_day",
    "find_root",
    "load",
]

S = TypeVar("S", bound=msgspec.Struct)
MAX_POINTS = 100_000
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
# When a test fails, students see its description and the observed values ("values"), or only its description ("words").
Feedback = Literal["values", "words"]
Include = Literal["all", "core"]  # which exercises students fill in
SUBMISSION = Allowance(cpu_seconds=300.0, idle_seconds=60.0)


@dataclass(frozen=True)
class Exercise:
    """An exercise: a function or class in a chapter.

    `points` is the exercise's share of the day's total. Points for an optional exercise do not count towards the total.
    """

    name: str
    chapter: str
    points: float
    not_allowed: tuple[str, ...]
    limits: Limits
    optional: bool = False
    # `fingerprint` hashes the repr, which omits these flags because they do not affect marks.
    core: bool = field(default=False, repr=False)
    given: bool = field(default=False, repr=False)
    detects: str = ""  # the exercise whose known mistakes a test by the student should notice
    # Maps the course's own `not_allowed` entries to what they forbid.
    own_entries: Mapping[str, ForbiddenNames] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def forbidden(self) -> ForbiddenNames:
        """Return everything that the exercise forbids."""
        return forbidden.union(self.not_allowed, self.own_entries)

    @property
    def credit(self) -> float:
        """Return the exercise's points, or 0 if the exercise is optional."""
        return 0.0 if self.optional else self.points

    @property
    def label(self) -> str:
        """Return the name to show in tables."""
        return f"{self.name} (optional)" if self.optional else self.name


@dataclass(frozen=True, eq=False)
class Day:
    """An assignment: its exercises, in order, and the folders that contain its files.

    `exercises` contains the exercises that students fill in, and `unassigned` contains the others. The notebook includes the
    reference solution to an unassigned exercise if something uses it. Otherwise, it omits the exercise.
    """

    root: Path
    name: str
    title: str
    exercises: tuple[Exercise, ...]
    feedback: Feedback = "values"
    late: Policy = field(default_factory=Policy)
    budget: Allowance = SUBMISSION  # limits on all code run for one submission
    language: str = "en"  # language of the chapters, as in HTML's `lang`
    assistants: str = ""  # how students may use AI assistants and other help
    unassigned: tuple[Exercise, ...] = ()
    chapter_order: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """Return the total points for all exercises that are not optional."""
        return float(sum(_exact(exercise.credit) for exercise in self.exercises))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of exercises that students fill in."""
        return tuple(exercise.name for exercise in self.exercises)

    def check_exercise(self, name: str) -> None:
        """Raise CourseError if none of the exercises that students fill in has this name."""
        if name not in self.names:
            raise CourseError(
                f"{self.name} has no exercise {name!r}; it has {', '.join(self.names)}"
            )

    @cached_property
    def chapters(self) -> tuple[Chapter, ...]:
        """Read the chapters in `grading.toml` order, and keep only the content that students get."""
        folder = self.root / "solutions" / self.name
        names = [exercise.name for exercise in (*self.exercises, *self.unassigned)]
        whole = [chapters.read(folder / f"{name}.py", names) for name in self.chapter_order]
        others = {exercise.name: exercise.given for exercise in self.unassigned}
        return chapters.select(whole, self.names, others)

    @property
    def release(self) -> Path:
        """Return the path of the students' notebook, which exists once the day has been built."""
        return self.root / "assignments" / self.name / f"{self.name}.ipynb"

    @property
    def stand_ins(self) -> Path:
        """Return the path of the code that checks use in place of unfinished exercises. Some days have no such file."""
        return self.root / "solutions" / self.name / "stand_ins.py"

    @property
    def graders(self) -> Path:
        """Return the folder that contains the hidden graders."""
        return self.root / "graders" / self.name

    @property
    def styles(self) -> list[Path]:
        """Return the files with other correct answers, of which a day may have none."""
        return sorted((self.root / "tests" / "styles" / self.name).glob("*.py"))

    @property
    def mistakes(self) -> Path:
        """Return the folder that contains the known mistakes."""
        return self.root / "mistakes" / self.name


@dataclass(frozen=True)
class Course:
    """A course: its folder and its days, in order."""

    root: Path
    days: Mapping[str, Day]

    def day(self, name: str) -> Day:
        """Return the day with this name. Raises CourseError if there is none."""
        if name not in self.days:
            raise CourseError(f"there is no day {name!r}; the course has {', '.join(self.days)}")
        return self.days[name]


def find_root(start: Path) -> Path:
    """Return the folder that contains `grading.toml`: `start` or one of its parents.

    Raises:
        CourseError: None of these folders contains `grading.toml`, or several do. If several do, the innermost may be a
            student's folder, whose graders would run without a sandbox.
    """
    found = [folder for folder in (start, *start.parents) if (folder / GRADING_TOML).is_file()]
    if not found:
        raise CourseError(
            f"{GRADING_TOML} was not found in {start} or its parents. Run the command in the course folder."
        )
    if len(found) > 1:
        raise CourseError(
            f"{found[0]} and {found[1]} both contain {GRADING_TOML}. If the first one is a student's folder, "
            "run the command in the course folder. Otherwise, move one course out of the other."
        )
    return found[0]


def load(root: Path) -> Course:
    """Read and check `grading.toml`.

    Raises:
        CourseError: The file cannot be read or is invalid. The message names the key and, if possible, the line.
    """
    path = root / GRADING_TOML
    text = read_text(path).removeprefix("\ufeff")  # Windows editors add this byte order mark
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path} is not valid TOML: {error}") from None
    return _Reader(text).course(root, tables)


# ---- grading.toml
# An error message about an invalid value contains the `description` of the values that are valid.


_Seconds = Annotated[
    float, Meta(gt=0, lt=86400, description="a number of seconds between 0 and 86,400")
]
_Flag = Annotated[bool, Meta(description="true or false")]
_Table = Annotated[dict[str, Any], Meta(description="a table")]
_POSITIVE = f"a number greater than 0 and at most {MAX_POINTS:,}"
_SIZE = r"\A(\d+(?:\.\d+)?) ?(B|kB|MB|GB)\Z"
_LANGUAGE = r"\A[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*\Z"  # matches the most common BCP 47 tags


class LimitKeys(msgspec.Struct, kw_only=True):
    cpu_seconds: _Seconds = 5.0
    total_cpu_seconds: _Seconds = 30.0
    idle_seconds: _Seconds = 30.0
    memory: Annotated[str, Meta(pattern=_SIZE, description='a size such as "2 GB"')] = "2 GB"

    @property
    def limits(self) -> Limits:
        ((number, unit),) = re.findall(_SIZE, self.memory)
        memory = int(float(number) * UNITS[unit])
        return Limits(self.cpu_seconds, self.total_cpu_seconds, memory, self.idle_seconds)


class DefaultKeys(LimitKeys, kw_only=True):
    submission_cpu_seconds: _Seconds = SUBMISSION.cpu_seconds
    submission_idle_seconds: _Seconds = SUBMISSION.idle_seconds


_ASSISTANTS = "Discuss ideas freely, also with AI assistants. Write the stubs yourself, and be ready to explain them."


class CourseKeys(msgspec.Struct):
    language: Annotated[
        str, Meta(pattern=_LANGUAGE, description='a language tag such as "de" or "zh-Hans"')
    ] = "en"
    assistants: Annotated[str, Meta(description="a text")] = _ASSISTANTS


class DayKeys(msgspec.Struct, kw_only=True):
    title: Annotated[str, Meta(description="a string")]
    exercises: _Table
    total_points: Annotated[
        float, Meta(gt=0, le=MAX_POINTS, description=f"{_POSITIVE}, with at most two decimals")
    ] = 100.0
    include: Annotated[Include, Meta(description='"all" or "core"')] = "all"
    feedback: Annotated[Feedback, Meta(description='"values" or "words"')] = "values"
    late: _Table = {}


class ExerciseKeys(LimitKeys, kw_only=True):
    chapter: Annotated[str, Meta(description="a chapter name, in quotes")]
    points: Annotated[float, Meta(gt=0, le=MAX_POINTS, description=_POSITIVE)]
    core: _Flag = False
    optional: _Flag = False
    given: _Flag = False
    detects: Annotated[str, Meta(description="the name of an exercise, in quotes")] = ""
    not_allowed: Names = ()


class _Reader:
    """Reads the course from the text of `grading.toml`. Error messages name the line, the key and the valid values."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def course(self, root: Path, tables: dict[str, Any]) -> Course:
        table = tables.pop("defaults", {})
        defaults = self._convert("defaults", table, DefaultKeys)
        self._limits = {key: table[key] for key in table if not key.startswith("submission_")}
        self._budget = Allowance(defaults.submission_cpu_seconds, defaults.submission_idle_seconds)
        self._course = self._convert("course", tables.pop("course", {}), CourseKeys)
        self._late = tables.pop("late", {})
        self._convert("late", self._late, Policy)
        own = self._check_table("not_allowed", tables.pop("not_allowed", {}))
        self._own_entries = {
            name: self._convert(f"not_allowed.{name}", own[name], ForbiddenNames, {"names": [name]})
            for name in own
        }
        days = {name: self._day(root, name, table) for name, table in tables.items()}
        if not days:
            raise CourseError(f"{GRADING_TOML} defines no days. Add one, such as [day1].")
        return Course(root, days)

    def _day(self, root: Path, name: str, table: Any) -> Day:
        self._check_table(name, table, f"unknown key. To define a day, add a table: [{name}]")
        keys = self._convert(name, table, DayKeys)
        if _exact(keys.total_points) * 100 % 1:
            raise self._invalid(name, table, "total_points", DayKeys)
        listed = [self._exercise(name, e, t) for e, t in keys.exercises.items()]
        assigned = [e for e in listed if not e.given and (e.core or keys.include == "all")]
        if all(exercise.optional for exercise in assigned):
            key = "include" if keys.include == "core" else ""
            raise self._error(name, key, "no exercise counts towards the total")
        for exercise in assigned:
            others = [other.name for other in assigned if not other.detects]
            if exercise.detects and exercise.detects not in others:
                where = f"{name}.exercises.{exercise.name}"
                problem = f"{exercise.detects!r} should be an exercise that students write on the same day"
                raise self._error(where, "detects", problem)
        return Day(
            root,
            name,
            keys.title,
            self._with_points(name, keys.total_points, assigned),
            keys.feedback,
            self._late_policy(f"{name}.late", keys.late),
            self._budget,
            self._course.language,
            self._course.assistants,
            unassigned=tuple(exercise for exercise in listed if exercise not in assigned),
            chapter_order=tuple(dict.fromkeys(exercise.chapter for exercise in listed)),
        )

    def _late_policy(self, where: str, table: dict[str, Any]) -> Policy:
        policy = self._convert(where, table, Policy, self._late)
        if policy.due and "percent_per_day" not in {**self._late, **table}:
            problem = "percent_per_day is missing, so lateness would cost nothing. If that is intended, set it to 0."
            raise self._error(where, "", problem)
        return policy

    def _with_points(
        self, day: str, total: float, assigned: Sequence[Exercise]
    ) -> tuple[Exercise, ...]:
        """Convert weights to points. The last required exercise gets the remainder, so the points add up to the total."""
        required = [exercise for exercise in assigned if not exercise.optional]
        scale = _exact(total) / sum(_exact(exercise.points) for exercise in required)
        points = {e.name: round(scale * _exact(e.points), 2) for e in assigned}
        points[required[-1].name] += _exact(total) - sum(points[e.name] for e in required)
        for exercise in assigned:
            if points[exercise.name] <= 0:
                problem = f"{format_number(exercise.points)} is too small: the exercise would be worth less than 0.01 points"
                raise self._error(f"{day}.exercises.{exercise.name}", "points", problem)
        return tuple(replace(e, points=float(points[e.name])) for e in assigned)

    def _exercise(self, day: str, name: str, table: Any) -> Exercise:
        where = f"{day}.exercises.{name}"
        problem = "should be a table named after a function or class"
        self._check_table(where, table if name.isidentifier() else None, problem)
        keys = self._convert(where, table, ExerciseKeys, self._limits)
        for entry in keys.not_allowed:
            if entry not in BUILT_IN_ENTRIES and entry not in self._own_entries:
                known = ", ".join(sorted(BUILT_IN_ENTRIES))
                problem = f"unknown name {entry!r}. To define it, add [not_allowed.{entry}]. Known names: {known}"
                raise self._error(where, "not_allowed", problem)
        return Exercise(
            name,
            keys.chapter,
            keys.points,
            keys.not_allowed,
            keys.limits,
            optional=keys.optional,
            core=keys.core,
            given=keys.given,
            detects=keys.detects,
            own_entries=self._own_entries,
        )

    def _check_table(
        self, where: str, table: Any, problem: str = "should be a table"
    ) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise self._error(where, "", problem)
        return table

    def _convert(
        self, where: str, table: Any, kind: type[S], defaults: Mapping[str, Any] = {}
    ) -> S:
        values = {**defaults, **self._check_table(where, table)}
        known = kind.__struct_fields__
        for key in values:
            if key not in known:
                problem = f"unknown key; the known keys are {', '.join(sorted(known))}"
                raise self._error(where, key, problem)
        try:
            return msgspec.convert(values, kind, builtin_types=(datetime,), dec_hook=_time_zone)
        except msgspec.ValidationError as error:
            # The message ends with the path `$.KEY`, or is "Object missing required field `KEY`".
            key = re.findall(r"`(?:\$\.)?(\w+)[^`]*`", str(error))[-1]
            raise self._invalid(where, values, key, kind) from None

    def _invalid(
        self, where: str, table: dict[str, Any], key: str, kind: type[msgspec.Struct]
    ) -> CourseError:
        valid = get_type_hints(kind, include_extras=True)[key].__metadata__[0].description
        if key not in table:
            return self._error(where, "", f"{key} is missing; it should be {valid}")
        value = table[key]
        shown = repr(value) if isinstance(value, str | list) else str(value)
        return self._error(where, key, f"{shown} should be {valid}")

    def _error(self, table: str, key: str, problem: str) -> CourseError:
        line = self._line(table, key)
        where = f"{GRADING_TOML}, line {line}" if line else GRADING_TOML
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


def _time_zone(_: type, name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (TypeError, OSError, LookupError):  # for example, "America" is a folder
        raise ValueError(name) from None


def _exact(number: float) -> Fraction:
    """Return the exact decimal value of a number, as a fraction."""
    return Fraction(str(number))


# ---- consistency with the chapters and graders

# nbformat allows 64 characters, and the ID of a cell with checks is check_NAME.
CELL_ID = re.compile(r"[A-Za-z0-9_]{1,58}")


def check_day(day: Day) -> None:
    """Check that every exercise has a stub, a solution, visible checks and a grader, and that every grader tests an
    exercise. Raises CourseError for the first one that fails the check.
    """
    for name in day.names:
        if not CELL_ID.fullmatch(name):
            raise CourseError(
                f"{GRADING_TOML}: {day.name}.exercises.{name}: the name becomes part of a cell ID. Use at most 58 characters: "
                "letters from A to Z, digits and underscores."
            )
    for chapter in day.chapters:
        chapter.check([e.name for e in day.exercises if e.chapter == chapter.name])
    graded = graded_exercises(day)
    for exercise in day.exercises:
        if exercise.name not in graded:
            file = day.graders / f"test_{exercise.chapter}.py"
            raise CourseError(
                f"{day.name}: {exercise.name} has no grader. Add a class with "
                f'exercise = "{exercise.name}" to {file}.'
            )
    for name, file in graded.items():
        if name not in (*day.names, *(e.name for e in day.unassigned)):
            raise CourseError(
                f"{file}: {name!r} has a grader here, but is not an exercise in {GRADING_TOML}. "
                "To give students its solution, list it there with given = true."
            )


def graded_exercises(day: Day) -> dict[str, Path]:
    """Map each exercise that the day's graders test to the grader's file."""
    found: dict[str, Path] = {}
    for file in sorted(day.graders.glob("test_*.py")):
        for name in _named_exercises(file):
            if name in found:
                raise CourseError(f"{file}: {name!r} already has a grader in {found[name]}")
            found[name] = file
    return found


def _named_exercises(file: Path) -> Iterator[str]:
    """Yield the string assigned to `exercise` in each of a grader's classes."""
    try:
        tree = ast.parse(read_text(file), file.name)
    except (SyntaxError, ValueError) as error:  # ValueError: the file contains null bytes
        raise CourseError(f"{file} cannot be imported: {error}") from None
    for test_class in ast.walk(tree):
        for statement in test_class.body if isinstance(test_class, ast.ClassDef) else []:
            match statement:
                case ast.Assign(
                    [ast.Name("exercise")], ast.Constant(str() as name)
                ) | ast.AnnAssign(ast.Name("exercise"), _, ast.Constant(str() as name)):
                    yield name
