"""Test `autograder new` and `autograder try` in a course that uses nothing from this repository."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest
from nbgrader.apps import NbGrader

from autograder.course import config as courses
from autograder.course import new_course
from autograder.course.config import CourseError, Day
from autograder.course.fingerprint import fingerprint
from autograder.grading import exercise_grader
from autograder.grading.grader import Grader
from autograder.release import static_checks, visible_checks
from autograder.release.trial import Trial, lines, try_exercises
from autograder.sandbox.client import Server
from autograder.slicing.slicer import Slicer, prepare
from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission
from tests.conftest import ROOT, grade_one, handed_in, reader
from tests.small_course import command

UNNOTICED = """
## multiplied by the reciprocal
Multiply by the reciprocal.

```diff
-return (x - mean) / x.var(1, keepdim=True, correction=0).sqrt()
+return (x - mean) * x.var(1, keepdim=True, correction=0).rsqrt()
```
"""
TWICE = """
## the mean of all values
One mean for everything, computed in another way.

```diff
-mean = x.mean(1, keepdim=True)
+mean = x.sum() / x.numel()
```
"""
STYLE = """
def standardize(x):
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
"""
# A wrong answer to one exercise.
SUBMITTED = """
import torch
def standardize(x):
    raise ValueError("\\x1b]0;owned\\x07")
"""


def make(folder: Path) -> Path:
    new_course.create(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("full", "not empty"),
        ("file", "exists and is not a folder"),
        ("no/where", "there is no folder"),
        ("course/inner", "would be inside the course in .+/course. Create it outside"),
        ("-x", "is not a valid course name"),
        ("a b", "is not a valid course name"),
        ("n" * 65, "is not a valid course name"),
    ],
)
def test_a_course_is_not_created_at_an_unusable_place(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "grading.toml").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CourseError, match=reason):
        new_course.create(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_becomes_a_course(tmp_path: Path) -> None:
    root = make(tmp_path)
    for folder in (root, ROOT):  # students' data must not appear in `git status`
        ignored = (folder / ".gitignore").read_text().splitlines()
        assert {"/*.csv", "/*.zip", "/marks.json", "/feedback-*/", "/report-*/"} <= set(ignored)
    assert (root / "README.md").read_text().startswith(f"# {tmp_path.name}\n")
    assert courses.load(root).day("day1").names == ("standardize", "find_outliers")


def test_a_course_gets_a_configuration_of_nbgrader_if_it_has_none(tmp_path: Path) -> None:
    root = tmp_path / 'a "course"'
    root.mkdir()
    (file,) = new_course.add_nbgrader_config(root)
    app = NbGrader(log_level=logging.CRITICAL)
    app.initialize([], root=str(root))
    assert app.coursedir.release_directory == "assignments"
    file.write_text("own")
    assert not list(new_course.add_nbgrader_config(root))
    assert file.read_text() == "own"


def test_an_empty_result_earns_nothing(server: Server, tmp_path: Path) -> None:
    """An empty result earns no points, even if the grader iterates over it without checking its shape."""
    file = make(tmp_path) / "graders/day1/test_cleaning.py"
    careful = "shaped(student.standardize(x), (3, 7))"
    assert careful in file.read_text()
    file.write_text(file.read_text().replace(careful, "student.standardize(x)"))
    grader = Grader(courses.load(tmp_path).day("day1"), server, b"secret")
    for result in ("[]", "torch.empty(0)", "x[:0]", "()", "x * torch.nan", "torch.ones_like(x)"):
        marks = grader.grade(answering(result))
        assert marks.points == 0, result
    partial = answering("(x - x.mean()) / x.std(correction=0)")  # correct for a single row
    assert grade_one(grader, partial, "standardize").points == 25


def answering(result: str) -> Submission:
    """Return a submission whose `standardize` returns the value of this expression."""
    return handed_in(f"import torch\ndef standardize(x):\n    return {result}\n")


@pytest.mark.slow
def test_a_new_course_builds(tmp_path: Path) -> None:
    """`autograder build` also grades the solutions and runs the notebook."""
    made = command(tmp_path, "new", "mycourse")
    assert made.returncode == 0, made.stderr
    root = tmp_path / "mycourse"
    (root / "nbgrader_config.py").unlink()  # the build recreates this file
    built = command(root, "build")
    assert built.returncode == 0, built.stderr
    assert (root / "nbgrader_config.py").is_file()
    released = {file.name for file in (root / "assignments" / "day1").iterdir()}
    assert released == {"AGENTS.md", "CLAUDE.md", "README.md", "day1.ipynb", "requirements.txt"}


@pytest.mark.slow
def test_pytest_finds_the_fixtures_of_the_graders(tmp_path: Path) -> None:
    root = make(tmp_path / "course")
    done = command(root, "-q", "--autograder-seed", "7", program="pytest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    solutions = root / "solutions/day1/cleaning.py"
    solutions.write_text(solutions.read_text().replace("keepdim=True", "keepdim=False"))
    done = command(root, "-q", program="pytest")
    assert done.returncode == 1
    assert "StudentError" in done.stdout


@pytest.mark.slow
def test_explain_shows_which_tests_an_ungraded_answer_fails(tmp_path: Path) -> None:
    root = make(tmp_path / "course")
    submitted = tmp_path / "submitted.py"
    submitted.write_text(SUBMITTED)
    done = command(root, "explain", "day1", str(submitted), "standardize")
    assert done.returncode == 0, done.stderr
    assert r"`standardize` raised ValueError: \x1b]0;owned\x07" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_only_graders_have_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test(student): pass\n")
    done = command(tmp_path, "-q", program="pytest")
    assert "fixture 'student' not found" in done.stdout, done.stdout


@pytest.mark.slow
def test_a_project_with_its_own_seed_option_can_use_pytest(tmp_path: Path) -> None:
    option = "def pytest_addoption(parser):\n    parser.addoption('--seed')\n"
    (tmp_path / "conftest.py").write_text(option)
    (tmp_path / "test_it.py").write_text("def test(): pass\n")
    done = command(tmp_path, "-q", "--seed", "1", program="pytest")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """Try both exercises. For `standardize`, two known mistakes and one alternative solution are faulty on purpose."""
    root = make(tmp_path_factory.mktemp("course"))
    with (root / "mistakes/day1/standardize.md").open("a") as file:
        file.write(UNNOTICED + TWICE)
    styles = root / "tests/styles/day1"
    styles.mkdir(parents=True)
    (styles / "unbiased.py").write_text(STYLE)
    return {t.exercise.name: t for t in try_exercises(courses.load(root).day("day1"), [])}


@pytest.mark.slow
def test_a_sound_exercise_has_no_faults(trials: dict[str, Trial]) -> None:
    trial = trials["find_outliers"]
    assert not trial.has_faults, list(lines(trial))
    text = "\n".join(lines(trial))
    assert "test_below" in text
    assert "feedback: Your code finds values above" in text
    shown = "\n".join(lines(trials["standardize"]))
    assert "    visible check: Each row should be [-1, 1]; your result is tensor([[-15" in shown
    assert "1.7000]]).\n" in shown  # the message's last line
    assert not re.search(r"\d\.\d{8}", shown)  # such as -0.30000001192092896


@pytest.mark.slow
def test_a_trial_shows_each_fault_of_an_exercise(trials: dict[str, Trial]) -> None:
    faults = {result.answer.name: result.faults for result in trials["standardize"].results}
    assert faults["the solution"] == ()
    assert any("test_one_row" in fault for fault in faults["tests/styles/day1/unbiased.py"])
    assert "no hidden test fails" in faults["multiplied by the reciprocal"][0]
    assert "not recognised" in faults["the mean of all values"][0]
    assert "not recognised" in faults["one mean for the whole tensor"][0]


@pytest.mark.slow
def test_a_test_that_the_solution_fails_is_a_fault_of_the_course(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path)
    graders = root / "graders/day1/test_cleaning.py"
    graders.write_text(graders.read_text().replace("x.std(correction", "x.stdd(correction"))
    day = courses.load(root).day("day1")
    (trial,) = try_exercises(day, ["standardize"])
    assert trial.faults == ("the known mistakes were not tried, because the solution fails",)
    (solution,) = trial.results
    assert "test_one_row" in solution.faults[0]
    assert re.search(r"; see test_cleaning\.py, line \d+$", solution.faults[0])
    message = r"with Python .* and torch .* solutions fail .*: standardize fails test_one_row in test_cleaning.py, line \d+ \("
    with pytest.raises(CourseError, match=message):
        Grader(day, server, b"secret")
    # Other inputs may make a test fail although it passed this check.
    monkeypatch.setattr(exercise_grader, "check_solutions", lambda runner: None)
    marks = Grader(day, server, b"secret").grade(answering("x - x.mean()"))
    assert (
        "the course's own solution to standardize fails a hidden test, so the points for standardize may be too low. "
        "`autograder try day1 standardize` shows the cause"
    ) in marks.problems


@pytest.mark.slow
def test_a_solution_that_only_runs_in_the_notebook_has_a_fault(tmp_path: Path) -> None:
    """The notebook's provided cell imports Tensor, which would hide a missing import in the chapter."""
    chapter = make(tmp_path) / "solutions/day1/cleaning.py"
    chapter.write_text(chapter.read_text().replace("from torch import Tensor\n", ""))
    (trial,) = try_exercises(courses.load(tmp_path).day("day1"), ["standardize"])
    (solution,) = trial.results
    assert "name 'Tensor' is not defined" in solution.faults[0]


@pytest.mark.slow
def test_an_invalid_known_mistake_is_an_error_of_the_course(server: Server, tmp_path: Path) -> None:
    root = make(tmp_path)
    mistakes = root / "mistakes/day1/standardize.md"
    mistakes.write_text(mistakes.read_text().replace("-mean = ", "-average = "))
    message = (
        r"standardize\.md: 'one mean for the whole tensor': the reference solution does not contain"
    )
    with pytest.raises(CourseError, match=message):
        Grader(courses.load(root).day("day1"), server, b"secret")


@pytest.mark.slow
def test_given_code_that_exits_silently_is_an_error_of_the_course(tmp_path: Path) -> None:
    root = make(tmp_path)
    chapter = root / "solutions/day1/cleaning.py"
    chapter.write_text(chapter.read_text() + "\n# %%\nimport os\n\nos._exit(3)\n")
    with pytest.raises(CourseError, match="day1: the process exited with code 3"):
        visible_checks.messages(courses.load(root).day("day1"), {})


ENTRIES = """
[not_allowed.sorted]
[not_allowed.median]
names = ["median", "quantile"]
attributes = ["numpy.median"]
"""


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("def standardize(x):\n    return sorted(x)", ("sorted",)),
        ("import numpy\ndef standardize(x):\n    return numpy.median(x)", ("numpy.median",)),
        ("def standardize(x):\n    return torch.quantile(x, 0.5)", ("torch.quantile",)),
        ("def sorted(x):\n    return x\ndef standardize(x):\n    return sorted(x)", ()),
        ("def standardize(sorted):\n    return sorted", ()),
        ("import numpy\ndef standardize(x):\n    return numpy.mean(x)", ()),
    ],
)
def test_a_course_forbids_functions_of_its_own(
    tmp_path: Path, code: str, used: tuple[str, ...]
) -> None:
    root = make(tmp_path)
    before = fingerprint(courses.load(root).day("day1"))
    text = (root / "grading.toml").read_text()
    listed = 'chapter = "cleaning"\nnot_allowed = ["sorted", "median"]'
    (root / "grading.toml").write_text(text.replace('chapter = "cleaning"', listed, 1) + ENTRIES)
    day = courses.load(root).day("day1")
    assert fingerprint(day) != before
    assert day.exercises[0].forbidden.attributes == ("numpy.median",)
    server = reader().server
    with Slicer(server, prepare(server, day), [Cell(1, "code", code)]) as slicer:
        assert slicer.slice_all().slices["standardize"].used == used


DEMONSTRATION = """
# %%
if __name__ == "__main__":
    with demonstration():
        CODE
"""


def with_demonstration(root: Path, code: str) -> Day:
    """Return the first day of a new course to which a demonstration and a constant were added."""
    chapter = make(root) / "solutions/day1/cleaning.py"
    added = DEMONSTRATION.replace("CODE", code) + "\n# %%\nLATER = 1\n"
    chapter.write_text(chapter.read_text() + added)
    return courses.load(root).day("day1")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("plt.plot([1, 2])", "plt"),
        ("show = lambda x: [round(y, places) for y in x]", "places"),
        ("print(LATER)", "LATER"),
    ],
)
def test_trying_a_chapter_that_lacks_an_import_is_an_error(
    tmp_path: Path, code: str, name: str
) -> None:
    day = with_demonstration(tmp_path, code)
    with pytest.raises(
        CourseError, match=rf"cleaning\.py:\d+: {name} is (not defined|used before)"
    ):
        next(try_exercises(day, []))


def test_a_name_that_no_cell_defines_is_an_error_in_a_function_too(tmp_path: Path) -> None:
    chapter = make(tmp_path) / "solutions/day1/cleaning.py"
    added = "\n# %%\ndef show(x):\n    plt.plot(x, LATER)\n\n\n# %%\nLATER = 1\n"
    chapter.write_text(chapter.read_text() + added)
    with pytest.raises(CourseError, match=r"cleaning\.py:\d+: plt is not defined"):
        static_checks.check([courses.load(tmp_path).day("day1")])


@pytest.mark.parametrize(
    "code",
    [
        "print([x.max() for x in torch.ones(2, 2)], (lambda y, *z: y)(1), __name__)",
        "import math; print(math.pi, standardize(torch.eye(2)), predict, MEASURED)",
        "def count() -> None: global TIMES; TIMES = 1\n        count(); print(TIMES)",
        "from math import *; print(pi)",
    ],
)
def test_names_that_the_notebook_defines_are_not_reported(tmp_path: Path, code: str) -> None:
    static_checks.check([with_demonstration(tmp_path, code)])


def test_the_days_of_this_repository_use_no_undefined_names() -> None:
    course = courses.load(ROOT)
    started = time.process_time()
    static_checks.check(map(course.day, course.days))
    assert time.process_time() - started < 10, "both days should take seconds"


def test_trying_an_unknown_exercise_is_an_error(tmp_path: Path) -> None:
    day = courses.load(make(tmp_path)).day("day1")
    with pytest.raises(CourseError, match="has no exercise 'nothing'; it has standardize"):
        next(try_exercises(day, ["nothing"]))
