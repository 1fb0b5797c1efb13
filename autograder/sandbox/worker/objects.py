"""What the grader reads and writes of the objects of a student's code, and whether a call changed its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autograder.protocol import messages as m


class Missing(Exception):
    """Something that the grader asks for is not there; the text says what is."""


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into the parameters of these names.

    Raises:
        Missing: there is no parameter of that name or shape; the text lists what there is.
    """
    named = _parameters(module)
    for name, weight in weights.items():
        if name not in named:
            have = ", ".join(f"`{n}`" for n in list(named)[:12]) or "none"
            more = ", …" if len(named) > 12 else ""
            raise Missing(f"there is no parameter `{name}`; its parameters are: {have}{more}")
        shape = tuple(named[name].shape)
        if shape != tuple(weight.shape):
            raise Missing(
                f"the parameter `{name}` should have the shape {tuple(weight.shape)}, not {shape}"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            named[name].copy_(weight)


def read(module: nn.Module, request: m.Read) -> Any:
    """The parameters, the state, a plain attribute or the length of a list, at a dotted path."""
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
                raise Missing(f"`{request.path}` has no length") from None
    raise m.WireError("a read that is not known")


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by their names.

    Raises:
        Missing: one has no shape yet.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    for name, value in named.items():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise Missing(
                f"the parameter `{name}` has no shape before the first call: instead of a lazy layer "
                "such as `nn.LazyLinear`, use one that is given both of its sizes, such as `nn.Linear`"
            )
    return named


def attribute(module: nn.Module, path: str) -> Any:
    """What is at a dotted path.

    Raises:
        Missing: nothing is.
    """
    target: Any = module
    for name in filter(None, path.split(".")):
        try:
            target = target[int(name)] if name.isdigit() else getattr(target, name)
        except (AttributeError, IndexError, TypeError, KeyError):
            raise Missing(f"there is no attribute `{path}`") from None
    return target


def changed(
    function: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    before: list[Tensor | None],
) -> list[str]:
    """The names of the arguments that are not what they were before the call."""
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
    return [m.encodable(str(name)[:200]) for name, value in given if id(value) in changed]
