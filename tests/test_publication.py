"""Test that a build, even if killed, replaces each folder and gradebook completely or not at all, and never loses a release."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from nbgrader.api import Gradebook

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.release import gradebook, publication
from autograder.release.build import vanished_names
from tests.killed import count_lines, kill_at

FILES = {str(publication.__file__), str(gradebook.__file__)}
OLD, NEW = ("f", "g"), ("f", "h")
TOML = """
[day1]
title = "One"
[day1.exercises.f]
chapter = "first"
points = 60
[day1.exercises.h]
chapter = "first"
points = 40
"""


def write_release(folder: Path, exercises: tuple[str, str], empty: Path) -> None:
    """Write a release's folders and gradebook, with these exercises. The gradebook starts as a copy of `empty`."""
    for name in publication.FOLDERS:
        (folder / name / "day1" / "more").mkdir(parents=True)
        for file in ("day1.ipynb", "README.md", "more/data.csv"):
            (folder / name / "day1" / file).write_text(" ".join(exercises))
    shutil.copy(empty, folder / gradebook.GRADEBOOK_DB)
    with Gradebook(f"sqlite:///{folder / gradebook.GRADEBOOK_DB}", "transformers") as book:
        book.add_assignment("day1")
        book.add_notebook("day1", "day1")
        for name in exercises:
            check = f"check_{name}"
            book.add_solution_cell(name, "day1", "day1")
            book.add_grade_cell(check, "day1", "day1", max_score=50, cell_type="code")
            for cell in (name, check):
                book.add_source_cell(cell, "day1", "day1", cell_type="code", source=cell)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that contains an old release and the new release that replaces it."""
    folder = tmp_path_factory.mktemp("releases")
    empty = gradebook.create(folder)
    Gradebook(f"sqlite:///{empty}", "transformers").close()
    write_release(folder / "old", OLD, empty)
    write_release(folder / "new", NEW, empty)
    (folder / "old" / courses.GRADING_TOML).write_text(TOML)
    return folder


@pytest.fixture
def day(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    """Return the day of a course that contains the old release."""
    root = tmp_path / "course"
    shutil.copytree(releases / "old", root)
    (root / "nbgrader_config.py").write_text('c.CourseDirectory.course_id = "transformers"\n')
    monkeypatch.chdir(root)  # nbgrader reads its configuration from the working directory
    return courses.load(root).day("day1")


def build(day: Day, releases: Path, new_version: bool = False) -> list[str]:
    with publication.staging(day) as staged:
        shutil.copytree(releases / "new", staged, dirs_exist_ok=True)
        return publication.publish(day, staged, new_version)


def release_in(root: Path, folder: str) -> tuple[str, ...]:
    """Check that all files in a release folder belong to the same release, and return the exercises of that release."""
    files = [file for file in (root / folder / "day1").rglob("*") if file.is_file()]
    (text,) = {file.read_text() for file in files}
    assert len(files) == 3
    return tuple(text.split())


def cells(root: Path) -> set[str]:
    with Gradebook(f"sqlite:///{root / gradebook.GRADEBOOK_DB}", "transformers") as book:
        notebook = book.find_notebook("day1", "day1")
        parts = notebook.solution_cells, notebook.grade_cells, notebook.source_cells
        return {cell.name for part in parts for cell in part}


def names(exercises: tuple[str, ...]) -> set[str]:
    return {*exercises, *(f"check_{name}" for name in exercises)}


@pytest.mark.parametrize(("exchange", "moments"), [(True, 16), (False, 8)], ids=["exchange", "NFS"])
def test_a_killed_build_leaves_whole_folders(
    exchange: bool, moments: int, day: Day, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill builds at many different points. When the next build starts, each folder must be completely old or completely new."""
    if not exchange:

        def refuse(*_: Path) -> None:
            raise OSError("not supported")

        monkeypatch.setattr(publication, "_exchange", refuse)
    fresh = day.root.with_name("fresh")
    shutil.copytree(day.root, fresh)
    files = FILES if exchange else {str(publication.__file__)}
    lines = count_lines(lambda: build(day, releases), files)
    assert lines > moments
    for moment in range(moments):
        shutil.rmtree(day.root)
        shutil.copytree(fresh, day.root)
        os.chdir(day.root)
        kill_at(1 + moment * lines // moments, lambda: build(day, releases), files)
        if exchange:
            assert {release_in(day.root, folder) for folder in publication.FOLDERS} <= {OLD, NEW}
        with publication.staging(day) as staged:  # the next build begins
            assert cells(day.root) in (names(OLD), names(NEW))
            for folder in publication.FOLDERS:
                assert release_in(day.root, folder) in (OLD, NEW)
            left = {path.name for path in staged.parent.iterdir()}
            assert left == {"lock", staged.name}
    build(day, releases)
    assert cells(day.root) == names(NEW)
    assert {release_in(day.root, folder) for folder in publication.FOLDERS} == {NEW}


def test_the_first_build_needs_no_folders(day: Day, releases: Path) -> None:
    for name in publication.FOLDERS:
        shutil.rmtree(day.root / name)
    (day.root / gradebook.GRADEBOOK_DB).unlink()
    assert build(day, releases) == []
    assert {release_in(day.root, folder) for folder in publication.FOLDERS} == {NEW}
    assert cells(day.root) == names(NEW)


def test_only_one_build_of_a_day_runs_at_a_time(day: Day, releases: Path) -> None:
    with publication.staging(day), pytest.raises(CourseError, match="already being built"):
        build(day, releases)
    build(day, releases)


def grade(root: Path) -> None:
    """Add a submission to the gradebook, with points and a comment that a TA entered manually."""
    with Gradebook(f"sqlite:///{root / gradebook.GRADEBOOK_DB}", "transformers") as book:
        book.add_student("ada")
        book.add_submission("day1", "ada")
        book.find_grade("check_f", "day1", "day1", "ada").manual_score = 33
        book.find_comment("f", "day1", "day1", "ada").manual_comment = "Well done"
        book.find_grade("check_g", "day1", "day1", "ada").auto_score = 50
        book.db.commit()


def test_graded_cells_change_only_in_a_new_version(day: Day, releases: Path) -> None:
    grade(day.root)
    with pytest.raises(CourseError) as error:
        build(day, releases)
    assert str(error.value) == (
        "day1: nbgrader's gradebook contains 1 submission, and this build adds h and removes g. "
        "The release and the gradebook are unchanged. "
        "To publish a new version and keep the submissions, run `autograder build day1 --new-version`"
    )
    assert {release_in(day.root, folder) for folder in publication.FOLDERS} == {OLD}
    assert cells(day.root) == names(OLD)
    (note,) = build(day, releases, new_version=True)
    assert "the previous gradebook is in" in note
    assert {release_in(day.root, folder) for folder in publication.FOLDERS} == {NEW}
    assert cells(day.root) == names(NEW)
    with Gradebook(f"sqlite:///{day.root / gradebook.GRADEBOOK_DB}", "transformers") as book:
        submission = book.find_submission_notebook("day1", "day1", "ada")
        assert {grade.name: grade.manual_score for grade in submission.grades} == {
            "check_f": 33,
            "check_h": None,
        }
        assert {comment.name: comment.comment for comment in submission.comments} == {
            "f": "Well done",
            "h": None,
        }
    copy = day.root / f"{gradebook.GRADEBOOK_DB}.before-day1-1"
    with Gradebook(f"sqlite:///{copy}", "transformers") as book:
        assert book.find_grade("check_g", "day1", "day1", "ada").auto_score == 50


def test_the_build_names_exercises_that_vanished(day: Day) -> None:
    cells = [
        v4.new_code_cell("", metadata={"nbgrader": {"grade_id": name, "solution": True}})
        for name in OLD
    ]
    file = day.root / "assignments/day1/day1.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), file)
    assert [*vanished_names(day)] == [
        "day1: the release contains exercise g, but grading.toml does not, so submissions no longer earn points for it"
    ]
    cell = '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "x"}]}'
    for damaged in ("<<<<<<< HEAD\n" + file.read_text(), "[]", '{"nbformat": []}', cell):
        file.write_text(damaged)
        assert [*vanished_names(day)] == []
