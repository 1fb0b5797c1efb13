"""Test that the files that define known mistakes are parsed, and that each mistake can be applied to its reference solution."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.course.fingerprint import fingerprint
from autograder.execution.catalogue import Mistake, combine, known_mistakes
from tests import small_course
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
DAYS = list(COURSE.days)
REFERENCE = """\
def split_heads(x, n_heads):
    b, n, d = x.shape
    return x.view(b, n, n_heads, d // n_heads).transpose(1, 2)
"""
ONE_LINE = """\
## no transpose
The heads come after
the positions.

Source: an issue
of two lines

```diff
-    return x.view(b, n, n_heads, d // n_heads).transpose(1, 2)
+    return x.view(b, n, n_heads, d // n_heads)
```
"""
NO_TRANSPOSE = REFERENCE.replace(".transpose(1, 2)", "")


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return courses.load(small_course.make(tmp_path)).day("day1")


def read(day: Day, *sections: str) -> list[Mistake]:
    """Write these sections to a mistakes file for `split_heads`, and return the known mistakes that the file defines."""
    text = "\n".join(["# split_heads\n", *sections])
    (day.mistakes / "split_heads.md").write_text(text, encoding="utf-8")
    return known_mistakes(day)["split_heads"]


def changed(day: Day, diff: str) -> str:
    """Apply a diff to the reference solution of `split_heads`, and return the result."""
    (mistake,) = read(day, f"## a name\nA sentence.\n\n```diff\n{diff}\n```\n")
    return mistake.source


def error(day: Day, *sections: str) -> str:
    """Check that the error message for an invalid file contains the file's name, and return the message."""
    with pytest.raises(CourseError) as raised:
        read(day, *sections)
    assert str(raised.value).startswith(f"{day.mistakes / 'split_heads.md'}: ")
    return str(raised.value)


def test_a_section_is_a_mistake(day: Day) -> None:
    (mistake,) = read(day, ONE_LINE)
    assert (mistake.exercise, mistake.name) == ("split_heads", "no transpose")
    assert mistake.sentence == "The heads come after the positions."
    assert mistake.source == NO_TRANSPOSE


def test_a_whole_definition_replaces_the_reference(day: Day) -> None:
    code = "import copy\n\n\ndef split_heads(x, n_heads):\n    return copy.copy(x)\n"
    (mistake,) = read(day, f"## a copy\nA sentence.\n\n```python\n{code}```\n")
    assert mistake.source == code


SHAPE = "    b, n, d = x.shape\n"
CHANGES = {
    "an insertion": ("+    x = x.float()\n     b, n, d = x.shape", f"    x = x.float()\n{SHAPE}"),
    "without indentation": ("-b, n, d = x.shape\n+b, d, n = x.shape", "    b, d, n = x.shape\n"),
    "deeper lines": (
        " b, n, d = x.shape\n+if d:\n+    n = d",
        f"{SHAPE}    if d:\n        n = d\n",
    ),
    "a blank line": (" b, n, d = x.shape\n+\n+n = d", f"{SHAPE}\n    n = d\n"),
}


@pytest.mark.parametrize(("diff", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_change_applies_where_its_lines_are(diff: str, expected: str, day: Day) -> None:
    assert changed(day, diff) == REFERENCE.replace(SHAPE, expected)


def test_a_change_can_affect_several_places(day: Day) -> None:
    diff = "-b, n, d = x.shape\n+b, d, n = x.shape\n@@\n-def split_heads(x, n_heads):\n+def split_heads(x, h):"
    expected = REFERENCE.replace("b, n, d =", "b, d, n =").replace("(x, n_heads)", "(x, h)")
    assert changed(day, diff) == expected


INVALID_CHANGES = {
    "lines that are not there": (
        "-b, n = x.shape\n+b = 1",
        "the reference solution does not contain these lines: 'b, n = x.shape'",
    ),
    "half a line": (
        "-x.shape\n+x.size()",
        "the reference solution does not contain these lines: 'x.shape'",
    ),
    "lines of two places": (
        "-b = 1\n+b = 2",
        "the reference solution contains these lines 2 times: 'b = 1'",
    ),
    "no line of the reference": (
        "+b = 1",
        "a hunk should contain at least one line of the reference solution and at least one change",
    ),
    "no change": (
        " b, n, d = x.shape",
        "a hunk should contain at least one line of the reference solution and at least one change",
    ),
    "an unmarked line": (
        "b, n, d = x.shape",
        "should start with -, + or a space: 'b, n, d = x.shape'",
    ),
    "overlapping places": (
        "-b, n, d = x.shape\n+b = 1\n@@\n b, n, d = x.shape\n+n = 1",
        "two hunks of the diff overlap at '    b, n, d = x.shape'",
    ),
}


@pytest.mark.parametrize(("diff", "message"), INVALID_CHANGES.values(), ids=INVALID_CHANGES)
def test_a_change_that_does_not_apply_is_explained(diff: str, message: str, day: Day) -> None:
    chapter = day.chapters[1].path
    if "b = 1" in diff.split("\n")[0]:
        text = chapter.read_text().replace(SHAPE, f"{SHAPE}    b = 1\n    b = 1\n")
        chapter.write_text(text)
        day = courses.load(day.root).day("day1")
    found = error(day, f"## a name\nA sentence.\n\n```diff\n{diff}\n```\n")
    assert ": 'a name': " in found
    assert message in found


BLOCK = "```diff\n-b, n, d = x.shape\n+b, d, n = x.shape\n```\n"
INVALID_SECTIONS = {
    "no sentence": (f"## a name\n\n{BLOCK}", "'a name': the section should have one paragraph for students"),
    "a source alone": (f"## a name\nSource: x\n\n{BLOCK}", "'a name': the section should have one paragraph"),
    "two sentences": (f"## a name\nOne.\n\nTwo.\n\n{BLOCK}", "optionally followed by one that starts with `Source:`"),
    "no code": ("## a name\nA sentence.\n", "'a name': the section should end with one code block"),
    "two blocks": (f"## a name\nA sentence.\n\n{BLOCK}\nMore.\n\n{BLOCK}", "'a name': the section should end with one code"),
    "another language": (f"## a name\nA sentence.\n\n{BLOCK.replace('diff', 'text')}", "the section should end with one code"),
    "a name like two": (f"## one; two\nOne.\n\n{BLOCK}", "'one; two': a name cannot contain '; '"),
    "a name twice": (f"## a name\nOne.\n\n{BLOCK}\n## a name\nTwo.\n\n{BLOCK}", "two mistakes are named 'a name'"),
}  # fmt: skip


@pytest.mark.parametrize(("section", "message"), INVALID_SECTIONS.values(), ids=INVALID_SECTIONS)
def test_an_invalid_section_is_explained(section: str, message: str, day: Day) -> None:
    assert message in error(day, section)


FIRST_LINE = "-    b, n, d = x.shape\n+    b, d, n = x.shape"
LAST_LINE = "-    return x.view(b, n, n_heads, d // n_heads).transpose(1, 2)\n+    return x"
COMBINED = {
    "different lines": (FIRST_LINE, LAST_LINE, ["    b, d, n = x.shape", "    return x"]),
    "the same line": (FIRST_LINE, "-    b, n, d = x.shape\n+    n, b, d = x.shape", None),
    "shared context": (
        " def split_heads(x, n_heads):\n+    x = x + 1",
        f" def split_heads(x, n_heads):\n     b, n, d = x.shape\n{LAST_LINE}",
        ["    x = x + 1", "    b, n, d = x.shape", "    return x"],
    ),
    "insertions in one place": (
        " def split_heads(x, n_heads):\n+    x = x + 1",
        "+    x = x + 2\n     b, n, d = x.shape",
        None,
    ),
    "a line removed that the other needs": (
        "-    b, n, d = x.shape\n+    if True:\n+        b, n, d = x.shape",
        f"-    b, n, d = x.shape\n{LAST_LINE}",
        None,
    ),
    "two places each": (
        f"{FIRST_LINE}\n@@\n-def split_heads(x, n_heads):\n+def split_heads(x, h):",
        LAST_LINE,
        ["    b, d, n = x.shape", "    return x"],
    ),
    "invalid together": (
        " def split_heads(x, n_heads):\n+    if x is not None:\n-    b, n, d = x.shape\n+        b, n, d = x.shape",
        "-    return x.view(b, n, n_heads, d // n_heads).transpose(1, 2)\n+      return x",
        None,
    ),
}


@pytest.mark.parametrize(("first", "second", "expected"), COMBINED.values(), ids=COMBINED)
def test_mistakes_combine_only_in_different_lines(
    first: str, second: str, expected: list[str] | None, day: Day
) -> None:
    names = {"one": first, "two": second}
    sections = [f"## {name}\nWhy.\n\n```diff\n{diff}\n```\n" for name, diff in names.items()]
    one, two = read(day, *sections)
    for combined in (combine(one, two), combine(two, one)):
        lines = combined and combined.rstrip().split("\n")[1:]
        assert lines == expected


def test_a_whole_definition_combines_with_a_change(day: Day) -> None:
    whole = NO_TRANSPOSE.replace("d // n_heads", "d")
    change = f"## two\nTwo.\n\n```diff\n{FIRST_LINE}\n```\n"
    one, two = read(day, f"## one\nOne.\n\n```python\n{whole}```\n", change)
    assert combine(one, two) == whole.replace("b, n, d =", "b, d, n =")


def test_the_title_is_the_exercise(day: Day) -> None:
    (day.mistakes / "split_heads.md").write_text("# merge_heads\n")
    with pytest.raises(CourseError, match="the first line should be `# split_heads`"):
        known_mistakes(day)


@pytest.mark.parametrize("name", ["merge_heads.md", "heads.py", "split_heads.txt"])
def test_a_file_for_an_unknown_exercise_is_rejected(name: str, day: Day) -> None:
    """A mistakes file with a misspelled name must cause an error, not be silently ignored."""
    (day.mistakes / name).write_text("# merge_heads\n")
    with pytest.raises(
        CourseError,
        match=r"the file name should be EXERCISE\.md, where EXERCISE is the name of an exercise in day1",
    ):
        known_mistakes(day)


def test_an_exercise_without_a_file_has_no_known_mistakes(day: Day) -> None:
    (day.mistakes / "split_heads.md").unlink()
    assert known_mistakes(day)["split_heads"] == []
    assert fingerprint(day)


def test_the_course_has_more_than_1100_known_mistakes() -> None:
    known = {n: own for day in COURSE.days.values() for n, own in known_mistakes(day).items()}
    assert sum(map(len, known.values())) > 1100
    # Students' tests are graded with the mistakes in another exercise.
    assert [name for name, own in known.items() if not own] == ["detects_broken_attention"]


@pytest.mark.parametrize("name", DAYS)
def test_every_known_mistake_differs_from_its_reference(name: str) -> None:
    """Mistakes must differ from the reference solution and from each other. test_recognition.py checks that they fail tests."""
    day = COURSE.day(name)
    cells = [cell for chapter in day.chapters for cell in chapter.cells if cell.role == "exercise"]
    references = {cell.name: cell.source for cell in cells}
    for exercise, own in known_mistakes(day).items():
        sources = {ast.dump(ast.parse(references[exercise]))}
        for mistake in own:
            tree = ast.parse(mistake.source)
            compile(tree, mistake.name, "exec")
            assert exercise in {getattr(node, "name", "") for node in tree.body}, mistake.name
            assert ast.dump(tree) not in sources, (exercise, mistake.name)
            sources.add(ast.dump(tree))
