"""Test that regrading shows changed points and the reasons for the changes before they take effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from msgspec.structs import replace

from autograder.course.files import FileError
from autograder.grading.grader import Grader
from autograder.marks import model as m
from autograder.marks.history import History
from autograder.marks.regrade import Change, report
from autograder.slicing.slicer import Slicer, SlicingError
from autograder.submissions.submission import Submission
from tests import test_store
from tests.conftest import Run
from tests.fake_grading import FakePool, book, use_fake_pool
from tests.small_course import hand_in, make
from tests.test_submission import zipped


def result(name: str, points: float, of: float, message: str = "") -> m.TestMarks:
    return m.TestMarks(name, points, of, not message, message)


FIRST = (result("shape", 1, 1), result("any_id", 0, 2, "The padding id can be any integer."))


def marked(*tests: m.TestMarks, sha256: str = "sha", **more: Any) -> m.SubmissionMarks:
    points, of = sum(t.points for t in tests), sum(t.max_points for t in tests)
    exercise = m.ExerciseMarks("mask", points, of, "partial", "", None, [], 0.1, list(tests))
    whole = m.SubmissionMarks(
        "in/ada.py", "ada", sha256, "seed", "course", [], points, of, 0.1, [], [exercise]
    )
    return replace(whole, **more)


CASES = {
    "a removed test": (
        [result("shape", 3, 3)],
        [
            "ada: 1 → 3 (+2)",
            "mask: 1 → 3",
            "any_id no longer counts",
            "shape is worth 3 instead of 1",
        ],
    ),
    "a test that passes now": (
        [result("shape", 1, 1), result("any_id", 2, 2)],
        ["(+2)", "any_id failed before and passes now", "The padding id can be any integer."],
    ),
    "a test that fails now": (
        [result("shape", 0, 1, "The mask has an axis."), FIRST[1]],
        ["(−1)", "shape passed before and fails now", "The mask has an axis."],
    ),
    "a new test": (
        [*FIRST, result("dtype", 0, 1, "It is boolean.")],
        ["(+0)", "dtype is new", "It is boolean."],
    ),
    "a different maximum": (
        [result("shape", 2, 2), result("any_id", 0, 4, FIRST[1].message)],
        ["mask: 1 → 2\n    is worth 6 instead of 3"],
    ),
    "different weights": (
        [result("shape", 2, 2), result("any_id", 0, 1, FIRST[1].message)],
        ["(+1)", "shape is worth 2 instead of 1", "any_id is worth 1 instead of 2"],
    ),
}


@pytest.mark.parametrize(("tests", "parts"), CASES.values(), ids=CASES)
def test_the_report_names_changes_and_reasons(tests: list[m.TestMarks], parts: list[str]) -> None:
    changes = [Change(marked(*FIRST), marked(*tests)), Change(marked(*FIRST), marked(*FIRST))]
    text = "\n".join(report(changes, "day1"))
    assert text.startswith("day1: points change in 1 of 2 submissions")
    for part in parts:
        assert part in text
    assert ("shape is worth" in text) == ("shape is worth" in "".join(parts))


def test_the_report_shows_the_points_after_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_pool(monkeypatch)
    root = make(tmp_path / "course")
    files = {
        f"{name}_{id_}_500{id_}_day1.ipynb": book(10) for name, id_ in (("ada", 11), ("bob", 12))
    }
    (root / "a.zip").write_bytes(zipped(files))
    assert test_store.run(root, monkeypatch, capsys, "grade", "day1", "a.zip")[0] == 0
    for who, exercise in (("ada", "split_heads"), ("bob", "padding_mask")):
        override = ("override", "day1", who, exercise, "--points", "5")
        assert test_store.run(root, monkeypatch, capsys, *override)[0] == 0
    graded = FakePool.grade

    def better(pool: FakePool, submission: Submission, seed: str) -> m.SubmissionMarks:
        marks = graded(pool, submission, seed)
        first, *others = marks.exercises
        test = replace(first.tests[0], points=12.0)
        return replace(
            marks, points=12.0, exercises=[replace(first, points=12.0, tests=[test]), *others]
        )

    monkeypatch.setattr(FakePool, "grade", better)
    grader = root / "graders" / "day1" / "test_masking.py"
    grader.write_text(grader.read_text().replace("@weight(2)", "@weight(3)"))
    code, out, err = test_store.run(root, monkeypatch, capsys, "regrade", "day1")
    assert code == 0, err
    assert "points change in 1 of 2 submissions" in out
    assert "ada (11): 15 → 17 (+2)" in out
    assert "bob" not in out


def test_a_change_that_affects_one_submission_is_shown_only_there() -> None:
    one, same = marked(result("shape", 3, 3)), [marked(*FIRST)] * 2
    changes = [Change(marked(*FIRST), one), Change(*same)]
    assert "×" not in "\n".join(report(changes, "day1"))
    reworded = replace(FIRST[1], message="Look at pad_id.")
    changes += [Change(marked(*FIRST), one), Change(marked(*FIRST), marked(FIRST[0], reworded))]
    lines = [*report(changes, "day1")]
    assert "  2 × mask any_id no longer counts" in lines
    assert lines[-1] == "\nIn 1 other submission, only the feedback changes."


def test_the_report_separates_reworded_messages_from_changed_files() -> None:
    reworded = replace(FIRST[1], message="Look at pad_id.")
    worded = Change(marked(*FIRST), marked(FIRST[0], reworded))
    assert "In 1 other submission, only the feedback changes" in "\n".join(report([worded], "day1"))
    slower = Change(marked(*FIRST), marked(*FIRST, seconds=9.0))
    assert "\n".join(report([slower], "day1")) == "day1: points change in 0 of 1 submissions"
    other = Change(marked(*FIRST), marked(result("shape", 3, 3), sha256="another"))
    assert "has changed since it was graded" in "\n".join(report([other], "day1"))
    broken = replace(marked(*FIRST, problems=["it is empty"]), points=0.0, exercises=[])
    assert "it is empty" in "\n".join(report([Change(marked(*FIRST), broken)], "day1"))


@pytest.mark.slow
def test_new_marks_become_current_only_with_write(tmp_path: Path, run: Run) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", 4)
    assert run(tmp_path, "grade", "day1", "in").returncode == 0
    (tmp_path / "in" / "student03.py").unlink()

    def points() -> list[float]:
        with History(tmp_path) as history:
            return [marks.earned for marks in history.current("day1")]

    assert points() == [100, 60, 100, 100]
    grader = tmp_path / "graders" / "day1" / "test_masking.py"
    grader.write_text(grader.read_text().replace("@weight(2)", "@weight(0)"))
    # The store contains absolute paths, so `regrade` works in any folder.
    done = run(tmp_path / "in", "regrade", "day1")
    assert done.returncode == 1
    assert "in/student03.py (student03) no longer exists; its 100 points are kept" in done.stderr
    assert "points change in 1 of 3 submissions" in done.stdout
    assert "student01: 60 → 100 (+40)" in done.stdout
    assert "    test_any_id no longer counts" in done.stdout
    assert "test_zero is worth 60 instead of 20" in done.stdout
    assert points() == [100, 60, 100, 100]
    done = run(tmp_path, "regrade", "day1", "--write")
    assert "student01: 60 → 100 (+40)" in done.stdout
    assert sorted(points()) == [100, 100, 100, 100]


@pytest.fixture
def changed_course(tmp_path: Path, run: Run) -> Path:
    """Return the folder of a small course in which a test has changed since two submissions were graded."""
    make(tmp_path)
    hand_in(tmp_path / "in", 2)
    assert run(tmp_path, "grade", "day1", "in").returncode == 0
    grader = tmp_path / "graders" / "day1" / "test_masking.py"
    grader.write_text(grader.read_text().replace("@weight(2)", "@weight(3)"))
    return tmp_path


@pytest.mark.slow
def test_regrade_names_submissions_that_could_not_be_graded(
    changed_course: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OverflowError

    monkeypatch.setattr(Grader, "grade", fail)
    done = run(changed_course, "regrade", "day1", "--write")
    assert done.returncode == 1
    assert "student00 could not be graded: grading the submission of student00" in done.stderr
    with History(changed_course) as history:
        assert [marks.points for marks in history.current("day1")] == [100, 60]


@pytest.mark.slow
def test_a_submission_whose_code_cannot_be_read_replaces_earlier_marks(
    changed_course: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise SlicingError("out of time")

    monkeypatch.setattr(Slicer, "slice_all", fail)
    done = run(changed_course, "regrade", "day1", "--write")
    assert done.returncode == 1
    assert "student00 could not be graded: the submission's code could not be read" in done.stderr
    with History(changed_course) as history:
        assert [marks.points for marks in history.current("day1")] == [None, None]


@pytest.mark.slow
def test_regrade_says_that_marks_could_not_be_stored(
    changed_course: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise FileError("marks.db cannot be written: disk full")

    monkeypatch.setattr(History, "add", fail)
    done = run(changed_course, "regrade", "day1", "--write")
    assert done.returncode == 1
    assert "the new marks of 2 submissions could not be stored" in done.stderr


@pytest.mark.slow
def test_regrade_without_stored_marks_is_an_error(tmp_path: Path, run: Run) -> None:
    make(tmp_path)
    done = run(tmp_path, "regrade", "day1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no marks for day1" in done.stderr
