"""Find the names of objects that a statement changes without rebinding the names.

Both false negatives and false positives are harmful. Omitting `TABLE.update(x)` breaks a correct solution, while
including `check(softmax)` or `model.train()` may run a training loop.
"""

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from autograder.slicing.names import (
    DEFINITIONS,
    Scope,
    decorators,
    immediate_nodes,
    is_assigned,
    is_global,
    walk,
)

# Methods that change the object that they are called on, if the call is a statement (`TABLE.update(x)`).
# `train`, `eval`, `fit`, `show` and `plot` are deliberately omitted.
CHANGING = frozenset(
    """
    append extend insert remove pop popitem clear update setdefault add discard sort reverse
    appendleft extendleft popleft rotate subtract move_to_end fill put resize
    difference_update intersection_update symmetric_difference_update load_state_dict
    manual_seed seed __setitem__ __delitem__ __setattr__ __delattr__
    """.split()  # noqa: SIM905
)
CHANGING_PREFIXES = ("register", "add_", "set_")
# Methods that also return a useful value. They count in any expression, such as `first = QUEUE.pop()`.
CHANGING_ANYWHERE = frozenset({"pop", "popitem", "popleft", "setdefault"})
# Functions that change their first argument.
CHANGING_FIRST = frozenset(
    """
    setattr delattr update_wrapper setitem delitem shuffle heappush heapify insort copyto
    fill_diagonal register_parametrization
    """.split()  # noqa: SIM905
)
# The kinds of nodes that `find_mutations` examines. Most nodes are of other kinds.
EXAMINED = frozenset({ast.Attribute, ast.Subscript, ast.Import, ast.Expr, ast.Call, *DEFINITIONS})
Roots = dict[int, str | None]  # the root name of each node, by the node's id
MODULES = frozenset({"torch", "nn", "F", "init", "functional", "np", "numpy", "random"})


class Mutations(NamedTuple):
    """The changes that a group of statements makes to objects."""

    names: set[str]  # names whose objects definitely change
    method_calls: set[tuple[str, str]]  # (name, method) pairs of calls that may change the object

    def likely_names(self) -> set[str]:
        """Return the names of the objects that change, assuming that each method does what its name suggests."""
        return self.names | {name for name, method in self.method_calls if is_mutating(method)}


def find_mutations(nodes: Iterable[ast.AST]) -> Mutations:
    """Find the changes made by the nodes: assignments to attributes and items, and calls that change an object.

    A call changes an object if the function changes its first argument (`setattr`, `nn.init.zeros_`) or if there is an
    `out=` argument. A call to a mutating method changes an object if the call is a statement or decorator
    (`@f.register`). Methods in `CHANGING_ANYWHERE` and torch's in-place methods count in any expression. Passing an
    object to any other function does not count as a change.
    """
    names: set[str | None] = set()
    calls: set[tuple[str | None, str]] = set()
    roots: Roots = {}
    for node in nodes:
        if type(node) not in EXAMINED:
            continue
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            if not isinstance(node.ctx, ast.Load):
                names.add(root_name(node, roots))
        elif isinstance(node, ast.Import):  # `import torch.fx` adds an attribute to torch
            names |= {a.name.partition(".")[0] for a in node.names if "." in a.name}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            method = node.value.func
            if isinstance(method, ast.Attribute):
                calls.add((root_name(method, roots), method.attr))
        elif isinstance(node, DEFINITIONS):
            methods = (f for f in decorators(node) if isinstance(f, ast.Attribute))
            calls |= {(root_name(method, roots), "register") for method in methods}
        elif isinstance(node, ast.Call):
            names |= {root_name(k.value, roots) for k in node.keywords if k.arg == "out"}
            changed, called = _changed_by_call(node, roots)
            names.add(changed)
            if called:
                calls.add((root_name(node.func, roots), called))
    return Mutations(
        {name for name in names if name is not None},
        {(name, method) for name, method in calls if name is not None},
    )


def _changed_by_call(call: ast.Call, roots: Roots) -> tuple[str | None, str]:
    """Return a pair that describes what a call changes.

    The first item is the name of the call's first argument, or None if the call does not change this argument. The second
    is the name of the called method, or "" if the call does not change the object it is called on.
    """
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    is_method = isinstance(function, ast.Attribute) and root_name(function, roots) not in MODULES
    if name in CHANGING_FIRST or (_is_in_place(name) and not is_method):
        return (root_name(call.args[0], roots) if call.args else None), ""
    if is_method and (_is_in_place(name) or name in CHANGING_ANYWHERE):
        return None, name
    return None, ""


def _is_in_place(name: str) -> bool:
    """Return whether a function's name, such as `zeros_`, follows torch's convention for in-place operations."""
    return name.endswith("_") and not name.endswith("__")


def is_mutating(method: str) -> bool:
    """Return whether a method with this name changes the object that it is called on, if the call is a statement."""
    return _is_in_place(method) or method in CHANGING or method.startswith(CHANGING_PREFIXES)


def writes_globals(nodes: Iterable[ast.AST]) -> bool:
    """Return whether the nodes may bind global names indirectly through `exec`, `globals()` or similar functions."""
    for node in nodes:
        if is_call_of(node, "exec"):
            return True
        target = node
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value if node.func.attr in CHANGING else node
        if target is not node and is_call_of(target, "globals", "locals", "vars"):
            return not target.args  # type: ignore[attr-defined]
    return False


def changed_globals(function: ast.FunctionDef | ast.AsyncFunctionDef, table: Scope) -> set[str]:
    """Return the global names that a function, or a function nested in it, binds or changes when called."""
    scope = next((c for c in table.children if c.name == function.name and c.symbols), None)
    if scope is None:
        return set()
    changed = find_mutations(walk(function.body)).likely_names()
    return {
        name
        for inner in _with_inner_scopes(scope)
        for name, flags in inner.symbols.items()
        if is_global(flags) and (is_assigned(flags) or name in changed)
    }


def changed_by_subclasses(node: ast.ClassDef, table: Scope) -> set[str]:
    """Return the class's name and the globals that its `__init_subclass__` changes, or an empty set without this method."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init_subclass__":
            scope = next((c for c in table.children if c.name == node.name), None)
            return {node.name, *(changed_globals(method, scope) if scope else ())}
    return set()


def _with_inner_scopes(scope: Scope) -> list[Scope]:
    found = [scope]
    for each in found:
        found += each.children
    return found


def mutating_methods(node: ast.ClassDef) -> Iterator[str]:
    """Yield the names of the class's mutating methods."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            mutations = find_mutations(immediate_nodes(method.body))
            if method.args.args[0].arg in mutations.likely_names():
                yield method.name


def root_name(node: ast.AST | None, known: Roots | None = None) -> str | None:
    """Return the name at the root of an expression: `A` in `A.b[0].c`, in `A.setdefault(k, []).d` and in `vars(A)["x"]`.

    `known` caches the roots of nodes, so a long chain is followed only once rather than from each of its nodes.
    """
    known = {} if known is None else known
    visited: list[ast.AST] = []
    root = None
    while node is not None:
        if id(node) in known:
            root = known[id(node)]
            break
        visited.append(node)
        if isinstance(node, ast.Name):
            root = node.id
            break
        if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func
        elif is_call_of(node, "getattr", "vars") and node.args:  # type: ignore[attr-defined]
            node = node.args[0]  # type: ignore[attr-defined]
        else:
            break
    known.update((id(each), root) for each in visited)
    return root


def is_call_of(node: ast.AST, *names: str) -> bool:
    """Return whether a node calls a function by a plain name. If `names` is not empty, the name must be in it."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (not names or node.func.id in names)
    )
