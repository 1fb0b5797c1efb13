"""Which lines of a notebook run for an exercise.

In the notebooks below `+` marks the lines that must run for the exercise `f`, and `---` parts cells. Where
a case gives a value, the lines are run as the worker runs them and `f()` must return it.
"""

import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

from autograder.cells import Cell
from autograder.needs import Code, needed, units_of

NOTHING = object()


def cells_of(notebook: str) -> tuple[list[Cell], set[tuple[int, int]]]:
    """Returns the cells and the (cell, line) pairs that are marked."""
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
    student, _ = units_of(cells)
    course, _ = units_of(cells_of(given)[0] if given else [], given=True)
    return needed(exercise, student, course, exercises.split())


def run(code: Code) -> dict[str, Any]:
    """Runs the units in order; one that raises NameError waits until the others have run."""
    names: dict[str, Any] = {"__name__": "submission"}
    waiting = list(code.units)
    while waiting:
        put_off = []
        for at, unit in enumerate(waiting):
            try:
                exec(compile(unit.source, "<unit>", "exec", dont_inherit=True), names)
            except NameError:
                put_off.append(unit)
                continue
            if put_off:
                put_off += waiting[at + 1 :]
                break
        if len(put_off) == len(waiting):
            raise NameError(waiting[0].source)
        waiting = put_off
    return names


@dataclass
class Case:
    name: str
    notebook: str
    gives: Any = NOTHING
    given: str = ""


CASES = [
    Case("a function alone", "+ def f(): return 1", 1),
    Case(
        "prints, checks, plots and training do not run",
        """
+ def f(): return 1
---
  print(f())
  assert f() == 2, "a failing check"
---
  for step in range(10 ** 9):
      loss = f()
---
  plt.plot(losses)
  check_f()
  train(model)
---
  def check_f(): assert False
---
  model = f()
  model.train()
""",
        1,
    ),
    Case("an import", "+ import math\n  import os\n---\n+ def f(): return math.floor(1.5)", 1),
    Case("a constant", "+ SIZE = 3\n  OTHER = 4\n---\n+ def f(): return SIZE", 3),
    Case("a helper below", "+ def f(): return g()\n---\n+ def g(): return 2", 2),
    Case("a helper of a helper", "+ f = lambda: a()\n+ def a(): return b()\n+ def b(): return 3", 3),
    Case(
        "mutual recursion",
        "+ def f(n=4): return n == 0 or odd(n - 1)\n---\n+ def odd(n): return n != 0 and f(n - 1)",
        True,
    ),
    Case("recursion needs no earlier attempt", "  def f(): 1 / 0\n---\n+ def f(n=1): return n and f(0)", 0),
    Case("the last definition counts", "  def f(): return 1\n---\n+ def f(): return 2", 2),
    Case(
        "a broken first attempt is left out",
        "  @nonsense(1 / 0)\n  def f(x=[][0]): return 1\n---\n+ def f(): return 2",
        2,
    ),
    Case("the last helper counts", "  a = lambda: 1\n---\n+ f = lambda: a()\n---\n+ a = lambda: 2", 2),
    Case("a local is no global", "  x = 1 / 0\n---\n+ def f():\n+     x = 1\n+     return x", 1),
    Case("a parameter is no global", "  for x in range(3): print(x)\n---\n+ def f(x=5): return x", 5),
    Case("an attribute is no name", "  real = 1 / 0\n---\n+ def f(): return (3).real", 3),
    Case("a keyword is no name", "  sep = 1 / 0\n---\n+ def f(): return dict(sep=1)['sep']", 1),
    # -- read at once
    Case("a decorator", "+ def same(g): return g\n---\n+ @same\n+ def f(): return 1", 1),
    Case("a decorator below", "+ @same\n+ def f(): return 1\n---\n+ def same(g): return g", 1),
    Case("a default", "+ SIZE = 3\n---\n+ def f(n=SIZE): return n\n---\n  SIZE = 4", 3),
    Case("a keyword default", "+ SIZE = 3\n---\n+ def f(*, n=SIZE): return n", 3),
    Case("a base class", "+ class A: x = 1\n---\n+ class f(A): pass", NOTHING),
    Case("a metaclass", "+ class M(type): pass\n---\n+ class f(metaclass=M): pass", NOTHING),
    Case("an annotation", "+ Mask = list\n---\n+ def f(m: Mask = 1) -> Mask: return m", 1),
    Case("a class body", "+ SIZE = 3\n---\n+ class f:\n+     size = SIZE", NOTHING),
    Case("a class's own name", "  size = 1 / 0\n---\n+ class f:\n+     size = 3\n+     twice = size", NOTHING),
    Case("a class field of an outer name", "+ k = 3\n---\n+ class f:\n+     k = k", NOTHING),
    Case("a method's globals", "+ def g(): return 1\n---\n+ class f:\n+     def m(self): return g()", NOTHING),
    Case(
        "a method is no global",
        "  def step(): 1 / 0\n---\n+ class f:\n+     def step(self): return self.step()",
    ),
    Case("a nested function", "+ K = 1\n---\n+ def f():\n+     def g(): return K\n+     return g()", 1),
    Case("a class in a function", "  def m(): 1 / 0\n---\n+ def f():\n+     class A:\n+         def m(s): pass"),
    Case("a comprehension", "+ T = [1, 2]\n  t = 5\n---\n+ def f(): return [t for t in T]", [1, 2]),
    Case("a lambda", "+ K = 2\n---\n+ f = lambda: K", 2),
    Case("a walrus", "+ if (K := 3) > 2:\n+     pass\n---\n+ def f(): return K", 3),
    Case("a walrus in a comprehension", "+ _ = [K := i for i in range(3)]\n+ f = lambda: K", 2),
    Case("several targets", "+ A, (B, *C) = 1, (2, 3)\n---\n+ def f(): return B", 2),
    Case("a declared type binds nothing", "+ K = 1\n---\n  K: int\n---\n+ def f(): return K", 1),
    Case("match", "+ match [1, 2]:\n+     case [K, *rest]: pass\n---\n+ def f(): return K", 1),
    Case("an f-string", "+ K = 1\n---\n+ def f(): return f'{K:>{W}}'\n---\n+ W = 2", " 1"),
    Case("the value at that moment", "+ d = 1\n+ T = [d]\n---\n  d = 2\n---\n+ def f(): return T", [1]),
    Case(
        "the value at the moment of a call",
        "+ d = 1\n---\n+ def make(): return d\n---\n+ T = make()\n---\n+ d = 2\n---\n+ def f(): return T",
        1,
    ),
    Case("a lambda that is called at once", "+ d = 1\n+ T = max([1], key=lambda v: d)\n---\n+ def f(): return T", 1),
    Case("a sum", "+ n = 1\n---\n+ n += 1\n---\n+ n *= 5\n---\n+ def f(): return n", 10),
    Case("global in a function", "+ n = 1\n---\n+ def f():\n+     global n\n+     n += 1\n+     return n", 2),
    # -- changes
    Case("wrapped", "+ def wrap(g): return g\n---\n+ def f(): return 1\n---\n+ f = wrap(f)", 1),
    Case("wrapped helper", "+ def a(): return 1\n---\n+ a = staticmethod(a)\n---\n+ def f(): return a()", 1),
    Case("extended class", "+ class A: x = 1\n---\n+ class A(A): y = 2\n---\n+ def f(): return A.x", 1),
    Case("a method put in later", "+ class A: pass\n---\n+ def f(): return A.g()\n---\n+ A.g = lambda: 7", 7),
    Case("an attribute of the exercise", "+ def f(): return f.k\n---\n+ f.k = 3\n---\n  print(f())", 3),
    Case("setattr", "+ class A: pass\n---\n+ setattr(A, 'k', 3)\n---\n+ def f(): return A.k", 3),
    Case(
        "functools.update_wrapper",
        """
+ import functools
---
+ def f(): return f.__name__
---
+ def named(): pass
---
+ functools.update_wrapper(f, named)
""",
        "named",
    ),
    Case("a table", "+ T = {}\n---\n+ T['a'] = 1\n---\n+ T.update(b=2)\n---\n+ def f(): return T", {"a": 1, "b": 2}),
    Case("a table begun anew", "  T = {}\n---\n  T['a'] = 1\n---\n+ T = {}\n---\n+ def f(): return T", {}),
    Case("append", "+ L = []\n---\n+ L.append(1)\n---\n  print(L)\n---\n+ def f(): return L", [1]),
    Case("append in a loop", "+ L = []\n---\n+ for i in range(2):\n+     L.append(i)\n---\n+ def f(): return L", [0, 1]),
    Case("pop with a use", "+ L = [1, 2]\n---\n+ last = L.pop()\n---\n+ def f(): return L", [1]),
    Case("setdefault and append", "+ T = {}\n---\n+ T.setdefault(1, []).append(2)\n---\n+ def f(): return T", {1: [2]}),
    Case("del of an item", "+ T = {1: 1}\n---\n+ del T[1]\n---\n+ def f(): return T", {}),
    Case("del of a name", "+ T = {1: 1}\n---\n+ def f(): return T\n---\n  del T", {1: 1}),
    Case("reading methods change nothing", "+ T = [3]\n---\n  T.index(3)\n  sorted(T)\n---\n+ def f(): return T", [3]),
    Case("passing is no change", "+ T = [3]\n---\n  show(T)\n  print(f, T)\n---\n+ def f(): return T", [3]),
    Case("singledispatch", "+ from functools import singledispatch\n+ @singledispatch\n+ def a(x): return 0\n---\n+ @a.register\n+ def _(x: int): return 1\n---\n+ def f(): return a(5)", 1),
    Case("an abstract base", "+ from abc import ABC\n+ class A(ABC): pass\n+ class B: pass\n+ A.register(B)\n---\n+ def f(): return isinstance(B(), A)", True),
    Case(
        "a registering decorator",
        """
+ R = {}
+ def register(g):
+     R[g.__name__] = g
+     return g
---
+ @register
+ def relu(x): return x
---
+ def f(): return list(R)
""",
        ["relu"],
    ),
    Case(
        "a function that fills a table",
        """
+ T = {}
+ def fill(): T['a'] = 1
---
+ fill()
---
+ def f(): return T
""",
        {"a": 1},
    ),
    Case(
        "a global that a function makes",
        "+ def init():\n+     global T\n+     T = [1]\n---\n+ init()\n---\n+ def f(): return T",
        [1],
    ),
    Case(
        "the exercise's own counter does not bring in its calls",
        """
+ calls = []
---
+ def f():
+     calls.append(1)
+     return len(calls)
---
  f()
  result = f()
---
  def check_f():
      calls.clear()
      assert f() == 99
---
  check_f()
""",
        1,
    ),
    Case(
        "a method of the student's class",
        """
+ class Vocabulary:
+     def __init__(self): self.words = []
+     def learn(self, text): self.words += text.split()
+     def show(self): print(self.words)
---
+ vocabulary = Vocabulary()
---
+ vocabulary.learn('a b')
  vocabulary.show()
---
+ def f(): return vocabulary.words
""",
        ["a", "b"],
    ),
    Case("an instance that is read", "+ class A: k = 1\n---\n+ model = A()\n---\n  model.train()\n---\n+ def f(): return model.k", 1),
    # -- compound statements
    Case("if", "+ if True:\n+     def f(): return 1\n+ else:\n+     def f(): return 2", 1),
    Case("if that may not happen", "+ def f(): return 1\n---\n+ if False:\n+     def f(): return 2", 1),
    Case("if with both ways", "  K = 1 / 0\n---\n+ if 1:\n+     K = 1\n+ else:\n+     K = 2\n---\n+ def f(): return K", 1),
    Case("try import", "+ try:\n+     import nonsense_xyz as m\n+ except ImportError:\n+     m = None\n---\n+ def f(): return m", None),
    Case("with", "+ import contextlib\n---\n+ with contextlib.nullcontext() as g:\n+     def f(): return 1", 1),
    Case("for", "+ T = {}\n+ for i in range(2):\n+     T[i] = i\n---\n+ def f(): return T", {0: 0, 1: 1}),
    Case("while", "+ n = 0\n+ while n < 3:\n+     n += 1\n---\n+ def f(): return n", 3),
    Case("a loop's own names are not sought elsewhere", "  y = 1 / 0\n---\n+ for i in [1]:\n+     y = i\n+     K = y\n---\n+ def f(): return K", 1),
    Case("a guarded demonstration", "+ def f(): return 1\n---\n  if __name__ == '__main__':\n      f = None\n      print(1)", 1),
    # -- an exercise's name used for something else
    Case("a result under its name", "+ def f(): return 1\n---\n  f = f()", 1),
    Case("results unpacked", "+ def f(): return 1\n---\n  out, f = layer(3)", 1),
    Case("a tensor under its name", "+ def f(): return 1\n---\n  import torch\n  f = torch.zeros(3)", 1),
    Case("under another name", "+ def mine(): return 1\n---\n  def f(): raise NotImplementedError\n---\n+ f = mine", 1),
    Case("a partial", "+ from functools import partial\n+ def mine(n): return n\n---\n  def f(): pass\n---\n+ f = partial(mine, 2)", 2),
    # -- always
    Case("star import", "+ from math import *\n---\n+ def f(): return floor(1.5)", 1),
    Case("a late star import does not replace a definition", "+ def f(): return floor(1.5)\n---\n+ def floor(x): return 5\n---\n+ from math import *", 5),
    Case("seeds", "+ import random\n+ random.seed(0)\n---\n+ def f(): return 1", 1),
    Case("a seed in a loop is no setting", "  import random\n  for s in range(3):\n      random.seed(s)\n      train()\n---\n+ def f(): return 1", 1),
    Case("dtype", "+ import torch\n---\n+ torch.set_default_dtype(torch.float32)\n---\n+ def f(): return 1", 1),
    Case("a seed whose value is hidden", "+ import torch\n+ _ = torch.manual_seed(0)\n---\n+ def f(): return 1", 1),
    # -- globals and exec
    Case("globals", "+ globals()['K'] = 3\n---\n+ def f(): return K", 3),
    Case("globals only looked at", "+ def f(): return 1\n---\n  if 'f' in globals():\n      print(f())", 1),
    Case("exec", "+ exec('def f(): return 4')\n---\n  exec('K = 5')", 4),
    # -- imports
    Case("a submodule", "  import xml\n---\n+ import xml.dom\n---\n+ def f(): return xml.dom.__name__", "xml.dom"),
    Case("a module patched", "+ import math\n---\n+ math.tau2 = 1\n---\n+ def f(): return math.tau2", 1),
    Case("a module's functions change nothing", "+ import torch\n---\n  torch.add(torch.ones(1), 1)\n  torch.sort(f())\n---\n+ def f(): return torch.ones(1).item()", 1.0),
    Case("initialisation in place", "+ import torch\n+ from torch import nn\n+ W = torch.ones(2)\n---\n+ nn.init.zeros_(W)\n---\n  V = torch.ones(2)\n  nn.init.zeros_(V)\n---\n+ def f(): return W.sum().item()", 0.0),
    # -- lines
    Case("two statements in a line", "+ a = 1; b = 2\n---\n+ def f(): return b", 2),
    Case("a decorator's own line", "  x = 1\n+ @staticmethod\n+ def f(): return 1", 1),
    Case("comments are left", "  # about f\n+ def f(): return 1\n  # after", 1),
    Case("strings over lines", "+ T = '''a\n+ b'''\n---\n+ def f(): return T", "a\nb"),
    # -- hints in strings
    Case("shapes in strings", "  n = 1 / 0\n  d = 1 / 0\n---\n+ def f(x: 'n d' = 1) -> 'n': return x", 1),
    Case("a class in a string", "+ class Node: pass\n---\n+ def f(x: 'Node' = 1): return x", 1),
    # -- given by the course
    Case("a given constant", "+ def f(): return N", 5, given="+ N = 5\n  M = 6"),
    Case("a student's other value", "  N = 7\n---\n+ def f(): return N", 5, given="+ N = 5"),
    Case("a change of a given one", "  N.append(7)\n---\n+ def f(): return N", [5], given="+ N = [5]"),
    Case("a given copy in the notebook", "  N = 5\n---\n+ def f(): return N", 5, given="+ N = 5"),
    Case("an import line gives all", "+ def f(): return floor(pi)", 3, given="+ from math import floor, pi"),
    Case("a given class reads the student's", "+ def f(): return A()\n---\n+ def g(): return 3", 3, given="+ def A(): return g()"),
    Case("a given name among the student's", "+ N, K = 7, 8\n---\n+ def f(): return N, K", (5, 8), given="+ N = 5"),
    Case("a given module patched", "+ math.mine = 1\n---\n+ def f(): return math.mine", 1, given="+ import math"),
    Case("a submodule of a given one", "+ import xml.sax\n---\n+ def f(): return xml.sax.__name__", "xml.sax", given="+ import xml"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_runs(case: Case) -> None:
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
    if case.gives is not NOTHING:
        assert f() == case.gives


def order(code: Code | None) -> list[str]:
    assert code is not None
    return [unit.source for unit in code.units]


def test_order_is_the_course_then_star_imports_then_the_notebook() -> None:
    code = code_for("  b = a\n---\n  from math import *\n---\n  f = b", given="  a = 1")
    assert order(code) == ["a = 1", "from math import *", "b = a", "f = b"]


@pytest.mark.parametrize("cell", ["", "  def g(): return 1", "  f()", "  f.k = 1", "  del f"])
def test_no_definition(cell: str) -> None:
    assert code_for(cell) is None


def test_the_stub_of_the_course_is_no_definition_of_the_student() -> None:
    assert code_for("  g = 1", given="  def g(): return 1") is None


def test_reached_are_exercises_that_the_code_uses() -> None:
    code = code_for("  def f(): return a()\n  def a(): return g()\n  def g(): pass\n  def h(): f()")
    assert code is not None
    assert code.reached == {"g"}


def test_reached_has_no_exercise_that_is_missing() -> None:
    code = code_for("  def f(): return g()")
    assert code is not None
    assert code.reached == set()


@pytest.mark.parametrize(
    ("student", "given", "problem"),
    [
        ("  N = 4", "  N = 5", "cell 2: `N` is given by the course; your own value is not used"),
        ("  N += 1", "  N = 5", "cell 2: `N` is given by the course; your own value is not used"),
        ("  N = 5  # five", "  N = 5", None),
        ("  OTHER = 4", "  N = 5\n  OTHER = 5", None),  # not needed by f
        (
            "  N['a'] = 1",
            "  N = {}",
            "cell 2: `N` is given by the course; your change to it is not used",
        ),
        ("  import torch.nn.functional as N", "  from torch.nn import functional as N", None),
        ("  import torch as N, math", "  import torch as N", None),
        ("  from math import N", "  from cmath import N", "given by the course"),
        ("  def N(): return 1", '  def N():\n      """One."""\n      return 1', None),
        ("  def N(): return 2", "  def N(): return 1", "given by the course"),
        ('  class N:\n      "Mine."\n      k = 1', "  class N:\n      k = 1", None),
    ],
)
def test_edits_of_what_is_given(student: str, given: str, problem: str | None) -> None:
    code = code_for(f"  def f(): return N\n---\n{student}", given)
    assert code is not None
    assert len(code.problems) == (problem is not None)
    assert all(str(problem) in p for p in code.problems)


def test_units_know_their_cell_and_line() -> None:
    units, problems = units_of(
        cells_of("  # a\n\n  a = 1\n---\n  @d\n  def f():\n      pass\n  b = 2")[0]
    )
    assert not problems
    assert [(u.cell, u.line, u.source) for u in units] == [
        (1, 3, "a = 1"),
        (2, 1, "@d\ndef f():\n    pass"),
        (2, 4, "b = 2"),
    ]


def test_only_code_cells_have_units() -> None:
    assert units_of([Cell(1, "markdown", "f = 1"), Cell(2, "raw", "f = 2")]) == ([], [])


def test_a_cell_that_does_not_parse_is_named_and_the_definition_before_it_counts() -> None:
    cells = [Cell(1, "code", "def f(): return 1"), Cell(2, "code", "def f(: return 2")]
    units, problems = units_of(cells)
    assert len(problems) == 1
    assert problems[0].startswith("cell 2: SyntaxError")
    code = needed("f", units, [], [])
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
def test_what_cannot_be_read_costs_itself_alone(name: str) -> None:
    cells = [Cell(1, "code", DEEP[name]), Cell(2, "code", "def f(): return 1")]
    units, _ = units_of(cells)
    assert order(needed("f", units, [], [])) == ["def f(): return 1"]


def test_deep_code_is_told() -> None:
    _, problems = units_of([Cell(3, "code", DEEP["attributes"])])
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


def test_a_large_notebook_takes_well_under_a_second() -> None:
    cells = [
        Cell(i, "code", f"def f{i}(x, y=K{i - 1}): return f{i - 1}(x) + T[x]\nK{i} = T.get({i})")
        for i in range(1000)
    ]
    units, _ = units_of(cells)
    assert len(units) == 2000
    start = time.perf_counter()
    for i in range(0, 1000, 50):
        assert needed(f"f{i}", units, [], []) is not None
    assert time.perf_counter() - start < 3  # half a second on an idle core
