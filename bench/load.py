"""Grade a class on an idle and on a busy machine, and check that marks and messages are the same.

python -m bench.load --count 200
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day
from bench.course_copy import ROOT, link_caches, link_course
from bench.simulated import Work, hostile_works, works
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS

BURNERS = 4
HOSTILE = 10  # one in this many submissions is hostile
MEASURED = ("seconds",)  # keys that differ from run to run


@dataclass(frozen=True)
class Graded:
    """The result of grading a class: the marks by path, the wall time, the exit code and the stderr output."""

    records: Mapping[str, Mapping[str, Any]]
    seconds: float
    code: int
    errors: str


def write_class(day: Day, count: int, outside: Outside, folder: Path) -> None:
    """Write a class of correct, wrong, unfinished, damaged and hostile submissions; some loop forever or kill their process."""
    prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text(encoding="utf-8")
    cells = [f"{prelude}\n{attack.source}" for attack in ATTACKS if attack.family != "cheat"]
    odd = max(3, count // HOSTILE)
    class_: list[Work] = [*works(day, count - odd), *hostile_works(day, odd, cells)]
    folder.mkdir()
    for number, work in enumerate(class_):
        file = folder / f"{number:04}-{work.kind}{work.ending}"
        file.write_bytes(work.data(number))


def grade(day: Day, folder: Path, jobs: int) -> Graded:
    """Grade the class from the command line, without storing the marks."""
    marks = folder / "marks.json"
    marks.unlink(missing_ok=True)
    command = [sys.executable, "-m", "autograder", "grade", day.name, "class", "--no-store"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--jobs", str(jobs), "--json", str(marks)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOGRADER_SECRET": "bench"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    found = json.loads(marks.read_bytes())["submissions"] if marks.is_file() else []
    records = {record["path"]: _without_measurements(record) for record in found}
    return Graded(records, seconds, done.returncode, done.stderr)


def _without_measurements(value: Any) -> Any:
    """Return marks without the keys that differ from run to run."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in MEASURED}
        return {key: _without_measurements(part) for key, part in kept.items()}
    return [_without_measurements(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep this many CPU cores busy."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _burn() -> None:
    while True:
        sum(range(100_000))


def differences(one: Graded, other: Graded) -> Iterator[tuple[str, str, str, str]]:
    """Yield each difference between two runs' marks: the submission, the field that differs, and both values."""
    for path in sorted({*one.records, *other.records}):
        for where, first, second in _compare(one.records.get(path), other.records.get(path), ""):
            yield path, where, first, second


def _compare(one: Any, other: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _compare(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            name = first.get("name", number) if isinstance(first, dict) else number
            yield from _compare(first, second, f"{where}.{name}")
    elif one != other:
        yield where.lstrip("."), f"{one}"[:300], f"{other}"[:300]


def bench(
    console: Console, day: Day, count: int = 200, burners: int = BURNERS, jobs: int = 2
) -> bool:
    """Grade a class twice, print the differences, and return whether the marks and messages are the same."""
    with tempfile.TemporaryDirectory() as name, Outside("CANARY-of-the-load") as outside:
        folder = Path(name)
        link_course(folder)
        link_caches(folder)
        write_class(day, count, outside, folder / "class")
        idle = grade(day, folder, jobs)
        with burning(burners):
            loaded = grade(day, folder, jobs)
    found = list(differences(idle, loaded))
    table = Table("submission", "place", "idle", f"with {burners} busy processes")
    for row in found:
        table.add_row(*row)
    if found:
        console.print(table)
    for label, graded in (("idle", idle), ("busy", loaded)):
        statuses = [e["status"] for r in graded.records.values() for e in r["exercises"]]
        timed_out = statuses.count("timed_out")
        console.print(
            f"{label}: {len(graded.records)} of {count} submissions graded in {graded.seconds:.0f} s, "
            f"{timed_out} exercises timed out, exit code {graded.code}"
        )
        if not graded.records:
            console.print(graded.errors[-2000:])
    same = not found and len(idle.records) == len(loaded.records) == count
    console.print(
        f"{'✓' if same else '✗'} differences in marks and messages: {len(found)} (expected 0)"
    )
    return same


def main() -> int:
    """Run the benchmark and print the results. Return 1 if there are differences."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("day", nargs="?", default="day1")
    parser.add_argument("--count", type=int, default=200, help="number of submissions")
    parser.add_argument("--burners", type=int, default=BURNERS, help="number of busy processes")
    parser.add_argument("--jobs", type=int, default=2, help="number of grading processes")
    arguments = parser.parse_args()
    day = courses.load(ROOT).day(arguments.day)
    ok = bench(plain_console(), day, arguments.count, arguments.burners, arguments.jobs)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
