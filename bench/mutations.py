"""Generate mutants of the reference solutions: small changes that a hidden grader should detect. Entry point: `mutants`.

Only code between the solution markers is changed.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autograder.course.chapters import BEGIN, END
from autograder.course.config import Day, Exercise

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
PAIRS = [
    ("sin", "cos"), ("tril", "triu"), ("ones", "zeros"), ("any", "all"), ("sum", "mean"),
    ("amax", "amin"), ("argmax", "argmin"), ("min", "max"), ("exp", "square"), ("double", "float"),
    ("train", "eval"), ("norm1", "norm2"), ("query", "key"), ("float64", "float32"),
]  # fmt: skip
NAMES = dict(PAIRS) | {second: first for first, second in PAIRS}

# A key omits its mutant's line number, so it remains valid when lines above the mutant change.
Key = tuple[str, str, int, str, str]


@dataclass(frozen=True)
class Mutant:
    """An exercise's solution with one small change.

    The change is in the line `code`, at `column`: it replaces the expression or statement `before` with `after`.
    `source` is the source of the whole changed cell.
    """

    exercise: str
    code: str
    column: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> Key:
        """Return the key that identifies the mutant in the list of survivors."""
        return (self.exercise, self.code, self.column, self.before, self.after)


def mutants(day: Day, exercise: Exercise) -> Iterator[Mutant]:
    """Yield each of an exercise's mutants once, in source order."""
    source = solution(day, exercise)
    lines, inside = source.split("\n"), _solution_lines(source)
    tree = ast.parse(source)
    seen: set[tuple[int, int, str, str]] = set()
    parts_of_texts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in list(ast.walk(tree)):
        if not isinstance(node, ast.expr | ast.stmt) or id(node) in parts_of_texts:
            continue
        if node.lineno not in inside:
            continue
        for changed in _replacements(node):
            before, after = ast.unparse(node), ast.unparse(changed) or "pass"
            place_and_change = (node.lineno, node.col_offset, before, after)
            if before == after or place_and_change in seen:
                continue
            seen.add(place_and_change)
            # Changing the tree and changing it back is much faster than copying it.
            text = ast.unparse(ast.fix_missing_locations(_Replace(node, changed).visit(tree)))
            _Replace(changed, node).visit(tree)
            code = lines[node.lineno - 1].strip()
            yield Mutant(exercise.name, code, node.col_offset, before, after, text)


def solution(day: Day, exercise: Exercise) -> str:
    """Return the source of the cell that defines an exercise."""
    chapter = next(chapter for chapter in day.chapters if chapter.name == exercise.chapter)
    return chapter.exercise(exercise.name).source


def _solution_lines(source: str) -> set[int]:
    """Return the numbers of the lines between the solution markers."""
    lines: set[int] = set()
    inside = False
    for number, line in enumerate(source.split("\n"), 1):
        inside = (inside or BEGIN in line) and END not in line
        if inside:
            lines.add(number)
    return lines


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, changed: ast.AST) -> None:
        self._target, self._changed = target, changed

    def visit(self, node: ast.AST) -> ast.AST:
        return self._changed if node is self._target else self.generic_visit(node)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the syntax tree nodes that may replace the given node in a mutant."""

    def replace(**fields: object) -> ast.AST:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        return changed

    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield replace(ops=[COMPARISONS[type(operator)]()])
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            yield replace(op=OPERATORS[type(operator)]())
            yield node.left
            yield node.right
        case ast.UnaryOp():
            yield node.operand
        case ast.BoolOp(op=operator, values=values):
            yield replace(op=ast.Or() if isinstance(operator, ast.And) else ast.And())
            yield from values
        case ast.Constant(value=bool() as value):
            yield replace(value=not value)
        case ast.Constant(value=int() | float() as value):
            yield replace(value=value + 1)
            yield replace(value=value - 1)
        case ast.Constant(value=str()) | ast.JoinedStr():
            yield ast.Constant("")
        case ast.Attribute(attr=name) if name in NAMES:
            yield replace(attr=NAMES[name])
        case ast.Call():
            yield from _changed_calls(node, replace)
        case ast.Slice():
            yield from (replace(**{end: None}) for end in ("lower", "upper") if getattr(node, end))
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.If():
            yield replace(test=ast.Constant(True))
            yield replace(test=ast.Constant(False))
        case ast.Assign() | ast.AugAssign() | ast.Expr() | ast.Break() | ast.Continue():
            yield ast.Pass()


def _changed_calls(node: ast.Call, replace: Callable[..., ast.AST]) -> Iterator[ast.AST]:
    """Yield replacements for a call: the call without one argument, the object whose method is called, or the only argument."""
    for index in range(len(node.keywords)):
        kept = node.keywords[:index] + node.keywords[index + 1 :]
        yield replace(keywords=kept)
    if len(node.args) > 1:
        yield replace(args=node.args[:-1])
    if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
        yield node.func.value
    if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "math", "nn", "F")
