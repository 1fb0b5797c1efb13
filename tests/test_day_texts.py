"""Test each day's text: its length, its timetable, its figures and how each chapter ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from autograder.course import config as courses
from autograder.release.notebook import solution_notebook
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
NOT_READ = re.compile(
    r"<details>.*?</details>|```.*?```|\$\$.*?\$\$|<(?:img|audio)[^>]*>|\]\([^)]*\)", re.DOTALL
)
FACTS = re.compile(
    r"★+☆* · (core|further|optional) · (\d+) minutes(?: · ([\d.]+) points?)?$", re.MULTILINE
)
# Matches the time of a section that is not an exercise but is in the timetable.
SECTION = re.compile(r"^\*(Core|Further) · (\d+) minutes\*$", re.MULTILINE)
CHAPTER = re.compile(r"^\*Chapter (\d+) of (\d+)((?: · \w+: \d+ minutes?)*)\*$", re.MULTILINE)
ROW = re.compile(r"^\| ([^|]+) ((?:\| (?:\d+ min )?)+)\|$", re.MULTILINE)  # a row of the timetable
TRACKS = ("core", "further", "optional")
MAX_BYTES = 2_000_000  # maximum size of a released notebook


@dataclass(frozen=True)
class Promise:
    """The properties that a day's text must have. `words` and `core_words` limit how many words a student has to read."""

    words: int
    core_words: int
    reading: tuple[str, ...]


PROMISES = {
    "day1": Promise(
        6500, 6000, ("https://arxiv.org/abs/1706.03762", "https://lilianweng.github.io/")
    ),
    "day2": Promise(10_000, 6_000, ("https://arxiv.org/abs/",)),
}


@pytest.fixture(scope="module", params=COURSE.days)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cells(name: str) -> list[str]:
    """Return the text of every markdown cell in a day's notebook."""
    notebook = solution_notebook(COURSE.day(name))
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def sections(cells: list[str]) -> list[tuple[str, str]]:
    """Return each cell's track (core, further or optional) and its text. A chapter without core exercises counts as “further”."""
    chapter = part = "core"
    parts = []
    for text in cells:
        if found := CHAPTER.search(text):
            chapter = "core" if "core:" in found[3] else "further"
        if text.startswith(("# ", "## ", "### ", "**Read.**")):
            marked = FACTS.search(text) or SECTION.search(text)
            part = marked[1].lower() if marked else chapter
        parts.append((part, text))
    return parts


def times(tracks: list[str], row: str) -> dict[str, int]:
    """Parse a row of the timetable, and return the number of minutes for each track."""
    minutes = [int("0" + re.sub(r"\D", "", entry)) for entry in row.split("|")[1:]]
    return dict(zip(tracks, minutes, strict=True))


def times_in_words(tracks: Sequence[str], words: str) -> dict[str, int]:
    """Parse a chapter's times, such as " · core: 20 minutes"."""
    found = dict(re.findall(r"(\w+): (\d+) minute", words))
    return {track: int(found.get(track, 0)) for track in tracks}


def test_the_text_is_short_enough(name: str, cells: list[str]) -> None:
    words = [(part, len(NOT_READ.sub(" ", text).split())) for part, text in sections(cells)]
    assert sum(n for _, n in words) <= PROMISES[name].words
    assert sum(n for part, n in words if part == "core") <= PROMISES[name].core_words


def test_the_timetable_adds_up(cells: list[str]) -> None:
    (table,) = (text for text in cells if "### Timetable" in text)
    header = re.search(r"^\| chapter \| (core.*) \|$", table, re.MULTILINE)
    assert header
    tracks = header[1].split(" | ")
    rows = {row[1]: times(tracks, row[2]) for row in ROW.finditer(table)}
    shown = {int(name.split()[0]): row for name, row in rows.items() if name[0].isdecimal()}
    assert shown == {
        int(c[1]): times_in_words(tracks, c[3]) for c in CHAPTER.finditer("\n".join(cells))
    }
    (total,) = re.findall(r"^\| \*\*Total\*\* (.*)\|$", table, re.MULTILINE)
    for track, minutes in times(tracks, total).items():
        assert minutes == sum(row[track] for row in rows.values())
    assert times(tracks, total)["core"] <= 300


def test_a_chapter_takes_longer_than_its_exercises_and_sections(cells: list[str]) -> None:
    stated: list[tuple[dict[str, int], dict[str, int]]] = []
    for text in cells:
        if chapter := CHAPTER.search(text):
            stated.append((times_in_words(TRACKS, chapter[3]), dict.fromkeys(TRACKS, 0)))
        elif (found := FACTS.search(text) or SECTION.search(text)) and found[2]:
            stated[-1][1][found[1].lower()] += int(found[2])
    for whole, parts in stated:
        assert all(whole[track] > parts[track] for track in TRACKS if parts[track])
    assert stated


def test_headings_state_what_the_configuration_says(name: str, cells: list[str]) -> None:
    headings = [text for text in cells if text.startswith("## `")]
    found = [FACTS.search(text) for text in headings]
    stated = [(match[1], float(match[3] or 0)) for match in found if match]
    assert stated == [
        ("optional", 0) if e.optional else ("core" if e.core else "further", e.points)
        for e in COURSE.day(name).exercises
    ]


def test_each_chapter_states_its_minutes(name: str, cells: list[str]) -> None:
    chapters = list(CHAPTER.finditer("\n".join(cells)))
    numbers = range(1, len(COURSE.day(name).chapters) + 1)
    assert [(int(c[1]), int(c[2])) for c in chapters] == [(i, len(numbers)) for i in numbers]
    if name == "day1":
        tracks = [re.findall(r"(\w+): [1-9]", chapter[3]) for chapter in chapters]
        assert tracks[0] == ["core"]
        assert tracks[5] == ["core", "further"]


def test_every_chapter_ends_with_reading_and_questions(name: str, cells: list[str]) -> None:
    ends = [text for text in cells if text.startswith("**Read.**")]
    assert len(ends) == len(COURSE.day(name).chapters)
    for text in ends:
        assert all(link in text for link in PROMISES[name].reading)
        assert re.search(r"\*\*Discuss\.\*\*\n\n1\. .*\n2\. .*<details>", text, re.DOTALL)


def test_there_are_at_least_twelve_figures(cells: list[str]) -> None:
    images = re.findall(
        r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)">', "".join(cells)
    )
    assert len(images) >= 12


def test_the_release_is_small(name: str) -> None:
    assert (ROOT / "assignments" / name / f"{name}.ipynb").stat().st_size < MAX_BYTES
