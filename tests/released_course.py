"""Test helpers that run a small course in nbgrader: release the course, submit and grade work, and override marks."""

from __future__ import annotations

import contextlib
import csv
import logging
import shutil
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook
from nbgrader.apps import ExportApp, NbGrader
from nbgrader.converters import GenerateAssignment, GenerateFeedback

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.nbgrader_plugin import gradebook
from autograder.nbgrader_plugin.gradebook import CopyResult
from autograder.release import gradebook as release_gradebook
from autograder.release.notebook import solution_notebook
from autograder.sandbox.client import Server
from autograder.submissions.submission import find_submissions
from tests import small_course
from tests.conftest import ROOT, reader
from tests.in_process import shared_grader

CHECKS = """
# %%
if __name__ == "__main__":

    @visible_check
    def check_{name}():
        assert {name}

    check_{name}()
"""
BROKEN = '{"nbformat": 4, "cells": ['


def nbgrader(root: Path) -> NbGrader:
    app = NbGrader(log_level=logging.CRITICAL)
    app.initialize([], root=str(root))
    app.coursedir.assignment_id = "day1"
    return app


def run_app(kind: type[NbGrader], root: Path, *arguments: str) -> None:
    """Run one of nbgrader's commands in this process, in the course folder."""
    app = kind(log_level=logging.CRITICAL)
    with contextlib.chdir(root):
        app.initialize([*arguments], root=str(root))
        app.start()


def export(root: Path) -> dict[str, dict[str, str]]:
    """Run `nbgrader export` and return each student's row in the exported file."""
    run_app(ExportApp, root)
    with (root / "grades.csv").open(newline="") as opened:
        return {row["student_id"]: row for row in csv.DictReader(opened)}


def make(root: Path) -> Path:
    """Write the small course with everything that `autograder build` needs."""
    small_course.make(root)
    for chapter, exercise in (("masking", "padding_mask"), ("heads", "split_heads")):
        with (root / f"solutions/day1/{chapter}.py").open("a") as opened:
            opened.write(CHECKS.format(name=exercise))
    for file in (*(ROOT / "solutions").glob("*.py"), ROOT / "nbgrader_config.py"):
        shutil.copy(file, root / "solutions" if file.parent.name == "solutions" else root)
    (root / "solutions/day1/requirements.txt").write_text("torch\n")
    return root


def release(root: Path) -> Path:
    """Write the small course and release it with `nbgrader generate_assignment`."""
    make(root)
    (root / "source/day1").mkdir(parents=True)
    generate(root)
    return root


def generate(root: Path) -> None:
    """Generate the release notebook from the current state of the course."""
    notebook = solution_notebook(courses.load(root).day("day1"))
    nbformat.write(notebook, root / "source/day1/day1.ipynb")
    if not (root / release_gradebook.GRADEBOOK_DB).exists():
        release_gradebook.create(root)
    app = nbgrader(root)
    GenerateAssignment(coursedir=app.coursedir, parent=app, force=True).start()


class Class:
    """A class of students who take the small course, with their submissions and gradebook."""

    def __init__(self, root: Path, server: Server | None = None) -> None:
        self.root = root
        self.server = server

    @property
    def day(self) -> Day:
        return courses.load(self.root).day("day1")

    def hand_in(self, student: str, text: str, name: str = "day1.ipynb", time: str = "") -> Path:
        """Submit one file for a student, replacing any earlier submission."""
        folder = self.root / "submitted" / student / "day1"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if text and name.endswith(".ipynb") and text != BROKEN:
            cells = [nbformat.v4.new_code_cell(part) for part in text.split("# %%")]
            text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
        if text:
            (folder / name).write_text(text)
        if time:
            (folder / "timestamp.txt").write_text(time)
        return folder

    def copy(self, force: bool = False) -> CopyResult:
        """Do what `autograder grade day1` does, but in this process: grade the class and copy the marks to the gradebook."""
        assert self.server is not None
        folders = sorted(self.root.glob("submitted/*/day1"))
        grader = shared_grader(self.day, self.server)
        found = find_submissions(folders, self.day, reader())
        marks = [grader.grade(one) for one in found]
        return gradebook.copy(self.day, folders, marks, reader(), force)

    def gradebook(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.root}/gradebook.db", "transformers")

    def scores(self, student: str) -> dict[str, float]:
        with self.gradebook() as book:
            notebook = book.find_submission_notebook("day1", "day1", student)
            return {grade.name.removeprefix("check_"): grade.score for grade in notebook.grades}

    def read_by_a_ta(self, student: str, score: float, comment: str) -> None:
        """Change the mark for padding_mask and add a comment, as a TA does in formgrader."""
        with self.gradebook() as book:
            names = "day1", "day1", student
            grade = book.find_grade("check_padding_mask", *names)
            grade.manual_score, grade.needs_manual_grade = score, False
            book.find_comment("padding_mask", *names).manual_comment = comment
            book.db.commit()

    def comment(self, student: str) -> str | None:
        with self.gradebook() as book:
            comment = book.find_comment("padding_mask", "day1", "day1", student)
            text: str | None = comment.comment
            return text

    def autograded(self, student: str) -> Path:
        return self.root / "autograded" / student / "day1/day1.ipynb"

    def feedback(self) -> None:
        app = nbgrader(self.root)
        GenerateFeedback(coursedir=app.coursedir, parent=app).start()
