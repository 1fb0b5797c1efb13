"""Test what students receive if some of a day's exercises are optional, left out or provided with their solutions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autograder import course_commands
from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.release.build import including
from autograder.release.notebook import day_texts, solution_notebook

TOML = """\
[day1]
title = "One"
[day1.exercises.scores]
chapter = "first"
points = 2
core = true
[day1.exercises.scale]
chapter = "first"
points = 1
[day1.exercises.unused]
chapter = "first"
points = 1
[day1.exercises.alone]
chapter = "second"
points = 1
"""
EXERCISE = """
# %% [markdown]
# ## `{name}`
# ★☆☆☆☆ · 5 minutes

# %%
def {name}(x):
    ### BEGIN SOLUTION
    return {result}
    ### END SOLUTION

# %%
if __name__ == "__main__":
    @visible_check
    def check_{name}():
        assert {name}(1) == 2

    check_{name}()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A hint about {name}.
# </details>
#
# **What to notice.** Something about {name}.
"""


def exercise(name: str, result: str = "x + 1") -> str:
    return EXERCISE.format(name=name, result=result)


FIRST = "".join(
    [
        "# %% [markdown]\n# # First\n\n# %%\nimport math\n",
        exercise("scale", "math.floor(x) + 1"),
        exercise("scores", "scale(x)"),
        exercise("unused"),
        "# %% [markdown]\n# <details>\n#\n# More.\n# </details>\n",
    ]
)
SECOND = "# %% [markdown]\n# # Second\n" + exercise("alone")


def load(root: Path, toml: str, second: str = SECOND) -> Day:
    folder = root / "solutions" / "day1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "first.py").write_text(FIRST, encoding="utf-8")
    (folder / "second.py").write_text(second, encoding="utf-8")
    (root / courses.GRADING_TOML).write_text(toml, encoding="utf-8")
    return courses.load(root).day("day1")


def cells(day: Day) -> list[tuple[str, str]]:
    """Return the role and name of each cell that contains neither text nor imports."""
    all_cells = (cell for chapter in day.chapters for cell in chapter.cells)
    return [(c.role, c.name) for c in all_cells if c.role != "text" and c.name]


def text(day: Day) -> str:
    return "\n".join(cell.source for chapter in day.chapters for cell in chapter.cells)


WORDS = " ".join(["word"] * 900)
CLOCK = f"""# %% [markdown]
# # Second
#
# *Chapter 1 of 1*
#
# {WORDS}
#
# <details><summary>Answer</summary>
#
# {WORDS}
# </details>

# %%
if __name__ == "__main__":
    print("a demonstration")
"""
SHORT = TOML.replace('title = "One"', 'title = "One"\ninclude = "core"')


def test_the_core_gives_what_it_uses_and_drops_the_rest(tmp_path: Path) -> None:
    day = load(tmp_path, SHORT)
    assert [chapter.name for chapter in day.chapters] == ["first"]
    assert cells(day) == [("given", "scale"), ("exercise", "scores"), ("checks", "scores")]
    assert "A hint about scores" in text(day)
    assert "What to notice.** Something about scale" in text(day)
    for absent in ("A hint about scale", "check_scale", "unused", "alone", "More"):
        assert absent not in text(day)
    assert day.chapters[0].exercise("scores").source.count("SOLUTION") == 2
    assert text(day).count("SOLUTION") == 2


def test_a_demonstration_counts_as_use(tmp_path: Path) -> None:
    demonstration = '\n# %%\nif __name__ == "__main__":\n    print(alone(unused(1)), scores(1))\n'
    day = load(tmp_path, SHORT, SECOND + demonstration)
    assert [chapter.name for chapter in day.chapters] == ["first"]
    toml = SHORT + "core = true\n"  # added to the last table, for `alone`
    day = load(tmp_path, toml, SECOND + demonstration)
    assert ("given", "unused") in cells(day)


def test_a_chapter_that_another_one_imports_is_kept(tmp_path: Path) -> None:
    imported = "\n# %%\nfrom solutions.day1.first import unused\n\n# %%\nDOUBLE = unused(2)\n"
    toml = SHORT.replace("core = true\n", "") + "core = true\n"
    assert [c.name for c in load(tmp_path, toml).chapters] == ["second"]
    day = load(tmp_path, toml, SECOND + imported)
    assert [c.name for c in day.chapters] == ["first", "second"]
    assert cells(day) == [("given", "unused"), ("exercise", "alone"), ("checks", "alone")]


def test_a_given_exercise_is_kept_even_if_nothing_uses_it(tmp_path: Path) -> None:
    day = load(tmp_path, TOML + "given = true\n")
    assert cells(day)[-1] == ("given", "alone")
    assert day.names == ("scores", "scale", "unused")
    assert day.points == 100


def test_a_given_exercise_needs_a_reference(tmp_path: Path) -> None:
    toml = (
        TOML + 'given = true\n[day1.exercises.typo]\nchapter = "second"\npoints = 1\ngiven = true\n'
    )
    with pytest.raises(CourseError, match="no chapter contains the exercise typo"):
        _ = load(tmp_path, toml).chapters


COMMENTED = TOML.replace('title = "One"', 'title = "One"  # [day1] has a title')


@pytest.mark.parametrize(
    "before",
    [COMMENTED, COMMENTED.replace("[day1.ex", "include = 'all'  # everything\n[day1.ex", 1)],
    ids=["without the key", "with the key"],
)
def test_include_is_written_to_the_days_table(before: str, tmp_path: Path) -> None:
    load(tmp_path, before)
    with including(tmp_path, "day1", "core") as course:
        assert course.day("day1").names == ("scores",)
    text = (tmp_path / courses.GRADING_TOML).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if not line.startswith("include")]
    assert lines == [line for line in before.split("\n") if not line.startswith("include")]
    assert courses.load(tmp_path).day("day1").names == ("scores",)
    assert ("# everything" in text) == ("# everything" in before)


def test_include_is_restored_if_the_build_fails(tmp_path: Path) -> None:
    load(tmp_path, TOML)
    with pytest.raises(KeyboardInterrupt), including(tmp_path, "day1", "core"):
        raise KeyboardInterrupt
    assert (tmp_path / courses.GRADING_TOML).read_text(encoding="utf-8") == TOML


def test_include_is_restored_only_for_days_whose_build_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, TOML + TOML.replace("day1", "day2"))
    monkeypatch.chdir(tmp_path)

    def built(day: Day, *_: object) -> list[Path]:
        if day.name == "day2":
            raise courses.CourseError("the build fails")
        return []

    monkeypatch.setattr("autograder.release.build.build", built)
    monkeypatch.setattr("autograder.release.static_checks.check", lambda _: None)
    with pytest.raises(courses.CourseError, match="the build fails"):
        course_commands.build(["day1", "day2"], include="core")
    course = courses.load(tmp_path)
    assert course.day("day1").names == ("scores",)
    assert len(course.day("day2").names) > 1


def test_a_day_without_a_core_cannot_be_reduced_to_it(tmp_path: Path) -> None:
    toml = TOML.replace("core = true\n", "")
    load(tmp_path, toml)
    with pytest.raises(courses.CourseError, match=r"line 2: day1\.include: no exercise counts"):
        including(tmp_path, "day1", "core").__enter__()
    assert (tmp_path / courses.GRADING_TOML).read_text(encoding="utf-8") == toml


@pytest.mark.parametrize(
    ("second", "is_given", "expected"),
    [
        (SECOND, False, "further: 5 minutes"),
        (CLOCK + exercise("alone"), False, "further: 11 minutes"),
        (CLOCK + exercise("alone"), True, "core: 6 minutes"),
        (
            CLOCK + "\n# %% [markdown]\n# *Further · 7 minutes*\n" + exercise("alone"),
            True,
            "core: 6 minutes · further: 7 minutes",
        ),
    ],
)
def test_a_chapters_time_counts_reading_exercises_and_demonstrations(
    tmp_path: Path, second: str, is_given: bool, expected: str
) -> None:
    """The 900 words take 5 minutes, the exercise 5 and the demonstration 1. Collapsed words do not count."""
    second = second.replace("# # Second\n\n", "# # Second\n#\n# *Chapter 1 of 1*\n\n")
    day = load(tmp_path, TOML + "given = true\n" * is_given, second)
    chapter = day.chapters[1]
    assert f"*Chapter 2 of 2 · {expected}*" in day_texts(day).chapter_cell(
        chapter, chapter.cells[0]
    )


def test_the_timetable_counts_the_words_of_the_opening(tmp_path: Path) -> None:
    load(tmp_path, TOML, CLOCK + exercise("alone"))
    rows = "{{ timetable\n#   Introduction: reading\n#   chapters\n#   Lunch: 30\n# }}"
    for name, words in (("opening.py", WORDS), ("day1/opening.py", f"{WORDS}\n#\n# {rows}")):
        (tmp_path / "solutions" / name).write_text(f"# %% [markdown]\n# {words}\n", "utf-8")
    table = solution_notebook(courses.load(tmp_path).day("day1")).cells[1].source
    found = dict(re.findall(r"^\| (.*?) \| (.*?) \|", table, re.MULTILINE))
    assert (found["Introduction"], found["Lunch"]) == ("10 min", "30 min")
    assert found["**Total**"] == "**45 min**"
    assert "at 180 words a minute" in table
