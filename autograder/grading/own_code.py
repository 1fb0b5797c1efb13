"""Select the code that a feedback page shows for an exercise. Entry point: `own_statements`."""

from __future__ import annotations

import re

from autograder.course.config import Day, older_names
from autograder.marks.model import Statement
from autograder.plain_text import sanitize
from autograder.slicing.slicer import Slice
from autograder.submissions.cell import definitions
from autograder.submissions.reader_messages import Piece

MAX_CHARACTERS = 12_000  # per exercise


def own_statements(code: Slice, day: Day) -> list[Statement]:
    """Return the student's statements in a slice, excluding other exercises' definitions and the course's code.

    The result has at most `MAX_CHARACTERS` characters. Statements that mention the exercise take precedence.
    """
    older = older_names(day)
    own: list[Piece] = []
    for piece in code.pieces:
        name = next(definitions(piece.source[:MAX_CHARACTERS]), None)
        defined = older.get(name[1], name[1]) if name else ""
        if not piece.given and (defined not in day.names or defined == code.exercise):
            own.append(piece)
    names = {code.exercise, *(old for old, new in older.items() if new == code.exercise)}
    mention = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    kept: set[int] = set()
    left = MAX_CHARACTERS
    for number in sorted(range(len(own)), key=lambda n: not mention.search(own[n].source)):
        if len(own[number].source) <= left:
            left -= len(own[number].source)
            kept.add(number)
    return [_statement(piece) for number, piece in enumerate(own) if number in kept]


def _statement(piece: Piece) -> Statement:
    lines = [sanitize(line.expandtabs(4)) for line in piece.source.split("\n")]
    return Statement(piece.cell, piece.line, "\n".join(lines))
