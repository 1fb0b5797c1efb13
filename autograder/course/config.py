"""Parse `grading.toml` into `Course`, `Day` and `Exercise` objects.

Entry points: `find_root` and `load`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from autograder.course import chapters, forbidden, late_policy
from autograder.course.chapters import Chapter, ChapterCell
from autograder.course.files import GRADING_TOML, CourseError, read_text
from autograder.course.forbidden import ForbiddenNames
from autograder.course.late_policy import NO_POLICY, Policy
from autograder.course.tables import Tables
from autograder.plain_text import format_number
from autograder.protocol.limits import Allowance, Limits

__all__ = ["GRADING_TOML", "Course", "CourseError", "Day", "Exercise", "find_root", "load"]

MAX_POINTS = 100_000
TOTAL_POINTS = 100
DAY_KEYS = {"title", "feedback", "late", "total_points", "include", "exercises"}
LIMIT_KEYS = {"cpu_seconds", "total_cpu_seconds", "idle_seconds", "memory"}
FLAGS = ("core", "optional", "given")
EXERCISE_KEYS = {"chapter", "points", "not_allowed", "renamed_from", *FLAGS, *LIMIT_KEYS}
SUBMISSION_KEYS = ("submission_cpu_seconds", "submission_idle_seconds")
# When a test fails, students see its description and the observed values ("values"), or only its description ("words").
Feedback = Literal["values", "words"]
Include = Literal["all", "core"]  # which exercises students fill in
SUBMISSION = Allowance(cpu_seconds=300, idle_seconds=60)
DEFAULTS = {
    "cpu_seconds": 5,
    "total_cpu_seconds": 30,
    "idle_seconds": 30,
    "memory": "2 GB",
    "submission_cpu_seconds": SUBMISSION.cpu_seconds,
    "submission_idle_seconds": SUBMISSION.idle_seconds,
}


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
    # `fingerprint` hashes the repr, which omits these flags because they do not affect marks. It hashes older names separately.
    core: bool = field(default=False, repr=False)
    given: bool = field(default=False, repr=False)
    renamed_from: tuple[str, ...] = field(default=(), repr=False)
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
    late: Policy = NO_POLICY
    budget: Allowance = SUBMISSION  # limits on all code run for one submission
    language: str = "en"  # language of the chapters, as in HTML's `lang`
    unassigned: tuple[Exercise, ...] = ()
    chapter_order: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """Return the total points for all exercises that are not optional."""
        return float(sum(Fraction(str(e.points)) for e in self.exercises if not e.optional))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of exercises that students fill in."""
        return tuple(exercise.name for exercise in self.exercises)

    def check_exercise(self, name: str) -> None:
        """Check that students fill in an exercise with this name.

        Raises:
            CourseError: None of the exercises that students fill in has this name.
        """
        for exercise in self.exercises:
            if name in exercise.renamed_from:
                raise CourseError(f"{name!r} is an old name for {exercise.name!r}")
        if name not in self.names:
            raise CourseError(
                f"{self.name} has no exercise {name!r}; it has {', '.join(self.names)}"
            )

    @cached_property
    def chapters(self) -> tuple[Chapter, ...]:
        """Read the chapters in `grading.toml` order, and keep only the content that students get."""
        order = self.chapter_order or dict.fromkeys(e.chapter for e in self.exercises)
        folder = self.root / "solutions" / self.name
        names = [exercise.name for exercise in (*self.exercises, *self.unassigned)]
        whole = [chapters.read(folder / f"{name}.py", names) for name in order]
        others = {exercise.name: exercise.given for exercise in self.unassigned}
        return select(whole, self.names, others)

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
    def mistakes(self) -> Path:
        """Return the folder that contains the known mistakes."""
        return self.root / "mistakes" / self.name


@dataclass(frozen=True)
class Course:
    """A course: its folder and its days, in order."""

    root: Path
    days: Mapping[str, Day]

    def day(self, name: str) -> Day:
        """Return the day with this name.

        Raises:
            CourseError: The course has no day with this name.
        """
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


class _Reader(Tables):
    """Reads the days and their exercises from `grading.toml`."""

    def course(self, root: Path, tables: dict[str, Any]) -> Course:
        defaults = tables.pop("defaults", {})
        self.check_keys("defaults", defaults, set(DEFAULTS))
        defaults = {**DEFAULTS, **defaults}
        self.limits("defaults", defaults)
        budget = Allowance(*(self.seconds("defaults", defaults, key) for key in SUBMISSION_KEYS))
        late, language = tables.pop("late", {}), self.language(tables)
        late_policy.check(self, "late", late)
        self._own_entries = forbidden.read_entries(self, tables.pop("not_allowed", {}))
        days = {name: self._day(root, name, t, defaults, late) for name, t in tables.items()}
        if not days:
            raise CourseError(f"{GRADING_TOML} defines no days. Add one, such as [day1].")
        course: dict[str, Any] = {"budget": budget, "language": language}
        return Course(root, {name: replace(day, **course) for name, day in days.items()})

    def _day(
        self, root: Path, name: str, table: Any, defaults: dict[str, Any], late: dict[str, Any]
    ) -> Day:
        if not isinstance(table, dict):
            raise self.error(name, "", f"unknown key. To define a day, add a table: [{name}]")
        self.check_keys(name, table, DAY_KEYS)
        title = self.value(name, table, "title", str, "a string")
        exercises = self.value(name, table, "exercises", dict, "a table")
        listed = tuple(self._exercise(name, e, t, defaults) for e, t in exercises.items())
        self._check_names(name, listed)
        include = self.choice(name, table, "include", Include, "all")
        assigned = [e for e in listed if not e.given and (e.core or include == "all")]
        policy = late_policy.read(self, f"{name}.late", table.get("late", {}), late)
        return Day(
            root,
            name,
            title,
            self._with_points(name, table, assigned),
            self.choice(name, table, "feedback", Feedback, "values"),
            policy,
            unassigned=tuple(exercise for exercise in listed if exercise not in assigned),
            chapter_order=tuple(dict.fromkeys(exercise.chapter for exercise in listed)),
        )

    def _with_points(
        self, day: str, table: dict[str, Any], assigned: Sequence[Exercise]
    ) -> tuple[Exercise, ...]:
        """Convert weights to points, so that the points for the required exercises add up to the day's total."""
        total = self.value(
            day, {"total_points": TOTAL_POINTS, **table}, "total_points", (int, float), "a number"
        )
        if not 0 < total <= MAX_POINTS or Fraction(str(total)) * 100 % 1:
            problem = f"{format_number(total)} should be greater than 0 and at most {MAX_POINTS:,}, with at most two decimals"
            raise self.error(day, "total_points", problem)
        weights = [exercise.points for exercise in assigned if not exercise.optional]
        if not weights:
            key = "include" if table.get("include") == "core" else ""
            raise self.error(day, key, "no exercise counts towards the total")
        shares = iter(share(weights, total))
        result = []
        for exercise in assigned:
            scaled = scale(exercise.points, weights, total)
            worth = scaled if exercise.optional else next(shares)
            if worth <= 0:
                problem = f"{format_number(exercise.points)} is too small: the exercise would be worth less than 0.01 points"
                raise self.error(f"{day}.exercises.{exercise.name}", "points", problem)
            result.append(replace(exercise, points=worth))
        return tuple(result)

    def _exercise(self, day: str, name: str, table: Any, defaults: dict[str, Any]) -> Exercise:
        where = f"{day}.exercises.{name}"
        if not isinstance(table, dict) or not name.isidentifier():
            raise self.error(where, "", "should be a table named after a function or class")
        self.check_keys(where, table, EXERCISE_KEYS)
        weight = float(self.value(where, table, "points", (int, float), "a number"))
        if not 0 < weight <= MAX_POINTS:
            problem = f"{format_number(weight)} should be greater than 0 and at most {MAX_POINTS:,}"
            raise self.error(where, "points", problem)
        names, own = forbidden.select(self, where, table, self._own_entries)
        chapter = self.value(where, table, "chapter", str, "a chapter name, in quotes")
        limits = self.limits(where, {**defaults, **table})
        flags = {key: self.flag(where, table, key) for key in FLAGS}
        older = self.names(where, table, "renamed_from")
        return Exercise(
            name, chapter, weight, names, limits, renamed_from=older, own_entries=own, **flags
        )

    def _check_names(self, day: str, exercises: Sequence[Exercise]) -> None:
        """Check that each current or older name belongs to only one exercise."""
        taken = {exercise.name: exercise.name for exercise in exercises}
        for exercise in exercises:
            for name in exercise.renamed_from:
                if name in taken:
                    problem = f"{name!r} already belongs to {taken[name]}"
                    raise self.error(f"{day}.exercises.{exercise.name}", "renamed_from", problem)
                taken[name] = exercise.name


def older_names(day: Day) -> dict[str, str]:
    """Map each older name of an exercise to the exercise's current name."""
    return {older: e.name for e in day.exercises for older in e.renamed_from}


def known_names(day: Day) -> tuple[str, ...]:
    """Return the current and older names of a day's exercises."""
    return (*day.names, *older_names(day))


def original_name_of(exercise: Exercise) -> str:
    """Return an exercise's original name. Seeds are derived from it, so a renamed exercise keeps its inputs."""
    return next(iter(exercise.renamed_from), exercise.name)


def scale(weight: float, weights: Sequence[float], total: float) -> float:
    """Return the points for one weight, rounded to two decimal places. All `weights` together are worth `total` points."""
    return float(round(_exact(total) * _exact(weight) / sum(map(_exact, weights)), 2))


def share(weights: Sequence[float], total: float) -> list[float]:
    """Return the points for each weight. The last weight gets the remainder, so the points add up to `total`."""
    points = [_exact(scale(weight, weights, total)) for weight in weights[:-1]]
    return [float(each) for each in [*points, _exact(total) - sum(points)]]


@cache
def _exact(number: float) -> Fraction:
    """Return the exact decimal value of a number, as a fraction."""
    return Fraction(str(number))


HEADING = re.compile(r"#{1,6} ")
# A hint cell begins with a `<details>` block. Answers to questions do not match, because they follow their questions.
HINTS = re.compile(r"\A(<details>.*?</details>\s*)+", re.DOTALL)


def select(
    chapters: Sequence[Chapter], assigned: Collection[str], others: Mapping[str, bool]
) -> tuple[Chapter, ...]:
    """Return the chapters, keeping only the content that students get.

    Args:
        chapters: The complete chapters.
        assigned: The exercises that students fill in.
        others: All other exercises. True means that students get the reference solution even if nothing uses it.

    Raises:
        CourseError: An exercise in `others` is not in any chapter.
    """
    if not others:
        return tuple(chapters)
    for name in others.keys() - {cell.name for cell in _exercises(chapters)}:
        raise CourseError(
            f"no chapter contains the exercise {name}, so its solution cannot be given to students"
        )
    given = [name for name, is_given in others.items() if is_given]
    kept = _used_chapters(chapters, {*assigned, *given})
    needed = _needed_exercises(kept, {*assigned, *given})
    return tuple(replace(c, cells=tuple(_cells(c, assigned, needed))) for c in kept)


def _exercises(chapters: Iterable[Chapter]) -> Iterator[ChapterCell]:
    for chapter in chapters:
        yield from (cell for cell in chapter.cells if cell.role == "exercise")


# ---- used chapters and exercises


def _used_chapters(chapters: Sequence[Chapter], wanted: Collection[str]) -> list[Chapter]:
    """Return the chapters that contain an exercise in `wanted`, and all chapters that they depend on."""
    kept = [c for c in chapters if any(cell.name in wanted for cell in _exercises([c]))]
    while True:
        read = {name for chapter in kept for name in _names_from_others(chapter)}
        more = [c for c in chapters if c not in kept and not read.isdisjoint(_defined(c))]
        if not more:
            return [chapter for chapter in chapters if chapter in kept]
        kept += more


def _needed_exercises(chapters: Sequence[Chapter], wanted: Collection[str]) -> set[str]:
    """Return `wanted`, plus the exercises that demonstrations or provided code use, and all exercises on which these depend.

    An exercise depends on the exercises that its solution and its checks use.
    """
    needed = set(wanted)
    while True:
        read = {
            name
            for chapter in chapters
            for cell in chapter.cells
            if cell.role not in ("exercise", "checks") or cell.name in needed
            for name in _read(cell)
            if name != cell.name
        }
        more = {cell.name for cell in _exercises(chapters)} & read - needed
        if not more:
            return needed
        needed |= more


def _names_from_others(chapter: Chapter) -> set[str]:
    """Return the names that a chapter imports from other chapters, or uses without defining them."""
    imported, read, bound = set(), set(), set()
    for cell in chapter.cells:
        read |= _read(cell)
        for node in _nodes(cell):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("solutions."):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            else:
                bound |= _bound(node)
    return imported | (read - bound)


def _defined(chapter: Chapter) -> set[str]:
    return {name for cell in chapter.cells for node in _nodes(cell) for name in _bound(node)}


def _bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.arg):
        return {node.arg}
    return {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()


def _read(cell: ChapterCell) -> set[str]:
    names = (node for node in _nodes(cell) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def _nodes(cell: ChapterCell) -> tuple[ast.AST, ...]:
    return () if cell.role == "text" else _parsed(cell.source)


@lru_cache(maxsize=1024)
def _parsed(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(source)))


# ---- remaining cells


def _cells(
    chapter: Chapter, assigned: Collection[str], needed: Collection[str]
) -> Iterator[ChapterCell]:
    """Yield a chapter's cells. For exercises that students do not get, omit the solution, checks, hints and text."""
    for section in _sections(chapter.cells):
        inside = [cell.name for cell in section if cell.role == "exercise"]
        if inside and not any(name in needed for name in inside):
            section = [cell for cell in section if cell.role != "text"]
        exercise = ""
        for cell in section:
            exercise = cell.name if cell.role == "exercise" else exercise
            if cell.role in ("exercise", "checks") and cell.name not in assigned:
                if cell.role == "exercise" and cell.name in needed:
                    yield replace(cell, role="given", source=cell.solution)
            elif cell.role == "text" and exercise and exercise not in assigned:
                if text := HINTS.sub("", cell.source).strip():
                    yield replace(cell, source=text)
            else:
                yield cell


def _sections(cells: Sequence[ChapterCell]) -> list[list[ChapterCell]]:
    """Split cells into sections. A section begins at a text cell with a heading."""
    sections: list[list[ChapterCell]] = [[]]
    for cell in cells:
        if cell.role == "text" and HEADING.match(cell.source):
            sections.append([])
        sections[-1].append(cell)
    return sections
