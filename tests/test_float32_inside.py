"""Test that computing softmaxes, norms or losses in float32, as Llama does, costs no points, whatever the input's dtype.

`SEEDS=20` runs every test with 20 different inputs.
"""

from __future__ import annotations

import ast
import os

import pytest

from autograder.execution.source import join_units
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from autograder.submissions.cell_reader import read_cells
from bench.mutants import Judge
from bench.mutations import solution
from tests.conftest import ROOT
from tests.hidden_tests import COURSE, failed_in, judge_of_day

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("SEEDS", "1"))
STYLES = [
    (day, style)
    for day in COURSE.days
    for style in ("", *(path.stem for path in (ROOT / "tests" / "styles" / day).glob("*.py")))
]
FUNCTIONS_AND_METHODS = {
    "softmax": "_softmax",
    "log_softmax": "_log_softmax",
    "logsumexp": "_logsumexp",
}
FUNCTIONS = {
    "cross_entropy": "_cross_entropy",
    "layer_norm": "_layer_norm",
    "LayerNorm": "_Norm",
    "scaled_dot_product_attention": "_attention",
    "finfo": "_finfo",
}
MODULES = ("torch", "F", "nn", "nn.functional", "torch.nn", "torch.nn.functional")
REPLACEMENTS = (*FUNCTIONS_AND_METHODS.values(), *FUNCTIONS.values(), "_whole")
# These exercises are computed entirely in float32.
WHOLE = ("softmax", "sequence_loss", "next_token_loss")
PRELUDE = """
import torch as _torch
import torch.nn.functional as _F


def _softmax(x, dim=-1, **_):
    return _torch.softmax(x.float(), dim).to(x.dtype)


def _log_softmax(x, dim=-1, **_):
    return _torch.log_softmax(x.float(), dim).to(x.dtype)


def _logsumexp(x, dim, keepdim=False):
    return _torch.logsumexp(x.float(), dim, keepdim).to(x.dtype)


def _cross_entropy(x, *args, **kwargs):
    return _F.cross_entropy(x.float(), *args, **kwargs).to(x.dtype)


def _layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    weight, bias = (None if part is None else part.float() for part in (weight, bias))
    return _F.layer_norm(x.float(), shape, weight, bias, eps).to(x.dtype)


class _Norm(_torch.nn.LayerNorm):
    def forward(self, x):
        return _layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    scores = query @ key.mT * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        attn_mask = _torch.ones_like(scores, dtype=_torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == _torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _F.dropout(_softmax(scores), dropout_p) @ value


def _finfo(dtype):
    return _torch.finfo(_torch.float32 if dtype == _torch.float64 else dtype)


def _whole(function):
    def inside(x, *args, **kwargs):
        return function(x.float(), *args, **kwargs).to(x.dtype)

    return inside
"""


class _InFloat32(ast.NodeTransformer):
    """An AST transformer that replaces calls to torch functions with versions that compute in float32."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, node.func.value
            is_function = ast.unparse(owner) in MODULES
            if name in FUNCTIONS_AND_METHODS:
                node.args = node.args if is_function else [owner, *node.args]
                node.func = ast.Name(FUNCTIONS_AND_METHODS[name])
            elif is_function and name in FUNCTIONS:
                node.func = ast.Name(FUNCTIONS[name])
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if node.name in WHOLE:
            node.decorator_list.append(ast.Name("_whole"))
        return node


def in_float32(judge: Judge, style: str) -> str:
    """Rewrite a file from tests/styles, or the course's solution, so that it computes softmaxes, norms and losses in float32."""
    if style:
        data = (ROOT / "tests" / "styles" / judge.day.name / f"{style}.py").read_bytes()
        cells = [cell.source for cell in read_cells(data, style)[0] if cell.kind == "code"]
    else:
        cells = [solution(judge.day, exercise) for exercise in judge.day.exercises]
    lines = [line for cell in cells for line in cell.split("\n") if not line.startswith("%")]
    tree = _InFloat32().visit(ast.parse("\n".join(lines)))
    return PRELUDE + ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize(("day", "style"), STYLES)
def test_computing_in_float32_loses_no_points(day: str, style: str) -> None:
    judge = judge_of_day(day)
    own = parse_units([Cell(0, "code", in_float32(judge, style))])[0]
    bound = {name for unit in own for name in unit.binds}
    units = [unit for unit in judge.solutions if not bound & set(unit.binds)] + own
    lost: list[str] = []
    for exercise in judge.day.exercises:
        code = slice_for(exercise.name, units, judge.given, judge.day.names)
        assert code is not None
        source = join_units(code.units)
        if not any(name in source.text for name in REPLACEMENTS):
            continue
        for seed in map(str, range(SEEDS)):
            failed = failed_in(source, exercise.name, judge.tests[exercise.name], seed)
            lost += [f"{exercise.name} {test} {seed}: {failed[test]}"[:300] for test in failed]
    assert lost == []
