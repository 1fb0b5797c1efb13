"""Test that the documentation has no broken links or paths, stays short, and covers all configuration keys and packages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from autograder.course import config
from autograder.course.forbidden import ForbiddenNames
from autograder.course.late_policy import Policy
from autograder.course.new_course import TEMPLATE
from bench import speed_chart
from tests.conftest import ROOT

LISTED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
    cwd=ROOT, capture_output=True, text=True, check=True,
)  # fmt: skip
# The most words, as `wc -w` counts them, that each of these pages may have.
MAX_WORDS = {
    "README.md": 550,
    "SECURITY.md": 1500,
    "docs/instructor-guide.md": 1500,
    "docs/ta-guide.md": 2400,  # 3000 together with the tutorial
    "docs/ta-tutorial.md": 600,
}
PAGES = sorted(name for name in LISTED.stdout.split() if not name.startswith("assignments/"))


def tokens(page: Path) -> Iterator[Token]:
    """Yield the tokens of a Markdown page, including those inside paragraphs and tables."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def targets(page: Path) -> Iterator[str]:
    """Yield the targets of the links and images on a page."""
    for token in tokens(page):
        target = token.attrGet("href") or token.attrGet("src")
        if isinstance(target, str):
            yield target


@pytest.mark.parametrize("name", PAGES)
def test_internal_links_resolve(name: str) -> None:
    page = ROOT / name
    for target in targets(page):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file), (
                f"{name} links to {target}, but that heading does not exist"
            )


@pytest.mark.parametrize(("name", "most"), MAX_WORDS.items(), ids=MAX_WORDS)
def test_pages_stay_short(name: str, most: int) -> None:
    count = len((ROOT / name).read_text(encoding="utf-8").split())
    assert count <= most, f"{name} has {count} words; move some of them to a different page"


def test_every_key_of_grading_toml_is_documented() -> None:
    text = (ROOT / "docs" / "grading-toml.md").read_text(encoding="utf-8")
    tables = (config.DefaultKeys, config.CourseKeys, config.DayKeys, config.ExerciseKeys)
    keys = {key for table in (*tables, Policy, ForbiddenNames) for key in table.__struct_fields__}
    keys -= {"exercises", "late"}  # tables, which the page describes in sections of their own
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_every_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [file.parent.name for file in sorted((ROOT / "autograder").glob("*/__init__.py"))]
    assert len(packages) >= 13
    assert [name for name in packages if f"`{name}/`" not in text] == []


def test_entry_points_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 13
    for package, cell in rows:
        folder = ROOT / "autograder" / package
        for name in re.findall(r"`(\w+)`", cell):
            assert (folder / f"{name}.py").exists(), f"{package}/ has no module {name}"


def test_paths_named_in_the_documentation_exist() -> None:
    pattern = r"`((?:autograder|solutions|graders|mistakes|tests|docs|bench)/[\w/.]+)`"
    for name in PAGES:
        # These pages also describe the course that `autograder new` writes.
        is_new = name == "docs/your-own-course.md" or TEMPLATE in (ROOT / name).parents
        places = (ROOT, TEMPLATE) if is_new else (ROOT,)
        for path in re.findall(pattern, (ROOT / name).read_text(encoding="utf-8")):
            if not re.search(r"DAY|CHAPTER|EXERCISE|NAME|day3", path):
                assert any((place / path).exists() for place in places), (
                    f"{name} mentions {path}, which does not exist"
                )


def test_messages_on_the_page_about_failures_are_in_the_code() -> None:
    page = (ROOT / "docs" / "if-it-fails.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert len(messages) == 10
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "autograder").rglob("*.py")
    )
    for message in messages:  # the names in capital letters are placeholders
        for part in re.split(r"\b(?:DAY|FILE|NAME|REASON)\b", message):
            assert part.strip(" :") in code, f"no message of the autograder contains {part!r}"


def test_outputs_are_shown_only_on_the_page_whose_commands_are_run() -> None:
    """`test_tutorial.py` compares each output in a `console` block with that of a run."""
    prompt = re.compile(r"^```console|^    \$ ", re.MULTILINE)
    shown = [name for name in PAGES if prompt.search((ROOT / name).read_text(encoding="utf-8"))]
    assert shown == ["docs/ta-tutorial.md"]


def test_the_index_links_to_every_page() -> None:
    folder = ROOT / "docs"
    linked = set(targets(folder / "index.md"))
    assert {page.name for page in folder.glob("*.md")} - {"index.md"} <= linked


def test_the_chart_shows_the_figures_of_the_readme() -> None:
    chart = (ROOT / "docs" / "speed.svg").read_text(encoding="utf-8")
    assert chart == speed_chart.svg()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for _, seconds in speed_chart.MEASURED:
        assert f"{seconds:g} s" in readme
