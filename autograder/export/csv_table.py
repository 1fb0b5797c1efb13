"""Tables as text: what is read is kept, and no cell that is written is a formula.

A spreadsheet splits a file at the separator that its user or country prefers, whatever we wrote: text after
a separator or a line end inside a cell may begin a cell there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course.config import CourseError
from autograder.marks.csv_cells import escape_formula
from autograder.submissions.roster import guess_delimiter


@dataclass(frozen=True)
class Table:
    """A file that another system made: its columns, its rows, and what stands between its cells."""

    file: Path
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    delimiter: str

    def column(self, name: str) -> int:
        """Where the column stands.

        Raises:
            CourseError: it is not there.
        """
        if name not in self.head:
            raise CourseError(
                f"{self.file}: there is no column {name!r}; it has {', '.join(self.head)}"
            )
        return list(self.head).index(name)


def read(file: Path) -> Table:
    """A CSV file with a first line of names; short rows are filled up.

    Raises:
        CourseError: it can not be read, or is none.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        between = guess_delimiter(text)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True))
    except OSError as error:
        raise CourseError(f"{file} can not be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{file} is no CSV in UTF-8: {error}") from None
    head, *rows = lines or [[]]
    filled = [row + [""] * (len(head) - len(row)) for row in rows if row]
    return Table(file, [name.strip() for name in head], filled, between)


def text(rows: Iterable[Sequence[str | float]], between: str = ",") -> str:
    """CSV: quoted where that is needed, numbers to 0.01, and text that a spreadsheet would run made plain text."""
    made = io.StringIO(newline="")
    writer = csv.writer(made, delimiter=between, lineterminator="\n")
    writer.writerows([[_written(cell, between) for cell in row] for row in rows])
    return made.getvalue()


def number(value: float) -> str:
    """A number to 0.01, with a point."""
    return f"{round(value, 2):.10g}"


def _written(cell: str | float, between: str) -> str:
    return escape_formula(cell, between) if isinstance(cell, str) else number(cell)
