"""Compare submissions' code, ignoring comments and whitespace. Entry point: `hash_code`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from autograder.submissions.cell import Cell

IGNORED = re.compile(r"#[^\n]*|\s+")


def hash_code(cells: Iterable[Cell]) -> str:
    """Return a hash of the code cells, ignoring comments, whitespace, empty cells and cell order."""
    code = sorted(IGNORED.sub("", cell.source) for cell in cells if cell.kind == "code")
    text = "\0".join(filter(None, code))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
