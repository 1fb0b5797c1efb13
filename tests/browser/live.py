"""Check the pages of `autograder live` in a real browser. `make browser` runs this check.

A simulated room is in the middle of Day 1. Both pages must pass axe's accessibility checks in light and dark, on a projector and
on a phone, request nothing from elsewhere, and change without a reload. With a FOLDER argument, screenshots are saved there.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from autograder.course import config as courses
from autograder.feedback import sentences
from autograder.live import server
from autograder.live.board import Board, Student
from autograder.live.pages import Pages
from autograder.live.room import Event, progress
from autograder.live.timeline import Timeline
from autograder.live.watching import Watcher
from autograder.submissions.roster import NO_ROSTER
from tests.browser.check import EXCESS_WIDTH, browser_and_folder
from tests.conftest import ROOT, reader
from tests.fake_grading import FakePool
from tests.live_room import marks

PORT = 8941
VIEWS = [(scheme, size) for scheme in ("light", "dark") for size in ((1920, 1080), (375, 800))]
CODE = (
    'def causal_mask(n, device=None):\n    """Return a mask."""\n    return torch.ones(n, n).triu()'
)
TOKEN = "token"
SETTINGS: Sequence[tuple[str, str]] = (("room", "/"), ("ta", f"/ta?token={TOKEN}"))


def make_pages(folder: Path) -> Pages:
    """Return the pages of a room with 40 people after 80 minutes. Many have the same mistake in the exercise of the median."""
    day = courses.load(ROOT).day("day1")
    texts = sentences.read(day)
    draw = random.Random(1)
    watcher = Watcher([str(folder / "*.ipynb")], day, reader())
    pool: Any = FakePool
    board = Board(
        day, NO_ROSTER, b"", watcher, reader(), pool, Timeline(folder, "day1"), lambda _: None
    )  # fmt: skip
    now = time.time()
    events: list[Event] = []
    for n in range(40):
        solved, at = 0, now - 80 * 60
        place = 8 if n % 3 == 0 else min(max(round(draw.gauss(8, 3)), 0), len(day.names))
        key = f"folder student{n:02}"
        while at < now - 30:
            is_stuck = solved == place
            name = day.names[min(solved, len(day.names) - 1)]
            known = [*texts.mistakes[name]]
            mistake = known[0] if n % 3 == 0 else draw.choice(known)
            status = "timed_out" if n == 7 else "failed" if is_stuck else "passed"
            states = ["passed"] * solved + [status] * (solved < len(day.names))
            states += ["not_attempted"] * (len(day.names) - len(states))
            found = marks(day, *states, mistake=mistake, code=f"{CODE}  # {at}")
            events.append(Event(at, key, progress(found)))
            board.students[key] = Student(f"student{n:02}", marks=found)
            solved = min(solved + (not is_stuck), len(day.names))
            at += draw.uniform(120, 900) if not is_stuck else draw.uniform(600, 3000)
    for event in sorted(events, key=lambda event: event.time):
        board.room.apply(event)
    board.students["folder zoe"] = Student("zoe", problem="this is the notebook for day2")
    return Pages(day, texts, board)


def requests_of(page: Page) -> list[str]:
    """Return a list to which the URL of every request of a page will be added."""
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    return requested


async def check(browser: Browser, pages: Pages, shots: Path | None) -> list[str]:
    """Return the problems found in all views."""
    problems: list[str] = []

    def note_error(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    for scheme, (width, height) in VIEWS:
        size: Any = {"width": width, "height": height}
        setting: Any = scheme
        page = await browser.new_page(viewport=size, color_scheme=setting)
        requested = requests_of(page)
        page.on("console", note_error)
        row = pages.board.room.view(time.time()).rows[0]
        answer = f"/ta/{row.person.number}/{row.exercise}?token={TOKEN}"
        for name, path in (*SETTINGS, ("answer", answer)):
            view = f"{name} ({scheme}, {width} pixels)"
            await page.goto(f"http://localhost:{PORT}{path}")
            result = await Axe().run(page)
            if result.violations_count:
                problems.append(f"{view}: {result.generate_report()}")
            if (excess := await page.evaluate(EXCESS_WIDTH)) > 0:
                problems.append(f"{view} is {excess} pixels too wide")
            if shots:
                await page.screenshot(path=shots / f"live-{name}-{scheme}-{width}.png")
        problems += [f"requests {url}" for url in requested if f"//localhost:{PORT}/" not in url]
        await page.close()
    return problems


async def check_use(browser: Browser, pages: Pages) -> list[str]:
    """Claim a student and show an answer with the keyboard only, and watch the room's page change without a reload."""
    room, ta = await browser.new_page(), await browser.new_page()
    await room.goto(f"http://localhost:{PORT}/")
    row = next(r for r in pages.board.room.view(pages.board.now()).rows if r.exercise)
    await ta.goto(f"http://localhost:{PORT}/ta?token={TOKEN}")
    await ta.focus(f"#help-{row.person.number}")
    await ta.keyboard.press("Enter")
    await ta.wait_for_selector(f"#leave-{row.person.number}")
    await ta.goto(f"http://localhost:{PORT}/ta/{row.person.number}/{row.exercise}?token={TOKEN}")
    await ta.focus("details:has(form) summary")
    await ta.keyboard.press("Enter")
    await ta.focus("form button")
    await ta.keyboard.press("Enter")
    await room.wait_for_selector("section.shown")
    shown = await room.text_content("section.shown") or ""
    return [] if "Return a mask" not in shown and "causal_mask" in shown else ["shows strings"]


async def run(program: str, shots: Path | None) -> list[str]:
    """Serve the pages and check them."""
    with tempfile.TemporaryDirectory() as folder:
        pages = make_pages(Path(folder))
        running = server.serve(pages, "127.0.0.1", PORT, "", TOKEN)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox"]
            )
            problems = await check(browser, pages, shots)
            problems += await check_use(browser, pages)
            if shots:
                page = await browser.new_page(viewport={"width": 1920, "height": 1080})
                await page.goto(f"http://localhost:{PORT}/")
                await page.screenshot(path=shots / "live-shown.png")
            await browser.close()
        running.stop()
    return problems


def main(arguments: Sequence[str]) -> int:
    """Check the pages. Return 1 if there is a problem."""
    problems = asyncio.run(run(*browser_and_folder(arguments)))
    print(*problems, f"live: {len(problems)} problems", sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
