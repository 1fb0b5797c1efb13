"""Find uses of forbidden functions in an exercise's code, without running it.

The worker catches uses that this module misses, because forbidden functions and operators raise an exception there.
Only functions from certain libraries are forbidden, so a student's own function may have any name. Comments, strings, types
(`isinstance(x, nn.LayerNorm)`) and methods that nothing calls are ignored. An import at module level counts only if the code
reads a name that it binds. Entry points: `Vocabulary` and `find_forbidden`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from autograder.slicing.names import DEFINITIONS, children, walk
from autograder.slicing.side_effects import is_call_of
from autograder.slicing.statements import gc_paused
from autograder.slicing.unit import Unit, make_unit

MAX_SHOWN = 20  # maximum number of functions reported per exercise
MAX_PARTS = 200  # maximum number of components per dotted path
MAX_ROOT = 10_000  # maximum number of characters in an alias's path
TYPE_FIELDS = dict.fromkeys((ast.arg, ast.AnnAssign), "annotation")
TYPE_FIELDS |= dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef), "returns")
MAY_CONTAIN_TYPE = {*TYPE_FIELDS, ast.Call}
# The AST nodes that can make up a type such as `Callable[[nn.LayerNorm], Tensor] | None`.
TYPE_PARTS = (ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.BinOp)


@dataclass(frozen=True)
class Vocabulary:
    """The names and options forbidden in at least one exercise of a course, and the libraries that contain these names."""

    names: frozenset[str]
    libraries: frozenset[str]
    options: frozenset[str]

    def is_library(self, path: str) -> bool:
        """Return whether a dotted path begins with one of the libraries."""
        return path.partition(".")[0] in self.libraries


def find_forbidden(
    sources: Sequence[str], not_allowed: Collection[str], vocabulary: Vocabulary, stub: str = ""
) -> list[str]:
    """Return the dotted paths of the forbidden functions mentioned in the code, resolving imports and aliases.

    The bodies of methods that the code never uses are ignored. Methods that the exercise's stub mentions count as used,
    because the grader may call them.
    """
    names = set(not_allowed)
    if not names:
        return []
    facts = [_facts(source, vocabulary) for source in sources]
    if any(each.in_methods for each in facts):
        unused = _unused_methods(sources, stub)
        facts = [each.without(unused) for each in facts]
    found = dict.fromkeys(_used_imports(sources, facts, names))
    found |= dict.fromkeys(path for path in _mentions(facts, _paths(facts)) if _parts(path) & names)
    return list(found)[:MAX_SHOWN]


def _unused_methods(sources: Sequence[str], stub: str) -> set[str]:
    """Return the methods that the code defines but mentions nowhere else, not even in a comment or string."""
    defined: Counter[str] = Counter()
    words: Counter[str] = Counter(re.findall(r"\w+", stub))
    for source in sources:
        defined.update(re.findall(r"\bdef\s+(\w+)", source))
        words.update(re.findall(r"\w+", source))
    return {name for name, count in defined.items() if words[name] == count}


@dataclass(frozen=True, slots=True)
class Chain:
    """An expression such as `root.a.b` or `getattr(root.a, "b")`. The root is a name or a module imported by a call."""

    root: str
    is_module: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """The imports, aliases and mentions in one statement."""

    imports: tuple[tuple[str, str], ...] = ()  # (bound name, path) pairs
    module_level: tuple[tuple[str, str], ...] = ()  # part of `imports`
    aliases: tuple[tuple[str, Chain], ...] = ()
    # Paths of star imports and of imports in functions and classes, expressions that may refer to a library, and
    # keywords in calls that turn on an option.
    mentions: tuple[str | Chain, ...] = ()
    # Pairs (method, mention), which are not part of `mentions`.
    in_methods: tuple[tuple[str, str | Chain], ...] = ()

    def without(self, methods: Collection[str]) -> _Facts:
        """Return a copy that omits mentions in the given methods. Mentions in other methods are moved to `mentions`."""
        kept = [mention for method, mention in self.in_methods if method not in methods]
        return replace(self, mentions=(*self.mentions, *kept), in_methods=())


NOTHING = _Facts()


@lru_cache(maxsize=20_000)  # cached, because exercises in a notebook share most of their code
def _facts(source: str, vocabulary: Vocabulary) -> _Facts:
    imports: list[tuple[str, str]] = []
    module_level: list[tuple[str, str]] = []
    aliases: list[tuple[str, Chain]] = []
    mentions: list[tuple[ast.AST, str | Chain]] = []
    is_library = vocabulary.is_library
    inside: set[int] = set()  # ids of nodes in types and in chains already found
    with gc_paused():
        statements = ast.parse(source).body
        outer = _module_level_imports(statements)
        for node in walk(statements):
            if type(node) in MAY_CONTAIN_TYPE:
                inside.update(map(id, _type_in(node)))
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = [(b, path) for b, path in _imported(node) if is_library(path)]
                imports += found
                if id(node) in outer:
                    module_level += [(b, path) for b, path in found if b != "*"]
                    mentions += [(node, path) for b, path in found if b == "*"]
                else:
                    whole = _imported(node, whole=True)
                    mentions += [(node, path) for _, path in whole if is_library(path)]
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, chain = node.targets[0], _chain(node.value, set(), is_library)
                if isinstance(target, ast.Name) and chain:
                    aliases.append((target.id, chain))
            elif isinstance(node, ast.keyword) and node.arg in vocabulary.options:
                if not (isinstance(node.value, ast.Constant) and not node.value.value):
                    mentions.append((node, node.arg))
            elif isinstance(node, (ast.Attribute, ast.Call)) and id(node) not in inside:
                chain = _chain(node, inside, is_library)
                if chain and (chain.is_module or not vocabulary.names.isdisjoint(chain.names)):
                    mentions.append((node, chain))
    if not (imports or aliases or mentions):
        return NOTHING
    methods = _methods(statements) if mentions else {}
    in_methods = [(methods[id(node)], what) for node, what in mentions if id(node) in methods]
    others = [what for node, what in mentions if id(node) not in methods]
    parts = (imports, module_level, aliases, others, in_methods)
    return _Facts(*(tuple(dict.fromkeys(each)) for each in parts))  # type: ignore[arg-type]


def _type_in(node: ast.AST) -> list[ast.AST]:
    """Return the AST nodes that name a type in an annotation (`x: nn.LayerNorm`) or in a call to `isinstance` or `issubclass`."""
    type_ = getattr(node, TYPE_FIELDS.get(type(node), ""), None)
    if isinstance(node, ast.Call) and is_call_of(node, "isinstance", "issubclass"):
        type_ = node.args[1] if len(node.args) == 2 else None
    nodes = walk([type_] if type_ else [])
    return nodes if all(isinstance(each, TYPE_PARTS) for each in nodes) else []


def _methods(statements: Sequence[ast.stmt]) -> dict[int, str]:
    """Map the id of each AST node in a method to the method's name. Skip methods that torch or Python calls."""
    return {
        id(node): method.name
        for class_ in statements
        if isinstance(class_, ast.ClassDef)
        for method in class_.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
        if method.name != "forward" and not method.name.startswith("__")
        for node in walk(method.body)
    }


def _module_level_imports(statements: Sequence[ast.stmt]) -> set[int]:
    """Return the ids of the import statements outside functions and classes."""
    found: list[ast.AST] = list(statements)
    for node in found:
        if not isinstance(node, (*DEFINITIONS, ast.expr)):
            found += children(node)
    return {id(node) for node in found if isinstance(node, (ast.Import, ast.ImportFrom))}


def _imported(node: ast.Import | ast.ImportFrom, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the names bound by an import, each with its dotted path. `import a.b` gives `a`, or `a.b` if `whole` is true."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif alias.asname or whole:
            yield alias.asname or "", alias.name
        else:
            first = alias.name.partition(".")[0]
            yield first, first


def _parts(path: str) -> set[str]:
    return set(path.split("."))


def _paths(facts: Sequence[_Facts]) -> dict[str, str]:
    """Map names to the library paths they refer to, following imports and plain aliases."""
    paths = {name: path for each in facts for name, path in each.imports}
    for each in facts:
        for name, chain in each.aliases:
            if path := _path(chain, paths):
                paths[name] = path
    return paths


def _mentions(facts: Sequence[_Facts], paths: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths of all expressions that refer to a library."""
    for each in facts:
        for mention in each.mentions:
            if path := _path(mention, paths) if isinstance(mention, Chain) else mention:
                yield path


def _used_imports(
    sources: Sequence[str], facts: Sequence[_Facts], forbidden: Collection[str]
) -> Iterator[str]:
    """Yield the forbidden paths imported at module level under a name that the code reads.

    A name that is read when the unit itself runs refers to the last binding before the unit, or to a later binding if
    there is none. A name that is read in a function's body refers to the last binding in the code.
    """
    imported = [
        [(name, path) for name, path in each.module_level if not _parts(path).isdisjoint(forbidden)]
        for each in facts
    ]
    if not any(imported):
        return
    paths: dict[str, list[str]] = {}  # the names that may refer to forbidden functions
    bound: set[str] = set()
    read_at_end: set[str] = set()
    for source, new in zip(sources, imported, strict=True):
        unit, loaded = _unit(source)
        for name in sorted(unit.reads_now & paths.keys()):
            yield from paths.pop(name)
        read_at_end |= unit.reads - (unit.reads_now & bound)
        for name in unit.always_binds:
            paths.pop(name, None)
        for name, path in new:
            paths.setdefault(name, []).append(path)
            # `import a as b; f = b` reads the name after binding it, so `reads` does not contain the name.
            read_at_end |= {name} & loaded
        bound |= unit.always_binds
    for name in sorted(read_at_end & paths.keys()):
        yield from paths[name]


@lru_cache(maxsize=20_000)
def _unit(source: str) -> tuple[Unit, frozenset[str]]:
    """Return a unit with the given source, and all names that it loads.

    Names that occur only as types, for example in annotations or `isinstance` calls, do not count.
    """
    with gc_paused():
        statements = ast.parse(source).body
        nodes = walk(statements)
        types = {id(part) for node in nodes for part in _type_in(node)}
        names = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        loaded = frozenset(name.id for name in names if id(name) not in types)
        in_types = frozenset(name.id for name in names) - loaded
        unit = make_unit(source, statements, 1)
        unit = replace(unit, reads=unit.reads - in_types, reads_now=unit.reads_now - in_types)
        return unit, loaded


def _path(chain: Chain, paths: Mapping[str, str]) -> str:
    root = chain.root if chain.is_module else paths.get(chain.root, "")
    # Only hostile chains of aliases produce longer paths.
    return ".".join([root, *chain.names][:MAX_PARTS]) if root and len(root) < MAX_ROOT else ""


def _chain(node: ast.AST, inside: set[int], is_library: Callable[[str], bool]) -> Chain | None:
    """Convert an expression to a chain, and add its nodes' ids to `inside`.

    Return None if the expression is not a chain.
    """
    names: list[str] = []
    while True:
        inside.add(id(node))
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
            continue
        if isinstance(node, ast.Name):
            return Chain(node.id, False, tuple(reversed(names)))
        if not isinstance(node, ast.Call):
            return None
        # `getattr(torch, "softmax")`, `importlib.import_module("torch.nn")` and `__import__("torch")`
        texts = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if function == "getattr" and len(node.args) >= 2 and texts:
            names.append(texts[0])
            node = node.args[0]
        elif function in ("import_module", "__import__") and texts and is_library(texts[0]):
            return Chain(texts[0], True, tuple(reversed(names)))
        else:
            return None
