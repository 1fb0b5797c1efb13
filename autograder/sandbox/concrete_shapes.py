"""Let torch check shapes without importing sympy, which takes 0.3 s and 30 MB. Entry point: `assume_concrete_shapes`.

Operations on `meta` tensors and many argument checks call torch's symbolic-shape functions even if all sizes are ordinary
ints. Only code for torch's compilers creates symbolic shapes.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
UNCHANGED = (
    *("expect_true", "guard_int", "guard_or_false", "guard_or_true"),
    *("guard_size_oblivious", "guarding_hint_or_throw", "statically_known_true"),
)
SHAPES = "torch.fx.experimental.symbolic_shapes"

_fakes: list[types.ModuleType] = []


def assume_concrete_shapes() -> None:
    """Replace sympy and torch's module for symbolic shapes with fakes, unless either has already been imported.

    The fakes contain the names that torch needs to check concrete shapes. Any other name, such as `sympy.symbols`,
    imports the real modules.
    """
    if "sympy" in sys.modules or SHAPES in sys.modules:
        return
    _fake_module("sympy", {"Basic": type("Basic", (), {})})
    _fake_module("torch.utils._sympy.functions", {"Max": max})
    answers: dict[str, Callable[..., Any]] = {name: _for_concrete(name) for name in UNCHANGED}
    answers |= {
        "has_guarding_hint": _for_concrete("has_guarding_hint", True),
        "is_nested_int": _for_concrete("is_nested_int", False),
        "sym_and": _all,
        "sym_eq": _equal,
        "sym_or": _any,
    }
    _fake_module(SHAPES, answers)


def _fake_module(name: str, attributes: dict[str, Any]) -> None:
    """Create a module with these attributes. If code accesses any other attribute, the real modules are imported."""

    def get(attribute: str) -> Any:
        # Python and debugging tools look for names such as `__file__` in every module. Only packages have a `__path__`.
        if attribute.startswith("__") and (attribute != "__path__" or package):
            raise AttributeError(attribute)
        return getattr(_real(name), attribute)

    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(attributes, __getattr__=get)
    package, _, own = name.rpartition(".")
    if package:
        setattr(importlib.import_module(package), own, module)
    _fakes.append(module)


def _real(name: str) -> types.ModuleType:
    """Import all the real modules, and return the one called `name`.

    Other modules may still refer to a fake module, so each fake gets all attributes of the real module.
    """
    for module in _fakes:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
    for module in _fakes:
        module.__dict__.update(importlib.import_module(module.__name__).__dict__)
    return sys.modules[name]


def _for_concrete(name: str, answer: bool | None = None) -> Callable[..., Any]:
    """Return a fake for the function called `name`.

    For a concrete value, it returns `answer` or, by default, the value itself. For a symbolic value, it calls the real
    function.
    """

    def function(value: Any, *options: Any) -> Any:
        if isinstance(value, SYMBOLIC):
            return getattr(_real(SHAPES), name)(value, *options)
        return value if answer is None else answer

    return function


def _all(*values: Any) -> Any:
    return functools.reduce(operator.and_, values)


def _any(*values: Any) -> Any:
    return functools.reduce(operator.or_, values)


def _equal(x: Any, y: Any) -> Any:
    """Return whether two sizes or shapes are equal. A tuple and a list with equal items are equal."""
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and _all(True, *map(_equal, x, y))
    return x == y
