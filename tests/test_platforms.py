"""Test that each submission's student and time are read correctly from every platform's download format."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from autograder.course import fingerprint
from autograder.course.chapters import BEGIN, ChapterCell
from autograder.course.config import Day
from autograder.grading.grader import Grader
from autograder.submissions import gradescope_metadata, origin
from autograder.submissions.origin import Origin, Person
from autograder.submissions.roster import Entry, Roster
from autograder.submissions.submission import apply_roster, read_submissions
from tests.conftest import ROOT, handed_in, reader
from tests.test_submission import chosen, found, notebook, students, write, zipped

ADA = Entry("4211", "ada", "Ada Lovelace")
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
    found = origin.parse_canvas_name(name)
    assert found is not None
    assert (found.people, found.late) == ((person,), late)
    assert origin.original_name(name) == original


@pytest.mark.parametrize(
    "name", ["day1_2.ipynb", "ada_12_day1.ipynb", "Homework_2026_10234_x.py", "ws_2026_101_x.zip"]
)
def test_names_that_only_resemble_canvas(name: str) -> None:
    assert origin.parse_canvas_name(name) is None
    assert origin.original_name(name) == name
    assert origin.owner_key(name) == ""


@pytest.mark.parametrize(
    ("name", "person", "late"),
    [
        ("xmallory123456_99999999_LATE_98_76543_x.py", ("xmallory123456_99999999", "98"), True),
        ("smith2john_4211_70001_day1.ipynb", ("smith2john", "4211"), False),
        ("smith_2_4211_70001_day1.ipynb", ("smith_2", "4211"), False),
        ("ada_4211_70001_2026_day1.ipynb", ("ada", "4211"), False),
        ("i\u0307lker_12_34567_x.py", ("i\u0307lker", "12"), False),
        ("अनिताशर्मा_12_34567_x.py", ("अनिताशर्मा", "12"), False),
        ("eve_14_66666_bob_13_77777_day1.ipynb", ("eve", "14"), False),
    ],
)
def test_digits_and_marks_in_canvas_names(name: str, person: tuple[str, str], late: bool) -> None:
    found = origin.parse_canvas_name(name)
    assert found is not None
    assert (found.people, found.late) == ((Person(*person),), late)


def test_a_canvas_name_with_several_readings_never_gives_an_id_that_is_taken() -> None:
    own = "ada98765_99999999999_123456_7654321_day1.ipynb"
    copied = "ada_98765_99999999_x_123456_7654321_day1.ipynb"
    other = "mallory_98765_123456_7654322_day1.ipynb"
    found = origin.parse_canvas_names(["ada_98765_55555_day1.ipynb", own, copied, other])
    ids = [[one.people[0].id, *(r.id for r in one.readings)] for one in found.values()]
    unused = "99999999999"
    assert ids == [["98765"], [unused, unused, "123456"], ["", "98765", "123456"], ["123456"]]
    ada, mallory = Entry("98765", "ada", "Ada"), Entry("123456", "mallory", "Mallory")
    chosen = Roster((mallory,)).read(found[own], "day1")
    assert (chosen.people[0].id, chosen.upload) == ("123456", 7654321)
    assert Roster((ada, mallory)).read(found[copied], "day1").people[0].id == ""


def test_a_canvas_file_with_several_readings_is_graded_and_reported(tmp_path: Path) -> None:
    numbered = "lovelaceada_4211_70001_20231234_day1.ipynb"
    write(tmp_path / "class", {numbered: notebook(), "bob_4212_70002_day1.ipynb": notebook()})
    for entries, student in ((), "lovelaceada"), ((ADA,), "ada"):
        files = read_submissions([tmp_path / "class"], "day1", reader())
        (one,) = [file for file in files if file.path.endswith(numbered)]
        known = apply_roster(one, Roster(entries), "day1")
        assert (known.student, known.readable) == (student, True)
        assert len(known.problems) == (not entries)
        assert all("4211 or 70001" in problem for problem in known.problems)


def test_a_number_before_the_students_own_file_name_is_not_an_id() -> None:
    report = "smithjohn_4821_993811_report.pdf"
    files = ("smithjohn_4821_993812_1234567_day1", "smithjohn_4821_994000_1234567_day1-1")
    for download in ([f"{files[0]}.ipynb"], [report, f"{files[0]}.ipynb"], [f"{files[1]}.ipynb"]):
        one = origin.parse_canvas_names(download)[download[-1]]
        assert one.people == (Person("smithjohn", "4821"),)
        assert one.upload in (993812, 994000)


def test_a_canvas_file_without_an_id_keeps_its_label_and_loses_no_lateness() -> None:
    labels = set()
    for upload in (993812, 994000):
        one = origin.parse_canvas_name(f"smith_jo_4821_{upload}_1234567_day1.ipynb")
        assert one is not None
        labels.add(one.labels)
        folder = Entry("1", "smith_jo_4821", "")
        assert Roster((folder,)).find(Roster((folder,)).read(one, "day1"), "day1") == [None]
    assert labels == {("smith_jo (4821?)",)}
    hidden = origin.parse_canvas_name("mallory_55555_66666_LATE_123_7654321_x.py")
    assert hidden is not None
    assert hidden.late
    for ids in ((), ("55555",), ("123",)):
        known = Roster(tuple(Entry(id_, "m", "") for id_ in ids))
        assert known.read(hidden, "day1").late


def test_moodle_folder_name() -> None:
    ada = Origin((Person("Ada_Ünal Lovelace"),), participant="123456", source="moodle")
    for end in ("file_", "file", "onlinetext", "file_my work_2.ipynb"):
        name = f"Ada_Ünal Lovelace_123456_assignsubmission_{end}"
        assert origin.parse_moodle_name(name) == ada
    assert origin.parse_moodle_name("Ada") is None
    blind = origin.parse_moodle_name("Participant_42113_assignsubmission_file")
    assert blind == Origin((Person("Participant 42113"),), participant="42113", source="moodle")
    assert blind.labels == ("Participant 42113",)
    group = origin.parse_moodle_name("Default group_assignsubmission_file")
    assert group == Origin((Person("Default group"),), source="moodle")


def test_a_file_name_cannot_change_the_student_in_moodles_flat_layout() -> None:
    name = "Eve_14_assignsubmission_file_Bob_13_assignsubmission_file_day1.ipynb"
    found = origin.parse_moodle_name(name)
    assert found == Origin((Person("Eve"),), participant="14")


def test_a_name_cannot_change_the_student_in_moodle(tmp_path: Path) -> None:
    ada, eve = "Ada Lovelace_31", "Ada Lovelace_31_assignsubmission_file_x_42"
    for end in ("", "_"):
        found = origin.parse_moodle_name(f"{eve}_assignsubmission_file{end}")
        assert found is not None
        assert found.participant == "42"
    files = {f"{who}_assignsubmission_file/day1.ipynb": notebook() for who in (ada, eve)}
    write(tmp_path / "flat", {name.replace("/", "_"): data for name, data in files.items()})
    write(tmp_path / "folders", files)
    labels = [submission.labels for submission in chosen(tmp_path / "folders")]
    assert labels == [("Ada Lovelace (31)",), (f"{eve[:-3]} (42)",)]
    labels = [submission.labels for submission in chosen(tmp_path / "flat")]
    assert labels == [("Ada Lovelace (31)",), ("Ada Lovelace (31)?",)]


def test_gradescope_metadata() -> None:
    table = gradescope_metadata.parse_metadata(METADATA.encode())
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
    with pytest.raises(gradescope_metadata.MetadataError, match=r"the file (is|contains)"):
        gradescope_metadata.parse_metadata(data)


@pytest.mark.parametrize(
    "data", [b"a: 1", b"a: {':submitters': 3}", b"a: !!python/name:os.system ''", b"? [1]\n: 2"]
)
def test_metadata_without_people_is_empty(data: bytes) -> None:
    assert gradescope_metadata.parse_metadata(data) == {}


@pytest.mark.parametrize(
    ("sid", "time"), [("!!int ''", "!!timestamp 'x'"), ("!!bool 'x'", "!!float ''"), ("~", "")]
)
def test_yaml_tags_are_ignored(sid: str, time: str) -> None:
    data = f"s:\n  :submitters:\n  - :name: Ada\n    :sid: {sid}\n  :created_at: {time}\n"
    ((person,),) = [
        one.people for one in gradescope_metadata.parse_metadata(data.encode()).values()
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
    assert origin.parse_timestamp(text) == time


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
        "zoe_LATE_12350_text.html": b"<p>My answer</p>",
    }
    write(
        tmp_path, {"submissions.zip": zipped(files), **{f"flat/{n}": d for n, d in files.items()}}
    )
    for place in (tmp_path / "submissions.zip", tmp_path / "flat"):
        by_name = {s.student: s for s in chosen(place)}
        assert sorted(by_name) == ["byronbob", "charissecyd", "dora", "eve", "lovelaceada", "zoe"]
        assert [by_name[n].cells[0].source for n in ("lovelaceada", "dora")] == ["a = 1", "d = 1"]
        assert "draft.ipynb" in by_name["lovelaceada"].problems[0]
        nothing = "no notebook, script or archive was submitted, only"
        assert by_name["eve"].problems == (f"{nothing} report.docx",)
        assert by_name["zoe"].problems == (f"{nothing} text.html",)
        assert not by_name["eve"].readable
        assert not by_name["zoe"].readable
        assert all(s.handed_in and s.handed_in.people[0].id for s in by_name.values())


def test_canvas_zip_with_one_student(tmp_path: Path) -> None:
    write(tmp_path, {"s.zip": zipped({"lovelaceada_12345_67890_work.ipynb": notebook()})})
    assert students(tmp_path / "s.zip") == ["lovelaceada"]


@pytest.mark.parametrize("end", ["_", ""])
def test_moodle_folders(tmp_path: Path, end: str) -> None:
    files = {
        f"Ada Lovelace_51_assignsubmission_file{end}/my work.ipynb": notebook("a = 1"),
        f"Ada Lovelace_51_assignsubmission_onlinetext{end}/onlinetext.html": b"<p>done</p>",
        f"Bob Byron_52_assignsubmission_onlinetext{end}/onlinetext.html": b"<p>done</p>",
        f"Cyd_53_assignsubmission_file{end}/day2.ipynb": notebook("c = 1"),
    }
    write(tmp_path, {"moodle.zip": zipped(files), **{f"out/{n}": d for n, d in files.items()}})
    for place in (tmp_path / "moodle.zip", tmp_path / "out"):
        by_name = {s.student: s for s in found(place)}
        assert sorted(by_name) == ["Ada Lovelace", "Bob Byron", "Cyd"]
        assert [by_name[name].readable for name in sorted(by_name)] == [True, False, True]
        assert by_name["Bob Byron"].problems[0].endswith(", only onlinetext.html")


def test_students_with_the_same_name_stay_separate_on_every_platform(tmp_path: Path) -> None:
    metadata = METADATA.replace("Cyd", "Ada Lovelace")
    moodle = "Wei Li_{}_assignsubmission_file/{}.ipynb"
    write(
        tmp_path,
        {
            "canvas/liwei_501_67890_day1.ipynb": notebook(),
            "canvas/liwei_502_67891_day1.ipynb": notebook(),
            f"moodle/{moodle.format(51, 'a')}": notebook(),
            f"moodle/{moodle.format(52, 'b')}": notebook(),
            f"blind/{moodle.format(51, 'a').replace('Wei Li', 'Participant')}": notebook(),
            f"blind/{moodle.format(52, 'b').replace('Wei Li', 'Participant')}": notebook(),
            f"flat/{moodle.format(51, 'a').replace('/', '_')}": notebook(),
            f"flat/{moodle.format(52, 'b').replace('/', '_')}": notebook(),
            "gradescope/submission_metadata.yml": metadata.encode(),
            "gradescope/submission_71/day1.ipynb": notebook(),
            "gradescope/submission_72/day1.ipynb": notebook(),
        },
    )

    def labels(folder: str) -> list[tuple[str, ...]]:
        return [submission.labels for submission in chosen(tmp_path / folder)]

    assert labels("canvas") == [("liwei (501)",), ("liwei (502)",)]
    assert labels("moodle") == labels("flat") == [("Wei Li (51)",), ("Wei Li (52)",)]
    assert labels("blind") == [("Participant 51",), ("Participant 52",)]
    pair = ("Ada Lovelace (12345)", "Róbert Byron (bob@example.org)")
    assert labels("gradescope") == [pair, ("Ada Lovelace (9)",)]


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
        Origin((Person("ada"),), time=datetime(2026, 12, 2, 10, tzinfo=zone)),
        Origin((Person("bob"),)),
        Origin((Person("cyd"),)),
    ]


def test_times_are_read_from_the_folder_that_nbgrader_is_configured_to_use(tmp_path: Path) -> None:
    files = {"day1.ipynb": notebook(), "timestamp.txt": b"2026-12-01 22:59:00 UTC"}
    config = b"# c.CourseDirectory.submitted_directory = 'handed'\nc.CourseDirectory.submitted_directory = 'collected'\n"
    write(tmp_path, {"nbgrader_config.py": config, "collected/nbgrader_config.py": b"c.Course"})
    for place in ("collected/ada/day1", "handed/ada/day1"):
        write(tmp_path / place, files)
    for name, time in (("collected", MIDNIGHT), ("handed", None)):
        (one,) = found(tmp_path / name / "ada")
        assert (one.handed_in and one.handed_in.time) == time


# ---- release stamps


def test_stamp_depends_on_stubs_checks_and_given_code(day1: Day) -> None:
    """Editing the text or the solutions does not change the release stamp, so earlier releases of a notebook remain
    valid."""
    chapter = day1.chapters[0]
    cell, text = (next(c for c in chapter.cells if c.role == r) for r in ("exercise", "text"))

    def with_cell(source: str, cell: ChapterCell = cell) -> Day:
        cells = [replace(c, source=source) if c is cell else c for c in chapter.cells]
        changed = replace(day1)
        first = replace(chapter, cells=tuple(cells))
        changed.__dict__["chapters"] = (first, *day1.chapters[1:])
        return changed

    now = fingerprint.stamp(day1)
    solution = cell.source.replace(BEGIN, f"{BEGIN}\n    pass")
    assert fingerprint.stamp(with_cell(solution)) == now
    assert fingerprint.stamp(with_cell("# Another text", text)) == now
    assert fingerprint.stamp(with_cell(f"{cell.source}\n# new")) != now
    assert now.split()[0] == "day1"


def test_release_has_a_stamp_and_a_script_has_none(day1: Day) -> None:
    file = ROOT / "assignments" / "day1" / "day1.ipynb"
    data = file.read_bytes()
    assert fingerprint.find_stamp(data) == fingerprint.stamp(day1)
    assert found(file)[0].release == fingerprint.stamp(day1)
    quoted = json.dumps({"cells": [{"source": f'"{fingerprint.KEY}": "day9 0123456789ab"'}]})
    assert fingerprint.find_stamp(quoted.encode()) == ""
    assert fingerprint.find_stamp(b"x = 1") == ""


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
        "no exercises from day1 were found",
    ]
    assert {e.status for e in marks.exercises} == {"not_attempted"}
    assert fingerprint.stamp_problems(fingerprint.stamp(grader.day), grader.day) == []
