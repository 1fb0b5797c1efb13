"""Make `torch.compile` return what it was given: behind the wall there is no compiler and nowhere to write its cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn


def compile_nothing() -> None:
    """Replace the ways into TorchDynamo, in this process, by ones that leave the code as it is.

    `torch.jit` stays: it compiles in memory and works behind the wall.
    """
    for module in (torch, torch.compiler, torch._dynamo, torch._dynamo.eval_frame):
        for name in ("compile", "optimize", "optimize_assert"):
            if hasattr(module, name):
                setattr(module, name, as_it_is if name == "compile" else optimize)
    nn.Module.compile = _compile_module  # type: ignore[method-assign,assignment]


def as_it_is(model: Any = None, **_: Any) -> Any:
    """Stand in for `torch.compile`: as a decorator with and without arguments, and as a function."""
    return _unchanged if model is None else model


def optimize(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Stand in for `torch._dynamo.optimize`, whose result is a decorator."""
    return _unchanged


def _unchanged(function: Any) -> Any:
    return function


def _compile_module(module: nn.Module, *_: Any, **__: Any) -> None:
    """Stand in for `module.compile()`, which compiles in place."""
