"""Show a class's marks in the terminal: a progress bar during grading, then a table with one row per student."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from autograder.marks.class_list import StudentResult
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.plain_text import counted, format_number, utc_offset

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
OVERRIDDEN = ("O", "cyan")
LONGEST = 400  # maximum number of characters in a student's list of problems
INTERVAL = 30.0  # seconds between progress messages, if the output is not a terminal
NARROW, WIDE = 32, 60  # maximum length of a name on one line: NARROW in a terminal, WIDE in a file


def progress(marks: Iterable[SubmissionMarks], console: Console) -> Iterator[SubmissionMarks]:
    """Yield the marks while showing how many submissions have been graded.

    Submissions are read while others are graded, so the class size is unknown until the end. If the console is not a
    terminal, print a message every `INTERVAL` seconds.
    """
    if not console.is_terminal:
        yield from _progress_lines(marks, console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed} graded, last {task.fields[student]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, student="")
        for mark in marks:
            bar.update(task, advance=1, student=mark.student[:30])
            yield mark


def _progress_lines(
    marks: Iterable[SubmissionMarks], console: Console
) -> Iterator[SubmissionMarks]:
    printed = time.monotonic()
    for number, mark in enumerate(marks, 1):
        if time.monotonic() - printed >= INTERVAL:
            printed = time.monotonic()
            console.print(
                f"autograder: {counted(number, 'submission')} graded so far", highlight=False
            )
        yield mark


def table(rows: Sequence[StudentResult], width: int = NARROW) -> Table:
    """Return a class table: points, and a status symbol per exercise in course order.

    Names longer than `width` are wrapped.

    There is one row per student with a submission. If any submission loses points because it is late, an extra column
    shows the points after the penalty.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("student", overflow="fold", max_width=width)
    result.add_column("points", justify="right")
    is_penalised = any(row.late.percent and row.points is not None for row in rows)
    if is_penalised:
        result.add_column("after penalty", justify="right")
    result.add_column("exercises", no_wrap=True)
    for row in rows:
        marks = row.marks
        if marks is None:
            continue
        points = (
            "none"
            if marks.points is None
            else f"{format_number(marks.points)} / {format_number(marks.max_points)}"
        )
        late = [_after_penalty(row)] if is_penalised else []
        result.add_row(Text(row.entry.student), points, *late, _signs(marks.exercises))
    return result


def problem_lines(rows: Sequence[StudentResult]) -> Iterator[str]:
    """Yield one line per graded submission with problems: the student and as many of the problems as fit."""
    for row in rows:
        if row.marks and row.marks.points is not None and row.marks.problems:
            yield f"{row.entry.student}: {_join(row.marks.problems)}"


def _join(problems: Sequence[str]) -> str:
    """Return the first problem, as many others as fit, and the number of remaining problems."""
    shown = "; ".join(problems[:1])[:LONGEST]
    count = min(len(problems), 1)
    while count < len(problems) and len(shown) + 2 + len(problems[count]) <= LONGEST:
        shown += f"; {problems[count]}"
        count += 1
    return shown + (f" (+{len(problems) - count} more)" if count < len(problems) else "")


def legend(rows: Sequence[StudentResult]) -> str:
    """Explain the symbols in the table."""
    signs = [f"{sign} {status.replace('_', ' ')}" for status, (sign, _) in SIGNS.items()]
    signs.append(f"{OVERRIDDEN[0]} overridden")
    if any(e.optional for row in rows if row.marks for e in row.marks.exercises):
        signs.append("+ optional exercises")
    return "  ".join(signs)


def list_rows(rows: Sequence[StudentResult], day: str, width: int = NARROW) -> Table:
    """Return a day's table of students: the time, file, points and lateness of the submission that counts.

    The times are in this machine's time zone. The header shows the UTC offset if it is the same for all times.
    """
    offsets = {utc_offset(row.time.astimezone()) for row in rows if row.time}
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("student", overflow="fold", max_width=width)
    result.add_column(f"submitted ({min(offsets)})" if len(offsets) == 1 else "submitted")
    result.add_column("final points", justify="right")
    result.add_column("late")
    result.add_column("file", overflow="fold")
    for row in rows:
        if row.marks:
            points = "none" if row.points is None else format_number(row.points)
            time = _local_time(row.time, len(offsets) > 1) if row.time else "unknown"
            days = counted(row.late.days, "day")
            percent = f" (−{format_number(row.late.percent)}%)" if row.late.percent else ""
            late = f"{days}{percent}" if row.late.days else ""
            late = late or ("within grace" if row.entry.hours_late(day) else "")
            late = "extension" if row.entry.extension_on(day) and not row.late.days else late
            late = "excused" if row.entry.is_excused(day) else late
            path = Text(row.marks.path)
            result.add_row(Text(row.entry.student), time, points, late, path)
    return result


def _local_time(time: datetime, with_offset: bool) -> str:
    local = time.astimezone()
    return f"{local:%Y-%m-%d %H:%M}" + (f" {utc_offset(local)}" if with_offset else "")


def _after_penalty(row: StudentResult) -> str:
    if not row.late.percent or row.points is None:
        return ""
    return f"{format_number(row.points)} ({counted(row.late.days, 'day')} late)"


def _signs(exercises: list[ExerciseMarks]) -> Text:
    """Return one symbol per exercise. Optional exercises come last, after a plus sign."""
    signs = [Text(*_sign(exercise)) for exercise in exercises if not exercise.optional]
    extra = [Text(*_sign(exercise)) for exercise in exercises if exercise.optional]
    return Text("").join([*signs, *([Text(" + ", "dim"), *extra] if extra else [])])


def _sign(exercise: ExerciseMarks) -> tuple[str, str]:
    has_points = exercise.override is not None and exercise.override.points is not None
    return OVERRIDDEN if has_points else SIGNS[exercise.status]
