"""Test that the table, feedback pages, report and exports agree on the final points, whether Moodle or a TA reports lateness."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pytest

from autograder.course.config import CourseError
from autograder.course.late_policy import Policy, lateness
from autograder.submissions import roster as rosters
from tests.conftest import Run
from tests.small_course import RIGHT, make

LATE = "\n[late]\npercent_per_day = 10\n[day1.late]\ndue = 2026-12-01T23:59:00+01:00\n"
HEAD = "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Last modified (submission),Last modified (grade)\n"
# The submission time, as Moodle's English language packs format it, and the final points.
TIMES = {
    ("41", "Ada Lovelace"): ("Tuesday, 1 December 2026, 10:03 PM", 100),
    ("42", "Ada Lovelace"): ("Wednesday, 2 December 2026, 12:05 AM", 90),
    ("43", "Bob Byron"): ("Thursday, December 3, 2026, 11:58 PM", 80),
    ("44", "Cyd"): ("Thursday, 3 December 2026, 23:59", 80),
}


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Return the folder of a course with a late policy, a Moodle download and Moodle's grading worksheet."""
    root = make(tmp_path / "course")
    with (root / "grading.toml").open("a") as toml:
        toml.write(LATE)
    with zipfile.ZipFile(root / "m.zip", "w") as archive:
        for number, (participant, name) in enumerate(TIMES):
            folder = f"{name}_{participant}_assignsubmission_file"
            archive.writestr(f"{folder}/day1.py", f"{RIGHT}\nX = {number}\n")
    lines = [
        f'Participant {participant},{name},,Submitted for grading,,100.00,"{time}",-'
        for (participant, name), (time, _) in TIMES.items()
    ]
    (root / "sheet.csv").write_text(HEAD + "\n".join([*lines, "Participant 45,Dan,,,,100.00,-,-"]))
    return root


def final_points(root: Path, run: Run) -> dict[str, dict[str, float]]:
    """Return each participant's final points as shown in the CSV file, the worksheet, the report and the feedback page."""
    for to, more in (("csv", ()), ("moodle", ("--into", "sheet.csv"))):
        done = run(root, "export", "day1", "--to", to, *more, "--out", f"{to}.csv")
        assert done.returncode == 0, done.stderr
    assert run(root, "report", "day1", "--out", "report").returncode == 0
    assert run(root, "feedback", "day1", "--for", "moodle", "--out", "f.zip").returncode == 0
    found: dict[str, dict[str, float]] = {participant: {} for participant, _ in TIMES}

    def read(file: str) -> list[dict[str, str]]:
        with (root / file).open(newline="", encoding="utf-8-sig") as opened:
            return list(csv.DictReader(opened))

    for participant, name in TIMES:
        label = f"{name} ({participant})"
        for file in ("csv.csv", "report/submissions.csv"):
            (row,) = [row for row in read(file) if row["student"] == label]
            found[participant][file] = float(row["points"])
        (row,) = [r for r in read("moodle.csv") if r["Identifier"] == f"Participant {participant}"]
        found[participant]["worksheet"] = float(row["Grade"])
    with zipfile.ZipFile(root / "f.zip") as archive:
        for file in archive.namelist():
            text = archive.read(file).decode()
            shown = text.partition('<p class="points">')[2].partition(" of ")[0]
            found[file.split("_")[1]]["page"] = float(shown)
    return found


@pytest.mark.slow
def test_moodles_worksheet_decides_lateness_everywhere(course: Path, run: Run) -> None:
    done = run(course, "grade", "day1", "m.zip")
    assert "whose times are unknown (4): " in done.stderr
    done = run(course, "grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    assert done.returncode == 0, done.stderr
    assert (
        "4 submission times were read from sheet.csv and assumed to be in UTC+01:00, like `due`"
        in done.stdout
    )
    assert "not applied" not in done.stderr
    assert "90 (1 day late)" in done.stdout
    shown = final_points(course, run)
    for (participant, _), (_, points) in TIMES.items():
        assert len(shown[participant]) == 4
        assert set(shown[participant].values()) == {points}, shown[participant]
    assert "1 day late (−10%): 90 points" in run(course, "explain", "day1", "42").stdout
    # A corrected time counts at once.
    sheet = course / "sheet.csv"
    text = sheet.read_text()
    sheet.write_text(
        text.replace("Thursday, 3 December 2026, 23:59", "Friday, 4 December 2026, 23:59")
    )
    done = run(course, "grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    assert "70 (3 days late)" in done.stdout
    sheet.write_text(text)
    assert "1 day late" in run(course, "grade", "day1", "m.zip", "--worksheet", "sheet.csv").stdout
    # The times are kept when the class is graded again without the worksheet.
    done = run(course, "grade", "day1", "m.zip", "--json", "m.json")
    assert "90 (1 day late)" in done.stdout
    marks = json.loads((course / "m.json").read_text())["submissions"]
    assert all("time" in one["handed_in"] for one in marks)


def test_a_ta_can_enter_lateness_for_a_day_and_excuse_it(tmp_path: Path) -> None:
    file = tmp_path / "roster.csv"
    head = "id,student,name,late_hours,late_hours_day2,excused_day1\n"
    file.write_text(f'{head}1,ada,Ada,"1,5",,\n2,bob,Bob,30,,yes\n3,cyd,Cyd,,5,no\n')
    ada, bob, cyd = rosters.load(file).entries
    assert [e.hours_late("day1") for e in (ada, bob, cyd)] == [1.5, 30, None]
    assert cyd.hours_late("day2") == 5
    assert [e.is_excused("day1") for e in (ada, bob, cyd)] == [False, True, False]
    assert not bob.is_excused("day2")
    policy = Policy(percent_per_day=10)
    assert lateness(policy, None, False, hours=30).percent == 20
    assert lateness(policy, None, True, hours=0).days == 0
    excused = lateness(policy, None, True, hours=30, is_excused=True)
    assert (excused.days, excused.reduce(50), excused.note) == (0, 50, "2 days late, but excused")


@pytest.mark.parametrize(
    ("head", "cell", "message"),
    [
        ("late_hours", "soon", "late_hours 'soon' is not a number of hours"),
        ("late_hours", "99999999999", "late_hours '99999999999' is more than 100,000 hours"),
        ("extension_day1", "100000.5", "extension_day1 '100000.5' is more than 100,000 hours"),
        ("excused_day1", "maybe", "excused_day1 'maybe' is neither yes nor no"),
        ("late_hour", "1", "Did you mean 'late_hours'"),
    ],
)
def test_an_invalid_cell_of_the_roster_is_reported(
    head: str, cell: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "roster.csv"
    file.write_text(f"id,student,name,{head}\n1,ada,Ada,{cell}\n")
    with pytest.raises(CourseError, match=message):
        rosters.load(file)
