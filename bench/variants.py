"""Generate variants of correct answers, so that a large class does not just repeat a few solutions. Entry point: `VARIANTS`."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Sequence

Cells = list[str]  # the code cells of a submission
DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
Variant = Callable[[Cells, random.Random], Cells]
EXPERIMENT = "x = torch.randn(2, 3)\nprint(x.shape, (x @ x.T).shape)\nx.view(5, 7)  # raises"


def keep(cells: Cells, draw: random.Random) -> Cells:
    """Return the cells unchanged."""
    return cells


def shuffle_cells(cells: Cells, draw: random.Random) -> Cells:
    """Shuffle the cells. Imports stay first, and definitions of the same name keep their order."""
    first, *rest = cells
    order = draw.sample(rest, len(rest))
    for name in dict.fromkeys(name for cell in rest for name in _defined(cell)):
        places = [place for place, cell in enumerate(order) if name in _defined(cell)]
        in_turn = [cell for cell in rest if name in _defined(cell)]
        for place, cell in zip(places, in_turn, strict=True):
            order[place] = cell
    return [first, *order]


def merge_cells(cells: Cells, draw: random.Random) -> Cells:
    """Join all cells into one."""
    return ["\n\n".join(cells)]


def split_cells(cells: Cells, draw: random.Random) -> Cells:
    """Put each statement into its own cell."""
    return [statement for cell in cells for statement in _statements(cell)]


def reformat(cells: Cells, draw: random.Random) -> Cells:
    """Remove comments and blank lines, and format the code differently."""
    return [_rewritten(cell, ast.NodeTransformer()) for cell in cells]


def duplicate_cells(cells: Cells, draw: random.Random) -> Cells:
    """Repeat every cell that contains only definitions, as if the student had forgotten to delete a copy."""
    return [copy for cell in cells for copy in ((cell, cell) if _only_defines(cell) else (cell,))]


def add_experiments(cells: Cells, draw: random.Random) -> Cells:
    """After each answer, insert an experiment that raises an error."""
    return [part for cell in cells for part in (cell, EXPERIMENT)]


def add_attempts(cells: Cells, draw: random.Random) -> Cells:
    """Before each function, insert a first attempt with an empty body."""
    return [part for cell in cells for part in (*_attempts(cell), cell)]


def rename_locals(cells: Cells, draw: random.Random) -> Cells:
    """Rename all local variables of functions."""
    return [_rewritten(cell, _RenameLocals()) for cell in cells]


def add_prints(cells: Cells, draw: random.Random) -> Cells:
    """Make each function print a message when it is called."""
    return [_rewritten(cell, _AddPrints()) for cell in cells]


VARIANTS: Sequence[Variant] = (
    *(keep, shuffle_cells, merge_cells, split_cells, reformat, duplicate_cells),
    *(add_experiments, add_attempts, rename_locals, add_prints),
)


def _tree(cell: str) -> ast.Module | None:
    """Parse a cell. Return None if the cell is not valid Python, for example because it contains magic commands."""
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
    """Return the source of each top-level function in a cell, with `pass` as its body."""
    tree = _tree(cell)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    for node in functions:
        node.body = [ast.Pass()]
        node.decorator_list = []
    return [ast.unparse(node) for node in functions]


class _RenameLocals(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Rename the variables that a function and its inner functions assign. Arguments keep their names."""
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


def _shared(node: ast.FunctionDef) -> set[str]:
    """Return the names that must not be renamed: global and nonlocal names, and the names of inner functions and classes."""
    outside = [n for n in ast.walk(node) if isinstance(n, ast.Global | ast.Nonlocal)]
    inner = [n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {name for n in outside for name in n.names} | set(inner)


class _AddPrints(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Insert a call to `print` at the beginning of a function, after its docstring."""
        call = ast.parse(f"print({node.name!r}, 'is called')").body
        first = 1 if ast.get_docstring(node) is not None else 0
        node.body[first:first] = call
        return node
