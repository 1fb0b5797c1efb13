"""Group test failures by their cause, so that feedback explains each cause only once."""

from __future__ import annotations

import re
from collections.abc import Sequence

# "raised" precedes an exception from the code. "got:" precedes an exception raised instead of the expected one.
RAISED = re.compile(
    r"\b(raised|got:) ((?:[A-Z]\w*)?(?:Error|Exception|Exit|Interrupt|Iteration))\b"
)
NO_MEMORY = re.compile(
    r"\[enforce fail at [^\]]{0,99}\][^\[]{0,199}?allocate (\d{1,30}) bytes\.[^\[]{0,99}?memory\)"
)
MISSING = re.compile(r"there is no \w+ `[^`]*`", re.IGNORECASE)
DTYPE = re.compile(r"should have dtype \w+; yours has dtype \w+")


def find_cause(message: str) -> tuple[str, str]:
    """Return a key for a failure's cause, and a note that replaces the message if the cause repeats.

    Exceptions whose messages differ only in numbers have the same cause.
    """
    if raised := RAISED.search(message):
        text = message[raised.end() :]
        text = (text.rpartition(" (cell ")[0] or text).strip(": .")
        return f"{raised[2]}: {re.sub('[0-9]+', '#', text)}", f"Same {raised[2]} as above."
    if "should be a tensor" in message:
        return "no tensor", "Also not a tensor."
    if missing := MISSING.search(message):
        return missing[0].lower(), "The same name is missing."
    if dtype := DTYPE.search(message):
        return dtype[0], "Same wrong dtype as above."
    return message, "Same as above."


def shared_message(messages: Sequence[str]) -> str:
    """Return one message if several failures all have the same cause, otherwise ""."""
    if len(messages) < 2 or len({find_cause(text)[0] for text in messages}) > 1:
        return ""
    # Prefer the message that shows where the code raised the exception.
    return next(
        (text for text in messages if (r := RAISED.search(text)) and r[1] == "raised"), messages[0]
    )


def order_by_cause(
    messages: Sequence[str], visible: int, mark_repeats: bool
) -> list[tuple[int, str]]:
    """Order failures so that, if possible, the first `visible` have different causes. Return their indices and messages.

    The message of a repeated cause is replaced with a short note, or with "" if `mark_repeats` is false.
    """
    first: dict[str, int] = {}
    for n, text in enumerate(messages):
        first.setdefault(find_cause(text)[0], n)
    begin = list(first.values())[:visible]
    order = [*begin, *(n for n in range(len(messages)) if n not in begin)]

    def shorten(n: int) -> str:
        if not messages[n] or n in first.values():
            return messages[n]
        return find_cause(messages[n])[1] if mark_repeats else ""

    return [(n, shorten(n)) for n in order]


def simplify(message: str) -> str:
    """Shorten PyTorch and Python error messages that contain internal details."""
    message = NO_MEMORY.sub(lambda m: f"out of memory: cannot allocate {_size(int(m[1]))}", message)
    return message.replace("SystemExit: None", "SystemExit")


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
