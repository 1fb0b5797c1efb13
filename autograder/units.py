"""A notebook's top-level statements, and which names each of them reads, binds and changes.

Two moments of reading are kept apart:

- *at once*: when the statement runs (decorators, defaults, bases, an assignment's right side);
- *later*: when a function whose body reads the name is called.

What a statement changes without binding it is a matter of judgement: see `changed_by`.
"""

import ast
import re
import symtable
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from autograder.cells import Cell, python_source

# What a hostile or very deep statement makes the parser, symtable or the compiler raise.
REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)

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
MODULES = frozenset({"torch", "nn", "F", "init", "functional", "np", "numpy", "random"})
# Settings of the whole process: always taken, wherever they stand.
SETTINGS = frozenset(
    """
    manual_seed manual_seed_all seed set_state setstate set_rng_state set_default_dtype
    set_default_device set_default_tensor_type set_grad_enabled set_num_threads
    set_num_interop_threads use_deterministic_algorithms set_float32_matmul_precision
    """.split()  # noqa: SIM905
)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})


@dataclass(frozen=True)
class Unit:
    """One top-level statement (or several that share a line) and what it has to do with names."""

    source: str  # whole lines of its cell
    cell: int
    line: int  # first line within the cell, 1-based
    given: bool
    reads: frozenset[str]  # at once or later
    binds: frozenset[str]
    changes: frozenset[str]  # whose object it changes without binding the name
    always: bool  # star imports, default-dtype and seed calls
    at_once: frozenset[str] = frozenset()  # of `reads`: when the unit itself runs
    surely: frozenset[str] = frozenset()  # of `binds`: whichever way an `if` or `for` goes
    imports: frozenset[str] = frozenset()  # of `binds`: by an import
    defines: frozenset[str] = frozenset()  # of `binds`: by def, class, import or as another name
    made_from: frozenset[tuple[str, str]] = frozenset()  # (x, y): x = y, or a call that mentions y
    calls: frozenset[tuple[str, str]] = frozenset()  # (T, m): T.m(…) that may change T
    called: frozenset[str] = frozenset()  # functions that it calls by name when it runs
    decorators: frozenset[str] = frozenset()  # of `called`: as decorators
    effects: frozenset[str] = frozenset()  # globals that its function changes when called
    methods: frozenset[str] = frozenset()  # methods of its class that change the instance
    hints: frozenset[str] = frozenset()  # words of annotations in strings
    runs_code: bool = False  # calls something that may call its lambdas
    first: bool = False  # star and __future__ imports run before the rest
    main_only: bool = False  # if __name__ == "__main__"


def units_of(cells: Iterable[Cell], given: bool = False) -> tuple[list[Unit], list[str]]:
    """Returns the units of a notebook's code cells, and what is wrong with it in words."""
    units: list[Unit] = []
    problems: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a student's "\d" is no news for whoever grades
        for cell in cells:
            if cell.kind != "code":
                continue
            source, problem = python_source(cell)
            if problem is not None:
                problems.append(problem)
            try:
                statements = ast.parse(source).body
            except REFUSALS as error:
                problems.append(f"cell {cell.number}: {_in_words(error)}")
                continue
            lines = re.split(r"\r\n|\r|\n", source)
            for group in _sharing_lines(statements, lines):
                start, end = _first_line(group[0]), group[-1].end_lineno
                text = "\n".join(lines[start - 1 : end])
                try:
                    units.append(_unit(text, group, cell.number, start, given))
                except REFUSALS as error:
                    problems.append(f"cell {cell.number}: {_in_words(error)}")
    return units, problems


def _in_words(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    if isinstance(error, RecursionError | MemoryError):
        return "the code is nested too deeply to be read"
    return f"{type(error).__name__}: {error}"


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(d.lineno for d in decorators)])


def _sharing_lines(statements: list[ast.stmt], lines: list[str]) -> Iterator[list[ast.stmt]]:
    group: list[ast.stmt] = []
    for statement in statements:
        if group:
            end = group[-1].end_lineno or 0
            if _first_line(statement) > end and not lines[end - 1].endswith("\\"):
                yield group
                group = []
        group.append(statement)
    if group:
        yield group


def _unit(text: str, group: list[ast.stmt], cell: int, line: int, given: bool) -> Unit:
    table = symtable.symtable(text, "<cell>", "exec")
    at_once, later, binds = _names(table)
    at_once &= _exposed(group, set())
    for statement in group:
        if isinstance(statement, ast.Delete) or (
            isinstance(statement, ast.AnnAssign) and statement.value is None
        ):
            binds -= stored_in([statement])
    changes, calls = changed_by(group)
    if _writes_globals(group):  # `globals()["f"] = …`, `exec("def f…")`: any name in its text
        binds |= set(re.findall(r"[^\W\d]\w*", text)) - at_once
    defines, made_from = _definitions(group)
    called = {n.func.id for n in _at_once(group) if _calls_name(n)}  # type: ignore[attr-defined]
    decorators = {
        d.id for s in group for d in getattr(s, "decorator_list", []) if isinstance(d, ast.Name)
    }
    first = any(_is_first(n) for n in _at_once(group))
    unit = Unit(
        source=text,
        cell=cell,
        line=line,
        given=given,
        reads=frozenset(at_once | later),
        binds=frozenset(binds),
        changes=frozenset(changes),
        always=first or all(_is_setting(s) for s in group),
        at_once=frozenset(at_once),
        surely=frozenset(_surely(group) & binds),
        imports=frozenset(_imported(group) & binds),
        defines=frozenset(defines & binds),
        made_from=frozenset(made_from),
        calls=frozenset(calls),
        called=frozenset(called | decorators),
        decorators=frozenset(decorators),
        hints=frozenset(_hints(group)),
        runs_code=not isinstance(group[0], DEFINITIONS)
        and any(isinstance(n, ast.Call) for n in _at_once(group)),
        first=first,
        main_only=all(_is_main(s) for s in group),
    )
    if len(group) == 1 and isinstance(group[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return replace(unit, effects=frozenset(_effects(group[0], table)))
    if len(group) == 1 and isinstance(group[0], ast.ClassDef):
        return replace(unit, methods=frozenset(_changing_methods(group[0])))
    return unit


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str], set[str]]:
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


def _at_once(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and all below them, without the bodies of functions and lambdas."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stack += [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.Lambda):
            stack.append(node.args)
        else:
            stack += ast.iter_child_nodes(node)


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in _at_once(nodes)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def stored_in(nodes: Iterable[ast.AST]) -> set[str]:
    nodes = list(_at_once(nodes))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    names |= {n.name for n in nodes if isinstance(n, DEFINITIONS)}
    return names | _imported(nodes)


def _surely(statements: Iterable[ast.stmt]) -> set[str]:
    """Names that are bound whichever way the statements go."""
    names: set[str] = set()
    for s in statements:
        if isinstance(s, ast.If):
            names |= _surely(s.body) & _surely(s.orelse)
        elif isinstance(s, ast.Try):
            ways = [_surely([*s.body, *s.orelse])]
            ways += [_surely(h.body) for h in s.handlers if not isinstance(h.body[-1], ast.Raise)]
            names |= set.intersection(*ways) | _surely(s.finalbody)
        elif isinstance(s, ast.With | ast.AsyncWith):
            names |= stored_in(s.items) | _surely(s.body)
        elif isinstance(s, ast.ClassDef):
            names.add(s.name)
        elif not isinstance(s, ast.For | ast.AsyncFor | ast.While | ast.Match | ast.TryStar):
            names |= stored_in([s])
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


def _exposed(statements: Iterable[ast.stmt], bound: set[str]) -> set[str]:
    """Names that are read before the statements bind them themselves; `bound` grows."""
    names: set[str] = set()
    for s in statements:
        is_function = isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)
        heads, blocks = ([s], []) if is_function else _blocks(s)
        for node in _at_once(heads):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names |= {node.id} - bound
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            names |= {s.target.id} - bound
        inside = bound | stored_in(heads)
        for block in blocks:
            names |= _exposed(block, set(inside))
        bound |= _surely([s])
    return names


def _root(node: ast.AST | None) -> str | None:
    """The name at the root of `A.b[0].c`, of `T.setdefault(k, []).d` and of `vars(A)["x"]`."""
    while node is not None:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func
        elif _calls_name(node, "getattr", "vars") and node.args:  # type: ignore[attr-defined]
            node = node.args[0]  # type: ignore[attr-defined]
        else:
            return None
    return None


def _calls_name(node: ast.AST, *names: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (not names or node.func.id in names)
    )


def changed_by(nodes: Iterable[ast.AST]) -> tuple[set[str], set[tuple[str, str]]]:
    """Names whose object is changed, and method calls (name, method) that may change it.

    A change is an assignment to (or deletion of) an attribute or item, a function that changes its
    first argument (`setattr`, `nn.init.zeros_`) or `out=`, and the methods of `CHANGING`, of
    decorators (`@f.register`) and of torch that end in an underscore. Passing an object to any
    other function is none.
    """
    changed: set[str | None] = set()
    calls: set[tuple[str | None, str]] = set()
    for node in _at_once(nodes):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed.add(_root(node))
        elif isinstance(node, ast.Import):  # `import torch.fx` gives torch an attribute
            changed |= {a.name.partition(".")[0] for a in node.names if "." in a.name}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Attribute):
                calls.add((_root(node.value.func), node.value.func.attr))
        elif isinstance(node, DEFINITIONS):
            for decorator in node.decorator_list:
                function = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(function, ast.Attribute):
                    calls.add((_root(function), "register"))
        if isinstance(node, ast.Call):
            changed |= {_root(k.value) for k in node.keywords if k.arg == "out"}
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            in_place = name.endswith("_") and not name.endswith("__")
            is_method = isinstance(function, ast.Attribute) and _root(function) not in MODULES
            if name in CHANGING_FIRST or (in_place and not is_method):
                changed.add(_root(node.args[0]) if node.args else None)
            elif is_method and (in_place or name in CHANGING_ANYWHERE):
                calls.add((_root(function), name))
    return {c for c in changed if c is not None}, {(r, m) for r, m in calls if r is not None}


def _writes_globals(nodes: Iterable[ast.AST]) -> bool:
    for node in _at_once(nodes):
        if _calls_name(node, "exec"):
            return True
        target = node
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value if node.func.attr in CHANGING else node
        if target is not node and _calls_name(target, "globals", "locals", "vars"):
            return not target.args  # type: ignore[attr-defined]
    return False


def _definitions(nodes: Iterable[ast.AST]) -> tuple[set[str], set[tuple[str, str]]]:
    """Names bound to functions and classes for sure, and (x, y) for `x = y` and `x = …(… y …)`.

    `attention = attention(q, k, v)` and `out, attention = layer(x)` bind a result: no definition.
    """
    nodes = list(_at_once(nodes))
    defines = _imported(nodes)
    made_from: set[tuple[str, str]] = set()
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            defines.add(node.name)
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in targets:
            if not isinstance(target, ast.Name):
                continue
            is_attribute_of_module = (
                isinstance(node.value, ast.Attribute) and _root(node.value) in MODULES
            )
            if is_attribute_of_module or isinstance(node.value, ast.Lambda | ast.IfExp):
                defines.add(target.id)
            elif isinstance(node.value, ast.Name | ast.Attribute | ast.Call):
                if _result_of(node.value) == target.id:
                    continue
                mentioned = (n.id for n in ast.walk(node.value) if isinstance(n, ast.Name))
                made_from |= {(target.id, m) for m in mentioned}
                if any(isinstance(n, ast.Lambda) for n in ast.walk(node.value)):
                    defines.add(target.id)
    return defines, made_from


def _result_of(node: ast.AST) -> str | None:
    """The function whose result is bound: `f` in `f(x)`, `f(x)[0]` and `f(x).mean()`."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        if _calls_name(node):
            return node.func.id  # type: ignore[union-attr,no-any-return]
        node = node.func if isinstance(node, ast.Call) else node.value
    return None


def _effects(
    function: ast.FunctionDef | ast.AsyncFunctionDef, table: symtable.SymbolTable
) -> set[str]:
    """Globals that the function's own body changes or binds when it is called."""
    scope = next(
        (c for c in table.get_children() if c.get_name() == function.name and c.get_symbols()), None
    )
    if scope is None:
        return set()
    changed, calls = changed_by(function.body)
    changed |= {root for root, method in calls if is_changing(method)}
    return {
        symbol.get_name()
        for symbol in scope.get_symbols()
        if symbol.is_global() and (symbol.is_assigned() or symbol.get_name() in changed)
    }


def _changing_methods(node: ast.ClassDef) -> Iterator[str]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            changed, calls = changed_by(method.body)
            changed |= {root for root, name in calls if is_changing(name)}
            if method.args.args[0].arg in changed:
                yield method.name


def is_changing(method: str) -> bool:
    in_place = method.endswith("_") and not method.endswith("__")
    return in_place or method in CHANGING or method.startswith(CHANGING_PREFIXES)


def _hints(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for statement in nodes:
        for node in ast.walk(statement):
            for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                for part in ast.walk(hint) if isinstance(hint, ast.AST) else ():
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield from re.findall(r"[^\W\d]\w*", part.value)


def _is_first(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and (
        node.module == "__future__" or any(alias.name == "*" for alias in node.names)
    )


def _is_setting(s: ast.AST) -> bool:
    if isinstance(s, ast.Expr | ast.Assign) and isinstance(s.value, ast.Call):
        function = s.value.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        while isinstance(function, ast.Attribute):
            function = function.value
        is_ours = isinstance(s.value.func, ast.Name) or (
            isinstance(function, ast.Name) and function.id in MODULES
        )
        return is_ours and name in SETTINGS
    if isinstance(s, ast.If):  # if torch.cuda.is_available(): torch.cuda.manual_seed_all(0)
        return all(_is_setting(inner) for inner in [*s.body, *s.orelse])
    return False


def _is_main(s: ast.AST) -> bool:
    if not isinstance(s, ast.If) or not isinstance(s.test, ast.Compare):
        return False
    test = ast.dump(s.test)
    return "'__name__'" in test and "'__main__'" in test and "Eq()" in test
