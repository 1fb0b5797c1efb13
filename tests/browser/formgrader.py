"""A TA's way through nbgrader's formgrader in a real browser, with regrades in between. `make formgrader` runs it.

With a FOLDER as its argument, screenshots of each step are left there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.check import BROWSERS, NO_BROWSER
from tests.released_course import BROKEN, Class, release
from tests.small_course import RIGHT, WRONG, command

SECONDS = 60  # for the server to start, and for one page
COMMENT = "Which id is padding? <b>Read</b> the signature once more."
MARK = "33.5"
# nbgrader's pages ask the web for it, and do nothing before it is there.
MATHJAX = """MathJax = {Hub: {Config() {}, Queue() {}, Startup: {signal: {Interest(tell) {
    setTimeout(() => tell("End"))
}}}}}"""
LOADED = "window.formgrader?.loaded && formgrader.grades.loaded && formgrader.comments.loaded"


class TA:
    """Opens the one submission of a course in formgrader, and looks at it."""

    def __init__(self, page: Page, url: str, shots: Path | None) -> None:
        self.page = page
        self.url = url
        self.shots = shots
        self.wrong: list[str] = []

    def open(self) -> None:
        """From the table of the assignment to the submission, by clicking."""
        self.page.goto(f"{self.url}/formgrader/gradebook/day1/day1")
        self.page.wait_for_selector("table tbody a")
        self.page.click("table tbody a")
        self.page.wait_for_url("**/formgrader/submissions/*/")
        self.page.wait_for_function(LOADED)

    def write(self) -> None:
        """Another mark than the grader's, and a comment; both are saved when the field is left."""
        for field, text in (("#check_padding_mask", MARK), ("#padding_mask-comment", COMMENT)):
            self.page.fill(field, text)
            with self.page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
                self.page.keyboard.press("Escape")
            self.expect(saved.value.ok, f"{field} was not saved: {saved.value.status}")

    def sees(self, said: str, not_said: str = "") -> None:
        """The mark and the comment are as they were written, and the page says one thing and not the other."""
        mark = self.page.input_value("#check_padding_mask")
        comment = self.page.input_value("#padding_mask-comment")
        self.expect(mark == MARK, f"the mark is {mark!r}, not {MARK!r}")
        self.expect(comment == COMMENT, f"the comment is {comment!r}, not {COMMENT!r}")
        text = self.page.inner_text("#notebook")
        self.expect(said in text, f"{said!r} is not on the page")
        self.expect(not not_said or not_said not in text, f"{not_said!r} is on the page still")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def shoot(self, name: str) -> None:
        if self.shots:
            self.page.screenshot(path=self.shots / f"formgrader-{name}.png", full_page=True)


@contextlib.contextmanager
def formgrader(root: Path) -> Iterator[str]:
    """A Jupyter server of its own in the course; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(sys.executable).parent
    serving = subprocess.Popen(
        [
            *(str(binaries / "jupyter"), "server", "--allow-root", "--no-browser"),
            *(f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.password="),
        ],
        cwd=root,
        env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=(root / "jupyter.log").open("w"),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + SECONDS
        while serving.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api"):
                break
            if time.monotonic() > end:
                raise TimeoutError("the Jupyter server does not answer")
            time.sleep(0.2)
        yield url
    finally:
        serving.terminate()
        serving.wait()


def grade(course: Class) -> None:
    """`autograder grade day1`, while formgrader is open."""
    done = command(course.root, "grade", "day1", "--jobs", "1")
    if done.returncode == 2:
        raise RuntimeError(done.stderr)


def round_trip(course: Class, ta: TA) -> None:
    """Open, comment, change a mark; a better attempt, an unreadable one, and the feedback page."""
    ta.open()
    ta.shoot("opened")
    ta.write()
    ta.open()
    ta.sees("padding_mask: 20 of 60 points")
    ta.shoot("commented")

    course.hand_in("ada", RIGHT, "second try.ipynb")
    grade(course)
    ta.open()
    ta.sees("padding_mask: 60 of 60 points", not_said="20 of 60 points")
    ta.shoot("regraded")

    course.hand_in("ada", BROKEN)
    grade(course)
    ta.open()
    ta.sees("Nothing could be graded", not_said="60 of 60 points")
    ta.shoot("unreadable")

    course.feedback()
    ta.page.goto((course.root / "feedback/ada/day1/day1.html").as_uri())
    text = ta.page.inner_text("body")
    for part in ("Which id is padding?", f"Score: {MARK} / 60.0", "Nothing could be graded"):
        ta.expect(part in text, f"{part!r} is not on the feedback page")
    ta.shoot("feedback")


def main(arguments: Sequence[str]) -> int:
    """Go the whole way; 1 if something is not as it should be, 2 where there is no browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(NO_BROWSER, file=sys.stderr)
        return 2
    shots = Path(arguments[0]) if arguments else None
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course = Class(release(Path(folder) / "course"))
        course.hand_in("ada", WRONG)
        grade(course)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with formgrader(course.root) as url:
            ta = TA(browser.new_page(viewport={"width": 1200, "height": 900}), url, shots)
            ta.page.set_default_timeout(SECONDS * 1000)
            ta.page.route(re.compile(r"https://"), lambda route: route.fulfill(body=MATHJAX))
            ta.page.on("pageerror", lambda error: ta.wrong.append(f"an error on the page: {error}"))
            round_trip(course, ta)
        browser.close()
    print(*ta.wrong, sep="\n", end="\n" if ta.wrong else "")
    print(f"formgrader: {len(ta.wrong)} things are wrong")
    return 1 if ta.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
