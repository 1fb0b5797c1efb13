"""Parse a notebook or Python script into cells.

Students submit damaged files, such as truncated notebooks, scripts named .ipynb and cells without a type. `read_cells`
recovers as many cells as possible and reports the rest as problems. Student files are parsed only in the sandboxed
reader process; see slicing/reader_service.py.
"""

from __future__ import annotations

import codecs
import json
import re

from autograder.submissions.cell import EMPTY_FILE, Cell, Unreadable
from autograder.submissions.notebooks import parse_strict, parse_tolerant
from autograder.submissions.scripts import parse_script

MAX_BYTES = 300_000_000  # maximum bytes per file, including cell outputs
MAX_SOURCE = 16_000_000  # maximum bytes of source in all cells combined

BYTE_ORDER_MARKS = [
    (codecs.BOM_UTF8, "utf-8"),
    # The UTF-32 byte order mark starts with the UTF-16 byte order mark, so UTF-32 must come first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
NOT_A_NOTEBOOK = [
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer to a file that was not downloaded",
    ),
]
NAMED_SCRIPT = re.compile(r"\.py\b[^.]*(?:\.txt)?$", re.IGNORECASE)
CONFLICT_MARK = re.compile(r"^<{7}(?: |$)", re.MULTILINE)
# The line that begins, divides or ends a conflict. The pattern does not start with `^`, because that would make it slow if
# there are millions of empty lines.
CONFLICT_LINE = re.compile(
    r"[<=|>](?<=^.)(?:(?<=<)<{6}(?![^ \n])|(?<==)={6}|(?<=\|)\|{6}|(?<=>)>{6})[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)
CONFLICT = (
    "the file contains a Git merge conflict, and only the first version of each conflicting part was read. "
    "Resolve the conflict and submit the notebook again"
)


def read_cells(data: bytes | bytearray, name: str) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Return the cells of a notebook or Python script, and any problems with the file's format.

    A file that contains a JSON object is parsed as a notebook, regardless of its name. Raises Unreadable if no cell is
    readable.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"the file is too large (limit: {MAX_BYTES:,} bytes)")
    if not data or data.isspace():
        raise Unreadable(EMPTY_FILE)
    for start, kind in NOT_A_NOTEBOOK:
        if data.startswith(start):
            raise Unreadable(f"the file is {kind}, not a notebook")
    problems: list[str] = []
    cells = parse_strict(data, problems)
    if cells is None:
        text = _decode(data, problems)
        if CONFLICT_MARK.search(text):
            problems.append(CONFLICT)
            text = _first_versions(text)
        beginning = text[:1000].lstrip()
        is_named_script = NAMED_SCRIPT.search(name) is not None
        if beginning.startswith("<") and not is_named_script:
            raise Unreadable("the file is a web page or XML, not a notebook")
        if beginning.startswith("{"):
            try:
                cells = parse_strict(text.encode(), problems) or parse_tolerant(text, problems)
            except Unreadable:
                if not is_named_script:
                    raise
    if cells is None:
        if not is_named_script:
            _reject_other_json(text)
            problems.append("the file is not a notebook; it was read as a Python script")
        cells = parse_script(text, problems)
    size = sum(len(cell.source.encode()) for cell in cells)
    if size > MAX_SOURCE:
        raise Unreadable(f"the cells contain {size:,} bytes of source (limit: {MAX_SOURCE:,})")
    return tuple(cells), tuple(problems)


def _decode(data: bytes | bytearray, problems: list[str]) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data.removeprefix(mark).decode(encoding, "replace")
            break
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            # Windows-1252 is Latin-1 with printable characters in place of most control characters.
            text = data.decode("cp1252", "replace")
            problems.append(
                "the file is not UTF-8; it was read as Windows-1252, so some characters may be wrong"
            )
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _first_versions(text: str) -> str:
    """Return the text with every Git merge conflict resolved in favour of its first version."""
    kept: list[str] = []
    start = version = 0  # 0 outside a conflict
    for line in CONFLICT_LINE.finditer(text):
        if not version and line[0][0] != "<":
            continue
        if version < 2:
            kept.append(text[start : line.start()])
        version = {"<": 1, ">": 0}.get(line[0][0], 2)
        start = line.end()
    return "".join((*kept, text[start:] if version < 2 else ""))


def _reject_other_json(text: str) -> None:
    """Raise Unreadable if the file contains JSON other than an object, because such JSON may also be valid Python."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    except RecursionError:
        raise Unreadable("the file is not a notebook: its JSON is nested too deeply") from None
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    kind = kinds.get(type(value), "a number")
    raise Unreadable(f"the file is not a notebook: its JSON is {kind}, not an object")
