"""Reduce a day's chapters to the exercises that students fill in. Entry point: `select`.

Students get the reference solution to any other exercise that the rest of the day uses. Exercises that nothing uses are
left out. A chapter in which students fill in nothing is left out unless another chapter uses it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from autograder.course.chapters import Chapter, ChapterCell
from autograder.course.files import CourseError

HEADING = re.compile(r"#{1,6} ")
# A hint cell begins with a `<details>` block. Answers to questions do not match, because they follow their questions.
HINTS = re.compile(r"\A(<details>.*?</details>\s*)+", re.DOTALL)


def select(
    chapters: Sequence[Chapter], assigned: Collection[str], others: Mapping[str, bool]
) -> tuple[Chapter, ...]:
    """Return the chapters, keeping only the content that students get.

    Args:
        chapters: The complete chapters.
        assigned: The exercises that students fill in.
        others: All other exercises. True means that students get the reference solution even if nothing uses it.

    Raises:
        CourseError: An exercise in `others` is not in any chapter.
    """
    if not others:
        return tuple(chapters)
    for name in others.keys() - {cell.name for cell in _exercises(chapters)}:
        raise CourseError(
            f"no chapter contains the exercise {name}, so its solution cannot be given to students"
        )
    given = [name for name, is_given in others.items() if is_given]
    kept = _used_chapters(chapters, {*assigned, *given})
    needed = _needed_exercises(kept, {*assigned, *given})
    return tuple(replace(c, cells=tuple(_cells(c, assigned, needed))) for c in kept)


def _exercises(chapters: Iterable[Chapter]) -> Iterator[ChapterCell]:
    for chapter in chapters:
        yield from (cell for cell in chapter.cells if cell.role == "exercise")


# ---- used chapters and exercises


def _used_chapters(chapters: Sequence[Chapter], wanted: Collection[str]) -> list[Chapter]:
    """Return the chapters that contain an exercise in `wanted`, and all chapters that they depend on."""
    kept = [c for c in chapters if any(cell.name in wanted for cell in _exercises([c]))]
    while True:
        read = {name for chapter in kept for name in _names_from_others(chapter)}
        more = [c for c in chapters if c not in kept and not read.isdisjoint(_defined(c))]
        if not more:
            return [chapter for chapter in chapters if chapter in kept]
        kept += more


def _needed_exercises(chapters: Sequence[Chapter], wanted: Collection[str]) -> set[str]:
    """Return `wanted`, plus the exercises that demonstrations or provided code use, and all exercises on which these depend.

    An exercise depends on the exercises that its solution and its checks use.
    """
    needed = set(wanted)
    while True:
        read = {
            name
            for chapter in chapters
            for cell in chapter.cells
            if cell.role not in ("exercise", "checks") or cell.name in needed
            for name in _read(cell)
            if name != cell.name
        }
        more = {cell.name for cell in _exercises(chapters)} & read - needed
        if not more:
            return needed
        needed |= more


def _names_from_others(chapter: Chapter) -> set[str]:
    """Return the names that a chapter imports from other chapters, or uses without defining them."""
    imported, read, bound = set(), set(), set()
    for cell in chapter.cells:
        read |= _read(cell)
        for node in _nodes(cell):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("solutions."):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            else:
                bound |= _bound(node)
    return imported | (read - bound)


def _defined(chapter: Chapter) -> set[str]:
    return {name for cell in chapter.cells for node in _nodes(cell) for name in _bound(node)}


def _bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.arg):
        return {node.arg}
    return {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()


def _read(cell: ChapterCell) -> set[str]:
    names = (node for node in _nodes(cell) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def _nodes(cell: ChapterCell) -> tuple[ast.AST, ...]:
    return () if cell.role == "text" else _parsed(cell.source)


@lru_cache(maxsize=1024)
def _parsed(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(source)))


# ---- remaining cells


def _cells(
    chapter: Chapter, assigned: Collection[str], needed: Collection[str]
) -> Iterator[ChapterCell]:
    """Yield a chapter's cells. For exercises that students do not get, omit the solution, checks, hints and text."""
    for section in _sections(chapter.cells):
        inside = [cell.name for cell in section if cell.role == "exercise"]
        if inside and not any(name in needed for name in inside):
            section = [cell for cell in section if cell.role != "text"]
        exercise = ""
        for cell in section:
            exercise = cell.name if cell.role == "exercise" else exercise
            if cell.role in ("exercise", "checks") and cell.name not in assigned:
                if cell.role == "exercise" and cell.name in needed:
                    yield replace(cell, role="given", source=cell.solution)
            elif cell.role == "text" and exercise and exercise not in assigned:
                if text := HINTS.sub("", cell.source).strip():
                    yield replace(cell, source=text)
            else:
                yield cell


def _sections(cells: Sequence[ChapterCell]) -> list[list[ChapterCell]]:
    """Split cells into sections. A section begins at a text cell with a heading."""
    sections: list[list[ChapterCell]] = [[]]
    for cell in cells:
        if cell.role == "text" and HEADING.match(cell.source):
            sections.append([])
        sections[-1].append(cell)
    return sections
