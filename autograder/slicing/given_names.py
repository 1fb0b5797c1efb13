"""Let the course's definitions override student definitions of the same names, and report conflicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import islice

from autograder.slicing.notebook_index import NotebookIndex
from autograder.slicing.same_name import has_same_effect
from autograder.slicing.unit import Unit

MAX_EDITS = 20  # maximum number of reported edits to course-provided names
# Maximum number of statements per course-provided name to compare with the course's statements.
MAX_COMPARED = 200


class GivenNames:
    """The names provided by the course, and how a student's notebook rebinds or changes them."""

    def __init__(self, index: NotebookIndex) -> None:
        self._index = index
        self._same: dict[tuple[int, int], bool] = {}
        self._edits: dict[str, list[tuple[int, str, str]]] = {}

    def in_order(self, taken: set[int]) -> Iterator[Unit]:
        """Yield units in execution order: course units first, then star imports and other early imports, then all other units.

        If a student's unit rebinds a name that the course provides, the course's unit runs again after it.
        """
        index = self._index
        own = index.defined_here & index.exercises

        def sort_key(position: int) -> tuple[bool, bool, int]:
            unit = index.units[position]
            # For example, `from torch.nn import LayerNorm, Linear` must not hide the student's own LayerNorm.
            hides_own = not own.isdisjoint(unit.imports)
            return position >= index.n_given, not (unit.first or hides_own), position

        for position in sorted(taken, key=sort_key):
            unit = index.units[position]
            yield unit
            if not unit.given and not unit.binds.isdisjoint(index.given_names):
                for other in self._hidden_by(position):
                    if other in taken:
                        yield index.units[other]

    def _hidden_by(self, position: int) -> list[int]:
        """Return the positions of course units with a name that the student's unit at `position` binds to a different object."""
        index = self._index
        conflicts = index.units[position].binds & index.given_names
        others = {p for name in conflicts for p in index.binders[name] if p < index.n_given}
        return [p for p in sorted(others) if self._differs(position, p, conflicts)]

    def _differs(self, position: int, other: int, conflicts: Collection[str]) -> bool:
        key = position, other
        if key not in self._same:
            unit, given = self._index.units[position], self._index.units[other]
            names = given.binds & set(conflicts)
            self._same[key] = all(has_same_effect(unit, given, name) for name in names)
        return not self._same[key]

    def edits(self, names: Collection[str]) -> Iterator[str]:
        """Yield a message for each student statement that rebinds or changes a name provided by the course."""
        given = self._index.given_names.intersection(names)
        found = [edit for name in given for edit in self._edits_of(name)]
        return (message for _, _, message in islice(sorted(found), MAX_EDITS))

    def _edits_of(self, name: str) -> list[tuple[int, str, str]]:
        index = self._index
        if not self._edits:
            self._edits = {n: [] for n in index.given_names}
            compared: dict[str, int] = defaultdict(int)
            for position, unit in enumerate(index.student):
                for each in (unit.binds | unit.changes) & index.given_names:
                    compared[each] += 1
                    if compared[each] <= MAX_COMPARED and (edit := self._describe(unit, each)):
                        message = f"cell {unit.cell}: `{each}` is provided by the course; {edit}"
                        self._edits[each].append((position, each, message))
        return self._edits[name]

    def _describe(self, unit: Unit, name: str) -> str:
        """Return a message if the student redefined or changed a course-provided name without effect. Otherwise, return ""."""
        given = self._index.units[: self._index.n_given]
        sources = [u for u in given if name in u.binds | u.changes]
        if any(has_same_effect(unit, other, name) for other in sources):
            return ""
        if name in unit.binds:
            return "your version of it is not used"
        return "" if name in self._index.imports else "your change to it is not used"
