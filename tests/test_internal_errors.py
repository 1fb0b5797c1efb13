"""Test that an internal error affects only one submission or page, and is logged with a traceback."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.state_folder import course_folder
from autograder.feedback import sentences, student_page
from autograder.grading import internal_errors, pool, pool_process, process_start
from autograder.grading.class_run import ClassRun
from autograder.grading.grader import Grader
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks, sorted_indices
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox.client import Server
from autograder.sandbox.errors import MustRunAlone
from autograder.submissions.submission import Submission
from tests import light_pool
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
    # Students read this, so it contains no details.
    assert problem == (
        "naming the mistake in padding_mask: internal error in the autograder (OverflowError); "
        "the traceback is in .autograder/errors.log"
    )
    assert "Traceback" in logged(grader)
    assert r"OverflowError: cannot convert \x1b[31minfinity" in logged(grader)


def test_an_error_while_grading_affects_only_that_submission(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_process, "_grader", grader)
    monkeypatch.setattr(grader.exercises, "grade_slice", broken)
    marks = pool_process.grade(handed_in(RIGHT), "0", is_alone=False)
    assert (marks.student, marks.exercises, marks.points) == ("ada", [], None)
    assert marks.problems[0].startswith("grading the submission of ada: internal error in the")
    monkeypatch.undo()
    assert grader.grade(handed_in(RIGHT)).points == 100


KILLER = """

def test_deadly(self, student, seed):
    \"\"\"The grading process survives.\"\"\"
    import os
    if student.split_heads(torch.zeros(1, 2, 4), 2) == "deadly":
        os.kill(os.getpid(), 9)
"""


DEADLY = RIGHT.replace("b, n, d = x.shape", 'return "deadly"')


@pytest.fixture
def deadly_day(tmp_path: Path) -> Day:
    """Return a day with a hidden test that kills any process that grades the submission `DEADLY`."""
    root = make(tmp_path)
    grader = root / "graders" / "day1" / "test_heads.py"
    grader.write_text("import torch\n" + grader.read_text() + KILLER.replace("\n", "\n    "))
    return courses.load(root).day("day1")


def found(name: str, code: str, readable: bool = True) -> Submission:
    changes: dict[str, Any] = {"student": name, "path": f"{name}.py", "readable": readable}
    return replace(handed_in(code), **changes)


def in_order(run: ClassRun, class_: list[Submission]) -> list[SubmissionMarks]:
    marks = list(run.grade(class_))
    return [marks[n] for n in sorted_indices(run.places)]


@pytest.mark.slow
def test_a_killed_process_affects_only_the_submission_that_kills_it(deadly_day: Day) -> None:
    """The marks of a submission that kills its process are not stored, so the next run grades it again."""
    class_ = [found("eve", DEADLY), found("ada", RIGHT), found("zoe", WRONG)]
    with History(deadly_day.root) as history:
        with pool.Pool(deadly_day, 2, "required") as running:
            # The process is killed while the other submissions are being graded or waiting.
            run = ClassRun(deadly_day, b"s", running, history=history)
            marks = in_order(run, class_)
            assert running.submit(handed_in(RIGHT), "0").result(60).points == 100
        assert [one.points for one in marks] == [None, 100, 60]
        assert (marks[0].exercises, marks[0].isolation) == ([], marks[1].isolation)
        assert "the grading process was killed twice" in marks[0].problems[0]
        assert {one.student for one in history.current("day1")} == {"ada", "zoe"}
        # A shortage of memory can also affect a submission whose file cannot be read.
        graded: Future[SubmissionMarks] = Future()
        graded.set_result(marks[0])
        fake = Mock(jobs=1, isolation=lambda: [[]], submit=lambda *_: graded)
        unreadable = [found("eve", RIGHT, readable=False)]
        assert list(ClassRun(deadly_day, b"s", fake, history=history).grade(unreadable)) == [
            marks[0]
        ]
        assert {one.student for one in history.current("day1")} == {"ada", "zoe"}


@pytest.fixture
def light_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    """Return a day that is graded by a pool without a sandbox or torch. See `light_pool`."""
    monkeypatch.setattr(pool_process, "start", light_pool.start)
    return courses.load(make(tmp_path)).day("day1")


@pytest.mark.slow
@pytest.mark.parametrize("sleeping", [{0}, {2, 5, 6}, {0, 1, 2, 3}, {7}, {*range(8)}])
def test_sleeping_submissions_are_graded_alone_after_all_others(
    light_day: Day, sleeping: set[int]
) -> None:
    names = [f"s{number}" for number in range(8)]
    class_ = [
        found(name, "# sleep" if number in sleeping else f"# {number}")
        for number, name in enumerate(names)
    ]
    with pool.Pool(light_day, 3, "required") as running:
        run = ClassRun(light_day, b"s", running)
        marks = list(run.grade(class_))
    honest, last = marks[: 8 - len(sleeping)], marks[8 - len(sleeping) :]
    assert {one.student for one in honest} == {n for i, n in enumerate(names) if i not in sleeping}
    assert {one.student for one in last} == {names[i] for i in sleeping}
    assert {one.points for one in last} == {10}
    assert [marks[n].student for n in sorted_indices(run.places)] == names


@pytest.mark.slow
def test_a_sleeping_submission_that_was_lost_holds_up_no_other(light_day: Day) -> None:
    with pool.Pool(light_day, 1, "required") as running:
        codes = ("# kill", "# sleep", "# 60")
        killed, slept, other = (running.submit(handed_in(code), "0") for code in codes)
        assert killed.result(60).points is None
        assert isinstance(slept.exception(60), MustRunAlone)
        assert other.result(60).points == 60
        assert running.submit(handed_in("# sleep"), "0", is_alone=True).result(60).points == 10


@pytest.mark.slow
def test_a_submission_sent_to_a_broken_pool_waits_for_the_lost_ones(light_day: Day) -> None:
    """After processes have been killed, lost submissions are graded before any new submission."""
    with pool.Pool(light_day, 2, "required") as running:
        assert running.isolation() == [light_pool.ISOLATION]
        broken = running._executor
        for child in multiprocessing.active_children():
            child.kill()
        while not broken._broken:
            time.sleep(0.01)
        # The future of a submission that arrives while an executor breaks may never be completed.
        lost: Future[SubmissionMarks] = Future()
        running._unfinished[lost] = pool._Work(handed_in("# 100"), "0", is_alone=False)
        later = running.submit(handed_in("# 60"), "0")
        assert running._executor is broken
        assert lost.result(60).points == 100
        assert later.result(60).points == 60


@pytest.mark.slow
def test_a_run_survives_the_process_that_its_processes_are_forked_from(light_day: Day) -> None:
    with pool.Pool(light_day, 2, "required") as running:
        assert running.isolation() == [light_pool.ISOLATION]
        process_start.stop()
        for _ in range(2):
            assert running.submit(handed_in("# 60"), "0").result(60).points == 60


@pytest.mark.slow
def test_a_process_that_cannot_be_started_is_started_again(
    light_day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool.Pool(light_day, 1, "required") as running:
        assert running.isolation() == [light_pool.ISOLATION]

        def submit(*_: object) -> None:
            raise EOFError("unexpected EOF")

        monkeypatch.setattr(running._executor, "submit", submit)
        assert running.submit(handed_in("# 60"), "0").result(60).points == 60


@pytest.mark.slow
def test_a_pool_closes_while_it_grades_lost_submissions(light_day: Day) -> None:
    with pool.Pool(light_day, 1, "required") as running:
        first, second = (running.submit(handed_in(code), "0") for code in ("# kill", "# wait"))
        assert first.result(60).points is None
    assert isinstance(second.exception(10), BrokenExecutor)


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
    assert message == "grading: internal error in the autograder (ValueError)"


def test_the_log_stops_growing_at_its_limit(tmp_path: Path) -> None:
    file = course_folder(tmp_path) / internal_errors.FILE
    file.touch()
    os.truncate(file, internal_errors.MAX_SIZE)
    internal_errors.log(tmp_path, "grading", ValueError("x"))
    assert file.stat().st_size == internal_errors.MAX_SIZE
