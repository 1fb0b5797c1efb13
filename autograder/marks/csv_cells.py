"""Escape text from students, because spreadsheets may run it as a formula. Entry point: `escape_formula`."""

from __future__ import annotations

import re

# A formula begins with one of these characters, possibly after characters that spreadsheets strip.
STARTS = "=+@\\-\uff1d\uff0b\uff0d\uff20"
INVISIBLE = r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\"]*+"
FORMULA = re.compile(f"{INVISIBLE}[{STARTS}]")
# A spreadsheet may use a different separator, so a cell may begin after any of these.
SEPARATORS = ",;\t|"
LINE_ENDS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
PLAIN = re.compile(r"\w[\w .:()]*")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
NUMBER = re.compile(r"[+-]?\d*[.,]?\d+|-")  # Moodle writes "-" for "no grade"
# Maximum number of characters; Excel's limit is 32,767, and the csv module's is 131,072.
MAX_CELL = 32_000


def escape_formula(cell: str, separator: str = ",", keep_numbers: bool = True) -> str:
    """Escape text so that no spreadsheet runs it as a formula. With `keep_numbers`, numbers are left unchanged.

    An apostrophe is inserted before anything that could start a formula, and long text is truncated. Nothing is
    inserted after `separator`, because the csv module quotes cells that contain the separator.
    """
    if keep_numbers and NUMBER.fullmatch(cell):
        return cell
    if len(cell) <= MAX_CELL and PLAIN.fullmatch(cell):
        return cell
    cell = CONTROL.sub("\ufffd", cell)
    cell = cell if len(cell) <= MAX_CELL else f"{cell[:MAX_CELL]}…"
    others = SEPARATORS.replace(separator, "")
    cell = re.sub(rf"([{others}{LINE_ENDS}]{INVISIBLE})(?=[{STARTS}])", r"\1'", cell)
    return f"'{cell}" if FORMULA.match(cell) or cell.startswith(("\t", "\r", "\n")) else cell
