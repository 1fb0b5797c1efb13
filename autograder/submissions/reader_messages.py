"""Define the messages between the grader and its reader processes, which parse files and slice notebooks.

The decoders enforce the bounds in the type annotations. A message is a small header, optionally followed by a body of
bytes. `ReadFile`, `List` and `ReadMetadata` refer to a file of `size` bytes that only the grader has open. The reader
process requests the file's bytes with `Pull` and receives them with `Pulled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.msgpack import Decoder

from autograder.submissions.cell import MAX_CELLS, Cell
from autograder.submissions.origin import Name, Origin, Sentences
from autograder.submissions.places import MAX_NOTEBOOKS, FoundFile

MAX_ENTRIES = 50_000  # files per archive of a student
MAX_UNITS = 500_000
MAX_CODE = 1_000_000  # bytes of code per exercise; a message to a worker has at most 1 MiB
PIECE = 4 << 20  # maximum number of file bytes per message
State = Literal["absent", "stub", "written", "too_long"]
Number = Annotated[int, Meta(ge=0, le=1 << 31)]


@dataclass
class Body:
    """The bytes that follow a message header, in the format that frames.py sends."""

    payload: list[bytes]
    size: int


def body(data: bytes) -> Body:
    """Wrap bytes as a message body."""
    return Body([data], len(data))


# ---- requests


class ReadFile(msgspec.Struct, frozen=True, tag=True):
    """A request to read a student's notebook, script or archive, including archives within the archive."""

    name: str
    size: int
    day: str


class List(msgspec.Struct, frozen=True, tag=True):
    """A request to list the files in a class archive. The process keeps the archive for later `Open` requests."""

    name: str
    size: int
    day: str
    student: str  # the file's owner if the archive contains only one file


class Open(msgspec.Struct, frozen=True, tag=True):
    """A request to unpack a member of the listed archive and return its size.

    The process keeps the member for later `Take` requests.
    """

    number: int


class Take(msgspec.Struct, frozen=True, tag=True):
    """A request for some of the bytes of the most recently opened archive member."""

    offset: int
    size: int


class ReadMetadata(msgspec.Struct, frozen=True, tag=True):
    """A request to read Gradescope's metadata file."""

    size: int


class Pulled(msgspec.Struct, frozen=True, tag=True):
    """The reply to a `Pull`. The body contains the requested bytes."""


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


ReaderRequest = ReadFile | List | Open | Take | ReadMetadata | Pulled | SliceAll | SliceAgain
REQUESTS = Decoder(ReaderRequest)


# ---- responses


class Pull(msgspec.Struct, frozen=True, tag=True):
    """A request to the grader for bytes of the file that is being read."""

    offset: int
    size: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """A response to a successful request. The body contains raw bytes for `Take` and MessagePack for all other requests."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A response to a failed request. `reason` is a sentence that explains the failure."""

    reason: Name


Response = Pull | Done | Failed
RESPONSES = Decoder(Response)


class File(msgspec.Struct, frozen=True):
    """One notebook or script: its path within the submission, and its cells or the reason why there are none."""

    place: Name
    sha256: Annotated[str, Meta(max_length=64)] = ""
    cells: Annotated[tuple[Cell, ...], Meta(max_length=MAX_CELLS)] = ()
    problems: Sentences = ()
    release: Annotated[str, Meta(max_length=60)] = ""
    reason: Name = ""


FILES: Decoder[list[File]] = Decoder(Annotated[list[File], Meta(max_length=MAX_NOTEBOOKS)])
LISTED: Decoder[list[FoundFile]] = Decoder(Annotated[list[FoundFile], Meta(max_length=MAX_ENTRIES)])
PEOPLE = Decoder(dict[Name, Origin])
SIZE: Decoder[int] = Decoder(Annotated[int, Meta(ge=0)])


class Statement(msgspec.Struct, frozen=True, omit_defaults=True):
    """A top-level statement, with the cell and line where it begins. The stored marks also contain statements.

    If `given` is true, the statement comes from the course, not the student. `normal` is the text that is run instead of
    `source`, or "" if there is none, and `lines` contains the line of `source` from which each of its lines comes.
    """

    source: str
    cell: Number
    line: Number
    given: bool = False
    normal: str = ""
    lines: Annotated[tuple[Number, ...], Meta(max_length=MAX_UNITS)] = ()

    @property
    def text(self) -> str:
        """Return the text that is run."""
        return self.normal or self.source


class ExerciseSlice(msgspec.Struct, frozen=True):
    """The code of one exercise. `statements` are indices into `Slices.statements`, in execution order.

    If the code is longer than `MAX_CODE`, there are no statements.
    """

    exercise: Name
    state: State
    statements: Annotated[list[Number], Meta(max_length=MAX_UNITS)]
    reached: Annotated[list[Name], Meta(max_length=1000)]
    problems: Sentences
    used: Sentences


class Slices(msgspec.Struct, frozen=True):
    """The slices of the requested exercises, the notebook's problems, and the number of the cell that defines each exercise."""

    statements: Annotated[list[Statement], Meta(max_length=MAX_UNITS)]
    slices: Annotated[list[ExerciseSlice], Meta(max_length=1000)]
    problems: Sentences = ()
    defining_cells: dict[Name, Number] = {}


# ---- the course, which the grader sends to the fork server


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


class ReleasedCourse(msgspec.Struct, frozen=True):
    """The parts of a day that slicing needs. All of them are visible to students in the release."""

    exercises: list[ReleasedExercise]
    unassigned: list[str]  # exercises that students do not fill in
    given: list[Cell]
    provided: list[str]  # what the notebook's provided cell runs
    release: list[str]  # the sources of all code cells


class CoursePart(msgspec.Struct, frozen=True):
    """One part of an encoded `ReleasedCourse`. A whole course is too large for a single control message."""

    course: str
    number: int
    count: int
    data: bytes
