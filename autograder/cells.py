"""A notebook or percent script → cells.

Students hand in what their tools leave behind: notebooks cut off in the middle of a save, scripts
named .ipynb, cells without a type. What can be read is read, and what was wrong is said in words.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_BYTES = 20_000_000
MAX_SCRIPT = 2_000_000
MAX_CELLS = 5_000

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
KINDS: dict[str, Literal["code", "markdown", "raw"]] = {
    "code": "code",
    "markdown": "markdown",
    "heading": "markdown",  # nbformat 3
    "raw": "raw",
}
PERCENT = re.compile(r"^#[ \t]*%%([^\n]*)", re.MULTILINE)
MAX_OPTIONS = 1_000  # characters after a cell marker: jupytext is quadratic in them
SURROGATE = re.compile("[\ud800-\udfff]")
SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Cell:
    """One cell; `number` is its place among all cells from 1, `source` has \\n line ends."""

    number: int
    kind: Literal["code", "markdown", "raw"]
    source: str
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Unreadable(Exception):
    """No cell can be read; the message says why in one sentence."""


def read_cells(data: bytes, name: str) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Returns the cells of a notebook or Python script and what was wrong with it, in words.

    A JSON object is a notebook whatever its name. Raises Unreadable.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it is too large: at most {MAX_BYTES:,} bytes are read")
    if not data.strip():
        raise Unreadable("it is empty")
    for start, what in NOT_TEXT:
        if data.startswith(start):
            raise Unreadable(f"it is {what}, not a notebook")
    problems: list[str] = []
    text = _decoded(data, problems)
    beginning = text.lstrip()
    is_named_script = name.lower().endswith(".py")
    if beginning.startswith("<") and not is_named_script:
        raise Unreadable("it is a web page or XML, not a notebook")
    if beginning.startswith("{"):
        try:
            return _notebook(text, problems)
        except Unreadable:
            if not is_named_script:
                raise
    if name.lower().endswith(".ipynb"):
        problems.append("the file is not a notebook; it was read as a Python script")
    return _script(text, problems)


def _decoded(data: bytes, problems: list[str]) -> str:
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


# ---- scripts


def _script(text: str, problems: list[str]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    if not text.strip():
        raise Unreadable("it is empty")
    if len(text) > MAX_SCRIPT:
        raise Unreadable(f"it is too large: at most {MAX_SCRIPT:,} characters of a script are read")
    markers = PERCENT.findall(text)
    if len(markers) > MAX_CELLS:
        raise Unreadable(f"it has {len(markers):,} cells, at most {MAX_CELLS:,} are read")
    if markers:
        # Imported here: it costs more than a second, and most submissions are notebooks.
        import jupytext

        try:
            if max(map(len, markers)) > MAX_OPTIONS:
                raise ValueError("a cell marker with overlong options")
            found = jupytext.reads(text, fmt="py:percent").cells
            return _cells([dict(cell) for cell in found], problems)
        except Exception:  # whatever jupytext makes of odd headers and cell options
            problems.append("its percent cells could not be told apart; the file was read as one")
    return _cells([{"cell_type": "code", "source": text}], problems)


# ---- notebooks


def _notebook(text: str, problems: list[str]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    try:
        notebook = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise Unreadable("it is not a notebook: its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        return _recovered(text, error, problems)
    cells = notebook.get("cells")
    worksheets = notebook.get("worksheets")  # nbformat 3
    if not isinstance(cells, list) and isinstance(worksheets, list):
        cells = [
            cell
            for sheet in worksheets
            if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
            for cell in sheet["cells"]
        ]
    if not isinstance(cells, list):
        raise Unreadable("it is not a notebook: its JSON has no list of cells")
    if not cells:
        raise Unreadable("the notebook has no cells")
    return _cells(cells, problems)


def _integer(digits: str) -> int | float:
    """Python refuses to read integers of more than 4300 digits; no notebook needs one."""
    return int(digits) if len(digits) < 1000 else float(digits)


def _recovered(
    text: str, error: json.JSONDecodeError, problems: list[str]
) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    where = (
        "the file ends in the middle"
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        else f"the file is damaged at line {error.lineno}"
    )
    cells = _complete_cells(text)
    if not cells:
        raise Unreadable(f"it is not a notebook that can be read: {where}, before its first cell")
    count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    problems.append(f"{where}: {count} could be read")
    return _cells(cells, problems)


def _complete_cells(text: str) -> list[Any]:
    """The elements of the top-level object's "cells" before the JSON breaks, each decoded once."""
    decode = json.JSONDecoder(parse_int=_integer).raw_decode

    def skip(position: int) -> int:
        match = SPACE.match(text, position)
        return match.end() if match else position

    cells: list[Any] = []
    position = skip(skip(0) + 1)
    try:
        while True:
            key, position = decode(text, position)
            position = skip(position)
            if text[position] != ":":
                return cells
            position = skip(position + 1)
            if key == "cells" and text[position] == "[":
                position = skip(position + 1)
                while text[position] != "]" and len(cells) <= MAX_CELLS:
                    cell, position = decode(text, position)
                    cells.append(cell)
                    position = skip(position)
                    if text[position] == ",":
                        position = skip(position + 1)
                return cells
            _, position = decode(text, position)
            position = skip(skip(position) + 1)  # the comma
    except (ValueError, IndexError, RecursionError):
        return cells


def _cells(found: list[Any], problems: list[str]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    if len(found) > MAX_CELLS:
        raise Unreadable(f"it has {len(found):,} cells, at most {MAX_CELLS:,} are read")
    cells = []
    for number, raw in enumerate(found, 1):
        if isinstance(raw, dict):
            cells.append(_cell(number, raw, problems))
        else:
            problems.append(f"cell {number}: it is not a cell; skipped")
    if not cells:
        raise Unreadable("it has no cell that can be read")
    return tuple(cells), tuple(problems)


def _cell(number: int, raw: dict[str, Any], problems: list[str]) -> Cell:
    named = raw.get("cell_type")
    kind = KINDS.get(named.lower()) if isinstance(named, str) else "code"
    if not isinstance(named, str):
        problems.append(f"cell {number}: it has no type; read as code")
    elif kind is None:
        problems.append(f"cell {number}: its type is unknown; read as raw text")
    source = raw.get("source", raw.get("input"))  # `input` in nbformat 3
    lines = source if isinstance(source, list) else [source]
    if any(not isinstance(line, str) for line in lines) and source is not None:
        problems.append(f"cell {number}: parts of its source are not text; skipped")
    text = "".join(line for line in lines if isinstance(line, str))
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if SURROGATE.search(text):
        text = SURROGATE.sub("\ufffd", text)
        problems.append(f"cell {number}: half a character (a lone surrogate) was replaced")
    identity, metadata = raw.get("id"), raw.get("metadata")
    return Cell(
        number=number,
        kind=kind or "raw",
        source=text,
        id=SURROGATE.sub("\ufffd", identity) if isinstance(identity, str) else "",
        metadata=dict(metadata) if isinstance(metadata, dict) else {},
    )
