"""Makes torch's operators and functions of given names raise, and counts who tried.

A kernel registered through `torch.library` is met by every thread, by scripted code and by redispatch, where a dispatch
mode is not. It is a rule of the course and not a wall: the code that it watches runs in the same process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch._decomp

# A composite operator is met before it is taken apart; what does the work has other homes than the processor, too.
HOMES = ("CPU", "MkldnnCPU", "SparseCPU", "SparseCsrCPU", "QuantizedCPU", "NestedTensorCPU")
COMPOSITE = ("CPU", "AutogradCPU")
_LIBRARIES: list[torch.library.Library] = []


class Forbidden(RuntimeError):
    """A torch function was called that the exercise does not allow."""


def forbid(operators: Sequence[str], attributes: Sequence[str], hits: list[str]) -> None:
    """Replace `aten` operators and attributes such as `torch.nn.functional.f` by ones that raise and append to `hits`.

    Names that this version of torch does not have are passed over.
    """
    for name in operators:
        namespace, _, own = name.rpartition("::")
        library = torch.library.Library(namespace or "aten", "IMPL")
        _LIBRARIES.append(library)  # when it dies, the overrides go
        for overload in _overloads(namespace or "aten", own):
            for key in HOMES if own.startswith(("_", "native_")) else COMPOSITE:
                if key in COMPOSITE or _has_kernel(f"{namespace or 'aten'}::{overload}", key):
                    with contextlib.suppress(Exception):
                        library.impl(overload, _raising(name, hits), key)
    _forbid_decompositions({name.partition(".")[0] for name in operators}, hits)
    for path in attributes:
        owner, _, name = path.rpartition(".")
        if path.startswith("torch."):
            with contextlib.suppress(ImportError, AttributeError):
                target = _resolve(owner)
                getattr(target, name)
                setattr(target, name, _raising(name, hits))
        else:
            _Later(owner, name, _raising(name, hits)).install()


def _overloads(namespace: str, name: str) -> Iterator[str]:
    base = name.partition(".")[0]
    for schema in torch._C._jit_get_schemas_for_operator(f"{namespace}::{base}"):
        yield f"{base}.{schema.overload_name}" if schema.overload_name else base


def _has_kernel(operator: str, key: str) -> bool:
    """Whether anything answers for the operator in this memory layout; where nothing does, nothing has to be replaced."""
    try:
        found: bool = torch._C._dispatch_has_computed_kernel_for_dispatch_key(operator, key)
    except RuntimeError:
        return True
    return found


def _forbid_decompositions(names: set[str], hits: list[str]) -> None:
    """Replace the same operators written in Python, in the tables of the compiler and in their modules."""
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
    """The compiler's tables with their entries for each operator. Looking through them takes 5 ms, so the fork server does it."""
    tables = [torch._decomp.decomposition_table, *torch._decomp.global_decomposition_table.values()]
    found: dict[str, list[tuple[dict[Any, Any], Any]]] = {}
    for table in tables:
        for operator in table:
            schema = getattr(operator, "_schema", None)  # higher-order operators have none
            if schema:
                found.setdefault(schema.name.rpartition("::")[2], []).append((table, operator))
    return found


class _Later(importlib.abc.MetaPathFinder):
    """Replaces a function of a library that may never be imported: now, or as soon as it is."""

    def __init__(self, module: str, name: str, value: Callable[..., Any]) -> None:
        self._module = module
        self._name = name
        self._value = value

    def install(self) -> None:
        """Replace the function if its module is there, or else watch for the import."""
        if self._module in sys.modules:
            self._replace(sys.modules[self._module])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as it would be found, and replace the function once it has run."""
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and isinstance(spec.loader, importlib.abc.Loader):
            run = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                run(module)
                self._replace(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _replace(self, module: types.ModuleType) -> None:
        if hasattr(module, self._name):
            setattr(module, self._name, self._value)


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
