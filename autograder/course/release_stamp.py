"""The stamp in a notebook's metadata: of which day it is, and of which release.

Nothing depends on it: Colab and older tools drop what they do not know, and a notebook without it is graded like any other.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograder.course.config import Day

KEY = "transformer_exercises"
# As JSON, whole or cut off: within a cell's source the quotes would be escaped.
QUOTED = b'"' + KEY.encode() + b'":'
STAMP = re.compile(rb'\s{0,8}"(\w{1,40} [0-9a-f]{12})"')


@lru_cache(maxsize=8)
def stamp(day: Day) -> str:
    """The day and a hash of what an answer may depend on: stubs, visible checks and what is given.

    A correction of the text, of a demonstration or of a solution makes no notebook old.
    """
    digest = hashlib.sha256()
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role in ("exercise", "checks", "given"):
            digest.update(cell.stub.encode() + b"\0")
    return f"{day.name} {digest.hexdigest()[:12]}"


def of(data: bytes | bytearray) -> str:
    """The last stamp in what was handed in, or ""; looked for by its key, as there may be hundreds of megabytes of outputs."""
    at = len(data)
    while (at := data.rfind(QUOTED, 0, at)) >= 0:
        found = STAMP.match(data, at + len(QUOTED))
        if found and data[at - 1 : at] != b"\\":
            return found[1].decode()
    return ""


def noticed(found: str, day: Day) -> list[str]:
    """What there is to say about the stamp of a submission."""
    name, _, _ = found.partition(" ")
    if not found or found == stamp(day):
        return []
    if name != day.name:
        return [f"this is the notebook of {name}; it was graded as {day.name}"]
    return [f"this notebook is of another release of {day.name}: its exercises have changed since"]
