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
HEADING = re.compile(r"★+☆* · (core|optional) · (\d+) minutes")
ROW = re.compile(r"^\| (\d) .*? \| (\d+) min \| (?:(\d+) min)? *\|$", re.MULTILINE)


def sections() -> list[tuple[str, str]]:
    """Return each cell's text with its part of the timetable: "core" or "optional"."""
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
        elif found := re.search(r"(core|optional) · (\d+) minutes", text, re.IGNORECASE):
            stated[len(stated)][found[1].lower() == "optional"] += int(found[2])
    assert minutes == stated
    total = re.search(r"\*\*(\d+) min\*\* \| \*\*(\d+) min\*\*", table)
    assert total
    assert int(total[1]) == sum(map(int, re.findall(r"\| (\d+) min \|", table))) <= 240
    assert int(total[2]) == sum(optional for _, optional in minutes.values())


def test_every_exercise_is_core_or_optional() -> None:
    headings = [text for text in CELLS if text.startswith("## `")]
    assert len(headings) == len(DAY.names)
    assert all(HEADING.search(text) for text in headings)


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
