"""Make forbidden torch operators and functions raise an exception, and record calls to them. Entry point: `forbid`.

Unlike a dispatch mode, a kernel registered through `torch.library` also affects other threads, scripted code and redispatch.
This module enforces a course rule. It is not a security boundary, because the student's code runs in the same process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch._decomp

from autograder.sandbox.worker.import_hook import replace_on_import

# An operator can have kernels for several memory layouts.
KERNEL_KEYS = ("CPU", "MkldnnCPU", "SparseCPU", "SparseCsrCPU", "QuantizedCPU", "NestedTensorCPU")
# Composite operators are intercepted before they decompose.
COMPOSITE_KEYS = ("CPU", "AutogradCPU")
_LIBRARIES: list[torch.library.Library] = []


class Forbidden(RuntimeError):
    """Raised when student code calls a function that the exercise does not allow."""


def forbid(operators: Sequence[str], attributes: Sequence[str], hits: list[str]) -> None:
    """Replace the given operators and attributes with functions that append the forbidden name to `hits` and raise `Forbidden`.

    Attributes are dotted paths such as `torch.nn.functional.f`. Operators without a namespace are in `aten`. For
    `operator(option)`, only calls that turn on the option raise `Forbidden`, and the operator must be composite. Names that
    do not exist in this version of torch are ignored.
    """
    for name in operators:
        path, _, option = name.rstrip(")").partition("(")
        namespace, _, own = path.rpartition("::")
        namespace = namespace or "aten"
        library = torch.library.Library(namespace, "IMPL")
        _LIBRARIES.append(library)  # the overrides last only as long as this `Library` object
        is_kernel = own.startswith(("_", "native_")) and not option
        for overload in _overloads(namespace, own):
            for key in KERNEL_KEYS if is_kernel else COMPOSITE_KEYS:
                if key in COMPOSITE_KEYS or _has_kernel(f"{namespace}::{overload}", key):
                    with contextlib.suppress(Exception):
                        kernel = (
                            _raising_if(namespace, overload, option, hits)
                            if option
                            else _raising(own.partition(".")[0], hits)  # without the overload
                        )
                        library.impl(overload, kernel, key)
    _forbid_decompositions({name.partition(".")[0] for name in operators}, hits)
    for path in attributes:
        owner, _, name = path.rpartition(".")
        target = _loaded(owner)
        if target is None:
            replace_on_import(owner, name, _raising(name, hits))
        elif hasattr(target, name):
            setattr(target, name, _raising(name, hits))


def _overloads(namespace: str, name: str) -> Iterator[str]:
    base = name.partition(".")[0]
    for schema in torch._C._jit_get_schemas_for_operator(f"{namespace}::{base}"):
        yield f"{base}.{schema.overload_name}" if schema.overload_name else base


def _has_kernel(operator: str, key: str) -> bool:
    """Return whether the operator has a kernel for this dispatch key. Without one, there is nothing to replace."""
    try:
        found: bool = torch._C._dispatch_has_computed_kernel_for_dispatch_key(operator, key)
    except RuntimeError:
        return True
    return found


def _forbid_decompositions(names: set[str], hits: list[str]) -> None:
    """Replace operators' Python decompositions in the compiler's tables and in the modules that define them."""
    for name in names:
        for table, operator in decompositions().get(name, ()):
            function, raising = table[operator], _raising(name, hits)
            table[operator] = raising
            module = sys.modules.get(getattr(function, "__module__", ""))
            own = getattr(function, "__name__", "")
            if getattr(module, own, None) is function:
                setattr(module, own, raising)


@cache
def decompositions() -> dict[str, list[tuple[dict[Any, Any], Any]]]:
    """Map each operator's name to its entries in the compiler's decomposition tables. Each entry is a (table, key) pair.

    The fork server caches the result to save 5 ms.
    """
    tables = [torch._decomp.decomposition_table, *torch._decomp.global_decomposition_table.values()]
    found: dict[str, list[tuple[dict[Any, Any], Any]]] = {}
    for table in tables:
        for operator in table:
            schema = getattr(operator, "_schema", None)  # higher-order operators have no schema
            if schema:
                found.setdefault(schema.name.rpartition("::")[2], []).append((table, operator))
    return found


def _raising(name: str, hits: list[str]) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        if name not in hits:
            hits.append(name)
        raise Forbidden(f"`{name}` is not allowed in this exercise")

    return refuse


def _raising_if(namespace: str, overload: str, option: str, hits: list[str]) -> Callable[..., Any]:
    """Return a kernel that raises `Forbidden` if the option is on, and otherwise behaves like the operator."""
    own, _, name = overload.partition(".")
    operator = getattr(getattr(getattr(torch.ops, namespace), own), name or "default")
    names = [argument.name for argument in operator._schema.arguments]
    refuse = _raising(option, hits)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        return refuse() if given.get(option) else operator.decompose(*args, **kwargs)

    return call


def _loaded(path: str) -> Any:
    """Return the module or class at a dotted path, or None if it has not been imported.

    Attributes are looked up with `vars`, because `getattr` would import some modules, such as `torch.onnx`. `sys.modules` is
    checked first, because an attribute such as `torch._higher_order_ops.flex_attention` may not be the module of that name.
    """
    if path in sys.modules:
        return sys.modules[path]
    first, *others = path.split(".")
    target: Any = sys.modules.get(first)
    for part in others:
        target = vars(target).get(part) if target is not None else None
    return target
