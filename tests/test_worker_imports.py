"""Test that fork servers do not load libraries that are slow to import, and that workers can still import them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autograder.sandbox.client import Server
from tests.sandboxed_code import loaded

# The stand-in for sympy defines its own class `Basic`, and has no `__path__`, which Python needs to import `sympy.abc`.
USES_OF_SYMPY = (
    "import sympy; x = sympy.symbols('x'); assert isinstance(x, sympy.Basic) and x + x == 2 * x",
    "import sympy as s; Basic = s.Basic; s.symbols('x'); assert isinstance(s.symbols('x'), s.Basic)",
    "from sympy import *; assert symbols('x') + 1 == 1 + symbols('x')",
    "from sympy.abc import x; import sympy; assert isinstance(x, sympy.Symbol)",
    "import sympy.abc, sympy; assert isinstance(sympy.abc.x, sympy.Symbol)",
    "import torch.utils._sympy.functions as f; assert issubclass(f.FloorDiv, __import__('sympy').Basic)",
)
SYMBOLIC = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=False)
x = mode.from_tensor(torch.ones(5, 3))
with mode:
    y = torch.where(x.softmax(-1) > 0, x, x + 1)
assert isinstance(y.shape[0], torch.SymInt) and y.shape == x.shape
"""
NESTED = """
import torch
x = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
assert [part.shape[0] for part in (x * 2).unbind()] == [2, 4]
"""


def test_a_worker_imports_what_the_server_did_not(server: Server) -> None:
    """To start faster, the fork server does not import TorchDynamo. Workers import it when an optimizer needs it."""
    source = (
        "import sys, torch\n"
        "def started_without():\n"
        "    return 'torch._dynamo' not in sys.modules\n"
        "def step():\n"
        "    weight = torch.nn.Parameter(torch.ones(2))\n"
        "    weight.sum().backward()\n"
        "    torch.optim.SGD([weight], lr=1.0).step()\n"
        "    return weight.detach()\n"
        "def compiled():\n"
        "    from torch import _dynamo\n"
        "    return _dynamo.optimize()(started_without) is started_without"
    )
    with loaded(server, source) as student:
        assert student.started_without() is True
        assert student.step().tolist() == [0, 0]
        assert student.compiled() is True


def test_checks_and_meta_tensors_do_not_need_sympy(server: Server) -> None:
    """For most operations on the `meta` device and for `assert_close`, torch would import sympy, which takes 0.3 s per worker."""
    source = (
        "import sys, torch\n"
        "from torch import nn\n"
        "def f():\n"
        "    x = torch.randn(2, 3, 8, device='meta')\n"
        "    mask = torch.ones(3, 3, dtype=torch.bool, device='meta').tril()\n"
        "    scores = (x @ x.mT).masked_fill(~mask, float('-inf')).softmax(-1)\n"
        "    x = nn.Transformer(8, 2, 1, 1, 16, device='meta')(x, torch.where(x > 0, x, scores @ x))\n"
        "    torch.testing.assert_close(mask, mask)\n"
        "    return list((x.var(-1) + torch.cat([x, x]).mean()).shape)\n"
        "def imported():\n"
        "    return [name for name in ('mpmath', 'torch._dynamo') if name in sys.modules]"
    )
    with loaded(server, source) as student:
        assert student.f() == [2, 3]
        assert student.imported() == []


@pytest.mark.parametrize("use", [*USES_OF_SYMPY, SYMBOLIC, NESTED])
def test_workers_can_use_sympy_and_symbolic_shapes(server: Server, use: str) -> None:
    source = "def f(code):\n    exec(code, {})"
    with loaded(server, source) as student:
        student.f(use)


def test_an_imported_library_is_not_replaced() -> None:
    code = (
        "import sympy\n"
        "from autograder.sandbox.concrete_shapes import assume_concrete_shapes\n"
        "before = sympy.Basic\n"
        "assume_concrete_shapes()\n"
        "import sympy\n"
        "assert sympy.Basic is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
