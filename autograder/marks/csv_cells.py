"""Make text from students safe in spreadsheets, which may run a cell as a formula. Entry point: `escape_formula`."""

from __future__ import annotations

import re

# A formula begins with one of these characters, possibly after characters that spreadsheets strip.
STARTS = "=+@\\-\uff1d\uff0b\uff0d\uff20"
INVISIBLE = r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\"]*+"
FORMULA = re.compile(f"{INVISIBLE}[{STARTS}]")
# A spreadsheet may split a line at a different separator than ours, so a cell may begin after any of these.
SEPARATORS = ",;\t|"
LINE_ENDS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
NUMBER = re.compile(r"[+-]?\d*[.,]?\d+|-")  # a single hyphen is Moodle's "no grade"
MAX_CELL = 32_000  # characters; Excel keeps 32,767 and Python's csv module reads 131,072


def escape_formula(cell: str, separator: str = ",", keep_numbers: bool = True) -> str:
    """Return text that no spreadsheet runs as a formula. With `keep_numbers`, text that is a number is unchanged.

    An apostrophe is inserted before anything that could start a formula, and long text is truncated. Text is not
    protected at `separator`, because the csv module quotes cells that contain it.
    """
    if keep_numbers and NUMBER.fullmatch(cell):
        return cell
    cell = CONTROL.sub("\ufffd", cell)
    cell = cell if len(cell) <= MAX_CELL else f"{cell[:MAX_CELL]}…"
    others = SEPARATORS.replace(separator, "")
    cell = re.sub(rf"([{others}{LINE_ENDS}]{INVISIBLE})(?=[{STARTS}])", r"\1'", cell)
    return f"'{cell}" if FORMULA.match(cell) or cell.startswith(("\t", "\r", "\n")) else cell
