"""The steps put into nbgrader's pipeline; nbgrader_config.py says where.

nbgrader reads a notebook by its metadata and executes it. Students lose metadata, copy cells and
write loops that never end; so here `SubmissionExporter` reads what was handed in as `autograder
grade` does, `Restore` gives the metadata back by definition name, and `Grade` stands in the place
of nbgrader's `Execute` and writes what the graders found as the outputs of the check cells.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode, v4
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder import course as courses
from autograder import store
from autograder.cells import Cell
from autograder.course import CourseError, Day
from autograder.grading import Grader
from autograder.marks import ExerciseMarks, Status, SubmissionMarks
from autograder.needs import units_of
from autograder.notebook import METADATA, solution_notebook
from autograder.sandbox.client import Server
from autograder.submission import Submission, submissions

CHECK = "check_"
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS.*?^### END HIDDEN TESTS\n?", re.M | re.S)
STATUS: Mapping[Status, str] = {
    "passed": "every test holds",
    "partial": "some tests hold",
    "failed": "no test holds that counts by itself",
    "not_attempted": "not attempted",
    "error": "the code could not be loaded",
    "timed_out": "a call did not end in time",
    "crashed": "the process died",
    "not_allowed": "it uses what is not allowed",
}


class SubmissionExporter(NotebookExporter):
    """Reads what a student handed in, whatever its state; one for each run, with one grader."""

    submission: Submission

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Convert a notebook: a submitted one as our own reader sees it, an autograded one as it is."""
        assert resources is not None
        directory, names = self.parent.coursedir, resources["nbgrader"]
        folder = directory.format_path(
            directory.submitted_directory, names["student"], names["assignment"]
        )
        path = Path(filename)
        if path.parent != Path(folder):
            return super().from_filename(filename, resources, **kw)
        self.submission = next(submissions([path], names["assignment"]))
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        return self.from_notebook_node(self._notebook(), resources, **kw)

    def _notebook(self) -> NotebookNode:
        cells = [self._cell(cell) for cell in self.submission.cells]
        return _made(v4.new_notebook, cells=cells, metadata=METADATA)

    def _cell(self, cell: Cell) -> NotebookNode:
        name = f"cell-{cell.number}"
        if cell.kind == "code":
            return _made(v4.new_code_cell, cell.source, id=name)
        given = cell.kind == "markdown" and cell.source.strip() in self._texts
        source = cell.source if given else verbatim(cell.source)
        return _made(v4.new_markdown_cell, source, id=name)

    @cached_property
    def _texts(self) -> frozenset[str]:
        """The course's own texts."""
        cells = solution_notebook(self.day).cells
        return frozenset(cell.source.strip() for cell in cells if cell.cell_type == "markdown")

    @cached_property
    def day(self) -> Day:
        root = courses.find_root(Path(self.parent.coursedir.root))
        return courses.load(root).day(self.parent.coursedir.assignment_id)

    @cached_property
    def grader(self) -> Grader:
        """The grader of this run; its fork server ends with it, at the latest at exit."""
        server = Server()
        weakref.finalize(self, server.close)
        return Grader(self.day, server, store.secret(self.day.root))


def verbatim(text: str) -> str:
    """Text in a fence: nbgrader's pages show a markdown or raw cell's HTML, scripts and all."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""


class Restore(NbGraderPreprocessor):  # type: ignore[misc]
    """Gives each exercise its solution cell and its check cell, as the gradebook knows them."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Mark the cells of a notebook that has no nbgrader metadata."""
        exporter = self.parent
        checks = self._checks(exporter.day, resources["nbgrader"])
        homes = definitions(exporter.submission.cells, exporter.day.names)
        nb.cells = list(_restored(nb.cells, homes, checks))
        return nb, resources

    def _checks(self, day: Day, names: Mapping[str, str]) -> dict[str, NotebookNode]:
        """The check cell of each exercise, as the gradebook holds it.

        Raises:
            CourseError: the gradebook does not fit grading.toml.
        """
        with Gradebook(names["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(names["notebook"], names["assignment"])
            points = {cell.name: float(cell.max_score) for cell in notebook.grade_cells}
            sources = {cell.name: cell.source for cell in notebook.source_cells}
        if points != {CHECK + exercise.name: exercise.points for exercise in day.exercises}:
            raise CourseError(
                f"the gradebook has other exercises or points for {day.name} than {courses.FILE}: "
                f"run autograder build {day.name}"
            )
        return {
            name: _marked(sources[CHECK + name], CHECK + name, points[CHECK + name])
            for name in day.names
        }


def definitions(cells: Sequence[Cell], exercises: Sequence[str]) -> dict[str, int]:
    """For each exercise that is defined, the number of the cell with its last definition."""
    units = [unit for unit in units_of(cells)[0] if not unit.main_only]
    found = {}
    for name in exercises:
        binding = [unit for unit in units if name in unit.binds]
        defining = [unit for unit in binding if name in unit.defines]
        if binding:
            found[name] = (defining or binding)[-1].cell
    return found


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
    """Grades the submission, and writes points and feedback as each check cell's output."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Fill in the outputs; nbgrader takes a check cell's points from its `execute_result`."""
        exporter = self.parent
        marks = exporter.grader.grade(exporter.submission)
        exercises = {CHECK + exercise.name: exercise for exercise in marks.exercises}
        for cell in nb.cells:
            metadata = cell.metadata.get("nbgrader", {})
            if metadata.get("grade"):
                graded = exercises.get(metadata["grade_id"])
                text = feedback(exporter.grader, graded) if graded else unread(marks)
                cell.outputs = _outputs(text, graded.points if graded else 0.0)
        if marks.exercises and marks.problems:
            noticed = _made(v4.new_code_cell, "# What was noticed in this notebook", id="problems")
            noticed.outputs = _outputs("\n".join(marks.problems) + "\n")
            nb.cells.insert(0, noticed)
        return nb, resources


def unread(marks: SubmissionMarks) -> str:
    """What stands at every exercise of a submission that could not be read."""
    return f"Nothing could be graded, for the file can not be read: {'; '.join(marks.problems)}\n"


def feedback(grader: Grader, marks: ExerciseMarks) -> str:
    """What a student reads about an exercise: its status, what is lost and why, what holds."""
    lines = [
        f"{marks.name}: {marks.points:g} of {marks.max_points:g} points, {STATUS[marks.status]}."
    ]
    if marks.reference_for:
        others = ", ".join(marks.reference_for)
        lines.append(f"Graded with the course's own {others}, so that a mistake there costs once.")
    lost = [test for test in marks.tests if not test.passed]
    if len({test.message for test in lost}) == 1:
        lines += ["", lost[0].message]
    else:
        for test in lost:
            lines += ["", f"Lost, {test.max_points:g} points: {test.message}"]
    sentences = {test.name: test.sentence for test in grader.tests[marks.name]}
    held = [test for test in marks.tests if test.passed]
    if held:
        lines.append("")
    for test in held:
        alone = "" if test.points else " (earns nothing alone: any answer passes it)"
        lines.append(f"Holds, {test.points:g} points: {sentences[test.name]}{alone}")
    return "\n".join(lines) + "\n"


def _outputs(text: str, points: float | None = None) -> list[NotebookNode]:
    outputs = [_made(v4.new_output, "stream", name="stdout", text=text)]
    if points is not None:
        # A plain float: nbgrader takes what is not one, NaN and numpy's too, for full points.
        data = {"text/plain": repr(float(points))}
        outputs.append(_made(v4.new_output, "execute_result", data=data))
    return outputs


def _made(make: Any, *arguments: Any, **keywords: Any) -> NotebookNode:
    """Call one of nbformat's makers, which have no types."""
    node: NotebookNode = make(*arguments, **keywords)
    return node
