"""A notebook's top-level statements as units, with the names that each reads, binds and changes."""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from autograder.slicing.extensions import Extension, changes_arguments, find_extensions
from autograder.slicing.ipython import count_tokens, gc_paused, parse_cell
from autograder.slicing.names import (
    DEFINITIONS,
    SCOPES,
    global_names,
    immediate_nodes,
    imported_names,
    names_bound_by,
    read_and_bound,
    stored_names,
    symbol_table,
    walk,
)
from autograder.slicing.side_effects import (
    MODULES,
    changed_globals,
    find_mutations,
    is_call_of,
    mutating_methods,
    root_name,
    writes_globals,
)
from autograder.submissions.cells import Cell

# What a hostile or very deep statement makes the parser, symtable or the compiler raise.
REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
LONG = 20_000  # characters of a cell that is not remembered
MAX_UNITS = 100_000  # of a notebook
MAX_TOKENS = 1_000_000  # of all its cells together
TOO_LONG = "the notebook is too long; the rest is not read"
MAX_TARGETS = 8  # of `a = b = c = f(x, y)`; each is remembered with all that the call mentions
# Fields that hold an annotation.
ANNOTATIONS = {
    ast.arg: ("annotation",),
    ast.AnnAssign: ("annotation",),
    ast.FunctionDef: ("returns",),
    ast.AsyncFunctionDef: ("returns",),
}
# Settings of the whole process: always taken, wherever they stand.
SETTINGS = frozenset(
    """
    manual_seed manual_seed_all seed set_state setstate set_rng_state set_default_dtype
    set_default_device set_default_tensor_type set_grad_enabled set_num_threads
    set_num_interop_threads use_deterministic_algorithms set_float32_matmul_precision
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
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
    # (x, ys): x = y, or a call that mentions the ys
    made_from: tuple[tuple[str, frozenset[str]], ...] = ()
    calls: frozenset[tuple[str, str]] = frozenset()  # (T, m): T.m(…) that may change T
    called: frozenset[str] = frozenset()  # functions that it calls by name when it runs
    decorators: frozenset[str] = frozenset()  # of `called`: as decorators
    effects: frozenset[str] = frozenset()  # globals that its function changes when called
    is_class: bool = False
    methods: frozenset[str] = frozenset()  # methods of its class that change the instance
    extends: frozenset[Extension] = frozenset()  # classes that it may give methods
    changes_arguments: bool = False  # its function does
    hints: frozenset[str] = frozenset()  # words of annotations in strings
    runs_code: bool = False  # calls something that may call its lambdas
    first: bool = False  # star and __future__ imports run before the rest
    main_only: bool = False  # if __name__ == "__main__"


def parse_units(cells: Iterable[Cell], given: bool = False) -> tuple[list[Unit], list[str]]:
    """Returns the units of a notebook's code cells, and what is wrong with it in words."""
    with gc_paused():
        return _units_of([cell for cell in cells if cell.kind == "code"], given)


def _units_of(cells: Sequence[Cell], given: bool) -> tuple[list[Unit], list[str]]:
    units: list[Unit] = []
    problems: list[str] = []
    left = MAX_TOKENS
    is_long = sum(len(cell.source) for cell in cells) > left
    for cell in cells:
        left -= count_tokens(cell.source) if is_long else 0
        if left < 0 or len(units) > MAX_UNITS:
            problems.append(f"cell {cell.number}: {TOO_LONG}")
            break
        if len(cell.source) <= LONG:
            found, wrong = _remembered(cell.source)
            found = [replace(unit, cell=cell.number, given=given) for unit in found]
        else:
            found, wrong = _read(cell.source, cell.number, given)
        units += found
        problems += [f"cell {cell.number}: {problem}" for problem in wrong]
    return units, problems


def _read(text: str, cell: int = 0, given: bool = False) -> tuple[list[Unit], list[str]]:
    source, tree, problem = parse_cell(text)
    problems = [problem] if problem is not None else []
    statements = tree.body if tree else []
    units: list[Unit] = []
    lines = re.split(r"\r\n|\r|\n", source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a student's "\d" is no news for whoever grades
        for group in _sharing_lines(statements, lines):
            start, end = _first_line(group[0]), group[-1].end_lineno
            if len(units) > MAX_UNITS:
                return units, [*problems, TOO_LONG]
            try:
                unit = _unit("\n".join(lines[start - 1 : end]), group, start)
                units.append(replace(unit, cell=cell, given=given) if cell or given else unit)
            except REFUSALS as error:
                problems.append(_in_words(error))
    return units, problems


# In a class most cells are alike: those of checks and demonstrations, and what the course gives.
_remembered = lru_cache(maxsize=1024)(_read)


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


def _unit(text: str, group: list[ast.stmt], line: int) -> Unit:
    nodes = immediate_nodes(group)
    kinds = set(map(type, nodes))
    read, surely = read_and_bound(group)
    table = None
    if SCOPES.isdisjoint(kinds):
        at_once, later, binds = read, set[str](), names_bound_by(nodes)
    else:
        table = symbol_table(text)
        at_once, later, binds = global_names(table)
        at_once &= read
    for statement in group:
        if isinstance(statement, ast.Delete) or (
            isinstance(statement, ast.AnnAssign) and statement.value is None
        ):
            binds -= stored_names(immediate_nodes([statement]))
    mutations = find_mutations(nodes)
    if writes_globals(nodes):  # `globals()["f"] = …`, `exec("def f…")`: any name in its text
        binds |= set(re.findall(r"[^\W\d]\w*", text)) - at_once
    defines, made_from = _definitions(nodes)
    called = {n.func.id for n in nodes if is_call_of(n)}  # type: ignore[attr-defined]
    decorators = {
        d.id for s in group for d in getattr(s, "decorator_list", []) if isinstance(d, ast.Name)
    }
    first = any(_is_first(n) for n in nodes)
    unit = Unit(
        source=text,
        cell=0,
        line=line,
        given=False,
        reads=frozenset(at_once | later),
        binds=frozenset(binds),
        changes=frozenset(mutations.names),
        always=first or all(_is_setting(s) for s in group),
        at_once=frozenset(at_once),
        surely=frozenset(surely & binds),
        imports=frozenset(imported_names(nodes) & binds),
        defines=frozenset(defines & binds),
        made_from=tuple(made_from),
        calls=frozenset(mutations.method_calls),
        called=frozenset(called | decorators),
        decorators=frozenset(decorators),
        hints=frozenset(_hints(group) if ast.AnnAssign in kinds or table else ()),
        extends=frozenset(find_extensions(nodes)),
        runs_code=not isinstance(group[0], DEFINITIONS) and ast.Call in kinds,
        first=first,
        main_only=all(_is_main(s) for s in group),
    )
    if table and len(group) == 1 and isinstance(group[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return replace(
            unit,
            effects=frozenset(changed_globals(group[0], table)),
            changes_arguments=changes_arguments(group[0]),
        )
    if len(group) == 1 and isinstance(group[0], ast.ClassDef):
        return replace(unit, is_class=True, methods=frozenset(mutating_methods(group[0])))
    return unit


def _definitions(
    nodes: Iterable[ast.AST],
) -> tuple[set[str], list[tuple[str, frozenset[str]]]]:
    """Names bound to functions and classes for sure, and (x, {y}) for `x = y` and `x = …(… y …)`.

    `attention = attention(q, k, v)` and `out, attention = layer(x)` bind a result: no definition.
    """
    defines = imported_names(nodes)
    made_from: list[tuple[str, frozenset[str]]] = []
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            defines.add(node.name)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)][:MAX_TARGETS]
        if isinstance(node.value, ast.Lambda | ast.IfExp) or (
            isinstance(node.value, ast.Attribute) and root_name(node.value) in MODULES
        ):
            defines.update(names)
        elif isinstance(node.value, ast.Name | ast.Attribute | ast.Call):
            below = walk([node.value])
            mentioned = frozenset(n.id for n in below if isinstance(n, ast.Name))
            result = _result_of(node.value)
            names = [name for name in names if name != result]
            made_from += [(name, mentioned) for name in names]
            if any(isinstance(n, ast.Lambda) for n in below):
                defines.update(names)
    return defines, made_from


def _result_of(node: ast.AST) -> str | None:
    """The function whose result is bound: `f` in `f(x)`, `f(x)[0]` and `f(x).mean()`."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        if is_call_of(node):
            return node.func.id  # type: ignore[union-attr,no-any-return]
        node = node.func if isinstance(node, ast.Call) else node.value
    return None


def _hints(nodes: Iterable[ast.AST]) -> Iterator[str]:
    hints = (
        getattr(node, field)
        for node in walk(nodes)
        for field in ANNOTATIONS.get(type(node), ())
        if getattr(node, field)
    )
    for part in walk(hints):
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
