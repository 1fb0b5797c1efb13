"""Which names' objects a statement changes without binding the names.

A wrong guess costs in both directions: `TABLE.update(x)` left out breaks a right solution, and
`check(softmax)` or `model.train()` taken in runs a training loop.
"""

import ast
from collections.abc import Iterable, Iterator

from autograder.slicing.names import DEFINITIONS, Scope, immediate_nodes, is_assigned, is_global

# Methods that change their object when called as a statement of their own (`TABLE.update(x)`).
# `train`, `eval`, `fit`, `show`, `plot` are not among them on purpose.
CHANGING = frozenset(
    """
    append extend insert remove pop popitem clear update setdefault add discard sort reverse
    appendleft extendleft popleft rotate subtract move_to_end fill put resize
    difference_update intersection_update symmetric_difference_update load_state_dict
    manual_seed seed __setitem__ __delitem__ __setattr__ __delattr__
    """.split()  # noqa: SIM905
)
CHANGING_PREFIXES = ("register", "add_", "set_")
# Of these the value is often used as well: `first = QUEUE.pop()`.
CHANGING_ANYWHERE = frozenset({"pop", "popitem", "popleft", "setdefault"})
# Functions that change their first argument.
CHANGING_FIRST = frozenset(
    """
    setattr delattr update_wrapper setitem delitem shuffle heappush heapify insort copyto
    fill_diagonal register_parametrization
    """.split()  # noqa: SIM905
)
Roots = dict[int, str | None]  # of nodes, by id
MODULES = frozenset({"torch", "nn", "F", "init", "functional", "np", "numpy", "random"})


def find_mutations(nodes: Iterable[ast.AST]) -> tuple[set[str], set[tuple[str, str]]]:
    """Names whose object is changed, and method calls (name, method) that may change it.

    A change is an assignment to (or deletion of) an attribute or item, a function that changes its
    first argument (`setattr`, `nn.init.zeros_`) or `out=`, and the methods of `CHANGING`, of
    decorators (`@f.register`) and of torch that end in an underscore. Passing an object to any
    other function is none.
    """
    changed: set[str | None] = set()
    calls: set[tuple[str | None, str]] = set()
    roots: Roots = {}
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript):
            if not isinstance(node.ctx, ast.Load):
                changed.add(root_name(node, roots))
        elif isinstance(node, ast.Import):  # `import torch.fx` gives torch an attribute
            changed |= {a.name.partition(".")[0] for a in node.names if "." in a.name}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Attribute):
                calls.add((root_name(node.value.func, roots), node.value.func.attr))
        elif isinstance(node, DEFINITIONS):
            for decorator in node.decorator_list:
                function = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(function, ast.Attribute):
                    calls.add((root_name(function, roots), "register"))
        elif isinstance(node, ast.Call):
            changed |= {root_name(k.value, roots) for k in node.keywords if k.arg == "out"}
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            in_place = name.endswith("_") and not name.endswith("__")
            is_method = (
                isinstance(function, ast.Attribute) and root_name(function, roots) not in MODULES
            )
            if name in CHANGING_FIRST or (in_place and not is_method):
                changed.add(root_name(node.args[0], roots) if node.args else None)
            elif is_method and (in_place or name in CHANGING_ANYWHERE):
                calls.add((root_name(function, roots), name))
    return {c for c in changed if c is not None}, {(r, m) for r, m in calls if r is not None}


def is_mutating(method: str) -> bool:
    in_place = method.endswith("_") and not method.endswith("__")
    return in_place or method in CHANGING or method.startswith(CHANGING_PREFIXES)


def writes_globals(nodes: Iterable[ast.AST]) -> bool:
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
    """Globals that the function's own body changes or binds when it is called."""
    scope = next((c for c in table.children if c.name == function.name and c.symbols), None)
    if scope is None:
        return set()
    changed, calls = find_mutations(immediate_nodes(function.body))
    changed |= {root for root, method in calls if is_mutating(method)}
    return {
        name
        for name, flags in scope.symbols.items()
        if is_global(flags) and (is_assigned(flags) or name in changed)
    }


def mutating_methods(node: ast.ClassDef) -> Iterator[str]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            changed, calls = find_mutations(immediate_nodes(method.body))
            changed |= {root for root, name in calls if is_mutating(name)}
            if method.args.args[0].arg in changed:
                yield method.name


def root_name(node: ast.AST | None, known: Roots | None = None) -> str | None:
    """The name at the root of `A.b[0].c`, of `T.setdefault(k, []).d` and of `vars(A)["x"]`.

    `known` remembers the roots of nodes, so that a long chain is followed once and not from each link.
    """
    known = {} if known is None else known
    passed: list[ast.AST] = []
    root = None
    while node is not None:
        if id(node) in known:
            root = known[id(node)]
            break
        passed.append(node)
        if isinstance(node, ast.Name):
            root = node.id
            break
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func
        elif is_call_of(node, "getattr", "vars") and node.args:  # type: ignore[attr-defined]
            node = node.args[0]  # type: ignore[attr-defined]
        else:
            break
    known.update((id(each), root) for each in passed)
    return root


def is_call_of(node: ast.AST, *names: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (not names or node.func.id in names)
    )
