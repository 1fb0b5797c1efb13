"""Represent a top-level statement as a unit with the names it reads, binds and changes. Entry point: `make_unit`."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from autograder.slicing.names import (
    DEFINITIONS,
    Scope,
    decorators,
    global_names,
    immediate_nodes,
    imported_names,
    read_and_bound,
    stored_names,
    symbol_table,
    walk,
)
from autograder.slicing.side_effects import (
    MODULES,
    changed_by_subclasses,
    changed_globals,
    find_mutations,
    is_call_of,
    mutating_methods,
    root_name,
    writes_globals,
)

# Maximum number of targets in `a = b = f(x, y)`, because each target is stored with all names in the call.
MAX_TARGETS = 8
NAME = re.compile(r"[^\W\d]\w*")
# AST fields that contain an annotation.
ANNOTATIONS = {
    ast.arg: ("annotation",),
    ast.AnnAssign: ("annotation",),
    ast.FunctionDef: ("returns",),
    ast.AsyncFunctionDef: ("returns",),
}
# Functions that seed random number generators, and functions that change other process-wide settings. Every exercise's
# code includes all calls to the former, and the calls to the latter that precede its definition.
SEEDING = frozenset("manual_seed manual_seed_all seed set_state setstate set_rng_state".split())  # noqa: SIM905
SETTINGS = frozenset(
    """
    set_default_dtype set_default_device set_default_tensor_type set_grad_enabled set_num_threads
    set_num_interop_threads use_deterministic_algorithms set_float32_matmul_precision
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A top-level statement, or several statements that share a line, and its effects on names."""

    source: str  # the complete lines that contain the statement
    cell: int  # the cell's number
    line: int  # the first line's number within the cell, counting from 1
    given: bool  # whether the course provides this unit
    reads: frozenset[str]  # names read immediately or later
    binds: frozenset[str]
    changes: frozenset[str]  # names whose objects change, although the names are not rebound
    needed_by_all: (
        bool  # whether every exercise needs this unit, e.g. a star import, a seed or a setting
    )
    reads_now: frozenset[str] = frozenset()  # part of `reads`: names read when the unit itself runs
    always_binds: frozenset[str] = frozenset()  # part of `binds`: names bound on every path
    imports: frozenset[str] = frozenset()  # part of `binds`: names bound by an import
    # Part of `binds`: names bound to functions, classes or modules.
    defines: frozenset[str] = frozenset()
    # Pairs (x, names): x is bound to another name's object or to a call's result. `names` are the names in that
    # expression.
    made_from: tuple[tuple[str, frozenset[str]], ...] = ()
    calls: frozenset[tuple[str, str]] = frozenset()  # (T, m): a call T.m(…) that may change T
    called: frozenset[str] = frozenset()  # functions called by name when the unit runs
    # Functions and classes that receive the definition: decorators, with or without arguments, and base classes.
    receivers: frozenset[str] = frozenset()
    # Globals changed by calls to the unit's function, or by subclasses of the unit's class.
    effects: frozenset[str] = frozenset()
    is_class: bool = False
    methods: frozenset[str] = frozenset()  # methods of the unit's class that change the instance
    extends: frozenset[Extension] = frozenset()  # classes to which the unit may add methods
    changes_arguments: bool = False  # whether the unit's function changes one of its arguments
    hints: frozenset[str] = frozenset()  # identifiers in string annotations
    runs_code: bool = False  # whether the unit contains calls, which may run lambdas
    is_setting: bool = False  # whether the unit changes settings such as the default dtype
    runs_first: bool = False  # whether the unit is a star or __future__ import, which runs early
    main_only: bool = False  # whether the unit is under `if __name__ == "__main__":`
    # Whether the course provides this unit, and a student's function or class with the same name may replace it.
    is_replaceable: bool = False
    is_demonstration: bool = (
        False  # whether the unit is a visible check or under `with demonstration():`
    )


def make_unit(text: str, group: list[ast.stmt], line: int) -> Unit:
    """Make a unit from a group of statements with the source `text` that starts at line `line` of its cell."""
    nodes = immediate_nodes(group)
    kinds = set(map(type, nodes))
    table = symbol_table(text)
    read, always_binds = read_and_bound(group)
    reads_now, later, binds = _find_names(group, nodes, table, read)
    mutations = find_mutations(nodes)
    if writes_globals(nodes):
        # `globals()["f"] = …` and `exec("def f…")` may bind any name in the text, and code in a string may read it.
        in_strings = set(_names_in_exec(nodes))
        binds |= (set(NAME.findall(text)) | in_strings) - reads_now
        later |= in_strings
    defines, made_from = _definitions(nodes)
    called = {n.func.id for n in nodes if is_call_of(n)}  # type: ignore[attr-defined]
    functions = {f.id for s in group for f in decorators(s) if isinstance(f, ast.Name)}
    first = any(_is_first(n) for n in nodes)
    is_process_wide = all(_is_setting(s, SEEDING | SETTINGS) for s in group)
    unit = Unit(
        source=text,
        cell=0,
        line=line,
        given=False,
        reads=frozenset(reads_now | later),
        binds=frozenset(binds),
        changes=frozenset(mutations.names),
        needed_by_all=first or is_process_wide,
        reads_now=frozenset(reads_now),
        always_binds=frozenset(always_binds & binds),
        imports=frozenset(imported_names(nodes) & binds),
        defines=frozenset(defines & binds),
        made_from=tuple(made_from),
        calls=frozenset(mutations.method_calls),
        called=frozenset(called | functions),
        receivers=frozenset(functions),
        hints=frozenset(_hints(group) if ast.AnnAssign in kinds or table.children else ()),
        extends=frozenset(find_extensions(nodes)),
        runs_code=not isinstance(group[0], DEFINITIONS) and ast.Call in kinds,
        is_setting=is_process_wide and not all(_is_setting(s, SEEDING) for s in group),
        runs_first=first,
        main_only=all(_is_main(s) for s in group),
        is_demonstration=all(_is_demonstration(s) for s in group),
    )
    if len(group) == 1 and isinstance(group[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        return replace(
            unit,
            effects=frozenset(changed_globals(group[0], table)),
            changes_arguments=changes_arguments(group[0]),
        )
    if len(group) == 1 and isinstance(group[0], ast.ClassDef):
        bases = {base.id for base in group[0].bases if isinstance(base, ast.Name)}
        return replace(
            unit,
            is_class=True,
            methods=frozenset(mutating_methods(group[0])),
            receivers=unit.receivers | bases,
            effects=frozenset(changed_by_subclasses(group[0], table)),
        )
    return unit


def _names_in_exec(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names in strings passed to `exec`."""
    for node in nodes:
        if is_call_of(node, "exec"):
            for argument in node.args[:1]:  # type: ignore[attr-defined]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield from NAME.findall(argument.value)


def _find_names(
    group: list[ast.stmt], nodes: list[ast.AST], table: Scope, read: set[str]
) -> tuple[set[str], set[str], set[str]]:
    """Return the global names that the statements read when they run, those read in later function calls, and those bound."""
    reads_now, later, binds = global_names(table)
    reads_now &= read
    for statement in group:
        if isinstance(statement, ast.Delete) or (
            isinstance(statement, ast.AnnAssign) and statement.value is None
        ):
            binds -= stored_names(immediate_nodes([statement]))
    return reads_now, later, binds


def _definitions(
    nodes: Iterable[ast.AST],
) -> tuple[set[str], list[tuple[str, frozenset[str]]]]:
    """Return the names that are definitely bound to functions, classes or modules, and the pairs for `Unit.made_from`.

    `mean = mean(x)` and `total, mean = summarize(x)` bind results, so they are not definitions.
    """
    defines = imported_names(nodes)
    made_from: list[tuple[str, frozenset[str]]] = []
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            defines.add(node.name)
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)][:MAX_TARGETS]
        if isinstance(node.value, (ast.Lambda, ast.IfExp)) or (
            isinstance(node.value, ast.Attribute) and root_name(node.value) in MODULES
        ):
            defines.update(names)
        elif isinstance(node.value, (ast.Name, ast.Attribute, ast.Call)):
            below = walk([node.value])
            mentioned = frozenset(n.id for n in below if isinstance(n, ast.Name))
            result = _result_of(node.value)
            names = [name for name in names if name != result]
            made_from += [(name, mentioned) for name in names]
            if any(isinstance(n, ast.Lambda) for n in below):
                defines.update(names)
    return defines, made_from


def _result_of(node: ast.AST) -> str | None:
    """Return the name of the function that computes a value, such as `f` in `f(x)`, `f(x)[0]` and `f(x).mean()`."""
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        if is_call_of(node):
            return node.func.id  # type: ignore[union-attr,no-any-return]
        node = node.func if isinstance(node, ast.Call) else node.value
    return None


def _hints(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the identifiers in string annotations, because they may be class names."""
    hints = (
        getattr(node, field)
        for node in walk(nodes)
        for field in ANNOTATIONS.get(type(node), ())
        if getattr(node, field)
    )
    for part in walk(hints):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from NAME.findall(part.value)


def _is_first(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and (
        node.module == "__future__" or any(alias.name == "*" for alias in node.names)
    )


def _is_setting(s: ast.AST, functions: Collection[str]) -> bool:
    """Return whether a statement consists only of calls to the given functions, which change process-wide settings."""
    if isinstance(s, (ast.Expr, ast.Assign)) and isinstance(s.value, ast.Call):
        function = s.value.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        while isinstance(function, ast.Attribute):
            function = function.value
        is_known = isinstance(s.value.func, ast.Name) or (
            isinstance(function, ast.Name) and function.id in MODULES
        )
        return is_known and name in functions
    if isinstance(s, ast.If):  # if torch.cuda.is_available(): torch.cuda.manual_seed_all(0)
        return all(_is_setting(inner, functions) for inner in [*s.body, *s.orelse])
    return False


def _is_demonstration(s: ast.AST) -> bool:
    if isinstance(s, ast.FunctionDef):
        return any(isinstance(d, ast.Name) and d.id == "visible_check" for d in s.decorator_list)
    return isinstance(s, ast.With) and any(
        is_call_of(item.context_expr, "demonstration") for item in s.items
    )


def without_main_guard(unit: Unit) -> Unit:
    """Return a unit that runs the statements under `if __name__ == "__main__":` unconditionally."""
    test, _, body = unit.source.partition(":")
    is_simple = test.startswith("if") and "__name__" in test and "\n" not in test
    return replace(unit, source=f"if True:{body}") if is_simple else unit


def _is_main(s: ast.AST) -> bool:
    if not isinstance(s, ast.If) or not isinstance(s.test, ast.Compare):
        return False
    test = ast.dump(s.test)
    return "'__name__'" in test and "'__main__'" in test and "Eq()" in test


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
