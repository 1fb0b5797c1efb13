"""Grade the same class twice, idle and beside processes that burn all cores: marks and messages must not differ.

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

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.state_folder import course_folder
from bench.simulated import Work, hostile_works, works
from bench.thousand import PARTS, ROOT
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS

BURNERS = 4
HOSTILE = 10  # one hand-in of so many is hostile
# What may differ from run to run.
MEASURED = ("seconds",)


@dataclass(frozen=True)
class Graded:
    """The records of a class by path, and what grading took."""

    records: Mapping[str, Mapping[str, Any]]
    seconds: float
    code: int
    errors: str


def write_class(day: Day, count: int, outside: Outside, folder: Path) -> None:
    """Write so many hand-ins of all kinds: right, wrong, unfinished, mangled, hanging, dying and hostile."""
    prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text(encoding="utf-8")
    cells = [f"{prelude}\n{attack.source}" for attack in ATTACKS if attack.family != "cheat"]
    odd = max(3, count // HOSTILE)
    class_: list[Work] = [*works(day, count - odd), *hostile_works(day, odd, cells)]
    folder.mkdir()
    for number, work in enumerate(class_):
        file = folder / f"{number:04}-{work.kind}{work.ending}"
        file.write_bytes(work.data(number))


def grade(day: Day, folder: Path, jobs: int) -> Graded:
    """Grade the class as the command does, without the store."""
    marks = folder / "marks.json"
    marks.unlink(missing_ok=True)
    command = [sys.executable, "-m", "autograder.cli", "grade", day.name, "class", "--no-store"]
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
    records = {record["path"]: _lasting(record) for record in found}
    return Graded(records, seconds, done.returncode, done.stderr)


def _lasting(value: Any) -> Any:
    """Marks without what is measured."""
    if isinstance(value, dict):
        return {key: _lasting(part) for key, part in value.items() if key not in MEASURED}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Let so many processes use the processor without a pause."""
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
    """What is not the same in two gradings: the path, where in the marks, and both values."""
    for path in sorted({*one.records, *other.records}):
        for where, first, second in _unlike(one.records.get(path), other.records.get(path), ""):
            yield path, where, first, second


def _unlike(one: Any, other: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _unlike(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            named = first.get("name", number) if isinstance(first, dict) else number
            yield from _unlike(first, second, f"{where}.{named}")
    elif one != other:
        yield where.lstrip("."), f"{one}"[:300], f"{other}"[:300]


def bench(
    console: Console, day: Day, count: int = 200, burners: int = BURNERS, jobs: int = 2
) -> bool:
    """Grade a class twice and print what differs; whether nothing does."""
    with tempfile.TemporaryDirectory() as name, Outside("CANARY-of-the-load") as outside:
        folder = Path(name)
        for part in PARTS:
            (folder / part).symlink_to(ROOT / part)
        for file in course_folder(ROOT).glob("mistakes-*.pt"):  # what is learnt already
            (course_folder(folder) / file.name).symlink_to(file)
        write_class(day, count, outside, folder / "class")
        idle = grade(day, folder, jobs)
        with burning(burners):
            loaded = grade(day, folder, jobs)
    found = list(differences(idle, loaded))
    table = Table("submission", "where", "idle", f"beside {burners} burning processes")
    for row in found:
        table.add_row(*row)
    if found:
        console.print(table)
    for label, graded in (("idle", idle), ("loaded", loaded)):
        statuses = [e["status"] for r in graded.records.values() for e in r["exercises"]]
        late = statuses.count("timed_out")
        console.print(
            f"{label}: {len(graded.records)} of {count} graded in {graded.seconds:.0f} s, "
            f"{late} exercises timed out, exit code {graded.code}"
        )
        if not graded.records:
            console.print(graded.errors[-2000:], markup=False)
    same = not found and len(idle.records) == len(loaded.records) == count
    console.print(f"{'✓' if same else '✗'} {len(found)} differences in marks and messages (none)")
    return same


def main() -> int:
    """Measure and print; 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("day", nargs="?", default="day1")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--burners", type=int, default=BURNERS)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    day = courses.load(ROOT).day(arguments.day)
    ok = bench(Console(), day, arguments.count, arguments.burners, arguments.jobs)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
