"""Check the documentation's site, which `make docs` builds, in a real browser. `make browser` runs this check.

Each page must pass axe's accessibility checks, load nothing from other servers and fit on a phone screen. With a FOLDER
argument, screenshots and PDFs are saved there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from playwright.sync_api import sync_playwright

from tests.browser.check import VIEWS, browser_and_folder, check_view
from tests.conftest import ROOT

SITE = ROOT / "site"


def main(arguments: Sequence[str]) -> int:
    """Check all pages. Return 1 if any of them has a problem."""
    program, shots = browser_and_folder(arguments)
    files = sorted(SITE.rglob("*.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        problems = [
            problem
            for file in files
            for scheme, width in VIEWS
            for problem in check_view(browser, file, scheme, width, shots, SITE)
        ]
        browser.close()
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{len(files)} pages, {len(VIEWS)} views each: {len(problems)} problems")
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
