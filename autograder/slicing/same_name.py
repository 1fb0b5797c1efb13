"""Compare how two statements bind or change a name, ignoring formatting, comments and docstrings."""

from __future__ import annotations

import ast
from functools import lru_cache

from autograder.slicing.names import immediate_nodes, stored_names, walk
from autograder.slicing.side_effects import find_mutations
from autograder.slicing.statements import REFUSALS
from autograder.slicing.unit import Unit

LONG = 20_000  # maximum characters in a compared statement; the course's statements are shorter


def has_same_effect(unit: Unit, other: Unit, name: str) -> bool:
    """Return whether `other` binds or changes `name` in every way that `unit` does."""
    if unit.source == other.source:
        return True
    if len(unit.source) > LONG:
        return False
    return _meanings(unit.source, name) <= _meanings(other.source, name)


@lru_cache(maxsize=1024)
def _meanings(source: str, name: str) -> frozenset[str]:
    meanings: set[str] = set()
    try:
        for statement in ast.parse(source).body:
            meanings |= _meanings_of(statement, name)
    except REFUSALS:
        return frozenset({source})
    return frozenset(meanings)


def _meanings_of(statement: ast.stmt, name: str) -> set[str]:
    if isinstance(statement, ast.Import):
        return {
            alias.name if alias.asname == name else name
            for alias in statement.names
            if name in (alias.asname, alias.name.partition(".")[0])
            and (alias.asname or name) == name
        }
    if isinstance(statement, ast.ImportFrom):
        found = [a.name for a in statement.names if (a.asname or a.name) == name]
        return {f"{statement.module}.{each}" for each in found}
    nodes = immediate_nodes([statement])
    if name not in stored_names(nodes) and name not in find_mutations(nodes).names:
        return set()
    for node in walk([statement]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return {ast.dump(statement)}
