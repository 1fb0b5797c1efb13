"""Look at both pages in a real browser: axe finds nothing, nothing runs, nothing is wider than a phone. `make browser` runs it.

With a FOLDER as its argument, what a person should look at is left there: screenshots, light, dark and narrow, and the print.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from autograder.course import config as courses
from autograder.feedback import class_analysis, class_page, sentences, student_page
from autograder.feedback.sentences import Texts
from autograder.grading.grader import Grader, start_server
from autograder.marks.model import FORMAT, Marks, SubmissionMarks
from autograder.submissions.submission import read_submissions
from bench.simulated import make_class
from tests.conftest import ROOT, SECRET, reader
from tests.material import HOSTILE, exercise, submission, unread

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = (
    "there is no Chromium: install it (Debian: apt-get install chromium), then run this again"
)
VIEWS = (("light", 1000), ("dark", 1000), ("light", 360), ("dark", 360))
TO_OPEN = 'for (const folded of document.querySelectorAll("details")) folded.open = true'
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def hostile(words: Texts) -> Iterator[SubmissionMarks]:
    """Submissions of students who would rather write the pages themselves."""
    for text in HOSTILE:
        wrong = exercise(words, "softmax", {0: text, 1: text * 2})
        dead = exercise(words, "attention", dict.fromkeys(range(10), text), "crashed")
        yield submission(words, wrong, dead, student=text, path=text, problems=(text,))
    yield unread("<h1>", "not a notebook: <h1>")


def write_pages(folder: Path) -> list[Path]:
    """Pages of a simulated class and of a hostile one, and the reports of both together."""
    day = courses.load(ROOT).day("day1")
    make_class(day, folder / "class")
    with start_server() as server:
        grader = Grader(day, server, SECRET)
        graded = [grader.grade(s) for s in read_submissions([folder / "class"], day.name, reader())]
    words = sentences.read(day, grader.key.tests)
    everybody = [*graded, *hostile(words)]
    files, problems = student_page.write(everybody, words, folder / "feedback")
    assert not problems, problems
    for anonymous in (False, True):
        found = class_analysis.analyse(
            Marks(FORMAT, day.name, everybody), words, grader.key.fingerprint, anonymous
        )
        files.append(class_page.write(found, folder / f"report-{anonymous}")[0])
    return files


def look(browser: Browser, file: Path, scheme: str, width: int, shots: Path | None) -> list[str]:
    """What is wrong with a page in one view, in words."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
    page.on("pageerror", lambda error: wrong.append(f"an error: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    wrong += [f"asks for {url}" for url in asked if url != file.as_uri()]
    page.evaluate(TO_OPEN)
    found = Axe().run(page)
    if found.violations_count:
        wrong.append(found.generate_report())
    if (wider := page.evaluate(WIDER)) > 0:
        wrong.append(f"{wider} pixels wider than the window")
    if shots:
        name = f"{file.parent.name}-{file.stem}-{scheme}-{width}"
        page.screenshot(path=shots / f"{name}.png", full_page=True)
        if (scheme, width) == VIEWS[0]:
            page.pdf(path=shots / f"{name}.pdf")
    page.close()
    return [f"{file.parent.name}/{file.name}, {scheme}, {width} wide: {what}" for what in wrong]


def main(arguments: Sequence[str]) -> int:
    """Check all pages; 1 if something is wrong with one, 2 where there is no browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(NO_BROWSER, file=sys.stderr)
        return 2
    shots = Path(arguments[0]) if arguments else None
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        files = write_pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        wrong = [
            what
            for file in files
            for scheme, width in VIEWS
            for what in look(browser, file, scheme, width, shots)
        ]
        browser.close()
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(files)} pages, each in {len(VIEWS)} views: {len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
