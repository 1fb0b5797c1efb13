"""Find statements that add methods to a class from outside its body.

Examples include d2l's `@add_to_class(C)`, fastcore's `@patch` and `extend(C, f)`. Entry point: `find_extensions`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autograder.slicing.names import immediate_nodes, walk
from autograder.slicing.side_effects import find_mutations


@dataclass(frozen=True, slots=True)
class Extension:
    """A statement that may add a method to a class. The names come from the syntax alone and have yet to be resolved."""

    target: str  # the name of the class
    attached: str = ""  # f in `add_to_class(C)(f)`; must be a function
    by: str = ""  # extend in `extend(C, f)`; must be a function that changes its arguments


def find_extensions(nodes: Iterable[ast.AST]) -> Iterator[Extension]:
    """Yield each way in which a statement may add a method to a class."""
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.decorator_list:
                yield from map(Extension, _annotated_first(node.args))
            for decorator in node.decorator_list:
                yield from map(Extension, _arguments(decorator))
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                yield from map(Extension, _arguments(decorator))
        elif isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Call):
                for function in _arguments(call):
                    yield from (Extension(c, attached=function) for c in _arguments(call.func))
            elif isinstance(call.func, ast.Name):
                yield from (Extension(c, by=call.func.id) for c in _arguments(call))


def changes_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function changes one of its arguments."""
    arguments = {a.arg for a in walk([function.args]) if isinstance(a, ast.arg)}
    return not find_mutations(immediate_nodes(function.body)).names.isdisjoint(arguments)


def _arguments(call: ast.expr) -> list[str]:
    """Return the names passed to a call as arguments, either directly or in a list or tuple."""
    if not isinstance(call, ast.Call):
        return []
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    parts = (
        part
        for value in values
        for part in (value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value])
    )
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _annotated_first(arguments: ast.arguments) -> Iterator[str]:
    """Yield the names in the first argument's annotation, such as `self: C`, `self: "C"`, `self: (C, D)` or `self: C | D`."""
    first = next(iter([*arguments.posonlyargs, *arguments.args]), None)
    for node in walk([first.annotation]) if first and first.annotation else []:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (w for w in node.value.replace("|", " ").split() if w.isidentifier())
