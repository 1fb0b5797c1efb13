"""Test that grading supports classes whose methods are added in later cells, and functions compiled with torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest

from autograder.marks.model import SubmissionMarks

Grade = Callable[..., SubmissionMarks]

CLASS = """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps
"""
OTHER = """
class Other(nn.Module):
    pass
"""
BODY = """
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias
"""
ADD = """
def add_to_class(Class):
    def wrapper(obj):
        setattr(Class, obj.__name__, obj)
    return wrapper
"""
PATCH = """
def patch(function):
    kind = next(iter(function.__annotations__.values()))
    setattr(kind, function.__name__, function)
    return function
"""
STUB = """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        raise NotImplementedError("LayerNorm")

    def forward(self, x):
        raise NotImplementedError("LayerNorm")
"""
WAYS = {
    "the stub is unchanged": [
        STUB,
        "def init(self, d_model, eps=1e-5):\n"
        "    nn.Module.__init__(self)\n"
        "    self.eps = eps\n"
        "    self.weight = nn.Parameter(torch.ones(d_model))\n"
        "    self.bias = nn.Parameter(torch.zeros(d_model))",
        "LayerNorm.__init__ = init",
        f"@setattr_of(LayerNorm)\ndef forward(self, x):{BODY}",
        "def setattr_of(kind):\n    return lambda f: setattr(kind, f.__name__, f)",
    ],
    "add_to_class": [
        ADD,
        CLASS,
        OTHER,
        f"@add_to_class(LayerNorm)\ndef forward(self, x):{BODY}",
        "@add_to_class(Other)\ndef forward(self, x):\n    return x",
    ],
    "patch": [
        CLASS,
        OTHER,
        PATCH,
        f"@patch\ndef forward(self: LayerNorm, x):{BODY}",
        "@patch\ndef forward(self: Other, x):\n    return x",
    ],
    "setattr": [CLASS, f"def forward(self, x):{BODY}", 'setattr(LayerNorm, "forward", forward)'],
    "assigned and wrapped": [
        CLASS,
        f"def normalise(self, x):{BODY}",
        "LayerNorm.forward = normalise",
        "LayerNorm.forward = torch.enable_grad()(LayerNorm.forward)",
    ],
    "compiled": [
        "@torch.compile\ndef average(x):\n    return x.mean(-1, keepdim=True)",
        CLASS,
        "@torch.compile(dynamic=True, backend='aot_eager')\n"
        f"def forward(self, x):{BODY.replace('x.mean(-1, keepdim=True)', 'average(x)')}",
        "LayerNorm.forward = torch.compile(forward, fullgraph=True)",
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_class_with_methods_from_later_cells(way: str, grade: Grade) -> None:
    cells = ["import torch\nfrom torch import nn", *WAYS[way]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    marked = grade(notebook, only="LayerNorm").exercises[0]
    assert marked.status == "passed", [test.message for test in marked.tests]


def test_compiled_softmax(grade: Grade) -> None:
    cells = [
        "import torch",
        "@torch.compile\ndef stable(x, dim):\n    return x - x.amax(dim, keepdim=True)",
        "@torch.compile(mode='max-autotune')\ndef softmax(x, dim=-1):\n"
        "    e = stable(x, dim).exp()\n    return e / e.sum(dim, keepdim=True)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    marked = grade(notebook, only="softmax").exercises[0]
    assert marked.status == "passed", [test.message for test in marked.tests]
