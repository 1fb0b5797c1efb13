"""Imports and first calls of torch that every worker would otherwise pay for after its fork."""

from __future__ import annotations

import warnings

import jaxtyping  # noqa: F401
import torch
import torch._dynamo
import torch.distributions
import torch.masked
import torch.nn.attention.flex_attention
import torch.nn.attention.varlen
from torch import nn

from autograder.sandbox.worker.compiling import compile_nothing
from autograder.sandbox.worker.cost import Measure
from autograder.sandbox.worker.forbid import decompositions


def warm_up() -> None:
    """Run once what workers use, so that a fork has it ready.

    Forward passes and an optimizer step only: after a backward here, deep backwards crash in the workers.
    """
    torch.set_num_threads(1)
    # oneDNN compiles a kernel for each new shape, in each process anew, and another one for each processor.
    torch.backends.mkldnn.set_flags(_enabled=False)
    torch.manual_seed(0)
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):
        library.impl("relu", torch.relu, "CPU")  # the first override of a kernel warns, at length
    del library
    with torch.no_grad():
        model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        x = torch.randn(2, 3, 8)
        model(x, x)
        with Measure():
            x.double() @ x.double().mT
        torch.einsum("bnd,bmd->bnm", x, x).softmax(-1)
        torch.nn.functional.cross_entropy(x, x.softmax(-1))
        torch.ones(2, 2, dtype=torch.bool, device="meta").tril()
        for dtype in (torch.float16, torch.bfloat16):
            # Asks /proc/cpuinfo what the processor can do, which is not there behind the wall.
            half = x.to(dtype)
            torch.nn.functional.linear(half, half[0]).exp() @ half
    compile_nothing()
    decompositions()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(model.parameters()).step()
