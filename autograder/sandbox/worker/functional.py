"""Describe modules so that other processes can create proxies for them, and call modules with the tensors that a proxy sends.

Both processes refer to a module's parts by position, because it would be slow to look up every path in each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

PLAIN = (bool, int, float, str)
# The index of the owner in the list of modules, where the root has index 0, and the attribute's name within the owner.
Place = tuple[int, str]


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Return the data needed to build a proxy: submodules, parameters and buffers by name, and plain attributes."""
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


def places(paths: Sequence[str], modules: Sequence[str]) -> list[Place]:
    """Split each dotted path into its owner's index and the attribute name. `modules` lists the paths of all submodules."""
    positions = {path: position for position, path in enumerate(["", *modules])}
    split = (path.rpartition(".") for path in paths)
    return [(positions[owner], name) for owner, _, name in split]


def modules_at(
    root: nn.Module, submodules: Sequence[Place], position: int = 0
) -> list[nn.Module | None]:
    """Return all modules below `root` by position, with None for modules that are missing or not below it.

    `position` is the position of `root`. Parents must come before their submodules.
    """
    found: list[nn.Module | None] = [root if position == 0 else None]
    for owner, name in submodules:
        parent = found[owner]
        child = None if parent is None else parent._modules.get(name)
        found.append(root if len(found) == position else child)
    return found


def tensor_at(owner: nn.Module, name: str) -> Tensor | None:
    """Return a module's own parameter or buffer with this name, or None if it does not exist."""
    found = owner._parameters.get(name)
    return owner._buffers.get(name) if found is None else found


class FunctionalModule:
    """A module whose parameters, buffers and training modes are replaced before each call."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        parts = dict(module.named_modules(remove_duplicate=False))
        self._modules = list(parts.values())
        tensors = [
            *dict(module.named_parameters(remove_duplicate=False)),
            *dict(module.named_buffers(remove_duplicate=False)),
        ]
        self._tensors = places(tensors, list(parts)[1:])

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor | None],
        modes: Sequence[bool | None],
    ) -> Any:
        """Call a method with the given parameters, buffers and training modes.

        `tensors` and `modes` are in the same order as in the result of `describe_module`. They contain None for parts that
        the method does not use. `method` is a method of the module or of one of its submodules, such as "norm1.forward".
        """
        for part, training in zip(self._modules, modes, strict=True):
            if training is not None:
                part.training = training
        for (position, name), tensor in zip(self._tensors, tensors, strict=True):
            if tensor is None:
                continue
            owner = self._modules[position]
            kind: dict[str, Any] = (
                owner._parameters if name in owner._parameters else owner._buffers
            )
            kind[name] = tensor
        path, _, name = method.rpartition(".")
        module = self._module.get_submodule(path)
        called = module if name == "forward" else getattr(module, name)
        return called(*args, **kwargs)
