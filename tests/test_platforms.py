"""Test that the owners and submission times are read correctly from each platform's download format."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from autograder.course import release_stamp
from autograder.course.chapters import BEGIN, ChapterCell
from autograder.course.config import Day
from autograder.grading.grader import Grader
from autograder.submissions import platforms
from autograder.submissions.people import HandedIn, Person
from tests.conftest import ROOT, handed_in
from tests.test_submission import found, notebook, students, write, zipped

MIDNIGHT = datetime(2026, 12, 1, 22, 59, tzinfo=UTC)
METADATA = """\
---
submission_71:
  :submitters:
  - :name: Ada Lovelace
    :sid: '12345'
    :email: ada@example.org
  - :name: "R\\xF3bert Byron"
    :sid:
    :email: bob@example.org
  :created_at: 2026-12-01 14:59:00.000000123 -08:00
  :score: 3.0
  :results: !ruby/hash:ActiveSupport::HashWithIndifferentAccess
    tests: []
submission_72:
  :submitters:
  - :name: Cyd
    :sid: 9
    :email: c@example.org
  :created_at: !ruby/object:ActiveSupport::TimeWithZone
    utc: 2026-12-01 22:59:00.000000000 Z
    zone: !ruby/object:ActiveSupport::TimeZone
      name: Pacific Time
"""


# ---- names


@pytest.mark.parametrize(
    ("name", "person", "late", "original"),
    [
        (
            "lovelaceada_340934_208490284_day1.ipynb",
            Person("lovelaceada", "340934"),
            False,
            "day1.ipynb",
        ),
        (
            "lovelaceada_LATE_12345_67890_day1-2.ipynb",
            Person("lovelaceada", "12345"),
            True,
            "day1.ipynb",
        ),
        ("ünalzoë_12_34567_my_work_2.zip", Person("ünalzoë", "12"), False, "my_work_2.zip"),
        (
            "anon_a1B2c_67890_day1.ipynb",
            Person("anon_a1B2c", "anon_a1B2c"),
            False,
            "day1.ipynb",
        ),
        (
            "LATE_anon_a1B2c_67890_d.py",
            Person("anon_a1B2c", "anon_a1B2c"),
            True,
            "d.py",
        ),
    ],
)
def test_canvas_file_name(name: str, person: Person, late: bool, original: str) -> None:
    assert platforms.parse_canvas_name(name) == HandedIn((person,), late)
    assert platforms.original_name(name) == original


@pytest.mark.parametrize(
    "name", ["day1_2.ipynb", "ada_12_day1.ipynb", "Homework_2026_10234_x.py", "ws_2026_101_x.zip"]
)
def test_names_that_only_resemble_canvas(name: str) -> None:
    assert platforms.parse_canvas_name(name) is None
    assert platforms.original_name(name) == name
    assert platforms.owner_key(name) == ""


def test_moodle_folder_name() -> None:
    found = platforms.parse_moodle_name("Ada_Ünal Lovelace_123456_assignsubmission_file_")
    assert found == HandedIn((Person("Ada_Ünal Lovelace"),), participant="123456")
    assert platforms.parse_moodle_name("Ada") is None


def test_gradescope_metadata() -> None:
    table = platforms.parse_gradescope_metadata(METADATA.encode())
    assert table["submission_71"].people == (
        Person("Ada Lovelace", "12345", "ada@example.org"),
        Person("Róbert Byron", "", "bob@example.org"),
    )
    assert table["submission_72"].people == (Person("Cyd", "9", "c@example.org"),)
    assert [table[name].time for name in table] == [MIDNIGHT, MIDNIGHT]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        b"- 1",
        b"x",
        b"a: &a [1]\nb: *a",
        b"a: \xff",
        b"a:\n  :submitters: " + b"[" * 50,
        b"a:\n  :submitters:\n  - :name: " + b"[" * 10 + b"]" * 10,
    ],
)
def test_invalid_metadata_is_rejected_with_a_message(data: bytes) -> None:
    with pytest.raises(platforms.MetadataError, match=r"the file (is|contains)"):
        platforms.parse_gradescope_metadata(data)


@pytest.mark.parametrize(
    "data", [b"a: 1", b"a: {':submitters': 3}", b"a: !!python/name:os.system ''", b"? [1]\n: 2"]
)
def test_metadata_without_people_is_empty(data: bytes) -> None:
    assert platforms.parse_gradescope_metadata(data) == {}


@pytest.mark.parametrize(
    ("sid", "time"), [("!!int ''", "!!timestamp 'x'"), ("!!bool 'x'", "!!float ''"), ("~", "")]
)
def test_yaml_tags_are_ignored(sid: str, time: str) -> None:
    data = f"s:\n  :submitters:\n  - :name: Ada\n    :sid: {sid}\n  :created_at: {time}\n"
    ((person,),) = [
        one.people for one in platforms.parse_gradescope_metadata(data.encode()).values()
    ]
    assert person.name == "Ada"


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-12-01 22:59:00.000000 UTC\n", MIDNIGHT),
        ("2026-12-01 22:59:00", MIDNIGHT),
        ("2026-12-01T22:59:00Z", MIDNIGHT),
        ("2026-12-01 23:59:00 +0100", MIDNIGHT),
        ("2026-12-01 23:59:00 Europe/Berlin", MIDNIGHT),
        ("2026-12-01 14:59:00-08:00", MIDNIGHT),
        ("2026-12-01 22:59:00 No/Where", None),
        ("yesterday", None),
        ("0001-01-01 00:00:00 +1400", None),
        ("9999-12-31 23:59:59 -1200", None),
        ("2026-12-01 22:59:00 ../../etc/passwd", None),
        ("2026-12-01 22:59:00 Europe", None),
        ("2026-12-01 22:59:00 +99:99", None),
    ],
)
def test_timestamp(text: str, time: datetime | None) -> None:
    assert platforms.parse_timestamp(text) == time


# ---- downloads as submissions


def test_canvas_zip(tmp_path: Path) -> None:
    files = {
        "byronbob_LATE_12346_67891_day1-1.ipynb": notebook("b = 1"),
        "lovelaceada_12345_67890_day1.ipynb": notebook("a = 1"),
        "lovelaceada_12345_67899_draft.ipynb": notebook("a = 0"),
        "charissecyd_12347_67892_work.zip": zipped({"work/day1.ipynb": notebook("c = 1")}),
        "dora_12348_67893_day2.ipynb": notebook("d = 1"),
        "eve_12349_67894_report.docx": b"words",
        "lovelaceada_12345_67895_plot.png": b"pixels",
    }
    write(
        tmp_path, {"submissions.zip": zipped(files), **{f"flat/{n}": d for n, d in files.items()}}
    )
    for place in (tmp_path / "submissions.zip", tmp_path / "flat"):
        by_name = {s.student: s for s in found(place)}
        assert sorted(by_name) == ["byronbob", "charissecyd", "dora", "eve", "lovelaceada"]
        assert [by_name[n].cells[0].source for n in ("lovelaceada", "dora")] == ["a = 1", "d = 1"]
        assert "draft.ipynb" in by_name["lovelaceada"].problems[0]
        assert by_name["eve"].problems == ("the student submitted no notebook, script or archive",)
        assert not by_name["eve"].readable


def test_canvas_zip_with_one_student(tmp_path: Path) -> None:
    write(tmp_path, {"s.zip": zipped({"lovelaceada_12345_67890_work.ipynb": notebook()})})
    assert students(tmp_path / "s.zip") == ["lovelaceada"]


def test_moodle_folders(tmp_path: Path) -> None:
    files = {
        "Ada Lovelace_51_assignsubmission_file_/my work.ipynb": notebook("a = 1"),
        "Ada Lovelace_51_assignsubmission_onlinetext_/onlinetext.html": b"<p>done</p>",
        "Bob Byron_52_assignsubmission_onlinetext_/onlinetext.html": b"<p>done</p>",
        "Cyd_53_assignsubmission_file_/day2.ipynb": notebook("c = 1"),
    }
    write(tmp_path, {"moodle.zip": zipped(files), **{f"out/{n}": d for n, d in files.items()}})
    for place in (tmp_path / "moodle.zip", tmp_path / "out"):
        by_name = {s.student: s for s in found(place)}
        assert sorted(by_name) == ["Ada Lovelace", "Bob Byron", "Cyd"]
        assert [by_name[name].readable for name in sorted(by_name)] == [True, False, True]


def test_gradescope_export(tmp_path: Path) -> None:
    files = {
        "submission_metadata.yml": METADATA.encode(),
        "submission_71/day1.ipynb": notebook(),
        "submission_72/mine.py": b"x = 1",
    }
    packed = zipped({f"assignment_5_export/{name}": data for name, data in files.items()})
    write(tmp_path, {"export.zip": packed, **{f"out/{n}": d for n, d in files.items()}})
    for place in (tmp_path / "export.zip", tmp_path / "out"):
        assert students(place) == ["Ada Lovelace, Róbert Byron", "Cyd"]
        cyd = found(place)[1].handed_in
        assert cyd is not None
        assert cyd.time == MIDNIGHT


def test_platforms_name_takes_precedence_over_names_inside(tmp_path: Path) -> None:
    mine = zipped({"byronbob_12346_67891_day1.ipynb": notebook()})
    write(tmp_path, {"class.zip": zipped({"lovelaceada_12345_67890_work.zip": mine})})
    assert students(tmp_path / "class.zip") == ["lovelaceada"]


def test_nbgraders_time_is_read_from_its_folder_but_not_from_archives(tmp_path: Path) -> None:
    late = b"2026-12-02 10:00:00.000000 +0100"
    inside = zipped({"day1/day1.ipynb": notebook(), "day1/timestamp.txt": late})
    write(
        tmp_path,
        {
            "submitted/ada/day1/day1.ipynb": notebook(),
            "submitted/ada/day1/timestamp.txt": late,
            "submitted/bob/day1/day1.ipynb": notebook(),
            "handed/cyd.zip": inside,
        },
    )
    ada, bob, cyd = found(tmp_path / "submitted", tmp_path / "handed")
    assert [s.student for s in (ada, bob, cyd)] == ["ada", "bob", "cyd"]
    times = [s.handed_in for s in (ada, bob, cyd)]
    zone = timezone(timedelta(hours=1))
    assert times == [
        HandedIn((Person("ada"),), time=datetime(2026, 12, 2, 10, tzinfo=zone)),
        None,
        None,
    ]


# ---- release stamps


def test_stamp_depends_on_stubs_checks_and_given_code(day1: Day) -> None:
    """Editing the prose or the solutions does not change the stamp, so notebooks released earlier stay valid."""
    chapter = day1.chapters[0]
    cell, text = (next(c for c in chapter.cells if c.role == r) for r in ("exercise", "text"))

    def with_cell(source: str, cell: ChapterCell = cell) -> Day:
        cells = [replace(c, source=source) if c is cell else c for c in chapter.cells]
        changed = replace(day1)
        first = replace(chapter, cells=tuple(cells))
        changed.__dict__["chapters"] = (first, *day1.chapters[1:])
        return changed

    now = release_stamp.stamp(day1)
    solution = cell.source.replace(BEGIN, f"{BEGIN}\n    pass")
    assert release_stamp.stamp(with_cell(solution)) == now
    assert release_stamp.stamp(with_cell("# Another text", text)) == now
    assert release_stamp.stamp(with_cell(f"{cell.source}\n# new")) != now
    assert now.split()[0] == "day1"


def test_release_has_a_stamp_and_a_script_has_none(day1: Day) -> None:
    file = ROOT / "assignments" / "day1" / "day1.ipynb"
    data = file.read_bytes()
    assert release_stamp.find_stamp(data) == release_stamp.stamp(day1)
    assert found(file)[0].release == release_stamp.stamp(day1)
    quoted = json.dumps({"cells": [{"source": f'"{release_stamp.KEY}": "day9 0123456789ab"'}]})
    assert release_stamp.find_stamp(quoted.encode()) == ""
    assert release_stamp.find_stamp(b"x = 1") == ""


@pytest.mark.parametrize(
    ("stamp", "noticed"),
    [
        ("day2 0123456789ab", ["this is the notebook for day2, but it was graded as day1"]),
        (
            "day1 0123456789ab",
            ["this notebook is from a different release of day1; its exercises have changed"],
        ),
        ("", []),
    ],
)
def test_other_notebooks_are_reported_and_graded(
    grader: Grader, stamp: str, noticed: list[str]
) -> None:
    marks = grader.grade(replace(handed_in("x = 1"), release=stamp))
    assert marks.problems == [
        *noticed,
        "no exercise of day1 was attempted: the stubs are unchanged or missing",
    ]
    assert {e.status for e in marks.exercises} == {"not_attempted"}
    assert release_stamp.stamp_problems(release_stamp.stamp(grader.day), grader.day) == []
