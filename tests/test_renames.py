"""Test that renaming an exercise costs no points in submissions, the store, marks files or the gradebook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from autograder.arguments import write_marks
from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.course.fingerprint import fingerprint
from autograder.grading.grader import Grader
from autograder.marks.history import History, basis_of
from autograder.marks.model import Override, SubmissionMarks
from autograder.marks.overrides import OverrideStore, StudentOverride, read_stored
from autograder.marks.regrade import compare
from autograder.sandbox.client import Server
from autograder.submissions.submission import Submission, choose, find_day, seed_of
from tests.conftest import SECRET, by_name, handed_in

pytestmark = pytest.mark.slow

TOML = """
[day1]
title = "Numbers"
[day1.exercises.double]
chapter = "numbers"
points = 40
[day1.exercises.Doubler]
chapter = "numbers"
points = 30
[day1.exercises.quadruple]
chapter = "numbers"
points = 30
"""
CHAPTER = """
# %%
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
# %%
class Doubler:
    def __init__(self, x):
        ### BEGIN SOLUTION
        self.x = double(x)
        ### END SOLUTION
    def value(self):
        ### BEGIN SOLUTION
        return self.x
        ### END SOLUTION
# %%
def quadruple(x):
    ### BEGIN SOLUTION
    return double(Doubler(x).value())
    ### END SOLUTION
"""
GRADER = """
from autograder.execution.checks import Draw, equal


class TestDouble:
    exercise = "double"

    def test_small(self, student, seed):
        \"\"\"The result is twice the argument.\"\"\"
        x = int(Draw(seed).integers(2, 9)); equal(student.double(x), 2 * x)

    def test_large(self, student, seed):
        \"\"\"The result is twice a large argument.\"\"\"
        x = int(Draw(seed).integers(200, 900)); equal(student.double(x), 2 * x)


class TestDoubler:
    exercise = "Doubler"

    def test_value(self, student, seed):
        \"\"\"The value is twice the argument.\"\"\"
        x = int(Draw(seed).integers(2, 9)); equal(student.Doubler(x).value(), 2 * x)


class TestQuadruple:
    exercise = "quadruple"

    def test_large(self, student, seed):
        \"\"\"The result is four times the argument.\"\"\"
        x = int(Draw(seed).integers(200, 900)); equal(student.quadruple(x), 4 * x)
"""
RENAMED = {"double": "twice", "Doubler": "Pair"}
FILES = {
    "grading.toml": TOML,
    "solutions/day1/numbers.py": CHAPTER,
    "graders/day1/test_numbers.py": GRADER,
}
SOLUTION = re.sub(r" *### (BEGIN|END) SOLUTION\n", "", CHAPTER)
HANDED_IN = {
    "right": SOLUTION,
    "a mistake that others use": SOLUTION.replace("2 * x", "2 * x if x < 50 else x"),
    "a mistake in a class": SOLUTION.replace("self.x = double(x)", "self.x = x"),
    "a helper and a decorator": SOLUTION.replace(
        "def double(x):",
        "import functools\ndef help(x): return 2 * x\n@functools.cache\ndef double(x):",
    ).replace("return 2 * x", "return help(x)"),
    "a method that is added later": SOLUTION.replace("def value(self)", "def other(self)")
    + "\n# %%\ndef value(self): return self.x\nDoubler.value = value\n",
    "a result with the new name": SOLUTION + "\n# %%\ntwice = double(3)\nprint(twice)\n",
    "a rebinding": SOLUTION + "\n# %%\nimport functools\ndouble = functools.lru_cache(double)\n",
    "a partial function": SOLUTION.replace(
        "def double(x):\n    return 2 * x\n",
        "import functools, operator\ndouble = functools.partial(operator.mul, 2)\n",
    ),
    "stubs": "def double(x):\n    raise NotImplementedError('double')\n"
    "class Doubler:\n    def __init__(self, x): raise NotImplementedError('Doubler')\n"
    "    def value(self): raise NotImplementedError('Doubler')\n",
    "a broken definition": SOLUTION.replace("return 2 * x", "return 2 * y"),
    "only the last exercise": "def quadruple(x): return 4 * x\n",
}


def write(root: Path, names: Mapping[str, str] | None = None) -> Day:
    """Write the course, rename its exercises as specified by `names`, and return its day."""
    for file, text in FILES.items():
        for older, name in (names or {}).items():
            key = f'[day1.exercises.{name}]\nrenamed_from = ["{older}"]'
            text = text.replace(f"[day1.exercises.{older}]", key)
            if file != "grading.toml":
                text = text.replace(older, name)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return courses.load(root).day("day1")


@pytest.fixture(scope="module")
def before(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grader:
    return Grader(write(tmp_path_factory.mktemp("before")), server, SECRET)


@pytest.fixture(scope="module")
def after(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grader:
    return Grader(write(tmp_path_factory.mktemp("after"), RENAMED), server, SECRET)


def results(marks: SubmissionMarks, names: Mapping[str, str]) -> list[object]:
    """Return the contents of the marks, without messages and with exercises renamed according to `names`."""
    found: list[object] = []
    for one in marks.exercises:
        references = [names.get(name, name) for name in one.reference_for]
        tests = [(test.name, test.passed, test.points, test.values) for test in one.tests]
        shown = [statement.source for statement in one.statements]
        found.append(
            (names.get(one.name, one.name), one.points, one.status, references, tests, shown)
        )
    return found


@pytest.mark.parametrize("text", HANDED_IN.values(), ids=HANDED_IN)
def test_older_submissions_get_the_same_marks(text: str, before: Grader, after: Grader) -> None:
    submission = handed_in(text)
    first, second = before.grade(submission), after.grade(submission)
    assert results(first, RENAMED) == results(second, {})
    assert [p for p in second.problems if "different release" not in p] == first.problems


def test_a_mistake_costs_points_once_under_both_names(before: Grader, after: Grader) -> None:
    submission = handed_in(HANDED_IN["a mistake that others use"])
    old, new = by_name(before.grade(submission)), by_name(after.grade(submission))
    assert (old["double"].points, new["twice"].points) == (20, 20)
    assert (old["quadruple"].points, new["quadruple"].points) == (30, 30)
    assert new["quadruple"].reference_for == ["twice"]


def test_new_submissions_use_the_new_names(after: Grader) -> None:
    text = SOLUTION.replace("double", "twice").replace("Doubler", "Pair")
    marks = after.grade(handed_in(text))
    assert marks.points == 100
    assert [p for p in marks.problems if "different release" not in p] == []


def test_older_submissions_are_recognised_and_chosen(after: Grader) -> None:
    from autograder.course.config import known_names

    names = known_names(after.day)
    full, empty = (replace_path(handed_in(HANDED_IN[k]), k) for k in ("right", "stubs"))
    assert choose([empty, full], names).path == "right"
    assert find_day(full, "day1", {"day1": names, "day2": ["other"]}) == "day1"


def replace_path(submission: Submission, path: str) -> Submission:
    return Submission(path, "ada", "", submission.cells, (), True)


@pytest.fixture
def stored(before: Grader, tmp_path: Path) -> tuple[Day, SubmissionMarks]:
    """Store marks and an override, then rename exercises. Return the renamed day and the stored marks."""
    submission = handed_in(HANDED_IN["a mistake that others use"])
    marks = before.grade(submission)
    seed = seed_of("day1", SECRET, submission)
    basis = basis_of("day1", submission, marks.course, seed, marks.isolation)
    with History(tmp_path) as history:
        history.add(basis, marks, tmp_path)
    override = Override(33, "Well tried", "tom", "2026-11-27T12:00:00+00:00")
    with OverrideStore(tmp_path) as store:
        store.add("day1", [StudentOverride(marks.origin.keys[0], "ada", "double", override)])
    return write(tmp_path, RENAMED), marks


def test_stored_marks_and_overrides_get_the_new_names(stored: tuple[Day, SubmissionMarks]) -> None:
    from autograder.stored_marks import read_class

    day, marks = stored
    (found,) = read_class(day)
    assert [exercise.name for exercise in found.exercises] == list(day.names)
    exercises = by_name(found)
    assert (exercises["twice"].points, exercises["quadruple"].points) == (33, 30)
    assert exercises["quadruple"].reference_for == ["twice"]
    assert read_stored(day).unmatched([found]) == []
    with pytest.raises(CourseError, match="'double' is an old name for 'twice'"):
        day.check_exercise("double")
    file = day.root / "marks.json"
    write_marks(file, "day1", [marks])
    (read,) = read_class(day, file)
    assert [exercise.name for exercise in read.exercises] == list(day.names)


def test_a_regrade_compares_across_the_renaming(
    stored: tuple[Day, SubmissionMarks], after: Grader
) -> None:
    from autograder.course.config import older_names

    day, _ = stored
    with History(day.root) as history:
        entries = history.current_with_paths("day1", older_names(day))
    again = after.grade(handed_in(HANDED_IN["a mistake that others use"]))
    (change,), gone = compare(entries, [replace(again, path=entries[0].path)])
    assert (change.points, change.exercises(), gone) == (0, [], [])


def test_adding_an_older_name_regrades(tmp_path: Path) -> None:
    """A submission that lost points because a rename was not declared must not keep its stored marks."""
    day = write(tmp_path, RENAMED)
    toml = tmp_path / courses.GRADING_TOML
    toml.write_text(toml.read_text().replace('renamed_from = ["double"]\n', ""))
    undeclared = courses.load(tmp_path).day("day1")
    assert fingerprint(undeclared) != fingerprint(day)
