"""Which top-level statements of a notebook must run so that one exercise works, and no others.

`slice_for` follows names from the exercise's last definition to the units that bind and change them.
A name that a unit reads at once is what the last binding before it says; if there is none, a later
one, for cells may stand in any order. A name that a function's body reads is what the last binding
of the notebook says.

A binding replaces the earlier ones and what was done to them (`T = {}` after `T["a"] = 1`), unless
it reads the name itself (`f = cache(f)`) or may not happen (inside `if`, `for`, `try`). A bare call
is taken only where it changes something needed: side_effects.py says what counts. A unit
that runs `exec` or writes to `globals()` may bind every name in its text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import filterfalse, islice

from autograder.slicing.bindings import END, Bindings, index_bindings
from autograder.slicing.same_name import has_same_effect
from autograder.slicing.side_effects import is_mutating
from autograder.slicing.statements import Unit, parse_units

__all__ = ["Code", "Unit", "parse_units", "slice_for"]

# Of one exercise. No honest notebook comes near; what is beyond is left out and told.
MAX_TAKEN = 5_000  # units
MAX_FOLLOWED = 50_000  # names at a moment
MANY = 500_000  # steps, after which only last bindings are followed
MAX_EDITS = 20  # edits of given names that are told
MAX_COMPARED = 200  # of a given name: statements that may edit it


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


def slice_for(
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
    for position in notebook.always:
        search.take(position, END)
    search.follow([])
    # Only now is it known which functions the exercise calls itself: their calls elsewhere are
    # demonstrations, while a call of another one may fill a table (`init_tables()`, `register(f)`).
    search.fill(frozenset(search.names))
    names = set(search.names)
    problems = list(notebook.edits_of_given(names))
    if search.is_cut:
        problems.append(f"`{exercise}` needs too many statements of the notebook to be followed")
    return Code(
        units=tuple(notebook.in_order(search.taken)),
        reached=frozenset(
            {n for n in names if n in exercises and notebook.binders[n]} - {exercise}
        ),
        problems=tuple(problems),
    )


class _Notebook:
    """The units of the course and the student in one line, and who binds and changes what."""

    def __init__(
        self, student: Sequence[Unit], given: Sequence[Unit], exercises: frozenset[str]
    ) -> None:
        self.key = student, given, exercises
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
        self.always = [position for position, unit in enumerate(self.units) if unit.always]
        self.defined_here = {n for u in own for n in u.defines - u.imports}
        self.classes = {n for u in self.units if u.is_class for n in u.binds}
        self.functions = {n for u in self.units if not u.is_class for n in u.defines - u.imports}
        self.changing_arguments = {n for u in self.units if u.changes_arguments for n in u.binds}
        self.aliases = {
            name: sources
            for u in self.units
            for name, sources in u.made_from
            if not sources.isdisjoint(self.classes) and not u.runs_code
        }
        self.binders: dict[str, list[int]] = defaultdict(list)
        self.defined: set[str] = set()
        for position, unit in enumerate(self.units):
            for name in unit.binds:
                if self._may_bind(position, name) and self._is_definition(unit, name):
                    self.binders[name].append(position)
                    if name in unit.defines:
                        self.defined.add(name)
        self.imports = {n for n, ps in self.binders.items() if n in self.units[ps[-1]].imports}
        self.changers = self._changers()
        self._bindings: dict[str, Bindings] = {}
        self._reads: dict[int, tuple[list[str], list[str]]] = {}
        self._same: dict[tuple[int, int], bool] = {}
        self._edits: dict[str, list[tuple[int, str, str]]] = {}
        self._index_calls()

    def _may_bind(self, position: int, name: str) -> bool:
        return position < self.n_given or name not in self.given_names

    def _is_definition(self, unit: Unit, name: str) -> bool:
        """False where an exercise's name is taken for a result or another library's function.

        `out, attention = layer(x)` and `from torch.nn import LayerNorm`, for a comparison, do not
        replace the student's own definition.
        """
        if name not in self.exercises or name not in self.defined_here:
            return True
        if name in unit.defines:
            return name not in unit.imports
        return any(
            not sources.isdisjoint(self.defined_here)
            for target, sources in unit.made_from
            if target == name
        )

    def _changers(self) -> dict[str, list[int]]:
        """The units that change each name's object.

        `nn.Module.device = property(…)` is the student's, `KeyValueCache.append = …` is not.
        """
        sources: dict[str, list[frozenset[str]]] = defaultdict(list)
        classes_with: dict[str, set[str]] = defaultdict(set)
        for unit in self.units:
            for name, mentioned in unit.made_from:
                sources[name].append(mentioned)
            for method in unit.methods:
                classes_with[method] |= unit.binds
        made_from: dict[str, frozenset[str]] = {}

        def is_own(name: str, method: str) -> bool:
            if method not in classes_with:
                return False
            if name not in made_from:
                made_from[name] = frozenset({name}).union(*sources[name])
            return not made_from[name].isdisjoint(classes_with[method])

        changers: dict[str, list[int]] = defaultdict(list)
        for position, unit in enumerate(self.units):
            called = {
                name
                for name, method in unit.calls
                # No module: `torch.add(…)`, `plt.rcParams.update(…)`
                if name not in self.imports and (is_mutating(method) or is_own(name, method))
            }
            for name in unit.changes | called | set(self._extended_by(unit)):
                if self._may_bind(position, name) or name in self.imports:
                    changers[name].append(position)
        return changers

    def _extended_by(self, unit: Unit) -> Iterator[str]:
        """The classes of the notebook that a unit gives methods."""
        for extension in unit.extends:
            if extension.attached and extension.attached not in self.functions:
                continue
            if extension.by and extension.by not in self.changing_arguments:
                continue
            for name in {extension.target, *self.aliases.get(extension.target, ())}:
                if name in self.classes and name not in unit.binds:
                    yield name

    def _index_calls(self) -> None:
        """Who calls which function that changes what when it is called.

        A module is no table: a function that calls `torch.manual_seed` fills nothing.
        """
        self.functions_changing: dict[str, list[int]] = defaultdict(list)
        self.decorated: dict[str, list[int]] = defaultdict(list)
        self.called: dict[str, list[int]] = defaultdict(list)
        for position, unit in enumerate(self.units):
            if unit.effects and unit.reads.isdisjoint(self.exercises):
                for name in unit.effects - self.imports:
                    self.functions_changing[name].append(position)
            for name in unit.decorators:
                self.decorated[name].append(position)
            for name in unit.called:
                self.called[name].append(position)

    def chain(self, name: str, moment: int) -> Sequence[int]:
        """The units that make what the name stands for at a moment: a binding, and its changes."""
        if name not in self.binders and name not in self.changers:
            return ()
        if name not in self._bindings:
            self._bindings[name] = index_bindings(
                name, self.binders[name], self.changers[name], self.units
            )
        return self._bindings[name].chain(moment)

    def reads(self, position: int) -> tuple[list[str], list[str]]:
        """The names that a unit reads at once and later, of those that anything here has to do with."""
        if position not in self._reads:
            unit = self.units[position]
            known = {
                n
                for n in unit.reads
                if n in self.binders or n in self.changers or n in self.functions_changing
            }
            self._reads[position] = list(known & unit.at_once), list(known - unit.at_once)
        return self._reads[position]

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
        for position in positions:
            unit = self.units[position]
            yield unit
            if not unit.given and not unit.binds.isdisjoint(self.given_names):
                for other in self._hidden_by(position):
                    if other in taken:
                        yield self.units[other]

    def _hidden_by(self, position: int) -> list[int]:
        """The given units whose names a student's unit gives another meaning."""
        unit = self.units[position]
        clashes = unit.binds & self.given_names
        others = {p for name in clashes for p in self.binders[name] if p < self.n_given}
        return [p for p in sorted(others) if self._differs(position, p, clashes)]

    def _differs(self, position: int, other: int, clashes: Collection[str]) -> bool:
        key = position, other
        if key not in self._same:
            unit, given = self.units[position], self.units[other]
            self._same[key] = all(
                has_same_effect(unit, given, n) for n in given.binds & set(clashes)
            )
        return not self._same[key]

    def edits_of_given(self, names: Collection[str]) -> Iterator[str]:
        """What the student does to given names of these, in words."""
        found = [e for name in self.given_names.intersection(names) for e in self._edits_of(name)]
        return (message for _, _, message in islice(sorted(found), MAX_EDITS))

    def _edits_of(self, name: str) -> list[tuple[int, str, str]]:
        if not self._edits:
            self._edits = {n: [] for n in self.given_names}
            compared: dict[str, int] = defaultdict(int)
            for position, unit in enumerate(self.student):
                for each in (unit.binds | unit.changes) & self.given_names:
                    compared[each] += 1
                    if compared[each] <= MAX_COMPARED and (what := self._edit(unit, each)):
                        message = f"cell {unit.cell}: `{each}` is given by the course; {what}"
                        self._edits[each].append((position, each, message))
        return self._edits[name]

    def _edit(self, unit: Unit, name: str) -> str:
        sources = [u for u in self.units[: self.n_given] if name in u.binds | u.changes]
        if any(has_same_effect(unit, other, name) for other in sources):
            return ""
        if name in unit.binds:
            return "your own version is not used"
        return "" if name in self.imports else "your change to it is not used"


_last: _Notebook | None = None  # a submission's exercises come one after the other


def _indexed(
    student: tuple[Unit, ...], given: tuple[Unit, ...], exercises: frozenset[str]
) -> _Notebook:
    global _last
    if _last is None or _last.key != (student, given, exercises):
        _last = _Notebook(student, given, exercises)
    return _last


class _Search:
    """Follows names from unit to unit; each unit is followed once for every moment."""

    def __init__(self, notebook: _Notebook) -> None:
        self.notebook = notebook
        self.taken: set[int] = set()
        self.names: dict[str, None] = {}
        self.is_cut = False
        self._settled: set[int] = set()  # taken, and the same at every moment
        self._done: set[tuple[str, int]] = set()
        self._followed: set[tuple[int, int]] = set()
        self._to_do: list[tuple[str, int]] = []
        self._steps = 0

    def follow(self, names: Iterable[tuple[str, int]]) -> None:
        self._to_do += names
        while self._to_do and not self.is_cut:
            name, moment = self._to_do.pop()
            if self._steps > MANY:
                moment = END
            if (name, moment) not in self._done:
                self._done.add((name, moment))
                self.names[name] = None
                self.is_cut = len(self._done) > MAX_FOLLOWED
                chain = self.notebook.chain(name, moment)
                self._steps += len(chain)
                for position in filterfalse(self._settled.__contains__, chain):
                    self.take(position, moment)

    def take(self, position: int, moment: int) -> None:
        """Takes a unit that is used at a moment: what it reads is needed then or before."""
        if (position, moment) in self._followed or self.is_cut:
            return
        self._followed.add((position, moment))
        unit = self.notebook.units[position]
        at_once, later = self.notebook.reads(position)
        if position not in self.taken:
            self.taken.add(position)
            self.is_cut = len(self.taken) > MAX_TAKEN
            # A function called at once reads its globals now; what it made may read them later.
            moments = {moment, END}
            if unit.runs_code:
                moments.add(position)  # the lambda in `table = sorted(…)` is called where it stands
            self._to_do += [(name, position) for name in at_once]
            self._to_do += [(w, END) for w in unit.hints if w in self.notebook.defined]
            if not later:
                self._settled.add(position)
        else:
            moments = {moment}
        self._steps += 10 + len(later)
        self._to_do += [(name, m) for name in later for m in moments]

    def fill(self, reached: Collection[str]) -> None:
        """Takes calls of functions that change what is needed, unless the exercise calls them itself."""
        notebook = self.notebook
        seen: set[int] = set()
        n_filled = 0
        while n_filled < len(self.names):
            new = list(islice(reversed(self.names), len(self.names) - n_filled))
            n_filled = len(self.names)
            callers: list[int] = []
            changing = {p for name in new for p in notebook.functions_changing[name]} - seen
            seen |= changing
            functions = {f for p in changing for f in notebook.units[p].binds}
            for function in functions - notebook.exercises:
                callers += notebook.decorated[function]
                callers += [] if function in reached else notebook.called[function]
            for position in callers:
                if position not in self.taken:
                    self.take(position, END)
            self.follow([])
