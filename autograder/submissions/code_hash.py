"""Compare the code of submissions, apart from comments and spaces. Entry point: `hash_code`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from autograder.submissions.cell import Cell

IGNORED = re.compile(r"#[^\n]*|\s+")


def hash_code(cells: Iterable[Cell]) -> str:
    """Return a hash of the code cells that does not depend on comments, spaces, empty cells or the order of the cells."""
    code = sorted(IGNORED.sub("", cell.source) for cell in cells if cell.kind == "code")
    text = "\0".join(filter(None, code))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
