"""The steps put into nbgrader's pipeline; nbgrader_config.py says where.

nbgrader reads a notebook by its metadata and executes it. Students lose metadata, copy cells and
write loops that never end; so here `SubmissionExporter` reads and grades what was handed in as
`autograder grade` does, `Restore` gives the metadata back by definition name, and `Grade` stands in
the place of nbgrader's `Execute` and writes what the graders found as the outputs of the check cells.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode, v4
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor

from autograder.course import config as courses
from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.feedback import sentences
from autograder.feedback.exercise_feedback import (
    ExerciseFeedback,
    as_html,
    as_text,
    to_feedback,
)
from autograder.grading.grader import Grader, start_server
from autograder.marks.model import SubmissionMarks
from autograder.nbgrader_plugin.late_penalty import set_due
from autograder.release.notebook import METADATA, solution_notebook
from autograder.sandbox.errors import NoIsolation
from autograder.slicing.client import Slicer, SlicingCourse, SlicingError, prepare
from autograder.submissions.cells import Cell
from autograder.submissions.client import Reader
from autograder.submissions.submission import Submission, read_submissions

CHECK = "check_"
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS.*?^### END HIDDEN TESTS\n?", re.M | re.S)


class NameStubs(ClearSolutions):  # type: ignore[misc]
    """nbgrader's ClearSolutions, whose stubs say which exercise they are."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """Clear a cell's solutions."""
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        self.code_stub = {"python": f'raise NotImplementedError("{name}")'}
        cleared: tuple[NotebookNode, Any] = super().preprocess_cell(cell, resources, cell_index)
        return cleared


class HandedInExporter(NotebookExporter):
    """Reads what a student handed in, whatever its state; `graded` says where the marks come from."""

    submission: Submission
    marks: SubmissionMarks

    def __init__(self, **kw: Any) -> None:
        """Read the course.

        Raises:
            NbGraderException: course and gradebook do not fit, or there is no isolation; it stops the run.
        """
        super().__init__(**kw)  # type: ignore[no-untyped-call]
        self._course: SlicingCourse | None = None
        try:
            self.day = self._day()
            self.checks = check_cells(self.day, self._directory.db_url)
            set_due(self.day, self._directory.db_url)
            self.texts = self.prepare()
        except (CourseError, NoIsolation) as error:
            self.log.error("%s", error)
            raise NbGraderException(str(error)) from None
        cells = solution_notebook(self.day).cells
        self._own = {cell.source.strip() for cell in cells if cell.cell_type == "markdown"}

    def prepare(self) -> sentences.Texts:
        """Get ready for `graded`; gives the words of the day's exercises."""
        raise NotImplementedError

    def graded(self, path: Path) -> tuple[Submission, SubmissionMarks]:
        """What was handed in, and its marks."""
        raise NotImplementedError

    def reader(self) -> Reader:
        """What reads behind the wall."""
        raise NotImplementedError

    def homes(self) -> dict[str, int]:
        """For each exercise that is defined, the number of the cell with its last definition; none if it can not be told."""
        if not self.submission.cells:
            return {}
        server = self.reader().server
        if self._course is None:
            self._course = prepare(server, self.day)
        with Slicer(server, self._course, self.submission.cells) as slicer:
            try:
                return slicer.slice_all().homes
            except SlicingError:
                return {}

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Convert a notebook: a submitted one as our own reader sees it, an autograded one as it is."""
        assert resources is not None
        directory, names = self._directory, resources["nbgrader"]
        folder = directory.format_path(
            directory.submitted_directory, names["student"], names["assignment"]
        )
        path = Path(filename)
        if path.parent != Path(folder):
            return super().from_filename(filename, resources, **kw)  # what `Restore` left
        self.submission, self.marks = self.graded(path)
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
        return _made(v4.new_notebook, cells=cells, metadata=METADATA)

    def _cell(self, cell: Cell) -> NotebookNode:
        name = f"cell-{cell.number}"
        if cell.kind == "code":
            return _made(v4.new_code_cell, cell.source, id=name)
        given = cell.kind == "markdown" and cell.source.strip() in self._own
        source = cell.source if given else verbatim(cell.source)
        return _made(v4.new_markdown_cell, source, id=name)

    def _day(self) -> Day:
        root = courses.find_root(Path(self._directory.root))
        return courses.load(root).day(self._directory.assignment_id)


class SubmissionExporter(HandedInExporter):
    """Has what was handed in graded; one for each run, with one grader. Its fork server ends with it, at the latest at exit."""

    def prepare(self) -> sentences.Texts:
        """Start the grader."""
        server = start_server()
        weakref.finalize(self, server.close)
        self._reader = Reader()
        weakref.finalize(self, self._reader.close)
        self.log.info("Isolated by %s", ", ".join(server.isolation))
        self._grader = Grader(self.day, server, state_folder.secret(self.day.root))
        return sentences.read(self.day, self._grader.key.tests)

    def graded(self, path: Path) -> tuple[Submission, SubmissionMarks]:
        """The notebook, read and graded now."""
        submission = next(read_submissions([path], self.day.name, self._reader))
        return submission, self._grader.grade(submission)

    def reader(self) -> Reader:
        """The one of this run."""
        return self._reader


def check_cells(day: Day, gradebook_url: str) -> dict[str, NotebookNode]:
    """The check cell of each exercise, as nbgrader's gradebook holds it.

    Raises:
        CourseError: the gradebook has no such assignment, or other points than grading.toml.
    """
    points: dict[str, float] = {}
    with Gradebook(gradebook_url) as gradebook, contextlib.suppress(MissingEntry):
        notebook = gradebook.find_notebook(day.name, day.name)
        points = {cell.name: float(cell.max_score) for cell in notebook.grade_cells}
        sources = {cell.name: cell.source for cell in notebook.source_cells}
    if points != {CHECK + exercise.name: exercise.points for exercise in day.exercises}:
        raise CourseError(
            f"nbgrader's gradebook does not know {day.name} as it is in {courses.FILE}: "
            f"run autograder build {day.name}"
        )
    return {
        name: _marked(sources[CHECK + name], CHECK + name, points[CHECK + name])
        for name in day.names
    }


def verbatim(text: str) -> str:
    """Text in a fence: nbgrader's pages show a markdown or raw cell's HTML, scripts and all."""
    runs = (len(list(run)) for character, run in groupby(text) if character == "`")
    longest = max(runs, default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""


class Restore(NbGraderPreprocessor):  # type: ignore[misc]
    """Gives each exercise its solution cell and its check cell, as the gradebook knows them."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Mark the cells of a notebook that has no nbgrader metadata."""
        exporter = self.parent
        nb.cells = list(_restored(nb.cells, exporter.homes(), exporter.checks))
        return nb, resources


def _restored(
    cells: Sequence[NotebookNode], homes: Mapping[str, int], checks: Mapping[str, NotebookNode]
) -> Iterator[NotebookNode]:
    """The cells with each exercise's first; its check cell where it stood, or else after it."""
    released = {HIDDEN.sub("", check.source).strip(): name for name, check in checks.items()}
    copies = {released.get(cell.source.strip()): n for n, cell in enumerate(cells, 1)}
    for number, cell in enumerate(cells, 1):
        checked = released.get(cell.source.strip())
        if checked and copies[checked] == number:
            yield checks[checked]
        if checked:
            continue
        here = [name for name in checks if homes.get(name) == number]
        yield _marked(cell.source, here[0]) if here else cell
        for name in here:
            if name != here[0]:
                yield _marked(f"# {name} stands in the cell of {here[0]}.", name)
            if name not in copies:
                yield checks[name]
    for name in checks:
        if name not in homes:
            yield _marked(f"# {name} is not defined in what was handed in.", name)
            if name not in copies:
                yield checks[name]


def _marked(source: str, grade_id: str, points: float | None = None) -> NotebookNode:
    is_check = points is not None
    metadata = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": is_check,
        "locked": is_check,
        "solution": not is_check,
        "task": False,
        **({"points": points} if is_check else {}),
    }
    return _made(v4.new_code_cell, source, id=grade_id, metadata={"nbgrader": metadata})


class Grade(NbGraderPreprocessor):  # type: ignore[misc]
    """Writes the points and the feedback of each exercise as its check cell's output."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Fill in the outputs; nbgrader takes a check cell's points from its `execute_result`."""
        marks = self.parent.marks
        exercises = {CHECK + exercise.name: exercise for exercise in marks.exercises}
        for cell in nb.cells:
            metadata = cell.metadata.get("nbgrader", {})
            if not metadata.get("grade"):
                continue
            graded = exercises.get(metadata["grade_id"])
            if graded is None:
                cell.outputs = [_text(unread(marks)), _points(0.0)]
            else:
                told = to_feedback(graded, self.parent.texts)
                cell.outputs = [_told(told), _points(graded.points)]
        if marks.exercises and marks.problems:
            noticed = _made(v4.new_code_cell, "# What was noticed in this notebook", id="problems")
            noticed.outputs = [_text("\n".join(marks.problems) + "\n")]
            nb.cells.insert(0, noticed)
        return nb, resources


def unread(marks: SubmissionMarks) -> str:
    """What stands at every exercise of a submission that could not be read."""
    return f"Nothing could be graded: {'; '.join(marks.problems)}\n"


def _text(text: str) -> NotebookNode:
    return _made(v4.new_output, "stream", name="stdout", text=text)


def _told(exercise: ExerciseFeedback) -> NotebookNode:
    """What a student reads about an exercise: HTML, and text for whatever shows no HTML."""
    data = {"text/plain": as_text(exercise), "text/html": as_html(exercise)}
    return _made(v4.new_output, "display_data", data=data)


def _points(points: float) -> NotebookNode:
    # A plain float: nbgrader takes what is not one, NaN and numpy's too, for full points.
    return _made(v4.new_output, "execute_result", data={"text/plain": repr(float(points))})


def _made(make: Any, *arguments: Any, **keywords: Any) -> NotebookNode:
    """Call one of nbformat's makers, which have no types."""
    node: NotebookNode = make(*arguments, **keywords)
    return node
