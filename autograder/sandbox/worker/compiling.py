"""Disable `torch.compile`, because the sandbox has no compiler and no folder for the compiler's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn


def disable_compile() -> None:
    """Replace the entry points of TorchDynamo with functions that return the code unchanged.

    `torch.jit` is not affected: it compiles in memory and works in the sandbox.
    """
    for module in (torch, torch.compiler, torch._dynamo, torch._dynamo.eval_frame):
        for name in ("compile", "optimize", "optimize_assert"):
            if hasattr(module, name):
                setattr(
                    module, name, compile_unchanged if name == "compile" else optimize_unchanged
                )
    nn.Module.compile = _compile_module  # type: ignore[method-assign,assignment]


def compile_unchanged(model: Any = None, **_: Any) -> Any:
    """Return the model or function unchanged. Replaces `torch.compile`, including its use as a decorator."""
    return _unchanged if model is None else model


def optimize_unchanged(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Return a decorator that changes nothing. Replaces `torch._dynamo.optimize`."""
    return _unchanged


def _unchanged(function: Any) -> Any:
    return function


def _compile_module(module: nn.Module, *_: Any, **__: Any) -> None:
    """Do nothing. Replaces `module.compile()`, which compiles in place."""
