"""Record the picture of the tool in use for the README: `python -m bench.recording`.

Build Day 1, grade the class of `bench.demo_class` and write its feedback pages. Draw the commands with their output in a
terminal, and below it a part of one student's page. Browsers show the lines one after another, and then the whole picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup

from bench.course_copy import ROOT, link_course

FILE = ROOT / "docs" / "recording.svg"
STUDENT, EXERCISE = "dana", "causal_mask"
PREPARATION = "python -m bench.demo_class"
COMMANDS = (
    "autograder build day1",
    "autograder grade day1 demo.zip",
    "autograder feedback day1 --for canvas",
)
PARTS = ("mistake", "should", "seen")  # classes of the page's paragraphs about an exercise
COLUMNS, CHARACTER, ROW, MARGIN = 108, 8, 20, 18  # sizes in pixels, except the number of columns
WIDTH = COLUMNS * CHARACTER + 2 * MARGIN
PROMPT_SECONDS, LINE_SECONDS, HOLD_SECONDS = 1.6, 0.12, 12.0
COLOURS = {"✓": "#7ee787", "◐": "#e3b341", "✗": "#ff7b72"}
STYLE = """
text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #d6dce4; white-space: pre; }
.page text { font: 14px system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #1b1d21; }
.page .name { font-size: 19px; }
.page .name, .page .title, .page .should { font-weight: bold; }
.page .seen { fill: #4c525c; }
@media (prefers-reduced-motion: no-preference) {
g { animation-duration: TOTALs; animation-iteration-count: infinite; animation-timing-function: step-end; }
FRAMES}
"""


def record(folder: Path) -> tuple[list[tuple[str, str]], str]:
    """Run the commands in a copy of the course. Return each command with its output, and the student's page."""
    link_course(folder)
    for name in ("bench", "nbgrader_config.py"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outputs = {}
    for command in (COMMANDS[0], PREPARATION, *COMMANDS[1:]):
        done = subprocess.run(
            ["bash", "-c", f"{command} 2>&1"],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        outputs[command] = done.stdout.replace(str(folder), "~/course")
    with zipfile.ZipFile(folder / "feedback-day1.zip") as pages:
        (name,) = [name for name in pages.namelist() if name.startswith(STUDENT)]
        page = pages.read(name).decode()
    return [(command, outputs[command]) for command in COMMANDS], page


def svg(runs: Sequence[tuple[str, str]], page: str) -> str:
    """Draw the commands, their outputs and a part of a student's page."""
    groups: list[str] = []
    starts: list[float] = []
    seconds, y = 0.0, 0
    for command, output in runs:
        seconds += PROMPT_SECONDS / 2
        for number, line in enumerate((f"$ {command}", *_wrapped(output.splitlines()))):
            y += ROW
            groups.append(_line(line, y))
            starts.append(seconds)
            seconds += LINE_SECONDS if number else PROMPT_SECONDS
    top = y + 2 * MARGIN
    card, height = _card(page, top)
    groups.append(card)
    starts.append(seconds + PROMPT_SECONDS)
    total = starts[-1] + HOLD_SECONDS
    frames = "".join(
        f"@keyframes k{n} {{ 0% {{ opacity: 0 }} {100 * start / total:.1f}%, 100% {{ opacity: 1 }} }}\n"
        f"#g{n} {{ animation-name: k{n}; }}\n"
        for n, start in enumerate(starts)
    )
    style = STYLE.replace("TOTAL", f"{total:.1f}").replace("FRAMES", frames)
    parts = "".join(f'<g id="g{n}">{group}</g>\n' for n, group in enumerate(groups))
    size = f'viewBox="0 0 {WIDTH} {top + height}" width="{WIDTH}" height="{top + height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<title>Build, grade and return feedback</title>\n'
        f"<style>{style}</style>\n"
        f'<rect width="{WIDTH}" height="{y + MARGIN}" rx="8" fill="#161b22"/>\n{parts}</svg>\n'
    )


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, COLUMNS, replace_whitespace=False) or [""]


def _line(line: str, y: int) -> str:
    """Draw a line of the terminal. `textLength` aligns the columns of the table in every font."""
    spans = "".join(
        f'<tspan fill="{COLOURS[c]}">{c}</tspan>' if c in COLOURS else escape(c)
        for c in line.rstrip()
    )
    weight = ' font-weight="bold"' if line.startswith("$ ") else ""
    length = len(line.rstrip()) * CHARACTER
    return f'<text x="{MARGIN}" y="{y + 4}" textLength="{length}"{weight} xml:space="preserve">{spans}</text>'


def _card(page: str, top: int) -> tuple[str, int]:
    """Draw the exercise's part of the student's page. Return the drawing and its height."""
    soup = BeautifulSoup(page, "html.parser")
    parts = {
        "name": f"{_text(soup, 'h1')}: {_text(soup, '.points')}",
        "title": _text(soup, f"#{EXERCISE}-heading"),
        **{kind: _text(soup, f"#{EXERCISE} .{kind}") for kind in PARTS},
    }
    y, rows = top + 8, []
    for kind, text in parts.items():
        lines = textwrap.wrap(text, 115)
        if kind == "mistake":
            box = f'x="{MARGIN}" y="{y + 10}" height="{len(lines) * ROW + 10}"'
            rows.append(f'<rect {box} width="{WIDTH - 2 * MARGIN}" fill="#fff3d6"/>')
            rows.append(f'<rect {box} width="4" fill="#a11c1c"/>')
            y += 4
        for line in lines:
            y += ROW
            rows.append(f'<text class="{kind}" x="{MARGIN + 14}" y="{y + 5}">{escape(line)}</text>')
        y += 10
    height = y - top + 10
    frame = f'<rect x="0.5" y="{top + 0.5}" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#f4f5f7" stroke="#c6cad1"/>'
    return f'<g class="page">{frame}{"".join(rows)}</g>', height


def _text(soup: BeautifulSoup, selector: str) -> str:
    return " ".join(soup.select(selector)[0].text.split())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FILE.write_text(svg(*record(Path(folder))), encoding="utf-8")
