"""Test a course in Chinese whose exercises return numbers, strings, lists and booleans."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.fingerprint import course_version
from autograder.course.state_folder import course_folder
from autograder.feedback import class_page, sentences, student_page
from autograder.feedback.student_page import Recipient
from autograder.grading.grader import Grader
from autograder.marks.model import FORMAT, Marks, SubmissionMarks
from autograder.release import build, helper_cells
from autograder.release.notebook import solution_notebook
from autograder.release.visible_checks import Notebook
from autograder.sandbox.client import Server
from tests import plain_course
from tests.conftest import SECRET, by_name, handed_in
from tests.plain_course import EXERCISES, SOLUTION
from tests.test_hints import hint, main_module  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Build the course's release, and return the course's only day. A separate test grades the course's solutions."""
    root = plain_course.write(tmp_path_factory.mktemp("course"))
    day = courses.load(root).day("day1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_check_full_marks", lambda *_: None)
        assert [*build.build(day)] == [root / "assignments/day1/day1.ipynb"]
    return day


@pytest.fixture(scope="module")
def release(day: Day) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(day.root / "assignments/day1/day1.ipynb", as_version=4)
    return notebook


@pytest.fixture(scope="module")
def grader(day: Day, server: Server) -> Grader:
    return Grader(day, server, SECRET)


def wrong(name: str) -> str:
    """Return the course's solutions, with one exercise's solution replaced by its known mistake."""
    one = EXERCISES[name]
    return SOLUTION.replace(str(one["solution"]), str(one["wrong"]))


def returning(value: str) -> str:
    """Return code in which every function returns the same value."""
    return "".join(f"def {name}(*arguments): return {value}\n" for name in EXERCISES)


def test_texts_keep_their_script_and_ids_are_ascii(release: NotebookNode, day: Day) -> None:
    ids = [cell.id for cell in release.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id_) for id_ in ids)
    assert {"ubung-perplexitat-1", "count_pairs", "check_count_pairs"} <= set(ids)
    assert any("## 词元对的数量" in cell.source for cell in release.cells)
    assert release.metadata["lang"] == "zh-Hans"
    _, material = helper_cells.unpacked(helper_cells.provided_cell(day, {}))
    assert material["exercises"]["count_pairs"] == ["注意力与词元", 20, 10]


def test_ids_do_not_depend_on_other_sections(release: NotebookNode, tmp_path: Path) -> None:
    root = plain_course.write(tmp_path)
    chapter = root / "solutions/day1/attention.py"
    chapter.write_text(chapter.read_text().replace("## 词元对的数量", "## 另一个标题"))
    changed = solution_notebook(courses.load(root).day("day1"))
    assert len({cell.id for cell in release.cells} - {cell.id for cell in changed.cells}) == 1


def test_files_that_a_day_lacks_have_defaults(day: Day) -> None:
    folder = day.root / "assignments/day1"
    assert (folder / "README.md").read_text().startswith("# 第一天：注意力\n")
    assert (folder / "requirements.txt").read_text() == ""


def test_damaged_caches_are_computed_again(server: Server, tmp_path: Path) -> None:
    day = courses.load(plain_course.write(tmp_path)).day("day1")
    work = handed_in(wrong("perplexity"))

    def mistake() -> str | None:
        return by_name(Grader(day, server, SECRET).grade(work))["perplexity"].mistake

    expected = mistake()
    assert expected
    files = [*course_folder(day.root).glob("*-day1-*")]
    assert {file.name.partition("-")[0] for file in files} >= {"mistakes", "trivial"}
    for file in files:
        file.write_bytes(file.read_bytes()[:20])
    assert mistake() == expected


def test_correct_answers_get_full_marks(grader: Grader) -> None:
    assert grader.grade(handed_in(SOLUTION)).points == 100
    numbers = """
import numpy as np, torch
def count_pairs(n): return np.int64(n * (n + 1) // 2)
def perplexity(loss): return torch.tensor(loss).exp()
def decode(ids, names): return np.str_("".join(np.array(names)[ids]))
def encode(text, names): return tuple(np.int32(names.index(c)) for c in text)
def may_attend(i, j): return np.bool_(i >= j)
"""
    marks = grader.grade(handed_in(numbers))
    assert marks.points == 100, [e.message for e in marks.exercises]


@pytest.mark.parametrize(
    "value",
    [
        *("0", "1", "0.0", 'float("nan")', '""', "[]", "{}", "False", "True", "None"),
        *("arguments[0]", "__import__('torch').empty(0)"),
    ],
)
def test_trivial_answers_get_no_points(value: str, grader: Grader) -> None:
    marks = grader.grade(handed_in(returning(value)))
    assert [exercise.points for exercise in marks.exercises] == [0] * len(EXERCISES)


def test_a_grader_that_a_constant_passes_is_refused(server: Server, tmp_path: Path) -> None:
    root = plain_course.write(tmp_path)
    file = root / "graders/day1/test_attention.py"
    call = "equal([student.may_attend(3, j) for j in range(6)], [True] * 4 + [False] * 2)"
    assert call in file.read_text()
    file.write_text(file.read_text().replace(call, "equal(student.may_attend(3, 2), True)"))
    with pytest.raises(
        courses.CourseError, match="may_attend, because a trivial answer passes all"
    ):
        Grader(courses.load(root).day("day1"), server, SECRET)


MESSAGES = {
    "count_pairs": r"the result: \d+ instead of \d+",
    "perplexity": r"the result: \d\.\d+ instead of \d\.\d+",
    "decode": "the result: '注 意 力' instead of '注意力'",
    "encode": "the result at position 0: 3 instead of 2",
    "may_attend": "the result at position 3: False instead of True",
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_known_mistake_is_named_on_the_page(name: str, grader: Grader) -> None:
    marks = grader.grade(handed_in(wrong(name)))
    exercise = by_name(marks)[name]
    assert re.search(MESSAGES[name], exercise.message), exercise.message
    assert exercise.mistake == EXERCISES[name]["mistake"]
    page = student_page.page(Recipient("李雷", "李雷", marks), sentences.read(grader.day))
    assert '<html lang="zh-Hans">' in page
    assert str(EXERCISES[name]["advice"]) in page
    assert str(EXERCISES[name]["sentence"]) in page
    assert "。." not in page


def test_the_report_has_the_language_of_the_course(grader: Grader) -> None:
    class_: list[SubmissionMarks] = [grader.grade(handed_in(wrong("decode")))]
    texts = sentences.read(grader.day)
    analysis = class_page.analyse(Marks(FORMAT, "day1", class_), texts, course_version(grader.day))
    page = class_page.html(analysis)
    assert '<html lang="zh-Hans">' in page
    assert "多余的空格" in page


@pytest.fixture
def notebook(day: Day, release: NotebookNode, main_module: None) -> Iterator[Notebook]:  # noqa: F811
    notebook = Notebook(day)
    (provided,) = (c.source for c in release.cells if helper_cells.unpacked(c.source)[0])
    notebook.run(provided, "provided")
    yield notebook
    assert torch.get_num_threads() == 1
    assert sys.modules["__main__"] is notebook.module


def test_the_notebook_names_known_mistakes(notebook: Notebook) -> None:
    """The checks for `perplexity` cannot catch its known mistake, because right and wrong code both return 1 for a loss
    of 0."""
    hints = {
        name: hint(notebook, name, f"def {name}{one['signature']}:\n    {one['wrong']}\n")
        for name, one in EXERCISES.items()
    }
    expected = {name: one["advice"] for name, one in EXERCISES.items()} | {"perplexity": None}
    assert hints == expected
