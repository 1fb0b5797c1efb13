"""Test each day's graders: correct answers get full points, and a mistake affects only exercises that depend on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jupytext
import pytest

from autograder.course import config as courses
from autograder.course.config import check_day
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.protocol.limits import Limits
from autograder.release.notebook import solution_notebook
from autograder.sandbox.command import READER, WORKER
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from tests.conftest import ROOT, grade_one, handed_in

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
STYLES = [
    pytest.param(day, path, id=f"{day}-{path.stem}")
    for day in COURSE.days
    for path in sorted((ROOT / "tests" / "styles" / day).glob("*.py"))
]
EXERCISES = [(day.name, name) for day in COURSE.days.values() for name in day.names]
Graders = Callable[[str], Grader]


@pytest.fixture(params=list(COURSE.days))
def grader(request: pytest.FixtureRequest, graders: Graders) -> Grader:
    return graders(request.param)


def lost(marks: SubmissionMarks) -> dict[str, str]:
    return {e.name: e.message for e in marks.exercises if e.status != "passed"}


def test_the_course_is_consistent(grader: Grader) -> None:
    check_day(grader.day)


def test_the_solution_gets_full_points_and_starts_one_worker_per_exercise(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    start = grader.server.start

    def count(limits: Limits, service: str = WORKER) -> object:
        started.append(service)
        return start(limits, service)

    monkeypatch.setattr(grader.server, "start", count)
    marks = grader.grade(handed_in(solution_notebook(grader.day)))
    # A student's test gets a new worker for each implementation, and all implementations share one.
    tested = grader.key.implementations.values()
    further = sum(1 + len(each.correct) + len(each.kinds) for each in tested)
    assert started.count(WORKER) == len(grader.day.exercises) + further
    assert started.count(READER) == 1
    assert lost(marks) == {}
    assert (marks.points, marks.problems) == (100, [])
    for exercise in marks.exercises:
        assert sum(test.max_points for test in exercise.tests) == pytest.approx(exercise.max_points)


def test_grading_the_solution_does_not_import_sympy() -> None:
    """Importing sympy takes about as long as grading five exercises. The test looks for a library that only sympy imports."""
    script = (
        "import sys\n"
        "from autograder.course import config as courses\n"
        "from autograder.sandbox.client import start_server\n"
        "from autograder.grading.grader import Grader\n"
        "from tests.conftest import ROOT, handed_in, solution_notebook\n"
        "with start_server() as server:\n"
        "    grader = Grader(courses.load(ROOT).day('day1'), server)\n"
        "    assert grader.grade(handed_in(solution_notebook(grader.day))).points == 100\n"
        "assert 'mpmath' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_unchanged_release_gets_no_points(grader: Grader) -> None:
    day = grader.day
    release = jupytext.read(ROOT / "assignments" / day.name / f"{day.name}.ipynb")
    marks = grader.grade(handed_in(release))
    assert [e.status for e in marks.exercises] == ["not_attempted"] * len(day.names)
    assert marks.points == 0
    assert marks.problems == [
        f"no exercises from {day.name} were attempted: the stubs are unchanged"
    ]


@pytest.mark.parametrize(("day", "path"), STYLES)
def test_every_style_gets_full_points(day: str, path: Path, graders: Graders) -> None:
    marks = graders(day).grade(handed_in(path.read_text(encoding="utf-8")))
    assert lost(marks) == {}
    assert marks.points == 100


@pytest.mark.parametrize(("day", "exercise"), EXERCISES)
def test_a_mistake_is_only_in_the_code_of_exercises_that_depend_on_it(
    day: str, exercise: str, graders: Graders
) -> None:
    grader = graders(day)
    reference = grader.key.solutions
    wrong_code = next(u.source for u in reference if exercise in u.binds) + "\n# changed"
    replaced = parse_units([Cell(0, "code", wrong_code)])[0]
    wrong = [u for u in reference if exercise not in u.binds] + replaced
    for other in grader.day.names:
        before = slice_for(other, reference, grader.key.given, grader.day.names)
        after = slice_for(other, wrong, grader.key.given, grader.day.names)
        assert before is not None
        assert after is not None
        if other != exercise and exercise not in before.reached:
            assert [u.source for u in after.units] == [u.source for u in before.units], other


def test_a_partly_correct_answer_gets_some_points(graders: Graders) -> None:
    naive = "def softmax(x, dim=-1):\n    e = x.exp()\n    return e / e.sum(dim, keepdim=True)"
    softmax = grade_one(graders("day1"), handed_in(naive), "softmax").exercises[0]
    assert softmax.status == "partial"
    assert 0 < softmax.points < softmax.max_points


def test_a_notebook_from_an_earlier_release_keeps_its_points(graders: Graders) -> None:
    """The notebook comes from a release that was built before the autograder was split into packages."""
    old = jupytext.read(ROOT / "tests" / "old_release.ipynb")
    marks = graders("day1").grade(handed_in(old))
    graded = {e.name: e.status for e in marks.exercises if e.status != "not_attempted"}
    assert graded == dict.fromkeys(
        [
            *("softmax", "attention_scores", "attention", "padding_mask"),
            *("causal_mask", "decoder_mask", "masked_attention"),
        ],
        "passed",
    )
