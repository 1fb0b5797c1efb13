"""Build submissions that solve nothing: each exercise only forwards its arguments to another exercise."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission

FUNCTIONS = (
    "def {name}(*args, **kwargs):\n    return {other}(*args, **kwargs)",
    "{name} = lambda *args, **kwargs: {other}(*args, **kwargs)",
    "def {name}(*args, **kwargs):\n    result = {other}(*args, **kwargs)\n    return result",
    "def {name}(*args, **kwargs):\n    for f in ({other},):\n        return f(*args, **kwargs)",
    "def _forward(*args, **kwargs):\n    return {other}(*args, **kwargs)\n{name} = _forward",
    "import functools\n{name} = functools.partial(lambda *a, **k: {other}(*a, **k))",
)
CLASSES = (
    "class {name}({other}):\n    pass",
    "class {name}(nn.Module):\n    def __new__(cls, *args, **kwargs):\n        return {other}(*args, **kwargs)",
    "class {name}(nn.Module):\n"
    "    def __init__(self, *args, **kwargs):\n"
    "        super().__init__()\n"
    "        self.inner = {other}(*args, **kwargs)\n"
    "    def forward(self, *args, **kwargs):\n"
    "        return self.inner(*args, **kwargs)",
    "def {name}(*args, **kwargs):\n    return {other}(*args, **kwargs)",
    "class {name}(nn.Module):\n"
    "    def __init__(self, *args, **kwargs):\n"
    "        super().__init__()\n"
    "    def forward(self, *args, **kwargs):\n"
    "        return {other}(*args, **kwargs)",
)
IMPORTS = "import torch\nfrom torch import nn"


def is_class(name: str) -> bool:
    """Return whether the exercise with this name is a class."""
    return name[0].isupper()


def body(name: str, other: str, shape: int) -> str:
    """Return code that defines an exercise by calling a different one. `shape` selects one of several forms."""
    if not is_class(name):
        return FUNCTIONS[shape % len(FUNCTIONS)].format(name=name, other=other)
    shapes = CLASSES if is_class(other) else CLASSES[1:]
    return shapes[shape % len(shapes)].format(name=name, other=other)


def submission(sources: Sequence[str]) -> Submission:
    """Return a submission with these cells, preceded by the imports."""
    cells = [Cell(number, "code", source) for number, source in enumerate((IMPORTS, *sources), 1)]
    return Submission("forwards.py", "eve", "", tuple(cells), (), True)


def pairs(names: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Yield each ordered pair of exercises, with an index that selects the form of the forwarding code."""
    for shape, (name, other) in enumerate(itertools.permutations(names, 2)):
        yield name, other, shape


def graph(names: Sequence[str], draw: random.Random) -> dict[str, str]:
    """Return code for a few random exercises. Each of them calls a different, randomly chosen exercise."""
    own = draw.sample(names, draw.randint(2, 6))
    others = {name: draw.choice([other for other in names if other != name]) for name in own}
    return {name: body(name, other, draw.randrange(60)) for name, other in others.items()}
