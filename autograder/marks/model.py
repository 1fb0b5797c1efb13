"""Define marks and their JSON format. Entry points: `SubmissionMarks`, `encode` and `decode`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, overload

import msgspec
from msgspec.structs import replace

from autograder.plain_text import counted, format_number, printable
from autograder.submissions.origin import Origin, from_folder, labels
from autograder.submissions.reader_messages import Statement
from autograder.submissions.submission import Submission

FORMAT = 1
MISTAKE_SEPARATOR = "; "
ASK = "Ask the student for this day's notebook, saved in Jupyter."

Status = Literal[
    "passed", "partial", "failed", "not_attempted", "error", "timed_out", "crashed", "not_allowed"
]


# Strings represent numbers that JSON lacks: NaN, ∞ and −∞.
Value = bool | int | float | str


class Values(msgspec.Struct, frozen=True):
    """A matrix returned by a student's code and the expected matrix, cropped to a size that can be displayed."""

    what: str
    shape: list[int]  # the shape of the whole tensor
    matrix: list[int]  # the matrix's indices along all axes except the last two
    top: int  # the crop's first row; `left` is its first column
    left: int
    seen: list[list[Value]]
    expected: list[list[Value]]
    wrong: list[list[bool]]


class TestMarks(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one hidden test."""

    name: str
    points: float
    max_points: float
    passed: bool
    message: str
    # Only the student's page uses the next two fields. The store keeps them, but `encode` omits them.
    message_without_values: str = ""
    values: Values | None = None


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """Points and a comment from a TA. `points` is None if the TA only commented. `graded` contains the original points.

    `by` is the TA's name. If `is_login` is set, `by` is a login name instead, which students may not recognise.
    """

    points: float | None
    comment: str
    by: str
    time: str
    graded: float = 0.0
    is_login: bool = False

    @property
    def author(self) -> str:
        """Return the TA's name as shown to students."""
        return "your TA" if self.is_login else self.by

    def change(self) -> str:
        """Return how the points change, or "" if only a comment was given."""
        if self.points is None:
            return ""
        if self.points == self.graded:
            return f"{counted(self.points, 'point')}, the same as without the override"
        return f"{format_number(self.points)} instead of {format_number(self.graded)} points"


class ExerciseMarks(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result for one exercise. `reference_for` lists the exercises replaced with reference solutions."""

    name: str
    points: float
    max_points: float
    status: Status
    message: str
    mistake: str | None  # if there are two, their names are separated by `MISTAKE_SEPARATOR`
    reference_for: list[str]
    seconds: float
    tests: list[TestMarks]
    # Only the student's page uses the statements. The store keeps them, but `encode` omits them.
    statements: list[Statement] = []
    override: Override | None = None  # never stored with the marks; see overrides.py
    optional: bool = False  # whether the points do not count towards the total

    @property
    def credit(self) -> float:
        """Return the exercise's points, or 0 if the exercise is optional."""
        return 0.0 if self.optional else self.points

    @property
    def mistakes(self) -> list[str]:
        """Return the names of the known mistakes in the code."""
        return self.mistake.split(MISTAKE_SEPARATOR) if self.mistake else []

    @property
    def worth(self) -> str:
        """Return the points as text, such as "3 of 4", with a note if the exercise is optional."""
        return f"{format_number(self.points)} of {format_number(self.max_points)}{' (optional)' if self.optional else ''}"


class SubmissionMarks(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of grading one submission.

    If the submission could not be read or graded, `exercises` is empty and `points` is None.
    """

    path: str
    student: str
    sha256: str
    seed: str
    course: str
    isolation: list[str]
    points: float | None
    max_points: float
    seconds: float
    problems: list[str]
    exercises: list[ExerciseMarks]
    handed_in: Origin | None = None  # who submitted and when, if the platform records this
    code: str = ""  # a hash of the graded code that is equal for identical work, or "" if nothing was attempted

    @property
    def origin(self) -> Origin:
        """Return who made the submission, and when."""
        return self.handed_in or from_folder(self.student)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a label for each student, for reading: the name on the roster, or the platform's name and id."""
        return labels(self.student, self.origin)

    @property
    def label(self) -> str:
        """Return the labels of all students, separated by commas."""
        return ", ".join(self.labels)

    @property
    def reason(self) -> str:
        """Return why the submission has no points, and what the TA can do about it."""
        problems = "; ".join(self.problems)
        # After an internal error, there is no seed, and resubmitting would not help.
        return f"{problems}. {ASK}" if self.seed else problems

    @property
    def earned(self) -> float:
        """Return the points, or 0 if the submission could not be read or graded."""
        return self.points or 0.0


class Marks(msgspec.Struct, frozen=True):
    """A class's marks, as written by `grade --json`."""

    format: int
    day: str
    submissions: list[SubmissionMarks]


class InvalidMarks(Exception):
    """Raised when a file does not contain marks for the day. Callers put the file name before the message."""


class _Header(msgspec.Struct, frozen=True):
    format: int
    day: str


def encode(day: str, submissions: Iterable[SubmissionMarks]) -> Iterator[bytes]:
    """Yield a class's marks as indented JSON, one submission at a time."""
    empty = msgspec.json.format(msgspec.json.encode(Marks(FORMAT, day, [])), indent=2)
    before, _, after = empty.rpartition(b"]")
    yield before
    separator, end = b"\n", b""
    for submission in submissions:
        text = msgspec.json.format(msgspec.json.encode(_without_values(submission)), indent=2)
        yield separator + b"\n".join(b"    " + line for line in text.split(b"\n"))
        separator, end = b",\n", b"\n  "
    yield end + b"]" + after + b"\n"


class CompressedMarks(Sequence[SubmissionMarks]):
    """A sequence of marks. Items are stored compressed, in a tenth of the memory, and decompressed on access."""

    def __init__(self, submissions: Iterable[SubmissionMarks]) -> None:
        self._compressed = [zlib.compress(msgspec.json.encode(s), 1) for s in submissions]

    def sort(self, places: Sequence[int]) -> None:
        """Sort the items by these numbers, one per item."""
        self._compressed = [self._compressed[n] for n in sorted_indices(places)]

    def __len__(self) -> int:
        return len(self._compressed)

    @overload
    def __getitem__(self, place: int) -> SubmissionMarks: ...
    @overload
    def __getitem__(self, place: slice) -> list[SubmissionMarks]: ...
    def __getitem__(self, place: int | slice) -> SubmissionMarks | list[SubmissionMarks]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        return msgspec.json.decode(zlib.decompress(self._compressed[place]), type=SubmissionMarks)


def sorted_indices(places: Sequence[int]) -> list[int]:
    """Return the indices that sort a sequence by `places`, one number per item."""
    return sorted(range(len(places)), key=places.__getitem__)


def ungraded(
    submission: Submission, course: str, isolation: list[str], max_points: float, problem: str
) -> SubmissionMarks:
    """Return marks without points for a submission whose grading failed. `problem` says why."""
    return SubmissionMarks(
        path=submission.path,
        student=submission.student,
        sha256=submission.sha256,
        seed="",
        course=course,
        isolation=isolation,
        points=None,
        max_points=max_points,
        seconds=0.0,
        problems=[problem],
        exercises=[],
        handed_in=submission.handed_in,
    )


def without_tests(marks: SubmissionMarks) -> SubmissionMarks:
    """Return a copy of the marks without the results of individual tests, which use most of the memory."""
    exercises = [replace(one, message="", tests=[], statements=[]) for one in marks.exercises]
    return replace(marks, exercises=exercises)


def _without_values(submission: SubmissionMarks) -> SubmissionMarks:
    def shorten(exercise: ExerciseMarks) -> ExerciseMarks:
        tests = [replace(t, message_without_values="", values=None) for t in exercise.tests]
        return replace(exercise, tests=tests, statements=[])

    return replace(submission, exercises=list(map(shorten, submission.exercises)))


def decode(data: bytes, day: str) -> Marks:
    """Decode a day's marks from JSON."""
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.format != FORMAT:
            raise InvalidMarks(
                f"has format {header.format}, but this version of the autograder reads only format {FORMAT}"
            )
        if header.day != day:
            found = printable(header.day)[:40]
            raise InvalidMarks(f"contains marks for {found!r}, not for {day!r}")
        return msgspec.json.decode(data, type=Marks)
    except msgspec.ValidationError as error:
        raise InvalidMarks(f"is JSON but does not contain marks: {printable(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMarks(f"is not JSON: {printable(str(error))}") from None


def split_points(points: float, weights: Sequence[float]) -> list[float]:
    """Split points by weight, rounding each share down to two decimal places. The last share gets the remainder."""
    cents = Fraction(str(points)) * 100
    total = sum(Fraction(str(weight)) for weight in weights)
    shares = [int(cents * Fraction(str(weight)) / total) for weight in weights]
    shares[-1] += int(cents) - sum(shares)
    return [share / 100 for share in shares]


def exact_sum(points: Sequence[float]) -> float:
    """Add decimal numbers without binary rounding errors."""
    return float(sum(Fraction(str(p)) for p in points))


def total_points(exercises: Iterable[ExerciseMarks]) -> float:
    """Add the points for all exercises that are not optional."""
    return exact_sum([exercise.credit for exercise in exercises])
