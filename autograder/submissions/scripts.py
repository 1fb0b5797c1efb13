"""Parse a Python script into cells. The YAML header that jupytext writes is skipped, not parsed."""

from __future__ import annotations

import re

from autograder.course.chapters import split_cells, uncomment
from autograder.submissions.cell import EMPTY_FILE, Cell, Kind, Unreadable, check_count

MAX_SCRIPT = 2_000_000  # characters
MAX_OPTIONS = 1_000  # maximum number of characters after a cell marker on its line
HEADER = re.compile(r"#[ \t]*---[ \t]*\n(?:#[^\n]*\n)*?#[ \t]*---[ \t]*(?:\n|\Z)")
KIND = re.compile(r"\[(markdown|md|raw)\]")
KINDS: dict[str, Kind] = {"markdown": "markdown", "md": "markdown", "raw": "raw"}
MAGIC = re.compile(r"^([ \t]*)# ?(?=%{1,2}[a-zA-Z]|![ \t]*\w)", re.MULTILINE)


def parse_script(text: str, problems: list[str]) -> list[Cell]:
    """Return a script's cells, or one cell if it has no cell markers. Raises Unreadable if the script is empty or too long."""
    if not text.strip():
        raise Unreadable(EMPTY_FILE)
    if len(text) > MAX_SCRIPT:
        raise Unreadable(f"the script is too long (limit: {MAX_SCRIPT:,} characters)")
    before, parts = split_cells(text)
    check_count(len(parts))
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
            return KINDS[named[1]], body[3:-3].strip("\n")
    return KINDS[named[1]], uncomment(body)


def _restore_magics(source: str) -> str:
    """Uncomment IPython magics, which tools comment out when converting a notebook to a script."""
    return MAGIC.sub(r"\1", source)
