"""Find uses of forbidden functions in the code of one exercise, without running it.

The worker catches uses that this module misses, because forbidden functions and operators raise an exception there.
Only functions from certain libraries are forbidden, so a student's own function may have any name. Comments and strings
are ignored. An import at module level counts only if the code reads a name that it binds. Entry points: `Vocabulary` and
`find_forbidden`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autograder.slicing.ipython import gc_paused
from autograder.slicing.names import DEFINITIONS, children, walk
from autograder.slicing.unit import Unit, make_unit

MAX_SHOWN = 20  # maximum number of functions reported per exercise
MAX_PARTS = 200  # maximum number of components per dotted path
MAX_ROOT = 10_000  # maximum number of characters in an alias's path


@dataclass(frozen=True)
class Vocabulary:
    """The function names that at least one exercise of a course forbids, and the libraries that contain these functions."""

    names: frozenset[str]
    libraries: frozenset[str]

    def is_library(self, path: str) -> bool:
        """Return whether a dotted path begins with one of the libraries."""
        return path.partition(".")[0] in self.libraries


def find_forbidden(
    sources: Sequence[str], not_allowed: Collection[str], vocabulary: Vocabulary
) -> list[str]:
    """Return the dotted paths of the forbidden functions mentioned in the code, resolving imports and aliases."""
    names = set(not_allowed)
    if not names:
        return []
    facts = [_facts(source, vocabulary) for source in sources]
    found = dict.fromkeys(_used_imports(sources, facts, names))
    found |= dict.fromkeys(path for path in _mentions(facts, _paths(facts)) if _parts(path) & names)
    return list(found)[:MAX_SHOWN]


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
    # Paths of star imports and of imports in functions and classes, expressions that may refer to a library, and any
    # use of the keyword `enable_gqa`.
    mentions: tuple[str | Chain, ...] = ()


NOTHING = _Facts()


@lru_cache(maxsize=20_000)  # cached, because exercises in a notebook share most of their code
def _facts(source: str, vocabulary: Vocabulary) -> _Facts:
    imports: list[tuple[str, str]] = []
    module_level: list[tuple[str, str]] = []
    aliases: list[tuple[str, Chain]] = []
    mentions: list[str | Chain] = []
    is_library = vocabulary.is_library
    inside: set[int] = set()  # ids of nodes in chains already found
    with gc_paused():
        statements = ast.parse(source).body
        outer = _module_level_imports(statements)
        for node in walk(statements):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = [(b, path) for b, path in _imported(node) if is_library(path)]
                imports += found
                if id(node) in outer:
                    module_level += [(b, path) for b, path in found if b != "*"]
                    mentions += [path for b, path in found if b == "*"]
                else:
                    whole = _imported(node, whole=True)
                    mentions += [path for _, path in whole if is_library(path)]
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, chain = node.targets[0], _chain(node.value, set(), is_library)
                if isinstance(target, ast.Name) and chain:
                    aliases.append((target.id, chain))
            elif isinstance(node, ast.keyword) and node.arg == "enable_gqa":
                if not (isinstance(node.value, ast.Constant) and not node.value.value):
                    mentions.append(node.arg)
            elif isinstance(node, (ast.Attribute, ast.Call)) and id(node) not in inside:
                chain = _chain(node, inside, is_library)
                if chain and (chain.is_module or not vocabulary.names.isdisjoint(chain.names)):
                    mentions.append(chain)
    if not (imports or aliases or mentions):
        return NOTHING
    parts = (imports, module_level, aliases, mentions)
    return _Facts(*(tuple(dict.fromkeys(each)) for each in parts))  # type: ignore[arg-type]


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
    """Yield the forbidden paths imported at module level whose names the code reads.

    A name that a unit reads immediately refers to the last binding before the unit, or else to a later one. A name in a
    function's body refers to the last binding.
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
        for name in sorted(unit.at_once & paths.keys()):
            yield from paths.pop(name)
        read_at_end |= unit.reads - (unit.at_once & bound)
        for name in unit.surely:
            paths.pop(name, None)
        for name, path in new:
            paths.setdefault(name, []).append(path)
            # `import a as b; f = b` reads the name after binding it, so `reads` does not contain the name.
            read_at_end |= {name} & loaded
        bound |= unit.surely
    for name in sorted(read_at_end & paths.keys()):
        yield from paths[name]


@lru_cache(maxsize=20_000)
def _unit(source: str) -> tuple[Unit, frozenset[str]]:
    """Return a unit with the given source, and all names that it loads."""
    with gc_paused():
        statements = ast.parse(source).body
        names = (node for node in walk(statements) if isinstance(node, ast.Name))
        loaded = frozenset(name.id for name in names if isinstance(name.ctx, ast.Load))
        return make_unit(source, statements, 1), loaded


def _path(chain: Chain, paths: Mapping[str, str]) -> str:
    root = chain.root if chain.is_module else paths.get(chain.root, "")
    # Only hostile chains of aliases produce longer paths.
    return ".".join([root, *chain.names][:MAX_PARTS]) if root and len(root) < MAX_ROOT else ""


def _chain(node: ast.AST, inside: set[int], is_library: Callable[[str], bool]) -> Chain | None:
    """Convert an expression to a chain, and add the ids of the chain's nodes to `inside`.

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
