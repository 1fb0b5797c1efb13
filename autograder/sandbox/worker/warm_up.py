"""Import and initialise torch once in the fork server so that forked workers do not have to."""

from __future__ import annotations

import warnings

import jaxtyping  # noqa: F401
import numpy.random  # noqa: F401 (numpy imports it lazily)
import torch
import torch.distributions
import torch.masked
from torch import nn

from autograder.sandbox.concrete_shapes import assume_concrete_shapes
from autograder.sandbox.worker.compiling import disable_compile
from autograder.sandbox.worker.cost import CostCounter
from autograder.sandbox.worker.forbid import decompositions, kernels


def warm_up() -> None:
    """Run typical operations once so that forked processes inherit the initialised libraries.

    Run forward passes only. If a backward pass ran here, deep backward passes would crash in the workers.
    """
    disable_compile()
    assume_concrete_shapes()
    torch.set_num_threads(1)
    # oneDNN would compile a kernel for each new shape in each process, and kernels differ between CPU types.
    torch.backends.mkldnn.set_flags(_enabled=False)
    torch.manual_seed(0)
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):
        # Overriding a kernel for the first time prints a long warning.
        library.impl("relu", torch.relu, "CPU")
    del library
    with torch.no_grad():
        model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        x = torch.randn(2, 3, 8)
        model(x, x)
        with CostCounter():
            x.double() @ x.double().mT
        torch.einsum("bnd,bmd->bnm", x, x).softmax(-1)
        torch.nn.functional.cross_entropy(x, x.softmax(-1))
        torch.ones(2, 2, dtype=torch.bool, device="meta").tril()
        for dtype in (torch.float16, torch.bfloat16):
            # Do this now, because the first call reads /proc/cpuinfo, which does not exist in the sandbox.
            half = x.to(dtype)
            torch.nn.functional.linear(half, half[0]).exp() @ half
    decompositions()
    kernels()
