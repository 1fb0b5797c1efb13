"""Make forbidden torch operators and functions raise an exception, and record calls to them. Entry point: `forbid`.

Unlike a dispatch mode, a kernel registered through `torch.library` also affects other threads, scripted code and redispatch.
This module enforces a course rule. It is not a security boundary, because the student's code runs in the same process.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch._decomp

_LIBRARIES: list[torch.library.Library] = []


class Forbidden(RuntimeError):
    """Raised when student code calls a function that the exercise does not allow."""


def forbid(operators: Sequence[str], attributes: Sequence[str], hits: list[str]) -> None:
    """Replace the given operators and attributes with functions that append the forbidden name to `hits` and raise `Forbidden`.

    Attributes are dotted paths such as `torch.nn.functional.f`. Operators without a namespace are in `aten`. For
    `operator(option)`, only calls that turn on the option raise `Forbidden`, and the operator must be composite. Names that
    do not exist in this version of torch are ignored.
    """
    for namespace, own, option in dict.fromkeys(map(_parse, operators)):
        library = torch.library.Library(namespace, "IMPL")
        _LIBRARIES.append(library)  # the overrides last only as long as this `Library` object
        for overload, keys in kernels().get(f"{namespace}::{own}", {}).items():
            kernel = _raising_if(overload, option, hits) if option else _raising(own, hits)
            for key in keys:
                # Under autocast, the operator calls itself with other dtypes.
                if not (option and key.startswith("Autocast")):
                    with contextlib.suppress(RuntimeError):  # the kernel is already replaced
                        library.impl(overload.partition("::")[2], kernel, key)
    _forbid_decompositions({name.partition(".")[0] for name in operators}, hits)
    for path in attributes:
        replace(path, _raising(path.rpartition(".")[2], hits))


def _parse(operator: str) -> tuple[str, str, str]:
    """Split the name of an operator into its namespace, its name without the overload, and the option or an empty string."""
    path, _, option = operator.rstrip(")").partition("(")
    namespace, _, own = path.rpartition("::")
    return namespace or "aten", own.partition(".")[0], option


@cache
def kernels() -> dict[str, dict[str, list[str]]]:
    """Map each operator to its overloads, and each overload to the dispatch keys for which it has a kernel of its own.

    The keys are those of CPU tensors of every layout, and of every transform. With any other key, such as that of complex
    conjugates, torch runs code that does not depend on the operator, and then dispatches again. The fork server caches the
    result to save 25 ms.
    """
    # `torch._C.DispatchKey` lacks some of these keys, such as `MkldnnCPU`.
    every = torch._C._dispatch_keyset_to_string(torch._C._dispatch_keyset_full())
    keys = every.removeprefix("DispatchKeySet(").removesuffix(")").split(", ")
    other_devices = tuple(keys[keys.index("CPU") + 1 : keys.index("QuantizedCPU")])
    registered = {}
    for name in (*keys, *torch._C.DispatchKey.__members__):
        if not name.endswith(other_devices):
            with contextlib.suppress(RuntimeError):  # torch does not parse all names
                registered[name] = torch._C._dispatch_get_registrations_for_dispatch_key(name)
    aliases = [name for name in registered if torch._C._dispatch_is_alias_key(name)]
    found: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        if key in registered:
            names = set(registered[key])
            for alias in aliases:
                if torch._C._dispatch_is_included_in_alias(key, alias):
                    names.update(registered[alias])
            for overload in names:
                own = overload.partition(".")[0]
                found.setdefault(own, {}).setdefault(overload, []).append(key)
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


def _raising_if(overload: str, option: str, hits: list[str]) -> Callable[..., Any]:
    """Return a kernel that raises `Forbidden` if the option is on, and otherwise behaves like the operator."""
    namespace, _, name = overload.partition("::")
    own, _, name = name.partition(".")
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


def replace(path: str, value: Any) -> None:
    """Replace the attribute at a dotted path if it exists, either immediately or as soon as its module is imported."""
    owner, _, name = path.rpartition(".")
    target = _loaded(owner)
    if target is None:
        sys.meta_path.insert(0, _ImportHook(path, value))
    elif hasattr(target, name):
        setattr(target, name, value)


class _ImportHook(importlib.abc.MetaPathFinder):
    def __init__(self, path: str, value: Any) -> None:
        self._path = path
        self._value = value

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as usual and make its loader replace the attribute after loading the module."""
        if name != self._path.rpartition(".")[0]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and isinstance(spec.loader, importlib.abc.Loader):
            run = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                run(module)
                replace(self._path, self._value)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
