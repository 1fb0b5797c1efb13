"""Run the grader on a class with hostile submissions, measure its time and memory, and check the results."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.course_copy import link_course
from bench.processes import tree
from tests.attacks.classes.case import HONEST, ROOT, SCRIPT, SECONDS, Case, Outcome

START = (sys.executable, "-m", "tests.attacks.classes.start")
NOBODY = 65534
MEMORY = 2_000_000_000
TRUSTED_MEMORY = 1_000_000_000  # bytes, limit for the grader's own processes
SERVER = "autograder.slicing.reader_service"  # part of the command line of fork servers and sandboxed processes
MOST_PROBLEMS = 200
LONGEST_PROBLEMS = 100_000  # maximum total length of one submission's problems, in characters
LATE = """
[late]
percent_per_day = 10
max_percent = 50
[day1.late]
due = 2026-12-01T23:59:00+01:00
"""
FORMULA = re.compile(r"(?![+-]?[\d.,]+$|-$)[=+@\t\r＝＋－＠-]")


@dataclass(frozen=True)
class Mode:
    """The user and the sandbox configuration with which the grader is run."""

    user: str
    wall: str

    def __str__(self) -> str:
        return f"{self.user}-{self.wall}"


IS_ROOT = os.geteuid() == 0
MODES = [
    *([Mode("root", "full")] if IS_ROOT else []),
    Mode("nobody", "full"),
    Mode("nobody", "denied"),
]


@dataclass(frozen=True)
class HostileClass:
    """A class's submissions and the expected result for each student.

    `write` writes the submissions to a folder and returns the paths to grade. If `is_whole` is true, the folder is the course
    folder itself.
    """

    name: str
    write: Any
    students: Mapping[str, Sequence[Outcome]]
    roster: str = ""
    is_late: bool = False  # whether the course has a late policy
    late_days: Mapping[str, int] = field(default_factory=dict)
    exports: bool = False  # whether to look for formulas in the exported files
    is_whole: bool = False  # whether to fill nbgrader's gradebook
    seconds: float = SECONDS
    memory: int = MEMORY


def flat(cases: Sequence[Case], name: str = "") -> HostileClass:
    """Return a class with two honest students (ada and zoe) and one hostile student per case, all in one folder."""

    def write(folder: Path) -> list[str]:
        place = folder / "class"
        place.mkdir()
        for who in ("ada", "zoe"):
            (place / f"{who}.py").write_text(SCRIPT)
        for case in cases:
            case.write(place / student(case))
        return ["class"]

    students = {"ada": HONEST, "zoe": HONEST, **{student(case): case.outcomes for case in cases}}
    seconds = max(*(case.seconds for case in cases), 10.0 * len(cases))
    return HostileClass(name or cases[0].name, write, students, seconds=seconds)


def student(case: Case) -> str:
    """Return the name of the hostile student who submits a case."""
    return f"eve-{case.name.replace('_', '-')}"


@dataclass(frozen=True)
class Memory:
    """The peak memory use, in bytes, of all processes (`all`) and of those outside the sandbox (`trusted`)."""

    all: int = 0
    trusted: int = 0

    def __or__(self, other: Memory) -> Memory:
        return Memory(max(self.all, other.all), max(self.trusted, other.trusted))


@dataclass(frozen=True)
class Graded:
    """The result of grading a class: its marks, time and memory use."""

    code: int
    errors: str
    records: Sequence[Mapping[str, Any]]
    seconds: float
    memory: Memory
    late_days: Mapping[str, int] = field(default_factory=dict)
    formulas: Sequence[str] = ()


class Course:
    """A copy of the course for one user and sandbox configuration.

    All classes share the recorded results of known mistakes and of trivial answers.
    """

    def __init__(self, folder: Path, mode: Mode) -> None:
        self.mode = mode
        self.root = folder
        link_course(folder)
        state = folder / ".autograder"
        state.mkdir()
        # These files contain the recorded results of known mistakes and of trivial answers.
        for file in (ROOT / ".autograder").glob("*-day1-*"):
            # Other tests may record results at the same time, which deletes those of the oldest version.
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(file, state / file.name)
        _make_accessible(folder, mode)

    def grade(self, class_: HostileClass, seconds: float) -> Graded:
        """Write a class's submissions to disk and grade them with a timeout of `seconds`."""
        self._reset(class_)
        with _folder(self.root) as folder:
            paths = class_.write(self.root if class_.is_whole else folder)
            paths = [os.path.relpath(folder / path, self.root) for path in paths]
            marks = folder / "marks.json"
            given = [] if class_.is_whole else paths
            arguments = ["grade", "day1", *given, "--no-store", "--json", str(marks)]
            code, errors, taken, memory = self._run(arguments, folder / "errors", seconds)
            records = json.loads(marks.read_bytes())["submissions"] if marks.is_file() else []
            late, formulas = {}, []
            if marks.is_file() and class_.late_days:
                late = self._late_days(marks, folder)
            if marks.is_file() and class_.exports:
                formulas = self._formulas(marks, folder)
        return Graded(code, errors, records, taken, memory, late, formulas)

    def _reset(self, class_: HostileClass) -> None:
        """Reset the course, then write a class's roster and late policy to it."""
        toml = self.root / "grading.toml"
        toml.unlink()
        toml.write_text((ROOT / "grading.toml").read_text() + (LATE if class_.is_late else ""))
        toml.chmod(0o644)
        left = ("submitted", "gradebook.db", "autograded", "feedback", "nbgrader_config.py")
        subprocess.run(["rm", "-rf", *(str(self.root / name) for name in left)], check=True)
        shutil.copy(ROOT / "nbgrader_config.py", self.root)
        roster = self.root / "roster.csv"
        roster.unlink(missing_ok=True)
        if class_.roster:
            roster.write_text(class_.roster)

    def _run(
        self, arguments: Sequence[str], log: Path, seconds: float
    ) -> tuple[int, str, float, Memory]:
        mode = self.mode
        started, memory = time.monotonic(), Memory()
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                [*START, mode.user, mode.wall, *arguments],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOGRADER_SECRET": "tests"},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
            try:
                while process.poll() is None and time.monotonic() - started < seconds:
                    memory |= memory_of(process.pid)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
            finally:
                if process.poll() is None:
                    for pid in reversed(list(tree(process.pid))):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, 9)
                process.wait()
        taken = time.monotonic() - started
        return process.returncode, log.read_text(errors="replace"), taken, memory

    # ---- exports from the marks

    def _late_days(self, marks: Path, folder: Path) -> dict[str, int]:
        table = self._export("csv", marks, folder / "late.csv")
        rows = csv.DictReader(table.open(newline="", encoding="utf-8"))
        return {row["student"]: int(float(row["late_days"] or -1)) for row in rows}

    def _formulas(self, marks: Path, folder: Path) -> list[str]:
        """Export the marks, and return all cells that a spreadsheet would evaluate as formulas for at least one separator."""
        files = [self._export("csv", marks, folder / "marks.csv")]
        report = folder / "report"
        self._run(["report", "day1", str(marks), "--out", str(report)], folder / "log", SECONDS)
        files += report.glob("*.csv")
        return [found for file in files for found in formulas(file)]

    def _export(self, to: str, marks: Path, out: Path) -> Path:
        arguments = ["export", "day1", "--to", to, "--marks", str(marks), "--out", str(out)]
        _, errors, _, _ = self._run(arguments, out.with_suffix(".log"), SECONDS)
        assert out.exists(), errors[-2000:]
        return out


def formulas(file: Path) -> Iterator[str]:
    """For each possible separator, yield the CSV cells that begin with a formula."""
    text = file.read_text(encoding="utf-8-sig")
    for between in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=between):
            yield from (f"{file.name}: {cell[:80]}" for cell in row if FORMULA.match(cell))


def memory_of(pid: int) -> Memory:
    """Return the total proportional set size of a process tree, or the highest peak of a single process if that is higher."""
    walled: list[int] = []
    trusted: list[int] = []
    most = 0
    with contextlib.suppress(OSError):  # a process exited between two reads
        for each in tree(pid):
            with contextlib.suppress(OSError):
                place = Path(f"/proc/{each}")
                rollup, status, command = (
                    (place / name).read_text(errors="replace")
                    for name in ("smaps_rollup", "status", "cmdline")
                )
                pss = re.findall(r"^Pss: +(\d+)", rollup, re.MULTILINE)
                (walled if SERVER in command else trusted).append(1024 * sum(map(int, pss)))
                peaks = re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)
                most = max(most, *(1024 * int(peak) for peak in peaks), 0)
    return Memory(max(sum(walled) + sum(trusted), most), sum(trusted))


# ---- comparison with the expected results


def complaints(class_: HostileClass, graded: Graded) -> Iterator[str]:
    """Yield a message for each difference from the expected results."""
    if graded.seconds > class_.seconds:
        yield f"grading took {graded.seconds:.0f} s; the limit is {class_.seconds:g} s"
    if graded.memory.all > class_.memory:
        yield f"grading used {graded.memory.all / 1e9:.2f} GB; the limit is {class_.memory / 1e9:g} GB"
    if graded.memory.trusted > TRUSTED_MEMORY:
        yield f"the grader's own processes used too much memory: {graded.memory.trusted / 1e9:.2f} GB"
    if "Traceback (most recent call last)" in graded.errors:
        yield f"the grader printed a traceback: …{graded.errors[-1500:]}"
    unread = any(not record["exercises"] for record in graded.records)
    wanted = 1 if unread or not graded.records else 0
    # If the class is the whole course folder, nbgrader itself may also report problems.
    if graded.code != wanted and not (class_.is_whole and graded.code == 1):
        yield f"the exit code is {graded.code}, not {wanted}: …{graded.errors[-500:]}"
    for name in class_.students:
        if not any(record["student"] == name for record in graded.records):
            yield f"{name} has no marks"
    for record in graded.records:
        yield from _of_record(class_, record)
    for name, days in class_.late_days.items():
        if graded.late_days.get(name) != days:
            yield f"{name} is {graded.late_days.get(name)} days late, not {days}"
    yield from (f"a cell begins with a formula: {cell}" for cell in graded.formulas)


def _of_record(class_: HostileClass, record: Mapping[str, Any]) -> Iterator[str]:
    name, problems = record["student"], record["problems"]
    if name not in class_.students:
        yield f"{name!r} is not in this class"
        return
    outcomes = class_.students[name]
    if not any(outcome.matches(record) for outcome in outcomes):
        got = f"{record['points']:g} points" if record["exercises"] else "no marks"
        yield f"{name} has {got} ({'; '.join(problems)[:300]}); expected: {list(outcomes)}"
    if len(problems) > MOST_PROBLEMS or sum(map(len, problems)) > LONGEST_PROBLEMS:
        yield (
            f"{name} has {len(problems)} problems ({sum(map(len, problems))} characters); the limits are "
            f"{MOST_PROBLEMS} problems and {LONGEST_PROBLEMS} characters"
        )


@contextlib.contextmanager
def _folder(above: Path) -> Iterator[Path]:
    """Create a temporary folder that all users can access. Remove it with `rm`, because `shutil` fails on deep nesting."""
    name = tempfile.mkdtemp(dir=above)
    os.chmod(name, 0o777)
    try:
        yield Path(name)
    finally:
        subprocess.run(["rm", "-rf", name], check=True)


def _make_accessible(folder: Path, mode: Mode) -> None:
    if IS_ROOT and mode.user == "nobody":
        for path in (folder, folder / ".autograder"):
            shutil.chown(path, NOBODY, NOBODY)
    folder.chmod(0o777)
