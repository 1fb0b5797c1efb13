"""Test that `on_meta` accepts the error raised by reading a meta tensor's values, but not an imitation of this error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from autograder.execution.checks import on_meta
from autograder.execution.student import Student, StudentError
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess

READS = [
    "x.sum().item()",
    "bool((x > 0).any())",
    "x.numpy()",
    "x.detach().cpu().numpy()",
    "x.tolist()",
    "int(x.sum())",
    "math.sqrt(x.sum())",
    "[float(row.sum()) for row in x]",
    "torch.equal(x, x)",
    "torch.allclose(x, x)",
    "x[x > 0]",
    "(x > 0).nonzero()",
    "torch.where(x > 0)",
    "x.unique()",
    "x.masked_select(x > 0)",
    "torch.tensor([x.sum(), x.sum()])",
    "torch.arange(x.sum())",
    "F.one_hot(x.long())",
    "x.repeat_interleave(x[:, 0].long(), 0)",
    "torch.zeros(2, 3).copy_(x)",
    "torch.distributions.Categorical(logits=x)",
    "np.asarray(x)",
    "sorted(x[0])",
    "torch.nn.Linear(3, 2, device='meta').to('cpu')",
    "x.masked_fill(x > 0, torch.tensor(0.0))",
    "guarded(lambda: x.sum().item())",
]
SAYS = '"Cannot copy out of meta tensor; no data!"'
CRAFTED = [
    'fail(RuntimeError("meta"))',
    f"fail(RuntimeError({SAYS}))",
    f"fail(NotImplementedError({SAYS}))",
    f"fail(TypeError({SAYS}))",
    f"fail(Own({SAYS}))",
    f"fail(AttributeError({SAYS}))",
    'fail(RuntimeError("Tensor.item() cannot be called on meta tensors"))',
    f"generator().throw(RuntimeError({SAYS}))",
    f"torch._check(False, lambda: {SAYS})",
    f"torch._check_not_implemented(False, lambda: {SAYS})",
    "torch._check(False, lambda: 'Expected `value` to be on same device as `a`')",
    f"promised(RuntimeError({SAYS}))",
    f"[0][Meta({SAYS})]",
    "torch.zeros(3, device='meta2')",
    "Meta() + 1",
]
MISTAKES = [
    "x + torch.zeros(2, 3)",
    "torch.cat([x, torch.zeros(2, 3)])",
    "x.masked_fill(torch.ones(2, 3).bool(), 0)",
    "torch.zeros(2, 3)",
]
CODE = """
import math
from concurrent.futures import Future

import numpy as np
import torch
import torch.nn.functional as F


class Own(RuntimeError):
    pass


class Meta:
    def __init__(self, text="meta"):
        self.text = text

    def __index__(self):
        raise RuntimeError(self.text)


def fail(error):
    raise error


def generator():
    steps = iter_steps()
    next(steps)
    return steps


def iter_steps():
    yield


def promised(error):
    future = Future()
    future.set_exception(error)
    return future.result()


def guarded(read):
    try:
        return read()
    except ValueError:
        return None


def answer(x):
    return {expression}
"""


def call_with(expression: str) -> Callable[[], object]:
    """Return a function that evaluates the expression in a worker, where `x` is a meta tensor."""
    student = Student(LocalProcess())
    source = CODE.replace("{expression}", expression)
    load = m.Load(source, [(1, source.count("\n"))], "answer", 0)
    assert student.load(load) == []
    return lambda: student.answer(torch.zeros(2, 3, device="meta"))


@pytest.mark.parametrize("expression", READS)
def test_code_that_reads_values_is_not_judged(expression: str) -> None:
    call = call_with(expression)
    with pytest.raises(StudentError) as raised:
        call()
    assert raised.value.meta_read
    on_meta(call, (2, 3))


@pytest.mark.parametrize("expression", CRAFTED)
def test_an_imitated_error_message_is_an_ordinary_error(expression: str) -> None:
    with pytest.raises(StudentError):
        on_meta(call_with(expression), (2, 3))


@pytest.mark.parametrize("expression", MISTAKES)
def test_a_tensor_on_a_different_device_fails(expression: str) -> None:
    with pytest.raises((AssertionError, StudentError), match=r"device (`?meta|cpu)"):
        on_meta(call_with(expression), (2, 3))
