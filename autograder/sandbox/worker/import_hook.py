"""Replace a library function as soon as its library has been imported. Entry point: `replace_on_import`."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any


def replace_on_import(module: str, name: str, value: Any) -> None:
    """Replace an existing attribute of a module, either immediately or as soon as the module is imported."""
    if module in sys.modules:
        _replace(sys.modules[module], name, value)
    else:
        sys.meta_path.insert(0, _ImportHook(module, name, value))


def _replace(module: types.ModuleType, name: str, value: Any) -> None:
    if hasattr(module, name):
        setattr(module, name, value)


class _ImportHook(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, name: str, value: Any) -> None:
        self._module = module
        self._name = name
        self._value = value

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as usual and make its loader replace the attribute after loading the module."""
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and isinstance(spec.loader, importlib.abc.Loader):
            run = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                run(module)
                _replace(module, self._name, self._value)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
