"""Templates → pages that need nothing beside themselves; whatever a student wrote is made visible and escaped on its way in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from autograder.marks.model import sanitize


def _visible(value: Any) -> Any:
    """What `{{ }}` puts into a page: text without control and bidi characters (autoescape comes after it)."""
    return sanitize(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def prose(text: str) -> Markup:
    """Text in which `names` in backticks are code."""
    parts = re.split(r"`([^`\n]+)`", sanitize(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part)
        for n, part in enumerate(parts)
    )


def number(value: float) -> str:
    """Points and shares without the zeros that say nothing."""
    return f"{value:g}"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"prose": prose, "number": number}


def render(template: str, **values: Any) -> str:
    """Fill in one of the templates of this folder."""
    return TEMPLATES.get_template(template).render(values)
