"""Fuzz for FUZZ_MINUTES minutes, print the number of cases tried, and save any failures."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.attacks.classes.running import MODES, Course
from tests.fuzz import batches, records

COUNT = 120  # submissions per class
RECORDS = 2_000  # number of marks and database rows to try after each class


def main() -> int:
    """Fuzz the grader, or regrade the submissions that caused an earlier failure. Return exit code 1 if anything fails."""
    with tempfile.TemporaryDirectory() as folder:
        course = Course(Path(folder), MODES[0])
        if len(sys.argv) > 1:
            complaints = batches.grade(course, batches.kept_cases(Path(sys.argv[1])))
            print("\n".join(complaints) or "no failure")
            return int(bool(complaints))
        return fuzz(course, Path(os.environ.get("FUZZ_FOLDER", "fuzz-failures")))


def fuzz(course: Course, folder: Path) -> int:
    """Generate and grade random classes until the time is up. Return exit code 1 if anything fails."""
    minutes = float(os.environ.get("FUZZ_MINUTES", "60"))
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns() % 10**9)))
    started, n_failures, tried = time.monotonic(), 0, Counter[str]()
    while time.monotonic() - started < 60 * minutes:
        cases = batches.random_cases(seed, COUNT)
        tried.update(case.family for case in cases)
        for failure in batches.find_failures(course, cases):
            n_failures += 1
            print(f"✗ {failure.keep(folder)}: {failure.complaints[0][:300]}", flush=True)
        for message in records.find_failures(seed, RECORDS):
            n_failures += 1
            print(f"✗ {message[:500]}", flush=True)
        tried["records"] += RECORDS
        seconds = time.monotonic() - started
        listed = ", ".join(f"{count} {name}" for name, count in tried.items())
        print(f"{seconds:.0f} s, seed {seed}: {listed}; {n_failures} failures", flush=True)
        seed += 1
    print(
        f"{sum(tried.values())} cases; {n_failures} failures" + f", in {folder}" * bool(n_failures)
    )
    return int(bool(n_failures))


if __name__ == "__main__":
    sys.exit(main())
