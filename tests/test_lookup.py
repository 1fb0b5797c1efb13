"""Test that the names a TA would type find the right student and no other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autograder.course import config as courses
from autograder.course.config import CourseError
from autograder.marks import lookup
from autograder.submissions.origin import Origin, Person
from autograder.submissions.roster import NO_ROSTER, Entry, Roster
from autograder.submissions.submission import Submission
from tests.conftest import ROOT

DAY = courses.load(ROOT).day("day1")


def submission(student: str, *people: Person) -> Submission:
    return Submission("p", student, "", (), (), True, handed_in=Origin(people, source="canvas"))


def item(name: str, id_: str) -> Submission:
    return submission(name, Person(name, id_))


def find(text: str, class_: Sequence[Submission], roster: Roster) -> list[Submission]:
    return lookup.find(text, class_, DAY, roster)


def closest(text: str, class_: Sequence[Submission]) -> str:
    return lookup.closest(text, class_, DAY, NO_ROSTER)


CLASS = [
    item("oneilmaryann", "1"),
    item("müllergroßdörte", "2"),
    item("smithanna", "3"),
    item("smithanna", "4"),
    item("Ada Lovelace", "5"),
    item("娜李", "6"),
    item("!", "7"),
]

ROSTER = Roster((Entry("12345", "bob", "Bob", "bob@uni.edu"),))


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("Mary Ann O'Neil", "1"),
        ("o'neil, mary ann", "1"),
        ("Dörte Müller-Groß", "2"),
        ("4", "4"),
        ("Lovelace, Ada", "5"),
        ("李 娜", "6"),
    ],
)
def test_a_name_is_found_in_canvas_s_form(text: str, id_: str) -> None:
    (found,) = find(text, CLASS, NO_ROSTER)
    assert found.handed_in
    assert found.handed_in.people[0].id == id_


@pytest.mark.parametrize("text", ["Mary Ann", "Neil", "oneil", "", "?", "a b c d e f", "Ada"])
def test_a_part_of_a_name_finds_nobody(text: str) -> None:
    assert find(text, CLASS, NO_ROSTER) == []


def test_two_students_with_one_name_are_told_apart_by_id() -> None:
    with pytest.raises(CourseError, match=r"smithanna \(3\), smithanna \(4\)\. Use an id"):
        find("Anna Smith", CLASS, NO_ROSTER)


def test_a_part_of_a_name_is_suggested() -> None:
    assert closest("Mary Ann", CLASS) == CLASS[0].student
    assert closest("Mary Bob", CLASS) == ""


def test_a_similar_id_is_not_suggested() -> None:
    class_ = [item("ada", "2017")]
    assert closest("2018", class_) == ""
    assert closest("adda", class_) == "ada"


@pytest.mark.parametrize("roster", [NO_ROSTER, ROSTER], ids=["no roster", "roster"])
@pytest.mark.parametrize("text", ["12345", "bob@uni.edu"])
def test_a_name_does_not_hide_the_id_of_another_student(text: str, roster: Roster) -> None:
    """If names took precedence, a student could receive points that a TA gave to someone else."""
    person = Person("Bob", "12345", "" if roster.entries else "bob@uni.edu")
    bob, eve = submission("Bob", person), item(text, "777")
    for class_ in ([bob, eve], [eve, bob]):
        assert find(text, class_, roster) == [bob]
        assert find("777", class_, roster) == [eve]
    assert find(text, [eve], roster) == [eve]


def test_a_name_does_not_hide_the_label_of_another_student() -> None:
    bob = item("Bob", "12345")
    eve = item(lookup.label(bob), "777")
    assert find("Bob (12345)", [eve, bob], NO_ROSTER) == [bob]
    assert find("bob (12345) (777)", [eve, bob], NO_ROSTER) == [eve]


def test_a_name_does_not_hide_the_id_of_another_member_of_a_group() -> None:
    group = submission("12345, Bob", Person("12345", "777"), Person("Bob", "12345"))
    assert find("12345", [group], NO_ROSTER) == [group]

    def own(text: str) -> list[str]:
        return [*lookup.keys_of(text, group, DAY, NO_ROSTER).values()]

    assert own("12345") == ["Bob (12345)"]
    assert own("777") == ["12345 (777)"]
    assert own("bob") == ["Bob (12345)"]
