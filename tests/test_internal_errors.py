"""Test that an internal error affects only one submission or page, and is logged with a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.state_folder import course_folder
from autograder.feedback import sentences, student_page
from autograder.grading import internal_errors, pool
from autograder.grading.grader import Grader
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox.client import Server
from tests.conftest import handed_in
from tests.material import recipient
from tests.small_course import RIGHT, WRONG, make


@pytest.fixture
def grader(tmp_path: Path, server: Server) -> Grader:
    return Grader(courses.load(make(tmp_path)).day("day1"), server, b"secret")


def broken(*_: object, **__: object) -> None:
    raise OverflowError("cannot convert \x1b[31minfinity")


def logged(grader: Grader) -> str:
    return (course_folder(grader.day.root) / internal_errors.FILE).read_text()


def test_an_error_while_naming_a_mistake_does_not_affect_marks(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recognizer, "recognize", broken)
    marks = grader.grade(handed_in(WRONG))
    assert marks.points == 60
    (problem,) = marks.problems
    assert "naming the mistake in padding_mask: internal error in the autograder" in problem
    assert "\x1b" not in problem
    assert "Traceback" in logged(grader)
    assert "OverflowError" in logged(grader)


def test_an_error_while_grading_affects_only_that_submission(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_grader", grader)
    monkeypatch.setattr(grader, "grade_slice", broken)
    marks = pool._grade(handed_in(RIGHT), "0")
    assert (marks.student, marks.exercises, marks.points) == ("ada", [], None)
    assert "internal error in the autograder" in marks.problems[0]
    monkeypatch.undo()
    assert grader.grade(handed_in(RIGHT)).points == 100


KILLER = """

def test_deadly(self, student, seed):
    \"\"\"The grading process survives.\"\"\"
    import os
    if student.split_heads(torch.zeros(1, 2, 4), 2) == "deadly":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_killed_process_affects_only_the_submission_that_kills_it(tmp_path: Path) -> None:
    root = make(tmp_path)
    grader = root / "graders" / "day1" / "test_heads.py"
    grader.write_text("import torch\n" + grader.read_text() + KILLER.replace("\n", "\n    "))
    deadly = RIGHT.replace("b, n, d = x.shape", 'return "deadly"')
    day = courses.load(root).day("day1")
    with pool.Pool(day, 1, "required") as running:
        # The process is killed while the second submission is waiting.
        first = [running.submit(handed_in(code), "0") for code in (deadly, RIGHT)]
        marks = [future.result(60) for future in first]
        assert running.submit(handed_in(WRONG), "0").result(60).points == 60
    assert [one.points for one in marks] == [None, 100]
    assert (marks[0].exercises, marks[0].isolation) == ([], marks[1].isolation)
    assert "the grading process was killed twice" in marks[0].problems[0]


def test_an_error_while_writing_a_page_affects_only_that_page(
    grader: Grader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class_ = [grader.grade(handed_in(RIGHT)), grader.grade(handed_in(WRONG))]
    page = student_page.page
    monkeypatch.setattr(
        student_page, "page", lambda r, t: broken() if r.marks.points < 100 else page(r, t)
    )
    files, problems = student_page.write(
        map(recipient, class_), sentences.read(grader.day), tmp_path / "pages"
    )
    assert [file.name for file in files] == ["ada.html"]
    assert "the feedback page for ada" in problems[0]


def test_an_error_is_reported_if_the_log_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    message = internal_errors.log(file / "no folder", "grading", ValueError("x"))
    assert message == "grading: internal error in the autograder (ValueError('x'))"


def test_the_log_stops_growing_at_its_limit(tmp_path: Path) -> None:
    file = course_folder(tmp_path) / internal_errors.FILE
    file.touch()
    os.truncate(file, internal_errors.MAX_SIZE)
    internal_errors.log(tmp_path, "grading", ValueError("x"))
    assert file.stat().st_size == internal_errors.MAX_SIZE
