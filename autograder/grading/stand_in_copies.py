"""Find exercises whose code was copied from the stand-ins that a release contains. Entry point: `StandInCopies`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from autograder.course.config import CourseError, Day
from autograder.course.files import read_text
from autograder.slicing.slicer import Slice
from autograder.submissions.cell import hash_code

MIN_LENGTH = 200  # characters; independent solutions may be identical to a shorter stand-in


class StandInCopies:
    """Finds exercises whose code was copied from a day's stand-ins, which the released notebook contains."""

    def __init__(self, day: Day) -> None:
        """Read the day's stand-ins, if it has any.

        Raises:
            CourseError: The file cannot be read or is not valid Python.
        """
        text = read_text(day.stand_ins) if day.stand_ins.is_file() else ""
        try:
            nodes = ast.parse(text).body
        except SyntaxError as error:
            raise CourseError(f"{day.stand_ins}, line {error.lineno}: {error.msg}") from None
        sources = [(node, ast.get_source_segment(text, node) or "") for node in nodes]
        self._names = {
            hash_code([source]): node.name
            for node, source in sources
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and len(source) >= MIN_LENGTH
        }

    def problems(self, slices: Mapping[str, Slice]) -> Iterator[str]:
        """Yield a problem that lists the exercises with copied code, if there are any."""
        pieces = {
            piece.source for code in slices.values() for piece in code.pieces if not piece.given
        }
        copied = {self._names.get(hash_code([source]), "") for source in pieces} - {""}
        if copied:
            names = ", ".join(f"`{name}`" for name in slices if name in copied)
            yield f"code copied from the stand-ins that the notebook contains: {names}"
