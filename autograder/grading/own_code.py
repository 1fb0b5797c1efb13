"""Select the code that a feedback page shows for an exercise. Entry point: `own_statements`."""

from __future__ import annotations

import re

from autograder.course.config import Day
from autograder.course.renames import older_names
from autograder.marks.model import Statement, sanitize
from autograder.slicing.client import Slice

MAX_CHARACTERS = 12_000  # per exercise
DEFINITION = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)


def own_statements(code: Slice, day: Day) -> list[Statement]:
    """Return the student's statements in a slice, excluding other exercises' definitions and the course's code.

    If they are longer than `MAX_CHARACTERS` in total, only the first ones are returned.
    """
    shown: list[Statement] = []
    older = older_names(day)
    left = MAX_CHARACTERS
    for piece in code.pieces:
        name = DEFINITION.search(piece.source[:MAX_CHARACTERS])
        defined = older.get(name[1], name[1]) if name else ""
        is_other = defined in day.names and defined != code.exercise
        if piece.given or is_other:
            continue
        left -= len(piece.source)
        if left < 0:
            break
        lines = [sanitize(line.expandtabs(4)) for line in piece.source.split("\n")]
        shown.append(Statement(piece.cell, piece.line, "\n".join(lines)))
    return shown
