"""Test that the names a TA would type find the right student and no other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from autograder.course.config import CourseError
from autograder.marks import lookup
from autograder.submissions.people import HandedIn, Person
from autograder.submissions.roster import NO_ROSTER, Roster
from autograder.submissions.roster_entry import Entry


@dataclass(frozen=True)
class Item:
    student: str
    handed_in: HandedIn | None


def item(name: str, id_: str) -> Item:
    return Item(name, HandedIn((Person(name, id_),)))


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
    (found,) = lookup.find(text, CLASS, NO_ROSTER)
    assert found.handed_in
    assert found.handed_in.people[0].id == id_


@pytest.mark.parametrize("text", ["Mary Ann", "Neil", "oneil", "", "?", "a b c d e f", "Ada"])
def test_a_part_of_a_name_finds_nobody(text: str) -> None:
    assert lookup.find(text, CLASS, NO_ROSTER) == []


def test_two_students_with_one_name_are_told_apart_by_id() -> None:
    with pytest.raises(CourseError, match=r"smithanna \(3\), smithanna \(4\)\. Use an id"):
        lookup.find("Anna Smith", CLASS, NO_ROSTER)


def test_a_part_of_a_name_is_suggested() -> None:
    assert lookup.closest("Mary Ann", CLASS, NO_ROSTER) == CLASS[0].student
    assert lookup.closest("Mary Bob", CLASS, NO_ROSTER) == ""


def test_a_similar_id_is_not_suggested() -> None:
    class_ = [item("ada", "2017")]
    assert lookup.closest("2018", class_, NO_ROSTER) == ""
    assert lookup.closest("adda", class_, NO_ROSTER) == "ada"


@pytest.mark.parametrize("roster", [NO_ROSTER, ROSTER], ids=["no roster", "roster"])
@pytest.mark.parametrize("text", ["12345", "bob@uni.edu"])
def test_a_name_does_not_hide_the_id_of_another_student(text: str, roster: Roster) -> None:
    """If names took precedence, a student could receive points that a TA gave to someone else."""
    person = Person("Bob") if roster.entries else Person("Bob", "12345", "bob@uni.edu")
    bob, eve = Item("Bob", HandedIn((person,))), item(text, "777")
    for class_ in ([bob, eve], [eve, bob]):
        assert lookup.find(text, class_, roster) == [bob]
        assert lookup.find("777", class_, roster) == [eve]
    assert lookup.find(text, [eve], roster) == [eve]


def test_a_name_does_not_hide_the_label_of_another_student() -> None:
    bob = item("Bob", "12345")
    eve = item(lookup.label(bob), "777")
    assert lookup.find("Bob (12345)", [eve, bob], NO_ROSTER) == [bob]
    assert lookup.find("bob (12345) (777)", [eve, bob], NO_ROSTER) == [eve]


def test_a_name_does_not_hide_the_id_of_another_member_of_a_group() -> None:
    group = Item("12345, Bob", HandedIn((Person("12345", "777"), Person("Bob", "12345"))))
    assert lookup.find("12345", [group], NO_ROSTER) == [group]
    assert lookup.labels_of("12345", group, NO_ROSTER) == ("Bob (12345)",)
    assert lookup.labels_of("777", group, NO_ROSTER) == ("12345 (777)",)
    assert lookup.labels_of("bob", group, NO_ROSTER) == ("Bob (12345)",)
