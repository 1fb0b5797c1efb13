"""Read the known mistakes of a day from `mistakes/`."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from autograder.course.config import CourseError, Day
from autograder.course.percent import split_cells


@dataclass(frozen=True)
class Mistake:
    """A known mistake of an exercise: its name, and its code with what that imports."""

    exercise: str
    name: str
    source: str

    @property
    def sentence(self) -> str:
        """What the student reads: the docstring of the definition, in one line."""
        for node in ast.parse(self.source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == self.exercise:
                return " ".join((ast.get_docstring(node) or "").split())
        return ""


def known_mistakes(day: Day) -> dict[str, list[Mistake]]:
    """The known mistakes of each exercise of a day, from `mistakes/`."""
    found: dict[str, list[Mistake]] = {name: [] for name in day.names}
    for file in sorted(day.mistakes.glob("*.py")):
        _, [(_, imports), *mistakes] = split_cells(file.read_text(encoding="utf-8"))
        for options, source in mistakes:
            title = options.strip()
            exercise, _, name = title.partition(": ")
            if exercise not in found or not name:
                raise CourseError(f"{file}: {title!r} should be `EXERCISE: what is wrong`")
            found[exercise].append(Mistake(exercise, name, imports + source.rstrip() + "\n"))
    return found
