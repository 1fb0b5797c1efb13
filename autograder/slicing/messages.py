"""Define the messages between `Slicer` and the slicing service in the reader process. They are encoded with msgpack."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.msgpack import Decoder

from autograder.submissions.cell import Cell
from autograder.submissions.reader_messages import FileRequest, Sentence, Sentences

MAX_UNITS = 500_000
MAX_CODE = 1_000_000  # bytes of code per exercise; a message to a worker has at most 1 MiB
State = Literal["absent", "stub", "written", "too_long"]
Number = Annotated[int, Meta(ge=0, le=1 << 31)]


class ReleasedExercise(msgspec.Struct, frozen=True):
    """An exercise as released to students.

    The student's code must not use the names in `not_allowed`, whether they belong to `libraries` or are built-ins. Names
    that are also in `options` are options that the code must not turn on.
    """

    name: str
    stub: str
    not_allowed: tuple[str, ...]
    libraries: frozenset[str]
    options: frozenset[str]
    renamed_from: tuple[str, ...]


class ReleasedCourse(msgspec.Struct, frozen=True):
    """The parts of a day that slicing needs. All of them are visible to students in the release."""

    exercises: list[ReleasedExercise]
    unassigned: list[str]  # exercises that students do not fill in
    given: list[Cell]
    release: list[str]  # the sources of all code cells


class CoursePart(msgspec.Struct, frozen=True):
    """One part of an encoded `ReleasedCourse`. A whole course is too large for a single control message."""

    course: str
    number: int
    count: int
    data: bytes


class SliceAll(msgspec.Struct, frozen=True, tag=True):
    """A request for the slice of every exercise in a prepared course. The message body contains the notebook's cells.

    The process keeps the cells for later `SliceAgain` requests.
    """

    course: str


class SliceAgain(msgspec.Struct, frozen=True, tag=True):
    """A request to slice the cells of the last `SliceAll` request again for one exercise.

    Reference solutions take the place of the `replaced` exercises. If `wide` is true, the slice contains all statements
    that may affect the exercise.
    """

    exercise: str
    replaced: list[str]
    wide: bool


Request = FileRequest | SliceAll | SliceAgain  # every request that a reader process answers
REQUESTS = Decoder(Request)


class Piece(msgspec.Struct, frozen=True):
    """A top-level statement with its cell and line.

    If `given` is true, the statement comes from the course, not the student.
    """

    source: str
    cell: Number
    line: Number
    given: bool


class ExerciseSlice(msgspec.Struct, frozen=True):
    """The code of one exercise. `pieces` are indices into `Slices.pieces`, in execution order.

    If the code is longer than `MAX_CODE`, there are no pieces.
    """

    exercise: Sentence
    state: State
    pieces: Annotated[list[Number], Meta(max_length=MAX_UNITS)]
    reached: Annotated[list[Sentence], Meta(max_length=1000)]
    problems: Sentences
    used: Sentences


class Slices(msgspec.Struct, frozen=True):
    """The slices of the requested exercises, the notebook's problems, and the number of the cell that defines each exercise."""

    pieces: Annotated[list[Piece], Meta(max_length=MAX_UNITS)]
    slices: Annotated[list[ExerciseSlice], Meta(max_length=1000)]
    problems: Sentences = ()
    defining_cells: dict[Sentence, Number] = {}
