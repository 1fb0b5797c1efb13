"""Build Day 1, grade a simulated class, and write its feedback pages and class report (`make demo`)."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from autograder.course import config as courses
from bench.simulated import make_class

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "demo"


def main() -> None:
    """Run the commands that an instructor and a TA would run."""
    argparse.ArgumentParser(prog="make demo", description=__doc__).parse_args()
    day = courses.load(ROOT).day("day1")
    _step("Building Day 1. This runs the solution notebook and takes about a minute.")
    _autograder("build", "day1", "--solutions")
    _step("Writing 12 simulated submissions, based on the solutions and known mistakes")
    shutil.rmtree(FOLDER, ignore_errors=True)
    made = make_class(day, FOLDER / "class")
    print("\n".join(str(path.relative_to(ROOT)) for path in made))
    _step(
        "Grading them. One is truncated (lin), one loops forever (jun) and one kills its process (kaia)."
    )
    outputs = ("--json", "demo/marks.json", "--feedback", "demo/feedback")
    _autograder("grade", "day1", "demo/class", "--no-store", *outputs)
    _step("Writing the class report")
    _autograder("report", "day1", "demo/marks.json", "--out", "demo/report")
    _step("Results")
    print(
        "assignments/day1/              the assignment that students get\n"
        "source/day1-solutions.ipynb    the notebook with the solutions\n"
        "demo/class/                    the submissions\n"
        "demo/marks.json                the marks\n"
        "demo/feedback/                 a feedback page for each student\n"
        "demo/report/                   the class report for the instructor\n"
        "\nTo see why Dana lost points in an exercise:\n"
        ".venv/bin/autograder explain day1 demo/class/dana.ipynb EXERCISE"
    )


def _step(title: str) -> None:
    print(f"\n── {title}\n", flush=True)


def _autograder(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "autograder"), *arguments]
    print("$ autograder", *arguments, flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
