"""Day 1's graders are right: they take every right answer, refuse every mistake, and a mistake stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jupytext
import pytest
from nbformat import NotebookNode

from autograder import course as courses
from autograder.cells import Cell, read_cells
from autograder.course import Day
from autograder.grading import Grader, reference_units
from autograder.marks import SubmissionMarks
from autograder.needs import needed, units_of
from tests.conftest import ROOT, by_name, with_cells

Grade = Callable[..., SubmissionMarks]
STYLES = sorted((ROOT / "tests" / "styles" / "day1").glob("*.py"))


def test_the_solution_gets_everything(grade: Grade, solution: NotebookNode) -> None:
    marks = grade(solution)
    assert {e.name: e.message for e in marks.exercises if e.status != "passed"} == {}
    assert (marks.points, marks.problems) == (100, [])


def test_the_release_unfilled_gets_nothing(grade: Grade) -> None:
    release = ROOT / "assignments" / "day1" / "day1.ipynb"
    marks = grade(jupytext.read(release))
    assert [e.status for e in marks.exercises] == ["not_attempted"] * 20
    assert (marks.points, marks.problems) == (0, [])


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.stem)
def test_another_style_gets_everything(path: Path, grade: Grade) -> None:
    marks = grade(path.read_text(encoding="utf-8"))
    assert {e.name: e.message for e in marks.exercises if e.status != "passed"} == {}
    assert marks.points == 100


def mistakes() -> Iterator[tuple[str, Cell]]:
    """The exercise and the cell of each known mistake."""
    for file in sorted((ROOT / "autograder" / "mistakes" / "day1").glob("*.py")):
        cells, _ = read_cells(file.read_bytes(), file.name)
        for cell in cells:
            if cell.metadata.get("title") or cell.kind == "code":
                names = {n for unit in units_of([cell])[0] for n in unit.binds}
                yield from ((e, cell) for e in EXERCISES if e in names)


EXERCISES = courses.load(ROOT).day("day1").names
MISTAKES = list(mistakes())


@pytest.mark.parametrize("exercise", EXERCISES)
def test_every_mistake_costs_its_exercise(
    exercise: str, day1: Day, grader: Grader, grade: Grade, solution: NotebookNode
) -> None:
    """And no other exercise's code is changed by it, unless that reaches this one."""
    own = [cell for name, cell in MISTAKES if name == exercise]
    assert len(own) >= 6
    unnoticed: list[str] = []
    for cell in own:
        wrong = with_cells(solution, {exercise: cell.source})
        marks = grade(wrong, only=exercise)
        if marks.exercises[0].points == marks.exercises[0].max_points:
            unnoticed.append(cell.source.split("\n")[0])
        assert marks.exercises[0].status not in ("error", "not_attempted"), marks.exercises[0]
    assert not unnoticed
    _stays_where_it_is(exercise, own[0], day1, grader)


def _stays_where_it_is(exercise: str, cell: Cell, day: Day, grader: Grader) -> None:
    reference = reference_units(day)
    wrong = [u for u in reference if exercise not in u.binds] + units_of([cell])[0]
    for other in day.names:
        before = needed(other, reference, grader.given, day.names)
        assert before is not None
        if other == exercise or exercise in before.reached:
            continue
        after = needed(other, wrong, grader.given, day.names)
        assert after is not None
        assert [u.source for u in after.units] == [u.source for u in before.units], other


def test_points_are_shared_out_to_the_cent(grade: Grade, solution: NotebookNode) -> None:
    for exercise in grade(solution).exercises:
        assert sum(test.max_points for test in exercise.tests) == pytest.approx(exercise.max_points)


def test_a_partly_right_answer_earns_a_part(grade: Grade, solution: NotebookNode) -> None:
    naive = "def softmax(x, dim=-1):\n    e = x.exp()\n    return e / e.sum(dim, keepdim=True)"
    softmax = by_name(grade(with_cells(solution, {"softmax": naive}), only="softmax"))["softmax"]
    assert softmax.status == "partial"
    assert 0 < softmax.points < softmax.max_points
