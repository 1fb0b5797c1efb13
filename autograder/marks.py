"""Marks and their JSON; knows nothing of where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import msgspec

FORMAT = 1
LONGEST = 2000  # characters of a message

Status = Literal[
    "passed", "partial", "failed", "not_attempted", "error", "timed_out", "crashed", "not_allowed"
]


class TestMarks(msgspec.Struct, frozen=True):
    name: str
    points: float
    max_points: float
    passed: bool
    message: str


class ExerciseMarks(msgspec.Struct, frozen=True):
    name: str
    points: float
    max_points: float
    status: Status
    message: str
    mistake: str | None
    reference_for: list[str]
    seconds: float
    tests: list[TestMarks]


class SubmissionMarks(msgspec.Struct, frozen=True):
    path: str
    student: str
    sha256: str
    seed: str
    course: str
    isolation: list[str]
    points: float
    max_points: float
    seconds: float
    problems: list[str]
    exercises: list[ExerciseMarks]


class Marks(msgspec.Struct, frozen=True):
    format: int
    day: str
    submissions: list[SubmissionMarks]


def encode(marks: Marks) -> bytes:
    """The JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(marks), indent=2) + b"\n"


def shares(points: float, weights: Sequence[float]) -> list[float]:
    """Share `points` out by weight, in steps of 0.01; what is left over goes to the last."""
    cents = Fraction(str(points)) * 100
    total = sum(Fraction(str(w)) for w in weights)
    parts = [int(cents * Fraction(str(w)) / total) for w in weights]
    parts[-1] += int(cents) - sum(parts)
    return [part / 100 for part in parts]


def added(points: Sequence[float]) -> float:
    """The sum, without the dust of binary fractions."""
    return float(sum(Fraction(str(p)) for p in points))


def words(text: str) -> str:
    """A message that is safe to show: control and bidi characters escaped, surrogates too, and cut if long."""
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def line(text: str) -> str:
    """`words` in one line, so that a problem is no row of the table of its own."""
    return words(text).replace("\n", " ")
