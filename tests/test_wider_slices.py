"""Test that an exercise that loses points is graded again with all statements that may affect it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.provided import notebook_source
from autograder.grading.exercise_grader import GradedExercise
from autograder.grading.explain import Run
from autograder.grading.follow_up import WIDER_RUNS, FollowUp
from autograder.grading.grader import Grader
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.sandbox.client import Server
from autograder.slicing.dependencies import Code, slice_for, wider_slice
from autograder.slicing.slicer import Slice, Slicer, SlicingError
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from tests import small_course
from tests.conftest import handed_in, with_cells, with_exercises

# Notebooks in which `f()` returns 1, although `slice_for` misses a statement that it needs.
NOTEBOOKS = {
    "an object as a decorator": """
class Table(dict):
    def __call__(self, name): return lambda g: self.setdefault(name, g)
add = Table()
@add("one")
def one(): return 1
def f(): return add["one"]()
""",
    "a metaclass with a registry": """
class Meta(type):
    known = []
    def __init__(cls, *args): Meta.known.append(cls)
class One(metaclass=Meta):
    value = 1
def f(): return Meta.known[0].value
""",
    "a closure that fills a table": """
def make():
    table = {}
    return table.update, table
put, TABLE = make()
put(one=1)
def f(): return TABLE["one"]
""",
    "a function that fills its argument": """
TABLE = []
def fill(table): table.append(1)
fill(TABLE)
def f(): return TABLE[0]
""",
    "a function that calls a function that sets a global": """
def inner():
    global ONE
    ONE = 1
def outer(): inner()
outer()
def f(): return ONE
""",
    "a method added to a base class after the subclass": """
class Base: pass
class Child(Base): pass
def one(self): return 1
Base.one = one
def f(): return Child().one()
""",
    "a change through an alias": """
TABLE = {}
alias = TABLE
alias["one"] = 1
def f(): return TABLE["one"]
""",
    "a main guard": """
OPTIONS = {}
if __name__ == "__main__":
    OPTIONS["one"] = 1
def f(): return OPTIONS["one"]
""",
    "a name in a string": """
def one(): return 1
def f(): return globals()["one"]()
""",
    "a definition from a table": """
def f(): return 0
VERSIONS = {"last": lambda: 1}
f = VERSIONS["last"]
""",
    "a last definition that fails": """
def f(): return 1
@no_such_decorator
def f(): return 2
""",
    "another exercise from a table": """
def g(): raise NotImplementedError("g")
VERSIONS = {"last": lambda: 1}
g = VERSIONS["last"]
def f(): return g()
""",
    "a constant of the course": """
ONE = 1
def f(): return ONE
""",
    "a helper with the name of a variable in the release": """
TABLE = {}
alias = TABLE
alias["one"] = 1
def text(): return TABLE["one"]
def f(): return text()
for text in "abc": print(text)
""",
    "a number in place of a function": """
def one(): return 2
one = 1
def f(): return one
""",
    "a number in place of a built-in": """
max = 1
def f(): return max
""",
    "a variable of a demonstration": """
from operator import *
with demonstration():
    neg = 5
def f(): return neg(-1)
""",
}
GIVEN = "ONE = 2"
RELEASED = {'def g(): raise NotImplementedError("g")', 'for text in "abc": print(text)'}


def cells(text: str) -> list[Cell]:
    return [Cell(number, "code", cell) for number, cell in enumerate(text.split("\n---\n"), 1)]


def wider(text: str) -> Code | None:
    student, _ = parse_units(cells(text))
    given, _ = parse_units(cells(GIVEN), given=True)
    given = [replace(unit, is_replaceable=True) for unit in given]
    return wider_slice("f", student, given, "fgh", RELEASED)


def result(code: Code) -> Any:
    """Run code as the worker does, skipping statements that raise errors, and call `f`."""
    names: dict[str, Any] = {"__name__": "submission", "demonstration": nullcontext}
    for unit in code.units:
        try:
            exec(unit.source, names)
        except NameError:
            continue
    return names["f"]()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_wider_slice_behaves_like_the_notebook(name: str) -> None:
    code = wider(NOTEBOOKS[name])
    assert code is not None
    assert result(code) == 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_usual_slice_does_not(name: str) -> None:
    """With the usual slice, `f()` must not return 1. If it did, the notebook would not show that a wider slice is needed."""
    student, _ = parse_units(cells(NOTEBOOKS[name]))
    given, _ = parse_units(cells(GIVEN), given=True)
    code = slice_for("f", student, given, "fgh")
    try:
        value = result(code) if code else None
    except Exception:
        value = None
    assert value != 1


def test_unrelated_statements_are_left_out() -> None:
    code = wider("""
import math
def one(): return 1
def g(): return f() + math.pi
h = lambda: f()
with demonstration():
    print(f())
print(math.pi, two)
two = len([2])
def f(): return one() * math.floor(1.5)
print(f())
""")
    assert code is not None
    lines = [unit.source for unit in code.units]
    assert lines == [
        "import math",
        "def one(): return 1",
        "def f(): return one() * math.floor(1.5)",
        "print(f())",
    ]


def test_large_notebooks_are_not_indexed_again() -> None:
    """Large notebooks get no wider slice. Making one takes as long as slicing the whole notebook, and CPU time is limited."""
    assert wider("def f(): return 1\n" + "x = 1\n" * 6_000) is None


@pytest.mark.slow
def test_marks_of_the_first_run_survive_if_no_wider_slice_can_be_made(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise SlicingError("out of time")

    monkeypatch.setattr(Slicer, "slice_again", fail)
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(small_course.WRONG))
    assert marks.points == 60
    assert marks.problems == []


def test_too_many_related_statements_are_not_tried() -> None:
    assert wider("def f(): return 1\n" + "f()\n" * 500) is None


REGISTRY = """
class Registry(dict):
    def __call__(self, name): return lambda function: self.setdefault(name, function)
OPS = Registry()
# %%
def padding_mask(tokens, pad_id): return OPS["mask"](tokens, pad_id)
# %%
@OPS("mask")
def mask_of(tokens, pad_id): return (tokens != pad_id).unsqueeze(1)
# %%
def split_heads(x, n_heads): raise NotImplementedError("split_heads")
VERSIONS = {2: lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2)}
# %%
split_heads = VERSIONS[2]
"""


@pytest.mark.slow
def test_statements_that_the_slicer_does_not_follow_cost_no_points(
    server: Server, tmp_path: Path
) -> None:
    day = courses.load(small_course.make(tmp_path)).day("day1")
    run_ = Run.of(Grader(day, server, b"tests"), handed_in(REGISTRY), "padding_mask")
    assert run_.marks.points == 100
    assert any("mask_of" in statement.source for statement in run_.statements)
    assert run_.marks.problems == []


@pytest.mark.slow
def test_a_wider_run_is_explained_even_if_the_budget_is_used_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_wide = FollowUp._grade_wide

    def spend(self: FollowUp, *arguments: Any) -> GradedExercise:
        result = grade_wide(self, *arguments)
        self._wider_runs.charge(WIDER_RUNS.cpu_seconds, 0)
        return result

    monkeypatch.setattr(FollowUp, "_grade_wide", spend)
    day = courses.load(small_course.make(tmp_path)).day("day1")
    run_ = Run.of(Grader(day, server, b"tests"), handed_in(ALIAS), "padding_mask")
    assert run_.marks.exercises[0].status == "passed"
    assert [test.message for test in run_.tests[()].values()] == ["", ""]


ALIAS = """
TABLE = {}
alias = TABLE
alias["pad"] = 1
AXIS = TABLE["pad"]
# %%
def padding_mask(tokens, pad_id): return (tokens != pad_id).unsqueeze(AXIS)
"""


@pytest.mark.slow
def test_an_error_of_the_narrower_code_is_not_reported(server: Server, tmp_path: Path) -> None:
    """The narrower code lacks the third statement, so its `AXIS = ...` raises an error."""
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(ALIAS))
    assert marks.exercises[0].points == marks.exercises[0].max_points
    assert marks.problems == []


@pytest.mark.slow
def test_tests_may_take_longer_with_wider_code_than_a_trial_has(
    server: Server, tmp_path: Path
) -> None:
    """A call may use 2 s of CPU time when wider code is tried out, and 5 s when it is graded."""
    slow = """
    axis, end = AXIS, time.process_time() + 2.2
    while time.process_time() < end: pass
    return (tokens != pad_id).unsqueeze(axis)
"""
    code = "import time" + ALIAS.replace(" return (tokens != pad_id).unsqueeze(AXIS)\n", slow)
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(code))
    assert marks.exercises[0].points == marks.exercises[0].max_points


CLOSURE = """
def make():
    table = {}
    return table.update, table
put, TABLE = make()
put(scale=1)
"""
FIRST_AXIS = """
def softmax(x, dim=-1):
    y = (x - x.amax(0, keepdim=True)).exp()
    return y / y.sum(0, keepdim=True)
"""


def reading_table(solution: NotebookNode, condition: str) -> str:
    """Return `CLOSURE` and the solution to `masked_attention`, which asserts `condition` before it returns."""
    lines = next(c.source for c in solution.cells if c.id == "masked_attention").splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("    return"))
    return CLOSURE + "\n".join([*lines[:last], f"    assert {condition}", *lines[last:]])


@pytest.mark.slow
@pytest.mark.parametrize("softmax", [FIRST_AXIS, "def softmax(x, dim=-1): raise ValueError('x')"])
def test_wider_code_is_graded_with_references_to_earlier_mistakes(
    softmax: str, grade: Callable[..., SubmissionMarks], solution: NotebookNode, day1: Day
) -> None:
    wrong = {"softmax": softmax, "masked_attention": reading_table(solution, 'TABLE["scale"] == 1')}
    names = day1.names[: day1.names.index("EncoderLayer") + 1]
    marks = grade(with_cells(with_exercises(solution, day1, names), wrong))
    messages = {e.name: e.message for e in marks.exercises if e.points < e.max_points}
    assert list(messages)[: -len(day1.names) + len(names)] == ["softmax"], messages


@pytest.mark.slow
def test_wider_code_contains_no_visible_checks(
    grade: Callable[..., SubmissionMarks], solution: NotebookNode, day1: Day
) -> None:
    """The check comes from a different release, and compares `EncoderLayer` with a class that the exercise forbids."""
    (chapter,) = (c for c in day1.chapters if c.name == "layers")
    cell = next(c for c in chapter.cells if c.role == "checks" and c.name == "EncoderLayer")
    check = notebook_source(cell)
    assert "TransformerEncoderLayer" in check
    changed = {
        "softmax": FIRST_AXIS,
        "masked_attention": reading_table(solution, 'TABLE["scale"] == 1'),
        "check_EncoderLayer": check.replace(
            "def check_EncoderLayer():", "def check_EncoderLayer():\n    ..."
        ),
    }
    names = day1.names[: day1.names.index("EncoderLayer") + 1]
    marks = grade(with_cells(with_exercises(solution, day1, names), changed))
    lost = [e.name for e in marks.exercises if e.points < e.max_points]
    assert lost[: -len(day1.names) + len(names)] == ["softmax"]


@pytest.mark.slow
def test_wider_code_is_tried_with_references_even_if_it_alone_gains_nothing(
    grade: Callable[..., SubmissionMarks], solution: NotebookNode, day1: Day
) -> None:
    """`softmax` always fails. `masked_attention` reads the global `TABLE`, but only in some tests."""
    wrong = {
        "softmax": "def softmax(x, dim=-1): raise ValueError('x')",
        "masked_attention": reading_table(solution, "query.dim() != 2 or TABLE"),
    }
    names = day1.names[: day1.names.index("masked_attention") + 1]
    marks = grade(with_cells(with_exercises(solution, day1, names), wrong))
    last_exercise = marks.exercises[len(names) - 1]
    assert (last_exercise.points, last_exercise.reference_for) == (8, ["softmax"])


@pytest.mark.slow
def test_a_slow_statement_is_left_out_of_the_wider_code(server: Server, tmp_path: Path) -> None:
    slow = "\nwhile True: TABLE.update(more=padding_mask(torch.ones(2, 3), 0))\n"
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(ALIAS + slow))
    assert marks.exercises[0].points == marks.exercises[0].max_points
    assert marks.seconds < 20


@pytest.mark.slow
def test_marks_survive_if_wider_code_cannot_be_sliced_with_references(
    grade: Callable[..., SubmissionMarks],
    solution: NotebookNode,
    day1: Day,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slice_again = Slicer.slice_again

    def fail(self: Slicer, exercise: str, replaced: Any = (), wide: bool = False) -> Slice:
        if wide and replaced:
            raise SlicingError("out of time")
        return slice_again(self, exercise, replaced, wide)

    monkeypatch.setattr(Slicer, "slice_again", fail)
    names = day1.names[: day1.names.index("attention") + 1]
    wrong = {
        "softmax": FIRST_AXIS + "print(softmax(torch.ones(2, 2)))",
        "attention": "def attention(query, key, value): return softmax(query @ key.mT), value",
    }
    marks = grade(with_cells(with_exercises(solution, day1, names), wrong))
    assert marks.exercises[0].points < 4
    assert marks.exercises[1].points == 4
    assert marks.problems == []


@pytest.mark.slow
def test_slow_experiments_cost_little_time(server: Server, tmp_path: Path) -> None:
    """Only the wider slice contains the slow experiment, and that slice runs only once."""
    slow = "\nwhile True: tokens = padding_mask(torch.ones(2, 3), 0)\n"
    day = courses.load(small_course.make(tmp_path)).day("day1")
    grader = Grader(day, server, b"tests")
    marks = grader.grade(handed_in(small_course.WRONG + slow))
    assert marks.points == 60
    assert marks.problems == []
    assert marks.seconds < 20


@pytest.mark.slow
def test_experiments_do_not_change_the_marks_of_a_wrong_answer(
    server: Server, tmp_path: Path
) -> None:
    day = courses.load(small_course.make(tmp_path)).day("day1")
    grader = Grader(day, server, b"tests")

    def graded(text: str) -> ExerciseMarks:
        return grader.grade(handed_in(text), seed="1f").exercises[0]

    plain = graded(small_course.WRONG)
    assert 0 < plain.points < plain.max_points
    for experiment in ("padding_mask = 3", "del padding_mask", "padding_mask(None, 1) / 0"):
        one = graded(f"{small_course.WRONG}\n# %%\n{experiment}\n")
        assert (one.points, one.message, one.mistake) == (
            plain.points,
            plain.message,
            plain.mistake,
        )
