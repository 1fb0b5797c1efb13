"""`make demo`: build Day 1, make a simulated class, grade it, and say where everything is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from autograder.course import config as courses
from bench.simulated import make_class

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "demo"


def main() -> None:
    """Run the three steps that an instructor and a TA run."""
    day = courses.load(ROOT).day("day1")
    _step("Building Day 1 (the solution notebook is run once, which takes about a minute)")
    _autograder("build", "day1", "--solutions")
    _step("Making a class of 12. The students are simulated: from the solutions and known mistakes")
    shutil.rmtree(FOLDER, ignore_errors=True)
    made = make_class(day, FOLDER / "class")
    print("\n".join(str(path.relative_to(ROOT)) for path in made))
    _step("Grading them (lin's notebook was cut off, jun's never ends, kaia's kills its process)")
    _autograder("grade", "day1", "demo/class", "--no-store", "--json", "demo/marks.json")
    _step("Where everything is")
    print(
        "assignments/day1/              what students get\n"
        "source/day1-solutions.ipynb    the worked notebook\n"
        "demo/class/                    what the simulated class handed in\n"
        "demo/marks.json                their marks\n"
        "\nWhy did Dana lose points?  .venv/bin/autograder explain day1 demo/class/dana.ipynb EXERCISE"
    )


def _step(title: str) -> None:
    print(f"\n── {title}\n", flush=True)


def _autograder(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "autograder"), *arguments]
    print("$ autograder", *arguments, flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code not in (0, 1):  # 1: something could not be read, which is part of the demo
        sys.exit(code)


if __name__ == "__main__":
    main()
