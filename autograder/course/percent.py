"""Split scripts in the percent format (`# %%`) into cells. Chapters, known mistakes and students' scripts use this format.

jupytext reads the same format, but importing it takes longer than importing torch.
"""

from __future__ import annotations

import re

MARKER = re.compile(r"^#[ \t]*%%+(?:$|(?=[ \t\[])([^\n]*))\n?", re.MULTILINE)
COMMENT = re.compile(r"^# ?", re.MULTILINE)


def split_cells(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first cell marker, and the options and body of each cell.

    The options are the rest of the marker's line: `[markdown]`, a title or metadata.
    """
    markers = list(MARKER.finditer(text))
    if not markers:
        return text, []
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    cells = [
        (marker[1] or "", text[marker.end() : end])
        for marker, end in zip(markers, ends, strict=True)
    ]
    return text[: markers[0].start()], cells


def uncomment(body: str) -> str:
    """Remove the leading `# ` from each line of a markdown cell."""
    return COMMENT.sub("", body)
