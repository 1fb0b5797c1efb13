"""Which top-level statements of a notebook must run so that one exercise works, and no others.

`needed` follows names from the exercise's last definition to the units that bind and change them.
A name that a unit reads at once is what the last binding before it says; if there is none, a later
one, for cells may stand in any order. A name that a function's body reads is what the last binding
of the notebook says.

A binding replaces the earlier ones and what was done to them (`T = {}` after `T["a"] = 1`), unless
it reads the name itself (`f = cache(f)`) or may not happen (inside `if`, `for`, `try`). A bare call
is taken only where it changes something needed: changes.py says what counts. A unit
that runs `exec` or writes to `globals()` may bind every name in its text.
"""

import ast
import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autograder.changes import changed_by, is_changing
from autograder.scopes import run_at_once, stored_in
from autograder.units import REFUSALS, Unit, units_of

__all__ = ["Code", "Unit", "needed", "units_of"]

END = 1 << 60  # a moment after every unit: when the grader calls the exercise
MANY = 200_000  # names read, after which only last bindings are followed (a hostile notebook)


@dataclass(frozen=True)
class Code:
    """The code of one exercise: what runs, in order, and which other exercises it reaches."""

    units: tuple[Unit, ...]
    reached: frozenset[str]
    problems: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """All names that the code reads, those that nothing binds included."""
        return self.reached.union(*(unit.reads for unit in self.units))


def needed(
    exercise: str, student: Sequence[Unit], given: Sequence[Unit], exercises: Collection[str]
) -> Code | None:
    """Returns the units that the exercise needs, in the order in which they run; None without any.

    Names resolve to the student's units, except that names bound by given units are always the
    course's. A given name that the student binds or changes otherwise is told in `problems`.
    """
    notebook = _indexed(tuple(student), tuple(given), frozenset({exercise, *exercises}))
    if not notebook.binders[exercise]:
        return None
    search = _Search(notebook)
    search.follow([(exercise, END)])
    for position, unit in enumerate(notebook.units):
        if unit.always:
            search.take(position, END)
    search.follow([])
    # Only now is it known which functions the exercise calls itself: their calls elsewhere are
    # demonstrations, while a call of another one may fill a table (`init_tables()`, `register(f)`).
    reached_functions = frozenset(search.names)
    while fillers := notebook.fillers(search.names, reached_functions) - search.taken:
        for position in fillers:
            search.take(position, END)
        search.follow([])
    reached = {n for n in search.names if n in exercises and notebook.binders[n]} - {exercise}
    return Code(
        units=tuple(notebook.in_order(search.taken)),
        reached=frozenset(reached),
        problems=tuple(notebook.edits_of_given(search.names)),
    )


class _Notebook:
    """The units of the course and the student in one line, and who binds and changes what."""

    def __init__(
        self, student: Sequence[Unit], given: Sequence[Unit], exercises: frozenset[str]
    ) -> None:
        given = [u for u in given if not u.main_only]
        copies = {unit.source for unit in given}
        self.student = student
        self.n_given = len(given)
        self.exercises = exercises
        self.given_names = {n for u in given for n in u.binds} - exercises
        own = [
            u
            for u in student
            if not u.main_only and (u.source not in copies or u.binds & exercises)
        ]
        self.units = [*given, *own]
        self.defined_here = {n for u in own for n in u.defines - u.imports}
        self.classes = {n: u.methods for u in self.units for n in u.binds if u.methods}
        self.binders: dict[str, list[int]] = defaultdict(list)
        self.changers: dict[str, list[int]] = defaultdict(list)
        self.made_from: dict[str, set[str]] = defaultdict(set)
        for unit in self.units:
            for name, source in unit.made_from:
                self.made_from[name].add(source)
        for position, unit in enumerate(self.units):
            for name in unit.binds:
                if self._may_bind(position, name) and self._is_definition(unit, name, exercises):
                    self.binders[name].append(position)
        self.imports = {n for n, ps in self.binders.items() if n in self.units[ps[-1]].imports}
        for position, unit in enumerate(self.units):
            for name in unit.changes | {root for root, _ in unit.calls}:
                if self._may_change(position, name) and self._changes(unit, name):
                    self.changers[name].append(position)

    def _may_bind(self, position: int, name: str) -> bool:
        return position < self.n_given or name not in self.given_names

    def _may_change(self, position: int, name: str) -> bool:
        # `nn.Module.device = property(…)` is the student's, `KeyValueCache.append = …` is not.
        return self._may_bind(position, name) or name in self.imports

    def _is_definition(self, unit: Unit, name: str, exercises: frozenset[str]) -> bool:
        """False where an exercise's name is taken for a result or another library's function.

        `out, attention = layer(x)` and `from torch.nn import LayerNorm`, for a comparison, do not
        replace the student's own definition.
        """
        if name not in exercises or name not in self.defined_here:
            return True
        if name in unit.defines:
            return name not in unit.imports
        sources = {source for target, source in unit.made_from if target == name}
        return bool(sources & self.defined_here)

    def _changes(self, unit: Unit, name: str) -> bool:
        if name in unit.changes:
            return True
        if name in self.imports:  # `torch.add(…)`, `plt.rcParams.update(…)`
            return False
        own = {m for c in {name, *self.made_from[name]} for m in self.classes.get(c, ())}
        return any(r == name and (is_changing(m) or m in own) for r, m in unit.calls)

    def chain(self, name: str, moment: int) -> list[int]:
        """The units that make what the name stands for at a moment: a binding, and its changes."""
        binders, changers = self.binders[name], self.changers[name]
        # What reads the name before anything has bound it can only have been run later.
        alone = [p for p in binders if name not in self.units[p].at_once]
        first = min(alone or binders, default=0)
        if moment <= first:
            moment = END
        everything = sorted({*binders, *changers})
        replaced_at = max(
            (p for p in binders if first <= p < moment and name in self.units[p].surely), default=0
        )
        return [
            p
            for p in everything
            if replaced_at <= p < moment
            or (p < first and (p in changers or p not in alone))
            or (name in self.units[p].imports and p in changers)  # `import torch.fx` stays done
        ]

    def fillers(self, names: Collection[str], reached: Collection[str]) -> set[int]:
        """Units that call a function which changes one of the names when called.

        A module is no table: a function that calls `torch.manual_seed` fills nothing.
        """
        filled = set(names) - self.imports
        functions = {
            f
            for u in self.units
            if not u.effects.isdisjoint(filled) and u.reads.isdisjoint(self.exercises)
            for f in u.binds
        } - self.exercises
        return {
            position
            for position, u in enumerate(self.units)
            if not functions.isdisjoint(u.decorators)
            or not (functions - set(reached)).isdisjoint(u.called)
        }

    def in_order(self, taken: set[int]) -> Iterator[Unit]:
        """The course's units, then star imports and the like, then the rest of the notebook.

        After a student's unit that also binds a given name, the given one comes again.
        """
        own = self.defined_here & self.exercises

        def place(position: int) -> tuple[bool, bool, int]:
            unit = self.units[position]
            hides_own = not own.isdisjoint(unit.imports)  # from torch.nn import LayerNorm, Linear
            return position >= self.n_given, not (unit.first or hides_own), position

        positions = sorted(taken, key=place)
        taken_given = [self.units[p] for p in positions if p < self.n_given]
        for position in positions:
            unit = self.units[position]
            yield unit
            if not unit.given:
                clashes = unit.binds & self.given_names
                for other in taken_given if clashes else []:
                    if any(not _same(unit, other, n) for n in clashes & other.binds):
                        yield other

    def edits_of_given(self, names: Collection[str]) -> Iterator[str]:
        for unit in self.student:
            for name in sorted((unit.binds | unit.changes) & self.given_names & set(names)):
                sources = [u for u in self.units[: self.n_given] if name in u.binds | u.changes]
                if any(_same(unit, other, name) for other in sources):
                    continue
                if name in unit.binds:
                    what = "your own version is not used"
                elif name not in self.imports:
                    what = "your change to it is not used"
                else:
                    continue
                yield f"cell {unit.cell}: `{name}` is given by the course; {what}"


@functools.lru_cache(maxsize=1)  # a submission's exercises come one after the other
def _indexed(
    student: tuple[Unit, ...], given: tuple[Unit, ...], exercises: frozenset[str]
) -> _Notebook:
    return _Notebook(student, given, exercises)


class _Search:
    """Follows names from unit to unit; each unit is followed once for every moment."""

    def __init__(self, notebook: _Notebook) -> None:
        self.notebook = notebook
        self.taken: set[int] = set()
        self.names: set[str] = set()
        self._done: set[tuple[str, int]] = set()
        self._followed: set[tuple[int, int]] = set()
        self._to_do: list[tuple[str, int]] = []
        self._n_read = 0

    def follow(self, names: Iterable[tuple[str, int]]) -> None:
        self._to_do += names
        while self._to_do:
            name, moment = self._to_do.pop()
            if self._n_read > MANY:
                moment = END
            if (name, moment) not in self._done:
                self._done.add((name, moment))
                self.names.add(name)
                for position in self.notebook.chain(name, moment):
                    self.take(position, moment)

    def take(self, position: int, moment: int) -> None:
        """Takes a unit that is used at a moment: what it reads is needed then or before."""
        if (position, moment) in self._followed:
            return
        self._followed.add((position, moment))
        self.taken.add(position)
        unit = self.notebook.units[position]
        self._n_read += len(unit.reads)
        self._to_do += [(name, position) for name in unit.at_once]
        # A function called at once reads its globals now; what it made may read them later.
        moments = {moment, END}
        if unit.runs_code:
            moments.add(position)  # the lambda in `table = sorted(…)` is called where it stands
        self._to_do += [(name, m) for name in unit.reads - unit.at_once for m in moments]
        for word in unit.hints:
            if any(word in self.notebook.units[p].defines for p in self.notebook.binders[word]):
                self._to_do.append((word, END))


def _same(unit: Unit, other: Unit, name: str) -> bool:
    """Whether two units give a name the same meaning, however it is written."""
    if unit.source == other.source:
        return True
    try:
        return _meaning(unit.source, name) <= _meaning(other.source, name)
    except REFUSALS:
        return False


def _meaning(source: str, name: str) -> set[str]:
    meanings: set[str] = set()
    for s in ast.parse(source).body:
        if isinstance(s, ast.Import):
            for a in s.names:
                if a.asname == name:
                    meanings.add(a.name)
                elif not a.asname and a.name.partition(".")[0] == name:
                    meanings.add(name)
        elif isinstance(s, ast.ImportFrom):
            found = [a.name for a in s.names if (a.asname or a.name) == name]
            meanings |= {f"{s.module}.{a}" for a in found}
        elif name in stored_in(nodes := run_at_once([s])) or name in changed_by(nodes)[0]:
            for node in ast.walk(s):
                body = getattr(node, "body", None)
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                    node.body = (body or [])[1:] or [ast.Pass()]
            meanings.add(ast.dump(s))
    return meanings
