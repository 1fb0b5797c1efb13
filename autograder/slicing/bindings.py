"""Find the units (top-level statements) that define the object to which a name refers at a given moment.

A moment is a unit's position in the notebook. The object at that moment is the one that the unit sees when it runs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.slicing.unit import Unit

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
    pure_binders = {p for p in binders if name not in units[p].at_once}
    first = min(pure_binders or binders, default=0)
    changing = set(changers)
    uses = sorted({*binders, *changers})
    return Bindings(
        first,
        uses,
        [p for p in sorted(binders) if p >= first and name in units[p].surely],
        frozenset(
            p
            for p in uses
            if (p < first and (p in changing or p not in pure_binders))
            or (name in units[p].imports and p in changing)  # `import torch.fx` stays in effect
        ),
    )
