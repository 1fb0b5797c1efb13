"""Test that no file from Moodle gets the submission time of another file, whichever download and worksheet are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.marks import class_list
from autograder.submissions.roster import NO_ROSTER
from autograder.ta_commands import remember_file_times, remember_times, stored_class
from tests import downloads
from tests.downloads import HandIn, hand_in
from tests.fake_grading import grade
from tests.small_course import make
from tests.test_whole_classes import LATE, written

FIRST = hand_in(1, "Sam Lee", "notebook", 50.0, hours=-5.0)
SECOND = replace(hand_in(1, "Sam Lee", "notebook", 80.0), hours=30.0)  # two days late
OTHER = hand_in(2, "Ada Shaw", "notebook", 70.0, hours=-1.0)


class Course:
    """A course with a late policy, and two downloads and worksheets, of which the second ones contain a new file by Sam."""

    def __init__(self, root: Path) -> None:
        self.root = make(root)
        with (root / "grading.toml").open("a") as toml:
            toml.write(LATE)
        self.day = courses.load(root).day("day1")
        self.zips = [self._write(f"{n}.zip", [one, OTHER]) for n, one in enumerate((FIRST, SECOND))]
        self.sheets = [
            written(root / f"{n}.csv", downloads.worksheet([one, OTHER]))
            for n, one in enumerate((FIRST, SECOND))
        ]

    def _write(self, name: str, class_: list[HandIn]) -> Path:
        return written(self.root / name, downloads.moodle(class_))

    def grade(self, number: int, sheet: int | None = None) -> None:
        """Grade a download, as `autograder grade day1 N.zip --worksheet M.csv` does."""
        if sheet is not None:
            remember_times(self.day, self.sheets[sheet])
        grade(self.root, self.zips[number])

    def sam(self) -> tuple[float | None, float | None, str]:
        """Return Sam's points before and after the late policy, and the notes for the TA."""
        rows, notes = class_list.rows(stored_class(self.day), self.day, NO_ROSTER)
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


@pytest.mark.parametrize("sheet", [None, 0, 1])
def test_an_older_file_does_not_replace_a_newer_one(course: Course, sheet: int | None) -> None:
    course.grade(0, sheet=0)
    course.grade(1, sheet=1)
    course.grade(0, sheet)
    assert course.sam()[:2] == (80, 64)


def test_an_old_worksheet_does_not_change_the_time_of_a_newer_file(course: Course) -> None:
    course.grade(0, sheet=0)
    course.grade(1, sheet=1)
    remember_times(course.day, course.sheets[0])
    assert course.sam()[:2] == (80, 64)


def test_a_worksheet_that_is_read_after_grading_belongs_to_the_graded_files(course: Course) -> None:
    course.grade(0)
    remember_times(course.day, course.sheets[0])
    remember_file_times(course.day, stored_class(course.day))
    course.grade(1)
    assert "times are unknown (1): Sam Lee" in course.sam()[2]


def test_a_corrected_time_counts(course: Course) -> None:
    """For example, after the offset of the due date was corrected."""
    course.grade(0, sheet=0)
    text = course.sheets[0].read_text()
    assert "01 December" in text
    course.sheets[0].write_text(text.replace("01 December", "05 December"))
    course.grade(0, sheet=0)
    before, after, _ = course.sam()
    assert before == 50
    assert after is not None
    assert after < 50
