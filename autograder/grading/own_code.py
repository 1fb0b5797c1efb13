"""Select the code that a feedback page shows for an exercise. Entry point: `own_statements`."""

from __future__ import annotations

import re
from collections.abc import Collection

from autograder.marks.model import Statement, sanitize
from autograder.slicing.client import Slice

MAX_CHARACTERS = 12_000  # for one exercise
DEFINITION = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)


def own_statements(code: Slice, exercises: Collection[str]) -> list[Statement]:
    """Return the student's statements in a slice, without the definitions of other exercises and the course's own code.

    If they are too long to read, only the first ones are returned.
    """
    shown: list[Statement] = []
    left = MAX_CHARACTERS
    for piece in code.pieces:
        name = DEFINITION.search(piece.source[:MAX_CHARACTERS])
        is_other = name is not None and name[1] in exercises and name[1] != code.exercise
        if piece.given or is_other:
            continue
        left -= len(piece.source)
        if left < 0:
            break
        lines = [sanitize(line.expandtabs(4)) for line in piece.source.split("\n")]
        shown.append(Statement(piece.cell, piece.line, "\n".join(lines)))
    return shown
