"""Test what the text of Day 1 promises: its length, its timetable, its figures and how each chapter ends."""

from __future__ import annotations

import re

from autograder.course import config as courses
from autograder.release.notebook import solution_notebook
from tests.conftest import ROOT

DAY = courses.load(ROOT).day("day1")
CELLS = [c.source for c in solution_notebook(DAY).cells if c.cell_type == "markdown"]
NOT_READ = re.compile(
    r"<details>.*?</details>|```.*?```|\$\$.*?\$\$|<img[^>]*>|\]\([^)]*\)", re.DOTALL
)
HEADING = re.compile(r"★+☆* · (core|further) · (\d+) minutes · (\d+) points$", re.MULTILINE)
ROW = re.compile(r"^\| (\d) .*? \| (\d+) min \| (?:(\d+) min)? *\|$", re.MULTILINE)


def sections() -> list[tuple[str, str]]:
    """Return each cell's text with its part of the timetable: "core" or "further"."""
    part, cells = "core", []
    for text in CELLS:
        if text.startswith(("# ", "## ", "### ", "**Read.**")):
            heading = HEADING.search(text)
            part = heading[1] if heading else "core"
        cells.append((part, text))
    return cells


def test_the_text_is_short_enough() -> None:
    words = [(part, len(NOT_READ.sub(" ", text).split())) for part, text in sections()]
    assert sum(n for _, n in words) <= 7000
    assert sum(n for part, n in words if part == "core") <= 5000


def test_the_timetable_adds_up() -> None:
    (table,) = (text for text in CELLS if "### Timetable" in text)
    minutes = {int(row[1]): [int(row[2]), int(row[3] or 0)] for row in ROW.finditer(table)}
    stated: dict[int, list[int]] = {}
    for text in CELLS:
        if text.startswith("# ") and "*Chapter" in text:
            stated[len(stated) + 1] = [0, 0]
        elif found := re.search(r"(core|further) · (\d+) minutes", text, re.IGNORECASE):
            stated[len(stated)][found[1].lower() == "further"] += int(found[2])
    assert minutes == stated
    total = re.search(r"\*\*(\d+) min\*\* \| \*\*(\d+) min\*\*", table)
    assert total
    assert int(total[1]) == sum(map(int, re.findall(r"\| (\d+) min \|", table))) <= 240
    assert int(total[2]) == sum(further for _, further in minutes.values())


def test_headings_state_what_the_configuration_says() -> None:
    headings = [text for text in CELLS if text.startswith("## `")]
    found = [HEADING.search(text) for text in headings]
    stated = [(match[1], float(match[3])) for match in found if match]
    assert stated == [("core" if e.core else "further", e.points) for e in DAY.exercises]


def test_each_chapter_states_its_minutes() -> None:
    lines = re.findall(r"^\*Chapter .*\*$", "\n".join(CELLS), re.MULTILINE)
    assert lines[0] == "*Chapter 1 of 6 · core: 30 minutes*"
    assert lines[5] == "*Chapter 6 of 6 · core: 45 minutes · further: 50 minutes*"


def test_every_chapter_ends_with_reading_and_questions() -> None:
    ends = [text for text in CELLS if text.startswith("**Read.**")]
    assert len(ends) == len(DAY.chapters)
    for text in ends:
        assert "https://arxiv.org/abs/1706.03762" in text
        assert "https://lilianweng.github.io/" in text
        assert re.search(r"\*\*Discuss\.\*\*\n\n1\. .*\n2\. .*<details>", text, re.DOTALL)


def test_there_are_at_least_twelve_figures() -> None:
    images = re.findall(
        r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)">', "".join(CELLS)
    )
    assert len(images) >= 12
