"""The class in the terminal: a line a submission while it is graded, and what each exercise came to."""

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
PACE = (
    180.0  # seconds of which the pace is taken; some submissions take ten times as long as others
)
LEGEND = (
    "✓ passed  ◐ partial  ✗ failed  · not attempted  E error  T timed out  C crashed  N not allowed"
)


def progress(
    marks: Iterable[SubmissionMarks], total: int, console: Console
) -> Iterator[SubmissionMarks]:
    """The same marks, with a line of progress while they come, and how long the rest takes at the pace of the last minutes."""
    columns = (
        TextColumn("grading {task.fields[student]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=PACE) as bar:
        task = bar.add_task("", total=total, student="")
        for mark in marks:
            bar.update(task, advance=1, student=mark.student[:30])
            yield mark


def table(marks: Sequence[SubmissionMarks], lateness: Sequence[Lateness] = ()) -> Table:
    """A row a submission: points, what is left of them where some are late, and a sign an exercise in the course's order."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("student", overflow="fold", max_width=32)
    shown.add_column("points", justify="right")
    some_late = any(late.days for late in lateness)
    if some_late:
        shown.add_column("late", justify="right")
    shown.add_column("exercises", no_wrap=True)
    shown.add_column("problems", overflow="fold")
    for number, mark in enumerate(marks):
        points = f"{mark.points:g} / {mark.max_points:g}"
        first = mark.problems[0] if mark.problems else ""
        more = f" (+{len(mark.problems) - 1} more)" if len(mark.problems) > 1 else ""
        late = [_left(lateness[number], mark.points)] if some_late else []
        signs = _signs(mark.exercises)
        shown.add_row(Text(mark.student), points, *late, signs, Text(first[:200] + more))
    return shown


def _left(late: Lateness, points: float) -> str:
    """The points that are left, and after how many days."""
    return f"{late.after(points):g} ({late.days} d)" if late.days else ""


def _signs(exercises: list[ExerciseMarks]) -> Text:
    return Text("").join(Text(*SIGNS[exercise.status]) for exercise in exercises)
