"""Text of students that is safe to show: escaped, cut, and not too many sentences of it."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 300  # characters of a name, or of a sentence
MAX_PROBLEMS = 50  # of one submission


def printable(text: str) -> str:
    """The text for a terminal: control, bidi and undecodable characters escaped; cut if long."""
    short = text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}{text[-LONGEST:]}"
    shown = "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"  # a byte that was not UTF-8
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in short
    )
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 81]}…{shown[-80:]}"


def bounded(problems: Iterable[str]) -> list[str]:
    """The problems without repetitions, long ones cut; of too many, the last sentence says how many more there are."""
    found = list(dict.fromkeys(problems))
    if len(found) > MAX_PROBLEMS:
        more = len(found) - MAX_PROBLEMS + 1
        found = [*found[: MAX_PROBLEMS - 1], f"and {more:,} more problems"]
    return [p if len(p) <= LONGEST else f"{p[: LONGEST - 1]}…" for p in found]
