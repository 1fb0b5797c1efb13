"""Objects whose parameters live in another process: what a handle is built from, and calls with the handle's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

PLAIN = (bool, int, float, str)


def described(module: nn.Module) -> dict[str, Any]:
    """Return the parts of a module, its parameters and buffers by name, and the plain attributes of all parts."""
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


def apply(
    module: nn.Module,
    method: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    modes: Mapping[str, bool],
) -> Any:
    """Call a method as if these tensors were the module's parameters and buffers, and these modes those of its parts."""
    parts = dict(module.named_modules(remove_duplicate=False))
    for path, training in modes.items():
        parts[path].training = training
    state = {f"module.{name}": tensor for name, tensor in tensors.items()}
    return functional_call(_Method(module, method), state, tuple(args), dict(kwargs), strict=True)


class _Method(nn.Module):
    """Makes a method of a module the `forward` of another one, since `functional_call` calls nothing else."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        called = self.module if self.method == "forward" else getattr(self.module, self.method)
        return called(*args, **kwargs)
