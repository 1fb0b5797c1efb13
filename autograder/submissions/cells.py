"""A notebook or percent script → cells.

Students hand in what their tools leave behind: notebooks cut off in the middle of a save, scripts
named .ipynb, cells without a type. What can be read is read, and what was wrong is said in words.
The grader runs this behind the wall alone; see reader.py.
"""

from __future__ import annotations

import codecs
import json

from autograder.submissions.cell import MAX_CELLS, Cell, Unreadable
from autograder.submissions.notebooks import parse_strict, parse_tolerant
from autograder.submissions.scripts import parse_script

__all__ = ["MAX_BYTES", "MAX_CELLS", "Cell", "Unreadable", "read_cells"]

MAX_BYTES = 300_000_000  # of a file, most of which may be outputs
MAX_SOURCE = 16_000_000  # bytes of all cells' sources

BYTE_ORDER_MARKS = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
NOT_TEXT = [
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"Rar!", "a rar archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
]


def read_cells(data: bytes | bytearray, name: str) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Returns the cells of a notebook or Python script and what was wrong with it, in words.

    A JSON object is a notebook whatever its name. Raises Unreadable.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it is too large: at most {MAX_BYTES:,} bytes are read")
    if not data or data.isspace():
        raise Unreadable("it is empty")
    for start, what in NOT_TEXT:
        if data.startswith(start):
            raise Unreadable(f"it is {what}, not a notebook")
    problems: list[str] = []
    cells = parse_strict(data, problems)
    if cells is None:
        text = _decoded(data, problems)
        beginning = text[:1000].lstrip()
        is_named_script = name.lower().endswith(".py")
        if beginning.startswith("<") and not is_named_script:
            raise Unreadable("it is a web page or XML, not a notebook")
        if beginning.startswith("{"):
            try:
                cells = parse_tolerant(text, problems)
            except Unreadable:
                if not is_named_script:
                    raise
    if cells is None:
        if name.lower().endswith(".ipynb"):
            _refuse_other_json(text)
            problems.append("the file is not a notebook; it was read as a Python script")
        cells = parse_script(text, problems)
    size = sum(len(cell.source.encode()) for cell in cells)
    if size > MAX_SOURCE:
        raise Unreadable(f"its cells hold {size:,} bytes of text, at most {MAX_SOURCE:,} are read")
    return tuple(cells), tuple(problems)


def _decoded(data: bytes | bytearray, problems: list[str]) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data.removeprefix(mark).decode(encoding, "replace")
            break
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
            problems.append(
                "the file is not UTF-8; it was read as Latin-1, so letters may be wrong"
            )
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _refuse_other_json(text: str) -> None:
    """Raise Unreadable for JSON that is no object, which would be Python, too."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    except RecursionError:
        raise Unreadable("it is not a notebook: its JSON is nested too deeply") from None
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    raise Unreadable(f"it is not a notebook: its JSON is {kinds.get(type(value), 'a number')}")
