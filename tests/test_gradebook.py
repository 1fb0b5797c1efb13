"""Marks on their way into nbgrader's gradebook: what a TA wrote stays, and no older marks are shown for a new attempt."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autograder.nbgrader_plugin.autograde import Copying
from autograder.nbgrader_plugin.gradebook import Copied
from autograder.sandbox.client import Server
from tests.released_course import BROKEN, Class, generate, release
from tests.small_course import RIGHT, WRONG, command


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("released"))


@pytest.fixture
def course(
    released: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Class:
    root = tmp_path / "course"
    shutil.copytree(released, root)
    monkeypatch.chdir(root)  # nbgrader reads the configuration that is there, too
    return Class(root, server)


HALF = {"padding_mask": 20.0, "split_heads": 40.0}
FULL = {"padding_mask": 60.0, "split_heads": 40.0}
NOTHING = {"padding_mask": 0.0, "split_heads": 0.0}


def test_each_folder_is_a_student_whatever_the_file_is_called(course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", WRONG, "homework.py")
    course.hand_in("cyd", BROKEN)
    course.hand_in("dee", "")
    assert course.copy() == Copied(4, 0, [])
    assert [course.scores(student) for student in ("ada", "bob", "cyd", "dee")] == [
        *(FULL, HALF),
        *(NOTHING, NOTHING),
    ]
    text = course.autograded("dee").read_text()
    assert "the folder has no notebook, script or archive" in text


def test_what_has_not_changed_is_not_copied_again(course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", WRONG)
    course.copy()
    before = {s: course.autograded(s).stat().st_mtime_ns for s in ("ada", "bob")}
    course.hand_in("bob", RIGHT)
    assert course.copy() == Copied(1, 1, [])
    assert course.autograded("ada").stat().st_mtime_ns == before["ada"]
    assert course.autograded("bob").stat().st_mtime_ns != before["bob"]
    assert course.scores("bob") == FULL
    assert course.copy(force=True) == Copied(2, 0, [])


@pytest.mark.parametrize("lost", ["the autograded notebook", "a mark in the gradebook"])
def test_what_was_lost_is_copied_again(lost: str, course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.copy()
    if lost == "the autograded notebook":
        course.autograded("ada").unlink()
    else:
        with course.gradebook() as book:
            book.find_grade("check_split_heads", "day1", "day1", "ada").auto_score = 3
            book.db.commit()
    assert course.copy() == Copied(1, 0, [])
    assert course.scores("ada") == FULL
    assert course.autograded("ada").exists()


def test_what_a_ta_wrote_survives_every_regrade(course: Class) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    assert course.copy() == Copied(0, 1, [])
    course.hand_in("ada", RIGHT)
    assert course.copy() == Copied(1, 0, [])
    assert course.copy(force=True) == Copied(1, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 40.0}
    assert course.comment("ada") == "Which id is padding?"
    with course.gradebook() as book:
        grade = book.find_grade("check_padding_mask", "day1", "day1", "ada")
        assert grade.auto_score == 60
        assert grade.needs_manual_grade  # the TA gave that mark to another answer


def test_a_new_release_keeps_what_a_ta_wrote(course: Class) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    toml = course.root / "grading.toml"
    toml.write_text(toml.read_text().replace("= 60", "= 30").replace("= 40", "= 70"))
    generate(course.root)
    assert course.copy() == Copied(1, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 70.0}
    assert course.comment("ada") == "Which id is padding?"


@pytest.mark.parametrize(
    ("text", "name"),
    [(BROKEN, "day1.ipynb"), ("", ""), (BROKEN, "second try.ipynb"), (WRONG, "second try.py")],
)
def test_no_older_marks_are_shown_for_a_new_attempt(text: str, name: str, course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.copy()
    course.feedback()
    page = course.root / "feedback/ada/day1/day1.html"
    assert "60 of 60 points" in page.read_text()
    course.hand_in("ada", text, name)
    assert course.copy() == Copied(1, 0, [])
    assert course.scores("ada") == (HALF if text == WRONG else NOTHING)
    assert not page.exists()
    course.feedback()
    assert "60 of 60 points" not in page.read_text()


def test_several_files_of_which_none_has_the_name_of_the_day_count_nothing(course: Class) -> None:
    folder = course.hand_in("ada", RIGHT, "a.py")
    (folder / "b.py").write_text(WRONG)
    (problem,) = course.copy().problems
    assert problem.startswith(str(folder))
    assert problem.endswith("not one alone is called day1.ipynb: a.py, b.py")
    assert course.scores("ada") == NOTHING


def test_late_is_what_the_time_says_and_a_time_that_is_none_is_named(course: Class) -> None:
    with course.gradebook() as book:
        book.update_or_create_assignment("day1", duedate="2026-12-01 12:00:00 UTC")
    course.hand_in("ada", RIGHT, time="2026-12-01 14:00:00 CET")
    course.hand_in("bob", RIGHT, time="tomorrow, I promise")
    (problem,) = course.copy().problems
    assert "bob/day1/timestamp.txt holds no time" in problem

    def seconds_late(student: str) -> float:
        with course.gradebook() as book:
            return float(book.find_submission("day1", student).total_seconds_late)

    assert (seconds_late("ada"), seconds_late("bob")) == (3600, 0)
    course.hand_in("ada", RIGHT, time="2026-12-01 12:30:00 CET")
    assert course.copy().new == 1
    assert seconds_late("ada") == 0


def test_the_late_policy_sees_another_mark_and_another_date(course: Class) -> None:
    with (course.root / "nbgrader_config.py").open("a") as file:
        file.write(
            '\nc.AssignLatePenalties.plugin_class = "nbgrader.plugins.LateSubmissionPlugin"\n'
            'c.LateSubmissionPlugin.penalty_method = "zero"\n'
        )
    with course.gradebook() as book:
        book.update_or_create_assignment("day1", duedate="2026-12-01 12:00:00 UTC")
    course.hand_in("ada", WRONG, time="2026-12-02 12:00:00 UTC")
    course.copy()
    course.read_by_a_ta("ada", 50, "")
    assert course.copy() == Copied(0, 1, [])
    with course.gradebook() as book:
        submission = book.find_submission("day1", "ada")
        assert (submission.score, submission.late_submission_penalty) == (90, 90)
        book.update_or_create_assignment("day1", duedate="2026-12-03 12:00:00 UTC")
    assert course.copy() == Copied(0, 1, [])
    with course.gradebook() as book:
        assert not book.find_submission("day1", "ada").late_submission_penalty


def test_one_student_who_can_not_be_copied_costs_the_others_nothing(course: Class) -> None:
    strange = os.fsdecode(b"b\xff")  # the gradebook holds text
    for student in ("ada", strange, "cyd"):
        course.hand_in(student, RIGHT)
    copied = course.copy()
    assert copied.new == 2
    assert copied.problems[0].startswith("b\\xff is not in nbgrader's gradebook: ")
    assert course.scores("cyd") == FULL


@pytest.fixture
def locked(course: Class) -> Iterator[Callable[[], None]]:
    """The gradebook while another process writes; what it gives ends that."""
    writing = sqlite3.connect(course.root / "gradebook.db", isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    yield lambda: writing.execute("COMMIT").close()
    writing.close()


def test_a_locked_gradebook_is_said_and_the_next_run_goes_on(
    course: Class, request: pytest.FixtureRequest
) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", RIGHT)
    let_go = request.getfixturevalue("locked")
    copied = course.copy()
    (problem,) = copied.problems
    assert problem.startswith("gradebook.db is locked: another process, such as formgrader,")
    assert "; 0 of 2 submissions are in it." in problem
    assert course.autograded("ada").exists()  # as it was
    let_go()
    assert course.copy() == Copied(2, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 40.0}
    assert course.comment("ada") == "Which id is padding?"


@pytest.mark.parametrize(
    ("bytes_", "said"), [(b"no database" * 99, "not a database"), (None, "no gradebook.db")]
)
def test_a_gradebook_that_is_none_is_said(bytes_: bytes | None, said: str, course: Class) -> None:
    course.hand_in("ada", RIGHT)
    file = course.root / "gradebook.db"
    file.unlink() if bytes_ is None else file.write_bytes(bytes_)
    (problem,) = course.copy().problems
    assert said in problem


def test_nothing_is_run_where_the_configuration_would_let_nbgrader(course: Class) -> None:
    (course.root / "nbgrader_config.py").write_text("")
    course.hand_in("ada", RIGHT)
    (problem,) = course.copy().problems
    assert "in the place of nbgrader's Execute" in problem
    assert not course.autograded("ada").exists()


def test_an_interrupted_copy_is_made_whole(course: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill between the two halves of nbgrader's work leaves it."""
    course.hand_in("ada", WRONG)
    course.copy()
    course.hand_in("ada", RIGHT)
    whole = Copying._init_preprocessors

    def stop(self: Copying) -> None:
        if not self._sanitizing:
            raise KeyboardInterrupt
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(Copying, "_init_preprocessors", stop)
        with pytest.raises(KeyboardInterrupt):
            course.copy()
    assert course.copy() == Copied(1, 0, [])
    assert course.scores("ada") == FULL


def test_the_command_grades_submitted_and_fills_the_gradebook(course: Class) -> None:
    course.hand_in("ada", WRONG, "homework.py")
    done = command(course.root, "grade", "day1", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "copied into nbgrader's gradebook: 1; there as they are: 0" in done.stdout
    assert course.scores("ada") == HALF
    assert json.loads(course.autograded("ada").read_text())["metadata"]["autograder"]
    writing = sqlite3.connect(course.root / "gradebook.db", isolation_level=None)
    writing.execute("BEGIN EXCLUSIVE")
    done = command(course.root, "grade", "day1", "--jobs", "1")
    writing.close()
    assert done.returncode == 1
    assert "60 / 100" in done.stdout  # the marks are shown all the same
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("autograder: gradebook.db is locked: ")


def test_paths_that_are_named_leave_the_gradebook_alone(course: Class) -> None:
    folder = course.hand_in("ada", RIGHT)
    before = (course.root / "gradebook.db").read_bytes()
    assert command(course.root, "grade", "day1", str(folder), "--jobs", "1").returncode == 0
    assert (course.root / "gradebook.db").read_bytes() == before
