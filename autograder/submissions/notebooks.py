"""Parse notebook JSON into cells.

`parse_strict` decodes only the needed fields, because outputs may contain hundreds of megabytes.
`parse_tolerant` uses Python's more tolerant parser, which accepts NaN and lone surrogates. It also recovers complete
cells from truncated files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from autograder.plain_text import counted
from autograder.submissions.cell import (
    EMPTY_NOTEBOOK,
    MAX_CELLS,
    MAX_ID_LENGTH,
    Cell,
    Kind,
    Unreadable,
    check_count,
)

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
    id: Any = None


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
    return _Cell(*(raw.get(key) for key in ("cell_type", "source", "input", "id")))


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
    check_count(len(found))
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
    identity = raw.id[:MAX_ID_LENGTH] if isinstance(raw.id, str) else ""
    return Cell(number, kind or "raw", text, SURROGATE.sub("\ufffd", identity))
