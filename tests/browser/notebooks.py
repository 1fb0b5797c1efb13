"""Export the released notebooks with nbconvert and check them in a real browser. `make browser` runs this check.

The pages use nbconvert's templates `lab` (similar to JupyterLab) and `classic` (similar to VS Code). Local files are
unavailable, just as in Colab. All pictures must appear, and the course's own content must pass axe's
accessibility checks. With a FOLDER argument, screenshots are saved there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Route, sync_playwright

from autograder.course import config as courses
from tests.browser.check import OPEN_ALL, Scheme, browser_and_folder
from tests.conftest import ROOT

# The template, its theme, and the browser's colour scheme.
View = tuple[str, str, Scheme]
VIEWS: tuple[View, ...] = (
    ("lab", "light", "light"),
    ("lab", "dark", "dark"),
    ("classic", "light", "light"),
    ("classic", "light", "dark"),
)
# What the course writes: texts and outputs. The templates' own structure is excluded.
OWN = ".jp-RenderedHTMLCommon, .jp-RenderedHTML, .jp-RenderedImage, .text_cell_render, .output_area"
# JupyterLab's theme does not underline links.
OPTIONS = {"rules": {"link-in-text-block": {"enabled": False}}}
MISSING = (
    "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt || i.src)"
)


def check_view(
    browser: Browser, notebook: Path, view: View, folder: Path, shots: Path | None
) -> list[str]:
    """Export a notebook, open it with the given template, theme and colour scheme, and return the problems found."""
    template, theme, scheme = view
    html, _ = HTMLExporter(template_name=template, theme=theme).from_filename(str(notebook))
    file = folder / f"{notebook.stem}-{template}-{theme}-{scheme}.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
    local: list[str] = []

    def answer(route: Route) -> None:
        """Abort all requests except the one for the page itself. This includes requests for local files and network scripts."""
        url = route.request.url
        if url == file.as_uri():
            route.continue_()
            return
        if url.startswith("file:"):
            local.append(url)
        route.abort()

    page.route("**/*", answer)
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate(OPEN_ALL)
    problems = [f"needs the local file {url}" for url in local]
    problems += [f"does not show the picture {text[:80]}" for text in page.evaluate(MISSING)]
    result = Axe().run(page, context=OWN, options=OPTIONS)
    if result.violations_count:
        problems.append(result.generate_report())
    if shots:
        page.screenshot(path=shots / f"{file.stem}.png", full_page=True)
    count = page.evaluate("document.images.length")
    problems += [] if count else ["contains no picture"]
    page.close()
    print(f"{file.stem}: {count} pictures, {len(problems)} problems")
    return [f"{file.stem} {problem}" for problem in problems]


def main(arguments: Sequence[str]) -> int:
    """Check all released notebooks. Return 1 if any of them has a problem."""
    program, shots = browser_and_folder(arguments)
    days = courses.load(ROOT).days
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        problems = [
            problem
            for day in days
            for view in VIEWS
            for problem in check_view(
                browser, ROOT / "assignments" / day / f"{day}.ipynb", view, Path(folder), shots
            )
        ]
        browser.close()
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
