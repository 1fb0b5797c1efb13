"""Write the class report: an HTML page, plus its tables as CSV files."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from autograder.course.files import make_folder, write_output
from autograder.feedback.class_analysis import BINS, Analysis, FailureGroup
from autograder.feedback.exercise_feedback import STATUS
from autograder.feedback.templates import render
from autograder.marks.csv_cells import escape_formula
from autograder.plain_text import one_line

Cell = str | float | None

# The columns of exercises.csv, each of which is an attribute of `ExerciseStats`.
EXERCISE_COLUMNS = (
    "max_points",
    "mean_score",
    "not_attempted",
    "submissions",
    "discrimination",
    "substituted",
    "median_seconds",
    "longest_seconds",
)
# Each of these maps CSV headings to attributes of `FailureGroup`.
MISTAKE_COLUMNS = {"exercise": "exercise", "mistake": "name", "explanation": "text"}
FAILURE_COLUMNS = {
    "exercise": "exercise",
    "first_failed_test": "name",
    "message": "text",
    "example": "example",
}


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write `report.html` and the CSV files to a folder, and return their paths.

    Raises:
        FileError: The folder or a file cannot be written.
    """
    make_folder(folder)
    page = folder / "report.html"
    write_output(page, html(analysis).encode())
    files = [page]
    for name, rows in tables(analysis).items():
        file = folder / f"{name}.csv"
        text = io.StringIO(newline="")
        csv.writer(text).writerows([[_escape(cell) for cell in row] for row in rows])
        write_output(file, text.getvalue().encode())
        files.append(file)
    return files


def _escape(cell: Cell) -> Cell:
    """Escape a text cell so that a spreadsheet displays it unchanged, even if it looks like a number, such as "+1"."""
    return escape_formula(one_line(cell), keep_numbers=False) if isinstance(cell, str) else cell


def html(analysis: Analysis) -> str:
    """Return the report as an HTML page."""
    scores = [(e.name, e.mean_score) for e in analysis.exercises if e.mean_score is not None]
    imperfect = [(name, score) for name, score in scores if score < 1]
    return render(
        "class.html",
        language=analysis.language,
        it=analysis,
        hardest=sorted(imperfect, key=lambda one: one[1])[:3],
        width=100 // BINS,
        mean=statistics.fmean(analysis.points) if analysis.points else 0.0,
        median=statistics.median(analysis.points) if analysis.points else 0.0,
        deviation=statistics.pstdev(analysis.points) if analysis.points else 0.0,
        status=STATUS,
    )


def tables(analysis: Analysis) -> dict[str, list[list[Cell]]]:
    """Return a dictionary that maps each CSV file's name to its rows. The first row contains the headings."""
    return {
        "submissions": _submissions(analysis),
        "exercises": _exercises(analysis),
        "tests": _tests(analysis),
        "known_mistakes": _groups(analysis.mistakes, MISTAKE_COLUMNS),
        "other_failures": _groups(analysis.other_failures, FAILURE_COLUMNS),
    }


def _submissions(analysis: Analysis) -> list[list[Cell]]:
    names = [e.name for e in analysis.exercises]
    labels = [f"{e.name} (optional)" if e.optional else e.name for e in analysis.exercises]
    head: list[Cell] = ["student", "points", "late_days", "late_per_cent", "points_before"]
    head += ["max_points", *labels, "problems"]
    rows: list[list[Cell]] = []
    for row in analysis.rows:
        total = [row.points, row.late.days, row.late.percent, row.points_before, row.max_points]
        by_exercise = [row.exercises.get(name) for name in names]
        rows.append([row.label, *total, *by_exercise, "; ".join(row.problems)])
    return [head, *rows]


def _exercises(analysis: Analysis) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["exercise", *EXERCISE_COLUMNS]]
    for e in analysis.exercises:
        values = (getattr(e, attribute) for attribute in EXERCISE_COLUMNS)
        rows.append([e.name, *(v if v is None else round(v, 4) for v in values)])
    return rows


def _tests(analysis: Analysis) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["exercise", "test", "sentence", "passed", "attempts"]]
    for e in analysis.exercises:
        rows += [[e.name, t.name, t.sentence, t.passed, t.attempts] for t in e.tests]
    return rows


def _groups(groups: Sequence[FailureGroup], columns: Mapping[str, str]) -> list[list[Cell]]:
    """Return a table of groups. `columns` maps headings to attributes of `FailureGroup`."""
    rows: list[list[Cell]] = [[*columns, "count", "students"]]
    for group in groups:
        cells = [getattr(group, attribute) for attribute in columns.values()]
        rows.append([*cells, len(group.submissions), ", ".join(group.submissions)])
    return rows
