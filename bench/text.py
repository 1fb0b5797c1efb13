"""Draw a random sample of docstrings, messages and explanations of mistakes for the two-reader check in CONTRIBUTING.md.

python -m bench.text SEED
"""

from __future__ import annotations

import argparse
import ast
import random
from collections.abc import Iterator
from pathlib import Path

from autograder.course import config
from autograder.execution import catalogue

ROOT = Path(__file__).parents[1]
FOLDERS = ("autograder", "bench", "graders", "tests")
DOCSTRINGS, MESSAGES, SENTENCES = 60, 60, 30
MIN_WORDS = 4  # shorter strings are names
CALLS = {
    "echo",
    "fail",
    "skip",
    "print",
    "Option",
    "Argument",
}  # functions that display their arguments


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield every docstring of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def messages(tree: ast.AST) -> Iterator[str]:
    """Yield every string that a module prints, yields or uses in an exception or assertion."""
    for node in ast.walk(tree):
        shown: list[ast.AST | None] = []
        if isinstance(node, ast.Raise):
            shown = [node.exc]
        elif isinstance(node, ast.Assert):
            shown = [node.msg]
        elif isinstance(node, ast.Yield):
            shown = [node.value]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            shown = [node] if name in CALLS or name.endswith("Error") else []
        for part in shown:
            yield from _texts(part)


def _texts(node: ast.AST | None) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield ast.unparse(node)[2:-1]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif node is not None:
        for part in ast.iter_child_nodes(node):
            yield from _texts(part)


def main() -> None:
    """Print the sample."""
    parser = argparse.ArgumentParser(prog="python -m bench.text", description=__doc__)
    parser.add_argument("seed", type=int)
    draw = random.Random(parser.parse_args().seed)
    trees = [
        ast.parse(file.read_text(encoding="utf-8"))
        for folder in FOLDERS
        for file in sorted((ROOT / folder).rglob("*.py"))
        if "styles" not in file.parts and "cells" not in file.parts
    ]
    days = config.load(ROOT).days.values()
    known = [
        m.sentence for day in days for own in catalogue.known_mistakes(day).values() for m in own
    ]
    for title, count, texts in (
        ("Docstrings", DOCSTRINGS, {text for tree in trees for text in docstrings(tree)}),
        ("Messages", MESSAGES, {text for tree in trees for text in messages(tree)}),
        ("Sentences about mistakes", SENTENCES, set(known)),
    ):
        long = sorted(text for text in texts if len(text.split()) >= MIN_WORDS)
        print(f"\n## {title}")
        for number, text in enumerate(draw.sample(long, count), 1):
            print(f"\n{number}. {text}")


if __name__ == "__main__":
    main()
