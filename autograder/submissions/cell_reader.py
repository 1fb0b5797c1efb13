"""Parse a notebook or Python script into cells.

Students submit damaged files, such as truncated notebooks, scripts named .ipynb and cells without a type. `read_cells`
recovers as many cells as possible and reports the rest as problems. Student files are parsed only in the sandboxed
reader process; see slicing/reader_service.py.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from autograder.course.chapters import split_cells, uncomment
from autograder.plain_text import counted
from autograder.submissions.cell import (
    EMPTY_FILE,
    EMPTY_NOTEBOOK,
    MAX_CELLS,
    Cell,
    Kind,
)

MAX_SCRIPT = 2_000_000  # characters
MAX_OPTIONS = 1_000  # maximum number of characters after a cell marker on its line
HEADER = re.compile(r"#[ \t]*---[ \t]*\n(?:#[^\n]*\n)*?#[ \t]*---[ \t]*(?:\n|\Z)")
KIND = re.compile(r"\[(markdown|md|raw)\]")
SCRIPT_KINDS: dict[str, Kind] = {"markdown": "markdown", "md": "markdown", "raw": "raw"}
MAGIC = re.compile(r"^([ \t]*)# ?(?=%{1,2}[a-zA-Z]|![ \t]*\w)", re.MULTILINE)


class Unreadable(Exception):
    """Raised when a file contains no readable cells. The message gives the reason."""


def _check_count(count: int) -> None:
    """Raise Unreadable if a file has more than `MAX_CELLS` cells."""
    if count > MAX_CELLS:
        raise Unreadable(f"the file has {count:,} cells (limit: {MAX_CELLS:,})")


def parse_script(text: str, problems: list[str]) -> list[Cell]:
    """Return a script's cells, or one cell if it has no cell markers. Raises Unreadable if the script is empty or too long."""
    if not text.strip():
        raise Unreadable(EMPTY_FILE)
    if len(text) > MAX_SCRIPT:
        raise Unreadable(f"the script is too long (limit: {MAX_SCRIPT:,} characters)")
    before, parts = split_cells(text)
    _check_count(len(parts))
    if not parts:
        return [Cell(1, "code", text)]
    if any(len(options) > MAX_OPTIONS for options, _ in parts):
        problems.append("a cell marker in the script is too long; the file was read as one cell")
        return [Cell(1, "code", text)]
    header = HEADER.match(text)
    preamble = text[header.end() if header else 0 : len(before)].strip("\n")
    cells = [Cell(1, "code", _restore_magics(preamble))] if preamble.strip() else []
    for options, body in parts:
        kind, source = _parse_cell(options, body.strip("\n"))
        cells.append(Cell(len(cells) + 1, kind, source))
    return cells


def _parse_cell(options: str, body: str) -> tuple[Kind, str]:
    named = KIND.search(options)
    if not named:
        return "code", _restore_magics(body)
    for quotes in ('"""', "'''"):
        if body.startswith(quotes) and body.endswith(quotes) and len(body) >= 6:
            return SCRIPT_KINDS[named[1]], body[3:-3].strip("\n")
    return SCRIPT_KINDS[named[1]], uncomment(body)


def _restore_magics(source: str) -> str:
    """Uncomment IPython magics, which tools comment out when converting a notebook to a script."""
    return MAGIC.sub(r"\1", source)


KINDS: dict[str, Kind] = {
    "code": "code",
    "markdown": "markdown",
    "heading": "markdown",  # nbformat 3
    "raw": "raw",
}
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_KEYS = 1_000  # maximum number of top-level keys in a damaged notebook
SPACE = re.compile(r"[ \t\n\r]*")


class _Cell(msgspec.Struct):
    """The fields of a notebook cell that the grader needs. The decoder skips all others."""

    cell_type: Any = None
    source: Any = None
    input: Any = None  # the name of `source` in nbformat 3


class _Sheet(msgspec.Struct):
    cells: list[_Cell] | None = None


class _Notebook(msgspec.Struct):
    cells: list[_Cell] | None = None
    worksheets: list[_Sheet] | None = None  # nbformat 3


_TYPED = msgspec.json.Decoder(_Notebook)


def parse_strict(data: bytes | bytearray, problems: list[str]) -> list[Cell] | None:
    """Return the cells of a notebook, or None if `data` is not a well-formed notebook."""
    try:
        found = _TYPED.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        return None
    cells = found.cells
    if cells is None and found.worksheets is not None:
        cells = [cell for sheet in found.worksheets for cell in sheet.cells or ()]
    return _cells(cells, problems) if cells else None


def parse_tolerant(text: str, problems: list[str]) -> list[Cell]:
    """Return the cells of a malformed or truncated notebook. Raises Unreadable if there are none."""
    try:
        found = json.loads(text, parse_int=_parse_int)
    except RecursionError:
        raise Unreadable("the file is not a notebook: its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        return _recover(text, error, problems)
    cells = found.get("cells")
    worksheets = found.get("worksheets")
    if not isinstance(cells, list) and isinstance(worksheets, list):
        cells = [
            cell
            for sheet in worksheets
            if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
            for cell in sheet["cells"]
        ]
    if not isinstance(cells, list):
        raise Unreadable("the file is not a notebook: its JSON has no list of cells")
    if not cells:
        raise Unreadable(EMPTY_NOTEBOOK)
    return _cells([_select_fields(cell) for cell in cells], problems)


def _select_fields(raw: Any) -> _Cell | None:
    if not isinstance(raw, Mapping):
        return None
    return _Cell(*(raw.get(key) for key in ("cell_type", "source", "input")))


def _parse_int(digits: str) -> int | float:
    """Parse a JSON integer. Very long integers become floats, because `int` rejects more than 4300 digits by default."""
    return int(digits) if len(digits) < 1000 else float(digits)


def _recover(text: str, error: json.JSONDecodeError, problems: list[str]) -> list[Cell]:
    """Return the complete cells before a syntax error in the JSON. Raises Unreadable if there are none."""
    damage = (
        "the file is truncated"
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        else f"the file is damaged at line {error.lineno}"
    )
    cells = _complete_cells(text)
    if not cells:
        raise Unreadable(
            f"the notebook could not be read: {damage} before the end of its first cell"
        )
    problems.append(
        f"{damage}: only {counted(len(cells), 'cell')} could be read. "
        "For the rest, save the notebook in Jupyter and submit it again"
    )
    return _cells(cells, problems)


def _complete_cells(text: str) -> list[_Cell | None]:
    """Return the elements of the top-level "cells" list that precede the syntax error. Each element is decoded only once."""
    decode = json.JSONDecoder(parse_int=_parse_int).raw_decode

    def skip(position: int) -> int:
        match = SPACE.match(text, position)
        return match.end() if match else position

    cells: list[_Cell | None] = []
    position = skip(skip(0) + 1)
    try:
        for _ in range(MAX_KEYS):
            key, position = decode(text, position)
            position = skip(position)
            if text[position] != ":":
                return cells
            position = skip(position + 1)
            if key == "cells" and text[position] == "[":
                position = skip(position + 1)
                while text[position] != "]" and len(cells) <= MAX_CELLS:
                    cell, position = decode(text, position)
                    cells.append(_select_fields(cell))
                    position = skip(position)
                    if text[position] == ",":
                        position = skip(position + 1)
                return cells
            _, position = decode(text, position)
            position = skip(skip(position) + 1)  # skip the comma
    except (ValueError, IndexError, RecursionError):
        pass
    return cells


def _cells(found: Sequence[_Cell | None], problems: list[str]) -> list[Cell]:
    _check_count(len(found))
    cells = []
    for number, raw in enumerate(found, 1):
        if raw is not None:
            cells.append(_cell(number, raw, problems))
        else:
            problems.append(f"cell {number} was skipped: it is not a JSON object")
    if not cells:
        raise Unreadable("none of the notebook's cells could be read")
    return cells


def _cell(number: int, raw: _Cell, problems: list[str]) -> Cell:
    named = raw.cell_type
    kind = KINDS.get(named.lower()) if isinstance(named, str) else "code"
    if not isinstance(named, str):
        problems.append(f"cell {number} has no type; it was read as code")
    elif kind is None:
        problems.append(f"cell {number} has an unknown type; it was read as raw text")
    source = raw.input if raw.source is None else raw.source
    lines = source if isinstance(source, list) else [source]
    if any(not isinstance(line, str) for line in lines) and source is not None:
        problems.append(f"cell {number}: parts of the source are not text and were skipped")
    text = "".join(line for line in lines if isinstance(line, str))
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if SURROGATE.search(text):
        text = SURROGATE.sub("\ufffd", text)
        problems.append(f"cell {number}: an invalid character (a lone surrogate) was replaced")
    return Cell(number, kind or "raw", text)


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
