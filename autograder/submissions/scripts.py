"""A percent script → cells. The header, where a tool has written one, is skipped and never parsed."""

from __future__ import annotations

import re

from autograder.submissions.cell import Cell, Kind, Unreadable, check_count

MARKER = re.compile(r"^#[ \t]*%%+(?:$|(?=[ \t\[])([^\n]*))\n?", re.MULTILINE)
MAX_SCRIPT = 2_000_000  # characters
MAX_OPTIONS = 1_000  # characters after a cell marker
HEADER = re.compile(r"#[ \t]*---[ \t]*\n(?:#[^\n]*\n)*?#[ \t]*---[ \t]*(?:\n|\Z)")
KIND = re.compile(r"\[(markdown|md|raw)\]")
KINDS: dict[str, Kind] = {"markdown": "markdown", "md": "markdown", "raw": "raw"}
COMMENT = re.compile(r"^# ?", re.MULTILINE)
MAGIC = re.compile(r"^([ \t]*)# ?(?=%{1,2}[a-zA-Z]|![ \t]*\w)", re.MULTILINE)


def parse_script(text: str, problems: list[str]) -> list[Cell]:
    """The cells of a script; one without cell markers is one cell. Raises Unreadable."""
    if not text.strip():
        raise Unreadable("it is empty")
    if len(text) > MAX_SCRIPT:
        raise Unreadable(f"it is too large: at most {MAX_SCRIPT:,} characters of a script are read")
    markers = list(MARKER.finditer(text))
    check_count(len(markers))
    if not markers:
        return [Cell(1, "code", text)]
    if any(len(marker[1] or "") > MAX_OPTIONS for marker in markers):
        problems.append("its percent cells could not be told apart; the file was read as one")
        return [Cell(1, "code", text)]
    header = HEADER.match(text)
    before = text[header.end() if header else 0 : markers[0].start()].strip("\n")
    cells = [Cell(1, "code", _uncommented(before))] if before.strip() else []
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    for marker, end in zip(markers, ends, strict=True):
        kind, source = _cell(marker[1] or "", text[marker.end() : end].strip("\n"))
        cells.append(Cell(len(cells) + 1, kind, source))
    return cells


def _cell(options: str, body: str) -> tuple[Kind, str]:
    named = KIND.search(options)
    if not named:
        return "code", _uncommented(body)
    for quotes in ('"""', "'''"):
        if body.startswith(quotes) and body.endswith(quotes) and len(body) >= 6:
            return KINDS[named[1]], body[3:-3].strip("\n")
    return KINDS[named[1]], COMMENT.sub("", body)


def _uncommented(source: str) -> str:
    """Magics as they stand in the notebook: tools comment them out in scripts."""
    return MAGIC.sub(r"\1", source)
