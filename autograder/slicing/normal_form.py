"""Write a statement without comments, blank lines and formatting. Entry point: `normal_form`."""

from __future__ import annotations

import ast
from functools import lru_cache

# Longer statements are run as they are, so that a notebook cannot make the reader spend its time here.
MAX_LENGTH = 50_000


@lru_cache(maxsize=4096)
def normal_form(source: str) -> tuple[str, tuple[int, ...]]:
    """Return a statement's normal form and, for each of its lines, the line of `source` that it comes from, counting from 0.

    If the statement is too long, or if its normal form would not be exactly the same code, return "" and no lines.
    """
    if len(source) > MAX_LENGTH:
        return "", ()
    try:
        tree = ast.parse(source)
        text = ast.unparse(tree)
        same = ast.parse(text)
        if not text or ast.dump(tree) != ast.dump(same):
            return "", ()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", ()
    places: dict[int, int] = {}
    for old, new in zip(ast.walk(tree), ast.walk(same), strict=True):
        if isinstance(old, (ast.stmt, ast.expr)) and isinstance(new, (ast.stmt, ast.expr)):
            places[new.lineno] = min(old.lineno, places.get(new.lineno, old.lineno))
    lines, line = [], 1
    for number in range(1, text.count("\n") + 2):
        line = places.get(number, line)
        lines.append(line - 1)
    return text, tuple(lines)
