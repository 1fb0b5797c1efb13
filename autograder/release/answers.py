"""Check that a release contains no constant answer and no exact number that only hidden tests contain. Entry point: `check`.

The build never stores the results of an exercise without parameters. The answer is one value, and students could read it.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

from nbformat import NotebookNode
from torch import Tensor

from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.execution.answer_key import given_units, load_solution, solution_units
from autograder.release import helper_cells

DIGITS = 6  # numbers with fewer significant digits can occur by chance
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e[+-]?\d+)?")
EMBEDDED = re.compile(r"base64,([\w+/]+=*)")


def check(release: NotebookNode, day: Day) -> None:
    """Raise CourseError if the decoded release contains an answer that the visible checks do not show."""
    constant = [
        cell.name for c in day.chapters for cell in c.cells if cell.name and cell.is_constant
    ]
    answers = {name: list(_parts(_answer(day, name))) for name in constant if name in day.names}
    shown = _numbers(cell.source for c in day.chapters for cell in c.cells if cell.role == "checks")
    secret = {number: file.name for file in day.graders.glob("*.py") for number in _literals(file)}
    for name, parts in answers.items():
        secret |= {_rounded(part): name for part in parts if _is_exact(part)}
    for cell in release.cells:
        code, material = helper_cells.unpacked(cell.source)
        outputs = json.dumps(material.get("outputs", {}), ensure_ascii=False)
        stored = outputs + material.get("stand_ins", "")
        for name, parts in answers.items():
            texts = [part for part in parts if isinstance(part, str) and part]
            literals = [f"{quote}{text}{quote}" for text in texts for quote in ("'", '"')]
            if f'"{name}": ' in outputs or any(literal in stored for literal in literals):
                raise CourseError(
                    f"{day.name}, cell {cell.id}: the release contains the answer to {name}. "
                    "Remove its stand-in, or build the release again"
                )
        embedded = [
            base64.b64decode(found).decode("latin-1") for found in EMBEDDED.findall(cell.source)
        ]
        for number in _numbers([cell.source, *code.values(), stored, *embedded]) - shown:
            if number in secret:
                raise CourseError(
                    f"{day.name}, cell {cell.id}: the release contains {number}, which is an answer "
                    f"in {secret[number]}. Remove it from the text or the given code"
                )


def _answer(day: Day, name: str) -> Any:
    solution = load_solution(day, name, solution_units(day), given_units(day))
    return getattr(solution, name)()


def _parts(value: Any) -> Iterator[Any]:
    """Yield the strings and numbers in a value."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _literals(file: Any) -> set[str]:
    """Return the exact numbers in a grader."""
    nodes = ast.walk(ast.parse(read_text(file)))
    values = (node.value for node in nodes if isinstance(node, ast.Constant))
    return {_rounded(value) for value in values if _is_exact(value)}


def _numbers(texts: Iterable[str]) -> set[str]:
    """Return the exact numbers in texts, rounded."""
    found = (float(number) for text in texts for number in NUMBER.findall(text))
    return {_rounded(number) for number in found if _is_exact(number)}


def _is_exact(value: object) -> TypeGuard[float]:
    """Return whether a value is a float with at least `DIGITS` significant digits."""
    if not isinstance(value, float):
        return False
    digits = re.sub(r"\D", "", repr(value).partition("e")[0])
    return len(digits.strip("0")) >= DIGITS


def _rounded(value: float) -> str:
    return f"{abs(value):.{DIGITS}g}"
