"""Read and update a student's `nn.Module` objects for the grader, and find arguments that a call changed in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autograder.plain_text import escape_surrogates
from autograder.protocol import messages as m


class NotFound(Exception):
    """Raised when an object that the grader requested does not exist. The message states what is missing."""


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into a module's parameters by name.

    Raises:
        NotFound: There is no parameter with that name and shape.
    """
    named = _parameters(module)
    for name, weight in weights.items():
        if name not in named:
            found = ", ".join(f"`{n}`" for n in list(named)[:12]) or "none"
            more = ", …" if len(named) > 12 else ""
            raise NotFound(f"there is no parameter `{name}`; the parameters are: {found}{more}")
        shape = tuple(named[name].shape)
        if shape != tuple(weight.shape):
            raise NotFound(
                f"the parameter `{name}` should have shape {tuple(weight.shape)}, not {shape}"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            named[name].copy_(weight)


def read(module: nn.Module, request: m.Read) -> Any:
    """Return a module's parameters, its state dict, the attribute at a dotted path, or that attribute's length."""
    match request.what:
        case "parameters":
            return {name: value.detach() for name, value in _parameters(module).items()}
        case "state":
            return dict(module.state_dict())
        case "attribute":
            return attribute(module, request.path)
        case "length":
            part = attribute(module, request.path)
            try:
                return len(part)
            except TypeError:
                raise NotFound(f"`{request.path}` has no length") from None
    raise m.WireError("the grader sent a read request of an unknown kind")


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's parameters, keyed by name.

    Raises:
        NotFound: A parameter has no shape yet.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    for name, value in named.items():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise NotFound(
                f"the parameter `{name}` has no shape before the first call: replace the lazy layer, such as "
                "`nn.LazyLinear`, with one that takes both sizes, such as `nn.Linear`"
            )
    return named


def attribute(module: nn.Module, path: str) -> Any:
    """Return the attribute at a dotted path. Numbers in the path are indices.

    Raises:
        NotFound: The attribute does not exist.
    """
    target: Any = module
    for name in filter(None, path.split(".")):
        try:
            target = target[int(name)] if name.isdigit() else getattr(target, name)
        except (AttributeError, IndexError, TypeError, KeyError):
            raise NotFound(f"there is no attribute `{path}`") from None
    return target


def changed_arguments(
    function: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    before: list[Tensor | None],
) -> list[str]:
    """Return the names of arguments whose tensors the call changed in place."""
    changed = {
        id(tensor)
        for tensor, old in zip(tensors, before, strict=True)
        if old is not None and not torch.equal(old, tensor.detach())
    }
    if not changed:
        return []
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        names = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i + 1}" for i in range(len(names), len(args))]
    given = [*zip(names, args, strict=False), *kwargs.items()]
    return [escape_surrogates(str(name)[:200]) for name, value in given if id(value) in changed]
