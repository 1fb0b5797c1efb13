"""Compare submissions' code, ignoring comments and whitespace. Entry point: `hash_code`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

IGNORED = re.compile(r"#[^\n]*|\s+")


def hash_code(sources: Iterable[str]) -> str:
    """Return a hash of the statements or cells, ignoring comments, whitespace, duplicates and order."""
    code = sorted({IGNORED.sub("", source) for source in set(sources)} - {""})
    text = "\0".join(code)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
