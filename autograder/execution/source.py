"""Join the statements that an exercise needs into one source text. Entry points: `Source`, `join_units` and `load_request`."""

from __future__ import annotations
import __future__ as future

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from autograder.course.config import Exercise
from autograder.execution.references import ReferenceSet
from autograder.protocol import messages as m
from autograder.slicing.unit import Unit
from autograder.submissions.reader_messages import Statement

MAX_SHOWN = 70  # maximum length of a line of code in a message


@dataclass(frozen=True)
class Source:
    """The code for one exercise. `pieces` contains the first and last line number of each statement in `text`.

    `references` contains the reference solutions that the code calls instead of the student's own versions.
    """

    text: str
    pieces: tuple[tuple[int, int], ...]
    units: tuple[Statement | Unit, ...]
    flags: int = 0
    references: ReferenceSet | None = None

    def location(self, line: int) -> str:
        """Return the notebook cell and line from which a line of `text` comes, or "" for the course's own code."""
        # A hostile worker may report an error in each of thousands of pieces.
        number = bisect_right(self.pieces, line, key=itemgetter(0)) - 1
        if number < 0 or line > self.pieces[number][1]:
            return ""
        unit = self.units[number]
        where = f"cell {unit.cell}, line {unit.line + line - self.pieces[number][0]}"
        return "" if unit.given else where

    def location_with_code(self, line: int) -> str:
        """Return `location(line)` followed by the code on that line, which is easier to find than a line number."""
        location = self.location(line)
        code = self.text.split("\n")[line - 1] if location else ""
        code = " ".join(code.split()).replace("`", "'")
        code = code if len(code) <= MAX_SHOWN else f"{code[: MAX_SHOWN - 1]}…"
        return f"{location}: `{code}`" if code else location

    def without(self, line: int) -> Source:
        """Return this source without the statement that contains `line`."""
        kept = [
            unit
            for (first, last), unit in zip(self.pieces, self.units, strict=True)
            if not first <= line <= last
        ]
        return join_units(kept, self.references)


def join_units(units: Sequence[Statement | Unit], references: ReferenceSet | None = None) -> Source:
    """Join statements into one source, separated by blank lines."""
    lines: list[str] = []
    pieces: list[tuple[int, int]] = []
    for unit in units:
        own = unit.source.split("\n")
        pieces.append((len(lines) + 1, len(lines) + len(own)))
        lines += [*own, ""]
    postponed = any("from __future__ import annotations" in unit.source for unit in units)
    flags = future.annotations.compiler_flag if postponed else 0
    return Source("\n".join(lines), tuple(pieces), tuple(units), flags, references)


def load_request(exercise: Exercise, source: Source, seed: int) -> m.Load:
    """Return the request that makes a worker run an exercise's code."""
    return m.Load(
        source=source.text,
        pieces=list(source.pieces),
        wanted=exercise.name,
        seed=seed,
        flags=source.flags,
        operators=list(exercise.forbidden.operators),
        attributes=list(exercise.forbidden.attributes),
        references=list(source.references.functions) if source.references else [],
    )
