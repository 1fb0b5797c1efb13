"""Test that all members of a team in Moodle get the team's marks, and that no other student does.

Moodle names a team's files after the team and its id (`get_student_prefix` in moodle, `mod/assign/classes/downloader.php`). Only
the worksheet's Group column, which `col_team` in `mod/assign/gradingtable.php` writes, names the members.
"""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from tests.downloads import DUE
from tests.fake_grading import book, current, use_fake_pool
from tests.small_course import make
from tests.test_store import run
from tests.test_submission import zipped
from tests.test_whole_classes import LATE, read_rows

# Each participant's number, name and team. One team's id is also the participant number of a student in a different team.
MEMBERS = [
    ("42001", "Ada Shaw", "Team Rocket"),
    ("42002", "Sam Lee", "Team Rocket"),
    ("42003", "Zoë Ünal", "R&D_2"),
    ("42004", "Cyd Wu", "Default group"),
    ("42005", "Dan Wu", "Default group"),
    ("42006", "Eve Xu", "Team Blue"),
]
PREFIXES = {
    "Team Rocket": "Team Rocket_42003",
    "R&D_2": "Ramp;D 2_78",
    "Default group": "Default group",
}
POINTS = {"Team Rocket": 50.0, "R&D_2": 40.0, "Default group": 30.0}
HOURS = {"Team Rocket": 30.0, "R&D_2": -5.0, "Default group": 3.0}
FINAL = {"42001": 40.0, "42002": 40.0, "42003": 40.0, "42004": 27.0, "42005": 27.0, "42006": None}


def download(file: Path, more: float = 0.0) -> Path:
    """Write a download in which each team earns its points plus `more`."""
    files = {
        f"{PREFIXES[team]}_assignsubmission_file/day1.ipynb": book(points + more, f"# {team}")
        for team, points in POINTS.items()
    }
    file.write_bytes(zipped(files))
    return file


def worksheet(file: Path, hours: float = 0.0, renamed: str = "") -> Path:
    """Write a worksheet in which each team submitted `hours` later. The name of the team `renamed` has changed."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    head = (
        "Identifier,Full name,Email address,Status,Group,Grade,Maximum Grade,Grade can be changed"
    )
    rows.writerow(f"{head},Last modified (submission),Last modified (grade)".split(","))
    for number, name, team in MEMBERS:
        status, when = "No submission", "-"
        if team in HOURS:
            time = DUE + timedelta(hours=HOURS[team] + hours)
            status, when = "Submitted for grading", f"{time:%A, %d %B %Y, %I:%M %p}"
        group = "Team Green" if team == renamed else team
        who = [f"Participant {number}", name, f"s{number}@example.org", status, group]
        rows.writerow([*who, "", "100.00", "Yes", when, "-"])
    file.write_text(out.getvalue())
    return file


class Course:
    """A course with a late policy, a download of teams and its worksheet."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.root, self._patches = make(root), (monkeypatch, capsys)
        with (root / "grading.toml").open("a") as toml:
            toml.write(LATE)
        download(root / "m.zip")
        worksheet(root / "sheet.csv")

    def fail(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command. Return its exit code, output and messages."""
        return run(self.root, *self._patches, *arguments)

    def run(self, *arguments: str) -> str:
        """Run a command that succeeds. Return everything that it prints."""
        code, out, err = self.fail(*arguments)
        assert code == 0, err
        return out + err

    def exported(self, sheet: str = "sheet.csv") -> tuple[dict[str, float | None], str]:
        """Return each participant's grade in the exported worksheet, and what `export` prints."""
        export = ("export", "day1", "--to", "moodle", "--into", sheet, "--out", "out.csv")
        text = self.run(*export)
        grades = read_rows(self.root / "out.csv", "Identifier", "Grade")
        return {who.removeprefix("Participant "): grade for who, grade in grades.items()}, text


@pytest.fixture
def course(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Course:
    use_fake_pool(monkeypatch)
    return Course(tmp_path / "course", monkeypatch, capsys)


@pytest.mark.parametrize("is_known", [True, False])
def test_all_members_get_the_marks_of_their_team(course: Course, is_known: bool) -> None:
    shown = course.run("grade", "day1", "m.zip", *(["--worksheet", "sheet.csv"] * is_known))
    assert ("times are unknown" in shown) != is_known
    grades, notes = course.exported()
    assert grades == FINAL
    assert "not entered" not in notes
    assert "Moodle skips grades that changed there after you downloaded the worksheet" in notes
    assert course.exported()[0] == FINAL
    listed = course.run("list", "day1")
    for number, name, team in MEMBERS:
        assert (f"{name} ({number})" in listed) == (team in POINTS)


def test_each_member_gets_a_page(course: Course) -> None:
    course.run("grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    course.run("feedback", "day1", "--for", "moodle")
    with zipfile.ZipFile(course.root / "feedback-day1.zip") as archive:
        pages = {name: archive.read(name).decode() for name in archive.namelist()}
    assert len(pages) == 5
    for number, name, team in MEMBERS[:5]:
        text = pages[f"{name}_{number}_assignfeedback_file_day1-feedback.html"]
        assert f'<p class="points">{FINAL[number]:g} of' in text
        assert team not in text


def test_members_replace_a_team_that_was_graded_without_a_worksheet(course: Course) -> None:
    course.run("grade", "day1", "m.zip")
    download(course.root / "new.zip", more=10.0)
    worksheet(course.root / "new.csv", hours=24.0)
    course.run("grade", "day1", "new.zip", "--worksheet", "new.csv")
    points = {team: points + 10 for team, points in POINTS.items()}
    assert current(course.root) == {
        f"{name} ({number})": points[team] for number, name, team in MEMBERS if team in points
    }
    course.run("grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    assert course.exported("new.csv")[0] == {
        **{"42001": 60 * 0.7, "42002": 60 * 0.7, "42003": 50 * 0.9},
        **{"42004": 40 * 0.8, "42005": 40 * 0.8, "42006": None},
    }


def test_a_team_that_the_worksheet_does_not_contain_gets_no_line(course: Course) -> None:
    """A team's id is not treated as a participant number, even if a student has the same number."""
    sheet = str(worksheet(course.root / "renamed.csv", renamed="Team Rocket"))
    shown = course.run("grade", "day1", "m.zip", "--worksheet", sheet)
    assert "times are unknown (1): Team Rocket (42003)" in shown
    grades, notes = course.exported(sheet)
    assert grades == {**FINAL, "42001": None, "42002": None}
    assert "Team Rocket (42003) is not in" in notes
    assert "no page" in course.run("feedback", "day1", "--for", "moodle")
    with zipfile.ZipFile(course.root / "feedback-day1.zip") as archive:
        numbers = sorted(name.split("_")[1] for name in archive.namelist())
    assert numbers == ["42003", "42004", "42005"]


def test_a_roster_with_different_groups_is_reported(course: Course) -> None:
    (course.root / "roster.csv").write_text(
        "id,student,name,moodle_day1,group\n1,ada,Ada Shaw,42001,3\n6,eve,Eve Xu,42006,3\n"
    )
    shown = course.run("grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    assert (
        "eve gets the marks of Team Rocket (42003), because roster.csv sets the group '3'" in shown
    )
    assert "ada gets the marks of" not in shown


def test_a_worksheet_of_a_different_assignment_changes_nothing(course: Course) -> None:
    course.run("grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    text = (course.root / "sheet.csv").read_text()
    (course.root / "other.csv").write_text(text.replace("Participant 42", "Participant 77"))
    export = ("export", "day1", "--to", "moodle", "--into", "other.csv", "--out", "out.csv")
    code, _, err = course.fail(*export)
    assert code == 2
    assert "contains none of the participants who submitted day1 (3)" in err
    assert not (course.root / "out.csv").exists()
    assert course.exported()[0] == FINAL
    download(course.root / "new.zip", more=10.0)
    shown = course.run("grade", "day1", "new.zip", "--worksheet", "other.csv")
    assert (
        "other.csv and the worksheet that was read before it for day1 have no participant in"
        in shown
    )
    worksheet(course.root / "new.csv", hours=24.0)
    course.run("grade", "day1", "new.zip", "--worksheet", "new.csv")
    assert course.exported("new.csv")[0] == {
        **{"42001": 60 * 0.7, "42002": 60 * 0.7, "42003": 50 * 0.9},
        **{"42004": 40 * 0.8, "42005": 40 * 0.8, "42006": None},
    }


def test_a_german_worksheet_is_rejected_with_the_remedy(course: Course) -> None:
    head = "ID;Vollständiger Name;E-Mail-Adresse;Status;Bewertung;Bestwertung\n"
    (course.root / "sheet.csv").write_text(head + "Teilnehmer/in42001;Ada Shaw;s@x.org;;;100,00\n")
    code, _, err = course.fail("grade", "day1", "m.zip", "--worksheet", "sheet.csv")
    assert code == 2
    assert "Set Moodle's language to English, and download the worksheet again" in err
