"""What failures have in common, so that one cause is told once, however many tests it fails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# An exception, which a test of a ValueError tells in other words than one of values.
RAISED = re.compile(
    r"\b(raised|seen:) ((?:[A-Z]\w*)?(?:Error|Exception|Exit|Interrupt|Iteration))\b"
)
NO_MEMORY = re.compile(
    r"\[enforce fail at [^\]]{0,99}\][^\[]{0,199}?allocate (\d{1,30}) bytes\.[^\[]{0,99}?memory\)"
)
MISSING = re.compile(r"there is no \w+ `[^`]*`", re.IGNORECASE)
DTYPE = re.compile(r"should have the dtype \w+, yours has \w+")


@dataclass(frozen=True)
class Cause:
    """What is the same in failures that have one cause, and how a later one of them says so."""

    key: str
    again: str


def cause(seen: str) -> Cause:
    """The cause of a failure, as far as what was seen tells it; numbers in an exception's text are no difference."""
    if raised := RAISED.search(seen):
        text = seen[raised.end() :]
        text = (text.rpartition(" (cell ")[0] or text).strip(": .")
        return Cause(f"{raised[2]}: {re.sub('[0-9]+', '#', text)}", f"{raised[2]} again, as above.")
    if "should be a tensor" in seen:
        return Cause("no tensor", "No tensor again, as above.")
    if missing := MISSING.search(seen):
        return Cause(missing[0].lower(), "The same name is missing, as above.")
    if dtype := DTYPE.search(seen):
        return Cause(dtype[0], "The same dtype again, as above.")
    return Cause(seen, "The same as above.")


def common(seen: Sequence[str]) -> str:
    """What stands for all of these failures, where there are several and they have one cause; else nothing."""
    if len(seen) < 2 or len({cause(text).key for text in seen}) > 1:
        return ""
    # Where the code raised, not where another exception was due.
    return next((text for text in seen if (r := RAISED.search(text)) and r[1] == "raised"), seen[0])


def told_once(seen: Sequence[str], open_: int, repeated: bool = True) -> list[tuple[int, str]]:
    """The failures by number, in an order that begins with different causes; what repeats one says only that, or nothing."""
    first: dict[str, int] = {}
    for n, text in enumerate(seen):
        first.setdefault(cause(text).key, n)
    begin = list(first.values())[:open_]
    order = [*begin, *(n for n in range(len(seen)) if n not in begin)]

    def told(n: int) -> str:
        if not seen[n] or n in first.values():
            return seen[n]
        return cause(seen[n]).again if repeated else ""

    return [(n, told(n)) for n in order]


def plain(seen: str) -> str:
    """A message without what Python and torch say to their own developers."""
    seen = NO_MEMORY.sub(lambda m: f"there is no memory for another {_size(int(m[1]))}", seen)
    return seen.replace("SystemExit: None", "SystemExit")


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
