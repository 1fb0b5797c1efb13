"""What the grader and its reader processes say to one another: plain data with bounds, which the decoder checks.

A message's header says what it is; what is large follows it as bytes. `Read`, `List` and `ReadMetadata` are about a file of
`size` bytes that stays with the grader: the process asks for its bytes with `Pull`, and gets them with `Pulled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.msgpack import Decoder

from autograder.protocol.plain_text import LONGEST, MAX_PROBLEMS
from autograder.submissions.archives import MAX_ENTRIES
from autograder.submissions.cell import MAX_CELLS, Cell
from autograder.submissions.people import HandedIn
from autograder.submissions.places import MAX_NOTEBOOKS

PIECE = 4 << 20  # bytes of a file that are sent at once
Sentence = Annotated[str, Meta(max_length=LONGEST)]
Sentences = Annotated[tuple[Sentence, ...], Meta(max_length=MAX_PROBLEMS)]
Place = Annotated[str, Meta(max_length=LONGEST)]
Stamp = Annotated[str, Meta(max_length=60)]
Digest = Annotated[str, Meta(max_length=64)]


@dataclass
class Body:
    """The bytes behind a header, as frames.py sends them."""

    payload: list[bytes]
    size: int


def body(data: bytes) -> Body:
    """Bytes to be sent behind a header."""
    return Body([data], len(data))


# ---- requests


class Read(msgspec.Struct, frozen=True, tag=True):
    """Read what one student handed in, a notebook, a script or an archive; `nested`: with archives in it."""

    name: str
    size: int
    day: str
    nested: bool


class List(msgspec.Struct, frozen=True, tag=True):
    """List the archive of a class; the process keeps it for `Open`."""

    name: str
    size: int
    day: str
    student: str  # whose it is if it holds one file alone


class Open(msgspec.Struct, frozen=True, tag=True):
    """Unpack a member of the archive that was listed, and say its size; the process keeps it for `Take`."""

    number: int


class Take(msgspec.Struct, frozen=True, tag=True):
    """Bytes of the member that was opened."""

    offset: int
    size: int


class ReadMetadata(msgspec.Struct, frozen=True, tag=True):
    """Read Gradescope's metadata."""

    size: int


class Slice(msgspec.Struct, frozen=True, tag=True):
    """Slice the cells that follow for every exercise of the course, named by `prepare`; the process keeps them for `Again`."""

    course: str


class Again(msgspec.Struct, frozen=True, tag=True):
    """Slice them again for one exercise, with other exercises as if the course gave them."""

    exercise: str
    replaced: list[str]


class Pulled(msgspec.Struct, frozen=True, tag=True):
    """The bytes that `Pull` asked for follow."""


Request = Read | List | Open | Take | ReadMetadata | Slice | Again | Pulled
REQUESTS = Decoder(Request)


# ---- what comes back


class Pull(msgspec.Struct, frozen=True, tag=True):
    """Asks for bytes of the file that the request is about."""

    offset: int
    size: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """The answer follows, as MessagePack or, of `Take`, as it is."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It could not be done; the reason in words."""

    reason: Sentence


Response = Pull | Done | Failed
RESPONSES = Decoder(Response)


class File(msgspec.Struct, frozen=True):
    """One notebook or script: its place within what was handed in, and its cells, or the reason why it has none."""

    place: Place
    sha256: Digest = ""
    cells: Annotated[tuple[Cell, ...], Meta(max_length=MAX_CELLS)] = ()
    problems: Sentences = ()
    release: Stamp = ""
    reason: Sentence = ""


class ListedFile(msgspec.Struct, frozen=True):
    """One file in the archive of a class; the number is for `Open`."""

    place: Place
    student: Sentence
    handed_in: HandedIn | None
    notes: Sentences
    problem: Sentence
    number: int


FILES: Decoder[list[File]] = Decoder(Annotated[list[File], Meta(max_length=MAX_NOTEBOOKS)])
LISTED: Decoder[list[ListedFile]] = Decoder(
    Annotated[list[ListedFile], Meta(max_length=MAX_ENTRIES)]
)
PEOPLE = Decoder(dict[Place, HandedIn])
SIZE: Decoder[int] = Decoder(Annotated[int, Meta(ge=0)])
