"""Test that each student has one current submission, that only newer submissions replace it, and that no student is lost."""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import tzset

import pytest
from msgspec.structs import replace
from rich.console import Console

from autograder.cli import main
from autograder.course import config as courses
from autograder.feedback import terminal_table
from autograder.grading_commands import print_summary
from autograder.marks.class_list import StudentResult
from autograder.marks.history import History
from autograder.marks.overrides import OverrideStore, read_stored
from autograder.submissions.roster import Entry
from tests.fake_grading import book, by_student, current, grade, session, use_fake_pool
from tests.material import unread
from tests.small_course import make
from tests.test_submission import write, zipped

CANVAS = "{name}_{user}_{upload}_day1.ipynb"
DAY = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course")


def canvas(place: Path, *students: tuple[str, int, int, float]) -> Path:
    """Write a Canvas download. Each student is a tuple: name, user id, file number and points."""
    files = {
        CANVAS.format(name=name, user=user, upload=upload): book(points, f"# {user}")
        for name, user, upload, points in students
    }
    place.write_bytes(zipped(files))
    return place


# ---- the current submission


def test_a_newer_download_replaces_its_students_and_keeps_the_others(root: Path) -> None:
    first = canvas(root / "a.zip", ("ada", 11, 50001, 10), ("bob", 12, 50002, 20))
    other_section = canvas(root / "b.zip", ("cyd", 13, 50003, 30))
    second = canvas(root / "c.zip", ("ada", 11, 60001, 40))
    grade(root, first)
    grade(root, other_section)
    graded = grade(root, second)
    assert current(root) == {"ada (11)": 40, "bob (12)": 20, "cyd (13)": 30}
    assert [(r.key, r.before.points, r.is_older) for r in graded.replacements] == [
        ("canvas 11", 10, False)
    ]
    assert grade(root, second).replacements == []


def test_an_older_download_never_replaces_a_newer_one(root: Path) -> None:
    newer = canvas(root / "new.zip", ("ada", 11, 60001, 40))
    older = canvas(root / "old.zip", ("ada", 11, 50001, 10), ("bob", 12, 50002, 20))
    grade(root, newer)
    for force in (False, True):
        graded = grade(root, older, force=force)
        assert [(r.key, r.is_older) for r in graded.replacements] == [("canvas 11", True)]
        assert current(root) == {"ada (11)": 40, "bob (12)": 20}


def test_times_of_submission_decide_in_nbgraders_folders(root: Path) -> None:
    def submit(folder: str, hours: int, points: float) -> Path:
        time = str(DAY + timedelta(hours=hours)).encode()
        files = {"day1.ipynb": book(points), "timestamp.txt": time}
        write(root / folder / "submitted/ada/day1", files)
        return root / folder / "submitted"

    grade(root, submit("b", 5, 50))
    grade(root, submit("a", 1, 10))
    assert current(root) == {"ada": 50}
    grade(root, submit("c", 6, 20))
    assert current(root) == {"ada": 20}


def test_without_times_the_submission_that_was_graded_last_counts(root: Path) -> None:
    name = "Ada_51_assignsubmission_file/day1.ipynb"
    for number, points in enumerate((50, 20)):
        (root / f"{number}.zip").write_bytes(zipped({name: book(points)}))
        grade(root, root / f"{number}.zip")
    assert current(root) == {"Ada (51)": 20}


def test_a_newer_submission_that_cannot_be_read_replaces_the_marks(root: Path) -> None:
    grade(root, canvas(root / "a.zip", ("ada", 11, 50001, 10)))
    (root / "b.zip").write_bytes(zipped({"ada_11_60000_report.docx": b"x"}))
    graded = grade(root, root / "b.zip")
    # Canvas numbers every file, so the submission without a notebook has a number as well.
    assert current(root) == {"ada (11)": None}
    assert [one.before.points for one in graded.replacements] == [10]


def test_students_with_the_same_name_are_separate(root: Path) -> None:
    graded = grade(root, canvas(root / "a.zip", ("li", 11, 50001, 10), ("li", 12, 50002, 20)))
    assert current(root) == by_student(graded) == {"li (11)": 10, "li (12)": 20}


def gradescope(folder: Path, *submissions: tuple[int, str, list[str], float]) -> Path:
    """Write a Gradescope export. Each submission is a tuple: number, time of day, student names and points."""
    metadata = ""
    for number, time, names, points in submissions:
        people = "".join(f"  - :name: {n}\n    :sid: '{n}1'\n    :email: ''\n" for n in names)
        when = f"  :created_at: 2026-12-01 {time}:00 Z\n"
        metadata += f"submission_{number}:\n  :submitters:\n{people}{when}"
        write(folder / f"submission_{number}", {"day1.ipynb": book(points)})
    write(folder, {"submission_metadata.yml": metadata.encode()})
    return folder


def test_a_member_who_submits_alone_later_leaves_the_marks_of_the_group(root: Path) -> None:
    grade(root, gradescope(root / "a", (1, "10:00", ["ada", "bob"], 10)))
    assert current(root) == {"ada (ada1)": 10, "bob (bob1)": 10}
    grade(root, gradescope(root / "b", (2, "12:00", ["ada"], 50)))
    assert current(root) == {"ada (ada1)": 50, "bob (bob1)": 10}
    grade(root, gradescope(root / "c", (3, "11:00", ["ada", "bob", "cyd"], 30)))
    assert current(root) == {"ada (ada1)": 50, "bob (bob1)": 30, "cyd (cyd1)": 30}
    with session(root) as opened:
        regraded = opened.regrade(is_current=True)
        assert (len(regraded.changes), regraded.gone) == (2, [])
    assert current(root) == {"ada (ada1)": 50, "bob (bob1)": 30, "cyd (cyd1)": 30}


def test_a_roster_that_is_added_later_renames_the_students_in_the_store(root: Path) -> None:
    grade(root, canvas(root / "a.zip", ("adal", 11, 50001, 10), ("bob", 12, 50002, 20)))
    (root / "roster.csv").write_text("id,student,name\n11,ada,Ada L\n", encoding="utf-8")
    graded = grade(root, canvas(root / "b.zip", ("adal", 11, 60001, 40)))
    assert [one.key for one in graded.replacements] == ["canvas 11"]
    assert current(root) == {"ada": 40, "bob (12)": 20}
    (root / "roster.csv").unlink()
    grade(root, root / "b.zip")
    assert current(root) == {"adal (11)": 40, "bob (12)": 20}


# ---- notes for the TA


def test_marks_made_with_a_seed_never_become_current(root: Path) -> None:
    first = canvas(root / "a.zip", ("ada", 11, 50001, 10))
    assert by_student(grade(root, first, seed="ab12")) == {"ada (11)": 10}
    assert current(root) == {}


def test_on_a_first_run_no_submission_counts_as_unchanged(root: Path) -> None:
    files = {"ada.ipynb": book(10), "bob.ipynb": book(10), "cyd.ipynb": book(20)}
    write(root / "in", files)
    first = grade(root, root / "in")
    assert (first.reused, first.identical) == (0, [["ada", "bob"]])
    assert grade(root, root / "in").reused == 3


def test_students_with_the_same_name_and_code_are_listed_with_their_ids(root: Path) -> None:
    for user in (11, 12):
        grade(root, written(root / f"{user}.zip", {f"li_{user}_500{user}_day1.ipynb": book(10)}))
    assert grade(root, root / "11.zip").identical == [["li (11)", "li (12)"]]


def test_an_older_submission_is_reported_with_the_points_after_overrides(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_pool(monkeypatch)
    canvas(root / "new.zip", ("ada", 11, 60001, 40))
    canvas(root / "old.zip", ("ada", 11, 50001, 10))
    assert run(root, monkeypatch, capsys, "grade", "day1", "new.zip")[0] == 0
    override = ("override", "day1", "ada", "padding_mask", "--points", "41")
    assert run(root, monkeypatch, capsys, *override)[0] == 0
    code, _, err = run(root, monkeypatch, capsys, "grade", "day1", "old.zip", "--all-notes")
    assert code == 0
    assert "which still counts (41 points)" in err


def test_identical_code_is_found_across_runs_but_not_in_a_group(root: Path) -> None:
    write(root, {"a/ada.ipynb": book(10), "b/bob.ipynb": book(10, "\n\n# a comment")})
    write(root, {"c/cyd.ipynb": book(0), "c/dan.ipynb": book(0), "c/eve.ipynb": book(10, "x = 1")})
    grade(root, root / "a")
    assert grade(root, root / "b").identical == [["ada", "bob"]]
    assert grade(root, root / "c").identical == [["ada", "bob"]]
    text = "id,student,name,group\n1,ada,Ada,G\n2,bob,Bob,G\n"
    (root / "roster.csv").write_text(text, encoding="utf-8")
    assert grade(root, root / "b").identical == []


def test_a_folder_that_was_looked_through_is_noted_once(root: Path) -> None:
    write(root, {"in/x/ada/a.ipynb": book(1), "in/x/bob/b.ipynb": book(2)})
    graded = grade(root, root / "in")
    assert by_student(graded) == {"ada": 1, "bob": 2}
    assert graded.notes == [
        f"{root}/in/x/ was searched: each file or folder in it counts as one student's submission"
    ]


def test_one_submission_counts_for_every_member_of_a_group(root: Path) -> None:
    text = "id,student,name,group\n11,ada,Ada,G\n12,bob,Bob,G\n13,cyd,Cyd,G\n14,dan,Dan,\n"
    (root / "roster.csv").write_text(text, encoding="utf-8")
    class_ = canvas(root / "a.zip", ("ada", 11, 50001, 40), ("bob", 12, 50002, 20))
    graded = grade(root, class_)
    assert by_student(graded) == {"ada": 20, "bob": 20, "cyd": 20}
    assert by_student(grade(root, class_, group="best")) == {"ada": 40, "bob": 40, "cyd": 40}


def test_a_notebook_of_another_day_cannot_be_graded(root: Path) -> None:
    with (root / "grading.toml").open("a") as toml:
        toml.write('[day2]\ntitle = "B"\n[day2.exercises.patchify]\nchapter = "c"\npoints = 100\n')
    other = (
        b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": "def patchify(x):\\n  pass"}]}'
    )
    write(root / "in", {"ada/work.ipynb": other, "bob/day1.ipynb": book(10)})
    write(root / "in", {"cyd/day2.ipynb": b'{"cells": [{"cell_type": "code", "source": "x = 1"}]}'})
    graded = grade(root, root / "in")
    assert by_student(graded) == {"ada": None, "bob": 10, "cyd": None}
    assert {problem for marks in graded.ungraded for problem in marks.problems} == {
        "this is the notebook for day2, not for day1"
    }


# ---- the command line


def run(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> tuple[int, str, str]:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["autograder", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out, shown.err


def test_the_line_below_the_table_shows_as_many_problems_as_fit(root: Path) -> None:
    grade(root, written(root / "a.zip", {"ada_11_50001_day1.ipynb": book(10)}))
    with History(root) as history:
        (marks,) = history.current("day1")
    shown: list[str] = []
    for problems in (["a" * 50, "b" * 50], ["a" * 50, "b" * 350, "c"], ["a" * 500]):
        row = StudentResult(Entry("", "ada", ""), replace(marks, problems=problems))
        shown += terminal_table.problem_lines([row])
    expected = ["a" * 50 + "; " + "b" * 50, "a" * 50 + " (+2 more)", "a" * 400]
    assert shown == [f"ada: {problems}" for problems in expected]


def test_list_shows_who_is_excused_or_has_an_extension(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = root / "grading.toml"
    late = "[day1.late]\ndue = 2026-11-01T00:00:00Z\npercent_per_day = 10\n"
    toml.write_text(toml.read_text() + late)
    (root / "roster.csv").write_text("id,student,name,excused\nada1,ada,ada,yes\n")
    grade(root, gradescope(root / "a", (1, "10:00", ["ada"], 10)))
    _, out, _ = run(root, monkeypatch, capsys, "list", "day1")
    assert " excused " in out.splitlines()[1]
    (root / "roster.csv").write_text("id,student,name,extension_day1\nada1,ada,ada,2000\n")
    _, out, _ = run(root, monkeypatch, capsys, "list", "day1")
    assert " extension " in out.splitlines()[1]


def test_the_list_says_in_which_time_zone_the_times_are(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(zone: str) -> list[str]:
        monkeypatch.setenv("TZ", zone)
        tzset()
        return run(root, monkeypatch, capsys, "list", "day1")[1].splitlines()

    grade(root, gradescope(root / "a", (1, "10:00", ["ada"], 10), (2, "11:00", ["bob"], 50)))
    try:
        head, first, _ = shown("America/New_York")
        assert "submitted (UTC−05:00)" in head
        assert "2026-12-01 05:00 " in first
        head, first, _ = shown("UTC")
        assert "submitted (UTC)" in head
        assert "2026-12-01 10:00 " in first
        # Between the two times, the clocks of this time zone go forward.
        head, *lines = shown("XXX1YYY,334/9:30,360")
        assert "(UTC" not in head
        assert "2026-12-01 09:00 UTC−01:00 " in lines[0]
        assert "2026-12-01 11:00 UTC " in lines[1]
    finally:
        monkeypatch.undo()
        tzset()


def test_progress_outside_a_terminal_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80)
    graded = [unread(), unread()]
    assert list(terminal_table.progress(graded, console)) == graded
    assert shown.getvalue() == ""
    monkeypatch.setattr(terminal_table, "INTERVAL", 0.0)
    list(terminal_table.progress(graded, console))
    lines = "autograder: 1 submission graded so far\nautograder: 2 submissions graded so far\n"
    assert shown.getvalue() == lines


def test_list_and_forget(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = gradescope(root / "a", (1, "10:00", ["ada", "bob"], 10), (2, "11:00", ["cyd"], 50))
    grade(root, metadata)
    code, out, _ = run(root, monkeypatch, capsys, "list", "day1")
    head, *lines = out.splitlines()
    columns = ["student", "submitted", "final", "points", "late", "file"]
    assert (code, re.sub(r" \(UTC.*?\)", "", head).split()) == (0, columns)
    assert [line.split()[:2] for line in lines] == [
        ["ada", "(ada1)"],
        ["bob", "(bob1)"],
        ["cyd", "(cyd1)"],
    ]
    assert lines[0].rstrip().endswith(f"{root}/a/submission_1/day1.ipynb")
    assert "2026-12-01" in lines[0]
    code, out, _ = run(root, monkeypatch, capsys, "forget", "day1", "ada1")
    assert (code, out) == (0, "ada (ada1): the marks for day1 were deleted\n")
    assert current(root) == {"bob (bob1)": 10, "cyd (cyd1)": 50}
    code, _, err = run(root, monkeypatch, capsys, "forget", "day1", "cid")
    assert (code, current(root)) == (2, {"bob (bob1)": 10, "cyd (cyd1)": 50})
    assert "the closest name is cyd" in err
    run(root, monkeypatch, capsys, "forget", "day1", "cyd")
    run(root, monkeypatch, capsys, "forget", "day1", "bob")
    code, _, err = run(root, monkeypatch, capsys, "list", "day1")
    assert code == 2
    assert "there are no marks for day1" in err


USAGE = {
    "a missing file": (["grade", "day1", "nothere.zip"], "no file or folder 'nothere.zip'"),
    "a gradebook": (["grade", "day1", "gradebook.csv"], "'gradebook.csv' is not a notebook"),
    "an empty folder": (["grade", "day1", "empty"], "the folder 'empty' is empty"),
    "no day": (["grade", "in/a.zip"], "the day is missing before 'in/a.zip'"),
    "a seed that is not hexadecimal": (
        ["grade", "day1", "empty", "--seed", "xyz"],
        "'xyz' is not a hexadecimal number",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE)
def test_a_wrong_path_is_a_usage_error_and_creates_no_student(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (root / "empty").mkdir()
    (root / "gradebook.csv").write_text("Student,ID\n")
    code, out, err = run(root, monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (root / ".autograder" / "marks.db").exists()


def test_the_bare_command_prints_help_and_the_version_is_an_option(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(root, monkeypatch, capsys)
    assert (code, out.split()[:2]) == (0, ["Usage:", "autograder"])
    code, out, _ = run(root, monkeypatch, capsys, "--version")
    assert (code, out.split()[0]) == (0, "autograder")
    monkeypatch.setenv("_AUTOGRADER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "autograder list d")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run(root, monkeypatch, capsys)[1].split() == ["day1"]


def test_a_byte_order_mark_in_grading_toml_is_ignored(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = root / "grading.toml"
    toml.write_text("\ufeff" + toml.read_text(), encoding="utf-8")
    code, _, err = run(root, monkeypatch, capsys, "list", "day1")
    assert (code, "no marks for day1" in err) == (2, True)


def test_each_problem_is_printed_once_and_the_summary_counts_problems(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"ada_11_50001_day1.ipynb": book(10), "bob_LATE_12_50002_a.docx": b"x"}
    files |= {"cyd_13_50003_a.ipynb": book(0), "cyd_13_50004_b.ipynb": book(20)}
    graded = grade(root, written(root / "a.zip", files))
    print_summary(graded, None)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == (
        "2 submissions graded, 1 of them with problems, 1 could not be graded"
    )
    assert shown.err.count("\n") == 1
    assert "bob (12) could not be graded: " in shown.err
    assert "Ask the student for this day's notebook" in shown.err


def test_the_summary_of_one_submission_is_in_the_singular(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"cyd_13_50003_a.ipynb": book(0), "cyd_13_50004_b.ipynb": book(20)}
    for _ in range(2):
        print_summary(grade(root, written(root / "a.zip", files)), None)
    first, *again = capsys.readouterr().out.splitlines()
    assert first == "1 submission graded, with problems"
    assert again == [
        "1 of 1 submission has not changed since it was graded; --force grades it again",
        first,
    ]


def test_a_name_is_never_compared_with_the_roster(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "id,student,name\n1001,ada,Ada L\n1002,bob,Bob\n"
    (root / "roster.csv").write_text(text, encoding="utf-8")
    for number, points, name in ((11, 90, "Ada L"), (12, 80, "ada"), (13, 0, "Ada L")):
        folder = f"{name}_{number}_assignsubmission_file"
        write(root / "class" / folder, {"day1.ipynb": book(points)})
    wanted = {"Ada L (11)": 90, "ada (12)": 80, "Ada L (13)": 0}
    for _ in range(2):
        graded = grade(root, root / "class")
        assert graded.replacements == []
        assert current(root) == wanted
        assert by_student(graded) == wanted
    code, _, err = run(root, monkeypatch, capsys, "forget", "day1", "Ada L")
    assert code == 2
    assert "several students match 'Ada L' (2): Ada L (11), Ada L (13). Use an id" in err
    (root / "roster.csv").write_text(text.replace("1001", "11"), encoding="utf-8")
    graded = grade(root, root / "class")
    wanted = {"ada": 90, "ada (12)": 80, "Ada L (13)": 0}
    assert current(root) == wanted
    assert by_student(graded) == wanted
    assert run(root, monkeypatch, capsys, "forget", "day1", "Ada L (13)")[0] == 0
    assert run(root, monkeypatch, capsys, "forget", "day1", "12")[0] == 0
    assert current(root) == {"ada": 90}


def test_people_are_students_of_their_platform(root: Path) -> None:
    """Without a roster, the same number on two platforms belongs to two students."""
    grade(root, canvas(root / "a.zip", ("ada", 11, 50001, 10)))
    write(root / "b" / "Ada_11_assignsubmission_file", {"day1.ipynb": book(20)})
    grade(root, root / "b")
    write(root / "c" / "11", {"day1.ipynb": book(30)})
    grade(root, root / "c")
    assert current(root) == {"ada (11)": 10, "Ada (11)": 20, "11": 30}
    text = "id,student,name,canvas,moodle_day1\n1,ada,Ada L,11,11\n"
    (root / "roster.csv").write_text(text, encoding="utf-8")
    graded = grade(root, root / "a.zip", root / "b", root / "c")
    assert by_student(graded) == {"ada": 20, "11": 30}


def test_a_store_of_an_older_version_gets_keys(root: Path) -> None:
    """The store comes from version 2: names of the roster (ada, dan) and labels identify students."""
    folder = root / ".autograder"
    folder.mkdir(exist_ok=True)
    for name in ("marks", "overrides"):
        script = (Path(__file__).parent / f"old_store_{name}.sql").read_text(encoding="utf-8")
        with contextlib.closing(sqlite3.connect(folder / f"{name}.db")) as database:
            database.executescript(script)
    with History(root) as history:
        keys = {key: one.points for one in history.current("day1") for key in one.origin.keys}
        assert history.keys("day1") == keys.keys()
    assert keys == {
        "canvas 11": 40,
        "canvas 12": 20,
        "moodle 42003": 30,
        "gradescope s1": 50,
        "gradescope s2": 50,
        "folder dan": 60,
        "folder eve": 10,
    }
    with OverrideStore(root) as store:
        found = {one.key: one.override.points for one in store.read("day1")}
    assert found == {"canvas 11": 44, "moodle 42003": 33, "folder eve": 11}
    day = courses.load(root).day("day1")
    assert read_stored(day).unmatched([]) != []
    with History(root) as history:
        class_ = [read_stored(day).apply(one) for one in history.current("day1")]
    points = {key: one.points for one in class_ for key in one.origin.keys}
    assert points == keys | found


def test_an_id_on_the_roster_counts_for_more_than_a_name(root: Path) -> None:
    (root / "roster.csv").write_text("id,student,name\n11,ada,Ada L\n", encoding="utf-8")
    class_ = canvas(root / "a.zip", ("lada", 11, 50001, 90), ("lada", 12, 50002, 0))
    graded = grade(root, class_)
    assert by_student(graded) == {"ada": 90, "lada (12)": 0}
    assert current(root) == {"ada": 90, "lada (12)": 0}


MARKUP = (
    "[mallory]",
    "[conceal]bob",
    "[link=https://x.example]cyd",
    "[/x]",
    ":snake:",
    "eve\x1b[2J\u202e",
)


def test_names_that_look_like_markup_are_printed_unchanged_after_the_files_are_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in MARKUP:
        for at, points in (("old", 10), ("new", 20)):
            (root / at).mkdir(exist_ok=True)
            write(root / at / name.replace("/", "|"), {"day1.ipynb": book(points, at)})
    grade(root, root / "old")
    monkeypatch.setattr("autograder.grading.open_session.open_session", lambda *_: session(root))
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    code, out, err = run(
        root, monkeypatch, capsys, "grade", "day1", "new", "--json", "marks.json", "--feedback", "f"
    )
    assert code == 0, err
    assert "resubmitted (6)" in out
    assert "identical code" in out
    text = "".join(out.split("\n"))
    for name in MARKUP[:-1]:
        assert text.count(name.replace("/", "|")) >= 3, name
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "\x1b]8;" not in out
    assert len(list((root / "f").glob("*.html"))) == len(MARKUP)

    monkeypatch.setattr("autograder.feedback.terminal_table.table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(root, monkeypatch, capsys, "grade", "day1", "new", "--json", "again.json")
    assert (root / "again.json").read_bytes() == (root / "marks.json").read_bytes()


def written(file: Path, files: dict[str, bytes]) -> Path:
    file.write_bytes(zipped(files))
    return file
