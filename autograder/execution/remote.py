"""Provide proxies for objects that remain in the sandbox. Entry points: `RemoteModule` and `RemoteObject`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from autograder.protocol import messages as m
from autograder.protocol.encoding import NAMES, Outgoing


class Caller(Protocol):
    """The interface through which a proxy calls the sandbox. See `connection.Connection`."""

    def call(
        self,
        target: str | int,
        method: str,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        name: str,
        leaves: Mapping[str, Tensor] | None = None,
    ) -> Any: ...

    def request(self, request: m.Request, out: Outgoing, name: str) -> Any: ...

    def encode(self, value: Any, out: Outgoing, sent: list[Tensor] | None = None) -> m.Data: ...


class RemoteModule:
    """A proxy for an `nn.Module` in the sandbox. Calls run in the sandbox but are differentiable in this process."""

    def __init__(self, caller: Caller, id_: int, name: str) -> None:
        self.id = id_
        self._caller = caller
        self._name = name
        self._leaves: dict[str, Tensor] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._caller.call(self.id, "", (args, kwargs), self._name, self._leaves)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            name = f"{self._name}.{method}"
            return self._caller.call(self.id, method, (args, kwargs), name, self._leaves)

        return call

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copy each tensor into the parameter with the same name."""
        self._leaves = {}
        out = Outgoing()
        detached = {name: weight.detach() for name, weight in weights.items()}
        self._request(m.Weights(self.id, self._caller.encode(detached, out)), out)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters by name, as leaf tensors. Later calls to the module propagate gradients to them."""
        found = self._request(m.Read(self.id, "parameters"))
        if not isinstance(found, dict):
            raise m.WireError("the worker sent module parameters that are not a dict")
        self._leaves = {
            name: weight.requires_grad_(weight.is_floating_point())
            for name, weight in found.items()
            if isinstance(weight, Tensor)
        }
        return self._leaves

    def state(self) -> Any:
        """Return the module's `state_dict()`."""
        return self._request(m.Read(self.id, "state"))

    def get(self, path: str) -> Any:
        """Return the value of the plain attribute at a dotted path."""
        return self._request(m.Read(self.id, "attribute", path))

    def length(self, path: str) -> int:
        """Return the `len()` of the attribute at a dotted path."""
        return _checked_length(self._request(m.Read(self.id, "length", path)))

    def train(self, mode: bool = True) -> RemoteModule:
        """Set training mode, as `nn.Module.train` does."""
        self._request(m.Set(self.id, training=mode))
        return self

    def eval(self) -> RemoteModule:
        """Set evaluation mode, as `nn.Module.eval` does."""
        return self.train(False)

    def to(self, target: torch.dtype | str) -> RemoteModule:
        """Convert the parameters to a dtype or move them to a device, as `nn.Module.to` does."""
        self._leaves = {}
        if isinstance(target, str):
            self._caller.call(self.id, "to", ((target,), {}), f"{self._name}.to")
        else:
            self._request(m.Set(self.id, dtype=NAMES[target]))
        return self

    def _request(self, request: m.Request, out: Outgoing | None = None) -> Any:
        return self._caller.request(request, out or Outgoing(), self._name)


class RemoteObject:
    """A proxy for an object in the sandbox that is not an `nn.Module`, such as a cache."""

    def __init__(self, caller: Caller, id_: int, type_: str) -> None:
        self.id = id_
        self.type = type_
        self._caller = caller

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._caller.call(self.id, method, (args, kwargs), f"{self.type}.{method}")

        return call

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return _checked_length(
            self._caller.request(m.Read(self.id, "length"), Outgoing(), self.type)
        )


def _checked_length(length: Any) -> int:
    if not isinstance(length, int) or not 0 <= length < 1 << 31:
        raise m.WireError("the worker sent a length that is not a non-negative int")
    return length
