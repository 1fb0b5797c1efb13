"""What stands on the grader's side for a module or another object that stays behind the wall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from autograder.protocol import messages as m
from autograder.protocol.encoding import NAMES, Outgoing


class Caller(Protocol):
    """What a handle needs of the student that it belongs to; other names of a student are functions of the student's code."""

    def _call(
        self,
        target: str | int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        what: str,
        module: Module | None = None,
    ) -> Any: ...

    def _request(
        self, request: m.Request, payload: Outgoing, what: str
    ) -> tuple[m.Answer, bytearray]: ...

    def _decode(self, data: m.Data, payload: bytearray, what: str) -> Any: ...

    def _to_wire(self, item: Any) -> m.Value: ...


class Module:
    """Stands for an `nn.Module` behind the wall."""

    def __init__(self, student: Caller, id_: int, name: str) -> None:
        self.id = id_
        self._student = student
        self._name = name
        self._leaves: dict[str, Tensor] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._student._call(self.id, "", args, kwargs, self._name, self)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            what = f"{self._name}.{method}"
            return self._student._call(self.id, method, args, kwargs, what, self)

        return call

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copy tensors into the parameters of these names."""
        self._leaves = {}
        out = Outgoing()
        detached = {name: weight.detach() for name, weight in weights.items()}
        data = out.encode(detached, self._student._to_wire)
        self._ask(m.Weights(self.id, data), out)

    def weights(self) -> dict[str, Tensor]:
        """The parameters by name, as leaves that later calls of this module are differentiable in."""
        found = self._ask(m.Read(self.id, "parameters"))
        if not isinstance(found, dict):
            raise m.WireError("parameters that are none")
        self._leaves = {
            name: weight.requires_grad_(weight.is_floating_point())
            for name, weight in found.items()
            if isinstance(weight, Tensor)
        }
        return self._leaves

    def leaves(self) -> dict[str, Tensor]:
        """What `weights` gave last."""
        return self._leaves

    def state(self) -> Any:
        """The `state_dict()`."""
        return self._ask(m.Read(self.id, "state"))

    def get(self, path: str) -> Any:
        """A plain attribute at a dotted path."""
        return self._ask(m.Read(self.id, "attribute", path))

    def length(self, path: str) -> Any:
        """The length of what is at a dotted path."""
        return self._ask(m.Read(self.id, "length", path))

    def train(self, mode: bool = True) -> Module:
        """Set training mode, as in torch."""
        self._ask(m.Set(self.id, training=mode))
        return self

    def eval(self) -> Module:
        """Set evaluation mode, as in torch."""
        return self.train(False)

    def to(self, dtype: torch.dtype) -> Module:
        """Convert the parameters, as in torch."""
        self._leaves = {}
        self._ask(m.Set(self.id, dtype=NAMES[dtype]))
        return self

    def _ask(self, request: m.Request, out: Outgoing | None = None) -> Any:
        response, payload = self._student._request(request, out or Outgoing(), self._name)
        return self._student._decode(response.result, payload, self._name)


class Thing:
    """Stands for another object of a class that the code defines, such as a `KeyValueCache`."""

    def __init__(self, student: Caller, id_: int, type_: str) -> None:
        self.id = id_
        self.type = type_
        self._student = student

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._student._call(self.id, method, args, kwargs, f"{self.type}.{method}")

        return call

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        response, payload = self._student._request(m.Read(self.id, "length"), Outgoing(), self.type)
        length = self._student._decode(response.result, payload, self.type)
        if not isinstance(length, int) or not 0 <= length < 1 << 31:
            raise m.WireError("a length that is none")
        return length
