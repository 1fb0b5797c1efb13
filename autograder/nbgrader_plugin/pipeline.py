"""Provide the steps that `nbgrader_config.py` adds to nbgrader's pipeline.

nbgrader identifies cells by their metadata and executes the notebook. However, submitted notebooks may lack metadata,
contain duplicate cells or loop forever. The steps in this module handle these cases.

`SubmissionExporter` reads and grades the submission as `autograder grade` does. `Restore` restores the metadata based on
the names that cells define. `Grade`, which replaces nbgrader's `Execute`, writes points and feedback to the check
cells' outputs.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode, v4
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor
from nbgrader.utils import parse_utc

from autograder.course import config as courses
from autograder.course import state_folder
from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import CourseError, Day
from autograder.feedback import sentences
from autograder.feedback.exercise_feedback import (
    ExerciseFeedback,
    as_html,
    as_text,
    to_feedback,
    unattempted_in,
)
from autograder.grading.grader import Grader
from autograder.marks.class_list import lateness_for
from autograder.marks.model import SubmissionMarks
from autograder.release.notebook import METADATA, nbgrader_cell, solution_notebook
from autograder.sandbox.client import start_server
from autograder.sandbox.errors import NoIsolation
from autograder.slicing.slicer import Slicer, SlicingCourse, SlicingError, prepare
from autograder.submissions import origin
from autograder.submissions import roster as rosters
from autograder.submissions.cell import Cell
from autograder.submissions.disk import read_small_file
from autograder.submissions.origin import from_folder
from autograder.submissions.reader_client import NotRegularFile, Reader, open_regular
from autograder.submissions.submission import Submission, read_submissions


class LatePenalty(LateSubmissionPlugin):  # type: ignore[misc]
    """A plugin that applies late penalties. It falls back to nbgrader's own plugin if the course has no late policy."""

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float | None:
        """Return the points to deduct. The deadline is nbgrader's due date plus the student's extension from the roster."""
        root = courses.find_root(Path.cwd())
        day = courses.load(root).day(self.parent.assignment_id)
        if not day.late.percent_per_day:
            penalty: float | None = super().late_submission_penalty(
                student_id, score, total_seconds_late
            )
            return penalty
        roster, origin = rosters.for_course(root), from_folder(student_id)
        entry, _, _ = roster.students(origin, day.name)[0]
        return lateness_for(day, origin, entry, total_seconds_late / 3600).penalty(score)


def set_due_date(day: Day, gradebook_url: str) -> None:
    """Copy the due date, if any, from `grading.toml` to nbgrader's gradebook."""
    if day.late.due is None:
        return
    due = parse_utc(day.late.due)
    with Gradebook(gradebook_url) as gradebook:
        if gradebook.find_assignment(day.name).duedate != due:
            gradebook.update_or_create_assignment(day.name, duedate=due)


SECRET = "submission_secret.txt"  # written by `nbgrader submit`
MAX_SECRET = 1000  # bytes
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS.*?^### END HIDDEN TESTS\n?", re.M | re.S)


class NameStubs(ClearSolutions):  # type: ignore[misc]
    """A version of nbgrader's ClearSolutions that puts the exercise's name in each stub."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """Replace the solution in a cell with the stub."""
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        self.code_stub = {"python": f'raise NotImplementedError("{name}")'}
        cleared: tuple[NotebookNode, Any] = super().preprocess_cell(cell, resources, cell_index)
        return cleared


class GradedExporter(NotebookExporter):
    """An exporter that reads a submission, even a damaged one, and adds marks.

    Its creator sets `grade`, which returns the submission at a path and its marks, and the `reader` that reads it.
    """

    submission: Submission
    marks: SubmissionMarks
    grade: Callable[[Path], tuple[Submission, SubmissionMarks]]
    reader: Reader

    def __init__(self, **kw: Any) -> None:
        """Read the course and check it against nbgrader's gradebook. An NbGraderException stops nbgrader."""
        super().__init__(**kw)  # type: ignore[no-untyped-call]
        self._course: SlicingCourse | None = None
        try:
            root = courses.find_root(Path(self._directory.root))
            self.day = courses.load(root).day(self._directory.assignment_id)
            self.checks = check_cells(self.day, self._directory.db_url)
            set_due_date(self.day, self._directory.db_url)
            self.texts = sentences.read(self.day)
            self.prepare()
        except (CourseError, NoIsolation) as error:
            self.log.error("%s", error)
            raise NbGraderException(str(error)) from None
        cells = solution_notebook(self.day).cells
        self._course_texts = {c.source.strip() for c in cells if c.cell_type == "markdown"}

    def prepare(self) -> None:
        """Start what `grade` needs."""

    def defining_cells(self) -> dict[str, int]:
        """Map each defined exercise to the number of its last defining cell. Return {} if slicing fails."""
        if not self.submission.cells:
            return {}
        server = self.reader.server
        if self._course is None:
            self._course = prepare(server, self.day)
        with Slicer(server, self._course, self.submission.cells) as slicer:
            try:
                return slicer.slice_all().defining_cells
            except SlicingError:
                return {}

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Convert a notebook. A submitted notebook is read and graded; an autograded one is used as is."""
        assert resources is not None
        directory, names = self._directory, resources["nbgrader"]
        folder = directory.format_path(
            directory.submitted_directory, names["student"], names["assignment"]
        )
        path = Path(filename)
        if path.parent != Path(folder):
            # The notebook is the output of `Restore`.
            return super().from_filename(filename, resources, **kw)
        self.submission, self.marks = self.grade(path)
        autograded = directory.format_path(
            directory.autograded_directory, names["student"], names["assignment"]
        )
        copy_receipt(path.parent, Path(autograded))
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        converted: tuple[Any, dict[str, Any]]
        converted = self.from_notebook_node(self._notebook(), resources, **kw)  # type: ignore[no-untyped-call]
        return converted

    @property
    def _directory(self) -> CourseDirectory:
        assert self.parent is not None  # nbgrader's converter
        return self.parent.coursedir

    def _notebook(self) -> NotebookNode:
        cells = [self._cell(cell) for cell in self.submission.cells]
        return make_node(v4.new_notebook, cells=cells, metadata=METADATA)

    def _cell(self, cell: Cell) -> NotebookNode:
        id_ = f"cell-{cell.number}"
        if cell.kind == "code":
            return make_node(v4.new_code_cell, cell.source, id=id_)
        is_course_text = cell.kind == "markdown" and cell.source.strip() in self._course_texts
        source = cell.source if is_course_text else verbatim(cell.source)
        return make_node(v4.new_markdown_cell, source, id=id_)


class SubmissionExporter(GradedExporter):
    """An exporter that grades each submission. The grader and its fork server run until the exporter is garbage-collected."""

    def prepare(self) -> None:
        """Start the grader."""
        server = start_server()
        weakref.finalize(self, server.close)
        self.reader = Reader()
        weakref.finalize(self, self.reader.close)
        self.log.info("Sandbox layers: %s", ", ".join(server.isolation))
        grader = Grader(self.day, server, state_folder.secret(self.day.root))
        reader = self.reader

        def grade(path: Path) -> tuple[Submission, SubmissionMarks]:
            submission = next(read_submissions([path], grader.day.name, reader))
            return submission, grader.grade(submission)

        self.grade = grade
        leave_out_files(self.parent)


def copy_receipt(submitted: Path, autograded: Path) -> None:
    """Copy a submission's time and the secret from which nbgrader derives the name of its feedback page in the exchange."""
    autograded.mkdir(parents=True, exist_ok=True)
    time = origin.parse_timestamp(read_small_file(submitted / origin.TIMESTAMP))
    texts = {
        origin.TIMESTAMP: f"{time:%Y-%m-%d %H:%M:%S.%f} UTC" if time else "",
        SECRET: read_small_file(submitted / SECRET, MAX_SECRET),
    }
    for name, text in texts.items():
        (autograded / name).unlink(missing_ok=True)  # nbgrader makes it read-only
        if text:
            (autograded / name).write_text(text, encoding="utf-8", newline="")


def leave_out_files(converter: Autograde) -> None:
    """Keep nbgrader from copying a submission's other files, because it follows links and no code that needs the files is run."""
    init_assignment, directory = converter.init_assignment, converter.coursedir

    def without_files(assignment: str, student: str) -> None:
        folder = directory.format_path(directory.submitted_directory, student, assignment)
        if os.path.islink(folder):
            raise NotRegularFile("links are not followed")
        with contextlib.suppress(FileNotFoundError):  # nbgrader would wait for a FIFO's writer
            open_regular(Path(folder, origin.TIMESTAMP)).close()
        # nbgrader logs the names of notebooks that do not belong to the assignment, but does not escape them.
        converter.notebooks = [
            each for each in converter.notebooks if Path(each).name.isprintable()
        ]
        ignored, directory.ignore = directory.ignore, ["*", ".*"]
        try:
            init_assignment(assignment, student)
        finally:
            directory.ignore = ignored

    converter.init_assignment = without_files


def check_cells(day: Day, gradebook_url: str) -> dict[str, NotebookNode]:
    """Return each exercise's check cell from nbgrader's gradebook, which must match grading.toml."""
    points: dict[str, float] = {}
    with Gradebook(gradebook_url) as gradebook, contextlib.suppress(MissingEntry):
        notebook = gradebook.find_notebook(day.name, day.name)
        points = {cell.name: float(cell.max_score) for cell in notebook.grade_cells}
        sources = {cell.name: cell.source for cell in notebook.source_cells}
    if points != {CHECK_PREFIX + exercise.name: exercise.credit for exercise in day.exercises}:
        raise CourseError(
            f"nbgrader's gradebook lacks {day.name}, or its exercises or points differ from those in {courses.GRADING_TOML}. "
            f"Run `autograder build {day.name}`"
        )
    return {
        name: nbgrader_cell(
            sources[CHECK_PREFIX + name], CHECK_PREFIX + name, points[CHECK_PREFIX + name]
        )
        for name in day.names
    }


class Restore(NbGraderPreprocessor):  # type: ignore[misc]
    """A pipeline step that restores the solution and check cells that the gradebook expects for each exercise."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Add nbgrader's metadata to a notebook that has none."""
        exporter = self.parent
        nb.cells = list(_restore_cells(nb.cells, exporter.defining_cells(), exporter.checks))
        return nb, resources


def _restore_cells(
    cells: Sequence[NotebookNode], defining: Mapping[str, int], checks: Mapping[str, NotebookNode]
) -> Iterator[NotebookNode]:
    """Yield the notebook's cells. The cell that defines an exercise becomes its solution cell.

    Each check cell replaces the last copy of itself in the notebook, or follows the solution cell if there is no copy.
    """
    released = {HIDDEN.sub("", check.source).strip(): name for name, check in checks.items()}
    copies = {released.get(cell.source.strip()): n for n, cell in enumerate(cells, 1)}
    for number, cell in enumerate(cells, 1):
        checked = released.get(cell.source.strip())
        if checked and copies[checked] == number:
            yield checks[checked]
        if checked:
            continue
        here = [name for name in checks if defining.get(name) == number]
        yield nbgrader_cell(cell.source, here[0]) if here else cell
        for name in here:
            if name != here[0]:
                yield nbgrader_cell(f"# {name} is in the same cell as {here[0]}.", name)
            if name not in copies:
                yield checks[name]
    for name in checks:
        if name not in defining:
            yield nbgrader_cell(f"# This submission does not define {name}.", name)
            if name not in copies:
                yield checks[name]


class Grade(NbGraderPreprocessor):  # type: ignore[misc]
    """A pipeline step that writes each exercise's points and feedback to the outputs of its check cell."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Fill in the outputs of the check cells. nbgrader reads a cell's points from its `execute_result` output."""
        marks = self.parent.marks
        exercises = {CHECK_PREFIX + exercise.name: exercise for exercise in marks.exercises}
        unattempted = unattempted_in(marks.exercises)
        for cell in nb.cells:
            metadata = cell.metadata.get("nbgrader", {})
            if not metadata.get("grade"):
                continue
            exercise = exercises.get(metadata["grade_id"])
            if exercise is None:
                message = f"Nothing could be graded: {'; '.join(marks.problems)}\n"
                cell.outputs = [text_output(message), points_output(0.0)]
            else:
                feedback = feedback_output(to_feedback(exercise, self.parent.texts, unattempted))
                cell.outputs = [feedback, points_output(exercise.credit)]
        if marks.exercises and marks.problems:
            notes = make_node(v4.new_code_cell, "# Notes about this notebook", id="problems")
            notes.outputs = [text_output("\n".join(marks.problems) + "\n")]
            nb.cells.insert(0, notes)
        return nb, resources


def make_node(make: Any, *arguments: Any, **keywords: Any) -> NotebookNode:
    """Call one of nbformat's constructors, which lack type hints."""
    node: NotebookNode = make(*arguments, **keywords)
    return node


def verbatim(text: str) -> str:
    """Wrap text in a fenced code block, because nbgrader's pages run HTML and scripts in markdown and raw cells."""
    runs = (len(list(run)) for character, run in groupby(text) if character == "`")
    longest = max(runs, default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""


def text_output(text: str) -> NotebookNode:
    """Return a plain-text output."""
    return make_node(v4.new_output, "stream", name="stdout", text=text)


def feedback_output(exercise: ExerciseFeedback) -> NotebookNode:
    """Return an output with the feedback for an exercise, as HTML and as plain text for viewers that do not render HTML."""
    data = {"text/plain": as_text(exercise), "text/html": as_html(exercise)}
    return make_node(v4.new_output, "display_data", data=data)


def points_output(points: float) -> NotebookNode:
    """Return the output from which nbgrader reads the points for a check cell.

    The points must be a plain float: nbgrader gives full points for any other value, including NaN and NumPy numbers.
    """
    return make_node(v4.new_output, "execute_result", data={"text/plain": repr(float(points))})
