"""Define the messages between the grader and its reader processes.

The decoders enforce the bounds in the type annotations. A message is a small header, optionally followed by a body of
bytes. `Read`, `List` and `ReadMetadata` refer to a file of `size` bytes that only the grader has open. The reader
process requests the file's bytes with `Pull` and receives them with `Pulled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.msgpack import Decoder

from autograder.plain_text import LONGEST, MAX_PROBLEMS
from autograder.submissions.archives import MAX_ENTRIES
from autograder.submissions.cell import MAX_CELLS, Cell
from autograder.submissions.origin import Origin
from autograder.submissions.places import MAX_NOTEBOOKS

PIECE = 4 << 20  # maximum number of file bytes per message
Sentence = Annotated[str, Meta(max_length=LONGEST)]
Sentences = Annotated[tuple[Sentence, ...], Meta(max_length=MAX_PROBLEMS)]
Place = Annotated[str, Meta(max_length=LONGEST)]
Stamp = Annotated[str, Meta(max_length=60)]
Digest = Annotated[str, Meta(max_length=64)]


@dataclass
class Body:
    """The bytes that follow a message header, in the format that frames.py sends."""

    payload: list[bytes]
    size: int


def body(data: bytes) -> Body:
    """Wrap bytes as a message body."""
    return Body([data], len(data))


# ---- requests


class Read(msgspec.Struct, frozen=True, tag=True):
    """A request to read a student's notebook, script or archive, including archives within the archive if `nested` is set."""

    name: str
    size: int
    day: str
    nested: bool


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


FileRequest = Read | List | Open | Take | ReadMetadata | Pulled


# ---- responses


class Pull(msgspec.Struct, frozen=True, tag=True):
    """A request to the grader for bytes of the file that is being read."""

    offset: int
    size: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """A response to a successful request. The body contains raw bytes for `Take` and MessagePack for all other requests."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A response to a failed request. `reason` is a sentence that explains the failure."""

    reason: Sentence


Response = Pull | Done | Failed
RESPONSES = Decoder(Response)


class File(msgspec.Struct, frozen=True):
    """One notebook or script: its path within the submission, and its cells or the reason why there are none."""

    place: Place
    sha256: Digest = ""
    cells: Annotated[tuple[Cell, ...], Meta(max_length=MAX_CELLS)] = ()
    problems: Sentences = ()
    release: Stamp = ""
    reason: Sentence = ""


class ListedFile(msgspec.Struct, frozen=True):
    """One file in a class archive. `number` identifies the file in `Open` requests; it is -1 if the file cannot be opened."""

    place: Place
    student: Sentence
    handed_in: Origin | None
    notes: Sentences
    problem: Sentence
    number: int
    wrapper: Place


FILES: Decoder[list[File]] = Decoder(Annotated[list[File], Meta(max_length=MAX_NOTEBOOKS)])
LISTED: Decoder[list[ListedFile]] = Decoder(
    Annotated[list[ListedFile], Meta(max_length=MAX_ENTRIES)]
)
PEOPLE = Decoder(dict[Place, Origin])
SIZE: Decoder[int] = Decoder(Annotated[int, Meta(ge=0)])
