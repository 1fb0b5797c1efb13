"""Test manual grading in nbgrader's formgrader, interleaved with regrades, in a real browser. `make formgrader` runs this test.

With a FOLDER argument, a screenshot of each step is saved there.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.check import browser_and_folder
from tests.released_course import BROKEN, Class, release
from tests.small_course import RIGHT, WRONG, command

SECONDS = 60  # timeout for starting the server and for loading a page
COMMENT = "Which id is padding? <b>Read</b> the signature once more."
MARK = "33.5"
# nbgrader's pages load MathJax from the web and wait for it, so we serve this stub.
MATHJAX = """MathJax = {Hub: {Config() {}, Queue() {}, Startup: {signal: {Interest(callback) {
    setTimeout(() => callback("End"))
}}}}}"""
LOADED = "window.formgrader?.loaded && formgrader.grades.loaded && formgrader.comments.loaded"


class TA:
    """A simulated TA who opens the course's only submission in formgrader and checks the page."""

    def __init__(self, page: Page, url: str, shots: Path | None) -> None:
        self.page = page
        self.url = url
        self.shots = shots
        self.problems: list[str] = []

    def open(self) -> None:
        """Click the submission in formgrader's table to open it."""
        self.page.goto(f"{self.url}/formgrader/gradebook/day1/day1")
        self.page.wait_for_selector("table tbody a")
        self.page.click("table tbody a")
        self.page.wait_for_url("**/formgrader/submissions/*/")
        self.page.wait_for_function(LOADED)

    def override(self) -> None:
        """Enter a different mark and a comment. Formgrader saves a field when it loses focus."""
        for field, text in (("#check_padding_mask", MARK), ("#padding_mask-comment", COMMENT)):
            self.page.fill(field, text)
            with self.page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
                self.page.keyboard.press("Escape")
            self.expect(saved.value.ok, f"{field} was not saved: {saved.value.status}")

    def expect_page(self, text: str, absent: str = "") -> None:
        """Check that the mark and comment are unchanged and the page contains `text` but not `absent`."""
        mark = self.page.input_value("#check_padding_mask")
        comment = self.page.input_value("#padding_mask-comment")
        self.expect(mark == MARK, f"the mark is {mark!r}, not {MARK!r}")
        self.expect(comment == COMMENT, f"the comment is {comment!r}, not {COMMENT!r}")
        shown = self.page.inner_text("#notebook")
        self.expect(text in shown, f"the page does not contain {text!r}")
        self.expect(not absent or absent not in shown, f"the page still contains {absent!r}")

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def screenshot(self, name: str) -> None:
        if self.shots:
            self.page.screenshot(path=self.shots / f"formgrader-{name}.png", full_page=True)


@contextlib.contextmanager
def jupyter(root: Path, app: str, *options: str) -> Iterator[str]:
    """Run one of Jupyter's applications in a folder and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(sys.executable).parent
    serving = subprocess.Popen(
        [
            *(str(binaries / "jupyter"), app, "--allow-root", "--no-browser", *options),
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
                raise TimeoutError("the Jupyter server did not start in time")
            time.sleep(0.2)
        yield url
    finally:
        serving.terminate()
        try:
            serving.wait(SECONDS)
        except subprocess.TimeoutExpired:  # it waits for a kernel that it stopped during startup
            serving.kill()


def grade(course: Class) -> None:
    """Run `autograder grade day1` while formgrader is open."""
    done = command(course.root, "grade", "day1", "--jobs", "1")
    if done.returncode == 2:
        raise RuntimeError(done.stderr)


def round_trip(course: Class, ta: TA) -> None:
    """Override a mark and add a comment, grade a better submission and then an unreadable one, and check the feedback."""
    ta.open()
    ta.screenshot("opened")
    ta.override()
    ta.open()
    ta.expect_page("padding_mask: 20 of 60 points")
    ta.screenshot("commented")

    course.hand_in("ada", RIGHT, "second try.ipynb")
    grade(course)
    ta.open()
    ta.expect_page("padding_mask: 60 of 60 points", absent="20 of 60 points")
    ta.screenshot("regraded")

    course.hand_in("ada", BROKEN)
    grade(course)
    ta.open()
    ta.expect_page("Nothing could be graded", absent="60 of 60 points")
    ta.screenshot("unreadable")

    course.feedback()
    ta.page.goto((course.root / "feedback/ada/day1/day1.html").as_uri())
    text = ta.page.inner_text("body")
    for part in ("Which id is padding?", f"Score: {MARK} / 60.0", "Nothing could be graded"):
        ta.expect(part in text, f"the feedback page does not contain {part!r}")
    ta.screenshot("feedback")


def main(arguments: Sequence[str]) -> int:
    """Run the test in a browser. Return 1 if there is a problem."""
    program, shots = browser_and_folder(arguments)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course = Class(release(Path(folder) / "course"))
        course.hand_in("ada", WRONG)
        grade(course)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with jupyter(course.root, "server") as url:
            ta = TA(browser.new_page(viewport={"width": 1200, "height": 900}), url, shots)
            ta.page.set_default_timeout(SECONDS * 1000)
            ta.page.route(re.compile(r"https://"), lambda route: route.fulfill(body=MATHJAX))
            ta.page.on(
                "pageerror", lambda error: ta.problems.append(f"the page raised an error: {error}")
            )
            round_trip(course, ta)
        browser.close()
    print(*ta.problems, sep="\n", end="\n" if ta.problems else "")
    print(f"formgrader: {len(ta.problems)} problems")
    return 1 if ta.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
