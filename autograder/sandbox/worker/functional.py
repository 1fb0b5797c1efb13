"""Describe modules so that other processes can create handles, and call modules with the tensors that a handle sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

PLAIN = (bool, int, float, str)


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Return the data needed to build a handle: submodules, parameters and buffers by name, and plain attributes."""
    parts = dict(module.named_modules(remove_duplicate=False))
    return {
        "id": id(module),
        "modules": [
            [path, isinstance(part, nn.ModuleList)] for path, part in parts.items() if path
        ],
        "parameters": dict(module.named_parameters(remove_duplicate=False)),
        "buffers": dict(module.named_buffers(remove_duplicate=False)),
        "persistent": list(module.state_dict()),
        "attributes": {
            f"{path}.{name}".lstrip("."): value
            for path, part in parts.items()
            for name, value in vars(part).items()
            if type(value) in PLAIN and not name.startswith("_") and name != "training"
        },
    }


def call_method(
    module: nn.Module,
    method: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    modes: Mapping[str, bool],
) -> Any:
    """Call a method with `tensors` as the module's parameters and buffers, and `modes` as its submodules' training modes."""
    parts = dict(module.named_modules(remove_duplicate=False))
    for path, training in modes.items():
        parts[path].training = training
    state = {f"module.{name}": tensor for name, tensor in tensors.items()}
    return functional_call(_Method(module, method), state, tuple(args), dict(kwargs), strict=True)


class _Method(nn.Module):
    """A module whose `forward` calls a method of another module. `functional_call` can call only `forward`."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        called = self.module if self.method == "forward" else getattr(self.module, self.method)
        return called(*args, **kwargs)
