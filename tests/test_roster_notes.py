"""Test that a partial or incorrect roster never changes a mark silently: the TA gets exactly one note about the problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.marks.class_list import lateness_of_each
from autograder.marks.class_notes import NEW_ROSTER
from autograder.submissions import roster as rosters
from tests import downloads
from tests.fake_grading import book, by_student, current, grade
from tests.small_course import make
from tests.test_store import canvas, run

LATE = "\n[late]\npercent_per_day = 10\n[day1.late]\ndue = 2026-12-01T23:59:00+01:00\n"
HANA = ("novakhana_LATE", 2014, 50014, 40)
OTHERS = [(f"other{n}", 2020 + n, 50020 + n, 10) for n in range(14)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course", LATE)


def with_roster(root: Path, *rows: str) -> None:
    text = "\n".join(["id,student,name,extension", *rows, ""])
    (root / "roster.csv").write_text(text, encoding="utf-8")


def test_a_row_for_one_student_gives_an_extension_and_no_other_notes(root: Path) -> None:
    with_roster(root, "2014,novakhana,,24")
    graded = grade(root, canvas(root / "a.zip", HANA, *OTHERS))
    (points,) = [one.points for one in graded.rows if "canvas 2014" in one.keys]
    assert points == 40
    old, note = graded.notes
    assert old == NEW_ROSTER
    assert "counted as on time" in note
    assert len(graded.rows) == 15


def test_a_roster_with_platform_ids_is_not_called_old(root: Path) -> None:
    text = "id,student,name,canvas,extension\n12345,hana,Hana,2014,24\n"
    (root / "roster.csv").write_text(text, encoding="utf-8")
    graded = grade(root, canvas(root / "a.zip", HANA, *OTHERS))
    (note,) = graded.notes
    assert "counted as on time" in note
    assert by_student(graded)["hana"] == 40


def test_a_row_that_matches_no_submission_is_reported_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_roster(root, ",Hanna Novak,,24", "1,ada,Ada,")
    wanted = (
        "these roster rows set extension, late_hours or excused, but match no submission (1): "
        "Hanna Novak. "
    )
    graded = grade(root, canvas(root / "a.zip", *OTHERS, HANA))
    assert by_student(graded)["novakhana (2014)"] == 36
    assert graded.notes[0].startswith(wanted)
    assert graded.notes[1:] == [
        NEW_ROSTER,
        "these students on the roster have no submission (1): ada (Ada, 1)",
        "novakhana (2014): marked late, but the time is unknown; counted as one day late. If it arrived later, "
        "set late_hours in roster.csv to the number of hours after the due date",
    ]
    for command in (["list"], ["export", "--to", "csv", "--out", "x.csv"], ["feedback"]):
        code, _, err = run(root, monkeypatch, capsys, command[0], "day1", *command[1:])
        assert code == 0
        assert f"Decide:\n  {wanted}" in err
    with_roster(root, "2014,novakhana,Hana Novak,24", "1,ada,Ada,")
    assert (
        "--all-notes also prints 1 earlier decision"
        in run(root, monkeypatch, capsys, "list", "day1")[2]
    )
    shown = run(root, monkeypatch, capsys, "list", "day1", "--all-notes")[2]
    assert shown == f"Decide:\n  {NEW_ROSTER}\n"


def test_an_id_decides_which_of_two_namesakes_is_on_the_roster(root: Path) -> None:
    class_ = canvas(root / "a.zip", ("weili", 2002, 50002, 10), ("weili", 2003, 50003, 20))
    with_roster(root, "2003,weili,Wei Li,24")
    graded = grade(root, class_)
    assert by_student(graded) == {"weili": 20, "weili (2002)": 10}
    assert graded.notes == [
        NEW_ROSTER,
        "these students are not on the roster (1): weili (2002)",
    ]
    with_roster(root, ",weili,Wei Li,24")
    assert by_student(grade(root, class_)) == {"weili (2002)": 10, "weili (2003)": 20}


def test_files_with_the_same_id_but_different_names_are_reported(root: Path) -> None:
    with_roster(root, "2003,anna,Anna Smith,", *(f"{one[1]},{one[0]},," for one in OTHERS))
    files = [("smithanna", 2003, 50002, 10), ("jonesbob", 2003, 50003, 20)]
    graded = grade(root, canvas(root / "a.zip", *files, *OTHERS))
    assert by_student(graded)["anna"] == 20
    (note,) = graded.notes
    assert "anna has 2 submissions; " in note
    assert "Their names in Canvas differ: jonesbob, smithanna." in note


def test_students_whose_marks_are_in_the_store_are_not_missing(root: Path) -> None:
    with_roster(root, "2014,novakhana,,24", "2015,ada,,", "2016,bob,,24")
    grade(root, canvas(root / "a.zip", HANA, *OTHERS))
    graded = grade(root, canvas(root / "b.zip", ("ada", 2015, 50015, 50)))
    (note,) = graded.notes
    assert "(1): bob (2016). " in note
    assert current(root)["novakhana (2014)"] == 40


def test_students_who_are_not_on_the_roster_are_listed_in_one_line(root: Path) -> None:
    students = [f"{one[1]},{one[0]},," for one in OTHERS]
    with_roster(root, *students, "3,cyd,Cyd Charisse,")
    extra = [(f"x{n}", 3000 + n, 60000 + n, 5) for n in range(12)]
    graded = grade(root, canvas(root / "a.zip", *OTHERS, *extra, ("cydcharise", 77, 70000, 5)))
    _, strangers, absent = graded.notes
    assert strangers.startswith(
        "these students are not on the roster (13): cydcharise (77), x0 (3000), "
    )
    assert strangers.endswith(", …")
    assert absent == "these students on the roster have no submission (1): cyd (Cyd Charisse, 3)"


# ---- participant numbers in Moodle


def moodle_download(place: Path, *students: tuple[int, str, float]) -> Path:
    """Write a Moodle download. Each student is a tuple: number (added to 42001), name and points. All submit a day late."""
    class_ = [
        downloads.HandIn(number, name, {"day1.ipynb": book(points, f"# {number}")}, points, 20)
        for number, name, points in students
    ]
    place.write_bytes(downloads.moodle(class_))
    return place


WEI = [(2, "Wei Chen", 30), (3, "Wei Chen", 40)]


def test_a_participant_number_decides_which_namesake_is_on_the_roster(root: Path) -> None:
    class_ = moodle_download(root / "a.zip", *WEI)
    with_roster(root, "42004,w2,Wei Chen,24", "42003,w1,Wei Chen,24")
    graded = grade(root, class_)
    assert by_student(graded) == {"w2": 40, "w1": 30}
    assert graded.identical == []
    (unknown_times,) = graded.notes
    assert "times are unknown (2): w2, w1" in unknown_times


def test_a_participant_number_counts_only_for_its_day(root: Path) -> None:
    class_ = moodle_download(root / "a.zip", *WEI)
    for column, wanted in ("moodle_day1", {"w1": 30}), ("moodle", {"w1": 30}), ("canvas", {}):
        text = f"id,student,name,{column}\n1,w1,Wei Chen,42003\n"
        (root / "roster.csv").write_text(text, encoding="utf-8")
        assert by_student(grade(root, class_)) == {
            "Wei Chen (42004)": 40,
            **(wanted or {"Wei Chen (42003)": 30}),
        }


@pytest.mark.parametrize("row", ["42003,w1,Wei Chen,20", "42005,w1,Wei Chen,20"])
def test_the_report_and_explain_do_not_apply_a_row_to_a_namesake(
    root: Path, row: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "roster.csv").write_text(f"id,student,name,late_hours_day1\n{row}\n")
    graded = grade(root, moodle_download(root / "a.zip", *WEI))
    late = {row.entry.student: row.late.days for row in graded.rows}
    day = courses.load(root).day("day1")
    each = lateness_of_each(graded.submissions, day, rosters.for_course(root))
    assert [one.days for one in each] == list(late.values())
    assert late["Wei Chen (42004)"] == 0
    code, out, _ = run(root, monkeypatch, capsys, "explain", "day1", "42004")
    assert code == 0
    assert "late" not in out


@pytest.mark.parametrize("row", ["42003,w1,Wei Chen,24", "42004,w1,Wei Chen,24"])
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("is_one_run", [True, False])
def test_a_later_download_does_not_merge_people_with_different_numbers(
    root: Path, row: str, number: int, is_one_run: bool
) -> None:
    with_roster(root, row)
    first = moodle_download(root / "a.zip", *WEI)
    second = moodle_download(root / "b.zip", (number, "Wei Chen", 50))
    on_roster = int(row[:5]) - 42001
    names = {n: "w1" if n == on_roster else f"Wei Chen ({42001 + n})" for n in (2, 3)}
    wanted = {names[2]: 30, names[3]: 40} | {names[number]: 50}
    if is_one_run:
        graded = grade(root, first, second)
        assert by_student(graded) == wanted
    else:
        grade(root, first)
        graded = grade(root, second)
        assert by_student(graded).get(names[number]) == 50
    assert graded.identical == []
    assert current(root) == wanted


def test_an_extension_may_apply_to_one_day(root: Path) -> None:
    class_ = moodle_download(root / "a.zip", (5, "Ada Lovelace", 40))
    file = root / "roster.csv"
    file.write_text("id,student,name,late_hours,extension_day1\n42006,ada,Ada Lovelace,20,24\n")
    assert by_student(grade(root, class_)) == {"ada": 40}
    entry = rosters.load(file).entries[0]
    assert (entry.extension_on("DAY1"), entry.extension_on("day2")) == (24, 0)
    for column in ("extension_hours", "late_hours_day7", "excused_days"):
        file.write_text(f"id,student,name,{column}\n,ada,Ada Lovelace,1\n")
        with pytest.raises(CourseError, match="but the days of the course are day1"):
            grade(root, class_)


def test_exports_name_students_who_attempted_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grade(root, canvas(root / "a.zip", ("ada", 11, 50001, 0), ("bob", 12, 50002, 20)))
    _, _, err = run(root, monkeypatch, capsys, "export", "day1", "--to", "csv", "--out", "x.csv")
    assert "these students get 0 points because they attempted no exercises (1): ada (11). " in err


# ---- groups on the roster

GROUP = "id,student,name,group,late_hours_day1\n2014,hana,Hana Novak,3,{}\n77,bob,Bob Byron,3,{}\n"


def test_a_member_who_submitted_nothing_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "roster.csv").write_text(GROUP.format("", ""))
    grade(root, canvas(root / "a.zip", ("novakhana", 2014, 50014, 40)))
    for who in ("bob", "77", "Byron, Bob"):
        code, out, err = run(root, monkeypatch, capsys, "explain", "day1", who)
        assert (code, "40 of 100" in out) == (0, True), err
    override = ("override", "day1", "bob", "padding_mask")
    assert run(root, monkeypatch, capsys, *override, "--points", "50")[0] == 0
    code, out, _ = run(root, monkeypatch, capsys, "list", "day1")
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["50", "50"]
    assert run(root, monkeypatch, capsys, *override, "--remove")[0] == 0
    code, out, err = run(root, monkeypatch, capsys, "forget", "day1", "bob")
    assert (code, out) == (2, "")
    assert (
        "bob submitted nothing for day1, and gets the marks of hana. `autograder forget day1" in err
    )
    assert current(root) == {"hana": 40}
    assert run(root, monkeypatch, capsys, "forget", "day1", "hana")[0] == 0
    assert current(root) == {}


def test_the_submission_that_counts_is_found_for_a_member(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "roster.csv").write_text(GROUP.format("", "") + "2015,eve,Eve Xu,3,\n")
    class_ = ("novakhana", 2014, 50014, 40), ("xueve", 2015, 50015, 30)
    grade(root, canvas(root / "a.zip", *class_))
    override = ("override", "day1", "bob", "padding_mask", "--points", "35")
    code, out, err = run(root, monkeypatch, capsys, *override)
    assert code == 0, err
    assert out.startswith("eve: padding_mask 35 instead of 30 points")
    code, out, _ = run(root, monkeypatch, capsys, "explain", "day1", "bob")
    assert (code, "35 of 100" in out, "40 of 100" in out) == (0, True, False)


@pytest.mark.parametrize("hours", [("30", ""), ("", "30"), ("30", "30")])
def test_late_hours_of_one_member_count_for_the_whole_group(
    root: Path,
    hours: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "roster.csv").write_text(GROUP.format(*hours))
    graded = grade(root, canvas(root / "a.zip", ("novakhana", 2014, 50014, 40)))
    assert by_student(graded) == {"hana": 32, "bob": 32}
    assert not any("times are unknown" in note for note in graded.notes)
    code, out, _ = run(root, monkeypatch, capsys, "explain", "day1", "hana")
    assert code == 0
    assert "2 days late (−20%): 32 points" in out


def test_different_late_hours_in_a_group_are_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "roster.csv").write_text(GROUP.format("", ""))
    grade(root, canvas(root / "a.zip", ("novakhana", 2014, 50014, 40)))
    (root / "roster.csv").write_text(GROUP.format("5", "30"))
    code, out, err = run(root, monkeypatch, capsys, "list", "day1")
    assert (code, out) == (2, "")
    assert (
        "a.zip/novakhana_2014_50014_day1.ipynb: 5 for hana (Hana Novak, 2014), 30 for bob (Bob Byron, 77)"
        in err
    )
