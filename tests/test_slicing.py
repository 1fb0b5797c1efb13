"""Test that the slicer selects exactly the lines that an exercise needs, as marked in slicing_cases.txt."""

import ast
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autograder.execution.source import join_units
from autograder.execution.student import Student, StudentError
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.dependencies import Code, slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell


def cells_of(notebook: str) -> tuple[list[Cell], set[tuple[int, int]]]:
    """Return a notebook's cells and the (cell, line) pairs of its marked lines."""
    cells, marked = [], set()
    for number, text in enumerate(notebook.strip("\n").split("\n---\n"), start=1):
        lines = text.split("\n")
        marked |= {(number, at) for at, line in enumerate(lines, 1) if line.startswith("+")}
        cells.append(Cell(number, "code", "\n".join(line[2:] for line in lines)))
    return cells, marked


def code_for(
    notebook: str | list[Cell], given: str = "", exercises: str = "f g h", exercise: str = "f"
) -> Code | None:
    cells = cells_of(notebook)[0] if isinstance(notebook, str) else notebook
    student, _ = parse_units(cells)
    course, _ = parse_units(cells_of(given)[0] if given else [], given=True)
    course = [replace(unit, is_replaceable=True) for unit in course]
    return slice_for(exercise, student, course, exercises.split())


def run(code: Code) -> dict[str, Any]:
    """Run the units of code in order, then rerun the units that raised NameError until all have succeeded."""
    names: dict[str, Any] = {"__name__": "submission"}
    pending = list(code.units)
    while pending:
        postponed = []
        for unit in pending:
            try:
                exec(compile(unit.source, "<unit>", "exec", dont_inherit=True), names)
            except NameError:
                postponed.append(unit)
        if len(postponed) == len(pending):
            raise NameError(postponed[0].source)
        pending = postponed
    return names


@dataclass
class Case:
    name: str
    given: str
    notebook: str
    gives: str | None


def read_cases() -> Iterator[Case]:
    text = Path(__file__).with_name("slicing_cases.txt").read_text()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = re.sub(r"^# .*", "", part, flags=re.MULTILINE).strip("\n").partition("\n")
        rest, _, gives = rest.partition("\n=> ")
        given = ""
        if rest.startswith("--- given\n"):
            given, _, rest = rest.removeprefix("--- given\n").partition("\n---\n")
        yield Case(name, given, rest, gives or None)


def versions(case: Case) -> list[pytest.MarkDecorator]:
    """Return pytest marks that skip a case if this Python is older than the version in the case's name."""
    found = re.search(r"Python 3\.(\d+)", case.name)
    is_older = found is not None and sys.version_info < (3, int(found[1]))
    return [pytest.mark.skipif(is_older, reason="its syntax is newer")]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=versions(case)) for case in read_cases()]
)
def test_marked_lines_are_selected(case: Case) -> None:
    _, student = cells_of(case.notebook)
    _, given = cells_of(case.given) if case.given else ([], set())
    code = code_for(case.notebook, case.given)
    assert code is not None
    runs: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for unit in code.units:
        lines = range(unit.line, unit.line + unit.source.count("\n") + 1)
        runs[unit.given] |= {(unit.cell, line) for line in lines}
    assert runs == {False: student, True: given}
    f = run(code)["f"]
    if case.gives is not None:
        assert f() == eval(case.gives)


def order(code: Code | None) -> list[str]:
    assert code is not None
    return [unit.source for unit in code.units]


def test_given_code_runs_first_then_star_imports_then_the_notebook() -> None:
    code = code_for("  b = a\n---\n  from math import *\n---\n  f = b", given="  a = 1")
    assert order(code) == ["a = 1", "from math import *", "b = a", "f = b"]


@pytest.mark.parametrize("cell", ["", "  def g(): return 1", "  f()", "  f.k = 1", "  del f"])
def test_no_definition(cell: str) -> None:
    assert code_for(cell) is None


def test_given_code_is_not_the_students_definition() -> None:
    assert code_for("  g = 1", given="  def g(): return 1") is None


def test_reached_contains_the_exercises_that_the_code_uses() -> None:
    code = code_for("  def f(): return a()\n  def a(): return g()\n  def g(): pass\n  def h(): f()")
    assert code is not None
    assert code.reached == {"g"}


def test_reached_contains_the_exercises_in_a_table_that_the_code_uses() -> None:
    code = code_for(
        "  T = {}\n  def add(h):\n      T[h.__name__] = h\n      return h\n"
        "  @add\n  def g(): pass\n  def h(): pass\n  def f(): return T['g']()"
    )
    assert code is not None
    assert code.reached == {"g"}


def test_reached_contains_no_missing_exercise() -> None:
    code = code_for("  def f(): return g()")
    assert code is not None
    assert code.reached == set()


@pytest.mark.parametrize(
    ("student", "given", "problem"),
    [
        (
            "  N = 4",
            "  N = 5",
            "cell 2: `N` is provided by the course; your version of it is not used",
        ),
        (
            "  N += 1",
            "  N = 5",
            "cell 2: `N` is provided by the course; your version of it is not used",
        ),
        ("  N = 5  # five", "  N = 5", None),
        ("  OTHER = 4", "  N = 5\n  OTHER = 5", None),  # `f` does not use OTHER
        (
            "  N['a'] = 1",
            "  N = {}",
            "cell 2: `N` is provided by the course; your change to it is not used",
        ),
        ("  import torch.nn.functional as N", "  from torch.nn import functional as N", None),
        ("  import torch as N, math", "  import torch as N", None),
        ("  from math import N", "  from cmath import N", "provided by the course"),
        ("  def N(): return 1", '  def N():\n      """One."""\n      return 1', None),
        ("  def N(): return 2", "  def N(): return 1", "provided by the course"),
        ('  class N:\n      "Mine."\n      k = 1', "  class N:\n      k = 1", None),
    ],
)
def test_edits_of_given_names_are_reported(student: str, given: str, problem: str | None) -> None:
    code = code_for(f"  def f(): return N\n---\n{student}", given)
    assert code is not None
    assert len(code.problems) == (problem is not None)
    assert all(str(problem) in p for p in code.problems)


def test_units_know_their_cell_and_line() -> None:
    units, problems = parse_units(
        cells_of("  # a\n\n  a = 1\n---\n  @d\n  def f():\n      pass\n  b = 2")[0]
    )
    assert not problems
    assert [(u.cell, u.line, u.source) for u in units] == [
        (1, 3, "a = 1"),
        (2, 1, "@d\ndef f():\n    pass"),
        (2, 4, "b = 2"),
    ]


# Characters at which `str.splitlines` splits, and others that are whitespace only in Python or only outside Python.
SEPARATORS = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
UNUSUAL = (
    *SEPARATORS,
    "\x1f",
    "\xa0",
    "\ufeff",
    "\u200b",
    "\x00",
    "\t",
    "\\",
    "\\\n",
    "\x0c\n",
    "\n",
)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_the_worker_runs_the_analysed_lines(separator: str) -> None:
    cells = [
        Cell(1, "code", f'NOTE = "a{separator}b"  # c{separator}d\n'),
        Cell(2, "code", f'TEXT = """{separator}\nraise ValueError\n"""\n'),
        Cell(3, "code", "def f(fails=False):\n    if fails: raise KeyError\n    return NOTE, TEXT"),
    ]
    code = code_for(cells)
    assert code is not None
    source, student = join_units(code.units), Student(LocalProcess())
    assert student.load(m.Load(source.text, list(source.pieces), "f", 0)) == []
    assert student.f() == [f"a{separator}b", f"{separator}\nraise ValueError\n"]
    with pytest.raises(StudentError) as error:
        student.f(True)
    assert source.location(error.value.line) == "cell 3, line 2"


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_units_consist_of_the_lines_that_python_parses() -> None:
    draw = random.Random(0)
    statements = (
        *("a = 1\n", "s = '''m\nn'''\n", "t = 'q'  # c\n", "if a:\n    b = 2\n", "y = 1; z = 2\n"),
        *("@(\n  d\n)\ndef g():\n    pass\n", "x = (1,\n  2)\n", "u = 1 + \\\n    2\n", "w = f'{a}b'\n"),
    )  # fmt: skip
    for _ in range(750):
        text = "".join(draw.choices(statements, k=draw.randint(1, 4)))
        for _ in range(draw.randint(1, 2)):
            at = draw.randint(0, len(text))
            text = text[:at] + draw.choice(UNUSUAL) + text[at:]
        units, _ = parse_units([Cell(1, "code", text)])
        parsed = [n for u in units for n in ast.parse("\n" * (u.line - 1) + u.source).body]
        try:
            expected = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        seen = ast.dump(ast.Module(parsed, []), include_attributes=True)
        assert seen == ast.dump(expected, include_attributes=True), text


def test_only_code_cells_have_units() -> None:
    assert parse_units([Cell(1, "markdown", "f = 1"), Cell(2, "raw", "f = 2")]) == ([], [])


def test_cell_that_does_not_parse_is_reported_and_the_previous_definition_counts() -> None:
    cells = [Cell(1, "code", "def f(): return 1"), Cell(2, "code", "def f(: return 2")]
    units, problems = parse_units(cells)
    assert len(problems) == 1
    assert problems[0].startswith("cell 2: SyntaxError")
    code = slice_for("f", units, [], [])
    assert order(code) == ["def f(): return 1"]


DEEP = {
    "parentheses": "x = " + "(" * 5000 + "1" + ")" * 5000,
    "attributes": "x = a" + ".b" * 50_000,
    "minus": "x = " + "-" * 50_000 + "1",
    "sum": "x = " + "1+" * 50_000 + "1",
    "elif": "if a: pass\n" + "elif a: pass\n" * 20_000,
    "lambdas": "x = " + "lambda: " * 5000 + "1",
    "strings": "x = " + "f'{" * 300 + "1" + "}'" * 300,
    "comprehension": "x = [1 " + "for x in y " * 20_000 + "]",
    "nul": "x = '\0'",
    "surrogate": "x = '\ud800'",
    "long number": "x = " + "9" * 10_000,
    "return": "return 1",
    "await": "await f()",
    "backslash": "y = 1; \\\nx = 2",
}


@pytest.mark.parametrize("name", DEEP)
def test_unreadable_code_affects_no_other_code(name: str) -> None:
    cells = [Cell(1, "code", DEEP[name]), Cell(2, "code", "def f(): return 1")]
    units, _ = parse_units(cells)
    assert order(slice_for("f", units, [], [])) == ["def f(): return 1"]


def test_deeply_nested_code_is_reported() -> None:
    _, problems = parse_units([Cell(3, "code", DEEP["attributes"])])
    assert len(problems) == 1
    assert problems[0].startswith("cell 3: ")


SOLUTION = [
    "import math",
    "from functools import lru_cache as cache",
    "SIZES = {}",
    "SIZES['small'] = 2",
    "SIZES.update(large=30)",
    "class Base:\n    def scale(self): return helper(SIZES['small'])",
    "class Layer(Base):\n    size = SIZES\n    def total(self): return self.scale() + OFFSET",
    "Layer.extra = lambda self: math.floor(2.5)",
    "OFFSET = len('abc')",
    "def helper(n=OFFSET):\n    return g(n) * 2",
    "@cache\ndef g(n): return 1 if n == 0 else n * g(n - 1)",
    "def f():\n    layer = Layer()\n    return layer.total() + layer.extra() + SIZES['large']",
]
DEMONSTRATIONS = [
    "for n in range(3):\n    print(1 / 0)",
    "print(f())",
    "layer = Layer()\nout = layer.total()\nassert out == 'wrong'",
    "helper(3)\nshow(SIZES, Layer)",
    "with open('/nowhere') as file:\n    text = file.read()",
    "def check_f(): assert f() == 1\ncheck_f()",
]
RIGHT = 4 + 3 + 2 + 30


def answer(sources: list[str]) -> Any:
    code = code_for([Cell(i, "code", source) for i, source in enumerate(sources, start=1)])
    assert code is not None
    return run(code)["f"]()


@pytest.mark.parametrize("seed", range(30))
def test_order_of_cells_and_demonstrations_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    cells = SOLUTION + rng.sample(DEMONSTRATIONS, rng.randrange(len(DEMONSTRATIONS)))
    rng.shuffle(cells)
    assert answer(cells) == RIGHT


@pytest.mark.parametrize("seed", range(10))
def test_copied_cells_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    assert answer([cell for cell in SOLUTION for _ in range(rng.choice([1, 1, 2, 3]))]) == RIGHT
    assert answer(SOLUTION * 2) == RIGHT


@pytest.mark.slow
def test_large_notebook_is_sliced_quickly() -> None:
    cells = [
        Cell(i, "code", f"def f{i}(x, y=K{i - 1}): return f{i - 1}(x) + T[x]\nK{i} = T.get({i})")
        for i in range(1000)
    ]
    units, _ = parse_units(cells)
    assert len(units) == 2000
    start = time.process_time()
    for i in range(0, 1000, 50):
        assert slice_for(f"f{i}", units, [], []) is not None
    # Slicing takes half a second on an idle core.
    assert time.process_time() - start < 3


def lines(line: str, n: int) -> str:
    return "".join(line.replace("#", str(i)) for i in range(n))


HOSTILE = {
    "chain": "x = f\n" + "x = x + 1\n" * 20_000,
    "attributes": "def g():\n    global x\n" + "    x = x.a\n" * 6_000,
    "spaces": " " * 40_000 + "a\nb b\n",
    "spaces after a question": "a?" + " " * 40_000 + "b",
    "items": lines("T[#] = T\n", 4_000),
    "lambdas in a table": lines("T[#] = lambda: (T, b#)\n", 3_000),
    "targets": lines("a# = ", 5_000) + f"g({lines('c#, ', 5_000)})",
    "functions that fill": lines("def g#(): global x#; x# = x\ng#()\n", 3_000),
    "methods": lines("class C#:\n    def m(self): self.x = 1\nx = C#()\nx.m()\n", 1_500),
    "globals": "def g():\n" + lines("    global a#\n    a# = 1\n", 5_000),
    "functions": "def g(): 0\n" * 5_000,
    "lambdas": "x = [" + "lambda: 1,\n" * 5_000 + "]",
    "branches": "with a:\n" + lines(" if b: v# = 1\n v# = 2\n", 3_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_takes_linear_time(name: str) -> None:
    cells = [Cell(1, "code", HOSTILE[name]), Cell(2, "code", "def f(): return x, T, g")]
    start = time.process_time()
    units, _ = parse_units(cells)
    for _ in range(3):
        assert slice_for("f", units, [], ["f"]) is not None
    # Slicing takes a second on an idle core. A quadratic algorithm would take minutes.
    assert time.process_time() - start < 5


def test_exercise_that_needs_too_much_is_reported() -> None:
    cells = [Cell(1, "code", "x = 0\n" + "x = x + 1\n" * 11_000 + "def f(): return x")]
    code = slice_for("f", parse_units(cells)[0], [], [])
    assert code is not None
    assert any("too many statements" in problem for problem in code.problems)


def test_notebook_with_too_many_statements_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.slicing.statements.MAX_UNITS", 1000)
    units, problems = parse_units([Cell(1, "code", "a\n" * 30_000), Cell(2, "code", "b")])
    assert len(units) < 1100
    assert any("too long" in problem for problem in problems)
