"""A fault of the engine costs nothing but what it kept from being done, and is logged with its traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.state_folder import course_folder
from autograder.feedback import sentences, student_page
from autograder.grading import class_run, faults
from autograder.grading.grader import Grader
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox.client import Server
from tests.conftest import handed_in
from tests.small_course import RIGHT, WRONG, make


@pytest.fixture
def grader(tmp_path: Path, server: Server) -> Grader:
    return Grader(courses.load(make(tmp_path)).day("day1"), server, b"secret")


def broken(*_: object, **__: object) -> None:
    raise OverflowError("cannot convert \x1b[31minfinity")


def logged(grader: Grader) -> str:
    return (course_folder(grader.day.root) / faults.FILE).read_text()


def test_a_fault_in_the_search_for_a_name_keeps_the_marks(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recognizer, "recognize", broken)
    marks = grader.grade(handed_in(WRONG))
    assert marks.points == 60
    (problem,) = marks.problems
    assert "naming the mistake in padding_mask: a fault of the autograder" in problem
    assert "\x1b" not in problem
    assert "Traceback" in logged(grader)
    assert "OverflowError" in logged(grader)


def test_a_fault_while_grading_is_a_record_of_that_submission(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_run, "_grader", grader)
    monkeypatch.setattr(grader, "judge", broken)
    marks = class_run._grade_one(handed_in(RIGHT))
    assert (marks.student, marks.exercises, marks.points) == ("ada", [], 0)
    assert "a fault of the autograder" in marks.problems[0]
    monkeypatch.undo()
    assert grader.grade(handed_in(RIGHT)).points == 100


def test_a_page_that_cannot_be_written_costs_no_other_page(
    grader: Grader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class_ = [grader.grade(handed_in(RIGHT)), grader.grade(handed_in(WRONG))]
    page = student_page.page
    monkeypatch.setattr(
        student_page, "page", lambda m, t: broken() if m.points < 100 else page(m, t)
    )
    files, problems = student_page.write(class_, sentences.read(grader.day), tmp_path / "pages")
    assert [file.name for file in files] == ["ada.html"]
    assert "the page of ada" in problems[0]


def test_a_fault_is_told_where_nothing_can_be_logged(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    said = faults.log(file / "no folder", "grading", ValueError("x"))
    assert said == "grading: a fault of the autograder (ValueError('x'))"


def test_the_log_does_not_grow_without_end(tmp_path: Path) -> None:
    file = course_folder(tmp_path) / faults.FILE
    file.touch()
    os.truncate(file, faults.LARGEST)
    faults.log(tmp_path, "grading", ValueError("x"))
    assert file.stat().st_size == faults.LARGEST
