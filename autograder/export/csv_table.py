"""Read CSV tables from other systems, and write tables that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course.config import CourseError
from autograder.marks import class_list
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.class_notes import note_of_others
from autograder.plain_text import Decision, escape_formula, format_number, list_with_count
from autograder.submissions.roster import guess_delimiter


@dataclass(frozen=True)
class Table:
    """A CSV file from another system: its column names, rows and delimiter. `kind` describes it in error messages."""

    file: Path
    kind: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    delimiter: str

    def column(self, name: str) -> int:
        """Return the index of a column."""
        if name not in self.head:
            raise CourseError(
                f"{self.file} is not {self.kind}: it has no column {name!r}. Its columns are {', '.join(self.head)}"
            )
        return list(self.head).index(name)


def read(file: Path, kind: str) -> Table:
    """Read a CSV file whose first row contains the column names. Short rows are padded with empty cells.

    `kind` describes the file that a user should pass, such as "a Canvas gradebook".
    """
    # Moodle's worksheet may contain texts that students entered online, which can exceed the module's default limit.
    csv.field_size_limit(sys.maxsize)
    try:
        text = file.read_text(encoding="utf-8-sig")
        delimiter = guess_delimiter(text)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{file} is not a CSV file in UTF-8: {error}") from None
    head, *rows = lines or [[]]
    padded = [row + [""] * (len(head) - len(row)) for row in rows if row]
    return Table(file, kind, [name.strip() for name in head], padded, delimiter)


def to_csv(rows: Iterable[Sequence[str | float]], delimiter: str = ",") -> str:
    """Format rows as CSV. Round numbers to two decimal places, and escape text that a spreadsheet could run as a formula."""
    output = io.StringIO(newline="")
    writer = csv.writer(output, delimiter=delimiter, lineterminator="\n")
    writer.writerows([[_format_cell(cell, delimiter) for cell in row] for row in rows])
    return output.getvalue()


def or_empty(points: float | None) -> float | str:
    """Return the points, or an empty cell if there is no grade."""
    return "" if points is None else points


def existing_grades(file: Path, grades: Iterable[tuple[str, str, float | None]]) -> Iterator[str]:
    """Yield a note about existing grades that change, and a note about those that are kept because the submission has no grade.

    Each item of `grades` is a triple: the student's label, the existing cell, and the new grade or None.
    """
    existing = [(label, old.strip(), new) for label, old, new in grades if old.strip(" -")]
    changed = [
        f"{label}: {old} → {format_points(new)}"
        for label, old, new in existing
        if new is not None and number(old) != round(new, 2)
    ]
    kept = [f"{label}: {old}" for label, old, new in existing if new is None]
    if changed:
        yield Decision(
            f"these grades in {file} change {list_with_count(changed)}. If the old ones are right, enter them with "
            "`autograder override`"
        )
    if kept:
        yield f"these grades in {file} are kept, because the submissions have no grade {list_with_count(kept)}"


def zeros(students: Sequence[str]) -> Iterator[str]:
    """Yield a note about the students who get 0 points with `--missing zero`."""
    if students:
        yield Decision(
            f"these students get 0 points, because they have no submission ({len(students)}): {', '.join(students)}"
        )


def number(text: str) -> float | None:
    """Return the number in a cell, which may have a decimal comma, or None if the cell contains no number."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def format_points(value: float) -> str:
    """Format a number with a decimal point, rounded to two decimal places."""
    return format_number(round(value, 2))


def _format_cell(cell: str | float, delimiter: str) -> str:
    return escape_formula(cell, delimiter) if isinstance(cell, str) else format_points(cell)


def choose(
    results: Iterable[StudentResult],
    line_of: Callable[[StudentResult], int | None],
    names: Sequence[str],
    group: GroupRule,
) -> tuple[dict[int, StudentResult], list[str]]:
    """Return the result that counts for each line of a table, and a note for each line that matches several submissions.

    The choice is the same as in `class_list.results`. `names` contains the student's name on each line, for the notes.
    """
    by_line: dict[int, list[StudentResult]] = {}
    for result in results:
        if result.marks and (line := line_of(result)) is not None:
            by_line.setdefault(line, []).append(result)
    chosen: dict[int, StudentResult] = {}
    notes: list[str] = []
    for line, same in by_line.items():
        chosen[line] = same[0]
        if len(same) > 1:
            others = [result.marks for result in same if result.marks]
            marks = class_list.counting(others, group)
            chosen[line] = next(result for result in same if result.marks is marks)
            notes += note_of_others(names[line], chosen[line], others)
    return chosen, notes


def not_entered(
    results: Iterable[StudentResult], line_of: Callable[[StudentResult], int | None], file: Path
) -> list[str]:
    """Return a note for each student whose points could not be entered in a table."""
    return [
        Decision(
            f"{result.entry.label} is not in {file}: {format_number(result.points)} points were not entered. "
            "If the student is in a new download of this file, use that. Otherwise, enter the student's id in roster.csv"
        )
        for result in results
        if result.points is not None and line_of(result) is None
    ]
