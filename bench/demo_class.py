"""Write a class of five students to try the grader on: `python -m bench.demo_class`.

`demo.zip` has the format of Canvas's “Download Submissions”, and `gradebook.csv` that of an exported Canvas gradebook.
"""

from __future__ import annotations

import argparse
import csv
import json
import zipfile
from pathlib import Path

import jupytext
import nbformat

from autograder.course import config as courses
from autograder.execution.catalogue import known_mistakes
from autograder.release.notebook import solution_notebook
from bench.simulated import fill_half, replace_cells

# The exercises of which one student makes a known mistake, by its name.
MISTAKES = {"softmax": "max not subtracted", "causal_mask": "own position masked"}
HEADER = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Day 1 (4711)"]


def write(root: Path, folder: Path) -> list[Path]:
    """Write the class's submissions and its gradebook to a folder: two correct days, three others. Return the paths."""
    day = courses.load(root).day("day1")
    solution = solution_notebook(day)
    text = json.dumps(solution)
    known = known_mistakes(day)
    wrong = {
        exercise: next(one.source for one in known[exercise] if one.name == name)
        for exercise, name in MISTAKES.items()
    }
    style = sorted((root / "tests" / "styles" / "day1").glob("*.py"))[0]
    works = {
        "ada": solution,
        "chen": jupytext.read(style),
        "dana": replace_cells(solution, wrong),
        "hana": fill_half(nbformat.read(day.release, as_version=4), solution, day),
        "lin": text[: text.index("class LayerNorm(")],  # a truncated file
    }
    archive, gradebook = folder / "demo.zip", folder / "gradebook.csv"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as download:
        for number, (name, work) in enumerate(works.items(), 1):
            data = work if isinstance(work, str) else nbformat.writes(work)
            download.writestr(f"{name}_{2000 + number}_{70000 + number}_day1.ipynb", data)
    with gradebook.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        rows.writerow(["    Points Possible", "", "", "", "", "100"])
        for number, name in enumerate(works, 1):
            email = f"{name}@example.org"
            rows.writerow([name.title(), 2000 + number, email, email, "Section A", ""])
    return [archive, gradebook]


def main() -> None:
    """Write both files to the current folder, which is in a course."""
    argparse.ArgumentParser(prog="python -m bench.demo_class", description=__doc__).parse_args()
    print(*write(courses.find_root(Path.cwd()), Path()), sep="\n")


if __name__ == "__main__":
    main()
