"""Render templates as self-contained pages, escaping everything that a student wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from autograder.plain_text import format_number, sanitize


def _sanitize(value: Any) -> Any:
    """Sanitize a string that a template inserts. Jinja then escapes any HTML in it."""
    return sanitize(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def prose(text: str) -> Markup:
    """Convert text to HTML. Text between backticks is formatted as code."""
    parts = re.split(r"`([^`\n]+)`", sanitize(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part)
        for n, part in enumerate(parts)
    )


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_sanitize,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"prose": prose, "number": format_number}


def render(template: str, **values: Any) -> str:
    """Render a template from this folder."""
    return TEMPLATES.get_template(template).render(values)
