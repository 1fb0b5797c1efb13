"""Tables as text: what is read is kept, and no cell that is written is a formula.

A spreadsheet splits a file at the separator that its user or country prefers, whatever we wrote: text after
a separator or a line end inside a cell may begin a cell there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course import CourseError
from autograder.roster import delimiter

# What begins a formula, also behind spaces, quotes and characters that a spreadsheet strips or drops.
STARTS = "=+@\\-\uff1d\uff0b\uff0d\uff20"
INVISIBLE = r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\"]*+"
FORMULA = re.compile(f"{INVISIBLE}[{STARTS}]")
# What begins a cell in the middle of a text: separators, where another one is used than ours, and line ends.
SEPARATORS = ",;\t|"
LINE_ENDS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
NUMBER = re.compile(r"[+-]?\d*[.,]?\d+|-")  # a hyphen alone is Moodle's "no grade"
LONGEST = 32_000  # characters of a cell: a spreadsheet keeps 32,767, `csv` reads 131,072


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
        between = delimiter(text)
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
    return defused(cell, between) if isinstance(cell, str) else number(cell)


def defused(cell: str, between: str = ",") -> str:
    """Text that no spreadsheet takes for a formula, whichever separator it splits at; numbers stay numbers.

    An apostrophe comes before all that would begin one, and overlong text is cut. At our own separator no text is
    split, for there it is in quotes.
    """
    if NUMBER.fullmatch(cell):
        return cell
    cell = CONTROL.sub("\ufffd", cell)
    cell = cell if len(cell) <= LONGEST else f"{cell[:LONGEST]}…"
    others = SEPARATORS.replace(between, "")
    cell = re.sub(rf"([{others}{LINE_ENDS}]{INVISIBLE})(?=[{STARTS}])", r"\1'", cell)
    return f"'{cell}" if FORMULA.match(cell) or cell.startswith(("\t", "\r", "\n")) else cell
