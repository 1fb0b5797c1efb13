"""Test the exported files with independent readers that follow each format's specification."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from autograder.cli import main
from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.course.late_policy import Policy
from autograder.export import Format, csv_table
from autograder.marks import model as given
from autograder.marks.class_notes import NEW_ROSTER
from autograder.marks.history import Basis, History
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.submissions import roster as rosters
from autograder.submissions.disk import owner_from_path
from autograder.submissions.roster import NO_ROSTER, Entry, Roster
from tests.conftest import Run, reader
from tests.fake_grading import export, results_and_notes
from tests.small_course import RIGHT, WRONG, make
from tests.test_platforms import METADATA
from tests.test_submission import write, zipped

DUE = datetime(2026, 11, 30, 12, tzinfo=UTC)  # 34 hours before the submission times in METADATA
ROSTER = """\
id;student;name;email;group;extension
12345;ada;Ada Lovelace;ada@example.org;;
12346;bob;"O'Neil-Bÿron, Róbert";bob@example.org;A;48
12347;cyd;=HYPERLINK("http://example.org","Cyd"), -1;cyd@example.org;A;
12348;dora;"王 ""小"" 明";dora@example.org;;
"""
GRADEBOOK = """\
Student,ID,SIS User ID,SIS Login ID,Section,Day 1: attention (901),Day 2 (902),Current Score
    Points Possible,,,,,50,100,(read only)
"Lovelace, Ada",12345,s1,ada@example.org,"Mon, early",,7,1
"O'Neil-Bÿron, Róbert",12346,s2,bob@example.org,Tue,12.5,8,2
"Cyd, =1+1",12347,s3,cyd@example.org,Tue,EX,9,3
"Eve",12399,s9,eve@example.org,Tue,31,9,3
"Student, Test",12400,,abc,Tue,,,
"""
WORKSHEET = """\
Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,\
Last modified (submission),Online text,Last modified (grade),Feedback comments
Participant 51,Ada Lovelace,ada@example.org,Submitted,-,10.00,Yes,"Tuesday, 1 December 2026, 10:59 PM","<p>a, ""b""
c</p>",-,
Participant 52,"O'Neil-Bÿron, Róbert",bob@example.org,No submission,4.00,10.00,Yes,-,,"Tuesday, 1 December 2026, 10:59 PM",Good
Participant 53,Somebody Else,cyd@example.org,No submission,,10.00,No,-,,-,
"""


def marks(path: str, student: str, points: float = 90.0, problem: str = "") -> SubmissionMarks:
    tests = [given.TestMarks("test_zero", points - 40, 60, points == 100, "")]
    masks = ExerciseMarks("padding_mask", points - 40, 60, "partial", "", None, [], 0.1, tests)
    order = [given.TestMarks("test_order", 40, 40, True, "")]
    heads = ExerciseMarks("split_heads", 40, 40, "passed", "", None, [], 0.1, order)
    problems = [problem] if problem else []
    # Read the owner from the path, as if a TA had passed this path to the command.
    owner = owner_from_path(Path(path), "day1", reader())
    return SubmissionMarks(
        path, student, "", "", "", [], points, 100, 0.5, problems, [masks, heads], owner
    )


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return courses.load(make(tmp_path)).day("day1")


@pytest.fixture
def late_day(day: Day) -> Day:
    day.__dict__["late"] = Policy(DUE, percent_per_day=10)
    return day


def with_roster(day: Day) -> Path:
    (day.root / "roster.csv").write_text(ROSTER, encoding="utf-8-sig")
    return day.root / "roster.csv"


def written(day: Day, name: str, text: str, mark: str = "") -> Path:
    (day.root / name).write_text(mark + text, encoding="utf-8")
    return day.root / name


# ---- independent readers


def read_csv(file: Path, separator: str = ",") -> list[dict[str, str]]:
    """Parse CSV as specified in RFC 4180, including doubled quotes, and separators and line breaks in quoted fields."""
    text = file.read_bytes().decode("utf-8")
    rows: list[list[str]] = []
    row: list[str] = []
    cell, quoted, position = "", False, 0
    while position < len(text):
        letter = text[position]
        if quoted and letter == '"' and text[position + 1 : position + 2] == '"':
            cell, position = cell + '"', position + 1
        elif letter == '"':
            quoted = not quoted
        elif letter == separator and not quoted:
            row, cell = [*row, cell], ""
        elif letter == "\n" and not quoted:
            rows, row, cell = [*rows, [*row, cell]], [], ""
        else:
            cell += letter
        position += 1
    assert not quoted
    assert (row, cell) == ([], "")
    assert {len(row) for row in rows} == {len(rows[0])}
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def import_to_canvas(file: Path, separator: str = ",") -> tuple[str, str, dict[str, str]]:
    """Read a file as Canvas's importer does. Return the assignment's title, its maximum points and the grade for each ID."""
    rows = read_csv(file, separator)
    columns = list(rows[0])
    assert columns[0] == "Student"
    assert columns[1] == "ID"
    section = columns.index("Section")
    assert len(columns) == section + 2 > 3
    (title,) = columns[section + 1 :]
    possible = [row[title] for row in rows if "Points Possible" in row["Student"]]
    grades = {row["ID"]: row[title] for row in rows if row["ID"]}
    assert all(value in ("", "EX") or float(value) >= 0 for value in grades.values())
    return title, possible[0], grades


def import_to_moodle(file: Path) -> dict[str, str]:
    """Read a worksheet as Moodle's `importgradeslib.php` does. Return the grade for each participant."""
    rows = read_csv(file)
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(rows[0])
    return {row["Identifier"].removeprefix("Participant "): row["Grade"] for row in rows}


# ---- Canvas


CLASS = [
    marks("in/lovelaceada_12345_67890_day1.ipynb", "ada", 93.5),
    marks("in/oneilbyronrobert_LATE_12346_67891_day1.ipynb", "bob", 80),
]


def test_canvas_fills_in_an_exported_gradebook(day: Day) -> None:
    with_roster(day)
    gradebook, out = written(day, "grades.csv", GRADEBOOK), day.root / "out.csv"
    notes = export(day, "canvas", CLASS, out, into=gradebook)
    title, possible, grades = import_to_canvas(out)
    assert (title, possible) == ("Day 1: attention (901)", "50")
    # bob and cyd form one group. Students without a submission keep their old marks.
    assert grades == {"12345": "46.75", "12346": "40", "12347": "40", "12399": "31", "12400": ""}
    before = read_csv(gradebook)
    for old, new in zip(before, read_csv(out), strict=True):
        for column in ("Student", "ID", "SIS User ID", "SIS Login ID", "Section"):
            assert new[column] == old[column]
    assert any("50 points in Canvas and 100 here" in note for note in notes)
    assert any("bob: marked late, but the student has an extension" in note for note in notes)
    assert any("on the roster have no submission (1): dora" in note for note in notes)
    assert f"these students in {gradebook} have no submission (1): Eve" in notes
    label = "bob (O'Neil-Bÿron, Róbert, 12346)"
    assert any(
        f"these grades in {gradebook} change (2): {label}: 12.5 → 40; cyd" in note for note in notes
    )


def test_without_a_roster_canvas_uses_the_students_of_the_gradebook(late_day: Day) -> None:
    raw = [
        marks("in/lovelaceada_12345_67890_day1.ipynb", "lovelaceada", 93.5),
        marks("in/oneilbÿronróbert_LATE_12346_67891_day1.ipynb", "oneilbÿronróbert", 80),
        marks("in/mallory_666_67891_day1.ipynb", "mallory", 80),
    ]
    text = "\n".join(";".join(f'"{c}"' for c in row) for row in csv.reader(io.StringIO(GRADEBOOK)))
    gradebook, out = written(late_day, "grades.csv", text + "\n", "\ufeff"), late_day.root / "o.csv"
    notes = export(late_day, "canvas", raw, out, into=gradebook)
    _, _, grades = import_to_canvas(out, ";")
    assert grades == {"12345": "46.75", "12346": "36", "12347": "EX", "12399": "31", "12400": ""}
    assert any("mallory" in note and "not in" in note for note in notes)


def test_marks_are_not_entered_for_a_namesake_with_another_id(day: Day) -> None:
    eve = marks("in/lovelaceada_12344_67890_day1.ipynb", "lovelaceada", 93.5)
    gradebook, out = written(day, "grades.csv", GRADEBOOK), day.root / "o.csv"
    notes = export(day, "canvas", [eve], out, into=gradebook)
    assert import_to_canvas(out)[2]["12345"] == ""
    assert any("lovelaceada (12344) is not in" in note for note in notes)
    # Without a roster, the notes name the gradebook as the source of the names.
    assert any(note.startswith(f"these students in {gradebook} have no") for note in notes)
    assert not any("on the roster" in note for note in notes)


def test_the_roster_joins_ids_of_several_systems(day: Day) -> None:
    text = "id,student,name,moodle,canvas\nu7,ada,Ada Lovelace,51,12345\n"
    (day.root / "roster.csv").write_text(text, encoding="utf-8")
    gradebook, out = written(day, "grades.csv", GRADEBOOK), day.root / "o.csv"
    moodle = marks("in/Ada Lovelace_51_assignsubmission_file_/day1.ipynb", "Ada Lovelace", 90)
    export(day, "canvas", [moodle], out, into=gradebook)
    assert import_to_canvas(out)[2]["12345"] == "45"


def test_a_student_who_is_not_on_the_roster_has_the_id_from_canvas(day: Day) -> None:
    gradebook, out = written(day, "grades.csv", GRADEBOOK), day.root / "o.csv"
    export(day, "canvas", CLASS[:1], out, into=gradebook)
    assert import_to_canvas(out)[2]["12345"] == "46.75"
    export(day, "canvas", CLASS[:1], out)
    assert import_to_canvas(out)[2] == {"12345": "93.5"}
    export(day, "csv", CLASS[:1], out)
    assert [row["id"] for row in read_csv(out)] == ["12345"]


def test_a_new_gradebook_is_written_for_canvas(day: Day) -> None:
    with_roster(day)
    out = day.root / "out.csv"
    export(day, "canvas", CLASS, out)
    title, possible, grades = import_to_canvas(out)
    assert (title, possible) == ("A small day", "100")
    assert grades == {"12345": "93.5", "12346": "80", "12347": "80", "12348": ""}
    assert "Bÿron, Róbert" in read_csv(out)[2]["Student"]


COLUMNS = {
    "none": ("Day 1: attention (901)", "Homework (901)", "no column matches"),
    "several": ("Day 2 (902)", "Day 1 again (902)", "several columns match"),
    "not a gradebook": (
        "Section",
        "Group",
        "is not a Canvas gradebook: it has no column 'Section'",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), COLUMNS.values(), ids=COLUMNS)
def test_an_ambiguous_canvas_column_is_an_error(day: Day, old: str, new: str, message: str) -> None:
    gradebook = written(day, "grades.csv", GRADEBOOK.replace(old, new))
    with pytest.raises(CourseError, match=message):
        export(day, "canvas", CLASS, day.root / "out.csv", into=gradebook)
    assert not (day.root / "out.csv").exists()


def test_the_canvas_column_can_be_chosen(day: Day) -> None:
    gradebook = written(day, "grades.csv", GRADEBOOK.replace("Day 1: attention", "Homework, 1st"))
    for name in ("Homework, 1st", "Homework, 1st (901)"):
        text = GRADEBOOK.replace("Day 1: attention (901)", '"Homework, 1st (901)"')
        gradebook.write_text(text, encoding="utf-8")
        export(day, "canvas", CLASS, day.root / "out.csv", into=gradebook, column=name)
        assert import_to_canvas(day.root / "out.csv")[2]["12345"] == "46.75"


# ---- Moodle


def test_only_grades_change_in_moodles_worksheet(day: Day) -> None:
    with_roster(day)
    worksheet, out = written(day, "sheet.csv", WORKSHEET, "\ufeff"), day.root / "out.csv"
    raw = [
        marks("in/Somebody_51_assignsubmission_file_/day1.ipynb", "Somebody", 93.5),
        marks("in/bob/day1.ipynb", "bob", 80),
    ]
    notes = export(day, "moodle", raw, out, into=worksheet)
    assert import_to_moodle(out) == {"51": "9.35", "52": "8", "53": ""}
    assert any("does not allow changes" in note and "cyd" in note for note in notes)
    before = list(csv.DictReader(io.StringIO(WORKSHEET, newline="")))
    for old, new in zip(before, read_csv(out), strict=True):
        assert {**new, "Grade": ""} == {**old, "Grade": ""}


def test_a_long_text_of_one_student_does_not_block_the_worksheet(day: Day) -> None:
    with_roster(day)
    csv.field_size_limit(131_072)  # the default
    text = WORKSHEET.replace("<p>a,", "<p>" + "a" * 1_000_000)
    out = day.root / "out.csv"
    raw = [marks("in/Somebody_51_assignsubmission_file_/day1.ipynb", "Somebody", 93.5)]
    export(day, "moodle", raw, out, into=written(day, "sheet.csv", text))
    assert import_to_moodle(out)["51"] == "9.35"


def test_moodles_grade_import(day: Day) -> None:
    with_roster(day)
    export(day, "moodle", CLASS, day.root / "out.csv")
    rows = read_csv(day.root / "out.csv")
    assert [(row["ID number"], row["A small day"]) for row in rows] == [
        ("12345", "93.5"),
        ("12346", "80"),
        ("12347", "80"),
        ("12348", "-"),
    ]
    assert rows[0]["Email address"] == "ada@example.org"
    assert rows[3]["Full name"] == '王 "小" 明'


def test_moodles_grade_import_contains_no_participant_numbers(day: Day) -> None:
    (day.root / "roster.csv").write_text("id,student,name,email\n51,ada,Ada Lovelace,\n")
    class_ = [
        marks("in/Ada Lovelace_51_assignsubmission_file_/day1.ipynb", "Ada Lovelace", 93.5),
        marks("in/Li Wei_52_assignsubmission_file_/day1.ipynb", "Li Wei", 80),
        marks("in/Li Wei_53_assignsubmission_file_/day1.ipynb", "Li Wei", 70),
    ]
    notes = export(day, "moodle", class_, day.root / "out.csv")
    assert {row["ID number"] for row in read_csv(day.root / "out.csv")} == {""}
    (note,) = [note for note in notes if "Moodle cannot import" in note]
    assert "(3): ada (Ada Lovelace, 51), Li Wei (52), Li Wei (53). " in note
    assert "--into worksheet.csv" in note


def test_submissions_in_the_worksheet_that_have_no_marks_are_named(day: Day) -> None:
    text = WORKSHEET.replace("No submission,,", "Submitted for grading,,")
    sheet = written(day, "sheet.csv", text)
    raw = [marks("in/Ada_51_assignsubmission_file_/day1.ipynb", "Ada", 93.5)]
    notes = export(day, "moodle", raw, day.root / "out.csv", into=sheet)
    (note,) = [note for note in notes if "but they have no marks" in note]
    assert "(1): Somebody Else (Participant 53). Unless you deleted their marks with " in note
    assert "`autograder forget`, look at these submissions in Moodle" in note
    absent = (
        f"these students in {sheet} have no submission (1): O'Neil-Bÿron, Róbert (Participant 52)"
    )
    assert absent in notes


def test_students_in_the_worksheet_without_a_submission_are_named_once(day: Day) -> None:
    sheet = written(day, "sheet.csv", WORKSHEET)
    out = day.root / "out.csv"
    raw = [marks("in/Ada_51_assignsubmission_file_/day1.ipynb", "Ada", 93.5)]
    names = "(2): O'Neil-Bÿron, Róbert (Participant 52); Somebody Else (Participant 53)"
    notes = export(day, "moodle", raw, out, into=sheet)
    assert f"these students in {sheet} have no submission {names}" in notes
    # The roster note already lists the students on the roster.
    with_roster(day)
    notes = export(day, "moodle", raw, out, into=sheet)
    assert not [note for note in notes if note.startswith("these students in ")]
    (note,) = [note for note in notes if "on the roster have no submission" in note]
    assert "bob" in note
    assert "cyd" in note
    # With blind marking, the worksheet contains no names.
    blind = "\n".join(
        f"Participant {n},{status},,10.00,-,-"
        for n, status in ((51, "Submitted"), (52, "No submission"))
    )
    head = (
        "Identifier,Status,Grade,Maximum Grade,Last modified (submission),Last modified (grade)\n"
    )
    sheet = written(day, "sheet.csv", head + blind + "\n")
    notes = export(day, "moodle", raw, out, into=sheet)
    assert f"these students in {sheet} have no submission (1): Participant 52" in notes


NAMESAKES = {
    "a file with the student's name": "in/adalovelace/day1.ipynb",
    "a download from Canvas": "in/adalovelace_4211_880011_day1.ipynb",
}


@pytest.mark.parametrize("path", NAMESAKES.values(), ids=NAMESAKES)
def test_only_the_submission_with_the_participant_number_is_entered(path: str, day: Day) -> None:
    numbered = marks("in/Ada Lovelace_51_assignsubmission_file_/day1.ipynb", "Ada Lovelace", 50)
    other = marks(path, "adalovelace", 90)
    sheet, out = written(day, "sheet.csv", WORKSHEET), day.root / "out.csv"
    for class_ in ([numbered, other], [other, numbered]):
        notes = export(day, "moodle", class_, out, into=sheet)
        assert import_to_moodle(out)["51"] == "5"
        assert any(note.startswith("adalovelace") and "is not in" in note for note in notes)


def test_only_the_submission_with_the_id_of_the_gradebook_is_entered(day: Day) -> None:
    numbered = marks("in/lovelaceada_12345_67890_day1.ipynb", "lovelaceada", 50)
    other = marks("in/Ada Lovelace_51_assignsubmission_file_/day1.ipynb", "Ada Lovelace", 90)
    gradebook, out = written(day, "grades.csv", GRADEBOOK), day.root / "o.csv"
    for class_ in ([numbered, other], [other, numbered]):
        notes = export(day, "canvas", class_, out, into=gradebook)
        assert import_to_canvas(out)[2]["12345"] == "25"
        assert any(note.startswith("Ada Lovelace (51) is not in") for note in notes)


def test_submissions_from_several_systems_are_joined_by_the_roster(day: Day) -> None:
    text = "id,student,name,canvas,moodle_day1\n1,ada,Ada Lovelace,12345,51\n"
    (day.root / "roster.csv").write_text(text, encoding="utf-8")
    class_ = [
        marks("in/lovelaceada_12345_67890_day1.ipynb", "lovelaceada", 50),
        marks("in/Ada Lovelace_51_assignsubmission_file_/day1.ipynb", "Ada Lovelace", 90),
    ]
    sheet, out = written(day, "sheet.csv", WORKSHEET), day.root / "out.csv"
    notes = export(day, "moodle", class_, out, into=sheet)
    assert import_to_moodle(out)["51"] == "9"
    assert any(
        "ada has 2 submissions; in/Ada Lovelace_51" in note and "do not: in/lovelaceada_1" in note
        for note in notes
    )


@pytest.mark.parametrize("to", ["canvas", "moodle"])
def test_no_note_gives_the_points_of_a_stranger_without_a_grade(to: Format, day: Day) -> None:
    text = GRADEBOOK if to == "canvas" else WORKSHEET
    table = written(day, "table.csv", text)
    graded = marks("in/emil/day1.ipynb", "emil", 50)
    unread = msgspec.structs.replace(graded, exercises=[], points=None)
    for one, expected in ((graded, ["emil is not in"]), (unread, [])):
        notes = export(day, to, [one], day.root / "out.csv", into=table)
        found = [note[:14] for note in notes if "were not entered" in note]
        assert found == expected


def test_a_file_that_is_not_a_worksheet_is_refused(day: Day) -> None:
    sheet = written(day, "sheet.csv", WORKSHEET.replace("Identifier", "Kennung"))
    with pytest.raises(CourseError, match="no column 'Identifier'"):
        export(day, "moodle", CLASS, day.root / "out.csv", into=sheet)


# ---- Gradescope


def test_gradescope_results_of_a_late_group(late_day: Day) -> None:
    with_roster(late_day)
    folder = late_day.root / "in"
    write(folder, {"submission_metadata.yml": METADATA.encode()})
    group = marks(f"{folder}/submission_71/day1.ipynb", "Ada Lovelace, Róbert", 80, "cell 3: odd")
    out = late_day.root / "out"
    export(late_day, "gradescope", [group], out)
    # bob has a 48-hour extension, but cyd, who is in the same group, has none.
    assert sorted(file.name for file in out.iterdir()) == ["ada.json", "bob.json", "cyd.json"]
    ada, bob, cyd = (json.loads((out / f"{n}.json").read_text()) for n in ("ada", "bob", "cyd"))
    assert (ada["score"], bob["score"], cyd["score"]) == (64, 80, 64)
    assert "2 days late: 80 points − 20% = 64 points." in ada["output"]
    assert "cell 3: odd" in bob["output"]
    for results in (ada, bob):
        for test, most, name in zip(
            results["tests"], (60, 40), ("padding_mask", "split_heads"), strict=True
        ):
            assert test["name"] == name
            assert 0 <= test["score"] <= test["max_score"] == most
            assert test["status"] == ("passed" if test["score"] == most else "failed")
            assert isinstance(test["output"], str)
        assert results["output_format"] == "text"


# ---- submissions that could not be graded


def unreadable(path: str, student: str) -> SubmissionMarks:
    found = marks(path, student, problem="the file is empty")
    return msgspec.structs.replace(found, points=None, exercises=[])


def test_a_submission_that_could_not_be_graded_has_no_grade_unless_the_ta_asks_for_zero(
    day: Day,
) -> None:
    with_roster(day)
    class_ = [CLASS[0], unreadable("in/bob.ipynb", "bob")]
    gradebook, sheet = written(day, "g.csv", GRADEBOOK), written(day, "w.csv", WORKSHEET)
    out = day.root / "out.csv"

    def exported(to: Format, into: Path | None = None, zero: float | None = None) -> list[str]:
        notes = export(day, to, class_, out, into=into, unreadable=zero)
        grade = "no grade" if zero is None else "0 points"
        assert f"bob (O'Neil-Bÿron, Róbert, 12346): {grade}, because the file is empty" in notes
        keys = {"ID": "12346", "student": "bob", "student_id": "bob", "ID number": "12346"}
        for row in read_csv(out):
            if any(row.get(key) == value for key, value in keys.items()):
                return [row[name] for name in ("points", "score", "A small day") if name in row]
        return []

    assert exported("csv") == exported("nbgrader") == exported("canvas") == [""]
    assert exported("moodle") == ["-"]
    for to in ("csv", "nbgrader", "canvas", "moodle"):
        assert exported(to, zero=0.0) == ["0"]
    kept = "are kept, because the submissions have no grade"
    label = "bob (O'Neil-Bÿron, Róbert, 12346)"
    notes = export(day, "canvas", class_, out, into=gradebook)
    assert any(f"{gradebook} {kept} (2): {label}: 12.5; cyd" in note for note in notes)
    assert import_to_canvas(out)[2]["12346"] == "12.5"
    export(day, "canvas", class_, out, into=gradebook, unreadable=0.0)
    assert import_to_canvas(out)[2]["12346"] == "0"
    notes = export(day, "moodle", class_, out, into=sheet)
    assert f"these grades in {sheet} {kept} (1): {label}: 4.00" in notes
    assert import_to_moodle(out)["52"] == "4.00"
    export(day, "gradescope", class_, day.root / "results")
    assert [file.name for file in (day.root / "results").iterdir()] == ["ada.json"]


# ---- CSV


def test_the_columns_match_nbgraders_own_export(late_day: Day) -> None:
    with_roster(late_day)
    folder = late_day.root / "submitted" / "ada" / "day1"
    write(folder, {"timestamp.txt": b"2026-11-30 12:30:00.000000 UTC"})
    export(late_day, "nbgrader", [marks(f"{folder}/day1.ipynb", "ada", 93.5)], late_day.root / "o")
    ada, bob, _, _ = read_csv(late_day.root / "o")
    assert ada == {
        "assignment": "day1",
        "duedate": "2026-11-30 12:00:00",
        "timestamp": "2026-11-30 12:30:00",
        "student_id": "ada",
        "last_name": "Lovelace",
        "first_name": "Ada",
        "email": "ada@example.org",
        "raw_score": "93.5",
        "late_submission_penalty": "9.35",
        "score": "84.15",
        "max_score": "100",
    }
    assert (bob["first_name"], bob["last_name"]) == ("Róbert", "O'Neil-Bÿron")
    assert (bob["timestamp"], bob["raw_score"], bob["score"]) == ("", "0", "0")


def test_csv_has_a_column_per_exercise_and_no_formula(day: Day) -> None:
    with_roster(day)
    odd = '@SUM(1), "quoted"\nline\ttab'
    export(day, "csv", [marks("in/ada.ipynb", "ada", 93.5, odd)], day.root / "out.csv")
    ada, _, cyd, dora = read_csv(day.root / "out.csv")
    assert (ada["points"], ada["padding_mask"], ada["split_heads"]) == ("93.5", "53.5", "40")
    assert ada["problems"] == f"'{odd}"
    assert cyd["name"].startswith("'=HYPERLINK")
    assert (dora["name"], dora["points"], dora["split_heads"]) == ('王 "小" 明', "", "")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_formulas_in_names_are_escaped_in_every_format(day: Day, begin: str) -> None:
    name = f"{begin}cmd|' /C calc'!A0"
    sheet = io.StringIO(newline="")
    csv.writer(sheet).writerows([["id", "student", "name"], ["-7", "ada", f"x{name}"]])
    (day.root / "roster.csv").write_text(sheet.getvalue(), encoding="utf-8", newline="")
    entry = rosters.for_course(day.root).entries[0]
    day.root.joinpath("roster.csv").unlink()
    hostile = [marks("in/x.ipynb", name, 50)]
    assert entry.id == "-7"
    for to in ("canvas", "moodle", "nbgrader", "csv"):
        export(day, to, hostile, day.root / "out.csv")
        rows = read_csv(day.root / "out.csv")
        cells = [cell for row in rows for cell in row.values()]
        assert any("cmd|" in cell for cell in cells)
        for cell in cells:
            assert not cell.startswith(begin) or cell.replace("-", "").isdigit()


# ---- matching submissions with students


def test_notes_list_strangers_and_missing_submissions(day: Day) -> None:
    with_roster(day)
    class_ = [marks("in/adda_99_67890_day1.ipynb", "lovelaceadda"), marks("in/bob.ipynb", "bob")]
    class_[0] = marks("in/lovelaceadda_99999_67890_day1.ipynb", "lovelaceadda")
    rows, notes = results_and_notes(class_, day, rosters.for_course(day.root))
    assert notes[0] == NEW_ROSTER
    assert notes[1] == "these students are not on the roster (1): lovelaceadda (99999)"
    assert notes[2].startswith(
        "these students on the roster have no submission (2): ada (Ada Lovelace, 12345); dora"
    )
    assert [row.entry.student for row in rows] == [
        "ada",
        "bob",
        "cyd",
        "dora",
        "lovelaceadda (99999)",
    ]


def test_the_latest_submission_counts_if_all_times_are_known(late_day: Day) -> None:
    known = Roster((Entry("12345", "ada", "Ada Lovelace"),))
    better, worse = marks("in/a.ipynb", "ada", 90), marks("in/b.ipynb", "ada", 50)
    (row,), (note, unknown) = results_and_notes([worse, better], late_day, known)
    assert row.marks == better
    assert unknown.endswith("(1): ada. Enter late_hours_day1 in roster.csv")
    assert (
        "ada has 2 submissions; in/a.ipynb counts (90 points), and these do not: in/b.ipynb" in note
    )
    for name, time in (("first", DUE - timedelta(2)), ("second", DUE - timedelta(1))):
        folder = late_day.root / name / "submitted" / "ada" / "day1"
        write(folder, {"timestamp.txt": str(time).encode()})
    first, second = (
        marks(f"{late_day.root}/{name}/submitted/ada/day1/day1.ipynb", "ada", points)
        for name, points in (("first", 90.0), ("second", 50.0))
    )
    (row,), _ = results_and_notes([first, second], late_day, known)
    assert row.marks == second


def test_a_note_about_unknown_times_says_where_to_find_them(late_day: Day) -> None:
    def note(path: str, student: str = "ada", points: float | None = 90) -> str:
        one = msgspec.structs.replace(marks(path, student), points=points)
        return "".join(results_and_notes([one], late_day, NO_ROSTER)[1])

    assert "top folder must be named `submitted`" in note("class/ada/day1/day1.ipynb")
    assert "submitted/STUDENT/day1/timestamp.txt" in note("submitted/ada/day1/day1.ipynb")
    moodle = note("in/Ada_51_assignsubmission_file_/day1.ipynb", "Ada")
    assert "pass it with --worksheet, or enter late_hours_day1 in roster.csv" in moodle
    # Canvas flags late files, and there is nothing to deduct from a text entry.
    assert (
        note("in/ada_12345_67890_day1.ipynb") == note("in/ada_12345_text.html", "ada", None) == ""
    )


def test_a_renamed_student_does_not_count_twice(tmp_path: Path) -> None:
    on = Basis("day1", "code", "course", "autograder", "seed", "limits")
    old, new = marks("in/a_1_23456_x.py", "lovelaceada"), marks("in/a_1_23456_x.py", "ada")
    with History(tmp_path) as history:
        history.add(on, old, Path("in"))
        history.add(on, new, Path("in"))
        history.add(on, marks("in/b.py", "bob"), Path("in"))
        assert [kept.student for kept in history.current("day1")] == ["ada", "bob"]


def test_marks_of_one_file_under_two_names_are_one_submission(day: Day) -> None:
    with_roster(day)
    path = "in/lovelaceada_12345_67890_day1.ipynb"
    old, new = marks(path, "lovelaceada", 90), marks(path, "ada", 70)
    rows, notes = results_and_notes([old, new], day, rosters.for_course(day.root))
    assert rows[0].marks == old
    assert not any("2 submissions" in note for note in notes)


def test_the_path_of_stored_marks_does_not_identify_the_student(late_day: Day) -> None:
    """A path can contain names chosen by a student, so the student and submission time must not be read from the stored path."""
    with_roster(late_day)
    path = "in/eve/lovelaceada_LATE_12345_67890_day1.ipynb"
    eve = msgspec.structs.replace(marks(path, "eve", 50), handed_in=None)
    rows, notes = results_and_notes([eve], late_day, rosters.for_course(late_day.root))
    assert [row.entry.student for row in rows if row.marks] == ["eve"]
    assert rows[-1].late.days == 0
    assert "these students are not on the roster (1): eve" in notes


def test_owner_and_time_are_stored_with_the_marks() -> None:
    late = CLASS[1]
    assert late.handed_in is not None
    assert late.handed_in.late
    encoded = b"".join(given.encode("day1", CLASS))
    assert given.decode(encoded, "day1").submissions == CLASS
    alone = msgspec.structs.replace(late, handed_in=None)
    older = b"".join(given.encode("day1", [alone]))
    assert b"handed_in" not in older
    assert given.decode(older, "day1").submissions == [alone]


# ---- end to end


@pytest.mark.slow
def test_a_canvas_download_becomes_a_canvas_gradebook_and_pages(tmp_path: Path, run: Run) -> None:
    root = make(tmp_path / "course")
    files = {
        "lovelaceada_12345_67890_day1.py": RIGHT.encode(),
        "oneilbÿronróbert_LATE_12346_67891_mine-2.py": WRONG.encode(),
    }
    write(root, {"submissions.zip": zipped(files), "gradebook.csv": GRADEBOOK.encode()})
    with (root / "grading.toml").open("a") as toml:
        toml.write("\n[late]\npercent_per_day = 10\n")
    (root / "roster.csv").write_text(ROSTER.replace(";48", ";"), encoding="utf-8")
    graded = run(root, "grade", "day1", "submissions.zip", "--feedback", "pages", "--all-notes")
    assert graded.returncode == 0, graded.stderr
    assert "54 (1 day late)" in graded.stdout
    assert "on the roster have no submission (1): dora" in graded.stderr
    pages = {file.stem: file.read_text() for file in (root / "pages").iterdir()}
    assert sorted(pages) == ["ada", "bob", "cyd"]  # cyd is in bob's group
    assert all("60 points − 10% = 54 points." in pages[name] for name in ("bob", "cyd"))
    results = run(root, "export", "day1", "--to", "gradescope", "--out", "results").stdout
    assert "copy it to /autograder/results/results.json. For a table of all points, use" in results
    into = ["--to", "canvas", "--into", "gradebook.csv", "--out", "marks.csv"]
    exported = run(root, "export", "day1", *into)
    assert exported.returncode == 0, exported.stderr
    assert (
        exported.stdout == "wrote marks.csv. In Canvas, open the gradebook and choose “Import”.\n"
    )
    _, _, grades = import_to_canvas(root / "marks.csv")
    assert grades == {"12345": "50", "12346": "27", "12347": "27", "12399": "31", "12400": ""}
    again = run(root, "regrade", "day1")
    assert "points change in 0 of 2 submissions" in again.stdout


USAGE = {
    "an unknown format": (["--to", "excel", "--out", "x"], "'excel'"),
    "no marks": (["--to", "csv", "--out", "x.csv"], "no marks for day1"),
    "no folder": (["--to", "csv", "--out", "no/x.csv"], "cannot be written"),
    "a file to fill in for a format without one": (
        ["--to", "csv", "--out", "x.csv", "--marks", "marks.json", "--into", "marks.json"],
        "--into works only with canvas and moodle",
    ),
    "the gradebook as output": (
        ["--to", "canvas", "--out", "marks.json", "--marks", "marks.json", "--into", "marks.json"],
        "--out would overwrite marks.json, the --into file",
    ),
    "a column for a new file": (
        ["--to", "canvas", "--out", "x.csv", "--marks", "marks.json", "--column", "Homework 1"],
        "--column works only with --to canvas and --into",
    ),
    "an invalid roster": (
        ["--to", "csv", "--out", "x.csv", "--marks", "marks.json", "--roster", "marks.json"],
        "line 1: column 'id' is missing",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE)
def test_incorrect_usage_prints_a_message_and_writes_nothing(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = make(tmp_path / "course")
    (root / "marks.json").write_bytes(b"".join(given.encode("day1", CLASS)))
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["autograder", "export", "day1", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert message in printed.err
    assert not list(root.glob("x*"))


# ---- spreadsheet formulas

FORMULAS = [
    "=HYPERLINK(A1)",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "＝1+1",
    "＠a",
    ' "=1"',
    "\u200b=1",
    "\x01=1",
]


def split_as(text: str, separator: str) -> list[str]:
    """Parse CSV text with quoting and, unless the separator is a comma, also without quoting. Return the cells from both."""
    quoted = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    plain = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=csv.QUOTE_NONE)
    return [cell for row in quoted for cell in row] + [
        cell for row in plain if separator != "," for cell in row
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "before", ["", "a;", "a; ", "a\t", "a|", "a\n", "a\r", "a;\t ", '";"', "a\u2028"]
)
def test_no_cell_is_a_formula_for_any_separator(before: str, separator: str) -> None:
    for formula in FORMULAS:
        text = csv_table.to_csv([["student", "problems"], ["ada", before + formula]])
        for cell in split_as(text, separator):
            bare = cell.strip(' \t\r\n"\u200b\u2028\x01')
            assert not bare.startswith(("=", "+", "-", "@", "＝", "＠")), (text, cell)


@pytest.mark.parametrize(
    "name", ["O'Neil; Jr", "Ada Lovelace-Byron", "Åsa | B", "a; b; -", "x - y"]
)
def test_names_without_a_formula_are_unchanged(name: str) -> None:
    expected = name.replace("; -", "; '-")
    assert list(csv.reader(io.StringIO(csv_table.to_csv([[name, "1"]])))) == [[expected, "1"]]


def test_an_export_with_very_long_text_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text(
        csv_table.to_csv([["a", "b"], ["x" * 1_000_000, "=1;" * 100_000]]), encoding="utf-8"
    )
    assert len(csv_table.read(file, "a table").rows) == 1
