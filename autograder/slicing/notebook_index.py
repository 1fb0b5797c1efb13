"""Index a notebook's units by the names they bind, change or call."""

from __future__ import annotations

import builtins
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from autograder.slicing.side_effects import is_mutating
from autograder.slicing.unit import Unit, without_main_guard

BUILTINS = frozenset(dir(builtins))


class NotebookIndex:
    """An index of the names in the course's units and the student's units. Positions are indices into `units`.

    `preferred` contains the names for which the student's own functions and classes replace the course's.

    If `wide_for` is the name of an exercise, every binding of that name counts as a definition of the exercise. The student's
    definitions take precedence over statements copied from the release (`released`) and, where possible, over the course's
    definitions. Code under `if __name__ == "__main__":` is included, but demonstrations are not.
    """

    def __init__(
        self,
        student: Sequence[Unit],
        given: Sequence[Unit],
        exercises: frozenset[str],
        prefer_own: bool,
        wide_for: str = "",
        released: Collection[str] = (),
    ) -> None:
        self.key = student, given, exercises
        self.wide_for = wide_for
        given = [u for u in given if not u.main_only]
        copies = {unit.source for unit in given}
        self.student = student
        self.n_given = len(given)
        self.exercises = exercises
        self.released = released
        own = [
            without_main_guard(u) if u.main_only else u
            for u in student
            if (wide_for or not u.main_only) and (u.source not in copies or u.binds & exercises)
        ]
        self.units = [*given, *own]
        given_names = {n for u in given for n in u.binds} - exercises
        self.preferred = given_names & self._redefinitions(own, given, prefer_own)
        self.given_names = given_names - self.preferred
        self.bound_elsewhere = {
            n
            for u in self.units
            if not u.is_demonstration and u.source not in released
            for n in u.binds
        }
        self.always = [position for position, unit in enumerate(self.units) if unit.needed_by_all]
        self.defined_here = {
            n for u in own if u.source not in released for n in u.defines - u.imports
        }
        self.classes = {n for u in self.units if u.is_class for n in u.binds}
        self.imported_here = {n for u in own for n in u.imports}
        self.functions = {n for u in self.units if not u.is_class for n in u.defines - u.imports}
        self.changing_arguments = {n for u in self.units if u.changes_arguments for n in u.binds}
        self.aliases = {
            name: sources
            for u in self.units
            for name, sources in u.made_from
            if not sources.isdisjoint(self.classes) and not u.runs_code
        }
        self._index_binders()
        self.imports = {n for n, ps in self.binders.items() if n in self.units[ps[-1]].imports}
        self.changers = self._index_changers()
        self._bindings: dict[tuple[str, bool], Bindings] = {}
        self._reads: dict[int, tuple[list[str], list[str]]] = {}
        self._index_calls()

    def _redefinitions(
        self, own: Sequence[Unit], given: Sequence[Unit], prefer_own: bool
    ) -> set[str]:
        """Return the names for which the student's definitions replace the course's."""
        if not self.wide_for:
            return _redefined(own, given, self.student) if prefer_own else set()
        replaceable = {n for u in given if u.is_replaceable for n in u.binds}
        return {n for u in own if u.source not in self.released for n in u.binds & replaceable}

    def _index_binders(self) -> None:
        """Index the units that bind each name. `defined` contains the names that they define."""
        self.binders: dict[str, list[int]] = defaultdict(list)
        self.defined: set[str] = set()
        for position, unit in enumerate(self.units):
            for name in unit.binds:
                if self._may_bind(position, name) and self._is_definition(unit, name):
                    self.binders[name].append(position)
                    if name in unit.defines:
                        self.defined.add(name)

    def _may_bind(self, position: int, name: str) -> bool:
        """Return whether a unit may define or change the object that a name refers to.

        Demonstrations use names freely, so other definitions of the same names take precedence.
        """
        unit = self.units[position]
        if unit.is_demonstration and (self.wide_for or name in self.bound_elsewhere):
            return False
        if unit.source in self.released and not unit.given and name in self.bound_elsewhere:
            return False
        if position < self.n_given:
            return name not in self.preferred
        return name not in self.given_names

    def _is_definition(self, unit: Unit, name: str) -> bool:
        """Return False if a unit binds an exercise's name to something other than the student's definition.

        Examples include `total, mean = summarize(x)`, which binds a result, and `from torch.nn import LayerNorm` in a
        check.
        """
        if name not in self.exercises or name not in self.defined_here or name == self.wide_for:
            return True
        if name in unit.defines:
            return name not in unit.imports
        return _is_made_from(unit, name, self.defined_here)

    def _without_experiments(self, name: str) -> set[int]:
        """Return the units that bind or change a name, except for experiments.

        An experiment rebinds a function, import or built-in to data, for example `for step in range(3)` after `def step`.
        Experiments are ignored in functions that are called at the end of the notebook. If an exercise does need an
        experiment, its wider slice contains the experiment.
        """
        kept: set[int] = set()
        # Whether the name refers to an experiment's data, which later units may change.
        is_data = False
        for position in sorted({*self.binders[name], *self.changers[name]}):
            unit = self.units[position]
            if name in unit.binds:
                is_data = self._is_experiment(unit, name) or (is_data and name in unit.reads_now)
            if not is_data:
                kept.add(position)
        return kept

    def _is_experiment(self, unit: Unit, name: str) -> bool:
        helpers = self.defined_here - self.exercises  # results of exercises are data
        if name in self.defined_here:
            if name in unit.defines:
                return name in unit.imports
            return name not in unit.reads_now and not _is_made_from(unit, name, helpers)
        if name in unit.defines or _is_made_from(unit, name, helpers):
            return False
        return name in self.imported_here or name in BUILTINS

    def _index_changers(self) -> dict[str, list[int]]:
        """Map each name to the positions of the units that change its object.

        Ignore students' changes to objects that the course provides, unless the object is an import. For example,
        `nn.Module.device = property(…)` counts.
        """
        sources: dict[str, list[frozenset[str]]] = defaultdict(list)
        classes_with: dict[str, set[str]] = defaultdict(set)
        for unit in self.units:
            for name, mentioned in unit.made_from:
                sources[name].append(mentioned)
            for method in unit.methods:
                classes_with[method] |= unit.binds
        made_from: dict[str, frozenset[str]] = {}

        def is_own_method(name: str, method: str) -> bool:
            """Return whether `name.method()` may change the object called `name`.

            Only methods of classes defined in the notebook are considered.
            """
            if method not in classes_with:
                return False
            if name not in made_from:
                made_from[name] = frozenset({name}).union(*sources[name])
            return not made_from[name].isdisjoint(classes_with[method])

        changers: dict[str, list[int]] = defaultdict(list)
        for position, unit in enumerate(self.units):
            mutated = {
                name
                for name, method in unit.calls
                # Functions in a module, such as `torch.add(…)` and `plt.rcParams.update(…)`, are not methods.
                if name not in self.imports and (is_mutating(method) or is_own_method(name, method))
            }
            for name in unit.changes | mutated | set(self._extended_by(unit)):
                if self._may_bind(position, name) or name in self.imports:
                    changers[name].append(position)
        return changers

    def _extended_by(self, unit: Unit) -> Iterator[str]:
        """Yield the notebook's classes that a unit adds methods to."""
        for extension in unit.extends:
            if extension.attached and extension.attached not in self.functions:
                continue
            if extension.by and extension.by not in self.changing_arguments:
                continue
            for name in {extension.target, *self.aliases.get(extension.target, ())}:
                if name in self.classes and name not in unit.binds:
                    yield name

    def _index_calls(self) -> None:
        """Index functions that change a global name when called, and the units that call them or use them as decorators.

        A class with `__init_subclass__` is treated like a decorator of its subclasses.

        Changes to modules are ignored, because calls such as `torch.manual_seed(0)` do not set up data that an exercise
        needs.
        """
        self.functions_changing: dict[str, list[int]] = defaultdict(list)
        self.received_by: dict[str, list[int]] = defaultdict(list)
        self.called: dict[str, list[int]] = defaultdict(list)
        inherited: dict[str, frozenset[str]] = defaultdict(frozenset)
        for position, unit in enumerate(self.units):
            effects = unit.effects
            if unit.is_class:
                effects = effects.union(*(inherited[name] for name in unit.receivers))
                inherited |= dict.fromkeys(unit.binds, effects)
            if effects and (unit.is_class or unit.reads.isdisjoint(self.exercises)):
                for name in effects - self.imports:
                    self.functions_changing[name].append(position)
            for name in unit.receivers:
                self.received_by[name].append(position)
            for name in unit.called:
                self.called[name].append(position)

    def units_defining(self, name: str, moment: int) -> Sequence[int]:
        """Return the positions of the units that define the object that a name refers to at a given moment.

        See `Bindings.units_at`.
        """
        if name not in self.binders and name not in self.changers:
            return ()
        key = name, moment == END
        if key not in self._bindings:
            binders, changers = self.binders[name], self.changers[name]
            if moment == END and not self.wide_for and name not in self.exercises:
                kept = self._without_experiments(name)
                binders = [position for position in binders if position in kept]
                changers = [position for position in changers if position in kept]
            self._bindings[key] = index_bindings(name, binders, changers, self.units)
        return self._bindings[key].units_at(moment)

    def reads(self, position: int) -> tuple[list[str], list[str]]:
        """Return the names that a unit reads when it runs and the names it reads when its functions are called.

        Names that no unit binds or changes are excluded.
        """
        if position not in self._reads:
            unit = self.units[position]
            known = {
                n
                for n in unit.reads
                if n in self.binders or n in self.changers or n in self.functions_changing
            }
            self._reads[position] = list(known & unit.reads_now), list(known - unit.reads_now)
        return self._reads[position]


def _is_made_from(unit: Unit, name: str, own: Collection[str]) -> bool:
    """Return whether a unit binds a name to one of these definitions or to a value made from one, such as `cache(g)`."""
    return any(target == name and not sources.isdisjoint(own) for target, sources in unit.made_from)


def _redefined(own: Sequence[Unit], given: Sequence[Unit], student: Sequence[Unit]) -> set[str]:
    """Return the names of replaceable functions and classes that the student redefined without deleting the originals."""
    optional = {u.source: u.defines - u.imports for u in given if u.is_replaceable}
    kept = set[str]().union(*(optional.get(u.source, ()) for u in student))
    return kept & {n for u in own if not u.is_demonstration for n in u.defines - u.imports}


END = 1 << 60  # the moment when the grader calls the exercise, after all units


@dataclass(frozen=True)
class Bindings:
    """The units that bind or change one name, as sorted positions."""

    first: int  # the first unit that binds the name without reading it
    uses: Sequence[int]  # all units that bind or change the name
    replacements: Sequence[int]  # units that always bind the name, which discards earlier changes
    permanent: frozenset[int]  # units that `units_at` returns for every moment

    def units_at(self, moment: int) -> Sequence[int]:
        """Return the units that define the object that the name refers to at a given moment.

        Of the units before that moment, the result contains the last one that is certain to bind the name, and any
        later ones that bind or change it. If no earlier unit binds the name, the cells are out of order, so use the
        object at the end of the notebook.
        """
        end = moment if moment > self.first else END
        n_replacements = bisect_left(self.replacements, end)
        start = self.replacements[n_replacements - 1] if n_replacements else 0
        in_effect = self.uses[bisect_left(self.uses, start) : bisect_left(self.uses, end)]
        return sorted(self.permanent.union(in_effect)) if self.permanent else in_effect


def index_bindings(
    name: str, binders: Sequence[int], changers: Sequence[int], units: Sequence[Unit]
) -> Bindings:
    """Index the positions of the units that bind or change a name."""
    # A unit that also reads the name cannot be the first unit to bind it.
    pure_binders = {p for p in binders if name not in units[p].reads_now}
    first = min(pure_binders or binders, default=0)
    changing = set(changers)
    uses = sorted({*binders, *changers})
    return Bindings(
        first,
        uses,
        [p for p in sorted(binders) if p >= first and name in units[p].always_binds],
        frozenset(
            p
            for p in uses
            if (p < first and (p in changing or p not in pure_binders))
            or (name in units[p].imports and p in changing)  # `import torch.fx` stays in effect
        ),
    )
