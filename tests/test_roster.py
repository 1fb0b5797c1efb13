"""Test that rosters from any spreadsheet program can be read, that errors give the line, and that students are never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.course.config import CourseError
from autograder.submissions import roster as rosters
from autograder.submissions.origin import Origin, Person, from_folder
from autograder.submissions.roster import NO_ROSTER, Entry, Roster
from autograder.submissions.submission import Submission, apply_roster

TEXT = """\
id,student,name,email,group,extension
12345,ada,Ada Lovelace,ada@example.org,A,
12346,bob,Róbert O'Neil-Byron,bob@example.org,A,24
12347,cyd,"Charisse, Cyd",,,"1,5"
12348,dora,王 小明,,,
"""


def read(folder: Path, text: str, encoding: str = "utf-8") -> Roster:
    file = folder / "roster.csv"
    file.write_bytes(text.encode(encoding))
    return rosters.load(file)


@pytest.fixture
def four(tmp_path: Path) -> Roster:
    return read(tmp_path, TEXT)


def test_each_row_is_a_student(four: Roster) -> None:
    assert four.entries[1] == Entry(
        "12346", "bob", "Róbert O'Neil-Byron", "bob@example.org", "A", (("", 24.0),)
    )
    assert [entry.extension_on("day1") for entry in four.entries] == [0, 24, 1.5, 0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_separators_encodings_and_line_ends_of_spreadsheets(
    tmp_path: Path, separator: str, encoding: str, line_end: str
) -> None:
    rows = [["Name", " ID", "student", "section"], ["Zoë Ünal", "7", "zoe", "B"], ["", "", "", ""]]
    text = line_end.join(separator.join(row) for row in rows)
    assert read(tmp_path, text, encoding).entries == (Entry("7", "zoe", "Zoë Ünal"),)


INVALID = {
    "an empty file": ("", "line 1: column 'id' is missing"),
    "a missing column": ("id,name\n1,Ada\n", "line 1: column 'student' is missing"),
    "a misspelt column": (
        "id,student,name,extention\n",
        "line 1: unknown column 'extention'. Did you mean 'extension'?",
    ),
    "a column twice": ("id,student,name,name\n", "line 1: column 'name' occurs twice"),
    "too few cells": (
        "id,student,name\n1,ada\n",
        "line 2: the row has 2 cells, but the header has 3",
    ),
    "no student": ("id,student,name\n\n1,,Ada\n", "line 3: the column 'student' is empty"),
    "an id twice": ("id,student,name\n1,a,A\n1,b,B\n", "line 3: id '1' also occurs in line 2"),
    "a student twice": (
        "id,student,name\n1,a,A\n2,A,B\n",
        "line 3: student 'A' also occurs in line 2",
    ),
    "a student that is a path": (
        "id,student,name\n1,a/b,A\n",
        "line 2: student 'a/b' is not a valid nbgrader folder name",
    ),
    "an extension twice": (
        "id,student,name,extension,extension\n",
        "line 1: column 'extension' occurs twice",
    ),
    "a number in Moodle twice": (
        "id,student,name,moodle_day1\n1,a,A,7\n2,b,B,007\n",
        "line 3: moodle_day1 '007' also occurs in line 2",
    ),
    "hours in words": ("id,student,name,extension\n1,a,A,two\n", "line 2: extension 'two'"),
    "hours below zero": ("id,student,name,extension\n1,a,A,-2\n", "line 2: extension '-2'"),
    "an open quote": ('id,student,name\n1,a,"A\n', "invalid CSV"),
}


@pytest.mark.parametrize(("text", "message"), INVALID.values(), ids=INVALID)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CourseError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_other_encodings_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="CSV UTF-8"):
        read(tmp_path, "id,student,name\n1,zoe,Zoë\n", "latin-1")


def canvas(name: str, id_: str) -> Origin:
    return Origin((Person(name, id_),), upload=70001, source="canvas")


def moodle(name: str, number: str) -> Origin:
    return Origin((Person(name),), participant=number, source="moodle")


def gradescope(name: str, id_: str = "", email: str = "") -> Origin:
    return Origin((Person(name, id_, email),), source="gradescope")


ORIGINS = [
    (from_folder("ada"), "ada"),
    (from_folder("Ada"), "ada"),
    (from_folder("12345"), "ada"),
    (from_folder("ada@example.org"), "ada"),
    (canvas("somebody", "12345"), "ada"),
    (moodle("somebody", "12345"), "ada"),
    (gradescope("somebody", "12345"), "ada"),
    (gradescope("somebody", "0012346"), "bob"),
    (gradescope("somebody", email="ADA@example.org"), "ada"),
    (gradescope("somebody", "999", "bob@example.org"), "bob"),
    # Names are never compared.
    (from_folder("Ada Lovelace"), None),
    (canvas("ada", "999"), None),
    (canvas("12345", "999"), None),
    (moodle("ada", "999"), None),
    (moodle("12345", "999"), None),
    (gradescope("ada@example.org", "999"), None),
    (gradescope("ada", "Ada on Gradescope"), None),
    (from_folder(""), None),
]


@pytest.mark.parametrize(("origin", "student"), ORIGINS)
def test_a_student_is_found_by_an_id(four: Roster, origin: Origin, student: str | None) -> None:
    (found,) = four.find(origin, "day1")
    assert (found.student if found else None) == student


PLATFORM_IDS = """\
id,student,name,canvas,gradescope,moodle_day1,moodle_day2
12345,ada,Ada,11,s1,21,31
11,bob,Bob,12,s2,22,32
12,cyd,Cyd,,,,
"""


@pytest.mark.parametrize(
    ("origin", "day", "student"),
    [
        (canvas("", "11"), "day1", "ada"),
        (canvas("", "12345"), "day1", None),
        (gradescope("", "s2"), "day1", "bob"),
        (gradescope("", "11"), "day1", None),
        (moodle("", "21"), "day1", "ada"),
        (moodle("", "21"), "day2", None),
        (moodle("", "32"), "day2", "bob"),
        (from_folder("11"), "day1", "bob"),
        (from_folder("cyd"), "day1", "cyd"),
    ],
)
def test_a_platforms_own_column_takes_precedence_over_the_id(
    tmp_path: Path, origin: Origin, day: str, student: str | None
) -> None:
    (found,) = read(tmp_path, PLATFORM_IDS).find(origin, day)
    assert (found.student if found else None) == student


def test_a_group_is_several_students(four: Roster) -> None:
    ada, bob, cyd, _ = four.entries
    assert four.group(bob) == (bob, ada)
    assert four.group(cyd) == (cyd,)
    group = Origin((Person("x", "12346"), Person("eve", "777")), source="canvas")
    assert [entry and entry.student for entry in four.find(group, "day1")] == ["bob", None]
    named = apply_roster(Submission("p", "x, eve", "", (), (), True, handed_in=group), four, "day1")
    assert named.labels == ("bob", "eve")
    assert named.origin.keys == ("canvas 12346", "canvas 777")


@pytest.mark.parametrize("name", ["ada", "12345", "ada, bob"])
def test_a_name_that_a_student_chose_finds_nobody(four: Roster, name: str) -> None:
    for origin in (moodle(name, "13"), canvas(name, "777"), gradescope(name, "", "eve@x.example")):
        submission = Submission("p", origin.student, "s", (), (), True, handed_in=origin)
        named = apply_roster(submission, four, "day1")
        assert not {"ada", "bob"} & set(named.labels)
        assert len(named.labels) == 1


@pytest.mark.parametrize("origin", [canvas("a", "4"), moodle("a", "4"), gradescope("a", "4")])
def test_a_key_consists_of_the_source_and_its_id(origin: Origin) -> None:
    assert origin.keys == (f"{origin.source} 4",)
    assert from_folder("4").keys == ("folder 4",)


def test_course_roster_is_the_default(tmp_path: Path, four: Roster) -> None:
    assert rosters.for_course(tmp_path) == four
    other = tmp_path / "other.csv"
    other.write_text("id,student,name\n1,eve,Eve\n", encoding="utf-8")
    assert [e.student for e in rosters.for_course(tmp_path, other).entries] == ["eve"]
    assert rosters.for_course(tmp_path / "nowhere") == NO_ROSTER


def test_a_roster_that_cannot_be_read_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / rosters.FILE).symlink_to(tmp_path / "drive" / "roster.csv")
    with pytest.raises(CourseError, match="could not be read: No such file"):
        rosters.for_course(tmp_path)
    (tmp_path / rosters.FILE).unlink()
    (tmp_path / rosters.FILE).mkdir()
    with pytest.raises(CourseError, match="could not be read: Is a directory"):
        rosters.for_course(tmp_path)
