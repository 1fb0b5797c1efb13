"""Find the names that a statement binds and the names that it reads immediately or later.

Most of a statement runs immediately. The bodies of functions and lambdas run later, when they are called. Every
function in this module takes linear time, because student code may be hostile.
"""

import ast
from _symtable import (  # type: ignore[import-not-found]
    DEF_IMPORT,
    DEF_LOCAL,
    GLOBAL_EXPLICIT,
    GLOBAL_IMPLICIT,
    SCOPE_MASK,
    SCOPE_OFF,
    TYPE_CLASS,
    TYPE_FUNCTION,
    symtable,
)
from collections.abc import Iterable, Sequence
from typing import Any

# An entry in CPython's internal symbol table. The public classes in `symtable` take quadratic time, because they compare
# every symbol in a scope with every child of the scope.
Scope = Any

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})
# The flag of a comprehension's variable. Since Python 3.12, the surrounding scope also lists it (PEP 709).
DEF_COMP_ITER = 2 << 8
# AST nodes that create a scope. Since Python 3.12, these include `type A = int`.
SCOPES = frozenset(
    {
        *DEFINITIONS,
        *(ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
        *([ast.TypeAlias] if hasattr(ast, "TypeAlias") else []),
    }
)
# AST fields that contain no nodes, or only contexts, operators or aliases.
PLAIN = frozenset(
    """
    ctx op ops id attr arg name names asname module level kind type_comment conversion simple
    is_async rest kwd_attrs tag type_ignores
    """.split()  # noqa: SIM905
)
FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: tuple(f for f in kind._fields if f not in PLAIN)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
} | {ast.Constant: (), ast.MatchSingleton: ()}


def children(node: ast.AST) -> list[ast.AST]:
    """Return the direct children of a node, excluding contexts, operators and aliases."""
    found: list[ast.AST] = []
    for name in FIELDS[type(node)]:
        value = getattr(node, name, None)
        if type(value) is list:
            found += value if None not in value else [v for v in value if v is not None]
        elif value is not None:
            found.append(value)
    return found


def decorators(definition: ast.AST) -> list[ast.expr]:
    """Return the functions that decorate a definition, whether called (`@f.register(int)`) or not (`@f.register`)."""
    found = getattr(definition, "decorator_list", [])
    return [each.func if isinstance(each, ast.Call) else each for each in found]


def walk(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """Return the nodes and all their descendants, with parents before children."""
    found = list(nodes)
    for node in found:
        if FIELDS[type(node)]:
            found += children(node)
    return found


def symbol_table(text: str) -> Scope:
    """Return CPython's symbol table for a statement."""
    return symtable(text, "<cell>", "exec")


def is_global(flags: int) -> bool:
    """Return whether a symbol of a function or class refers to a global name."""
    return flags >> SCOPE_OFF & SCOPE_MASK in (GLOBAL_IMPLICIT, GLOBAL_EXPLICIT)


def is_assigned(flags: int) -> bool:
    """Return whether a symbol is assigned in its scope."""
    return bool(flags & DEF_LOCAL)


def global_names(table: Scope) -> tuple[set[str], set[str], set[str]]:
    """Return three sets of global names: those that a statement may read immediately, those it reads later and those it binds."""
    # Not all module-level symbols are read immediately. The caller uses `read_and_bound` to remove the others.
    symbols = _own_symbols(table)
    reads_now: set[str] = set(symbols)
    later: set[str] = set()
    binds = {
        name
        for name, flags in symbols.items()
        # In a comprehension, CPython treats the target of `:=` as if it had been declared `global`.
        if flags & (DEF_LOCAL | DEF_IMPORT) or flags >> SCOPE_OFF & SCOPE_MASK == GLOBAL_EXPLICIT
    }
    scopes = [(child, False) for child in table.children]
    while scopes:
        scope, inside_function = scopes.pop()
        inside_function |= scope.type == TYPE_FUNCTION and scope.name not in COMPREHENSIONS
        for name, flags in _own_symbols(scope).items():
            if inside_function and is_global(flags):
                # `global n; n += 1` reads n, but the symbol table does not flag this. Therefore, count every use of a
                # global.
                later.add(name)
            elif not inside_function and (is_global(flags) or scope.type == TYPE_CLASS):
                reads_now.add(name)
        scopes += [(child, inside_function) for child in scope.children]
    return reads_now, later, binds


def _own_symbols(scope: Scope) -> dict[str, int]:
    """Return the names in a scope, excluding comprehension variables, and their flags."""
    return {name: flags for name, flags in scope.symbols.items() if not flags & DEF_COMP_ITER}


def immediate_nodes(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """Return the nodes and all their descendants, excluding function and lambda bodies."""
    found = list(nodes)
    for node in found:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found += [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.Lambda):
            found.append(node.args)
        elif FIELDS[type(node)]:
            found += children(node)
    return found


def imported_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names bound by the import statements among the nodes."""
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


def stored_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names that the nodes bind, including comprehension variables."""
    names = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    names |= {n.name for n in nodes if isinstance(n, DEFINITIONS)}
    return names | imported_names(nodes)


def read_and_bound(statements: Iterable[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the names that statements read before binding them, and the names that they bind on every path."""
    flow = _Flow()
    flow.run(statements)
    return flow.read, set(flow.bound)


class _Flow:
    """The names that a sequence of statements reads and binds, taking control flow into account.

    After a branching statement, only names bound by all branches are kept.
    """

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.bound: dict[str, None] = {}  # in binding order
        self._by_heads: dict[str, int] = {}  # names bound by enclosing headers (`for`, `match`)

    def run(self, statements: Iterable[ast.stmt]) -> None:
        """Record the statements' reads and bindings, in order."""
        for s in statements:
            if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._bind(self._reads(immediate_nodes([s])))
            elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                stored = self._reads(
                    [*immediate_nodes([s.value]), ast.Name(s.target.id, ast.Load())]
                )
                self._bind({*stored, s.target.id})
            elif getattr(s, "body", None) or isinstance(s, ast.Match):
                self._compound(s)
            else:
                self._bind(self._reads(immediate_nodes([s])))

    def _reads(self, nodes: list[ast.AST]) -> set[str]:
        """Record the names that the nodes read, and return the names that they bind."""
        for node in nodes:
            if (
                isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Load)
                and node.id not in self.bound
                and node.id not in self._by_heads
            ):
                self.read.add(node.id)
        return stored_names(nodes)

    def _bind(self, names: Iterable[str]) -> None:
        for name in names:
            self.bound[name] = None

    def _compound(self, s: ast.stmt) -> None:
        heads, blocks = _blocks(s)
        stored = self._reads(immediate_nodes(heads))
        if isinstance(s, (ast.With, ast.AsyncWith)):
            self._bind(stored)
            self.run(s.body)
            return
        for name in stored:
            self._by_heads[name] = self._by_heads.get(name, 0) + 1
        # `except E as e` binds e only in the handler.
        caught = {id(h.body): h.name for h in getattr(s, "handlers", []) if h.name}
        bound_by = [self._branch(block, caught.get(id(block))) for block in blocks]
        for name in stored:
            self._by_heads[name] -= 1
            if not self._by_heads[name]:
                del self._by_heads[name]
        if isinstance(s, ast.If):
            self._bind(_common([*bound_by, set()][:2]))
        elif isinstance(s, ast.Try):
            by_block = dict(zip(map(id, blocks), bound_by, strict=True))
            normal = by_block[id(s.body)] | by_block.get(id(s.orelse), set())
            handled = [
                by_block[id(h.body)] for h in s.handlers if not isinstance(h.body[-1], ast.Raise)
            ]
            self._bind(_common([normal, *handled]))
            self._bind(by_block.get(id(s.finalbody), ()))
        elif isinstance(s, ast.ClassDef):
            self._bind([s.name])

    def _branch(self, block: list[ast.stmt], caught: str | None = None) -> set[str]:
        """Process a block, but leave `bound` unchanged. Return the new names that the block binds on every path.

        `caught` is the exception's name if the block handles an exception.
        """
        before = len(self.bound)
        if caught:
            self._bind([caught])
        self.run(block)
        names = set()
        while len(self.bound) > before:
            names.add(self.bound.popitem()[0])
        if caught:
            names.discard(caught)  # Python deletes it at the end of the handler
        return names


def _common(branches: list[set[str]]) -> set[str]:
    """Return the names bound by all branches, in time proportional to the number of names in the smallest branch."""
    smallest = min(branches, key=len)
    return {name for name in smallest if all(name in branch for branch in branches)}


def _blocks(statement: ast.AST) -> tuple[list[ast.AST], list[list[ast.stmt]]]:
    """Return a compound statement's headers (the parts before the colons) and its blocks."""
    heads: list[ast.AST] = []
    blocks: list[list[ast.stmt]] = []
    for name in FIELDS[type(statement)]:
        value = getattr(statement, name, None)
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            blocks.append(value)
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, (ast.ExceptHandler, ast.match_case)):
                inner_heads, inner_blocks = _blocks(item)
                heads += inner_heads
                blocks += inner_blocks
            elif isinstance(item, ast.AST):
                heads.append(item)
    return heads, blocks
