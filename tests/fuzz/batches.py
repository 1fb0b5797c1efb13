"""Grade random submissions as a class, and check that honest students keep their marks and that grading never aborts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.attacks.classes.case import FULL, HONEST, SECONDS, Case, Outcome, Points, Unread
from tests.attacks.classes.running import (
    MEMORY,
    Course,
    HostileClass,
    complaints,
    flat,
    student,
)
from tests.fuzz.makers import MAKERS

ANYTHING: tuple[Outcome, ...] = (Points(0.0, FULL), Unread())
# Two submissions are graded at once, and each process may use as much memory as grading.toml allows.
WALLED_MEMORY = 3 * MEMORY
NEIGHBOURS = 4  # random submissions per honest one


@dataclass(frozen=True)
class Failure:
    """The submissions that cause a failure, and the messages that describe the failure."""

    cases: Sequence[Case]
    complaints: Sequence[str]

    def keep(self, folder: Path) -> Path:
        """Save the submissions to a folder, so that they can be regraded, and return the folder's path."""
        place = folder / "-".join(case.name for case in self.cases[:3])
        folder = place / "class"
        folder.mkdir(parents=True, exist_ok=True)
        for case in self.cases:
            case.write(folder / student(case))
        text = "\n".join(self.complaints) + "\n"
        (place / "complaints.txt").write_text(text, encoding="utf-8")
        return place


def random_cases(seed: int, count: int, makers: Sequence[str] = tuple(MAKERS)) -> list[Case]:
    """Return `count` random submissions. Each submission depends only on the seed and its index."""
    cases = []
    for number in range(count):
        maker = makers[number % len(makers)]

        def write(path: Path, maker: str = maker, number: int = number) -> None:
            MAKERS[maker](path, random.Random(f"{seed} {maker} {number}"))

        cases.append(Case(f"{maker}_{seed}_{number}", maker, write, ANYTHING))
    return cases


def with_neighbours(cases: Sequence[Case]) -> HostileClass:
    """Return a class that mixes these cases with honest submissions, including submissions by `ada` and `zoe`."""
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
    """Grade submissions as a class, and return a message for each unexpected result."""
    class_ = with_neighbours(cases)
    return list(complaints(class_, course.grade(class_, class_.seconds)))


def find_failures(course: Course, cases: Sequence[Case]) -> list[Failure]:
    """Grade submissions as a class. If there is a failure, bisect the class to find the submissions that cause it."""
    found_complaints = grade(course, cases)
    if not found_complaints:
        return []
    if len(cases) == 1:
        return [Failure(cases, found_complaints)]
    middle = len(cases) // 2
    found = [
        failure
        for half in (cases[:middle], cases[middle:])
        for failure in find_failures(course, half)
    ]
    # If nothing was found, the submissions cause the failure only together.
    return found or [Failure(cases, found_complaints)]


def kept_cases(folder: Path) -> list[Case]:
    """Load the submissions saved to a folder after an earlier failure."""
    files = sorted((folder / "class").iterdir())
    return [Case(file.stem, "kept", partial(_copy, file), ANYTHING) for file in files]


def _copy(file: Path, path: Path) -> None:
    ending = "".join(file.suffixes)
    path.with_name(f"{path.name}{ending}").write_bytes(file.read_bytes())
