"""Marks and their JSON; knows nothing of where they come from."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, overload

import msgspec
from msgspec.structs import replace

from autograder.submissions.people import HandedIn

FORMAT = 1
LONGEST = 2000  # characters of a message

Status = Literal[
    "passed", "partial", "failed", "not_attempted", "error", "timed_out", "crashed", "not_allowed"
]


Value = bool | int | float | str  # a text where JSON has no number: NaN, ∞, −∞


class Values(msgspec.Struct, frozen=True):
    """A matrix that came out beside the one that was due, cut to what can be drawn."""

    what: str
    shape: list[int]  # of the whole tensor
    matrix: list[int]  # the indices of all axes but the last two
    top: int  # the row and column at which the cut begins
    left: int
    seen: list[list[Value]]
    expected: list[list[Value]]
    wrong: list[list[bool]]


class TestMarks(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    points: float
    max_points: float
    passed: bool
    message: str
    # For the student's page alone; they are no part of the JSON.
    told: str = ""  # what may be said of it where no values may be shown
    values: Values | None = None


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


class SubmissionMarks(msgspec.Struct, frozen=True, omit_defaults=True):
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
    handed_in: HandedIn | None = None  # what a platform says of who and when, beyond `student`


class Marks(msgspec.Struct, frozen=True):
    format: int
    day: str
    submissions: list[SubmissionMarks]


class WrongMarks(Exception):
    """A file holds no marks of the day; the message says why in one sentence."""


class _Head(msgspec.Struct, frozen=True):
    format: int
    day: str


def encode(marks: Marks) -> bytes:
    """The JSON, indented."""
    return b"".join(pieces(marks.day, marks.submissions))


def pieces(day: str, submissions: Iterable[SubmissionMarks]) -> Iterator[bytes]:
    """The JSON of a class a submission at a time."""
    around = msgspec.json.format(msgspec.json.encode(Marks(FORMAT, day, [])), indent=2)
    before, _, after = around.rpartition(b"]")
    yield before
    separator, end = b"\n", b""
    for submission in submissions:
        text = msgspec.json.format(msgspec.json.encode(_without_values(submission)), indent=2)
        yield separator + b"\n".join(b"    " + line for line in text.split(b"\n"))
        separator, end = b",\n", b"\n  "
    yield end + b"]" + after + b"\n"


class Packed(Sequence[SubmissionMarks]):
    """The marks of a large class in a tenth of the memory: each is unpacked when it is asked for."""

    def __init__(self, submissions: Iterable[SubmissionMarks]) -> None:
        self._packed = [zlib.compress(msgspec.json.encode(s), 1) for s in submissions]

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> SubmissionMarks: ...
    @overload
    def __getitem__(self, place: slice) -> list[SubmissionMarks]: ...
    def __getitem__(self, place: int | slice) -> SubmissionMarks | list[SubmissionMarks]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        return msgspec.json.decode(zlib.decompress(self._packed[place]), type=SubmissionMarks)


def _without_values(submission: SubmissionMarks) -> SubmissionMarks:
    exercises = [
        replace(e, tests=[replace(t, told="", values=None) for t in e.tests])
        for e in submission.exercises
    ]
    return replace(submission, exercises=exercises)


def decode(data: bytes, day: str) -> Marks:
    """The marks of a day from their JSON.

    Raises:
        WrongMarks: it is not JSON, not marks, of another format or of another day.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format != FORMAT:
            raise WrongMarks(f"has the format {head.format}; this autograder reads {FORMAT}")
        if head.day != day:
            raise WrongMarks(f"holds the marks of {line(head.day)[:40]!r}, not of {day!r}")
        return msgspec.json.decode(data, type=Marks)
    except msgspec.ValidationError as error:
        raise WrongMarks(f"is JSON, but holds no marks: {line(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongMarks(f"is not JSON: {line(str(error))}") from None


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
