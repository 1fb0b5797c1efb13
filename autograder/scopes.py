"""Which names a statement reads and binds, and when.

A statement's own code runs at once; the bodies of functions and lambdas run later, when they are called.
"""

import ast
import symtable
from collections.abc import Iterable, Sequence

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})


def names_of(table: symtable.SymbolTable) -> tuple[set[str], set[str], set[str]]:
    """Global names that are read at once, read later, and bound."""
    at_once: set[str] = set()
    later: set[str] = set()
    binds: set[str] = set()

    def visit(scope: symtable.SymbolTable, inside_function: bool) -> None:
        kind = str(getattr(scope.get_type(), "value", scope.get_type()))
        for symbol in scope.get_symbols():
            name = symbol.get_name()
            if kind == "module":
                at_once.add(name)  # `_exposed` leaves those that are really read
                # A walrus in a comprehension counts as declared global.
                if symbol.is_assigned() or symbol.is_imported() or symbol.is_declared_global():
                    binds.add(name)
            elif inside_function and symbol.is_global():
                # `global n; n += 1` reads n without "referencing" it, so every use counts.
                later.add(name)
            elif not inside_function and (symbol.is_global() or kind == "class"):
                at_once.add(name)
        for child in scope.get_children():
            child_kind = str(getattr(child.get_type(), "value", child.get_type()))
            is_function = child_kind == "function" and child.get_name() not in COMPREHENSIONS
            visit(child, inside_function or is_function)

    visit(table, False)
    return at_once, later, binds


def run_at_once(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """The nodes and all below them, without the bodies of functions and lambdas."""
    found = []
    stack = list(nodes)
    while stack:
        node = stack.pop()
        found.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stack += [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.Lambda):
            stack.append(node.args)
        else:
            stack += ast.iter_child_nodes(node)
    return found


def imported_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Names bound by imports among the nodes."""
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def stored_in(nodes: Sequence[ast.AST]) -> set[str]:
    """Names bound by any of the nodes, those of comprehensions too."""
    names = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    names |= {n.name for n in nodes if isinstance(n, DEFINITIONS)}
    return names | imported_in(nodes)


def surely_bound(statements: Iterable[ast.stmt]) -> set[str]:
    """Names that are bound whichever way the statements go."""
    names: set[str] = set()
    for s in statements:
        if isinstance(s, ast.If):
            names |= surely_bound(s.body) & surely_bound(s.orelse)
        elif isinstance(s, ast.Try):
            ways = [surely_bound([*s.body, *s.orelse])]
            ways += [
                surely_bound(h.body) for h in s.handlers if not isinstance(h.body[-1], ast.Raise)
            ]
            names |= set.intersection(*ways) | surely_bound(s.finalbody)
        elif isinstance(s, ast.With | ast.AsyncWith):
            names |= stored_in(run_at_once(s.items)) | surely_bound(s.body)
        elif isinstance(s, ast.ClassDef):
            names.add(s.name)
        elif not isinstance(s, ast.For | ast.AsyncFor | ast.While | ast.Match | ast.TryStar):
            names |= stored_in(run_at_once([s]))
    return names


def _blocks(statement: ast.AST) -> tuple[list[ast.AST], list[list[ast.stmt]]]:
    """A compound statement's heads (what stands before the colons) and its blocks."""
    heads: list[ast.AST] = []
    blocks: list[list[ast.stmt]] = []
    for _, value in ast.iter_fields(statement):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.ExceptHandler | ast.match_case):
                inner_heads, inner_blocks = _blocks(item)
                heads += inner_heads
                blocks += inner_blocks
            elif isinstance(item, ast.AST) and not isinstance(item, ast.stmt):
                heads.append(item)
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            blocks.append(value)
    return heads, blocks


def read_before_bound(statements: Iterable[ast.stmt], bound: set[str]) -> set[str]:
    """Names that are read before the statements bind them themselves; `bound` grows."""
    names: set[str] = set()
    for s in statements:
        is_function = isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)
        heads, blocks = ([s], []) if is_function else _blocks(s)
        head = run_at_once(heads)
        for node in head:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names |= {node.id} - bound
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            names |= {s.target.id} - bound
        inside = bound | stored_in(head)
        for block in blocks:
            names |= read_before_bound(block, set(inside))
        bound |= surely_bound([s])
    return names
