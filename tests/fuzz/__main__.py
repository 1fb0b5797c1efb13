"""Fuzz for FUZZ_MINUTES, print how many cases were tried, and keep those that break a promise; see the package."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.attacks.classes.running import MODES, Course
from tests.fuzz import batches, records

COUNT = 120  # hand-ins in a class
RECORDS = 2_000  # marks and rows between two classes


def main() -> int:
    """Return 1 if a promise was broken."""
    with tempfile.TemporaryDirectory() as folder:
        course = Course(Path(folder), MODES[0])
        if len(sys.argv) > 1:
            said = batches.grade(course, batches.kept(Path(sys.argv[1])))
            print("\n".join(said) or "it is as it should be")
            return int(bool(said))
        return fuzz(course, Path(os.environ.get("FUZZ_FOLDER", "fuzz-failures")))


def fuzz(course: Course, folder: Path) -> int:
    """Draw and grade classes until the time is over."""
    minutes = float(os.environ.get("FUZZ_MINUTES", "60"))
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns() % 10**9)))
    started, broken, tried = time.monotonic(), 0, Counter[str]()
    while time.monotonic() - started < 60 * minutes:
        cases = batches.drawn(seed, COUNT)
        tried.update(case.family for case in cases)
        for failure in batches.failures(course, cases):
            broken += 1
            print(f"✗ {failure.keep(folder)}: {failure.said[0][:300]}", flush=True)
        for said in records.broken(seed, RECORDS):
            broken += 1
            print(f"✗ {said[:500]}", flush=True)
        tried["records"] += RECORDS
        seconds = time.monotonic() - started
        listed = ", ".join(f"{count} {name}" for name, count in tried.items())
        print(f"{seconds:.0f} s, seed {seed}: {listed}; {broken} broken promises", flush=True)
        seed += 1
    print(
        f"{sum(tried.values())} cases; {broken} broken promises" + f", in {folder}" * bool(broken)
    )
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
