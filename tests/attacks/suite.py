"""Read the attacks and the honest controls: student cells in `cells/`, one file per family.

A cell begins with its name. Its `#:` lines state what stops it and which effect it has otherwise:

    # %% the secret that inputs are drawn by
    #: stopped by namespaces, landlock
    #: effect leaks

Layers of the kernel (namespaces, landlock, seccomp, limits) are disabled to show that the attack is real. Defences by design
are tested differently: `process` by running the same code in the grader's own process, `needs` by running the whole notebook,
`rule` by dropping `not_allowed`, `escaping` by showing the text before it is sanitized, and `wire`, `deadline` and `inputs`
by what the grader `says`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CELLS = Path(__file__).parent / "cells"
KERNEL = ("namespaces", "landlock", "seccomp", "limits")
DESIGN = ("process", "needs", "rule", "escaping", "wire", "deadline", "inputs")
EFFECTS = {
    "leaks": "a canary of the course comes back in marks, messages or problems",
    "marks": "it earns points that its code does not deserve, or the kernel does what it asks",
    "changes": "a file of the course is written, removed or created",
    "connects": "a socket outside receives something",
    "signals": "the grader receives a signal",
    "survives": "a process is left afterwards",
    "remains": "shared memory or a file is left afterwards",
    "marker": "the next submission finds a trace",
    "shows": "control characters or invisible characters are shown",
    "costs": "the exercise loses marks",
    "grows": "the grader has more descriptors open than before",
}
FAMILIES = (
    *("read", "tamper", "forge", "escape", "exhaust", "persist", "exfiltrate", "inject", "cheat"),
)


@dataclass(frozen=True)
class Attack:
    """A student's cell, its defences, and the effect that it has without them."""

    family: str
    name: str
    source: str
    stopped_by: tuple[str, ...]
    effect: str = ""
    says: str = ""
    status: str = ""
    exercise: str = "causal_mask"
    seconds: float = 5.0
    user: str = "nobody"  # the user who can show the effect

    @property
    def kernel(self) -> tuple[str, ...]:
        """Return the kernel's layers among its defences."""
        return tuple(layer for layer in KERNEL if layer in self.stopped_by)


def read(family: str) -> list[Attack]:
    """Return the cells of one file."""
    text = (CELLS / f"{family}.py").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^# %% ", text, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        options = dict(re.findall(r"^#: (stopped by|\w+) (.*)$", body, re.M))
        source = re.sub(r"^#: .*\n", "", body, flags=re.M).strip() + "\n"
        layers = tuple(options.pop("stopped by", "").replace(",", " ").split())
        seconds = float(options.pop("seconds", 5))
        found.append(Attack(family, name, source, layers, seconds=seconds, **options))
    return found


ATTACKS = [attack for family in FAMILIES for attack in read(family)]
HONEST = read("honest")
