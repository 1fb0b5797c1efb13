"""Select the top-level statements in a notebook that an exercise needs.

`slice_for` follows names from the exercise's last definition to the units that bind and change them. A name that a unit
reads immediately refers to the last binding before that unit. If there is none, it refers to a later binding, because
cells may be out of order. A name in a function's body refers to the last binding in the notebook, but not to an
experiment such as `for step in range(3)` after `def step`. A binding inside `with demonstration():` counts only if
there is no other binding.

A binding discards earlier bindings and changes: `T = {}` discards an earlier `T["a"] = 1`. This does not apply if the
binding reads the name itself (`f = cache(f)`) or might not run (inside `if`, `for`, `try`). A call whose result is
unused is selected only if it changes an object that the exercise needs; see side_effects.py. A unit that runs `exec` or
writes to `globals()` is assumed to bind every name in its text.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import filterfalse, islice

from autograder.slicing.names import immediate_nodes, stored_names, walk
from autograder.slicing.notebook_index import BUILTINS, END, NotebookIndex
from autograder.slicing.side_effects import find_mutations
from autograder.slicing.statements import REFUSALS
from autograder.slicing.unit import Unit

QUOTED = re.compile(r"[\"']([^\W\d]\w*)[\"']")

# Limits per exercise, far above the needs of any ordinary notebook. Code beyond these limits is omitted and reported.
MAX_TAKEN = 5_000  # maximum number of units
MAX_FOLLOWED = 50_000  # maximum number of (name, moment) pairs
MAX_RELATED = 300  # maximum number of further units in a wider slice
MAX_INDEXED = 5_000  # maximum number of the student's units, because each wider slice indexes all of them again
MANY_STEPS = 500_000  # after this many steps, every name refers to its last binding


@dataclass(frozen=True)
class Code:
    """The code of one exercise: the units that run, in order, and the other exercises that those units use."""

    units: tuple[Unit, ...]
    reached: frozenset[str]
    problems: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Return all names that the code reads, including unbound names."""
        return self.reached.union(*(unit.reads for unit in self.units))


def slice_for(
    exercise: str, student: Sequence[Unit], given: Sequence[Unit], exercises: Collection[str]
) -> Code | None:
    """Return the code that an exercise needs, or None if the student does not define it.

    Names bound by the course's units resolve to those units, and all other names to the student's units. There is one
    exception: if the notebook contains both an unchanged course function or class and the student's own version, the
    name resolves to the student's version. This does not apply if other course units in the slice use the name.
    `problems` reports course-provided names that the student binds to something else or changes.
    """
    notebook = tuple(student), tuple(given), frozenset({exercise, *exercises})
    for prefer_own in (True, False):
        index, given_names = _index_notebook(*notebook, prefer_own)
        if not index.binders[exercise]:
            return None
        search = _search(index, exercise)
        if index.preferred.isdisjoint(search.read_by_course()):
            break
    return _code(exercise, search, given_names, exercises)


def wider_slice(
    exercise: str,
    student: Sequence[Unit],
    given: Sequence[Unit],
    exercises: Collection[str],
    released: Collection[str],
) -> Code | None:
    """Return an exercise's code, with all of the student's statements that may affect it.

    A statement is included if it mentions a name in the exercise's code, or in a statement that is already included.
    Demonstrations, statements from the release and definitions of other exercises are left out. The result covers
    registries, callbacks and aliases that `slice_for` does not follow, but may also contain unrelated experiments.

    Return None if the student does not define the exercise, or if the notebook or the result has too many statements.
    """
    if len(student) > MAX_INDEXED:
        return None
    names = frozenset({exercise, *exercises})
    index = NotebookIndex(tuple(student), tuple(given), names, True, exercise, released)
    if not index.binders[exercise]:
        return None
    search = _search(index, exercise)
    search.take_related(released)
    return None if search.is_cut else _code(exercise, search, GivenNames(index), exercises)


def _code(
    exercise: str, search: _Search, given_names: GivenNames, exercises: Collection[str]
) -> Code:
    names = set(search.names)
    problems = list(given_names.edits(names))
    # For example, a decorator may add definitions to a table that the code uses.
    names |= {name for position in search.taken for name in search.index.units[position].binds}
    if search.is_cut:
        problems.append(f"`{exercise}` depends on too many statements; some were left out")
    binders = search.index.binders
    return Code(
        units=tuple(given_names.in_order(search.taken)),
        reached=frozenset({n for n in names if n in exercises and binders[n]} - {exercise}),
        problems=tuple(problems),
    )


def _search(index: NotebookIndex, exercise: str) -> _Search:
    """Search for the units that an exercise needs, and return the completed search."""
    search = _Search(index)
    search.follow([(exercise, END)])
    defined = index.binders[exercise][-1]
    for position in index.always:
        # Settings after the definition belong to experiments.
        if index.wide_for or position < defined or not index.units[position].is_setting:
            search.take(position, END)
    search.follow([])
    # The set of functions that the exercise calls is now complete. Calls to these functions in the notebook are
    # demonstrations. Calls to other functions, such as `init_tables()` or `register(f)`, may fill a table that the
    # exercise needs.
    search.take_side_effects(frozenset(search.names))
    return search


# Cache the last notebook's indices by `prefer_own`, because a submission's exercises are sliced one after another.
_last: dict[bool, tuple[NotebookIndex, GivenNames]] = {}


def _index_notebook(
    student: tuple[Unit, ...], given: tuple[Unit, ...], exercises: frozenset[str], prefer_own: bool
) -> tuple[NotebookIndex, GivenNames]:
    if prefer_own not in _last or _last[prefer_own][0].key != (student, given, exercises):
        index = NotebookIndex(student, given, exercises, prefer_own)
        _last[prefer_own] = index, GivenNames(index)
    return _last[prefer_own]


class _Search:
    """A search that follows names to the units that define them. It visits each unit at most once per moment."""

    def __init__(self, index: NotebookIndex) -> None:
        self.index = index
        self.taken: set[int] = set()
        self.names: dict[str, None] = {}
        self.is_cut = False
        self._settled: set[int] = set()  # selected units whose functions read no names
        self._done: set[tuple[str, int]] = set()
        self._followed: set[tuple[int, int]] = set()
        self._pending: list[tuple[str, int]] = []
        self._steps = 0

    def follow(self, names: Iterable[tuple[str, int]]) -> None:
        """Select the units that define the given names, and recursively all units that they depend on.

        `names` contains pairs of a name and the position in the notebook at which other code uses it.
        """
        self._pending += names
        while self._pending and not self.is_cut:
            name, moment = self._pending.pop()
            if self._steps > MANY_STEPS:
                moment = END
            if (name, moment) not in self._done:
                self._done.add((name, moment))
                self.names[name] = None
                self.is_cut = len(self._done) > MAX_FOLLOWED
                defining = self.index.units_defining(name, moment)
                self._steps += len(defining)
                for position in filterfalse(self._settled.__contains__, defining):
                    self.take(position, moment)

    def take(self, position: int, moment: int) -> None:
        """Select a unit, and queue the names that it reads.

        `moment` is the position at which other code uses the object that the unit defines.
        """
        if (position, moment) in self._followed or self.is_cut:
            return
        self._followed.add((position, moment))
        unit = self.index.units[position]
        reads_now, later = self.index.reads(position)
        if position not in self.taken:
            self.taken.add(position)
            self.is_cut = len(self.taken) > MAX_TAKEN
            # A function called at this moment reads its globals now. An object that the function returns may read them
            # at the end.
            moments = {moment, END}
            if unit.runs_code:
                moments.add(position)  # `sorted(table, key=lambda …)` calls the lambda now
            self._pending += [(name, position) for name in reads_now]
            self._pending += [(w, END) for w in unit.hints if w in self.index.defined]
            if not later:
                self._settled.add(position)
        else:
            moments = {moment}
        self._steps += 10 + len(later)
        self._pending += [(name, m) for name in later for m in moments]

    def read_by_course(self) -> set[str]:
        """Return the names read by the selected course units."""
        units = self.index.units
        return set[str]().union(*(units[p].reads for p in self.taken if p < self.index.n_given))

    def take_side_effects(self, called_by_exercise: Collection[str]) -> None:
        """Select calls that change objects needed by the exercise, except calls to functions that the exercise itself calls."""
        index = self.index
        seen: set[int] = set()
        n_names = 0
        while n_names < len(self.names):
            new = list(islice(reversed(self.names), len(self.names) - n_names))
            n_names = len(self.names)
            callers: list[int] = []
            changing = {p for name in new for p in index.functions_changing[name]} - seen
            seen |= changing
            functions = {f for p in changing for f in index.units[p].binds}
            for function in functions:
                callers += index.received_by[function]
                if function not in index.exercises and function not in called_by_exercise:
                    callers += index.called[function]
            for position in callers:
                if position not in self.taken:
                    self.take(position, END)
            self.follow([])

    def take_related(self, released: Collection[str]) -> None:
        """Select the student's statements that mention a name in the selected code. Repeat until no more are found."""
        index = self.index
        others = index.exercises - {index.wide_for}
        mentioning: dict[str, list[int]] = defaultdict(list)
        for position, unit in enumerate(index.units[index.n_given :], start=index.n_given):
            if not (unit.is_demonstration or unit.source in released or unit.binds & others):
                for name in unit.reads | unit.binds | unit.changes:
                    mentioning[name].append(position)
        unrelated = index.imports | index.given_names | others | (BUILTINS - index.binders.keys())
        limit = len(self.taken) + MAX_RELATED
        seen: set[int] = set()
        while new := self.taken - seen:
            seen |= new
            units = [index.units[position] for position in new if position >= index.n_given]
            names = {name for unit in units for name in unit.reads | unit.binds | unit.changes}
            # `globals()["f"]` and `getattr(module, "f")` also mention f.
            names |= {name for unit in units for name in QUOTED.findall(unit.source)}
            for name in names - unrelated:
                for position in mentioning.pop(name, ()):
                    self.take(position, END)
            self.follow([])
            self.is_cut |= len(self.taken) > limit


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
            return position >= index.n_given, not (unit.runs_first or hides_own), position

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


LONG = 20_000  # maximum characters in a compared statement; the course's statements are shorter


def has_same_effect(unit: Unit, other: Unit, name: str) -> bool:
    """Return whether `other` binds or changes `name` in every way that `unit` does."""
    if unit.source == other.source:
        return True
    if len(unit.source) > LONG:
        return False
    return _meanings(unit.source, name) <= _meanings(other.source, name)


@lru_cache(maxsize=1024)
def _meanings(source: str, name: str) -> frozenset[str]:
    meanings: set[str] = set()
    try:
        for statement in ast.parse(source).body:
            meanings |= _meanings_of(statement, name)
    except REFUSALS:
        return frozenset({source})
    return frozenset(meanings)


def _meanings_of(statement: ast.stmt, name: str) -> set[str]:
    if isinstance(statement, ast.Import):
        return {
            alias.name if alias.asname == name else name
            for alias in statement.names
            if name in (alias.asname, alias.name.partition(".")[0])
            and (alias.asname or name) == name
        }
    if isinstance(statement, ast.ImportFrom):
        found = [a.name for a in statement.names if (a.asname or a.name) == name]
        return {f"{statement.module}.{each}" for each in found}
    nodes = immediate_nodes([statement])
    if name not in stored_names(nodes) and name not in find_mutations(nodes).names:
        return set()
    for node in walk([statement]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return {ast.dump(statement)}
