"""Disable `torch.compile`, because the sandbox contains no compiler and no folder for the compiler's cache."""

from __future__ import annotations

import gc
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autograder.sandbox.worker.import_hook import replace_on_import

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
            replace_on_import(name, function, optimize_unchanged)
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
