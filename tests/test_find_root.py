"""Test that commands find the course, and never use a student's folder as the course."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.config import GRADING_TOML, CourseError


def test_a_course_is_found_from_its_subfolders(tmp_path: Path) -> None:
    inner = tmp_path / "submitted" / "ada"
    inner.mkdir(parents=True)
    with pytest.raises(CourseError, match="was not found"):
        courses.find_root(inner)
    (tmp_path / GRADING_TOML).touch()
    assert courses.find_root(inner) == courses.find_root(tmp_path) == tmp_path


def test_a_students_folder_is_not_used_as_the_course(tmp_path: Path) -> None:
    """If a student's folder were used as the course, the graders in it would run without a sandbox."""
    students = tmp_path / "class" / "eve"
    (students / "graders").mkdir(parents=True)
    for folder in (tmp_path, students):
        (folder / GRADING_TOML).touch()
    for start in (students, students / "graders"):
        with pytest.raises(CourseError, match=r"class/eve and .+ both contain"):
            courses.find_root(start)
    assert courses.find_root(students.parent) == tmp_path
