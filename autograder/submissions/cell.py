"""Represent notebook cells, find definitions in their text and compare their code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_CELLS = 100_000
EMPTY_FILE, EMPTY_NOTEBOOK = "the file is empty", "the notebook has no cells"
Kind = Literal["code", "markdown", "raw"]
DEFINITION = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)
IGNORED = re.compile(r"#[^\n]*|\s+")  # comments and whitespace


class Cell(msgspec.Struct, frozen=True):
    """A notebook cell. `number` is the cell's position, counted from 1. Line breaks in `source` are always \\n."""

    number: Annotated[int, Meta(ge=0, le=MAX_CELLS)]
    kind: Kind
    source: str


def definitions(source: str) -> Iterator[re.Match[str]]:
    """Find the top-level functions and classes in text that may not be valid Python. Group 1 of each match is the name."""
    return DEFINITION.finditer(source)


def hash_code(sources: Iterable[str]) -> str:
    """Return a hash of the statements or cells, ignoring comments, whitespace, duplicates and order."""
    code = sorted({IGNORED.sub("", source) for source in set(sources)} - {""})
    text = "\0".join(code)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
