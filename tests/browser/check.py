"""Check feedback pages and class reports in a real browser. `make browser` runs this check.

The pages must pass axe's accessibility checks, run no scripts, load no other resources and fit on a phone screen. With
a FOLDER argument, a screenshot of each view and a PDF of each page are saved there for manual inspection.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, sync_playwright

from autograder.course import config as courses
from autograder.feedback import class_page, sentences, student_page
from autograder.feedback.sentences import Sentences
from autograder.grading.grader import Grader
from autograder.marks.model import FORMAT, Marks, SubmissionMarks
from autograder.sandbox.client import start_server
from autograder.submissions.submission import read_submissions
from bench.simulated import make_class
from tests.conftest import ROOT, SECRET, reader
from tests.material import HOSTILE, exercise, recipient, submission, unread

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = (
    "Chromium is not installed. Install it (Debian: apt-get install chromium) and run this again."
)
Scheme = Literal["light", "dark"]
VIEWS: tuple[tuple[Scheme, int], ...] = (
    ("light", 1000),
    ("dark", 1000),
    ("light", 360),
    ("dark", 360),
)
OPEN_ALL = 'for (const folded of document.querySelectorAll("details")) folded.open = true'
EXCESS_WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def hostile(texts: Sentences) -> Iterator[SubmissionMarks]:
    """Yield submissions whose names, messages and problems try to inject HTML and scripts."""
    for text in HOSTILE:
        wrong = exercise(texts, "softmax", {0: text, 1: text * 2})
        crashed = exercise(texts, "attention", dict.fromkeys(range(10), text), "crashed")
        yield submission(texts, wrong, crashed, student=text, path=text, problems=(text,))
    yield unread("<h1>", "not a notebook: <h1>")


def write_pages(folder: Path) -> list[Path]:
    """Write feedback pages for a simulated and a hostile class, and reports that cover both; return the paths."""
    day = courses.load(ROOT).day("day1")
    make_class(day, folder / "class")
    with start_server() as server:
        grader = Grader(day, server, SECRET)
        graded = [grader.grade(s) for s in read_submissions([folder / "class"], day.name, reader())]
    texts = sentences.read(day)
    everyone = [*graded, *hostile(texts)]
    files, problems = student_page.write(map(recipient, everyone), texts, folder / "feedback")
    assert not problems, problems
    for anonymous in (False, True):
        analysis = class_page.analyse(
            Marks(FORMAT, day.name, everyone), texts, grader.key.fingerprint, anonymous
        )
        files.append(class_page.write(analysis, folder / f"report-{anonymous}")[0])
    return files


def check_view(
    browser: Browser,
    file: Path,
    scheme: Scheme,
    width: int,
    shots: Path | None,
    site: Path | None = None,
) -> list[str]:
    """Open a page with the given colour scheme and window width, and return the problems found.

    The page may request files in the folder `site`, if there is one, but nothing else.
    """
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    requested: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        problems.append("opens a dialog")
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("pageerror", lambda error: problems.append(f"raises an error: {error}"))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    own = (site or file).as_uri()
    problems += [f"requests {url}" for url in requested if not url.startswith(own)]
    page.evaluate(OPEN_ALL)
    result = Axe().run(page)
    if result.violations_count:
        problems.append(result.generate_report())
    if (excess := page.evaluate(EXCESS_WIDTH)) > 0:
        problems.append(f"is {excess} pixels wider than the window")
    if shots:
        name = f"{file.parent.name}-{file.stem}-{scheme}-{width}"
        page.screenshot(path=shots / f"{name}.png", full_page=True)
        if (scheme, width) == VIEWS[0]:
            page.pdf(path=shots / f"{name}.pdf")
    page.close()
    view = f"{file.parent.name}/{file.name} ({scheme}, {width} pixels)"
    return [f"{view} {problem}" for problem in problems]


def browser_and_folder(arguments: Sequence[str]) -> tuple[str, Path | None]:
    """Return the browser's path, and the folder for screenshots or None. Exit with code 2 if no browser is installed."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(NO_BROWSER, file=sys.stderr)
        sys.exit(2)
    shots = Path(arguments[0]) if arguments else None
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    return program, shots


def main(arguments: Sequence[str]) -> int:
    """Check all pages. Return 1 if any of them has a problem."""
    program, shots = browser_and_folder(arguments)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        files = write_pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        problems = [
            problem
            for file in files
            for scheme, width in VIEWS
            for problem in check_view(browser, file, scheme, width, shots)
        ]
        browser.close()
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{len(files)} pages, {len(VIEWS)} views each: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
