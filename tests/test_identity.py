"""Who handed in, and when, comes from outside: nothing in a student's own file, folder or archive says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.people import HandedIn, Person
from tests.test_submission import found, notebook, students, write, zipped

METADATA = (
    b"submission_1:\n  :submitters:\n  - :name: bob\n    :sid: bob\n  :created_at: 2020-01-01\n"
)
INSIDE = {
    "a file of that name": {"bob.ipynb": notebook()},
    "a folder of that name": {"bob/day1.ipynb": notebook()},
    "a tree of nbgrader": {"submitted/bob/day1/day1.ipynb": notebook()},
    "a time of nbgrader": {"x/day1/day1.ipynb": notebook(), "x/day1/timestamp.txt": b"2020-01-01"},
    "a name of Canvas": {"bob_12_34567_day1.ipynb": notebook()},
    "a folder of Moodle": {"bob_12_assignsubmission_file_/day1.ipynb": notebook()},
    "metadata of Gradescope": {
        "submission_1/day1.ipynb": notebook(),
        "submission_metadata.yml": METADATA,
    },
    "an export of Gradescope": {
        "assignment_1_export/submission_1/day1.ipynb": notebook(),
        "assignment_1_export/submission_metadata.yml": METADATA,
    },
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_what_a_student_puts_inside_says_neither_who_nor_when(
    tmp_path: Path, inside: dict[str, bytes], packed: bool
) -> None:
    work = {"day1.zip": zipped(inside)} if packed else inside
    time = {"timestamp.txt": b"2026-12-10 20:00:00 UTC"}
    for name, data in (work | time).items():
        write(tmp_path / "submitted/eve/day1", {name: data})
    write(tmp_path / "submitted/bob/day1", {"day1.ipynb": notebook()} | time)
    for name, data in work.items():
        write(tmp_path / "class/eve", {name: data})
    write(tmp_path / "class", {"ada.ipynb": notebook(), "zoe/day1.ipynb": notebook()})
    in_tree = found(tmp_path / "submitted")
    assert [one.student for one in in_tree] == ["bob", "eve"]
    assert {
        one.handed_in.time.isoformat() for one in in_tree if one.handed_in and one.handed_in.time
    } == {"2026-12-10T20:00:00+00:00"}
    assert [one.student for one in found(tmp_path / "submitted/eve/day1")] == ["eve"]
    assert sorted(students(tmp_path / "class")) == ["ada", "eve", "zoe"]


@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_nor_in_the_archive_of_a_class(tmp_path: Path, inside: dict[str, bytes]) -> None:
    files = {"ada/day1.ipynb": notebook(), **{f"eve/{name}": data for name, data in inside.items()}}
    canvas = {
        "eve_99_11111_work.zip": zipped(inside),
        "ada_98_22222_day1.ipynb": notebook(),
    }
    write(tmp_path, {"class.zip": zipped(files), "canvas.zip": zipped(canvas)})
    assert students(tmp_path / "class.zip") == ["ada", "eve"]
    ada, eve = found(tmp_path / "canvas.zip")
    assert eve.handed_in == HandedIn((Person("eve", "99"),))
    assert ada.handed_in == HandedIn((Person("ada", "98"),))


def test_an_archive_in_a_students_place_is_one_students_work(tmp_path: Path) -> None:
    files = {f"a{n}/day1.ipynb": notebook(f"x = {n}") for n in range(50)}
    write(tmp_path, {"eve.zip": zipped(files), "ada.ipynb": notebook()})
    assert set(students(tmp_path)) == {"ada", "eve"}
    assert len(found(tmp_path)) == 51
    write(tmp_path, {"eve.zip": zipped(files | {"b/day1.ipynb": notebook()})})
    ada, eve = found(tmp_path)
    assert ada.readable
    assert "more than 50 notebooks" in eve.problems[0]


@pytest.mark.parametrize("value", ["&a [1, *a]", "!!int ''", "[", "!!timestamp 'x'"])
def test_metadata_of_a_platform_cost_nobody_the_rest(tmp_path: Path, value: str) -> None:
    metadata = f"submission_1:\n  :submitters: {value}\n".encode()
    files = {"submission_1/day1.ipynb": notebook(), "submission_metadata.yml": metadata}
    write(tmp_path, {"class.zip": zipped(files), **{f"out/{n}": d for n, d in files.items()}})
    for place in ("class.zip", "out"):
        (one,) = found(tmp_path / place)
        assert (one.student, one.readable) == ("submission_1", True)
        assert all("submission_metadata.yml could not be read" in p for p in one.problems)
