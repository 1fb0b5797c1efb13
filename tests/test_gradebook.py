"""Test that copying marks into nbgrader's gradebook keeps TAs' marks and comments and removes outdated marks."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from nbgrader.apps import ReleaseFeedbackApp
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.utils import notebook_hash

from autograder.course.state_folder import VARIABLE
from autograder.nbgrader_plugin.gradebook import CopyResult, MarksCopier
from autograder.sandbox.client import Server
from tests.conftest import Run
from tests.released_course import BROKEN, Class, generate, nbgrader, release, run_app
from tests.small_course import RIGHT, WRONG, command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("released"))


@pytest.fixture
def course(
    released: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Class:
    root = tmp_path / "course"
    shutil.copytree(released, root)
    monkeypatch.chdir(root)  # nbgrader also reads the configuration from the working directory
    return Class(root, server)


HALF = {"padding_mask": 20.0, "split_heads": 40.0}
FULL = {"padding_mask": 60.0, "split_heads": 40.0}
NOTHING = {"padding_mask": 0.0, "split_heads": 0.0}


def test_each_folder_is_a_student_for_any_file_name(course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", WRONG, "homework.py")
    course.hand_in("cyd", BROKEN)
    course.hand_in("dee", "")
    assert course.copy() == CopyResult(4, 0, [])
    assert [course.scores(student) for student in ("ada", "bob", "cyd", "dee")] == [
        *(FULL, HALF),
        *(NOTHING, NOTHING),
    ]
    text = course.autograded("dee").read_text()
    assert "the folder contains no notebook, script or archive" in text


def test_an_optional_exercise_does_not_count_in_the_gradebook(course: Class) -> None:
    toml = course.root / "grading.toml"
    toml.write_text(f"{toml.read_text()}optional = true\n")
    generate(course.root)
    course.hand_in("ada", RIGHT)
    assert course.copy() == CopyResult(1, 0, [])
    assert course.scores("ada") == {"padding_mask": 100.0, "split_heads": 0.0}
    with course.gradebook() as book:
        submission = book.find_submission("day1", "ada")
        assert (submission.score, submission.max_score) == (100.0, 100.0)


def test_unchanged_marks_are_not_copied_again(course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", WRONG)
    course.copy()
    before = {s: course.autograded(s).stat().st_mtime_ns for s in ("ada", "bob")}
    course.hand_in("bob", RIGHT)
    assert course.copy() == CopyResult(1, 1, [])
    assert course.autograded("ada").stat().st_mtime_ns == before["ada"]
    assert course.autograded("bob").stat().st_mtime_ns != before["bob"]
    assert course.scores("bob") == FULL
    assert course.copy(force=True) == CopyResult(2, 0, [])


@pytest.mark.parametrize("lost", ["the autograded notebook", "a mark in the gradebook"])
def test_lost_marks_are_copied_again(lost: str, course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.copy()
    if lost == "the autograded notebook":
        course.autograded("ada").unlink()
    else:
        with course.gradebook() as book:
            book.find_grade("check_split_heads", "day1", "day1", "ada").auto_score = 3
            book.db.commit()
    assert course.copy() == CopyResult(1, 0, [])
    assert course.scores("ada") == FULL
    assert course.autograded("ada").exists()


def test_a_tas_marks_and_comments_survive_regrading(course: Class) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    assert course.copy() == CopyResult(0, 1, [])
    course.hand_in("ada", RIGHT)
    assert course.copy() == CopyResult(1, 0, [])
    assert course.copy(force=True) == CopyResult(1, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 40.0}
    assert course.comment("ada") == "Which id is padding?"
    with course.gradebook() as book:
        grade = book.find_grade("check_padding_mask", "day1", "day1", "ada")
        assert grade.auto_score == 60
        assert grade.needs_manual_grade  # the TA marked an earlier answer


def test_a_new_release_keeps_a_tas_marks_and_comments(course: Class) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    toml = course.root / "grading.toml"
    toml.write_text(toml.read_text().replace("= 60", "= 30").replace("= 40", "= 70"))
    generate(course.root)
    assert course.copy() == CopyResult(1, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 70.0}
    assert course.comment("ada") == "Which id is padding?"


@pytest.mark.parametrize(
    ("text", "name"),
    [(BROKEN, "day1.ipynb"), ("", ""), (BROKEN, "second try.ipynb"), (WRONG, "second try.py")],
)
def test_marks_of_an_older_attempt_are_not_shown(text: str, name: str, course: Class) -> None:
    course.hand_in("ada", RIGHT)
    course.copy()
    course.feedback()
    page = course.root / "feedback/ada/day1/day1.html"
    assert "60 of 60 points" in page.read_text()
    course.hand_in("ada", text, name)
    assert course.copy() == CopyResult(1, 0, [])
    assert course.scores("ada") == (HALF if text == WRONG else NOTHING)
    assert not page.exists()
    course.feedback()
    assert "60 of 60 points" not in page.read_text()


def test_of_several_files_the_one_with_the_most_exercises_is_copied(course: Class) -> None:
    folder = course.hand_in("ada", RIGHT.partition("def split_heads")[0], "a.py")
    (folder / "b.py").write_text(WRONG)
    assert course.copy().problems == []
    assert course.scores("ada") == HALF
    assert "not graded: a.py (1 exercise filled in)" in course.autograded("ada").read_text()


def test_the_timestamp_decides_lateness_and_an_invalid_one_is_reported(course: Class) -> None:
    with course.gradebook() as book:
        book.update_or_create_assignment("day1", duedate="2026-12-01 12:00:00 UTC")
    course.hand_in("ada", RIGHT, time="2026-12-01 14:00:00 CET")
    course.hand_in("bob", RIGHT, time="tomorrow, I promise")
    (problem,) = course.copy().problems
    assert "bob/day1/timestamp.txt contains no valid time" in problem

    def seconds_late(student: str) -> float:
        with course.gradebook() as book:
            return float(book.find_submission("day1", student).total_seconds_late)

    assert (seconds_late("ada"), seconds_late("bob")) == (3600, 0)
    course.hand_in("ada", RIGHT, time="2026-12-01 12:30:00 CET")
    assert course.copy().copied == 1
    assert seconds_late("ada") == 0


def test_the_late_policy_follows_changed_marks_and_dates(course: Class) -> None:
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
    assert course.copy() == CopyResult(0, 1, [])
    with course.gradebook() as book:
        submission = book.find_submission("day1", "ada")
        assert (submission.score, submission.late_submission_penalty) == (90, 90)
        book.update_or_create_assignment("day1", duedate="2026-12-03 12:00:00 UTC")
    assert course.copy() == CopyResult(0, 1, [])
    with course.gradebook() as book:
        assert not book.find_submission("day1", "ada").late_submission_penalty


def test_a_failure_for_one_student_does_not_affect_the_others(course: Class) -> None:
    strange = os.fsdecode(b"b\xff")  # nbgrader's gradebook can store only valid Unicode
    for student in ("ada", strange, "cyd"):
        course.hand_in(student, RIGHT)
    result = course.copy()
    assert result.copied == 2
    assert result.problems[0].startswith("b\\xff was not copied into nbgrader's gradebook: ")
    assert course.scores("cyd") == FULL


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nbgrader's gradebook wait only 0.1 seconds for a lock, instead of 5 seconds."""
    connect = partial(sqlite3.connect, timeout=0.1)
    monkeypatch.setattr("sqlite3.dbapi2.connect", connect)  # SQLAlchemy calls this function


@pytest.fixture
def locked(course: Class) -> Iterator[Callable[[], None]]:
    """Lock the gradebook as if another process were writing to it. Return a function that releases the lock."""
    writing = sqlite3.connect(course.root / "gradebook.db", isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    yield lambda: writing.execute("COMMIT").close()
    writing.close()


@pytest.mark.usefixtures("short_waits")
def test_a_locked_gradebook_is_reported_and_the_next_run_continues(
    course: Class, request: pytest.FixtureRequest
) -> None:
    course.hand_in("ada", WRONG)
    course.copy()
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    course.hand_in("ada", RIGHT)
    course.hand_in("bob", RIGHT)
    unlock = request.getfixturevalue("locked")
    (problem,) = course.copy().problems
    assert problem.startswith("gradebook.db is locked: another process, such as formgrader,")
    assert "; 0 of 2 submissions are up to date in the gradebook." in problem
    # The failed copy did not delete the notebook that the first copy wrote.
    assert course.autograded("ada").exists()
    unlock()
    assert course.copy() == CopyResult(2, 0, [])
    assert course.scores("ada") == {"padding_mask": 33.5, "split_heads": 40.0}
    assert course.comment("ada") == "Which id is padding?"


@pytest.mark.parametrize(
    ("bytes_", "message"), [(b"no database" * 99, "not a database"), (None, "no gradebook.db")]
)
def test_an_invalid_gradebook_is_reported(
    bytes_: bytes | None, message: str, course: Class
) -> None:
    course.hand_in("ada", RIGHT)
    file = course.root / "gradebook.db"
    file.unlink() if bytes_ is None else file.write_bytes(bytes_)
    (problem,) = course.copy().problems
    assert message in problem


def test_a_configuration_that_would_run_student_code_is_rejected(course: Class) -> None:
    (course.root / "nbgrader_config.py").write_text("")
    course.hand_in("ada", RIGHT)
    (problem,) = course.copy().problems
    assert "must replace nbgrader's Execute" in problem
    assert not course.autograded("ada").exists()


@pytest.mark.parametrize("line", ["import no_such_module", "c = (", "c.A.b = 1 / 0"])
def test_a_faulty_configuration_is_reported(line: str, course: Class) -> None:
    file = course.root / "nbgrader_config.py"
    file.write_text(f"{file.read_text()}\n{line}\n")
    course.hand_in("ada", RIGHT)
    (problem,) = course.copy().problems
    assert problem.startswith("nbgrader_config.py cannot be read: ")
    assert "\n" not in problem


def test_an_interrupted_copy_is_completed(course: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a copy of the marks between nbgrader's two passes over a notebook, then copy the marks again."""
    course.hand_in("ada", WRONG)
    course.copy()
    course.hand_in("ada", RIGHT)
    whole = MarksCopier._init_preprocessors

    def stop(self: MarksCopier) -> None:
        if not self._sanitizing:
            raise KeyboardInterrupt
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(MarksCopier, "_init_preprocessors", stop)
        with pytest.raises(KeyboardInterrupt):
            course.copy()
    assert course.copy() == CopyResult(1, 0, [])
    assert course.scores("ada") == FULL


@pytest.mark.usefixtures("short_waits")
def test_the_command_grades_all_submissions_and_fills_the_gradebook(
    course: Class, run: Run
) -> None:
    course.hand_in("ada", WRONG, "homework.py")
    done = command(course.root, "grade", "day1", "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"nbgrader's gradebook: 1 .*copied, 0 unchanged", done.stdout)
    assert course.scores("ada") == HALF
    assert json.loads(course.autograded("ada").read_text())["metadata"]["autograder"]
    writing = sqlite3.connect(course.root / "gradebook.db", isolation_level=None)
    writing.execute("BEGIN EXCLUSIVE")
    done = run(course.root, "grade", "day1")
    writing.close()
    assert done.returncode == 1
    assert "60 / 100" in done.stdout  # the command still prints the marks
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("autograder: error: gradebook.db is locked: ")


def test_grading_given_paths_leaves_the_gradebook_unchanged(course: Class, run: Run) -> None:
    folder = course.hand_in("ada", RIGHT)
    before = (course.root / "gradebook.db").read_bytes()
    assert run(course.root, "grade", "day1", str(folder)).returncode == 0
    assert (course.root / "gradebook.db").read_bytes() == before


# ---- what students put into their folders

SECRET = "f" * 128  # as `nbgrader submit` writes it


def with_autograde(course: Class) -> str:
    """Run `nbgrader autograde` and return its log."""
    app = nbgrader(course.root)
    log = io.StringIO()
    app.log.handlers = [logging.StreamHandler(log)]
    app.log.setLevel(logging.INFO)
    with contextlib.suppress(NbGraderException):  # raised at the end if a submission failed
        Autograde(coursedir=app.coursedir, parent=app).start()
    assert app.coursedir.ignore == nbgrader(course.root).coursedir.ignore
    return log.getvalue()


@pytest.mark.parametrize("grade", [Class.copy, with_autograde])
def test_only_graded_notebooks_reach_students(
    grade: Callable[[Class], object], course: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    private = course.root / "private"
    private.mkdir()
    (private / "day1.ipynb").write_text("secret")
    trouble: dict[str, Callable[[Path], object]] = {
        "ada": lambda folder: None,
        "ben": lambda folder: (folder / "x.html").symlink_to(private / "day1.ipynb"),
        "cyd": lambda folder: (folder / "lib").symlink_to("nothing"),
        "dan": lambda folder: os.mkfifo(folder / "fifo"),
        "eve": lambda folder: (folder / "run").touch(0o4755),
        "fay": lambda folder: (folder / "submission_secret.txt").unlink(),
        "gus": lambda folder: (folder / "submission_secret.txt").write_bytes(b"\xff"),
        "hal": lambda folder: (folder / "timestamp.txt").unlink(),
    }
    for student, change in trouble.items():
        folder = course.hand_in(student, RIGHT, time="2026-11-01 10:00:00 UTC")
        (folder / "submission_secret.txt").write_text(SECRET + student)
        change(folder)
    grade(course)
    autograded = {
        str(path.relative_to(course.root / "autograded"))
        for path in course.root.glob("autograded/*/day1/*")
    }
    names = {"day1.ipynb", "timestamp.txt", "submission_secret.txt"}
    expected = {f"{student}/day1/{name}" for student in trouble for name in names}
    missing = {"fay/day1/submission_secret.txt", "gus/day1/submission_secret.txt"}
    assert autograded == expected - missing - {"hal/day1/timestamp.txt"}
    course.feedback()
    exchange = course.root / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    run_app(ReleaseFeedbackApp, course.root, "day1", f"--Exchange.root={exchange}")
    released = {path.name for path in exchange.glob("transformers/feedback/*")}
    assert released == {
        notebook_hash(secret=SECRET + student, notebook_id="day1") + ".html"
        for student in ("ada", "ben", "cyd", "dan", "eve")
    }


def test_autograde_does_not_trust_what_students_submitted(
    course: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    ada = course.hand_in("ada", RIGHT)
    course.hand_in("eve", RIGHT).rename(course.root / "eve")
    (course.root / "submitted" / "eve" / "day1").symlink_to(ada)
    timestamp = course.hand_in("fay", RIGHT) / "timestamp.txt"
    os.mkfifo(timestamp)
    (course.hand_in("zoe", RIGHT) / "\x1b[31mred.ipynb").write_text("{}")
    (course.root / "submitted/zoe/day1/other.ipynb").write_text("{}")
    log = with_autograde(course)
    assert "other.ipynb" in log
    assert "\x1b" not in log
    assert course.scores("ada") == course.scores("zoe") == FULL
    assert not course.autograded("eve").exists()
    assert not course.autograded("fay").exists()
