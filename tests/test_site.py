"""Test the site that `make docs` has built in the folder `SITE`. It contains every page and loads nothing from other servers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

SITE = Path(os.environ.get("SITE", ""))
pytestmark = pytest.mark.skipif("SITE" not in os.environ, reason="`make docs` tests the site")
LOADING = ("src", "srcset", "data", "poster")  # attributes whose targets a browser loads


class Loaded(HTMLParser):
    """Collects the addresses that a page loads when it is opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses in a tag."""
        names = (*LOADING, "href") if tag == "link" else LOADING
        self.addresses += [value for name, value in attrs if name in names and value]


def loaded(file: Path) -> Iterator[str]:
    """Yield the addresses that a page or style sheet loads."""
    text = file.read_text(encoding="utf-8")
    yield from re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", text)
    if file.suffix == ".html":
        yield from Loaded(text).addresses


def test_the_site_contains_every_page() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    assert [
        p for p in pages if not (SITE / p.relative_to(ROOT)).with_suffix(".html").exists()
    ] == []


def test_the_site_can_be_searched_and_has_a_dark_mode() -> None:
    assert "landlock" in (SITE / "searchindex.js").read_text(encoding="utf-8")
    styles = "".join(file.read_text() for file in (SITE / "_static").rglob("*.css"))
    assert "prefers-color-scheme: dark" in re.sub(r":\s*", ": ", styles)


def test_no_page_loads_anything_from_other_servers() -> None:
    files = [file for kind in ("html", "css") for file in SITE.rglob(f"*.{kind}")]
    addresses = {address for file in files for address in loaded(file)}
    assert len(addresses) > 10
    assert [a for a in sorted(addresses) if re.match(r"(?!data:)\w+:|//", a)] == []
