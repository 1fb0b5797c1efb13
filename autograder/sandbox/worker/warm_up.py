"""Import and initialise torch once in the fork server so that forked workers do not have to."""

from __future__ import annotations

import gc
import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any

import jaxtyping  # noqa: F401
import numpy.random  # noqa: F401 (numpy imports it lazily)
import torch
import torch.distributions
import torch.masked
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autograder.sandbox.concrete_shapes import assume_concrete_shapes
from autograder.sandbox.worker.forbid import decompositions, kernels, replace


def warm_up() -> None:
    """Run typical operations once so that forked processes inherit the initialised libraries.

    Run forward passes only. If a backward pass ran here, deep backward passes would crash in the workers.
    """
    disable_compile()
    assume_concrete_shapes()
    # Without distributed tensors, `torch.testing.assert_close` does not import sympy, which takes longer than most tests.
    replace("torch.testing._comparison._HAS_DTENSOR", False)
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


TORCHDYNAMO = ("torch._dynamo", "torch._dynamo.eval_frame")


def disable_compile() -> None:
    """Replace TorchDynamo's entry points with functions that return the code unchanged.

    `torch.jit` is not affected, because it compiles in memory and works in the sandbox.
    """
    torch.compile = compile_unchanged
    torch.compiler.compile = compile_unchanged
    nn.Module.compile = _compile_module  # type: ignore[method-assign,assignment]
    torch.use_deterministic_algorithms = _use_deterministic_algorithms
    for name in TORCHDYNAMO:
        for function in ("optimize", "optimize_assert"):
            replace(f"{name}.{function}", optimize_unchanged)
    _skip_exclusions()


def _skip_exclusions() -> None:
    """Prevent TorchDynamo from being imported by functions that are excluded from compilation, such as an optimizer's methods.

    Importing TorchDynamo takes longer than importing the rest of torch.
    """
    wrapper = torch._disable_dynamo(_unchanged).__code__  # type: ignore[attr-defined]
    for item in gc.get_referrers(wrapper):
        if type(item) is types.FunctionType and item.__code__ is wrapper:
            function = inspect.getclosurevars(item).nonlocals["fn"]
            function.__dynamo_disable = function
    torch._disable_dynamo = compile_unchanged  # type: ignore[assignment,attr-defined]


def compile_unchanged(model: Any = None, *_: Any, **__: Any) -> Any:
    """Return the model or function unchanged. Replaces `torch.compile`, including its use as a decorator."""
    return _unchanged if model is None else model


def optimize_unchanged(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Return a decorator that does nothing. Replaces `torch._dynamo.optimize`."""
    return _unchanged


def _use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Do the same as torch's function of this name, but without importing the compiler, which takes a second."""
    torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)


def _unchanged(function: Any) -> Any:
    return function


def _compile_module(module: nn.Module, *_: Any, **__: Any) -> None:
    """Do nothing. Replaces `module.compile()`, which compiles in place."""


class CostCounter(TorchDispatchMode):
    """A context manager that counts torch operator calls and records the size (in elements) of the largest returned storage."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                elements = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.largest = max(self.largest, elements)
        return result
