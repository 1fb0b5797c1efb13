"""Embed a chapter's figures and recordings in its text, so that the notebook is self-contained and works offline.

Entry point: `embed`.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from xml.etree import ElementTree

from autograder.course.config import CourseError

LINK = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]*)\)")
ELSEWHERE = ("http://", "https://", "data:")
ROOT = "{http://www.w3.org/2000/svg}svg"
MEDIA = {
    ".svg": ("image/svg+xml", "an SVG image"),
    ".gif": ("image/gif", "a GIF image"),
    ".wav": ("audio/wav", "a WAV recording"),
}


def embed(markdown: str, chapter: Path) -> str:
    """Return a markdown cell's text with each linked file embedded in an `<img>` or `<audio>` element.

    Links are relative to the chapter's folder. JupyterLab strips inline `<svg>`, and Colab has no access to local files.

    Raises:
        CourseError: A file is missing or does not match its suffix, or a link has no alternative text.
    """

    def element(link: re.Match[str]) -> str:
        alt, target = " ".join(link["alt"].split()), link["target"]
        if target.startswith(ELSEWHERE):
            return link[0]
        if not alt:
            raise CourseError(
                f"{chapter}: the figure {target} has no alternative text. Describe it in the link: ![text]({target})"
            )
        data, media_type = _read(chapter.parent / target, chapter)
        source = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if media_type.startswith("audio/"):
            return f'<audio controls src="{source}">{html.escape(alt)}</audio>'
        return f'<img src="{source}" alt="{html.escape(alt)}">'

    return LINK.sub(element, markdown)


def _read(file: Path, chapter: Path) -> tuple[bytes, str]:
    """Return a file's content and media type."""
    if file.suffix not in MEDIA:
        raise CourseError(
            f"{chapter}: the suffix of figure {file} must be one of {', '.join(MEDIA)}"
        )
    media_type, kind = MEDIA[file.suffix]
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CourseError(
            f"{chapter}: the figure {file} cannot be read: {error.strerror}"
        ) from None
    try:
        valid = _is_valid(data, file.suffix)
    except ElementTree.ParseError as error:
        raise CourseError(f"{chapter}: the figure {file} is not {kind}: {error}") from None
    if not valid:
        raise CourseError(f"{chapter}: the figure {file} is not {kind}")
    return data, media_type


def _is_valid(data: bytes, suffix: str) -> bool:
    """Return whether a file starts with the signature that its suffix implies."""
    if suffix == ".svg":
        return ElementTree.fromstring(data).tag == ROOT
    if suffix == ".gif":
        return data.startswith((b"GIF87a", b"GIF89a"))
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"
