"""Embed a chapter's figures in its text, so that the notebook is one file that shows them offline. Entry point: `embed`."""

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


def embed(markdown: str, chapter: Path) -> str:
    """Return the text of a markdown cell with each linked SVG file as an `<img>` that contains the file.

    Links are relative to the chapter's folder. JupyterLab strips inline `<svg>`, and Colab has no access to local files.

    Raises:
        CourseError: A file is missing or is not an SVG image, or a link has no alternative text.
    """

    def image(link: re.Match[str]) -> str:
        alt, target = " ".join(link["alt"].split()), link["target"]
        if target.startswith(ELSEWHERE):
            return link[0]
        if not alt:
            raise CourseError(
                f"{chapter}: the figure {target} has no alternative text. Describe it in the link: ![text]({target})"
            )
        data = _svg(chapter.parent / target, chapter)
        encoded = base64.b64encode(data).decode()
        return f'<img src="data:image/svg+xml;base64,{encoded}" alt="{html.escape(alt)}">'

    return LINK.sub(image, markdown)


def _svg(file: Path, chapter: Path) -> bytes:
    """Return the bytes of an SVG file."""
    try:
        data = file.read_bytes()
        root = ElementTree.fromstring(data)
    except OSError as error:
        raise CourseError(
            f"{chapter}: the figure {file} cannot be read: {error.strerror}"
        ) from None
    except ElementTree.ParseError as error:
        raise CourseError(f"{chapter}: the figure {file} is not an SVG image: {error}") from None
    if root.tag != ROOT:
        raise CourseError(f"{chapter}: the figure {file} is not an SVG image")
    return data
