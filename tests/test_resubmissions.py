"""Test how a resubmission affects overrides and lateness, and what the notes tell the TA."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from autograder.course import config as courses
from autograder.grading.session import GradedClass
from autograder.marks.history import History
from autograder.marks.overrides import OverrideStore, Request, read_stored, resolve
from autograder.submissions import roster as rosters
from tests import downloads
from tests.downloads import hand_in
from tests.fake_grading import book, by_student, grade
from tests.small_course import make
from tests.test_store import run
from tests.test_submission import zipped

LATE = "[day1.late]\ndue = 2026-11-20T00:00:00Z\npercent_per_day = 10\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course", LATE)


def canvas(root: Path, upload: int, points: float, late: str = "") -> Path:
    """Write a Canvas download with files by two students named Li. The first student's file has the upload number `upload`."""
    files = {
        f"li_{late}11_{upload}_day1.ipynb": book(points, f"# {upload}"),
        "li_12_50002_day1.ipynb": book(30, "# other"),
    }
    place = root / f"{upload}.zip"
    place.write_bytes(zipped(files))
    return place


def override(root: Path, points: float) -> None:
    day = courses.load(root).day("day1")
    with History(root) as history:
        class_ = history.current("day1")
    request = Request("11", "padding_mask", f"{points:g}", "Nearly.")
    new = resolve([request], class_, day, rosters.for_course(root), "kim")
    with OverrideStore(root) as store:
        store.add("day1", new)


def graded(root: Path, download: Path) -> GradedClass:
    overrides = read_stored(courses.load(root).day("day1"))
    return grade(root, download, adjust=overrides.apply)


def test_points_that_were_added_do_not_lower_a_better_submission(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grade(root, canvas(root, 50001, 10))
    override(root, 20)
    assert by_student(graded(root, canvas(root, 50001, 10))) == {"li (11)": 20, "li (12)": 30}
    again = graded(root, canvas(root, 60001, 60))
    assert by_student(again) == {"li (11)": 60, "li (12)": 30}
    assert [str(one) for one in again.resubmissions] == ["li (11): 20 → 60"]
    code, out, err = run(root, monkeypatch, capsys, "override", "day1")
    assert (code, out) == (0, "")
    assert (
        "li (11): the override of padding_mask to 20 has no effect, because the submission earned 60"
        in err
    )
    # If a worse submission follows, the points that the TA added still count.
    assert by_student(graded(root, canvas(root, 70001, 15)))["li (11)"] == 20


@pytest.mark.parametrize("points", [5, 40])
def test_points_that_were_taken_away_or_confirmed_stay(root: Path, points: float) -> None:
    grade(root, canvas(root, 50001, 40))
    override(root, points)
    assert by_student(graded(root, canvas(root, 60001, 60)))["li (11)"] == points


def test_a_resubmission_that_lowers_the_final_points_is_reported(root: Path) -> None:
    grade(root, canvas(root, 50001, 50))
    again = graded(root, canvas(root, 60001, 55, "LATE_"))
    assert [str(one) for one in again.resubmissions] == ["li (11): 50 → 49.5"]
    assert again.notes[0].startswith(
        "these resubmissions lower the final points (1): li (11): 50 → 49.5. The newest"
    )
    assert "If it arrived later, set late_hours in roster.csv" in again.notes[1]


def test_late_hours_of_an_earlier_submission_are_reported(root: Path) -> None:
    grade(root, canvas(root, 50001, 50, "LATE_"))
    (root / "roster.csv").write_text("id,student,name,late_hours_day1\n11,li (11),,5\n")
    assert not any(
        "late_hours" in note for note in graded(root, canvas(root, 50001, 50, "LATE_")).notes
    )
    again = graded(root, canvas(root, 60001, 60, "LATE_"))
    assert any(
        note.startswith("these students resubmitted and have late_hours") for note in again.notes
    )
    on_time = graded(root, canvas(root, 70001, 60))
    assert on_time.resubmissions[0].before == 54  # late by five hours
    assert any("Canvas did not mark this submission late" in note for note in on_time.notes)


def test_students_without_a_roster_are_sorted_by_name_and_id(root: Path) -> None:
    first = grade(root, canvas(root, 50001, 50))
    again = grade(root, canvas(root, 60001, 50, "LATE_"))
    labels = [[row.entry.label for row in one.rows] for one in (first, again)]
    assert labels == [["li (11)", "li (12)"]] * 2


def test_hours_of_the_new_submission_do_not_count_for_the_earlier_one(root: Path) -> None:
    grade(root, canvas(root, 50001, 57))
    (root / "roster.csv").write_text("id,student,name,late_hours_day1\n11,li (11),,30\n")
    again = graded(root, canvas(root, 60001, 60, "LATE_"))
    assert [str(one) for one in again.resubmissions] == ["li (11): 57 → 48"]
    assert again.notes[0].startswith("these resubmissions lower the final points (1): li (11)")


def test_a_comment_on_a_better_submission_does_not_bring_the_points_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grade(root, canvas(root, 50001, 10))
    override(root, 20)
    graded(root, canvas(root, 60001, 60))
    command = ("override", "day1", "11", "padding_mask", "--comment", "Very good now")
    code, out, err = run(root, monkeypatch, capsys, *command)
    assert (code, err) == (0, "")
    assert out.startswith("li (11): padding_mask (")
    assert "Very good now; 60 of 100 points in total" in out


def test_the_best_submission_of_a_group_is_compared(root: Path) -> None:
    (root / "roster.csv").write_text("id,student,name,group\n11,a,,g\n12,b,,g\n")
    grade(root, canvas(root, 50001, 50), group="best")
    again = grade(root, canvas(root, 60001, 20), group="best")
    assert by_student(again) == {"a": 30, "b": 30}
    assert [str(one) for one in again.resubmissions] == ["a: 50 → 30"]
    assert "newest" not in again.notes[0]


@pytest.mark.parametrize("rule", ["latest", "best"])
@pytest.mark.parametrize("roster", ["", "id,student,name,group\n2002,sam,S,1\n2003,ada,A,1\n"])
def test_a_member_of_a_team_who_also_submitted_alone(
    tmp_path: Path,
    roster: str,
    rule: Literal["latest", "best"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`grade` and `export` agree, and both name the two submissions. The better one counts only for a group on the roster."""
    root = make(tmp_path / "other")
    if roster:
        (root / "roster.csv").write_text(roster)
    team = hand_in(1, "Sam Lee", "notebook", 50.0, hours=-5.0)
    team = dataclasses.replace(team, partners=((2, "Ada Shaw"),))
    alone = hand_in(2, "Ada Shaw", "notebook", 30.0, hours=-2.0)
    (root / "a.zip").write_bytes(downloads.gradescope([team, alone]))
    again = grade(root, root / "a.zip", group=rule)
    best = 50 if rule == "best" else 30
    expected = [best, best] if roster else [30, 50]
    assert [row.points for row in again.rows] == expected
    assert again.identical == []
    assert any(
        all(f"submission_{number}" in note for number in (9001, 9002)) for note in again.notes
    )
    export = ("export", "day1", "--to", "csv", "--group", rule, "--out", "x.csv")
    code, _, err = run(root, monkeypatch, capsys, *export)
    assert code == 0, err
    with (root / "x.csv").open() as file:
        assert [float(row["points"]) for row in csv.DictReader(file)] == expected
