"""Grade the same class in this checkout and in another one, and list all differences in the marks.

    python -m bench.same_marks OTHER [DAY ...]

The class contains the demo class, the solution, every file in `tests/styles/` and every known mistake: submission k has
the k-th mistake of each exercise. The exit code is 1 if any points, status, mistake name or substitution differs.
Messages may differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from autograder.course import config as courses
from autograder.course.config import Day
from bench.simulated import Work, known_mistakes, make_class, styles

ROOT = Path(__file__).parents[1]
COMPARED = ("points", "status", "mistake", "reference_for")

Marks = Mapping[tuple[str, str], Mapping[str, Any]]  # by student and exercise


def write_class(day: Day, folder: Path) -> None:
    """Write the class that both checkouts grade, one file per submission."""
    make_class(day, folder)
    works = {f"right-{number}": cells for number, cells in enumerate(styles(day))}
    solution, mistakes = styles(day)[0], known_mistakes(day)
    for number in range(max(map(len, mistakes.values()))):
        wrong = [own[number % len(own)] for own in mistakes.values()]
        works[f"wrong-{number:02}"] = [*solution, *wrong]
    for name, cells in works.items():
        (folder / f"{name}.ipynb").write_bytes(Work("same", cells).data(0))


def grade(checkout: Path, day: Day, class_: Path, marks: Path) -> Marks:
    """Grade the class with the `autograder` command from a checkout."""
    command = [
        f"{checkout}/.venv/bin/python",
        "-c",
        "from autograder.cli import main; main()",
        "grade",
        day.name,
        f"{class_}",
    ]
    command += ["--no-store", "--jobs", "1", "--json", f"{marks}"]
    environment = {**os.environ, "AUTOGRADER_SECRET": "the same for both"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1, because one notebook of the demo class is truncated
        sys.exit(f"{checkout} failed to grade the class:\n{done.stderr[-2000:]}")
    return {
        (submission["student"], exercise["name"]): exercise
        for submission in json.loads(marks.read_bytes())["submissions"]
        for exercise in submission["exercises"]
    }


def differences(one: Marks, other: Marks) -> Iterator[str]:
    """Yield one line per difference. A test is compared only if both checkouts have a test with that name."""
    for student, exercise in sorted(one.keys() | other.keys()):
        pair = [marks.get((student, exercise)) for marks in (one, other)]
        first, second = ({} if marks is None else _compared(marks) for marks in pair)
        for key in sorted(
            first.keys() & second.keys() if all(pair) else first.keys() | second.keys()
        ):
            if first.get(key) != second.get(key):
                yield f"{student} {exercise} {key}: {first.get(key)} -> {second.get(key)}"


def _compared(marks: Mapping[str, Any]) -> dict[str, Any]:
    tests = {test["name"]: "passed" if test["passed"] else "failed" for test in marks["tests"]}
    return {key: marks[key] for key in COMPARED} | tests


def main() -> int:
    """Print the differences between the two checkouts. Return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m bench.same_marks", description=__doc__)
    parser.add_argument(
        "other", type=Path, help="path of another checkout in which `make setup` was run"
    )
    parser.add_argument("days", nargs="*", metavar="DAY")
    arguments = parser.parse_args()
    course, count = courses.load(ROOT), 0
    for name in arguments.days or course.days:
        day = course.day(name)
        with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
            class_ = Path(place) / "class"
            write_class(day, class_)
            one, other = pool.map(
                lambda checkout, day=day, class_=class_: grade(
                    checkout, day, class_, class_.with_name(f"{checkout.name}.json")
                ),
                (arguments.other.resolve(), ROOT),
            )
        found = list(differences(one, other))
        print(*found, sep="\n")
        print(f"{name}: {len(found)} differences in {len(other)} exercises")
        count += len(found)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
