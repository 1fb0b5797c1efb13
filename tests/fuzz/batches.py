"""Grades fuzzed hand-ins as classes: honest neighbours keep their marks, and no run ends early."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.attacks.classes.case import FULL, HONEST, Case, Outcome, Points, Unread
from tests.attacks.classes.running import (
    MEMORY,
    SECONDS,
    Course,
    HostileClass,
    complaints,
    flat,
    student,
)
from tests.fuzz.makers import MAKERS

ANYTHING: tuple[Outcome, ...] = (Points(0.0, FULL), Unread())
# Two submissions are graded at once, and the process of each may take what `memory` in grading.toml allows.
WALLED_MEMORY = 3 * MEMORY
NEIGHBOURS = 4  # hand-ins for each honest one between them


@dataclass(frozen=True)
class Failure:
    """Hand-ins that break a promise, and how it was seen."""

    cases: Sequence[Case]
    said: Sequence[str]

    def keep(self, folder: Path) -> Path:
        """Write them down, to be graded again."""
        place = folder / "-".join(case.name for case in self.cases[:3])
        hand_ins = place / "class"
        hand_ins.mkdir(parents=True, exist_ok=True)
        for case in self.cases:
            case.write(hand_ins / student(case))
        (place / "said.txt").write_text("\n".join(self.said) + "\n", encoding="utf-8")
        return place


def drawn(seed: int, count: int, makers: Sequence[str] = tuple(MAKERS)) -> list[Case]:
    """Draw this many hand-ins; each follows from the seed and its number alone."""
    cases = []
    for number in range(count):
        maker = makers[number % len(makers)]

        def write(path: Path, maker: str = maker, number: int = number) -> None:
            MAKERS[maker](path, random.Random(f"{seed} {maker} {number}"))

        cases.append(Case(f"{maker}_{seed}_{number}", maker, write, ANYTHING))
    return cases


def with_neighbours(cases: Sequence[Case]) -> HostileClass:
    """Put an honest hand-in before every few of them, beside ada and zoe."""
    class_ = flat(cases, "fuzzed")
    honest = [f"honest-{number:03}" for number in range(len(cases) // NEIGHBOURS + 1)]

    def write(folder: Path) -> list[str]:
        paths: list[str] = class_.write(folder)
        for name in honest:
            (folder / "class" / f"{name}.py").write_bytes(
                (folder / "class" / "ada.py").read_bytes()
            )
        return paths

    students = {**class_.students, **dict.fromkeys(honest, HONEST)}
    seconds = SECONDS + 20.0 * len(cases)
    return HostileClass("fuzzed", write, students, seconds=seconds, memory=WALLED_MEMORY)


def grade(course: Course, cases: Sequence[Case]) -> list[str]:
    """Grade hand-ins as a class, and return what must not be."""
    class_ = with_neighbours(cases)
    return list(complaints(class_, course.grade(class_, class_.seconds)))


def failures(course: Course, cases: Sequence[Case]) -> list[Failure]:
    """Grade hand-ins as a class; where a promise is broken, find those that break it by halving the class."""
    said = grade(course, cases)
    if not said:
        return []
    if len(cases) == 1:
        return [Failure(cases, said)]
    middle = len(cases) // 2
    found = [
        failure for half in (cases[:middle], cases[middle:]) for failure in failures(course, half)
    ]
    return found or [Failure(cases, said)]  # it takes several of them together


def kept(folder: Path) -> list[Case]:
    """The hand-ins that were kept in a folder, to be graded again."""
    files = sorted((folder / "class").iterdir())
    return [Case(file.stem, "kept", partial(_copied, file), ANYTHING) for file in files]


def _copied(file: Path, path: Path) -> None:
    ending = "".join(file.suffixes)
    path.with_name(f"{path.name}{ending}").write_bytes(file.read_bytes())
