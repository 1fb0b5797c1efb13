"""A change of the course: who gets other points and why is shown before it counts; and the marks of several machines are one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from autograder.course.config import CourseError
from autograder.marks import model as m
from autograder.marks.history import History
from autograder.marks.merging import merged
from autograder.marks.regrade import Change, report
from autograder.submissions.class_source import Shard
from autograder.submissions.submission import Submission
from tests.small_course import command, hand_in, make


def held(name: str, points: float, of: float, message: str = "") -> m.TestMarks:
    return m.TestMarks(name, points, of, not message, message)


FIRST = (held("shape", 1, 1), held("any_id", 0, 2, "Padding may have any id."))


def marked(*tests: m.TestMarks, sha256: str = "sha", **more: Any) -> m.SubmissionMarks:
    points, of = sum(t.points for t in tests), sum(t.max_points for t in tests)
    exercise = m.ExerciseMarks("mask", points, of, "partial", "", None, [], 0.1, list(tests))
    whole = m.SubmissionMarks(
        "in/ada.py", "ada", sha256, "seed", "course", [], points, of, 0.1, [], [exercise]
    )
    return replace(whole, **more)


CASES = {
    "a test that no longer counts": (
        [held("shape", 3, 3)],
        ["ada: 1 → 3 (+2)", "mask: 1 → 3", "any_id no longer counts", "instead of 1"],
    ),
    "a test that holds now": (
        [held("shape", 1, 1), held("any_id", 2, 2)],
        ["(+2)", "any_id holds now and did not before", "Padding may have any id."],
    ),
    "a test that held": (
        [held("shape", 0, 1, "The mask has an axis."), FIRST[1]],
        ["(-1)", "shape held before and does not now", "The mask has an axis."],
    ),
    "a new test": (
        [*FIRST, held("dtype", 0, 1, "It is boolean.")],
        ["(+0)", "dtype is new", "It is boolean."],
    ),
    "other weights": (
        [held("shape", 2, 2), held("any_id", 0, 1, FIRST[1].message)],
        ["(+1)", "shape is worth 2 instead of 1", "any_id is worth 1 instead of 2"],
    ),
}


@pytest.mark.parametrize(("tests", "says"), CASES.values(), ids=CASES)
def test_what_changes_and_why_is_said(tests: list[m.TestMarks], says: list[str]) -> None:
    changes = [Change(marked(*FIRST), marked(*tests)), Change(marked(*FIRST), marked(*FIRST))]
    text = "\n".join(report(changes, "day1"))
    assert text.startswith("day1: 1 of 2 submissions have other points")
    for part in says:
        assert part in text


def test_other_words_and_other_files_are_told_apart() -> None:
    reworded = replace(FIRST[1], message="Look at pad_id.")
    worded = Change(marked(*FIRST), marked(FIRST[0], reworded))
    assert "1 more keep their points" in "\n".join(report([worded], "day1"))
    slower = Change(marked(*FIRST), marked(*FIRST, seconds=9.0))
    assert "\n".join(report([slower], "day1")) == "day1: 0 of 1 submissions have other points"
    other = Change(marked(*FIRST), marked(held("shape", 3, 3), sha256="another"))
    assert "is not the file that was graded before" in "\n".join(report([other], "day1"))
    broken = replace(marked(*FIRST, problems=["it is empty"]), points=0.0, exercises=[])
    assert "it is empty" in "\n".join(report([Change(marked(*FIRST), broken)], "day1"))


def test_a_test_set_to_weight_0_is_seen_in_marks_only_when_written(tmp_path: Path) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", 4)
    assert command(tmp_path, "grade", "day1", "in").returncode == 0
    (tmp_path / "in" / "student03.py").unlink()

    def points() -> list[float]:
        with History(tmp_path) as history:
            return [marks.points for marks in history.current("day1")]

    assert points() == [100, 60, 100, 100]
    grader = tmp_path / "graders" / "day1" / "test_masking.py"
    grader.write_text(grader.read_text().replace("@weight(2)", "@weight(0)"))
    # From another folder: the store knows where each file is.
    done = command(tmp_path / "in", "regrade", "day1")
    assert done.returncode == 1
    assert "in/student03.py of student03 is gone; its 100 points stay" in done.stderr
    assert "1 of 3 submissions have other points" in done.stdout
    assert "student01: 60 → 100 (+40)" in done.stdout
    assert "padding_mask test_any_id no longer counts" in done.stdout
    assert "test_zero is worth 60 instead of 20" in done.stdout
    assert points() == [100, 60, 100, 100]
    done = command(tmp_path, "regrade", "day1", "--write")
    assert "student01: 60 → 100 (+40)" in done.stdout
    assert sorted(points()) == [100, 100, 100, 100]


def test_without_marks_there_is_nothing_to_regrade(tmp_path: Path) -> None:
    make(tmp_path)
    done = command(tmp_path, "regrade", "day1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no marks of day1" in done.stderr


# ---- several machines


def handed_in(student: str) -> Submission:
    return Submission(f"in/{student}.py", student, "", (), (), True)


def test_shards_are_disjoint_and_complete() -> None:
    students = [handed_in(f"student {n}") for n in range(300)]
    shards = [[s.student for s in students if Shard(k, 5).contains(s)] for k in range(1, 6)]
    assert sorted(name for shard in shards for name in shard) == sorted(s.student for s in students)
    assert all(30 < len(shard) < 90 for shard in shards)


@pytest.mark.parametrize("text", ["0/5", "6/5", "2", "a/b", "2/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^invalid shard .{text}.: expected K/N .*, such as 2/5"):
        Shard.parse(text)


def as_file(*submissions: m.SubmissionMarks) -> m.Marks:
    return m.Marks(m.FORMAT, "day1", list(submissions))


ADA = marked(*FIRST)
BOB = marked(*FIRST, path="in/bob.py", student="bob")


def test_shards_are_merged_in_the_order_of_their_paths() -> None:
    elsewhere = replace(ADA, path="/mnt/in/ada.py", seconds=9.0)
    parts = {Path("1"): as_file(BOB), Path("2"): as_file(ADA), Path("3"): as_file(elsewhere)}
    assert merged(parts, "day1") == as_file(ADA, BOB)


OTHERS: dict[str, Callable[[], m.SubmissionMarks]] = {
    "with different marks|ada has 1 points in 1 and 3 in 2": lambda: marked(held("shape", 3, 3)),
    "of another course|2 was graded by another course than 1": lambda: replace(
        BOB, course="another"
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_does_not_fit_together_is_refused(case: str) -> None:
    parts = {Path("1"): as_file(ADA), Path("2"): as_file(OTHERS[case]())}
    with pytest.raises(CourseError, match=case.partition("|")[2]):
        merged(parts, "day1")


def test_merge_is_a_command_that_says_what_is_wrong(tmp_path: Path) -> None:
    make(tmp_path)
    for name, one in (("one", ADA), ("two", BOB), ("three", marked(held("shape", 3, 3)))):
        (tmp_path / f"{name}.json").write_bytes(m.encode(as_file(one)))
    merge = ("merge", "day1", "one.json")
    done = command(tmp_path, *merge, "two.json", "--json", "all.json")
    assert (done.returncode, done.stderr) == (0, "")
    whole = json.loads((tmp_path / "all.json").read_text())
    assert [one["student"] for one in whole["submissions"]] == ["ada", "bob"]
    done = command(tmp_path, *merge, "three.json", "--json", "no.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "in/ada.py of ada has 1 points in one.json and 3 in three.json" in done.stderr
    assert not (tmp_path / "no.json").exists()
