"""The instructor's report of a class: one page, and its tables as CSV beside it."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from autograder.feedback.class_analysis import BINS, Analysis, Found
from autograder.feedback.student_page import STATUS
from autograder.feedback.templates import render
from autograder.marks import csv_cells
from autograder.marks.model import one_line

Cell = str | float | None


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write `report.html` and the CSV files into a folder."""
    folder.mkdir(exist_ok=True)
    page = folder / "report.html"
    page.write_text(html(analysis), encoding="utf-8")
    files = [page]
    for name, rows in tables(analysis).items():
        file = folder / f"{name}.csv"
        with file.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows([[defused(cell) for cell in row] for row in rows])
        files.append(file)
    return files


def html(analysis: Analysis) -> str:
    """The page."""
    hardest = sorted(analysis.exercises, key=lambda e: e.mean_share)[:3]
    return render(
        "class.html",
        it=analysis,
        hardest=[e for e in hardest if e.mean_share < 1],
        width=100 // BINS,
        mean=statistics.fmean(analysis.points) if analysis.points else 0.0,
        median=statistics.median(analysis.points) if analysis.points else 0.0,
        deviation=statistics.pstdev(analysis.points) if analysis.points else 0.0,
        status=STATUS,
    )


def tables(analysis: Analysis) -> dict[str, list[list[Cell]]]:
    """Each table by the name of its file, headings first."""
    return {
        "submissions": _submissions(analysis),
        "exercises": _exercises(analysis),
        "tests": _tests(analysis),
        "mistakes": _found(analysis.mistakes, ["exercise", "mistake", "sentence", "example"]),
        "unnamed": _found(analysis.unnamed, ["exercise", "test", "seen", "example"]),
    }


def _submissions(analysis: Analysis) -> list[list[Cell]]:
    names = [e.name for e in analysis.exercises]
    head: list[Cell] = ["submission", "points", "max_points", *names, "problems"]
    rows: list[list[Cell]] = []
    for row in analysis.rows:
        points = [row.exercises.get(name) for name in names]
        rows.append([row.label, row.points, row.max_points, *points, "; ".join(row.problems)])
    return [head, *rows]


def _exercises(analysis: Analysis) -> list[list[Cell]]:
    numbers = ["max_points", "mean_share", "untouched", "of", "discrimination", "carried"]
    numbers += ["median_seconds", "longest_seconds"]
    rows: list[list[Cell]] = [["exercise", *numbers]]
    for e in analysis.exercises:
        values = (getattr(e, name) for name in numbers)
        rows.append([e.name, *(v if v is None else round(v, 4) for v in values)])
    return rows


def _tests(analysis: Analysis) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["exercise", "test", "sentence", "passed", "of"]]
    for e in analysis.exercises:
        rows += [[e.name, t.name, t.sentence, t.passed, t.of] for t in e.tests]
    return rows


def _found(found: Sequence[Found], head: list[Cell]) -> list[list[Cell]]:
    rows: list[list[Cell]] = [[*head, "count", "submissions"]]
    for f in found:
        behind = ", ".join(f.submissions)
        rows.append([f.exercise, f.name, f.text, f.example, len(f.submissions), behind])
    return rows


def defused(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    text = csv_cells.defused(one_line(cell))
    return f"'{text}" if text.startswith(("+", "-")) else text  # a name like a number is a text
