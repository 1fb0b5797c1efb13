"""Make text safe to display, and format numbers for use in sentences. Entry points: `printable`, `sanitize`, `bounded`,
`counted`, `list_with_count` and `format_number`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

LONGEST = 300  # maximum characters in a name or sentence
MAX_PROBLEMS = 50  # problems per submission
MAX_MESSAGE = 2000  # maximum number of characters in a message
MAX_NAMES = 10  # maximum number of names in a note


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


def one_line(text: str) -> str:
    """Sanitize text and replace line breaks with spaces."""
    return sanitize(text).replace("\n", " ")


def counted(number: float, noun: str) -> str:
    """Return a number and its noun, such as "1 page" or "2 pages"."""
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def list_with_count(names: Sequence[str]) -> str:
    """Return a string with the number of names and the first `MAX_NAMES` names."""
    comma = "; " if any(", " in name for name in names) else ", "
    more = f"{comma}…" if len(names) > MAX_NAMES else ""
    return f"({len(names)}): {comma.join(names[:MAX_NAMES])}{more}"


def format_number(number: float) -> str:
    """Format points, percentages or hours without trailing zeros or binary rounding errors."""
    return f"{number:.12g}"


def utc_offset(time: datetime) -> str:
    """Return a time's UTC offset, such as "UTC−05:00", or "UTC" if the offset is 0."""
    minutes = round((time.utcoffset() or timedelta()) / timedelta(minutes=1))
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'−' if minutes < 0 else '+'}{hours:02}:{rest:02}" if minutes else "UTC"


def escape_surrogates(text: str) -> str:
    """Return the text with lone surrogates (such as "\\ud800") escaped, because UTF-8 cannot encode them."""
    return text.encode("utf-8", "backslashreplace").decode()


def bounded(problems: Iterable[str]) -> list[str]:
    """Return at most `MAX_PROBLEMS` distinct problems, each truncated.

    If any are omitted, the last entry gives their number.
    """
    found = list(dict.fromkeys(problems))
    if len(found) > MAX_PROBLEMS:
        more = len(found) - MAX_PROBLEMS + 1
        found = [*found[: MAX_PROBLEMS - 1], f"and {more:,} more problems"]
    return [p if len(p) <= LONGEST else f"{p[: LONGEST - 1]}…" for p in found]
