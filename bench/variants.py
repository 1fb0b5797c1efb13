"""The same right answers written down in other ways, by rule: what a class of a thousand has that a handful of styles has not."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Collection, Sequence

Cells = list[str]  # the code cells of a hand-in
DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
Variant = Callable[[Cells, random.Random], Cells]
EXPERIMENT = "x = torch.randn(2, 3)\nprint(x.shape, (x @ x.T).shape)\nx.view(5, 7)  # raises"


def as_it_is(cells: Cells, draw: random.Random) -> Cells:
    """Nothing is changed."""
    return cells


def moved(cells: Cells, draw: random.Random) -> Cells:
    """The cells in another order; imports stay first, and of two definitions of a name the later stays the later."""
    first, *rest = cells
    order = draw.sample(rest, len(rest))
    for name in dict.fromkeys(name for cell in rest for name in _defined(cell)):
        places = [place for place, cell in enumerate(order) if name in _defined(cell)]
        in_turn = [cell for cell in rest if name in _defined(cell)]
        for place, cell in zip(places, in_turn, strict=True):
            order[place] = cell
    return [first, *order]


def merged(cells: Cells, draw: random.Random) -> Cells:
    """All in one cell."""
    return ["\n\n".join(cells)]


def split(cells: Cells, draw: random.Random) -> Cells:
    """A cell for each statement."""
    return [statement for cell in cells for statement in _statements(cell)]


def reformatted(cells: Cells, draw: random.Random) -> Cells:
    """Without comments and blank lines, as another formatter would have it."""
    return [_rewritten(cell, ast.NodeTransformer()) for cell in cells]


def doubled(cells: Cells, draw: random.Random) -> Cells:
    """Every cell that only defines something twice: copied, and forgotten."""
    return [copy for cell in cells for copy in ((cell, cell) if _only_defines(cell) else (cell,))]


def with_experiments(cells: Cells, draw: random.Random) -> Cells:
    """Between the answers what was tried, with an error."""
    return [part for cell in cells for part in (cell, EXPERIMENT)]


def first_wrong(cells: Cells, draw: random.Random) -> Cells:
    """Before each function an attempt at it that was given up."""
    return [part for cell in cells for part in (*_attempts(cell), cell)]


def renamed(cells: Cells, draw: random.Random) -> Cells:
    """Other names for all local variables of functions."""
    return [_rewritten(cell, _Renamed()) for cell in cells]


def speaking(cells: Cells, draw: random.Random) -> Cells:
    """Functions that print when they are called."""
    return [_rewritten(cell, _Speaking()) for cell in cells]


VARIANTS: Sequence[Variant] = (
    *(as_it_is, moved, merged, split, reformatted, doubled),
    *(with_experiments, first_wrong, renamed, speaking),
)


def _tree(cell: str) -> ast.Module | None:
    """None for a cell with magics."""
    try:
        return ast.parse(cell)
    except SyntaxError:
        return None


def _statements(cell: str) -> list[str]:
    tree = _tree(cell)
    return [ast.unparse(node) for node in tree.body] if tree else [cell]


def _defined(cell: str) -> list[str]:
    tree = _tree(cell)
    return (
        [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if tree
        else []
    )


def _only_defines(cell: str) -> bool:
    tree = _tree(cell)
    return tree is not None and all(isinstance(n, DEFINITIONS) for n in tree.body)


def _rewritten(cell: str, by: ast.NodeTransformer) -> str:
    tree = _tree(cell)
    return ast.unparse(by.visit(tree)) if tree else cell


def _attempts(cell: str) -> list[str]:
    """Each top-level function of a cell with `pass` for its body."""
    tree = _tree(cell)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    for node in functions:
        node.body = [ast.Pass()]
        node.decorator_list = []
    return [ast.unparse(node) for node in functions]


class _Renamed(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Rename what a function assigns, also in the functions inside it; arguments keep their names."""
        kept = {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
        kept |= _shared(node)
        stored = {
            name.id
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        names = {name: f"my_{name}" for name in stored - kept}
        for name in ast.walk(node):
            if isinstance(name, ast.Name):
                name.id = names.get(name.id, name.id)
        return node


def _shared(node: ast.FunctionDef) -> Collection[str]:
    """Names that a function takes from outside."""
    outside = [n for n in ast.walk(node) if isinstance(n, ast.Global | ast.Nonlocal)]
    inner = [n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {name for n in outside for name in n.names} | set(inner)


class _Speaking(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Print the name first; a docstring stays where it is."""
        said = ast.parse(f"print({node.name!r}, 'is called')").body
        first = 1 if ast.get_docstring(node) is not None else 0
        node.body[first:first] = said
        return node
