"""What a cell is, and how many of them are read."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_CELLS = 100_000
MAX_ID_LENGTH = 64  # characters of a cell's id
Kind = Literal["code", "markdown", "raw"]


class Cell(msgspec.Struct, frozen=True):
    """One cell; `number` is its place among all cells from 1, `source` has \\n line ends."""

    number: Annotated[int, Meta(ge=0, le=MAX_CELLS)]
    kind: Kind
    source: str
    id: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] = ""


class Unreadable(Exception):
    """No cell can be read; the message says why in one sentence."""


def check_count(count: int) -> None:
    """Raise Unreadable if there are too many cells."""
    if count > MAX_CELLS:
        raise Unreadable(f"it has {count:,} cells, at most {MAX_CELLS:,} are read")
