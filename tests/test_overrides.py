"""Test that overrides survive regrades, appear in all outputs and agree with nbgrader's gradebook."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
from msgspec.structs import replace

from autograder import ta_commands
from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.feedback import sentences
from autograder.feedback.exercise_feedback import to_feedback
from autograder.marks.model import Override, SubmissionMarks
from autograder.marks.overrides import (
    Overrides,
    OverrideStore,
    Request,
    StudentOverride,
    find_keys,
    resolve,
)
from autograder.nbgrader_plugin.configuration import round_numbers
from autograder.submissions.origin import Origin, Person
from autograder.submissions.roster import NO_ROSTER
from tests import fake_grading
from tests.conftest import ROOT, Run
from tests.fake_grading import book
from tests.material import submission, unread
from tests.released_course import Class, export, release
from tests.small_course import RIGHT, WRONG, make


@pytest.fixture(scope="module")
def day() -> Day:
    return courses.load(ROOT).day("day1")


def read_csv(root: Path, run: Run) -> dict[str, dict[str, str]]:
    done = run(root, "export", "day1", "--to", "csv", "--out", "marks.csv")
    assert done.returncode == 0, done.stderr
    with (root / "marks.csv").open(newline="") as opened:
        return {row["student"]: row for row in csv.DictReader(opened)}


@pytest.mark.slow
def test_overrides_appear_everywhere_and_survive_regrades(tmp_path: Path, run: Run) -> None:
    root = make(tmp_path / "course")
    (root / "class").mkdir()
    (root / "class/ada.py").write_text(WRONG)
    (root / "class/bob.py").write_text(RIGHT)
    grade = ("grade", "day1", "class", "--json", "m.json", "--feedback", "pages")
    assert run(root, *grade).returncode == 0
    change = ("override", "day1", "ada", "padding_mask", "--points", "50.5", "--by", "kim")
    done = run(root, *change, "--comment", "See the <b>forum</b>.")
    assert done.returncode == 0, done.stderr
    what = "padding_mask 50.5 instead of 20 points (kim 20"
    assert what in done.stdout
    assert "90.5 of 100 points" in done.stdout
    grader = root / "graders/day1/test_masking.py"
    grader.write_text(grader.read_text().replace("@weight(2)", "@weight(3)"))
    assert run(root, "regrade", "day1", "--write").returncode == 0
    done = run(root, *grade)
    assert "90.5 / 100  O✓" in done.stdout
    what = "padding_mask 50.5 instead of 15 points (kim 20"
    assert what in done.stdout
    ada = next(
        s for s in json.loads((root / "m.json").read_text())["submissions"] if s["student"] == "ada"
    )
    assert ada["points"] == 90.5
    assert ada["exercises"][0]["override"]["by"] == "kim"
    page = (root / "pages/ada.html").read_text()
    assert "50.5 instead of 15 points, given by kim" in page
    assert "See the &lt;b&gt;forum&lt;/b&gt;." in page
    row = read_csv(root, run)["ada"]
    assert (row["points"], row["padding_mask"]) == ("90.5", "50.5")
    assert row["by_hand"].startswith(what)
    done = run(root, "export", "day1", "--to", "canvas", "--out", "c.csv", "--all-notes")
    assert what in done.stderr
    assert run(root, "export", "day1", "--to", "gradescope", "--out", "gs").returncode == 0
    results = json.loads((root / "gs/ada.json").read_text())
    assert results["score"] == 90.5
    assert "given by kim" in results["tests"][0]["output"]
    explained = run(root, "explain", "day1", "ada", "padding_mask").stdout
    assert "padding_mask: 50.5 of 60 points" in explained
    assert "By hand: 50.5 instead of 15 points (kim 20" in explained
    done = run(root, "override", "day1", "ada", "padding_mask", "--remove")
    assert done.returncode == 0, done.stderr
    assert read_csv(root, run)["ada"]["points"] == "55"
    done = run(root, "override", "day1", "ada", "padding_mask", "--remove")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_many_overrides_are_stored_together_or_not_at_all(tmp_path: Path, run: Run) -> None:
    root = make(tmp_path / "course")
    (root / "class").mkdir()
    (root / "class/ada.py").write_text(WRONG)
    assert run(root, "grade", "day1", "class").returncode == 0
    head = "student,exercise,points,comment\n"
    wrong = "ada,padding_mask,61,\nada,nosuch,1,\neve,padding_mask,1,\n"
    (root / "o.csv").write_text(f"{head}ada,split_heads,1,\n{wrong}")
    done = run(root, "override", "day1", "--csv", "o.csv")
    assert (done.returncode, done.stdout) == (2, "")
    for message in (
        "row 3: padding_mask is worth 60",
        "row 4: day1 has no",
        "row 5: the store has",
    ):
        assert message in done.stderr
    assert run(root, "override", "day1").stdout == "day1 has no overrides\n"
    (root / "o.csv").write_text(f'{head}ada,split_heads,"1,5",\nada,padding_mask,,Well done\n')
    assert run(root, "override", "day1", "--csv", "o.csv").returncode == 0
    listed = run(root, "override", "day1").stdout
    assert "split_heads 1.5 instead of 40 points" in listed
    assert "Well done" in listed


@pytest.mark.slow
def test_grade_reports_an_override_of_a_student_who_now_has_another_id(
    tmp_path: Path, run: Run
) -> None:
    root = make(tmp_path / "course")
    (root / "roster.csv").write_text("student,name,id\ndana,Dana Li,11\n")
    for name in ("class/lidana_11_50001_day1.py", "class/kobob_12_50002_day1.py", "mail/dana.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(WRONG)
    assert run(root, "grade", "day1", "class").returncode == 0
    assert run(root, "override", "day1", "dana", "padding_mask", "--points", "20").returncode == 0
    done = run(root, "grade", "day1", "class")
    assert (done.stdout.count("override: dana"), done.stderr.count("no effect")) == (1, 0)
    done = run(root, "grade", "day1", "mail")
    assert done.returncode == 0
    listed = run(root, "list", "day1")
    assert listed.stdout.count("dana") == 2


def of(marks: SubmissionMarks, id_: str) -> SubmissionMarks:
    return replace(marks, handed_in=Origin((Person(marks.student, id_),)))


def test_students_with_the_same_name_have_separate_overrides(day: Day) -> None:
    texts = sentences.read(day)
    class_ = [of(submission(texts, student="Ada Lovelace"), id_) for id_ in ("11", "22")]
    new = resolve([Request("22", "softmax", "1", "")], class_, day, NO_ROSTER, "kim")
    first, second = (Overrides(new).apply(marks) for marks in class_)
    assert (first.points, second.points) == (100, 97)
    with pytest.raises(CourseError, match="several students match"):
        resolve([Request("Ada Lovelace", "softmax", "1", "")], class_, day, NO_ROSTER, "kim")
    renamed = replace(class_[1], student="ada")  # as if a roster had been added
    assert Overrides(new).apply(renamed).points == 97
    assert Overrides(new).unmatched([class_[0]]) == [
        "the override of softmax for Ada Lovelace has no effect: there is no submission with the id 22. "
        "If the student has marks under a different id, enter the override again"
    ]


def test_a_group_shares_an_override(day: Day) -> None:
    texts = sentences.read(day)
    people = Origin((Person("Ada", "1"), Person("Bob", "2")))
    group = replace(submission(texts, student="Ada, Bob"), handed_in=people)
    new = resolve([Request("Bob", "softmax", "0", "")], [group], day, NO_ROSTER, "kim")
    assert [one.key for one in new] == ["gradescope 1", "gradescope 2"]
    assert Overrides(new).apply(group).points == 96
    alone = of(submission(texts, student="Ada"), "1")
    assert Overrides(new).apply(alone).points == 96


@pytest.mark.parametrize(
    ("points", "comment", "message"),
    [
        ("+1", "", "new points for softmax, from 0 to 4"),
        ("-1", "", "has a sign"),
        ("nan", "", "0 to 4"),
        ("x", "", "0 to 4"),
        ("0_1", "", "0 to 4"),
        ("1e0", "", "0 to 4"),
        ("", " ", "a comment"),
    ],
)
def test_an_invalid_override_is_refused(points: str, comment: str, message: str, day: Day) -> None:
    class_ = [submission(sentences.read(day)), unread()]
    with pytest.raises(CourseError, match=message):
        resolve([Request("ada", "softmax", points, comment)], class_, day, NO_ROSTER, "kim")
    with pytest.raises(CourseError, match="could not be graded"):
        resolve([Request("bob", "softmax", "1", "")], class_, day, NO_ROSTER, "kim")
    with pytest.raises(CourseError, match=r"day1 has no exercise 'softmx'; it has .*softmax, "):
        resolve([Request("ada", "softmx", points, comment)], class_, day, NO_ROSTER, "kim")


def test_what_an_override_leaves_out_stays(day: Day) -> None:
    class_ = [submission(sentences.read(day))]

    def change(points: str, comment: str, stored: list[StudentOverride]) -> list[StudentOverride]:
        request = Request("ada", "softmax", points, comment)
        return resolve([request], class_, day, NO_ROSTER, "kim", stored)

    given = change("1", "Nice try.", [])
    for points, comment, expected in (
        ("", "See the forum.", (1, "See the forum.")),
        ("2", "", (2, "Nice try.")),
    ):
        (new,) = change(points, comment, given)
        assert (new.override.points, new.override.comment) == expected
    both = [Request("ada", "softmax", "3", ""), Request("ada", "softmax", "", "Fine.")]
    (new,) = resolve(both, class_, day, NO_ROSTER, "kim", given)
    assert (new.override.points, new.override.comment) == (3, "Fine.")


def test_the_command_keeps_and_prints_what_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path / "course")
    (root / "ada.ipynb").write_bytes(book(20))
    fake_grading.grade(root, root / "ada.ipynb")
    monkeypatch.chdir(root)
    ta_commands.override("day1", "ada", "padding_mask", points="50", by="kim")
    ta_commands.override("day1", "ada", "padding_mask", comment="See the forum.", by="kim")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ada: padding_mask 50 instead of 20 points (kim")
    assert "50 instead of 20 points" in second
    assert second.endswith(": See the forum.; 50 of 100 points in total")


def test_a_name_that_two_students_share_removes_no_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "course")
    (root / "class").mkdir()
    for id_ in ("501", "502"):
        (root / f"class/liwei_{id_}_90{id_}_day1.ipynb").write_bytes(book(20))
    fake_grading.grade(root, root / "class")
    monkeypatch.chdir(root)
    for id_ in ("501", "502"):
        ta_commands.override("day1", id_, "padding_mask", points="50")
    with pytest.raises(CourseError, match="several students match"):
        ta_commands.override("day1", "liwei", "padding_mask", remove=True)
    ta_commands.override("day1", "501", "padding_mask", remove=True)
    with OverrideStore(root) as store:
        assert [one.key for one in store.read("day1")] == ["canvas 502"]


def test_an_override_is_removed_for_the_whole_group(day: Day) -> None:
    people = Origin((Person("Ada", "1"), Person("Bob", "2")))
    marks = submission(sentences.read(day), student="Ada, Bob")
    group = [replace(marks, handed_in=people)]
    stored = resolve([Request("Bob", "softmax", "0", "")], group, day, NO_ROSTER, "kim")
    for student in ("Ada", "1", "Ada, Bob"):
        assert find_keys(student, stored, group, day, NO_ROSTER) == {"gradescope 1", "gradescope 2"}
    # The marks were deleted.
    assert find_keys("1", stored, [], day, NO_ROSTER) == {"gradescope 1"}
    assert find_keys("Ada, Bob", stored, [], day, NO_ROSTER) == {"gradescope 1", "gradescope 2"}
    with pytest.raises(CourseError, match="no marks for 'eve'"):
        find_keys("eve", stored, [], day, NO_ROSTER)


def test_a_user_without_a_name_is_recorded_by_id(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    request = Request("ada", "softmax", "1", "")
    (new,) = resolve([request], [submission(sentences.read(day))], day, NO_ROSTER, "")
    assert new.override.by == str(os.getuid())


def test_students_see_a_name_only_if_the_ta_chose_one(day: Day) -> None:
    texts = sentences.read(day)
    request = Request("ada", "softmax", "1", "")
    for by, expected in (("", "given by your TA on"), ("kim", "given by kim on")):
        new = resolve([request], [submission(texts)], day, NO_ROSTER, by)
        marks = Overrides(new).apply(submission(texts))
        shown = next(to_feedback(e, texts).override for e in marks.exercises if e.override)
        assert expected in shown
    assert new[0].override.by == "kim"


def test_a_store_is_read_back(tmp_path: Path) -> None:
    one = StudentOverride("11", "Ada", "softmax", Override(1.25, "ü\n", "kim", "2026-12-01"))
    with OverrideStore(tmp_path) as store:
        store.add("day1", [one])
        store.add("day1", [one])
    with OverrideStore(tmp_path) as store:
        assert store.read("day1") == [one]
        assert store.read("day2") == []
        assert store.remove("day1", ["22", "11"], "softmax") == 1
        assert store.read("day1") == []


@pytest.mark.slow
def test_exports_agree_with_nbgraders_gradebook(tmp_path: Path, run: Run) -> None:
    root = release(tmp_path / "course")
    course = Class(root)
    for student, text in (("ada", WRONG), ("bob", WRONG), ("cyd", RIGHT)):
        course.hand_in(student, text)
    assert run(root, "grade", "day1").returncode == 0
    course.read_by_a_ta("ada", 33.5, "Which id is padding?")
    change = ("override", "day1", "--csv", "o.csv")
    lines = ("ada,padding_mask,7,", "bob,padding_mask,44,Fine", "cyd,split_heads,39,")
    (root / "o.csv").write_text("\n".join(["student,exercise,points,comment", *lines]))
    assert run(root, *change).returncode == 0
    done = run(root, "grade", "day1")
    assert done.returncode == 0, done.stderr
    rows = read_csv(root, run)
    for student, points in (("ada", 73.5), ("bob", 84.0), ("cyd", 99.0)):
        assert sum(course.scores(student).values()) == points
        assert float(rows[student]["points"]) == points
    assert "formgrader): Which id is padding?" in rows["ada"]["by_hand"]
    assert course.comment("ada") == "Which id is padding?"
    assert "given by" in course.autograded("bob").read_text()
    scores = {student: float(row["score"]) for student, row in export(root).items()}
    assert scores == {"ada": 73.5, "bob": 84.0, "cyd": 99.0}


def test_nbgraders_export_is_rounded() -> None:
    line = "day1,2026-12-01 22:59:00.123456,x.1234,43.839999999999996,1e-05,0.30000000000000004\n"
    assert round_numbers(line) == "day1,2026-12-01 22:59:00.123456,x.1234,43.84,1e-05,0.3\n"


def test_an_override_without_effect_says_so() -> None:
    same = Override(3.0, "", "kim", "2026-11-28", graded=3.0)
    assert same.change() == "3 points, the same as without the override"
    assert replace(same, points=2.5).change() == "2.5 instead of 3 points"
    assert replace(same, points=None).change() == ""
