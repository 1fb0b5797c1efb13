"""Who binds and changes a name, and which of those make what the name means at a moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.slicing.statements import Unit

END = 1 << 60  # a moment after every unit: when the grader calls the exercise


@dataclass(frozen=True)
class Bindings:
    """The units that bind or change one name, by position."""

    first: int  # the first unit that binds it without reading it
    everything: Sequence[int]
    replacing: Sequence[int]  # what was done to the name before is gone, whichever way an `if` goes
    kept: frozenset[int]  # belong to the name at every moment

    def chain(self, moment: int) -> Sequence[int]:
        """The units that make what the name stands for at a moment: a binding, and its changes."""
        if moment <= self.first:
            moment = END
        number = bisect_left(self.replacing, moment)
        start = self.replacing[number - 1] if number else 0
        low, high = bisect_left(self.everything, start), bisect_left(self.everything, moment)
        found = self.everything[low:high]
        if self.kept:
            return sorted(self.kept.union(found))
        return found


def index_bindings(
    name: str, binders: Sequence[int], changers: Sequence[int], units: Sequence[Unit]
) -> Bindings:
    """Puts the positions of units that bind and change a name in order."""
    # What reads the name before anything has bound it can only have been run later.
    alone = {p for p in binders if name not in units[p].at_once}
    first = min(alone or binders, default=0)
    changing = set(changers)
    everything = sorted({*binders, *changers})
    return Bindings(
        first,
        everything,
        [p for p in sorted(binders) if p >= first and name in units[p].surely],
        frozenset(
            p
            for p in everything
            if (p < first and (p in changing or p not in alone))
            or (name in units[p].imports and p in changing)  # `import torch.fx` stays done
        ),
    )
