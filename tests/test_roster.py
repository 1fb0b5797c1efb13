"""Test that rosters from any spreadsheet program can be read, that errors give the line, and that students are never mixed up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from autograder.course.config import CourseError
from autograder.submissions import roster_file
from autograder.submissions.class_source import apply_roster
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.roster_entry import Entry
from autograder.submissions.submission import Submission

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
    return roster_file.load(file)


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
    "an id twice": ("id,student,name\n1,a,A\n1,b,B\n", "line 3: id '1' occurs twice"),
    "a student twice": ("id,student,name\n1,a,A\n2,A,B\n", "line 3: student 'A' occurs twice"),
    "a student that is a path": (
        "id,student,name\n1,a/b,A\n",
        "line 2: student 'a/b' is not a valid nbgrader folder name",
    ),
    "an extension twice": (
        "id,student,name,extension,extension\n",
        "line 1: column 'extension' occurs twice",
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


@pytest.mark.parametrize(
    ("person", "student"),
    [
        (Person(name="ada"), "ada"),
        (Person(name="Ada"), "ada"),
        (Person(name="12345"), "ada"),
        (Person(name="lovelaceada"), "ada"),
        (Person(name="Lovelace, Ada"), "ada"),
        (Person(name="ada lovelace"), "ada"),
        (Person(name="lovelaceada", id="12345"), "ada"),
        (Person(name="A. Lovelace", id="12345"), "ada"),
        (Person(email="ADA@example.org", name="somebody"), "ada"),
        (Person(name="oneilbyronrobert", id="999"), None),
        (Person(name="oneilbyronrobert", id="0012346"), "bob"),
        (Person(name="oneilbyronrobert", id="Robert on Gradescope"), "bob"),
        (Person(name="oneilbyronrobert", id="999", email="bob@example.org"), "bob"),
        (Person(name="ÓNEILBYRONRÓBERT"), "bob"),
        (Person(name="Cyd Charisse"), "cyd"),
        (Person(name="王小明"), "dora"),
        (Person(name="小明 王"), "dora"),
        (Person(name="lovelace"), None),
        (Person(name="eve", id="999"), None),
        (Person(), None),
    ],
)
def test_person_is_found_under_any_spelling(
    four: Roster, person: Person, student: str | None
) -> None:
    found = four.find(person)
    assert (found.student if found else None) == student


def test_id_that_contradicts_the_name_matches_nobody(four: Roster) -> None:
    """One student's university ID can be the same as another student's ID on the platform."""
    assert four.find(Person(name="lovelaceada", id="12346")) is None


LABELS = {
    "label of Canvas or Gradescope": ("hananovak (2014)", "", HandedIn((Person("hananovak", "2014"),))),
    "label in the name column": ("hana", "hananovak (2014)", HandedIn((Person("hananovak", "2014"),))),
    "label with an email address": ("Hana (h@x.example)", "", HandedIn((Person("Hana", "", "h@x.example"),))),
    "label of Moodle": ("Hana (51)", "", HandedIn((Person("Hana"),), participant="51")),
    "name in Canvas": ("hananovak", "", HandedIn((Person("hananovak", "2014"),), upload=70001)),
}  # fmt: skip


@pytest.mark.parametrize(("student", "name", "source"), LABELS.values(), ids=LABELS)
def test_a_row_may_contain_the_label_that_list_shows(
    student: str, name: str, source: HandedIn
) -> None:
    entry = Entry("", student, name, extension=(("", 24.0),))
    assert Roster((entry, Entry("1", "ada", "Ada Lovelace"))).find_all(source) == [entry]
    if source.people[0].id:
        assert Roster((Entry("2099", student, name),)).find_all(source) == [None]


def test_a_student_cannot_choose_a_name_that_is_a_label() -> None:
    label, only_name = Entry("", "hananovak (2014)", ""), Entry("", "hananovak", "")
    for entry in (label, only_name):
        moodle = HandedIn((Person(entry.student),), participant="13")
        gradescope = HandedIn((Person(entry.student, "", "eve@x.example"),))
        assert Roster((only_name,)).find_all(moodle) == [None]
        assert Roster((only_name,)).find_all(gradescope) == [None]
    canvas = HandedIn((Person("hananovak2014", "777"),), upload=70001)
    assert Roster((label,)).find_all(canvas) == [None]


def test_students_with_the_same_name_are_distinguished_only_by_id(tmp_path: Path) -> None:
    two = read(tmp_path, "id,student,name\n1,li1,Wei Li\n2,li2,Li Wei\n")
    found = two.find(Person("Wei Li", "2"))
    assert found is not None
    assert found.student == "li2"
    assert two.find(Person("Wei Li")) is None


@pytest.mark.parametrize(
    ("person", "student"),
    [
        (Person("lovelacead"), "ada"),
        (Person("Adda Lovelace"), "ada"),
        (Person("ada", "12347"), "ada"),
        (Person("love", "12346"), None),
        (Person("zzz"), None),
    ],
)
def test_most_similar_student_is_found(four: Roster, person: Person, student: str | None) -> None:
    near = four.nearest(person)
    assert (near.student if near else None) == student


def test_groups_and_submissions_with_several_students(four: Roster) -> None:
    ada, bob, cyd, _ = four.entries
    assert four.group(bob) == (bob, ada)
    assert four.group(cyd) == (cyd,)
    assert four.students("ada") == (ada,)
    assert four.students("bob, ada") == (bob, ada)
    assert four.students("ada, eve") == ()


@pytest.mark.parametrize("name", ["ada", "12345", "ada, bob", "line 2"])
def test_a_name_that_a_student_chose_is_compared_only_with_full_names(
    four: Roster, name: str
) -> None:
    moodle = HandedIn((Person(name),), participant="13")
    canvas = HandedIn((Person(name, "777"),), upload=12345)
    group = HandedIn(
        (Person(name, "", "eve@x.example"), Person("Cyd Charisse", "", "cyd@x.example"))
    )
    assert four.find_all(moodle) == four.find_all(canvas) == [None]
    assert [entry and entry.student for entry in four.find_all(group)] == [None, "cyd"]
    for source in (moodle, canvas, group):
        submission = Submission("p", source.student, "s", (), (), True, handed_in=source)
        named = apply_roster(submission, four)
        assert not {"ada", "bob"} & set(named.labels)
        assert len(named.labels) == len(source.people)


def test_folders_are_found_by_nbgraders_name_id_or_full_name(four: Roster) -> None:
    for folder in ("ada", "12345", "Ada Lovelace", "Lovelace, Ada"):
        for source in (None, HandedIn((Person(folder),), time=datetime(2026, 12, 1, tzinfo=UTC))):
            submission = Submission("p", folder, "s", (), (), True, handed_in=source)
            assert apply_roster(submission, four).labels == ("ada",)


def test_a_full_name_in_the_student_column_matches_if_the_name_is_empty(tmp_path: Path) -> None:
    text = "id,student,name\n1,Ada Lovelace,\n2,王小明,\n3,bob,\n4,cyd,Cyd Charisse\n"
    known = read(tmp_path, text)
    for name, student in (
        ("Lovelace, Ada", "Ada Lovelace"),
        ("王小明", "王小明"),
        ("bob", None),
        ("cyd", None),
    ):
        for source in (
            HandedIn((Person(name),), participant="13"),
            HandedIn((Person(name, "", "x@x.example"),)),
        ):
            (entry,) = known.find_all(source)
            assert (entry and entry.student) == student


def test_course_roster_is_the_default(tmp_path: Path, four: Roster) -> None:
    assert roster_file.for_course(tmp_path) == four
    other = tmp_path / "other.csv"
    other.write_text("id,student,name\n1,eve,Eve\n", encoding="utf-8")
    assert [e.student for e in roster_file.for_course(tmp_path, other).entries] == ["eve"]
    assert roster_file.for_course(tmp_path / "nowhere") == NO_ROSTER


def test_a_roster_that_cannot_be_read_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / roster_file.FILE).symlink_to(tmp_path / "drive" / "roster.csv")
    with pytest.raises(CourseError, match="could not be read: No such file"):
        roster_file.for_course(tmp_path)
    (tmp_path / roster_file.FILE).unlink()
    (tmp_path / roster_file.FILE).mkdir()
    with pytest.raises(CourseError, match="could not be read: Is a directory"):
        roster_file.for_course(tmp_path)
