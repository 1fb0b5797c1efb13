"""Generate random expressions for unusual values that student code might return."""

from __future__ import annotations

import random

PRELUDE = """\
import collections, decimal, enum, fractions, math, sys, types
import numpy as np
import torch
from torch import nn
def right(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
class Sub(torch.Tensor):
    pass
class Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("not for you")
class Liar:
    __class__ = property(lambda self: torch.Tensor)
    shape = (3, 3)
class Raises:
    def _raise(self, *args):
        raise SystemExit(3)
    __repr__ = __str__ = __eq__ = __len__ = __iter__ = __bool__ = __hash__ = __getattr__ = _raise
class Long:
    __len__ = lambda self: sys.maxsize
    __repr__ = lambda self: "x" * 10**6
class Text(str):
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__
    __len__ = lambda self: -1
class Number(int):
    __eq__ = __lt__ = lambda self, other: True
    __hash__ = int.__hash__
class Endless(list):
    def __iter__(self):
        while True:
            yield 1
class Meta(type):
    __repr__ = __call__ = lambda self, *args: 1 / 0
class Strange(metaclass=Meta):
    pass
class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("self", torch.ones(1))
    def named_parameters(self, *args, **kwargs):
        yield ("\\ud800", self.weight)
        raise KeyboardInterrupt
Pair = collections.namedtuple("Pair", "output weights")
class Color(enum.Enum):
    red = 1
class Array(np.ndarray):
    shape = property(lambda self: (10**9, n))
    dtype = property(lambda self: 1 / 0)
class Part:
    __array__ = __len__ = __iter__ = lambda self, *args: sys.exit(4)
def recursive(kind):
    made = kind()
    made.append(made) if kind is list else made.update(a=made)
    return made
def deep(count):
    made = None
    for _ in range(count):
        made = [made]
    return made
"""
TENSORS = (
    *("right(n, device)", "torch.zeros(n, n)", "torch.full((n, n), math.nan)", "torch.empty(0)"),
    *("torch.ones(n, n).to_sparse()", "torch.ones(n, n).to_sparse_csr()", "torch.ones(n, n).to_mkldnn()"),
    *("torch.quantize_per_tensor(torch.ones(n, n), 1.0, 0, torch.qint8)", "torch.ones(n, n, dtype=torch.complex64)"),
    *("torch.nested.nested_tensor([torch.ones(n)])", "torch.ones(n, n, device='meta')", "torch.ones((1,) * 40)"),
    *("torch.ones(1).expand(1 << 40)", "torch.empty(1 << 20, 1 << 30, device='meta')", "torch.ones(n, n).T[::2]"),
    *("torch.ones(n, n).as_subclass(Sub)", "torch.ones(n, n).as_subclass(Lazy)", "nn.Parameter(torch.ones(n, n))"),
    *("torch.ones(n, n, requires_grad=True).exp()", "torch.ones(n, n, dtype=torch.float8_e4m3fn)"),
    *("torch.ones(n, n).conj()", "torch.ones(n, n, dtype=torch.complex64).imag", "torch.zeros(n, n, dtype=torch.uint16)"),
    *("torch.tensor(-0.0)", "torch.ones(n, n).as_strided((n, n), (0, 0))", "torch.ones(5_000_000)"),
)  # fmt: skip
VALUES = (
    *("None", "...", "NotImplemented", "math.nan", "-math.inf", "10**400", "2**63", "-2**63", "True"),
    *("''", "'\\ud800'", "'x' * 10**6", "b'x'", "1j", "Text('a')", "Number(3)", "Liar()", "Raises()"),
    *("Long()", "Endless([1])", "Strange", "Meta", "Module()", "Pair(1, 2)", "Color.red", "type('x' * 10**5, (), {})()"),
    *("recursive(list)", "recursive(dict)", "deep(15)", "deep(90_000)", "[None] * 10_000", "[[0] * 99] * 900"),
    *("decimal.Decimal('NaN')", "fractions.Fraction(1, 3)", "range(10**9)", "iter([1])", "(x for x in [1])"),
    *("np.ones((n, n), bool)[::-1].T",),
    *("np.ones((2, 3)).view(Array)", "np.broadcast_to(1.0, (1 << 20, 9))", "np.random.default_rng(n)"),
    *("{(1, 'a'), None}", "set(range(10**6))", "complex('nan')", "b'x' * 10**5", "np.array('a')", "np.ma.ones(n)", "Part()"),
    *("np.ones((n, n))", "np.float64('nan')", "np.array([{}], dtype=object)", "torch", "sys.modules", "object()"),
    *("{math.nan: math.nan}", "{None: 1, (): 2}", "{Text('a'): 1, 'a': 2}", "{1, 2}", "frozenset()", "right"),
    *("torch.Generator()", "torch.float32", "torch.device('cuda:9')", "torch.Size([1])", "types.SimpleNamespace()"),
    *("torch.strided", "torch.finfo(torch.float32)", "nn.Linear(2, 2)", "nn.ModuleList([])", "memoryview(b'x')"),
)  # fmt: skip
ERRORS = (
    "Exception()", "SystemExit(Raises())", "KeyboardInterrupt", "GeneratorExit", "StopIteration(1)", "MemoryError",
    "AssertionError('')", "ValueError('x' * 10**6)", "ValueError(Raises())", "BaseException('\\ud800\\x1b[31m')",
    "ExceptionGroup('x', [ValueError(1)] * 99)", "type('=1+1;', (Exception,), {'__str__': lambda s: 1 / 0})()",
    "UnicodeDecodeError('a', b'', 0, 1, 'b')", "NotImplementedError('meta')", "SyntaxError('x', ('f', 10**9, 1, None))",
)  # fmt: skip


def random_expression(draw: random.Random, depth: int = 0) -> str:
    """Return a random expression that evaluates to an unusual value."""
    if depth < 4 and draw.random() < 0.35:
        parts = [random_expression(draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 2, 5)))]
        inner = ", ".join(parts)
        return draw.choice(
            (
                f"[{inner}]",
                f"({inner},)" if parts else "()",
                f"{{'a': [{inner}]}}",
                f"[{inner}] * 50",
            )
        )
    return draw.choice(TENSORS if draw.random() < 0.6 else VALUES)


def random_script(draw: random.Random) -> str:
    """Return a script whose causal_mask returns a different unusual value, or raises an exception, on each call."""
    answers = [random_expression(draw) for _ in range(draw.choice((1, 2, 5)))]
    lines = [
        f"    if turn == {place}: return {answer}\n" for place, answer in enumerate(answers[1:])
    ]
    if draw.random() < 0.3:
        lines.append(f"    if turn == {len(answers)}: raise {draw.choice(ERRORS)}\n")
    count = "    turns.append(0)\n    turn = len(turns) % 6\n"
    body = "".join(lines)
    return (
        f"# %%\n{PRELUDE}\n# %%\nturns = []\ndef causal_mask(n, device=None):\n"
        f"{count}{body}    return {answers[0]}\n"
    )
