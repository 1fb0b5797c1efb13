"""Makes torch's operators and functions of given names raise, and counts who tried.

A kernel registered through `torch.library` is met by every thread, by scripted code and by redispatch, where a dispatch
mode is not. It is a rule of the course and not a wall: the code that it watches runs in the same process.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

# A composite operator is met before it is taken apart; what does the work has other homes than the processor, too.
COMPOSITE = ("CPU", "AutogradCPU")
KERNEL = {
    "_softmax": ("CPU", "MkldnnCPU"),
    "_log_softmax": ("CPU", "MkldnnCPU"),
    "_sparse_softmax": ("SparseCPU",),
    "_sparse_log_softmax": ("SparseCPU",),
}
_LIBRARIES: list[torch.library.Library] = []


class Forbidden(RuntimeError):
    """A torch function was called that the exercise does not allow."""


def forbid(operators: Sequence[str], attributes: Sequence[str], hits: list[str]) -> None:
    """Replace `aten` operators and attributes such as `torch.nn.functional.f` by ones that raise and append to `hits`.

    Names that this version of torch does not have are passed over.
    """
    if operators:
        library = torch.library.Library("aten", "IMPL")
        _LIBRARIES.append(library)  # when it dies, the overrides go
        for name in operators:
            for key in _keys(name):
                with contextlib.suppress(Exception):
                    library.impl(name, _raising(name, hits), key)
    for path in attributes:
        owner, _, name = path.rpartition(".")
        with contextlib.suppress(ImportError, AttributeError):
            target = _resolve(owner)
            getattr(target, name)
            setattr(target, name, _raising(name, hits))


def _keys(operator: str) -> tuple[str, ...]:
    kernel = operator.startswith(("_", "native_"))
    return KERNEL.get(operator, ("CPU",)) if kernel else COMPOSITE


def _raising(name: str, hits: list[str]) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        if name not in hits:
            hits.append(name)
        raise Forbidden(f"`{name}` is not allowed in this exercise")

    return refuse


def _resolve(path: str) -> Any:
    """The module or class at a dotted path; only what is not there yet is imported, as looking for what is no module is slow."""
    parts = path.split(".")
    target: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(target, part):
            importlib.import_module(".".join(parts[:number]))
        target = getattr(target, part)
    return target
