"""Text of students that is safe in a spreadsheet: no cell begins a formula."""

from __future__ import annotations

import re

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
