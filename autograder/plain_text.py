"""Make text safe to display, and format names and numbers for use in sentences.

Use `printable` for a name or a sentence, `sanitize` for a message with several lines, `escaped` for text of any length, and
`escape_formula` for a cell of a spreadsheet, which may run text as a formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

LONGEST = 300  # maximum characters in a name or sentence
MAX_PROBLEMS = 50  # problems per submission
MAX_MESSAGE = 2000  # maximum number of characters in a message
MAX_NAMES = 10  # maximum number of names in a note


class Decision(str):
    """A note for the TA about something that could change a mark, and how to settle it."""


def printable(text: str) -> str:
    """Make text safe to print in a terminal: escape control, bidi and undecodable characters, and truncate long text."""
    short = text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}{text[-LONGEST:]}"
    shown = escaped(short)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 81]}…{shown[-80:]}"


def escaped(text: str, keep: str = "") -> str:
    """Escape control, bidi and undecodable characters, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else f"\\x{ord(character) - 0xDC00:02x}"  # an undecodable byte
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def sanitize(text: str) -> str:
    """Make text safe to display: escape control, bidi and surrogate characters, and truncate it."""
    text = text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
    return escaped(text, keep="\n")


def printable_problems(problems: Iterable[str]) -> tuple[str, ...]:
    """Return at most `MAX_PROBLEMS` distinct problems, made printable. If any are omitted, the last entry gives their number."""
    found = list(dict.fromkeys(map(printable, problems)))
    if len(found) > MAX_PROBLEMS:
        more = len(found) - MAX_PROBLEMS + 1
        found = [*found[: MAX_PROBLEMS - 1], f"and {more:,} more problems"]
    return tuple(found)


def counted(number: float, noun: str) -> str:
    """Return a number and its noun, such as "1 page" or "2 pages"."""
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def list_names(names: Iterable[str], most: int = 4) -> str:
    """Join the distinct names, for example "a, b and c". A long list ends in "and 3 others"."""
    found = list(dict.fromkeys(names))
    if len(found) > most + 1:
        found = [*found[:most], f"{len(found) - most} others"]
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def list_with_count(names: Sequence[str]) -> str:
    """Return a string with the number of names and the first `MAX_NAMES` names."""
    comma = "; " if any(", " in name for name in names) else ", "
    more = f"{comma}…" if len(names) > MAX_NAMES else ""
    return f"({len(names)}): {comma.join(names[:MAX_NAMES])}{more}"


def format_number(number: float) -> str:
    """Format points, percentages or hours without trailing zeros or binary rounding errors."""
    return f"{number:.12g}"


def utc_offset(time: datetime) -> str:
    """Return the UTC offset of an aware time, such as "UTC−05:00", or "UTC" if the offset is 0."""
    offset = time.isoformat()[-len("+00:00") :].replace("-", "−")
    return "UTC" if offset == "+00:00" else f"UTC{offset}"


def escape_surrogates(text: str) -> str:
    """Return the text with lone surrogates (such as "\\ud800") escaped, because UTF-8 cannot encode them."""
    return text.encode("utf-8", "backslashreplace").decode()


# ---- spreadsheets

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
