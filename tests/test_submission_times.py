"""Test submission times from Moodle's worksheets.

No file gets the time of a different file, for any combination of download and worksheet. The time zone in `grading.toml`
applies to all times, even to times that were read before the time zone was corrected.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from autograder.arguments import write_marks
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.export import moodle
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import read_times
from autograder.marks.submission_times import corrections
from autograder.stored_marks import read_class
from autograder.submissions.roster import Entry, Roster
from tests import downloads
from tests.downloads import HandIn, hand_in
from tests.fake_grading import grade, results_and_notes, session
from tests.small_course import make
from tests.test_store import run
from tests.test_whole_classes import LATE, read_rows, written

FIRST = hand_in(1, "Sam Lee", "notebook", 50.0, hours=-5.0)
SECOND = replace(hand_in(1, "Sam Lee", "notebook", 80.0), hours=30.0)  # two days late
OTHER = hand_in(2, "Ada Shaw", "notebook", 70.0, hours=-1.0)


class Course:
    """A course with a late policy, two downloads and two worksheets. Sam resubmits before the second download."""

    def __init__(self, root: Path) -> None:
        self.root = make(root)
        with (root / "grading.toml").open("a") as toml:
            toml.write(LATE)
        self.zips = [self._write(f"{n}.zip", [one, OTHER]) for n, one in enumerate((FIRST, SECOND))]
        self.sheets = [
            written(root / f"{n}.csv", downloads.worksheet([one, OTHER]))
            for n, one in enumerate((FIRST, SECOND))
        ]

    @property
    def day(self) -> Day:
        return courses.load(self.root).day("day1")

    def set_policy(self, text: str) -> None:
        """Replace the late policy in grading.toml."""
        toml = self.root / "grading.toml"
        toml.write_text(toml.read_text().split("[late]")[0] + text)

    def _write(self, name: str, class_: list[HandIn]) -> Path:
        return written(self.root / name, downloads.moodle(class_))

    def grade(self, number: int, sheet: int | None = None) -> None:
        """Grade a download, as `autograder grade day1 N.zip --worksheet M.csv` does."""
        if sheet is not None:
            moodle.store_times(self.day, self.sheets[sheet])
        grade(self.root, self.zips[number], corrects_times=sheet is not None)

    def export(self, sheet: int) -> str:
        """Read the times in a worksheet, as `autograder export day1 --into M.csv` does. Return the messages."""
        _, messages, notes = moodle.update_times(
            self.day, self.sheets[sheet], read_class(self.day), are_stored=True
        )
        return "\n".join([messages, *notes])

    def sam(self) -> tuple[float | None, float | None, str]:
        """Return Sam's points before and after the late policy, and the notes for the TA."""
        rows, notes = results_and_notes(read_class(self.day), self.day)
        (row,) = (row for row in rows if "Sam" in row.entry.label)
        assert row.marks
        return row.marks.points, row.points, "\n".join(notes)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path / "course")


def test_a_new_file_has_no_time_before_a_new_worksheet(course: Course) -> None:
    course.grade(0, sheet=0)
    assert course.sam()[:2] == (50, 50)
    for sheet in (None, 0):
        course.grade(1, sheet)
        before, after, notes = course.sam()
        assert (before, after) == (80, 80)
        assert "not applied to submissions whose times are unknown (1): Sam Lee" in notes
    course.grade(1, sheet=1)
    assert course.sam()[:2] == (80, 64)


def test_an_old_worksheet_gives_no_time_to_a_notebook_that_follows_a_document(
    course: Course,
) -> None:
    document = replace(FIRST, files={"report.docx": b"PK\x03\x04 words"})
    course.zips[0].write_bytes(downloads.moodle([document, OTHER]))
    course.grade(0, sheet=0)
    course.grade(1, sheet=0)
    before, after, notes = course.sam()
    assert (before, after) == (80, 80)
    assert "not applied to submissions whose times are unknown (1): Sam Lee" in notes
    course.export(0)
    assert "times are unknown (1): Sam Lee" in course.sam()[2]
    course.grade(1, sheet=1)
    assert course.sam()[:2] == (80, 64)


def test_an_exported_worksheet_belongs_to_a_document_that_was_graded(course: Course) -> None:
    document = replace(FIRST, files={"report.docx": b"PK\x03\x04 words"})
    course.zips[0].write_bytes(downloads.moodle([document, OTHER]))
    course.grade(0)
    course.export(0)
    course.grade(1)
    course.export(0)
    assert "times are unknown (1): Sam Lee" in course.sam()[2]


def test_a_worksheet_of_a_different_assignment_is_reported(course: Course) -> None:
    text = course.sheets[0].read_text()
    course.sheets[0].write_text(text.replace("Participant 42", "Participant 77"))
    moodle.store_times(course.day, course.sheets[0])
    graded = grade(course.root, course.zips[0], corrects_times=True)
    assert any("contains no submission time of these students" in note for note in graded.notes)
    _, notes = moodle.store_times(course.day, course.sheets[1])
    assert "have no participant in common" in notes[0]
    graded = grade(course.root, course.zips[0], corrects_times=True)
    assert not any("different assignment" in note for note in graded.notes)


@pytest.mark.parametrize("sheet", [None, 0, 1])
def test_an_older_file_does_not_replace_a_newer_one(course: Course, sheet: int | None) -> None:
    course.grade(0, sheet=0)
    course.grade(1, sheet=1)
    course.grade(0, sheet)
    assert course.sam()[:2] == (80, 64)


def test_an_old_worksheet_does_not_change_the_time_of_a_newer_file(course: Course) -> None:
    course.grade(0, sheet=0)
    course.grade(1, sheet=1)
    assert "differ from those" in course.export(0)
    assert course.sam()[:2] == (80, 64)


def test_a_worksheet_that_is_read_after_grading_belongs_to_the_graded_files(course: Course) -> None:
    course.grade(0)
    course.export(0)
    course.grade(1)
    assert "times are unknown (1): Sam Lee" in course.sam()[2]


def test_a_corrected_time_counts(course: Course) -> None:
    course.grade(0, sheet=0)
    text = course.sheets[0].read_text()
    assert "01 December" in text
    course.sheets[0].write_text(text.replace("01 December", "05 December"))
    course.grade(0, sheet=0)
    before, after, _ = course.sam()
    assert before == 50
    assert after is not None
    assert after < 50


def test_a_worksheet_with_the_time_of_a_newer_file_does_not_change_the_time_of_the_graded_one(
    course: Course,
) -> None:
    """If students resubmit after grading, a new worksheet contains the times of files that have not been graded yet."""
    course.grade(0, sheet=0)
    assert "differ from those" not in course.export(0)
    notes = course.export(1)
    assert "differ from those of the graded files (1): Sam Lee (42002). " in notes
    assert "grade a new download" in notes
    assert course.sam()[:2] == (50, 50)
    course.grade(0)
    assert course.sam()[:2] == (50, 50)


def test_an_export_gives_a_time_to_a_file_that_an_older_one_cannot_replace(course: Course) -> None:
    course.grade(0, sheet=0)
    course.grade(1)
    course.export(1)
    assert course.sam()[:2] == (80, 64)
    course.grade(0)
    assert course.sam()[:2] == (80, 64)
    course.grade(0, sheet=1)
    assert course.sam()[:2] == (80, 64)


@pytest.mark.parametrize("hours", [-5, 2])
def test_an_export_corrects_the_times_if_moodle_shows_them_in_another_zone(
    course: Course, hours: int
) -> None:
    course.grade(1, sheet=1)
    moved = [replace(one, hours=one.hours + hours) for one in (SECOND, OTHER)]
    course.sheets[1].write_text(downloads.worksheet(moved))
    assert "corrects the submission times of 2 graded files" in course.export(1)
    for _ in range(2):
        sources = [marks.handed_in for marks in read_class(course.day)]
        assert {one.time for one in sources if one} == {one.time for one in moved}
        course.grade(1)


def test_only_one_difference_for_most_students_is_a_correction() -> None:
    start = datetime(2026, 11, 1, 12)

    def at(*hours: float) -> dict[str, datetime]:
        return {str(n): start + timedelta(hours=one) for n, one in enumerate(hours)}

    known = at(0, 10, 20, 30)
    assert set(corrections(known, known)) == set()
    assert set(corrections(known, at(-5, 5, 15, 25))) == {"0", "1", "2", "3"}
    assert set(corrections(known, at(-5, 5, 15, 60))) == {"0", "1", "2"}
    assert set(corrections(known, at(-5, 5, 16, 26))) == {
        "0",
        "1",
        "2",
        "3",
    }  # daylight saving time
    assert set(corrections(known, at(0, 10, 15, 25))) == set()
    assert set(corrections(known, at(0.1, 10.1, 20.1, 30.1))) == set()
    assert set(corrections(at(0), at(5))) == set()


def test_an_earlier_time_of_the_same_file_does_not_keep_its_old_marks(course: Course) -> None:
    course.grade(1, sheet=1)
    earlier = replace(SECOND, hours=3.0)
    course.sheets[1].write_text(downloads.worksheet([earlier, OTHER]))
    course.grade(1, sheet=1)
    with History(course.root) as history:
        sources = [marks.handed_in for marks in history.current("day1")]
    assert earlier.time in [source.time for source in sources if source]
    assert course.sam()[:2] == (80, 72)


def test_the_time_zone_also_decides_which_of_two_platforms_has_the_newer_submission(
    course: Course,
) -> None:
    """Sam's Moodle submission, at 05:00 UTC−05:00, is newer than Sam's nbgrader submission, at 08:00 UTC."""
    downloads.nbgrader(course.root, [replace(FIRST, hours=33.0)])
    course.set_policy("")
    grade(course.root, course.root / "submitted")
    course.grade(1, sheet=1)
    course.set_policy(POLICY + "2026-12-04T05:00:00-05:00\n")
    entry = Entry("", "s1", "Sam Lee", platform_ids=(("moodle_day1", "42002"),))
    rows, _ = results_and_notes(read_class(course.day), course.day, Roster((entry,)))
    assert [row.points for row in rows if row.entry == entry] == [80]


# ---- the time zone

POLICY = "[late]\npercent_per_day = 10\n[day1.late]\ndue = "
IN_DENVER = 'moodle_time_zone = "America/Denver"\n'


def test_a_corrected_offset_of_the_due_date_counts_for_stored_times(course: Course) -> None:
    """Sam's stored submission time is interpreted as 05:00 on 3 December in the time zone of the current due date."""
    course.grade(1, sheet=1)
    for due, points in (("04:59:00-05:00", 64), ("05:00:00-05:00", 72), ("05:00:00+01:00", 72)):
        course.set_policy(f"{POLICY}2026-12-02T{due}\n")
        assert course.sam()[:2] == (80, points)
    course.set_policy(POLICY + "2026-12-02T05:00:00-05:00\n")
    (row,) = (row for row in read_class(course.day) if "Sam" in row.student)
    assert row.handed_in
    assert row.handed_in.time == datetime.fromisoformat("2026-12-03T05:00:00-05:00")


def test_a_policy_that_is_added_after_grading_counts(course: Course) -> None:
    course.set_policy("")
    course.grade(1, sheet=1)
    assert course.sam()[:2] == (80, 80)
    course.set_policy(POLICY + "2026-12-02T04:30:00-05:00\n")
    assert course.sam()[:2] == (80, 64)
    course.grade(1)
    assert course.sam()[:2] == (80, 64)


def test_moodle_may_show_times_in_another_zone_than_that_of_the_due_date(course: Course) -> None:
    course.grade(1, sheet=1)
    # If Moodle shows Denver's time, 05:00 on 3 December is noon in UTC, which is 54.5 instead of 47.5 hours late.
    course.set_policy(POLICY + "2026-12-01T05:30:00Z\n")
    assert course.sam()[:2] == (80, 64)
    course.set_policy(POLICY + "2026-12-01T05:30:00Z\n" + IN_DENVER)
    assert course.sam()[:2] == (80, 56)
    toml = POLICY.replace("[late]\n", "[late]\n" + IN_DENVER) + "2026-12-01T05:30:00Z\n"
    course.set_policy(toml)
    assert course.sam()[:2] == (80, 56)


def test_daylight_saving_time_counts_in_a_named_zone(course: Course) -> None:
    """In Denver, the clocks go back from UTC−06:00 to UTC−07:00 on 1 November 2026."""
    course.grade(1, sheet=1)
    late = "2026-10-31T23:00:00-06:00"
    for text, points in (
        ("Sunday, 1 November 2026, 10:00 PM", 72),
        ("Sunday, 1 November 2026, 10:01 PM", 64),
        ("Sunday, 1 November 2026, 1:30 AM", 72),
    ):
        sheet = course.sheets[1]
        sheet.write_text(
            re.sub(r'"\w+, 03 December 2026, [^"]*"', f'"{text}"', sheet.read_text(), count=1)
        )
        assert text in sheet.read_text()
        course.set_policy(POLICY + late + "\n" + IN_DENVER)
        course.grade(1, sheet=1)
        assert course.sam()[:2] == (80, points)
        sheet.write_text(downloads.worksheet([SECOND, OTHER]))


def test_times_in_stored_marks_count_in_the_current_time_zone(course: Course) -> None:
    course.grade(1, sheet=1)
    course.set_policy(POLICY + "2026-12-02T04:30:00-05:00\n")
    assert course.sam()[:2] == (80, 64)
    (course.root / ".autograder" / "overrides.db").unlink()
    assert course.sam()[:2] == (80, 64)
    course.export(0)
    assert course.sam()[:2] == (80, 64)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            POLICY + "2026-12-01T23:00:00Z\n",
            "from {} and assumed to be in UTC, like `due`. If Moodle shows you times in ",
        ),
        (
            POLICY + "2026-12-01T23:00:00-05:00\n",
            "from {} and assumed to be in UTC−05:00, like `due`. ",
        ),
        (
            POLICY + "2026-12-01T23:00:00Z\n" + IN_DENVER,
            "from {} and assumed to be in America/Denver, the `moodle_time_zone`",
        ),
        (
            "",
            "from {} and assumed to be in UTC, because grading.toml sets no `due` for day1. Once you set it",
        ),
    ],
)
def test_a_message_names_the_time_zone(course: Course, policy: str, message: str) -> None:
    course.set_policy(policy)
    sentence, notes = moodle.store_times(course.day, course.sheets[0])
    assert notes == []
    assert sentence.startswith("2 submission times were read " + message.format(course.sheets[0]))


def test_a_change_of_the_due_date_counts_in_every_command(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*arguments: str) -> str:
        code, out, err = run(course.root, monkeypatch, capsys, *arguments)
        assert code == 0, err
        return out

    def exported(*more: str) -> float | None:
        shown("export", "day1", "--to", "moodle", "--into", "1.csv", "--out", "out.csv", *more)
        grades = read_rows(course.root / "out.csv", "Identifier", "Grade")
        return grades[f"Participant {SECOND.participant}"]

    course.set_policy(POLICY + "2026-12-02T04:30:00Z\n")
    course.grade(1, sheet=1)
    write_marks(course.root / "m.json", "day1", read_class(course.day))
    assert exported() == exported("--marks", "m.json") == 64
    for due, days, points in (
        ("2026-12-02T04:30:00-05:00", "2 days (−20%)", 64),
        ("2026-12-03T04:30:00-05:00", "1 day (−10%)", 72),
        ("2026-12-03T04:30:00+00:00", "1 day (−10%)", 72),
        ("2026-12-02T23:30:00-05:00", "1 day (−10%)", 72),
        ("2026-12-03T04:30:00+01:00", "1 day (−10%)", 72),
    ):
        course.set_policy(POLICY + due + "\n")
        (line,) = (line for line in shown("list", "day1").splitlines() if "Sam" in line)
        assert days in line
        assert exported() == exported("--marks", "m.json") == points
        assert "−" + days.split("−")[1] in shown("explain", "day1", str(SECOND.participant))


def test_times_count_for_marks_from_a_file_and_are_not_stored(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    course.set_policy(POLICY + "2026-12-02T04:30:00Z\n")
    course.grade(1)
    write_marks(course.root / "m.json", "day1", read_class(course.day))
    export = "export", "day1", "--to", "moodle", "--marks", "m.json", "--into", "1.csv"
    code, _, err = run(course.root, monkeypatch, capsys, *export, "--out", "out.csv")
    assert code == 0, err
    grades = read_rows(course.root / "out.csv", "Identifier", "Grade")
    assert grades[f"Participant {SECOND.participant}"] == 64
    assert read_times(course.day).in_worksheet == {}


def test_a_worksheet_does_not_change_times_that_an_interrupted_run_stored(course: Course) -> None:
    others = [
        hand_in(n, f"Xav {'abcdefgh'[n]}", "notebook", 40.0 + n, hours=-1.0) for n in range(3, 8)
    ]
    download = written(course.root / "a.zip", downloads.moodle([FIRST, *others]))
    for number, one in enumerate((FIRST, SECOND)):
        course.sheets[number].write_text(downloads.worksheet([one, OTHER, *others]))
    moodle.store_times(course.day, course.sheets[0])
    # Ctrl-C comes after Sam's marks are stored, but before the times of the files are.
    with contextlib.suppress(KeyboardInterrupt), session(course.root, limit=4) as opened:
        opened.grade([download], None, False, corrects_times=True)
    assert course.sam()[:2] == (50, 50)
    other = written(course.root / "other.zip", downloads.moodle([OTHER]))
    moodle.store_times(course.day, course.sheets[1])
    grade(course.root, other, corrects_times=True)
    assert course.sam()[:2] == (50, 50)


def moved(course: Course, class_: list[HandIn], hours: float) -> None:
    """Write the times of these submissions, shifted by `hours`, to the second worksheet."""
    later = [replace(one, hours=one.hours + hours) for one in class_]
    course.sheets[1].write_text(downloads.worksheet(later))


def test_a_correction_moves_the_times_of_earlier_files_as_well(course: Course) -> None:
    first, second = replace(FIRST, hours=-10.0), replace(SECOND, hours=-7.0)
    for number, one in enumerate((first, second)):
        course.zips[number].write_bytes(downloads.moodle([one, OTHER]))
        course.sheets[number].write_text(downloads.worksheet([one, OTHER]))
        course.grade(number, sheet=number)
    moved(course, [second, OTHER], hours=-5)
    assert "corrects the submission times of 2 graded files" in course.export(1)
    course.grade(0)
    assert course.sam()[:2] == (80, 80)


def test_a_run_does_not_undo_a_correction_that_was_made_while_it_was_running(
    course: Course,
) -> None:
    course.grade(1, sheet=1)
    moved(course, [SECOND, OTHER], hours=-5)

    def watch(graded: Iterator[SubmissionMarks]) -> Iterator[SubmissionMarks]:
        for number, marks in enumerate(graded):
            if number == 0:
                course.export(1)
            yield marks

    grade(course.root, course.zips[1], watch=watch)
    assert course.sam()[:2] == (80, 64)
    assert "corrects" not in course.export(1)


def test_a_resubmission_is_compared_without_the_new_time(course: Course) -> None:
    grade(course.root, course.zips[0])
    moodle.store_times(course.day, course.sheets[1])
    again = grade(course.root, course.zips[1], corrects_times=True)
    assert [str(one) for one in again.resubmissions] == ["Sam Lee (42002): 50 → 64"]
