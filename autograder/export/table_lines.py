"""Choose the submission that counts for each line of another system's table. Entry point: `choose`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.marks import class_list
from autograder.marks.class_list import GroupRule
from autograder.marks.class_notes import note_of_others
from autograder.marks.row import Row
from autograder.plain_text import format_number


@dataclass(frozen=True)
class Match:
    """A row of the class that matches a line of the table. `by_id` is False if only a name or an email address matches."""

    line: int
    row: Row
    by_id: bool


def choose(
    matches: Iterable[Match], names: Sequence[str], group: GroupRule
) -> tuple[dict[int, Row], list[str]]:
    """Return the row that counts for each line, and a note for each line that matches several submissions.

    Rows with the line's id take precedence. If several rows remain, choose one in the same way as `class_list.rows`.

    Args:
        names: The student's name on each line, for the notes.
    """
    by_line: dict[int, list[Match]] = {}
    for match in matches:
        by_line.setdefault(match.line, []).append(match)
    chosen: dict[int, Row] = {}
    notes: list[str] = []
    for line, found in by_line.items():
        rows = [match.row for match in found if match.by_id] or [match.row for match in found]
        marks = class_list.counting([row.marks for row in rows if row.marks], (), group)
        chosen[line] = next(row for row in rows if row.marks is marks)
        others = [match.row.marks for match in found if match.row.marks]
        notes += note_of_others(names[line], chosen[line], others)
    return chosen, notes


def not_entered(row: Row, file: Path) -> list[str]:
    """Return a list with a note that a student's points could not be entered. It is empty if the student has no grade."""
    if row.points is None:
        return []
    return [
        f"{row.entry.label} is not in {file}: {format_number(row.points)} points were not entered"
    ]
