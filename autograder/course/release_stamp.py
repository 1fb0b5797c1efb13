"""Add a stamp with the day and version to a release's metadata, and read the stamp from a submission.

Marks do not depend on the stamp. Colab and older tools drop unknown metadata, so a notebook without a stamp is graded
like any other. Entry points: `stamp`, `find_stamp` and `stamp_problems`.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograder.course.config import Day


import msgspec

from autograder.course.config import Day

KEY = "notebook_autograder"
# The stamp's key as it appears in the notebook's JSON. Cell sources cannot match, because their quotes are escaped.
QUOTED_KEY = b'"' + KEY.encode() + b'":'
STAMP = re.compile(rb'\s{0,8}"(\w{1,40} [0-9a-f]{12})"')


@lru_cache(maxsize=8)
def stamp(day: Day) -> str:
    """Return the day's name and a hash of the day's stubs, visible checks and provided code.

    Editing the prose, demonstrations or solutions does not change the stamp, because answers do not depend on them.
    """
    digest = hashlib.sha256()
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role in ("exercise", "checks", "given"):
            digest.update(cell.stub.encode() + b"\0")
    return f"{day.name} {digest.hexdigest()[:12]}"


def find_stamp(data: bytes | bytearray) -> str:
    """Return the last stamp in a file, or "" if there is none.

    The file is searched instead of parsed, because a notebook may contain hundreds of megabytes of output.
    """
    at = len(data)
    while (at := data.rfind(QUOTED_KEY, 0, at)) >= 0:
        found = STAMP.match(data, at + len(QUOTED_KEY))
        if found and data[at - 1 : at] != b"\\":
            return found[1].decode()
    return ""


def stamp_problems(found: str, day: Day) -> list[str]:
    """Return a list with a problem if the stamp is for a different day or version. Otherwise, return an empty list."""
    name, _, _ = found.partition(" ")
    if not found or found == stamp(day):
        return []
    if name != day.name:
        return [f"this is the notebook for {name}, but it was graded as {day.name}"]
    return [f"this notebook is from a different release of {day.name}; its exercises have changed"]


class _Cell(msgspec.Struct):
    cell_type: str
    source: str | list[str]


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def released_code(day: Day) -> list[str]:
    """Return the sources of the code cells in the students' notebook, or an empty list if it is missing or damaged."""
    try:
        notebook = msgspec.json.decode(day.release.read_bytes(), type=_Notebook)
    except (OSError, msgspec.MsgspecError):
        return []
    return ["".join(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
