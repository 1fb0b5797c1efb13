"""Show a class in the terminal: a progress bar while it is graded, then a table with one row per submission."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from autograder.course.late_policy import Lateness
from autograder.marks.model import ExerciseMarks, SubmissionMarks

SIGNS = {
    "passed": ("✓", "green"),
    "partial": ("◐", "yellow"),
    "failed": ("✗", "red"),
    "not_attempted": ("·", "dim"),
    "error": ("E", "red"),
    "timed_out": ("T", "red"),
    "crashed": ("C", "red"),
    "not_allowed": ("N", "magenta"),
}
# Some submissions take ten times as long as others, so the estimate averages over minutes.
SPEED_WINDOW_SECONDS = 180.0
LEGEND = (
    "✓ passed  ◐ partial  ✗ failed  · not attempted  E error  T timed out  C crashed  N not allowed"
)


def progress(
    marks: Iterable[SubmissionMarks], total: int, console: Console
) -> Iterator[SubmissionMarks]:
    """Yield the marks and show a progress bar meanwhile, with the time left at the recent speed."""
    columns = (
        TextColumn("grading {task.fields[student]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns, console=console, transient=True, speed_estimate_period=SPEED_WINDOW_SECONDS
    ) as bar:
        task = bar.add_task("", total=total, student="")
        for mark in marks:
            bar.update(task, advance=1, student=mark.student[:30])
            yield mark


def table(marks: Sequence[SubmissionMarks], lateness: Sequence[Lateness] = ()) -> Table:
    """Return the table of a class: points, exercises in the course's order as signs, and problems.

    If any submission is late, another column shows the points after the penalty.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("student", overflow="fold", max_width=32)
    result.add_column("points", justify="right")
    any_late = any(late.days for late in lateness)
    if any_late:
        result.add_column("after penalty", justify="right")
    result.add_column("exercises", no_wrap=True)
    result.add_column("problems", overflow="fold")
    for number, mark in enumerate(marks):
        points = f"{mark.points:g} / {mark.max_points:g}"
        first = mark.problems[0] if mark.problems else ""
        more = f" (+{len(mark.problems) - 1} more)" if len(mark.problems) > 1 else ""
        late = [_after_penalty(lateness[number], mark.points)] if any_late else []
        signs = _signs(mark.exercises)
        result.add_row(Text(mark.student), points, *late, signs, Text(first[:200] + more))
    return result


def _after_penalty(late: Lateness, points: float) -> str:
    if not late.days:
        return ""
    return f"{late.reduce(points):g} ({late.days} {'day' if late.days == 1 else 'days'} late)"


def _signs(exercises: list[ExerciseMarks]) -> Text:
    return Text("").join(Text(*SIGNS[exercise.status]) for exercise in exercises)
