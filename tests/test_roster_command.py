"""Test that `autograder roster` joins the ids of several platforms, and compares names only where no id is shared."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest

from autograder.submissions import roster as rosters
from tests import downloads
from tests.downloads import HandIn
from tests.fake_grading import book, by_student, grade
from tests.small_course import make
from tests.test_store import run

CLASS = [
    HandIn(number, name, {"day1.ipynb": book(10 + number, f"# {number}")})
    for number, name in enumerate(("Ada Lovelace", "Zoë Ünal", "Wei Li", "Wei Li"))
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course")


def read(root: Path) -> list[dict[str, str]]:
    with (root / "roster.csv").open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def gradescope_roster() -> str:
    lines = ["First Name,Last Name,SID,Email,Role,Section"]
    for one in CLASS:
        first, _, last = one.name.rpartition(" ")
        lines.append(f"{first},{last},u{one.number},S{one.number}@example.org,Student,A")
    return "\n".join([*lines, "Tim,Teacher,,tim@example.org,TA,", ""])


def test_ids_of_four_platforms_belong_to_one_person(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "book.csv").write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,day1 (77)\n    Points Possible,,,,,100\n"
        + "".join(f'"{one.name}",{one.user},u{one.number},s{one.number},A,\n' for one in CLASS)
        + '"Student, Test",99,,,A,\n'
    )
    (root / "sheet.csv").write_text(downloads.worksheet(CLASS))
    (root / "scope.csv").write_text(gradescope_roster())
    database = sqlite3.connect(root / "gradebook.db")
    database.execute("CREATE TABLE student (id, first_name, last_name, email)")
    students = [(f"s{one.number}", "", "", None) for one in CLASS]
    database.executemany("INSERT INTO student VALUES (?, ?, ?, ?)", students)
    database.commit()
    database.close()
    options = ["--canvas", "book.csv", "--gradescope", "scope.csv", "--nbgrader", "gradebook.db"]
    code, out, err = run(
        root, monkeypatch, capsys, "roster", *options, "--moodle", "day1=sheet.csv"
    )
    assert (code, out) == (0, f"wrote 4 students to {root}/roster.csv\n")
    assert err == ""
    for one, row in zip(CLASS, read(root), strict=True):
        assert row["id"] == row["gradescope"] == f"u{one.number}"
        assert row["canvas"] == str(one.user)
        assert row["moodle_day1"] == str(one.participant)
        assert row["student"] == f"s{one.number}"
        assert row["email"].casefold() == f"s{one.number}@example.org"
        assert row["section"] == "A"
    wanted = {f"s{one.number}": 10 + one.number for one in CLASS}
    for name, data in ("canvas", downloads.canvas(CLASS)), ("moodle", downloads.moodle(CLASS)):
        (root / f"{name}.zip").write_bytes(data)
        assert by_student(grade(root, root / f"{name}.zip")) == wanted


def test_only_a_name_that_fits_one_person_is_joined(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "book.csv").write_text(downloads.gradebook(CLASS))
    sheet = downloads.worksheet(CLASS).replace("@example.org", "@other.example")
    (root / "sheet.csv").write_text(sheet)
    code, _, err = run(
        root, monkeypatch, capsys, "roster", "--canvas", "book.csv", "--moodle", "day1=sheet.csv"
    )
    assert code == 0
    assert err.count("joined by name: ") == 2
    assert "joined by name: Ada Lovelace (canvas 2001" in err
    assert err.count("not joined, because several people have the same name: Wei Li") == 1
    assert "Wei Li (moodle_day1 42003, email s2@other.example)" in err
    rows = read(root)
    assert len(rows) == 6
    assert [row["moodle_day1"] for row in rows if row["canvas"]] == ["42001", "42002", "", ""]
    assert len(rosters.for_course(root).entries) == 6


def test_an_existing_roster_keeps_its_rows_and_columns(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "roster.csv").write_text(
        "id,student,name,extension,pronouns\ns0,ada,Ada,24,she\nx,eve,Eve,,\n"
    )
    (root / "book.csv").write_text(downloads.gradebook(CLASS[:1]))
    assert run(root, monkeypatch, capsys, "roster", "--canvas", "book.csv")[0] == 0
    first, second = read(root)
    assert (first["student"], first["canvas"], first["extension"]) == ("ada", "2001", "24")
    assert (second["student"], first["pronouns"]) == ("eve", "she")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "pass at least one of"),
        (["--canvas", "sheet.csv"], "sheet.csv is not a Canvas gradebook"),
        (["--moodle", "sheet.csv"], "write DAY=FILE, such as day1=sheet.csv"),
        (["--moodle", "day9=sheet.csv"], "day9"),
        (["--nbgrader", "sheet.csv"], "sheet.csv is not nbgrader's gradebook"),
        (["--gradescope", "nothing.csv"], "nothing.csv cannot be read"),
    ],
)
def test_wrong_input_changes_nothing(
    root: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "sheet.csv").write_text(downloads.worksheet(CLASS))
    code, _, err = run(root, monkeypatch, capsys, "roster", *options)
    assert code == 2
    assert message in err
    assert not (root / "roster.csv").exists()
