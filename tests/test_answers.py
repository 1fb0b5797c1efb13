"""Test that a release contains no constant answer and no exact number that only hidden tests contain."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.execution.catalogue import known_mistakes
from autograder.release import answers, helper_cells, visible_checks
from autograder.release.notebook import solution_notebook
from autograder.release.visible_checks import Notebook, record_exercise
from tests.conftest import ROOT
from tests.test_hints import main_module  # noqa: F401

TOML = """
[day1]
title = "Methods"
[day1.exercises.best_method]
chapter = "choice"
points = 1
[day1.exercises.condition_number]
chapter = "choice"
points = 1
"""
EXERCISE = '''
# %%
def {name}() -> object:
    """Return the answer."""
    ### BEGIN SOLUTION
    return {answer!r}
    ### END SOLUTION
# %%
if __name__ == "__main__":

    @visible_check
    def check_{name}() -> None:
        assert isinstance({name}(), {kind}), "The answer should be a {kind}."

    check_{name}()
'''
ANSWERS: dict[str, str | float] = {"best_method": "householder", "condition_number": 1.7320508076}
WRONG: dict[str, str | float] = {"best_method": "givens", "condition_number": 3.0}
MISTAKE = (
    "# {name}\n\n## wrong\nThis is wrong.\n\n```diff\n-return {right!r}\n+return {wrong!r}\n```\n"
)


@pytest.fixture
def day(tmp_path: Path) -> Day:
    chapter = (
        "# %% [markdown]\n# # Choice\n#\n# One of householder, givens and gram-schmidt is best.\n"
    )
    grader = "from autograder.execution.checks import close\n"
    for name, answer in ANSWERS.items():
        chapter += EXERCISE.format(name=name, answer=answer, kind=type(answer).__name__)
        grader += (
            f'class Test_{name}:\n    exercise = "{name}"\n    def test_answer(self, student):\n'
        )
        grader += (
            f'        """The answer is right."""\n        close(student.{name}(), {answer!r})\n'
        )
        mistake = MISTAKE.format(name=name, right=answer, wrong=WRONG[name])
        write(tmp_path / f"mistakes/day1/{name}.md", mistake)
    write(tmp_path / "grading.toml", TOML)
    write(tmp_path / "solutions/day1/choice.py", chapter)
    write(tmp_path / "graders/day1/test_choice.py", grader)
    return courses.load(tmp_path).day("day1")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def release_with(day: Day, outputs: dict[str, Any], text: str = "") -> NotebookNode:
    """Return the notebook that students get, with these recorded results and another text cell."""
    release = solution_notebook(day, outputs)
    stubs = {cell.name: cell.stub for chapter in day.chapters for cell in chapter.cells}
    for cell in release.cells:
        cell.source = stubs[cell.id] if cell.id in ANSWERS else cell.source
    release.cells.append(nbformat.v4.new_markdown_cell(text, id="more"))
    return release


def test_constant_answers_are_not_recorded(day: Day) -> None:
    assert visible_checks.recorded(day) == {}
    answers.check(release_with(day, {}, "The value 1.73 is close."), day)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_release_with_recorded_constant_answers_is_refused(
    name: str,
    day: Day,
    main_module: None,  # noqa: F811
) -> None:
    outputs = {name: record_exercise(Notebook(day), known_mistakes(day)[name], "def f(): ...")}
    right = outputs[name]["calls"][outputs[name]["correct"][0][0]]
    assert right[0] in (["str", "householder"], ["float", 1.732])
    with pytest.raises(CourseError, match=f"contains the answer to {name}"):
        answers.check(release_with(day, outputs), day)


@pytest.mark.parametrize(
    "text",
    [
        "The result is 1.7320508076.",
        "| 1.73205081 |",
        f"![]({'data:image/svg+xml;base64,' + base64.b64encode(b'<t>1.7320508</t>').decode()})",
    ],
)
def test_a_release_with_an_exact_number_of_a_hidden_test_is_refused(text: str, day: Day) -> None:
    with pytest.raises(CourseError, match=r"cell more: the release contains 1\.73205, which is"):
        answers.check(release_with(day, {}, text), day)


def test_a_stand_in_that_returns_the_answer_is_refused(day: Day) -> None:
    write(day.stand_ins, "def best_method(): return 'householder'\n")
    with pytest.raises(CourseError, match="contains the answer to best_method"):
        answers.check(release_with(day, {}), day)


@pytest.mark.parametrize("name", ["day1", "day2"])
def test_the_releases_contain_no_answers(name: str) -> None:
    day = courses.load(ROOT).day(name)
    answers.check(nbformat.read(day.release, as_version=4), day)


def test_results_that_an_older_build_recorded_are_not_used_again(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = helper_cells.outputs_version(day)
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        monkeypatch.setattr(type(cell), "is_constant", False)
    assert helper_cells.outputs_version(day) != kept
